"""--status-fd: what a command does, as JSON lines, for programs that start it."""
import json
import os
import signal
import subprocess
import sys

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

SMALL = ("--backbone", "vgg-mini", "--input-size", "32", "--threads", "1", "--no-report")


def start(*arguments):
    """A command that writes events; returns the process and the end to read from."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen([t.GRAFT, *map(str, arguments), "--status-fd", str(write_end)], pass_fds=(write_end,),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(write_end)
    return process, open(read_end, "rb")


def events_of(*arguments):
    process, stream = start(*arguments)
    with stream:
        events = [json.loads(line) for line in stream]
    out, err = process.communicate()
    return process.returncode, events, out.decode(), err.decode()


class Status(t.TestCase):
    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "data", 6, size=32)

    def test_training(self):
        code, events, out, err = events_of("train", self.folder / "data", "-o", self.folder / "run", "--epochs", "3", "--json",
                                           *SMALL)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out)["epochs"], 3)
        plan = next(event for event in events if event["event"] == "plan")
        self.assertEqual(plan["run"], str(self.folder / "run"))
        self.assertIn("vgg-mini at 32x32", plan["text"])
        epochs = [event for event in events if event["event"] == "epoch"]
        self.assertEqual([event["epoch"] for event in epochs], [1, 2, 3])
        for event, row in zip(epochs, t.read_csv(self.folder / "run" / "history.csv")):
            self.assertAlmostEqual(event["val_loss"], float(row["val_loss"]), places=5)
            self.assertFalse(event["past"])
        steps = [event for event in events if event["event"] == "step"]
        self.assertTrue(all(event["done"] <= event["images"] and event["epochs"] == 3 for event in steps))
        self.assertTrue(any(event["event"] == "progress" and event["ended"] for event in events))

    def test_errors_have_their_kind(self):
        for arguments, kind, code in (
                (("train", self.folder / "none", *SMALL), "input", 1),
                (("train", self.folder / "data", "-o", "/proc/x", *SMALL), "io", 1),
                (("train", self.folder / "data", *SMALL[2:], "--backbone", "vgg16", "--fine-tune", "block9"), "usage", 2),
                (("train", self.folder / "data", "--resume", self.folder), "input", 1),
                (("export", self.folder / "none", "-o", self.folder / "x.onnx"), "input", 1)):
            found, events, _, err = events_of(*arguments)
            self.assertEqual(found, code, (arguments, err))
            self.assertEqual(events[-1]["event"], "error", (arguments, events))
            self.assertEqual(events[-1]["kind"], kind, events[-1])
            self.assertEqual(err.count("\n"), 1)

    def test_a_signal_is_an_error_too(self):
        process, stream = start("train", self.folder / "data", "-o", self.folder / "run", "--epochs", "2000", "--fine-tune",
                                "2", *SMALL)
        events = []
        with stream:
            for line in stream:
                events.append(json.loads(line))
                if events[-1]["event"] == "epoch" and events[-1]["epoch"] == 2:
                    process.send_signal(signal.SIGINT)
        process.communicate()
        self.assertEqual(process.returncode, 130)
        self.assertEqual(events[-1]["kind"], "interrupted")

    def test_who_reads_has_gone(self):
        """The run is saved and ends, as when a terminal hangs up."""
        process, stream = start("train", self.folder / "data", "-o", self.folder / "run", "--epochs", "2000", "--fine-tune",
                                "2", *SMALL)
        for line in stream:
            if json.loads(line)["event"] == "epoch":
                break
        stream.close()
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGHUP, err)
        self.succeed("train", self.folder / "data", "--resume", self.folder / "run", "--epochs", str(
            len(t.read_csv(self.folder / "run" / "history.csv")) + 1))

    def test_a_descriptor_that_is_not_open(self):
        self.fail_with(2, "--status-fd: '99' is no file descriptor that is open for writing", "train", self.folder / "data",
                       "--status-fd", "99")
        with open(os.devnull) as closed:
            done = subprocess.run([t.GRAFT, "train", self.folder / "data", "--status-fd", str(closed.fileno())],
                                  pass_fds=(closed.fileno(),), capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--status-fd", done.stderr)

    def test_a_full_disk_behind_it(self):
        t.draw_scenes(self.folder / "few", 4, size=32)
        with open("/dev/full", "wb") as full:
            done = subprocess.run([t.GRAFT, "train", self.folder / "few", "--backbone", "vgg-mini", "--input-size", "32",
                                   "--head", "gap", "--epochs", "2", "--no-report", "-o", self.folder / "full",
                                   "--status-fd", str(full.fileno())], pass_fds=(full.fileno(),), capture_output=True,
                                  text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("No space left on device"), 1, done.stderr)
        self.assertTrue((self.folder / "full" / "model.safetensors").exists())


if __name__ == "__main__":
    t.main()
