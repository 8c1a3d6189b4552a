"""graft train --resume: a run that was stopped or killed ends as if it had not been."""
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

# For a long run by hand: GRAFT_KILLS=200 GRAFT_KILL_EPOCHS=400 (a run that ends sooner is killed less).
KILLS = int(os.environ.get("GRAFT_KILLS", "12"))
EPOCHS = os.environ.get("GRAFT_KILL_EPOCHS", "12")

# Dropout, BatchNorm, momentum, a schedule and early stopping: all the state that there is.
OPTIONS = ("--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--batch-size", "8",
           "--head", "stats batchnorm dense:32 dropout:0.5", "--until", "block2_pool",
           "--fine-tune", "0", "--epochs", EPOCHS, "--patience", EPOCHS if EPOCHS != "12" else "8", "--schedule", "one-cycle",
           "--optimizer", "adamw", "--weight-decay", "0.01", "--seed", "5", "--threads", "2")


class Resume(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 10)
        self.options = (*OPTIONS, "--cache-dir", self.folder / "cache")
        self.succeed("train", self.data, *self.options, "-o", self.folder / "whole")
        self.want = self.model("whole")

    def model(self, name):
        return (self.folder / name / "model.safetensors").read_bytes()

    def start(self, *arguments):
        return subprocess.Popen([t.GRAFT, "train", *map(str, arguments)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def history(self, name):
        rows = t.read_csv(self.folder / name / "history.csv")
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    def test_killed_at_random_moments(self):
        chance = random.Random(7)
        run = self.folder / "killed"
        process = self.start(self.data, *self.options, "-o", run)
        kills = 0
        # A kill at once leaves the epochs where they were.
        for _ in range(KILLS):
            try:
                process.wait(timeout=chance.uniform(0.15, 0.6 if KILLS == 12 else 1.5))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            process.stderr.close()
            if (run / "config.toml").exists():
                process = self.start(self.data, "--resume", run)
            else:
                process = self.start(self.data, *self.options, "-o", run, "--force")
        _, errors = process.communicate()
        self.assertEqual(process.returncode, 0, errors)
        self.assertGreater(kills, 2, "the machine is too fast for this test")
        print(f"{kills} kills", file=sys.stderr)
        self.assertEqual(self.model("killed"), self.want)
        self.assertEqual(self.history("killed"), self.history("whole"))

    def test_stopped_by_a_signal(self):
        run = self.folder / "stopped"
        process = self.start(self.data, *self.options, "-o", run)
        while not (run / "checkpoints" / "state.safetensors").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        if process.returncode != 0:
            self.assertEqual(process.returncode, 143, errors)
            self.assertIn(f"--resume {run}", errors)
        self.succeed("train", self.data, "--resume", run)
        self.assertEqual(self.model("stopped"), self.want)

    def test_damaged_state_falls_back_to_the_one_before(self):
        for name, damage in (("cut", lambda data: data[:100]),
                             ("flipped", lambda data: data[:-7] + bytes([data[-7] ^ 4]) + data[-6:])):
            run = self.folder / name
            shutil.copytree(self.folder / "whole", run)
            state = run / "checkpoints" / "state.safetensors"
            state.write_bytes(damage(state.read_bytes()))
            done = self.succeed("train", self.data, "--resume", run)
            self.assertIn("going on from the state before it", done.stderr)
            self.assertIn("going on after epoch", done.stderr)
            self.assertEqual(self.model(name), self.want)
        for path in (run / "checkpoints").glob("state*"):
            path.write_bytes(b"nothing")
        self.fail_with(1, "state.safetensors", "train", self.data, "--resume", run)

    def test_damaged_best_checkpoint_leaves_the_model_alone(self):
        run = self.folder / "best"
        shutil.copytree(self.folder / "whole", run)
        model = (run / "model.safetensors").read_bytes()
        best = run / "checkpoints" / "best.safetensors"
        data = bytearray(best.read_bytes())
        data[-5] ^= 1
        best.unlink()  # it may be a link of another name
        for content in (bytes(data), None):
            if content is not None:
                best.write_bytes(content)
            else:
                best.unlink()
            self.fail_with(1, "best.safetensors", "train", self.data, "--resume", run, "--epochs", "14",
                           "--patience", "0")
            self.assertEqual((run / "model.safetensors").read_bytes(), model)

    def test_more_epochs(self):
        self.succeed("train", self.data, "--resume", self.folder / "whole", "--epochs", "14",
                     "--patience", "0")
        self.assertEqual(len(self.history("whole")), 14)

    def test_mistakes(self):
        run = self.folder / "whole"
        self.fail_with(1, "no run to resume", "train", self.data, "--resume", self.folder)
        self.fail_with(2, "exclude", "train", self.data, "--resume", run, "-o", self.folder / "x")
        self.fail_with(1, "cannot change", "train", self.data, "--resume", run, "--seed", "6")
        self.fail_with(1, "cannot change", "train", self.data, "--resume", run, "--freeze-epochs", "1",
                       "--fine-tune", "2")
        self.fail_with(2, "--find-lr exclude", "train", self.data, "--resume", run, "--find-lr")
        sorted(self.data.rglob("*.jpg"))[0].unlink()
        self.fail_with(1, "not those that this run began with", "train", self.data, "--resume", run)


    def test_a_run_keeps_its_options(self):
        """What would make another run of it is refused by name; what it is already, and what does not
        change it, is not."""
        run = self.folder / "whole"
        config = (run / "config.toml").read_text()
        resume = ("train", self.data, "--resume", run)
        for option, value, own in (("--lr", "1", None), ("--schedule", "cosine", "'one-cycle'"),
                                   ("--augment", "hflip", "'none'"), ("--views", "3", "not given"),
                                   ("--head", "gap", None), ("--ema", "0.5", "0"),
                                   ("--weight-decay", "0.5", "0.01"), ("--val-split", "0.3", "0.15"),
                                   ("--class-weights", "balanced", "'none'"),
                                   ("--cache-dtype", "fp32", "'fp16'"), ("--fine-tune", "2", "'0'"),
                                   ("--precision", "bf16", "'fp32'")):
            done = self.fail_with(1, "cannot change", *resume, option, value)
            self.assertIn(f"{option} ({own})" if own else f"{option} (", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1)
        done = self.fail_with(1, "leave them out", *resume, "--lr", "1", "--ema", "0.5", "--epochs", "13")
        self.assertIn("--ema (0)", done.stderr)
        self.fail_with(1, "cannot change", *resume, "--lr", "1", "--dry-run")
        self.assertEqual((run / "config.toml").read_text(), config)
        # The whole command again, written otherwise.
        otherwise = {"0.01": "1e-2", "vgg-mini": "VGG_MINI", "32": "32x32", "2": "1"}
        self.succeed(*resume, *(otherwise.get(word, word) for word in map(str, self.options)), "--dry-run")
        # Left to the processor once: the run has its precision.
        self.succeed(*resume, "--precision", "auto", "--dry-run")


if __name__ == "__main__":
    t.main()
