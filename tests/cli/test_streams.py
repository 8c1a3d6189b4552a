"""Standard streams that fail: diagnostics are dropped, results that do not arrive are an error."""
import os
import pty
import re
import signal
import subprocess
import time
import unittest

import graft_testing as t

TRAIN = ["--backbone", "vgg-mini", "--input-size", "32", "--head", "gap", "--epochs", "2"]


class Streams(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 4)
        self.run_folder = self.folder / "run"

    def shell(self, arguments, redirection):
        """graft under a shell's redirection."""
        return subprocess.run(["bash", "-c", f'exec "$0" "$@" {redirection}', t.GRAFT,
                               *map(str, arguments)], capture_output=True, text=True, timeout=120)

    def train_arguments(self):
        return ["train", self.data, "-o", self.run_folder, "--force", *TRAIN]

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_training_outlives_its_diagnostics(self):
        models = set()
        for redirection in ("", "2>/dev/full", "2>&-", "0<&- 2>&-", "2> >(exit 0)"):
            done = self.shell(self.train_arguments(), redirection)
            self.assertEqual(done.returncode, 0, redirection + done.stderr)
            self.assertIn("validation accuracy", done.stdout)
            models.add((self.run_folder / "model.safetensors").read_bytes())
        self.assertEqual(len(models), 1)

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_results_that_do_not_arrive(self):
        for redirection, text in ((">/dev/full", "No space left"), (">&-", "Bad file descriptor")):
            done = self.shell(self.train_arguments(), redirection)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("graft: standard output: writing failed: " + text, done.stderr)
            self.assertTrue((self.run_folder / "model.safetensors").exists())

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_results_of_a_model_that_are_lost(self):
        self.succeed(*self.train_arguments())
        image = sorted(self.data.rglob("*.jpg"))[0]
        for arguments in (["predict", self.run_folder, image], ["predict", self.run_folder, image, "--json"],
                          ["evaluate", self.run_folder, self.data], ["evaluate", self.run_folder, self.data, "--json"]):
            done = self.shell(arguments, ">/dev/full")
            self.assertEqual(done.returncode, 1, arguments)
            self.assertIn("graft: standard output: writing failed: No space left", done.stderr)

    def test_every_command_reports_lost_results(self):
        for arguments in (["--help"], ["--version"], ["summary"], ["train", "--help"],
                          ["weights", "list"], ["weights", "list", "--json"], ["cache", "list"],
                          ["check", self.data]):
            for redirection in (">/dev/full", ">&-"):
                done = self.shell(arguments, redirection)
                self.assertEqual(done.returncode, 1, arguments)
                self.assertIn("graft: standard output: ", done.stderr)
            done = self.shell(arguments, "2>/dev/full >/dev/full")
            self.assertEqual(done.returncode, 1, arguments)

    def test_a_closed_pipe_ends_quietly(self):
        for arguments in (["summary", "--backbone", "vgg19", "--json"], ["check", self.data, "--json"],
                          ["--help"]):
            read, write = os.pipe()
            os.close(read)
            done = subprocess.run([t.GRAFT, *map(str, arguments)], stdout=write,
                                  stderr=subprocess.PIPE, text=True, timeout=60)
            os.close(write)
            self.assertEqual(done.returncode, 1, arguments)
            self.assertNotIn("graft:", done.stderr)

    def test_usage_errors_outlive_their_message(self):
        for arguments in (["nonsense"], [], ["summary", "--nonsense"], ["summary", "--backbone", "x"]):
            for redirection in ("2>/dev/full", "2>&-"):
                self.assertEqual(self.shell(arguments, redirection).returncode, 2, arguments)

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_a_terminal_that_hangs_up(self):
        """The state is saved, as after SIGTERM; under nohup training goes on."""
        for nohup in (False, True):
            pid, terminal = pty.fork()
            if pid == 0:
                if nohup:
                    signal.signal(signal.SIGHUP, signal.SIG_IGN)
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                arguments = self.train_arguments()
                arguments[-1] = "3" if nohup else "100000"
                arguments += ["--patience", "0"]
                os.execv(t.GRAFT, [t.GRAFT, *map(str, arguments)])
            history = self.run_folder / "history.csv"
            deadline = time.time() + 60
            while not history.exists() and time.time() < deadline:
                time.sleep(0.02)
            os.close(terminal)  # the kernel sends SIGHUP to the session's leader
            _, status = os.waitpid(pid, 0)
            if nohup:
                self.assertEqual(os.waitstatus_to_exitcode(status), 0)
            else:
                self.assertEqual(os.waitstatus_to_exitcode(status), 128 + signal.SIGHUP)
                self.assertTrue((self.run_folder / "checkpoints" / "last.safetensors").exists())
            if history.exists():
                history.unlink()

    def test_control_characters_do_not_reach_the_terminal(self):
        name = b"a\x1b[31m\x07\xc2\x9b5n.jpg"
        (self.folder / "x").mkdir()
        done = subprocess.run([t.GRAFT.encode(), b"check", os.fsencode(self.folder / "x") + b"/" + name],
                              capture_output=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse(re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", done.stderr), done.stderr)

    def test_no_direct_printing_to_standard_error(self):
        """print_diagnostic is the one way: everything else may throw or obey control characters."""
        for path in sorted((t.SOURCE / "src").rglob("*.[ch]*")):
            if path == t.SOURCE / "src" / "base" / "diagnostics.cpp":
                continue
            text = path.read_text()
            self.assertIsNone(re.search(r"\bstderr\b(?!\.)[^\n]*[,)];|std::cerr|perror\(",
                                        re.sub(r"//.*", "", text)), path)


if __name__ == "__main__":
    t.main()
