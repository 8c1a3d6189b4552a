"""Kills, failing disks and damaged files over train, resume, features and predict, for some minutes.

Nothing that was complete may be lost, nothing may end by a signal that was not sent, and what is
gone on with must end like a run that nothing happened to. Random, from a seed that is printed; a
failure prints what it takes to see it again.

  make soak [MINUTES=20]
"""
import argparse
import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import graft_testing as t

SHIM = t.TOOLS / "libfailing_disk.so"
OPTIONS = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--until", "block2_pool",
           "--head", "conv:8 gap", "--epochs", "4", "--seed", "3", "--no-report", "--threads", "2"]


class Failure(Exception):
    pass


def require(holds, *what):
    if not holds:
        raise Failure(" ".join(map(str, what)))


class Soak:
    def __init__(self, folder, seed):
        self.folder = folder
        self.random = random.Random(seed)
        self.data = folder / "data"
        t.draw_scenes(self.data, 6, size=40)
        self.images = sorted(self.data.rglob("*.jpg"))[:12]
        self.cache = folder / "cache"
        whole = folder / "whole"
        self.graft("train", self.data, "-o", whole, *OPTIONS, "--cache-dir", folder / "first-cache")
        self.model = self.weights(whole)
        self.history = self.epochs(whole)
        self.classifier = folder / "classifier.safetensors"
        shutil.copy(whole / "model.safetensors", self.classifier)
        self.half = self.interrupted_run()
        self.features = folder / "features.npy"
        self.graft(*self.features_command(self.features))
        self.feature_bytes = self.features.read_bytes()
        self.predictions = self.graft("predict", self.classifier, *self.images, "--json").stdout

    # What is run.

    def environment(self, extra=None):
        return dict(os.environ, XDG_CACHE_HOME=str(self.folder / "xdg"), **(extra or {}))

    def graft(self, *arguments, environment=None, codes=(0,)):
        done = subprocess.run([t.GRAFT, *map(str, arguments)], capture_output=True, text=True,
                              errors="replace", timeout=120, env=self.environment(environment))
        what = f"graft {' '.join(map(str, arguments))} ({environment or ''}) ended with {done.returncode}: "
        require(done.returncode in codes, what, done.stderr[-1500:])
        if done.returncode != 0:
            require(any(line.startswith("graft: ") for line in done.stderr.splitlines()), what,
                    "no line of its own:", done.stderr[-500:])
        require("unexpected" not in done.stderr, what, done.stderr[-500:])
        return done

    def train_command(self, run):
        """The first training, or going on, whichever the folder asks for."""
        if (run / "config.toml").exists():
            return ["train", self.data, "--resume", run, "--cache-dir", self.cache]
        return ["train", self.data, "-o", run, "--force", *OPTIONS, "--cache-dir", self.cache]

    def features_command(self, file):
        return ["features", self.data, "--backbone", "vgg-mini", "--weights", "builtin", "--input-size",
                "32", "--until", "block2_pool", "-o", file]

    def start(self, arguments):
        return subprocess.Popen([t.GRAFT, *map(str, arguments)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, env=self.environment())

    # What must hold.

    def weights(self, run):
        tensors, _ = t.read_safetensors(run / "model.safetensors")
        return {name: values.tobytes() for name, values in tensors.items()}

    def epochs(self, run):
        """Without the seconds that they took."""
        return [{k: v for k, v in row.items() if k != "seconds"} for row in t.read_csv(run / "history.csv")]

    def ends_like_the_whole(self, run):
        self.graft(*self.train_command(run))
        require(self.weights(run) == self.model, run, "ended with other weights")
        require(self.epochs(run) == self.history, run, "ended with another history")
        left = [path for path in run.rglob("*") if ".tmp" in path.name]
        require(not left, "temporary files stayed:", left)

    def complete_model(self, run):
        if (run / "model.safetensors").exists():
            self.graft("predict", run, self.images[0])

    # The situations.

    def fresh(self, name):
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        return run

    def interrupted_run(self):
        """A run that was killed after its first epoch."""
        run = self.folder / "half"
        for _ in range(20):
            shutil.rmtree(run, ignore_errors=True)
            process = self.start(self.train_command(run))
            while process.poll() is None and not (run / "checkpoints" / "state.safetensors").exists():
                time.sleep(0.002)
            process.kill()
            process.communicate()
            if not (run / "metrics.json").exists() and (run / "checkpoints" / "state.safetensors").exists():
                return run
        raise Failure("no run could be stopped half-way: the machine is too fast")

    def kill_training(self):
        run = self.fresh("killed")
        if self.random.random() < 0.5:
            shutil.rmtree(self.cache, ignore_errors=True)
        for _ in range(self.random.randint(1, 4)):
            process = self.start(self.train_command(run))
            time.sleep(self.random.uniform(0.0, 2.5))
            process.kill()
            process.communicate()
            self.complete_model(run)
        self.ends_like_the_whole(run)

    def kill_features(self):
        file = self.folder / "kept.npy"
        shutil.copy(self.features, file)
        process = self.start(self.features_command(file))
        time.sleep(self.random.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        require(file.read_bytes() == self.feature_bytes, file, "was lost")
        self.graft(*self.features_command(file))
        require(not [p for p in self.folder.glob("*.tmp")], "temporary files stayed")

    def kill_predictions(self):
        process = self.start(["predict", self.classifier, *self.images, "--explain", self.folder / "why"])
        time.sleep(self.random.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        require(self.graft("predict", self.classifier, *self.images, "--json").stdout == self.predictions,
                "predictions changed")

    def failing(self, make_command, root, prepare, codes=(0, 1)):
        """The command with the disk failing at a random operation; what it counted without."""
        counter = self.folder / "counter"
        shim = {"LD_PRELOAD": str(SHIM), "GRAFT_DISK_ROOT": str(root), "GRAFT_DISK_COUNTER": str(counter)}
        counter.write_bytes(bytes(8))
        prepare()
        self.graft(*make_command(), environment=shim)
        count = int.from_bytes(counter.read_bytes(), "little")
        require(count > 0, "the shim counted nothing for", make_command())
        counter.write_bytes(bytes(8))
        how = self.random.choice(["once", "ever", "exit"])
        shim.update(GRAFT_DISK_AT=str(self.random.randint(1, count)), GRAFT_DISK_HOW=how,
                    GRAFT_DISK_ERRNO=str(self.random.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT])))
        prepare()
        if how != "exit":
            return self.graft(*make_command(), environment=shim, codes=codes)
        subprocess.run([t.GRAFT, *map(str, make_command())], capture_output=True, timeout=120,
                       env=self.environment(shim))
        return None

    def disk_in_training(self):
        run = self.folder / "failing"
        self.failing(lambda: self.train_command(run), self.folder,
                     lambda: (self.fresh("failing"), shutil.rmtree(self.cache, ignore_errors=True)))
        self.complete_model(run)
        self.ends_like_the_whole(run)

    def disk_in_resuming(self):
        run = self.folder / "failing"
        self.failing(lambda: self.train_command(run), self.folder,
                     lambda: shutil.copytree(self.half, self.fresh("failing")))
        self.complete_model(run)
        self.ends_like_the_whole(run)

    def disk_in_features(self):
        file = self.folder / "kept.npy"
        self.failing(lambda: self.features_command(file), self.folder,
                     lambda: shutil.copy(self.features, file))
        require(file.read_bytes() == self.feature_bytes, file, "was lost")

    def disk_in_predictions(self):
        why = self.folder / "why"
        done = self.failing(lambda: ["predict", self.classifier, *self.images, "--json", "--explain", why],
                            self.folder, lambda: self.fresh("why"))
        for file in why.glob("*.png") if why.exists() else ():
            require(file.read_bytes().endswith(b"IEND\xaeB`\x82"), file, "is cut off")
        if done is not None and done.returncode == 0:
            require(len(list(why.glob("*.png"))) == len(self.images), "overlays are missing, exit 0")

    def damage(self, file):
        data = bytearray(file.read_bytes())
        kind = self.random.choice(["cut", "empty", "noise", "range", "flips", "zeros"])
        at = self.random.randrange(len(data) + 1)
        if kind == "cut":
            del data[at:]
        elif kind == "empty":
            data.clear()
        elif kind == "noise":
            data[:] = self.random.randbytes(len(data))
        elif kind == "range":
            n = min(len(data) - at, self.random.randint(1, 8192))
            data[at:at + n] = self.random.randbytes(n)
        elif kind == "zeros":
            data[at:at + 4096] = bytes(len(data[at:at + 4096]))
        elif data:
            for _ in range(self.random.randint(1, 20)):
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        file.write_bytes(data)
        return kind

    def damaged_cache(self):
        run = self.fresh("cached")
        if not self.cache.exists():
            self.graft(*self.train_command(run))
            run = self.fresh("cached")
        files = [path for path in self.cache.rglob("*") if path.is_file()]
        chosen = self.random.sample(files, self.random.randint(1, min(2, len(files)))) if files else []
        for file in chosen:
            self.damage(file)
        self.graft("cache", "list", "--cache-dir", self.cache)
        if self.random.random() < 0.5:
            shutil.copytree(self.half, run)
        self.ends_like_the_whole(run)

    def damaged_state(self):
        run = self.fresh("damaged")
        shutil.copytree(self.half, run)
        self.damage(run / "checkpoints" / self.random.choice(["state.safetensors", "best.safetensors"]))
        done = self.graft("train", self.data, "--resume", run, "--cache-dir", self.cache, codes=(0, 1))
        if done.returncode == 0:
            require(self.weights(run) == self.model, "a damaged state was trained on")

    def damaged_model(self):
        model = self.folder / "damaged.safetensors"
        shutil.copy(self.classifier, model)
        before = model.read_bytes()
        self.damage(model)
        if model.read_bytes() != before:
            self.graft("predict", model, self.images[0], codes=(1,))


SITUATIONS = ["kill_training", "kill_features", "kill_predictions", "disk_in_training", "disk_in_resuming",
              "disk_in_features", "disk_in_predictions", "damaged_cache", "damaged_state", "damaged_model"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=SITUATIONS, action="append")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    counts, failures = {}, []
    with tempfile.TemporaryDirectory(prefix="graft-soak-") as name:
        folder = pathlib.Path(name)
        soak = Soak(folder, seed)
        end = time.monotonic() + options.minutes * 60
        said = time.monotonic()
        number = 0
        while time.monotonic() < end:
            for situation in options.only or SITUATIONS:
                number += 1
                # Each from a seed of its own, so that one can be seen again alone.
                soak.random.seed(seed * 1_000_003 + number)
                try:
                    getattr(soak, situation)()
                except (Failure, subprocess.TimeoutExpired) as failure:
                    failures.append(situation)
                    print(f"FAILED {situation} (number {number}): {failure}", flush=True)
                counts[situation] = counts.get(situation, 0) + 1
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    print(f"{max(0, end - said) / 60:.1f} minutes left: {counts}, {len(failures)} failed",
                          flush=True)
                if time.monotonic() >= end:
                    break
    print(f"{sum(counts.values()) - len(failures)} passed, {len(failures)} failed")
    for situation, count in counts.items():
        print(f"  {situation}: {count}, {failures.count(situation)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
