"""A training on several machines whose network and processes fail; by root, which may make network namespaces.

    python3 tests/robustness/group_faults.py [--kills 50] [--ranks 2] [--cuts 3] [--seconds 60] [--seed S]

- kills: a training on 2 or --ranks machines, of which a random one is killed at a random time, in its extraction too.
  It must end on all others within 30 s, with one line that names the rank. Every few kills it is resumed, with 1, 2 or
  --ranks processes, and makes an epoch more. No epoch of a checkpoint may be lost or become another, and the weights
  must at last be those of a training without a break.
- cuts: one machine's cable is pulled for so many seconds: all end within 30 s, and the run goes on once it is back.

Prints a line for each, and exits with 1 after the first that went wrong. `GRAFT_BUILD` names the build.
"""
import argparse
import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import graft_testing as t
from group_testing import clean_environment
from network_namespaces import Machines, Unavailable

import numpy as np

OPTIONS = ("--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--until", "block2_pool", "--fine-tune",
           "0", "--seed", "5", "--optimizer", "sgd", "--lr", "0.05", "--schedule", "constant", "--batch-size", "8",
           "--patience", "0",
           "--val-split", "0.2", "--head", "flatten dense:512 dropout:0.3", "--threads", "1", "--no-report", "--quiet")
LIMIT = 30


class Failure(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


class Faults:
    def __init__(self, machines, folder, rng):
        self.machines, self.folder, self.rng = machines, folder, rng
        self.data = folder / "data"
        self.run = folder / "run"
        self.seen = []
        t.draw_scenes(self.data, 12, 0, 40)

    def caches(self, k):
        """Each machine has its own."""
        return ("--cache-dir", str(self.folder / f"cache{k}"))

    def start(self, size, *arguments):
        places = self.machines.places()[:size]
        for place in places:
            place["WORLD_SIZE"] = size
        if size == 1:
            places = [{}]
        return [subprocess.Popen([*self.machines.inside(k), t.GRAFT, "train", str(self.data), *map(str, arguments),
                                  *self.caches(k)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                 env=clean_environment(**place, GRAFT_JOIN_TIMEOUT=15))
                for k, place in enumerate(places)]

    def begin_or_resume(self, size, epochs):
        if self.epochs() == 0:
            return self.start(size, *OPTIONS, "--epochs", epochs, "-o", self.run, "--force")
        return self.start(size, "--resume", self.run, "--epochs", epochs, "--threads", "1", "--quiet")

    def state(self):
        """The last checkpoint, that a resume must go on from: tensors, and the figures of its epochs."""
        state = self.run / "checkpoints" / "state.safetensors"
        if not state.exists():
            return {}, []
        tensors, metadata = t.read_safetensors(state)
        return tensors, json.loads(metadata["graft_training_state"])["history"]

    def epochs(self):
        """Of the last checkpoint. None that was there before may be another by now."""
        _, history = self.state()
        check(history[:len(self.seen)] == self.seen, f"the first {len(self.seen)} epochs were others before")
        self.seen = history
        return len(history)

    def wait_for_epoch(self, processes, after):
        begin = time.monotonic()
        while self.epochs() <= after:
            check(time.monotonic() - begin < 120, "no epoch in 120 s")
            check(all(process.poll() is None for process in processes),
                  f"ended by itself: {[process.stderr.read() for process in processes if process.poll() is not None]}")
            time.sleep(0.02)

    def end(self, processes, since, dead, reachable):
        """All must end in time, those that live with 1 and with one line that names who is gone."""
        said = []
        for k, process in enumerate(processes):
            left = LIMIT - (time.monotonic() - since)
            try:
                _, errors = process.communicate(timeout=max(left, 0.1))
            except subprocess.TimeoutExpired as error:
                raise Failure(f"rank {k} goes on {LIMIT} s after rank {dead} has gone") from error
            if k == dead and not reachable:
                continue
            lines = [line for line in errors.splitlines() if line.startswith("graft: ")]
            check(process.returncode == 1, f"rank {k} ended with {process.returncode}: {errors}")
            check(len(lines) <= 1, f"rank {k} said more than a line: {errors}")
            said += lines
        check(said, "nobody said why it ended")
        named = [line for line in said if re.match(rf"graft: (rank {dead}( of \d+)?\b|rank 0 )", line)]
        check(named or any(f"rank {dead} " in line for line in said), f"rank {dead} is not named: {said}")
        return time.monotonic() - since, said

    def kill(self, number, ranks):
        size = self.rng.choice([2, ranks])
        before = self.epochs()
        processes = self.begin_or_resume(size, 100_000)
        victim = self.rng.randrange(size)
        # Half of them while processes find each other and read features, half while they train.
        if self.rng.random() < 0.5:
            time.sleep(self.rng.uniform(0.3, 3))
        else:
            self.wait_for_epoch(processes, before)
            time.sleep(self.rng.uniform(0, 2))
        during = self.epochs()
        check(all(process.poll() is None for process in processes),
              f"ended by itself: {[process.stderr.read() for process in processes if process.poll() is not None]}")
        processes[victim].send_signal(signal.SIGKILL)
        since = time.monotonic()
        seconds, said = self.end(processes, since, victim, reachable=False)
        after = self.epochs()
        check(after >= during >= before, f"epochs are lost: {before}, {during}, then {after}")
        print(f"kill {number}: rank {victim} of {size} after {after} epochs ({after - before} new), "
              f"all ended in {seconds:.1f} s: {said[0]}", flush=True)

    def goes_on(self, size):
        """From the last checkpoint, for an epoch and more."""
        before = self.epochs()
        processes = self.begin_or_resume(size, 100_000)
        self.wait_for_epoch(processes, before)
        processes[0].terminate()
        errors = [process.communicate(timeout=60)[1] for process in processes]
        check(processes[0].returncode == 143, f"a stop ended with {processes[0].returncode}: {errors}")
        check(all(process.returncode in (1, 143) for process in processes), f"a stop: {errors}")

    def cut(self, number, size, seconds):
        before = self.epochs()
        processes = self.begin_or_resume(size, 100_000)
        self.wait_for_epoch(processes, before)
        victim = self.rng.randrange(size)
        self.machines.plug(victim, False)
        since = time.monotonic()
        took, said = self.end(processes, since, victim, reachable=True)
        time.sleep(max(0, seconds - (time.monotonic() - since)))
        self.machines.plug(victim, True)
        time.sleep(1)
        self.goes_on(size)
        print(f"cut {number}: the cable of rank {victim} of {size} for {seconds:.0f} s after {before} epochs, all "
              f"ended in {took:.1f} s: {said[0]}; gone on with to epoch {self.epochs()}", flush=True)

    def same_as_without_a_break(self):
        """However often it was killed, the run is the one that one process makes."""
        epochs = self.epochs()
        whole = self.folder / "whole"
        done = subprocess.run([t.GRAFT, "train", str(self.data), *OPTIONS, "--epochs", str(epochs), "-o", str(whole),
                               *self.caches(0)], capture_output=True, text=True, env=clean_environment())
        check(done.returncode == 0, done.stderr)
        mine, _ = self.state()
        other, _ = t.read_safetensors(whole / "checkpoints" / "last.safetensors")
        names = [name for name in mine if name in other]
        check(names, f"no weights in common: {list(mine)}, {list(other)}")
        worst = max(float(np.abs(mine[name] - other[name]).max() / np.abs(other[name]).max()) for name in names)
        print(f"after {epochs} epochs the weights are those of one process without a break, to {worst:.1e}")
        check(worst < 1e-3, "they are others")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="that a cable is pulled for")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        machines = Machines(options.ranks)
    except Unavailable as error:
        print(f"SKIPPED: network namespaces cannot be made here: {error}")
        return 77
    folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-faults-"))
    with machines:
        faults = Faults(machines, folder, random.Random(options.seed))
        try:
            for number in range(1, options.kills + 1):
                faults.kill(number, options.ranks)
                if number % 5 == 0 or number == options.kills:
                    faults.goes_on(faults.rng.choice([1, 2, options.ranks]))
            for number in range(1, options.cuts + 1):
                faults.cut(number, options.ranks, options.seconds)
            if faults.epochs() > 0:
                faults.same_as_without_a_break()
        except Failure as failure:
            print(f"FAILED: {failure}\nwhat is left: {folder}")
            return 1
    shutil.rmtree(folder)
    print("nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
