"""A run folder belongs to one training at a time, and holds no leftovers of killed ones."""
import signal
import subprocess
import sys
import time

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)


class RunFolder(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 6, 1, 32)
        self.run_folder = self.folder / "run"

    def arguments(self, *more, epochs=2, weights="none"):
        return ["train", self.data, "--backbone", "vgg-mini", "--weights", weights, "--input-size",
                "32", "--head", "gap", "--epochs", epochs, "--schedule", "constant", "--quiet",
                "--cache-dir", self.folder / "cache", *more]

    def start(self, *arguments, **keywords):
        process = subprocess.Popen([t.GRAFT, *map(str, arguments)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, **keywords)

        def end():
            process.kill()
            process.wait()
            process.stderr.close()

        self.addCleanup(end)
        return process

    def start_long(self):
        process = self.start(*self.arguments("-o", self.run_folder, "--patience", 0,
                                             epochs=100_000))
        state = self.run_folder / "checkpoints" / "state.safetensors"
        while not state.exists():
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        return process

    def test_a_second_run_is_refused_until_the_first_is_killed(self):
        process = self.start_long()
        before = (self.run_folder / "config.toml").read_bytes()
        for more in (("-o", self.run_folder), ("-o", self.run_folder, "--force"),
                     ("-o", self.run_folder, "--force", "--find-lr"),
                     ("--resume", self.run_folder)):
            done = self.fail_with(1, "another training is writing this run", *self.arguments(*more))
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn(f"process {process.pid} ", done.stderr)
            self.assertIn(str(self.run_folder), done.stderr)
        self.assertEqual((self.run_folder / "config.toml").read_bytes(), before)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.succeed(*self.arguments("-o", self.run_folder, "--force"))
        self.assertFalse((self.run_folder / ".lock").exists())

    def test_one_of_two_that_start_at_once(self):
        runs = [self.start(*self.arguments("-o", self.run_folder, "--seed", seed))
                for seed in (1, 2)]
        errors = [process.communicate()[1] for process in runs]
        codes = [process.returncode for process in runs]
        self.assertEqual(codes.count(0), 1, errors)
        loser = errors[1 - codes.index(0)]
        self.assertRegex(loser, "another training is writing this run|this run exists already")
        config = (self.run_folder / "config.toml").read_text()
        self.assertIn(f"seed = {codes.index(0) + 1}", config)

    def test_default_names_differ(self):
        runs = [self.start(*self.arguments(epochs=1), cwd=self.folder) for _ in range(3)]
        for process in runs:
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 0, errors)
        folders = sorted((self.folder / "runs").iterdir())
        self.assertEqual(len(folders), 3)
        for folder in folders:
            self.assertRegex(folder.name, r"^data-\d{8}-\d{6}(-\d)?$")
            self.assertTrue((folder / "model.safetensors").exists())

    def test_a_run_that_never_began_leaves_no_folder(self):
        self.fail_with(1, "none.h5", *self.arguments("-o", self.run_folder,
                                                     weights=self.folder / "none.h5"))
        self.assertFalse(self.run_folder.exists())

    def test_leftovers_are_removed(self):
        self.succeed(*self.arguments("-o", self.run_folder))
        checkpoints = self.run_folder / "checkpoints"
        left = [self.run_folder / "history.csv.4194303.tmp",
                self.run_folder / "model.safetensors.tmp",
                self.run_folder / "graft-0123456789abcdef.tmp",
                checkpoints / "last.safetensors.4194303.tmp",
                checkpoints / "graft-0123456789abcdef-77-link.tmp"]
        for path in left:
            path.write_text("half of it")
        mine = self.run_folder / "notes.tmp"
        mine.write_text("a user's own")
        self.succeed("train", self.data, "--resume", self.run_folder, "--epochs", 3, "--quiet")
        for path in left:
            self.assertFalse(path.exists(), path)
        self.assertTrue(mine.exists())

    def test_kills_leave_nothing_after_the_next_run(self):
        command = self.arguments("-o", self.run_folder, "--patience", 0, epochs=40)
        for _ in range(8):
            process = self.start(*command, "--force")
            deadline = time.time() + 60
            while not (self.run_folder / "history.csv").exists() and time.time() < deadline:
                time.sleep(0.005)
            process.kill()
            process.wait()
        self.succeed(*command, "--force")
        self.assertEqual([p for p in self.run_folder.rglob("*") if p.suffix == ".tmp"], [])


if __name__ == "__main__":
    t.main()
