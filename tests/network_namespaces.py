"""Machines of a network, as network namespaces of this one: for tests and measurements of groups, by root."""
import itertools
import os
import subprocess

_numbers = itertools.count()


class Unavailable(Exception):
    """Network namespaces cannot be made here."""


def _ip(*arguments):
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"ip: {error}") from error
    if done.returncode != 0:
        raise Unavailable(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Machines:
    """`count` namespaces, each with a cable to one switch."""

    def __init__(self, count, rate=None):
        """`rate`: of each cable, as tc takes it ("1gbit"); None: as fast as it goes."""
        tag = f"g{os.getpid() % 10000}n{next(_numbers)}"
        self.names = [f"{tag}m{k}" for k in range(count)]
        self.addresses = [f"10.87.0.{k + 1}" for k in range(count)]
        self._hub = f"{tag}hub"
        self._made = []
        try:
            self._make(rate)
        except BaseException:
            self.remove()
            raise

    def _make(self, rate):
        for name in (self._hub, *self.names):
            _ip("netns", "add", name)
            self._made.append(name)
        _ip("-n", self._hub, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "switch", "up")
        for k, (name, address) in enumerate(zip(self.names, self.addresses)):
            _ip("link", "add", "cable", "netns", name, "type", "veth", "peer", "name", f"port{k}", "netns", self._hub)
            _ip("-n", self._hub, "link", "set", f"port{k}", "master", "switch", "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            if rate:
                for where, device in ((name, "cable"), (self._hub, f"port{k}")):
                    subprocess.run(["tc", "-n", where, "qdisc", "add", "dev", device, "root", "tbf", "rate", rate,
                                    "burst", "256kb", "latency", "100ms"], check=True)

    def inside(self, k):
        """What a command's words are put behind to run on machine k."""
        return ("ip", "netns", "exec", self.names[k])

    def places(self, port=29500):
        """The environment of a process on each machine, all of one group."""
        return [dict(RANK=k, WORLD_SIZE=len(self.names), MASTER_ADDR=self.addresses[0], MASTER_PORT=port)
                for k in range(len(self.names))]

    def plug(self, k, connected):
        _ip("-n", self._hub, "link", "set", f"port{k}", "up" if connected else "down")

    def sent(self, k):
        """Bytes that machine k has sent."""
        out = subprocess.run([*self.inside(k), "cat", "/proc/net/dev"], capture_output=True, text=True, check=True)
        [line] = [line for line in out.stdout.splitlines() if line.strip().startswith("cable:")]
        return int(line.split(":")[1].split()[8])

    def remove(self):
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self._made = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()
