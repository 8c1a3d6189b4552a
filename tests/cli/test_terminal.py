"""What a person sees in terminals of several widths: tmux, whose screen is read back, runs the program."""
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import tempfile
import time
import uuid

import graft_testing as t

EPOCHS = 5
TMUX = shutil.which("tmux")
BASE = None


def setUpModule():
    global BASE
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-terminal-"))
    t.draw_scenes(BASE / "data", 8, size=48)
    # Wide characters, a combining accent, and a name longer than a narrow terminal.
    for name, other in (("sea", "海の写真"), ("forest", "fore\u0302t"),
                        ("street", "a_street_with_a_very_long_name_that_says_much_and_ends_in_houses")):
        (BASE / "data" / name).rename(BASE / "data" / other)


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


def train(run, *more):
    return [t.GRAFT, "train", str(BASE / "data"), "--backbone", "vgg-mini", "--input-size", "32", "--head", "gap",
            "--epochs", str(EPOCHS), "--patience", "0", "--no-report", "-o", str(run), *map(str, more)]


def in_terminal(command, env, columns=80, rows=24):
    """All that a program writes to a terminal of its own."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(env)
        for name in [name for name, value in env.items() if value is None]:
            os.environ.pop(name)
        os.execvp(command[0], command)
    import fcntl
    import struct
    import termios
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    out = b""
    while True:
        if not select.select([fd], [], [], 120)[0]:
            break
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        out += data
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out.decode()


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Terminals(t.TestCase):
    def screen(self, columns, rows, command, resized=None):
        """Lines of a tmux window, with what scrolled out of it, after the command."""
        socket = f"graft-{uuid.uuid4().hex[:8]}"
        done = self.folder / f"done-{columns}"
        text = " ".join(f"'{word}'" for word in command)
        tmux = [TMUX, "-L", socket, "-f", "/dev/null"]
        subprocess.run([*tmux, "new-session", "-d", "-x", str(columns), "-y", str(rows),
                        f"{text}; echo $? > {done}.new; mv {done}.new {done}; sleep 60"],
                       check=True, env=dict(os.environ, LC_ALL="C.UTF-8"))
        try:
            deadline = time.monotonic() + 120
            while not done.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)
            shown = subprocess.run([*tmux, "capture-pane", "-p", "-S", "-2000"], check=True, capture_output=True,
                                   text=True).stdout.splitlines()
        finally:
            subprocess.run([*tmux, "kill-server"], capture_output=True)
        self.assertEqual(done.read_text().strip(), "0", "\n".join(shown))
        return shown

    @t.unittest.skipUnless(TMUX, "tmux is not installed")
    def test_one_line_an_epoch_at_any_width(self):
        for columns, rows in ((40, 24), (80, 24), (120, 40), (30, 8)):
            shown = self.screen(columns, rows, train(self.folder / f"run-{columns}"))
            text = "\n".join(shown)
            for epoch in range(1, EPOCHS + 1):
                kept = [line for line in shown if re.match(rf"epoch {epoch}/{EPOCHS}  ", line) and "%" not in line]
                self.assertEqual(len(kept), 1, text)
                self.assertIn("val_acc", kept[0])
            # One bar at the end, and one for each earlier task; one chart at most.
            self.assertEqual(len([line for line in shown if line.startswith(f"epoch {EPOCHS}/") and "%" in line]), 1,
                             text)
            self.assertEqual(len([line for line in shown if "⠒⠒ validation" in line]), 1 if columns >= 60 else 0, text)
            self.assertEqual(len([line for line in shown if line.startswith("best: ")]), 1, text)
            self.assertNotRegex(text, r"\d{5,}(\.\d)?/s", "no rate of what lay in a cache")
            if columns == 80:
                self.assertIn("accuracy ⠂⠐ training ⠒⠒ validation", text)

    def test_plain_lines_where_nothing_can_be_drawn(self):
        for env in ({"TERM": "dumb"}, {"TERM": ""}):
            run = self.folder / f"run-{len(env['TERM'])}"
            code, out = in_terminal(train(run), env)
            self.assertEqual(code, 0, out)
            self.assertNotIn("\x1b", out)
            self.assertNotRegex(out.replace("\r\n", "\n"), "[\r█░⠀-⣿]")
            self.assertEqual(len(re.findall(rf"(?m)^epoch \d/{EPOCHS}  ", out)), EPOCHS)
            for line in out.splitlines():
                if not line.startswith("wrote "):
                    self.assertLessEqual(t.columns_of(line), 80, line)

    @t.unittest.skipUnless(TMUX, "tmux is not installed")
    def test_lines_break_between_words(self):
        """The plan and notes; names in the table of classes are cut, so that each has a line."""
        for columns in (40, 80):
            shown = self.screen(columns, 40, train(self.folder / f"run-{columns}", "--dry-run"))
            text = "\n".join(shown)
            table = [line for line in shown if re.search(r" +\d+ +\d+$", line)]
            self.assertEqual(len(table), 7, text)  # six classes and their sum
            plan = shown[shown.index(next(line for line in shown if line.startswith("data "))):]
            for line, following in zip(plan, plan[1:]):
                if following.startswith(" " * 11) and following.strip() and not line.startswith("run"):
                    self.assertGreater(len(line) + 1 + len(following.split()[0]), columns, text)
            words = set(" ".join(plan).split())
            for word in ("parameters", "trainable,", "available:", "optimiser", "activations"):
                self.assertIn(word, words, text)

    def test_why_another_epoch_is_kept(self):
        """One line at the end, where the epoch that is kept is not the highest; nothing else changes."""
        run = self.folder / "run"
        done = subprocess.run(train(run, "--schedule", "cosine"), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
        accuracy = [float(row[rows[0].index("val_accuracy")]) for row in rows[1:]]
        kept = int(re.search(rf"^best epoch (\d+) of {EPOCHS}$", done.stdout, re.M)[1])
        if max(accuracy) > accuracy[kept - 1]:
            self.assertIn(f"kept: epoch {kept}, the end of the learning-rate cycle; the highest validation accuracy "
                          f"was {max(accuracy):.4f} in epoch {accuracy.index(max(accuracy)) + 1}", done.stderr)
        else:
            self.assertNotIn("the highest validation accuracy", done.stderr)
        for name in ("config.toml", "split.csv", "times.json", "events.out.tfevents."):
            self.assertEqual(done.stderr.count(f"wrote {run / name}"), 1, name)

    def test_without_colour(self):
        code, out = in_terminal(train(self.folder / "run"), {"TERM": "xterm", "NO_COLOR": "1"})
        self.assertEqual(code, 0, out)
        self.assertNotRegex(out, "\x1b\\[[0-9;]*m")
        self.assertIn("⠂⠐ training ⠒⠒ validation", out)

    def test_tables_hold_whole_names(self):
        run = self.folder / "run"
        done = subprocess.run(train(run), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("model.safetensors", "history.csv", "metrics.json", "predictions.csv"):
            self.assertIn(f"wrote {run / name}\n", done.stderr)
        table = self.succeed("evaluate", run, BASE / "data").stdout
        self.assertIn("海の写真  ", table)
        self.assertIn("a_street_with_a_ve…nd_ends_in_houses  ", table)
        for text in (table, self.succeed("check", BASE / "data").stdout):
            for line in text.splitlines()[:7]:
                self.assertLessEqual(t.columns_of(line), 80, line)


if __name__ == "__main__":
    t.main()
