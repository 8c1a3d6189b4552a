"""What a run says of itself: metrics, calibration, report, event files, live view, dashboard, compare."""
import base64
import collections
import fcntl
import hashlib
import html
import json
import math
import os
import pathlib
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.error
import urllib.request

import graft_testing as t
import numpy as np

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

BASE = None
TRAIN = ("--backbone", "vgg-mini", "--input-size", "64", "--head", "stats batchnorm dense:32")


def setUpModule():
    """Two finished runs on the same images."""
    global BASE
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-report-"))
    t.draw_scenes(BASE / "data" / "train", 20)
    t.draw_scenes(BASE / "data" / "test", 10, first_seed=500)
    for name, epochs in (("one", 2), ("two", 8)):
        done = t.run("train", BASE / "data", *TRAIN, "--epochs", epochs, "-o", BASE / name, "--quiet")
        assert done.returncode == 0, done.stderr


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


def crc32c(data):
    """Bit by bit, by the polynomial's definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    """The records of a TFRecord file, checksums checked."""
    data = path.read_bytes()
    while data:
        (length, check) = struct.unpack("<QI", data[:12])
        assert check == masked(crc32c(data[:8])), "checksum of the length"
        body = data[12:12 + length]
        assert struct.unpack("<I", data[12 + length:16 + length])[0] == masked(crc32c(body))
        yield body
        data = data[16 + length:]


def fields(message):
    """(number, value) of a protobuf message, one level."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            value = message[at:at + size]
            at += size
        yield key >> 3, value


class Report(t.TestCase):
    def test_predictions_agree_with_metrics(self):
        rows = t.read_csv(BASE / "two" / "predictions.csv")
        metrics = json.loads((BASE / "two" / "metrics.json").read_text())
        classes = metrics["test"]["classes"]
        for split, name in (("validation", "val"), ("test", "test")):
            mine = [r for r in rows if r["split"] == name]
            want = metrics[split]
            self.assertEqual(len(mine), want["images"])
            p = np.array([[float(r["p:" + c]) for c in classes] for r in mine])
            np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
            label = np.array([classes.index(r["label"]) for r in mine])
            self.assertAlmostEqual(-np.log(p[np.arange(len(p)), label]).mean(), want["loss"], delta=1e-9)
            self.assertAlmostEqual((p.argmax(1) == label).mean(), want["top1"], delta=1e-12)
            low, high = want["intervals"]["top1"]
            self.assertLessEqual(low, want["top1"])
            self.assertLessEqual(want["top1"], high)
            self.assertAlmostEqual(np.mean([r["f1"] for r in want["per_class"]]), want["macro"]["f1"])
            for k, row in enumerate(want["per_class"]):
                # ROC AUC by its definition: pairs that stand in the right order.
                right, wrong = p[label == k, k], p[label != k, k]
                pairs = (right[:, None] > wrong).mean() + (right[:, None] == wrong).mean() / 2
                self.assertAlmostEqual(row["auc"], pairs, delta=1e-12)
            self.assertEqual(sum(b["count"] for b in want["reliability"]), want["images"])

    def test_temperature_is_in_the_model(self):
        metrics = json.loads((BASE / "two" / "metrics.json").read_text())
        temperature = metrics["calibration"]["temperature"]
        self.assertGreater(temperature, 0.1)
        self.assertLess(metrics["validation"]["loss"],
                        metrics["calibration"]["uncalibrated_validation"]["loss"] + 1e-9)
        model, metadata = t.read_safetensors(BASE / "two" / "model.safetensors")
        raw, _ = t.read_safetensors(BASE / "two" / "checkpoints" / "best.safetensors")
        self.assertAlmostEqual(json.loads(metadata["training"])["temperature"], temperature)
        for name in model:
            scale = temperature if name.startswith("predictions.") else 1
            np.testing.assert_allclose(model[name] * scale, raw[name], rtol=1e-6)
        # What evaluate and predict say is calibrated.
        again = self.succeed_json("evaluate", BASE / "two", BASE / "data", "--json")
        self.assertAlmostEqual(again["loss"], metrics["test"]["loss"], delta=5e-4)  # features were halves
        history = t.read_csv(BASE / "two" / "history.csv")
        best = float(history[metrics["best_epoch"] - 1]["val_loss"])
        self.assertAlmostEqual(metrics["calibration"]["uncalibrated_validation"]["loss"], best,
                               delta=1e-3)

    def test_report(self):
        text = (BASE / "two" / "report.html").read_text()
        self.assertIsNone(re.search(r"""(?:src|href)=["']?(?:https?:|//)""", text))
        self.assertIn("default-src 'none'", text)
        # No script but the page's own, by its hash.
        (source,) = re.findall(r"script-src 'sha256-([^']+)'", text)
        (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        self.assertEqual(base64.b64decode(source), hashlib.sha256(script.encode()).digest())
        for heading in ("Curves", "Classes", "Calibration", "Mistakes", "Data", "Network",
                        "Configuration", "Model card"):
            self.assertIn(f"<h2>{heading}</h2>", text)
        self.assertIn("--config", text)
        self.assertIn("Graft vgg-mini", text)  # where the weights come from
        self.assertGreater(text.count("data:image/jpeg;base64,"), 30)
        page = self.folder / "page.html"
        self.succeed("evaluate", BASE / "two", BASE / "data" / "test", "--report", page, "--quiet")
        self.assertIn("<h2>Curves</h2>", page.read_text())
        # A model file alone has no curves.
        shutil.copy(BASE / "two" / "model.safetensors", self.folder / "m.safetensors")
        self.succeed("evaluate", self.folder / "m.safetensors", BASE / "data" / "test", "--report",
                     page, "--quiet")
        self.assertNotIn("<h2>Curves</h2>", page.read_text())
        self.assertIn("<title>vgg-mini on test</title>", page.read_text())
        self.succeed("evaluate", BASE / "two", "./", "--report", "it's.html", "--quiet",
                     cwd=BASE / "data" / "test")
        with open(BASE / "data" / "test" / "it's.html") as file:
            text = file.read()
        (BASE / "data" / "test" / "it's.html").unlink()
        self.assertIn("--report &#39;it&#39;\\&#39;&#39;s.html&#39;", text)
        self.assertIn("<title>vgg-mini on test</title>", text)

    def test_photos_of_the_report(self):
        """Every mistake once, the worst with Grad-CAM, each with words and path."""
        text = (BASE / "one" / "report.html").read_text()
        rows = [r for r in t.read_csv(BASE / "one" / "predictions.csv") if r["split"] == "test"]
        wrong = {r["path"] for r in rows if r["label"] != r["predicted"]}
        self.assertGreater(len(wrong), 3)
        section = text.split('<section id="mistakes">')[1].split("</section>")[0]
        figures = [f for f in re.findall(r"<figure (.*?)</figure>", section, re.DOTALL)]
        paths = [html.unescape(p) for f in figures for p in re.findall(r'data-path="([^"]*)"', f)]
        self.assertEqual(len(paths), len(figures))
        self.assertEqual(len(set(paths)), len(paths), "no photo twice")
        self.assertLessEqual(set(paths), {r["path"] for r in rows})
        cells = collections.Counter((r["label"], r["predicted"]) for r in rows if r["path"] in wrong)
        if max(cells.values()) <= 8:
            self.assertEqual(len([p for p in paths if p in wrong]), len(wrong), "few enough for all")
        self.assertEqual(section.count('alt="evidence for'), 24)
        by_path = {r["path"]: r for r in rows}
        for figure, path in zip(figures, paths):
            row = by_path[path]
            alt = html.unescape(re.search(r'alt="([^"]*)"', figure)[1])
            self.assertEqual(alt, f"{row['label']}, classified as {row['predicted']}, "
                                  f"{float(row['probability']) * 100:.0f} %")
        table = section.split("All mistakes")[1]
        self.assertEqual({html.unescape(p) for p in re.findall(r'data-path="([^"]*)"', table)}, wrong)

    def test_times_of_a_run(self):
        run = self.folder / "run"
        begin = time.monotonic()
        self.succeed("train", BASE / "data", *TRAIN, "--epochs", "2", "-o", run)
        first = json.loads((run / "times.json").read_text())
        taken = time.monotonic() - begin
        self.assertTrue(first["whole"])
        self.assertLess(sum(first["seconds"].values()), taken)
        for stage in ("features", "training", "evaluation", "report"):
            self.assertGreater(first["seconds"][stage], 0, stage)
        epochs = sum(float(r["seconds"]) for r in t.read_csv(run / "history.csv"))
        self.assertGreaterEqual(first["seconds"]["training"], epochs)
        self.succeed("train", BASE / "data", "--resume", run, "--epochs", "3", "--patience", "0")
        second = json.loads((run / "times.json").read_text())
        self.assertEqual(second["started"], first["started"])
        for stage in first["seconds"]:
            self.assertGreater(second["seconds"][stage], first["seconds"][stage], stage)
        page = (run / "report.html").read_text()
        self.assertIn(">run</code>", page)
        self.assertIn(first["started"][:10], page)
        self.assertRegex(page, r"Time</th><td>[^<]*features [^<]*training [^<]*\(3 epochs\), evaluation")
        # A run of an earlier version: what is known at least.
        (run / "times.json").unlink()
        self.succeed("train", BASE / "data", "--resume", run, "--epochs", "4", "--patience", "0")
        self.assertIn("Time</th><td>at least ", (run / "report.html").read_text())
        # Another in its place counts anew.
        second["seconds"]["training"] = 86400
        (run / "times.json").write_text(json.dumps(second))
        compared = json.loads(self.succeed("compare", run, BASE / "two", "--json").stdout)
        self.assertAlmostEqual(compared["runs"][0]["seconds"], sum(second["seconds"].values()), places=6)
        self.succeed("train", BASE / "data", *TRAIN, "--epochs", "1", "-o", run, "--force")
        again = json.loads((run / "times.json").read_text())
        self.assertTrue(again["whole"])
        self.assertLess(again["seconds"]["training"], 86400)

    def test_many_classes(self):
        """60 classes with long names: a matrix of names, the most frequent mistakes, few bytes."""
        names = [f"a species with a long name, number {i}" for i in range(60)]
        t.draw_noise(self.folder / "data", names, train=4, test=3)
        self.succeed("train", self.folder / "data", "--backbone", "vgg-mini", "--input-size", "32", "--head", "gap",
                     "--augment", "none", "--epochs", "1", "-o", self.folder / "run", "--no-cache")
        page = (self.folder / "run" / "report.html").read_text()
        matrix = page.split('<table class="confusion')[1].split("</table>")[0]
        self.assertEqual(len(re.findall(r'<th scope="row"', matrix)), 60)
        self.assertEqual({html.unescape(n) for n in re.findall(r'title="([^"]*)"', matrix)}, set(names))
        self.assertEqual(sum(map(int, re.findall(r"<td[^>]*>(\d+)</td>", matrix))), 180)
        self.assertIn("Most frequent mistakes", page)
        self.assertIn("top-5", page)
        self.assertLess(len(page), 4_000_000)

    def test_the_card_says_what_the_figures_are_worth(self):
        def card(page):
            return page.read_text().split("<h2>Model card</h2>")[1]

        tested = card(BASE / "two" / "report.html")
        self.assertIn("by way of its teacher, VGG16, ImageNet", tested)
        self.assertIn("those that its weights&#39; source names", tested)
        self.assertRegex(tested, r"Validation</th><td>top-1 [0-9.]+\s% on \d+ images, by which the epoch")
        self.assertRegex(tested, r"Measured</th><td>top-1 [0-9.]+\s% on \d+ test images, 95 % between "
                                 r"[0-9.]+\s% and [0-9.]+\s%</td>")
        # Without test images the figure is of those that the epoch was chosen on.
        run = self.folder / "run"
        self.succeed("train", BASE / "data" / "train", *TRAIN, "--epochs", "2", "--weights", "none",
                     "--fine-tune", "all", "-o", run)
        alone = card(run / "report.html")
        self.assertIn("none: its weights were random", alone)
        self.assertNotIn("Validation</th>", alone)
        self.assertRegex(alone, r"Measured</th><td>top-1 .* validation images, .*by which the epoch was")
        # Whoever goes on with these weights is told what they have seen.
        more = self.folder / "more"
        self.succeed("train", BASE / "data", *TRAIN, "--epochs", "1", "--weights",
                     run / "model.safetensors", "-o", more)
        self.assertRegex(card(more / "report.html"), r"Weights from</th><td>random.*, fine-tuned on \d+ "
                                                     r"images of 6 classes")
        self.assertIn("those that it was fine-tuned on", card(more / "report.html"))
        # However the weights are taken along.
        self.succeed("export", run, "-o", self.folder / "all.pth")
        for name, command in (("backbone.safetensors", ("weights", "convert", run)),
                              ("trunk.pth", ("export", run, "--without-head")),
                              ("back.safetensors", ("weights", "convert", self.folder / "all.pth"))):
            self.succeed(*command, "-o", self.folder / name)
            again = self.folder / f"{name}-run"
            self.succeed("train", BASE / "data" / "train", *TRAIN, "--epochs", "1", "--weights", self.folder / name,
                         "-o", again)
            self.assertIn("those that it was fine-tuned on", card(again / "report.html"), name)
            self.assertEqual(card(again / "report.html").count("fine-tuned on"), 2, name)

    def test_one_test_image_proves_little(self):
        only = self.folder / "test" / "sea"
        only.mkdir(parents=True)
        shutil.copy(sorted((BASE / "data" / "test" / "sea").iterdir())[0], only)
        run = self.folder / "run"
        self.succeed("train", BASE / "data" / "train", *TRAIN, "--epochs", "1", "--test", only.parent, "-o", run)
        metrics = json.loads((run / "metrics.json").read_text())["test"]
        low, high = metrics["intervals"]["top1"]
        self.assertAlmostEqual(high - low, 1 - 0.2065, places=3)
        self.assertIn(" on 1 test image, 95 % between", (run / "report.html").read_text())
        self.assertEqual(metrics["trained_on"], 0)

    def test_no_report(self):
        self.succeed("train", BASE / "data", *TRAIN, "--epochs", "1", "--no-report", "-o",
                     self.folder / "r")
        self.assertFalse((self.folder / "r" / "report.html").exists())

    def test_explain(self):
        images = sorted((BASE / "data" / "test" / "sea").iterdir())[:2]
        other = BASE / "data" / "test" / "forest" / images[0].name
        why = self.folder / "why"
        self.succeed("predict", BASE / "two", *images, other, "--explain", why)
        self.assertEqual(len(list(why.glob("*.png"))), 3)
        self.assertEqual([row["path"] for row in t.read_csv(why / "index.csv")], [str(p) for p in (*images, other)])
        from PIL import Image
        with Image.open(why / (images[0].stem + ".png")) as image:
            self.assertGreater(image.width, 2 * 224, "the original and the map")
        finer = self.folder / "finer"
        self.succeed("predict", BASE / "two", images[0], "--explain", finer, "--explain-layer",
                     "block2_conv2")
        self.assertNotEqual((finer / (images[0].stem + ".png")).read_bytes(),
                            (why / (images[0].stem + ".png")).read_bytes())
        self.fail_with(2, "block5_conv1", "predict", BASE / "two", images[0], "--explain", finer,
                       "--explain-layer", "block9")
        self.fail_with(2, "--explain DIR", "predict", BASE / "two", images[0], "--explain-layer",
                       "block2_conv2")

    def test_event_file(self):
        (path,) = (BASE / "two").glob("events.out.tfevents.*")
        scalars, images, version = {}, {}, None
        for record in records(path):
            event = dict(fields(record))
            version = version or event.get(3)
            step = event.get(2, 0)
            for _, value in (f for f in fields(event.get(5, b"")) if f[0] == 1):
                value = dict(fields(value))
                tag = value[1].decode()
                if 4 in value:
                    images[tag] = dict(fields(value[4]))
                else:
                    scalars[tag, step] = struct.unpack("<f", value[2])[0]
        self.assertEqual(version, b"brain.Event:2")
        history = t.read_csv(BASE / "two" / "history.csv")
        self.assertEqual(len(scalars), 5 * len(history))
        for row in history:
            for tag, column in (("loss/train", "loss"), ("accuracy/validation", "val_accuracy"),
                                ("learning_rate", "learning_rate")):
                self.assertAlmostEqual(scalars[tag, int(row["epoch"])], float(row[column]), delta=1e-5)
        self.assertEqual(set(images), {"confusion_matrix/validation", "confusion_matrix/test"})
        self.assertTrue(images["confusion_matrix/test"][4].startswith(b"\x89PNG"))

    def test_resumed_run_says_so_in_its_events(self):
        run = self.folder / "run"
        shutil.copytree(BASE / "one", run)
        self.succeed("train", BASE / "data", "--resume", run, "--epochs", "4", "--patience", "0")
        files = sorted(run.glob("events.out.tfevents.*"))
        self.assertEqual(len(files), 2)
        starts = [dict(fields(r)) for r in records(files[-1])]
        starts = [e for e in starts if 7 in e] or [
            e for e in map(lambda r: dict(fields(r)), records(files[0])) if 7 in e]
        self.assertEqual(starts[0][2], 3)

    def on_terminal(self, *arguments, environment=None, columns=110, rows=30):
        """Everything that the program wrote to a terminal of that size."""
        pid, fd = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "xterm-256color", **(environment or {})})
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execv(t.GRAFT, [t.GRAFT, *map(str, arguments)])
        out = b""
        while True:
            try:
                piece = os.read(fd, 1 << 16)
            except OSError:
                break
            if not piece:
                break
            out += piece
        os.close(fd)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, out)
        return out.decode()

    def test_live_view(self):
        train = ("train", BASE / "data", *TRAIN, "--epochs", "3", "-o", self.folder / "r", "--force")
        text = self.on_terminal(*train)
        braille = re.findall("[\u2801-\u28ff]", text)
        self.assertGreater(len(braille), 20)
        self.assertIn("best: epoch", text)
        self.assertIn("\x1b[36m", text)
        plain = self.on_terminal(*train, environment={"NO_COLOR": "1"})
        self.assertIsNone(re.search(r"\x1b\[\d*m", plain))
        self.assertRegex(plain, "[\u2801-\u28ff]")
        # Too small to draw in, and a pipe: lines.
        for small in (self.on_terminal(*train, columns=40), self.succeed(*train).stderr):
            self.assertNotRegex(small, "[\u2801-\u28ff]")
            self.assertIn("epoch 3/3", small)
        self.assertEqual(self.succeed(*train, "--quiet").stderr, "")

    def test_dashboard(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [t.GRAFT, "train", str(BASE / "data"), *TRAIN[:-2], "--head", "gap", "--fine-tune", "all",
             "--epochs", "12", "-o", str(self.folder / "r"), "--dashboard", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def get(path, host=None):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}",
                                             headers={"Host": host} if host else {})
            return urllib.request.urlopen(request, timeout=5).read().decode()

        def wait(condition):
            for _ in range(6000):  # programs with sanitizers take their time
                try:
                    run = json.loads(get("/run.json"))
                    if condition(run):
                        return run
                except OSError:
                    self.assertIsNone(process.poll(), "ended before it could be asked")
                time.sleep(0.02)
            self.fail("never")
        run = wait(lambda run: len(run["history"]) >= 2)
        self.assertEqual(run["epochs"], 12)
        self.assertEqual([r["epoch"] for r in run["history"][:2]], [1, 2])
        self.assertTrue(math.isfinite(run["history"][0]["val_loss"]))
        self.assertIn("<title>vgg-mini on", get("/"))
        self.assertIn("Worst mistakes of epoch", get("/mistakes"))
        self.assertEqual(get("/curves").count("<svg"), 3)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            get("/run.json", host="elsewhere.example")
        self.assertEqual(refused.exception.code, 403)
        self.fail_with(1, f"port {port}", "train", BASE / "data", *TRAIN, "--epochs", "1", "-o",
                       self.folder / "s", "--dashboard", port)
        run = wait(lambda run: run["finished"])
        self.assertEqual(run["share"], 1)
        self.assertEqual(list(sorted(run["stages"])), ["evaluation", "features", "report", "training"])
        self.assertEqual(get("/report.html"), (self.folder / "r" / "report.html").read_text())
        get("/goodbye")
        self.assertEqual(process.wait(30), 0)

    def test_compare(self):
        document = self.succeed_json("compare", BASE / "one", BASE / "two", "--json")
        self.assertEqual([r["epochs"] for r in document["runs"]], [2, 8])
        (pair,) = document["pairs"]
        rows = {name: {r["path"]: r["label"] == r["predicted"]
                       for r in t.read_csv(BASE / name / "predictions.csv") if r["split"] == "test"}
                for name in ("one", "two")}
        one, two = rows["one"], rows["two"]
        self.assertEqual(pair["images"], 60)
        self.assertEqual(pair["only_a"], sum(one[p] and not two[p] for p in one))
        self.assertEqual(pair["only_b"], sum(two[p] and not one[p] for p in one))
        n, least = pair["only_a"] + pair["only_b"], min(pair["only_a"], pair["only_b"])
        p = min(1, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2 ** n)
        self.assertAlmostEqual(pair["p"], p, delta=1e-9)
        text = self.succeed("compare", BASE / "one", BASE / "two", "--html", self.folder / "c.html")
        self.assertIn("McNemar", text.stdout)
        self.assertIn("<svg", (self.folder / "c.html").read_text())
        self.fail_with(2, "at least two", "compare", BASE / "one")
        self.fail_with(2, "twice", "compare", BASE / "one", f"{BASE}/./one")
        self.fail_with(1, "no finished run", "compare", BASE / "one", BASE / "data")
        self.fail_with(1, "no run folder", "compare", BASE / "one", self.folder / "missing")


if __name__ == "__main__":
    t.main()
