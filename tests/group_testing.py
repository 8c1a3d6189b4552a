"""What the tests of groups of processes share."""
import os
import socket
import subprocess

import graft_testing as t

# What Graft looks at, so that the test's own environment is out of the way.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ENVIRONMENT")


def clean_environment(**variables):
    out = {k: v for k, v in os.environ.items()
           if k not in VARIABLES and not k.startswith(("SLURM_", "OMPI_", "PMIX_", "TORCHELASTIC"))}
    return dict(out, **{k: str(v) for k, v in variables.items()})


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def torchrun(size, port=None):
    port = port or free_port()
    return [dict(RANK=r, WORLD_SIZE=size, LOCAL_RANK=r, LOCAL_WORLD_SIZE=size, MASTER_ADDR="127.0.0.1",
                 MASTER_PORT=port) for r in range(size)]


def over(base, *options):
    """Options of a command line, of which the later ones win."""
    out = {}
    for word in (*base, *options):
        if str(word).startswith("--"):
            name = word
            out[name] = []
        else:
            out[name].append(word)
    return [word for name, values in out.items() for word in (name, *values)]


class Processes(t.TestCase):
    COMMAND = "train"

    def start(self, places, *arguments, wrap=(), **more):
        """One process for each environment."""
        return [subprocess.Popen([*wrap, t.GRAFT, self.COMMAND, *map(str, arguments)], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, env=clean_environment(**place, **more))
                for place in places]

    def end(self, processes, timeout=120):
        out = [process.communicate(timeout=timeout) for process in processes]
        return [process.returncode for process in processes], [text for text, _ in out], [text for _, text in out]
