"""Where predictions go: files of every kind, sorted folders, maps with their list, images as they come."""
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import openpyxl
from PIL import Image

import graft_testing as t

BASE = None


def setUpModule():
    """One small trained model for all tests of this file; a class is called as a formula begins."""
    global BASE
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-results-"))
    t.draw_scenes(BASE / "data", 6, size=48)
    (BASE / "data" / "sea").rename(BASE / "data" / "=sea")
    if t.HAS_TRAINING:
        done = t.run("train", BASE / "data", "--backbone", "vgg-mini", "--epochs", "3", "--input-size", "32",
                     "--head", "gap", "-o", BASE / "run", "--quiet", "--no-report")
        assert done.returncode == 0, done.stderr


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


class Results(t.TestCase):
    def setUp(self):
        super().setUp()
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        self.model = BASE / "run"
        self.images = sorted((BASE / "data").rglob("*.jpg"))[:9]  # of '=sea' and another class
        self.photos = self.folder / "photos"
        for path in self.images:
            (self.photos / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.photos / path.parent.name)

    def predict(self, *arguments, **keywords):
        return self.succeed("predict", self.model, *arguments, **keywords)


class Files(Results):
    def test_kinds_agree(self):
        document = self.succeed_json("predict", self.model, self.photos, "--json", "--probabilities")
        out = {kind: self.folder / f"r.{kind}" for kind in ("csv", "json", "jsonl", "xlsx", "html")}
        bad = self.photos / "bad.jpg"
        bad.write_text("no image")
        done = self.fail_with(1, "bad.jpg: not an image", "predict", self.model, self.photos, "--probabilities",
                              *[word for path in out.values() for word in ("-o", path)])
        self.assertEqual(done.stdout, "", "the files have it")
        for path in out.values():
            self.assertIn(f"wrote {path}\n", done.stderr)
        whole = json.loads(out["json"].read_text())
        self.assertEqual(whole["predictions"], document["predictions"])
        self.assertEqual(whole["classes"], document["classes"])
        self.assertEqual([e["path"] for e in whole["errors"]], [str(bad)])
        lines = [json.loads(line) for line in out["jsonl"].read_text().splitlines()]
        self.assertEqual([row for row in lines if "label" in row], whole["predictions"])
        rows = t.read_csv(out["csv"])
        sheet = openpyxl.load_workbook(out["xlsx"])
        cells = list(sheet["predictions"].values)
        self.assertEqual(list(cells[0]), ["path", "label", "probability"] + [f"p:{c}" for c in whole["classes"]])
        self.assertEqual(list(sheet["not read"].values)[1][0], str(bad))
        page = out["html"].read_text()
        self.assertEqual(page.count("<img"), 9)
        self.assertEqual(len(rows), 9)
        for row, cell, p in zip(rows, cells[1:], whole["predictions"]):
            self.assertEqual(row["path"], p["path"])
            self.assertEqual(cell[:2], (p["path"], p["label"]))
            self.assertEqual(row["label"], "'=sea" if p["label"] == "=sea" else p["label"])
            for name, value in zip(whole["classes"], p["probabilities"]):
                self.assertAlmostEqual(float(row["p:'=sea" if name == "=sea" else f"p:{name}"]), value, places=6)
            self.assertAlmostEqual(cell[2], p["probability"], places=6)
            self.assertIn(f'alt="{p["label"]} ', page)
        for row in sheet["predictions"].iter_rows():
            for cell in row:
                self.assertNotEqual(cell.data_type, "f")

    def test_both(self):
        """A format that is asked for is printed as well."""
        out = self.folder / "r.csv"
        done = self.predict(self.photos, "-o", out, "--format", "csv", "--top", "6")
        self.assertEqual(len(done.stdout.splitlines()), 10)
        self.assertIn(",=sea,", done.stdout, "as it is, for programs")
        self.assertNotIn(",=sea,", out.read_text())
        self.assertIn(",'=sea,", out.read_text())
        plain = self.predict(self.photos).stdout
        self.assertEqual(self.predict(self.photos, "-o", out, "--format", "text").stdout, plain)

    def test_all_probabilities_as_text(self):
        line = self.predict(self.images[0], "--probabilities").stdout
        self.assertEqual(line.count(","), 5)

    def test_refused(self):
        image = self.images[0]
        for text, *words in (("must end in", "-o", "r.txt"), ("must end in", "-o", "r"),
                             ("named twice", "-o", "r.csv", "-o", "./r.csv"),
                             ("--unsure is for", "--unsure", "0.5"), ("--unsure", "--unsure", "1.5"),
                             ("--link", "--link", "hard"), ("--link", "--sort-into", "s", "--link", "soft")):
            self.fail_with(2, text, "predict", self.model, image, *words, cwd=self.folder)
        manifest = self.folder / "model.json"
        shutil.copy(self.model / "model.safetensors", manifest)
        self.fail_with(2, "would be replaced", "predict", manifest, image, "-o", manifest)
        self.fail_with(1, "no such model", "predict", self.folder / "none", image, "-o", self.folder / "r.csv")
        self.assertFalse((self.folder / "r.csv").exists())

    def test_an_interrupted_file_is_none(self):
        out = self.folder / "r.csv"
        out.write_text("before")
        process = subprocess.Popen([t.GRAFT, "predict", self.model, *self.images * 400, "-o", out],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        if process.wait(20) == 130:  # else it was faster
            self.assertEqual(out.read_text(), "before")
        self.assertEqual([p.name for p in self.folder.iterdir() if p.name.startswith("graft-")], [])


class Sorting(Results):
    def folders(self, out):
        return {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} - {"sorted.csv"}

    def test_sorted(self):
        out = self.folder / "sorted"
        labels = {p["path"]: p["label"] for p in
                  self.succeed_json("predict", self.model, self.photos, "--json")["predictions"]}
        done = self.predict(self.photos, "--sort-into", out)
        self.assertEqual(len(done.stdout.splitlines()), 9)
        self.assertIn(f"sorted 9 images into {out}: ", done.stderr)
        rows = t.read_csv(out / "sorted.csv")
        self.assertEqual({row["path"]: row["label"] for row in rows}, labels)
        for row in rows:
            self.assertEqual((out / row["file"]).read_bytes(), pathlib.Path(row["path"]).read_bytes())
            self.assertEqual(pathlib.Path(row["file"]).parent.name, row["label"])
            self.assertEqual((out / row["file"]).stat().st_mtime_ns, pathlib.Path(row["path"]).stat().st_mtime_ns)
        self.assertEqual(self.folders(out), {row["file"] for row in rows})
        again = self.predict(self.photos, "--sort-into", out)
        self.assertIn("(9 lay there already)", again.stderr)
        self.assertEqual(self.folders(out), {row["file"] for row in rows})
        self.assertEqual(t.read_csv(out / "sorted.csv"), rows)
        # One that a person has put into the right folder stays there.
        moved = pathlib.Path(rows[0]["file"])
        other = next(row["label"] for row in rows if row["label"] != rows[0]["label"])
        (out / moved).rename(out / other / moved.name)
        again = self.predict(self.photos, "--sort-into", out)
        self.assertIn("(9 lay there already)", again.stderr)
        self.assertFalse((out / moved).exists())
        # The whole as DATA.
        self.assertEqual(self.succeed_json("check", out, "--json")["images"], 9)

    def test_unsure_and_links(self):
        out = self.folder / "sorted"
        probabilities = [p["probability"] for p in
                         self.succeed_json("predict", self.model, self.photos, "--json")["predictions"]]
        middle = sorted(probabilities)[4]
        done = self.predict(self.photos, "--sort-into", out, "--unsure", f"{middle:.9f}", "--link", "hard")
        unsure = len(list((out / "unsure").iterdir()))
        self.assertIn(unsure, (4, 5))
        self.assertIn(f"unsure {unsure}", done.stderr)
        some = next((out / "unsure").iterdir())
        self.assertEqual(some.stat().st_nlink, 2)
        linked = self.folder / "linked"
        self.predict(self.photos, "--sort-into", linked, "--link", "symbolic", cwd=self.folder)
        for path in linked.rglob("*.jpg"):
            self.assertTrue(path.is_symlink() and path.exists())

    def test_below_the_images(self):
        out = self.photos / "sorted"
        self.predict(self.photos, "--sort-into", out)
        before = self.folders(out)
        done = self.predict(self.photos, "--sort-into", out)
        self.assertIn("9 images in", done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 9)
        self.assertEqual(self.folders(out), before)
        for inside in (out, next(path for path in out.iterdir() if path.is_dir())):
            self.fail_with(2, "--sort-into", "predict", self.model, inside, "--sort-into", out)
        self.fail_with(2, "--sort-into", "predict", self.model, self.photos, "--sort-into", self.photos)
        self.assertEqual(self.folders(out), before)

    def test_what_cannot_be_read(self):
        (self.photos / "bad.jpg").write_text("no image")
        self.fail_with(1, "bad.jpg", "predict", self.model, self.photos, "--sort-into", self.folder / "s")
        self.assertEqual(len(self.folders(self.folder / "s")), 9)


class Maps(Results):
    def test_list_and_picture(self):
        out = self.folder / "why"
        self.predict(self.photos, "--explain", out)
        rows = t.read_csv(out / "index.csv")
        self.assertEqual([row["path"] for row in rows], [str(p) for p in sorted(self.photos.rglob("*.jpg"))])
        self.assertEqual(len({row["overlay"] for row in rows}), 9)
        for row in rows:
            with Image.open(out / row["overlay"]) as sheet, Image.open(row["path"]) as original:
                sheet = sheet.convert("RGB")
                # The original at the left, made larger: its middle has about its colour.
                left = sheet.resize((2, 1), box=(0, 0, 224, 224)).getpixel((0, 0))
                middle = original.convert("RGB").resize((2, 1)).getpixel((0, 0))
                self.assertLess(max(abs(a - b) for a, b in zip(left, middle)), 16)
                self.assertEqual(sheet.width, 2 * 224 + 4)
                caption = sheet.crop((0, 225, sheet.width, sheet.height)).convert("L")
                self.assertGreater(sum(caption.histogram()[:64]), 50, "letters")
        # Rows of other images stay as long as their sheets do.
        other = self.folder / "other.jpg"
        shutil.copy(self.images[0], other)
        (out / rows[0]["overlay"]).unlink()
        self.predict(other, "--explain", out)
        self.assertEqual([row["path"] for row in t.read_csv(out / "index.csv")],
                         [row["path"] for row in rows[1:]] + [str(other)])

    def test_a_list_of_somebody_else(self):
        out = self.folder / "why"
        out.mkdir()
        (out / "index.csv").write_text("a;b\n")
        self.fail_with(2, "index.csv exists already", "predict", self.model, self.images[0], "--explain", out)
        self.assertEqual((out / "index.csv").read_text(), "a;b\n")


class Watching(Results):
    def watch(self, *arguments):
        inbox = self.folder / "inbox"
        inbox.mkdir(exist_ok=True)
        process = subprocess.Popen([t.GRAFT, "predict", str(self.model), "--watch", str(inbox),
                                    *map(str, arguments)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        for line in process.stderr:
            if line.startswith("watching"):
                break
        return inbox, process

    def stop(self, process, number=signal.SIGINT):
        process.send_signal(number)
        self.assertEqual(process.wait(20), 0)
        return process.stdout.read(), process.stderr.read()

    def test_as_they_come(self):
        log = self.folder / "log.csv"
        sorted_into = self.folder / "inbox" / "sorted"
        inbox, process = self.watch("--format", "text", "-o", log, "--sort-into", sorted_into)
        data = self.images[0].read_bytes()
        with open(inbox / "slow.jpg", "wb") as file:  # counts when it is whole
            file.write(data[:500])
            file.flush()
            time.sleep(0.4)
            file.write(data[500:])
        self.assertIn("slow.jpg: ", process.stdout.readline())
        shutil.copy(self.images[1], inbox / ".hidden.jpg.tmp")
        os.rename(inbox / ".hidden.jpg.tmp", inbox / "moved.jpg")
        self.assertIn("moved.jpg: ", process.stdout.readline())
        shutil.copy(self.images[2], inbox / "slow.jpg")  # its name again
        self.assertIn("slow.jpg: ", process.stdout.readline())
        (inbox / "new" / "deep").mkdir(parents=True)
        shutil.copy(self.images[3], inbox / "new" / "deep")
        self.assertIn(f"deep/{self.images[3].name}: ", process.stdout.readline())
        (inbox / "note.txt").write_text("no image")
        (inbox / "bad.jpg").write_text("no image")
        self.assertIn("bad.jpg: not an image", process.stderr.readline())
        out, err = self.stop(process)
        self.assertEqual(out, "", "what was sorted is not read again")
        self.assertIn("sorted 4 images into", err)
        self.assertEqual([pathlib.Path(row["path"]).name for row in t.read_csv(log)],
                         ["slow.jpg", "moved.jpg", "slow.jpg", self.images[3].name])
        self.assertEqual(len([p for p in sorted_into.rglob("*.jpg")]), 4)

    def test_a_burst_and_what_was_there(self):
        inbox = self.folder / "inbox"
        inbox.mkdir()
        for i in range(20):
            shutil.copy(self.images[i % 9], inbox / f"old-{i}.jpg")
        log = self.folder / "log.jsonl"
        inbox, process = self.watch(inbox, "-o", log)
        for i in range(300):
            os.link(self.images[i % 9], inbox / f"{i}.jpg")
        deadline = time.monotonic() + 60
        while len(log.read_text().splitlines()) < 320 and time.monotonic() < deadline:
            time.sleep(0.1)
        out, _ = self.stop(process, signal.SIGTERM)
        names = [pathlib.Path(json.loads(line)["path"]).name for line in log.read_text().splitlines()]
        self.assertEqual(len(names), 320)
        self.assertEqual(len(set(names)), 320)
        self.assertEqual(out, "")

    def test_looked_through(self):
        """As on network drives; and where there are too few watches, which a user namespace can show."""
        inbox, process = self.watch("--watch-every", "0.2", "--json")
        shutil.copy(self.images[0], inbox)
        self.assertIn("label", json.loads(process.stdout.readline()))
        self.stop(process)
        # A limit of this process's alone.
        (inbox / "sub").mkdir()
        done = subprocess.run(["unshare", "-Ur", "true"], capture_output=True)
        if done.returncode != 0:
            return
        script = f"echo 1 > /proc/sys/user/max_inotify_watches && exec {t.GRAFT} predict {self.model} --watch {inbox}"
        process = subprocess.Popen(["unshare", "-Ur", "sh", "-c", script], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        note = process.stderr.readline()
        if "Permission denied" in note:
            return
        self.assertIn("max_user_watches", note)
        self.assertIn("watching", process.stderr.readline())
        shutil.copy(self.images[1], inbox / "sub")
        self.assertIn("sub/", process.stdout.readline())
        self.stop(process)

    def test_the_folder_goes(self):
        inbox, process = self.watch()
        shutil.rmtree(inbox)
        self.assertEqual(process.wait(20), 1)
        self.assertIn("removed or moved away", process.stderr.read())

    def test_refused(self):
        inbox = self.folder / "inbox"
        inbox.mkdir()
        log = self.folder / "log.csv"
        log.write_text("path,other\n")
        for code, text, *words in ((2, "--watch", "-o", "r.html"), (2, "--watch", "--explain", "why"),
                                   (1, "other columns", "-o", log), (2, "--sort-into", "--sort-into", self.folder)):
            self.fail_with(code, text, "predict", self.model, "--watch", inbox, *words)
        self.fail_with(1, "no such folder", "predict", self.model, "--watch", self.folder / "none")
        self.fail_with(2, "--watch", "predict", self.model, self.images[0], "--watch-every", "1")


if __name__ == "__main__":
    t.main()
