"""Limits that shells and batch systems set: a run fits them, or says in one line which is too low."""
import os
import re
import resource
import signal
import socket
import subprocess
import sys

import graft_testing as t
import h5py
import numpy as np

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

MEGABYTE = 1_000_000
NOBODY = 65534


class Limits(t.TestCase):
    def setUp(self):
        super().setUp()
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 6, 1, 32)

    def arguments(self, *more):
        options = {"--backbone": "vgg-mini", "--weights": "none", "--input-size": "32", "--head":
                   "gap", "--epochs": "1", "--cache-dir": self.folder / "cache"}
        options.update(zip(more[::2], more[1::2]))
        pairs = [part for pair in options.items() for part in pair]
        return ["train", self.data, "-o", self.folder / "run", "--force", "--quiet", "--no-report",
                *pairs]

    def run_limited(self, limit, value, *arguments, user=None):
        if os.environ.get("GRAFT_SANITIZED") and limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_NPROC):
            self.skipTest("sanitizers map memory and start threads of their own")

        def enter():
            resource.setrlimit(limit, value if isinstance(value, tuple) else (value, value))
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
        return subprocess.run([t.GRAFT, *map(str, arguments)], capture_output=True, text=True,
                              preexec_fn=enter, timeout=120)

    def refused(self, done, *words):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_address_space(self):
        # Whatever it is, a run ends well or is refused; it does not hang, and a larger limit is never worse.
        ended_well = []
        for size in (300, 500, 650, 800, 850, 900, 950, 1000, 1050, 1100, 1300, 2000):
            done = self.run_limited(resource.RLIMIT_AS, size * MEGABYTE, *self.arguments())
            ended_well.append(done.returncode == 0)
            if done.returncode != 0:
                self.refused(done, "ulimit -v", "raise")
            self.assertNotIn("cache", done.stderr)
        self.assertEqual(ended_well, sorted(ended_well))
        self.assertEqual(ended_well[-4:], [True] * 4)

    def test_the_address_space_asked_for_suffices(self):
        for more in (["--head", "flatten dense:1024 dense:512"], ["--head", "gap", "--views", "0"]):
            done = self.run_limited(resource.RLIMIT_AS, 921 * MEGABYTE, *self.arguments(*more))
            self.refused(done, "ulimit -v", "raise")
            asked = int(re.search(r"to (\d+) MB", done.stderr)[1])
            done = self.run_limited(resource.RLIMIT_AS, asked * MEGABYTE, *self.arguments(*more))
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_address_space_of_other_commands(self):
        self.succeed(*self.arguments())
        image = sorted(self.data.rglob("*.jpg"))[0]
        features = ["features", image, "--backbone", "vgg-mini", "--input-size", "32", "-o", self.folder / "x.npy"]
        run = self.folder / "run"
        for arguments in (["predict", run, image], ["evaluate", run, self.data], features):
            for size in (60, 120, 250, 500, 4000, 16000):
                done = self.run_limited(resource.RLIMIT_AS, size * MEGABYTE, *arguments)
                if done.returncode != 0:
                    self.assertLess(size, 4000, done.stderr)
                    self.assertIn(done.returncode, (1, 127))  # 127: the libraries themselves cannot be loaded
                    said = [line for line in done.stderr.splitlines() if "understood as" not in line]
                    self.assertEqual(len(said), 1, done.stderr)
        # What a large machine's batch system sets changes nothing, the cache's use included.
        for size in (4000, 16000):
            done = self.run_limited(resource.RLIMIT_AS, size * MEGABYTE, *self.arguments())
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_processes_and_images_that_another_program_decodes(self):
        """An image is not at fault where that program cannot be started."""
        if os.geteuid() != 0:
            self.skipTest("limits on processes do not hold for this user")
        from PIL import Image
        for path in sorted(self.data.rglob("*.jpg")):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
        done = self.run_limited(resource.RLIMIT_NPROC, (1, 1), "check", self.data, user=NOBODY)
        self.refused(done, "graft-read-image: cannot start this program")

    def test_data(self):
        for size in (50, 110, 150):
            done = self.run_limited(resource.RLIMIT_DATA, size * MEGABYTE, *self.arguments())
            self.refused(done, "ulimit -d", "raise it")
        for size in (200, 1000):
            done = self.run_limited(resource.RLIMIT_DATA, size * MEGABYTE, *self.arguments())
            if done.returncode != 0:
                self.refused(done, "ulimit -d")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_processor_time(self):
        # A soft limit, or one as ulimit -t sets it, which would end the process together with the warning.
        for limits in ((3, 60), (5, 5)):
            done = self.run_limited(resource.RLIMIT_CPU, limits, *self.arguments(
                "--epochs", "100000", "--patience", "0"))
            self.assertEqual(done.returncode, 128 + signal.SIGXCPU, done.stderr)
            self.assertIn("ulimit -t", done.stderr)
            self.assertIn("--resume", done.stderr)
            self.assertTrue((self.folder / "run" / "checkpoints" / "last.safetensors").exists())

    def test_the_cache_takes_no_address_space(self):
        done = self.run_limited(resource.RLIMIT_AS, 2000 * MEGABYTE, *self.arguments())
        self.assertEqual(done.returncode, 0, done.stderr)
        sets = self.succeed_json("cache", "list", "--json", "--cache-dir", self.folder / "cache")
        self.assertEqual(len(sets["sets"]), 1)

    def test_large_networks_are_refused_by_name(self):
        done = self.run_limited(resource.RLIMIT_AS, 1100 * MEGABYTE, *self.arguments(
            "--input-size", "224", "--head", "flatten dense:4096 dense:4096"))
        self.refused(done, "ulimit -v", "needs about")

    def test_processes(self):
        if os.getuid() != 0:
            self.skipTest("only root can become another user")
        self.folder.chmod(0o777)
        want = None
        for count in (1, 2, 5, 9, 40):
            with self.subTest(count=count):
                done = self.run_limited(resource.RLIMIT_NPROC, count,
                                        *self.arguments("--threads", "4"), user=NOBODY)
                self.assertEqual(done.returncode, 0, done.stderr)
                if count < 20:
                    self.assertIn("ulimit -u", done.stderr)
                model = (self.folder / "run" / "model.safetensors").read_bytes()
                want = want or model
                self.assertEqual(model, want)

    def test_processes_of_the_dashboard(self):
        if os.getuid() != 0:
            self.skipTest("only root can become another user")
        self.folder.chmod(0o777)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for count in (1, 2):
            done = self.run_limited(resource.RLIMIT_NPROC, count,
                                    *self.arguments("--dashboard", port, "--threads", "1"),
                                    user=NOBODY)
            self.refused(done, "--dashboard", "ulimit -u")

    def test_processes_of_other_commands(self):
        if os.getuid() != 0:
            self.skipTest("only root can become another user")
        self.succeed(*self.arguments())
        for command in (("predict", self.folder / "run" / "model.safetensors", self.data),
                        ("evaluate", self.folder / "run" / "model.safetensors", self.data),
                        ("check", self.data)):
            done = self.run_limited(resource.RLIMIT_NPROC, 1, *command, "--threads", "8",
                                    user=NOBODY)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_file_sizes(self):
        done = self.run_limited(resource.RLIMIT_FSIZE, 100_000, *self.arguments())
        self.refused(done, "ulimit -f", "100.0 KB" if "KB" in done.stderr else "100", "raise it")
        # Enough for the model's weights, not for the cached features: they are left out.
        done = self.run_limited(resource.RLIMIT_FSIZE, 1_500_000, *self.arguments(
            "--until", "block1_pool", "--input-size", "112"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("going on without the cache", done.stderr)
        self.assertIn("ulimit -f", done.stderr)

    def test_file_sizes_of_other_commands(self):
        output = self.folder / "maps.npy"
        done = self.run_limited(resource.RLIMIT_FSIZE, 10_000, "features", self.data, "--backbone",
                                "vgg-mini", "--weights", "none", "-o", output, "--quiet")
        self.refused(done, "ulimit -f", "maps.npy")
        self.assertFalse(output.exists())
        # A library's own lines do not stand before the program's.
        self.succeed(*self.arguments())
        table = self.folder / "t.xlsx"
        for size in (100, 2000, 4000):
            done = self.run_limited(resource.RLIMIT_FSIZE, size, "predict", self.folder / "run", self.data, "-o", table)
            self.refused(done, "t.xlsx")
            self.assertFalse(table.exists())
        # Tensors are handed over in memory that counts as a file.
        weights = self.folder / "weights.h5"
        with h5py.File(weights, "w") as file:
            file.attrs["layer_names"] = [b"block1_conv1"]
            group = file.create_group("block1_conv1")
            group.attrs["weight_names"] = [b"block1_conv1/kernel:0", b"block1_conv1/bias:0"]
            group["block1_conv1/kernel:0"] = np.zeros((3, 3, 3, 64), "f4")
            group["block1_conv1/bias:0"] = np.zeros(64, "f4")
        done = self.run_limited(resource.RLIMIT_FSIZE, 4096, "weights", "inspect", weights)
        self.refused(done, "weights.h5", "ulimit -f", "raise it")

    def test_open_files(self):
        done = self.run_limited(resource.RLIMIT_STACK, 64 << 10, *self.arguments())
        self.refused(done, "ulimit -s", "raise it")
        done = self.run_limited(resource.RLIMIT_STACK, 512 << 10, *self.arguments())
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.run_limited(resource.RLIMIT_NOFILE, 15, *self.arguments())
        self.refused(done, "ulimit -n", "15", "raise it")
        done = self.run_limited(resource.RLIMIT_NOFILE, 16, *self.arguments())
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    t.main()
