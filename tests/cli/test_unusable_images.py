"""Images that training cannot use or that go away: what is said, listed and refused."""
import csv
import json
import os
import shutil
import struct
import subprocess

import graft_testing as t


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Training(t.TestCase):
    FAST = ("--backbone", "vgg-mini", "--input-size", "32", "--batch-size", "16", "--head", "gap",
            "--no-report")

    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 4, size=32)
        self.out = self.folder / "run"

    def damage(self, *paths):
        for path in paths:
            (self.data / path).write_text(f"no image: {path}")

    def test_a_class_that_cannot_be_read(self):
        self.damage(*(f"sea/{i}.jpg" for i in range(4)))
        done = self.fail_with(1, "no training image of class sea can be read", "train", self.data,
                              *self.FAST, "-o", self.out, "--max-skipped", "1", "--epochs", "1")
        self.assertIn("4 of 24 images skipped", done.stderr)
        self.assertFalse((self.out / "model.safetensors").exists())

    def test_a_class_of_one_page_saved_many_times(self):
        for path in (self.data / "sea").iterdir():
            path.write_text("<html>404</html>")
        for more in ((), ("--max-skipped", "1")):
            self.fail_with(1, "class 'sea': none of its 4 images, copies of one file, can be read", "train",
                           self.data, *self.FAST, "-o", self.out, *more)
        self.fail_with(1, "class 'sea': --exclude corrupt leaves none of its images, the first:", "train",
                       self.data, *self.FAST, "-o", self.out, "--exclude", "corrupt")

    def test_a_test_split_that_takes_too_much(self):
        for i in (1, 2):
            (self.data / "sea" / f"{i}.jpg").unlink()
        self.fail_with(1, "class 'sea' has only one image beside its 1 test image:", "train", self.data, *self.FAST, "-o",
                       self.out, "--test-split", "0.9")

    def test_skipped_images_are_told_and_listed(self):
        paths = [f"{kind}/0.jpg" for kind in ("sea", "forest", "street", "glacier", "mountain",
                                              "buildings")]
        self.damage(*paths)
        refused = self.fail_with(1, "6 of 24 images cannot be used", "train", self.data, *self.FAST,
                                 "-o", self.out, "--epochs", "1")
        self.assertIn("--max-skipped", refused.stderr)
        (self.data / "sea" / "clip.mov").write_bytes(b"moov")
        done = self.succeed("train", self.data, *self.FAST[:-1], "-o", self.out, "--epochs", "1", "--force",
                            "--max-skipped", "0.3", "--val-split", "0.25")
        self.assertEqual(done.stderr.count("no image\n") + done.stderr.count("graft: skipped: /"), 5)
        self.assertIn("and 1 more, listed in", done.stderr)
        self.assertIn("images used:", done.stderr)
        self.assertRegex(done.stderr.split("images used:")[1], r"total +\d+ +\d+")
        rows = t.read_csv(self.out / "skipped.csv")
        self.assertEqual({"/".join(row["path"].split("/")[-2:]) for row in rows}, set(paths))
        self.assertTrue(all(row["why"] and row["label"] and row["split"] for row in rows))
        report = (self.out / "report.html").read_text()
        self.assertIn("<summary>6 images could not be read</summary>", report)
        for row in rows:
            self.assertIn(f"<li>{row['path']}: ", report)
        self.assertIn("Files of kinds that are not read: 1 .mov.", report)
        self.assertIn("max-skipped = 0.3", (self.out / "config.toml").read_text())

    def test_validation_and_test_classes_that_cannot_be_read(self):
        for split, count, first in (("train", 4, 0), ("val", 1, 10), ("test", 1, 20)):
            t.draw_scenes(self.folder / "three" / split, count, first, size=32)
        for split, kind in (("val", "sea"), ("test", "forest")):
            next((self.folder / "three" / split / kind).iterdir()).write_text(split)
        done = t.run("train", self.folder / "three", *self.FAST, "-o", self.out, "--epochs", "1",
                     "--max-skipped", "0.05")
        self.assertEqual(done.returncode, 1)
        self.assertIn("warning: no val image of class sea can be read", done.stderr)
        self.assertIn("warning: no test image of class forest can be read", done.stderr)
        self.assertIn("1 of 6 test images could not be read", done.stderr)
        self.assertEqual(len(t.read_csv(self.out / "skipped.csv")), 2)
        self.assertTrue((self.out / "metrics.json").exists())
        self.succeed("train", self.folder / "three", *self.FAST, "-o", self.out, "--epochs", "1",
                     "--max-skipped", "0.2", "--force")

    def test_paths_that_are_not_utf8(self):
        odd = os.path.join(os.fsencode(self.folder), b"d\xe9\x1bpot")
        os.rename(self.data, odd)
        for kind in os.listdir(odd):
            os.rename(os.path.join(odd, kind, b"0.jpg"), os.path.join(odd, kind, b"\xff 0\n.jpg"))
        name = os.fsdecode(odd)
        done = subprocess.run([t.GRAFT.encode(), b"train", odd, *(o.encode() for o in self.FAST[:-1]),
                               b"-o", str(self.out).encode(), b"--epochs", b"1"], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(b"\x1b", done.stderr)
        with open(self.out / "split.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), 24)
        self.assertTrue(all(os.path.exists(row["path"]) for row in rows))
        again = self.succeed_json("evaluate", self.out, self.out / "split.csv", "--split", "all", "--json",
                                  "--report", self.folder / "r.html", "--predictions",
                                  self.folder / "p.csv")
        self.assertEqual(again["images"], 24)
        self.assertEqual(again["skipped"], [])
        self.assertEqual(len(self.succeed_json("predict", self.out, name, "--json")["predictions"]), 24)
        self.assertEqual(self.succeed_json("check", name, "--json", "--html",
                                           self.folder / "c.html")["images"], 24)
        self.succeed("features", name, "--backbone", "vgg-mini", "--input-size", "32", "--pool", "gap",
                     "-o", self.folder / "f.npy")

    def test_images_removed_while_training(self):
        """With views that are cut out of the images these are read in every epoch."""
        train = (t.GRAFT, "train", self.data, *self.FAST, "--augment", "crop:0.5-1 hflip", "--views", "0",
                 "--epochs", "25", "--patience", "0", "-o", self.out)
        for remove, code in ((lambda paths: paths[:1], 0), (lambda paths: paths, 1)):
            process = subprocess.Popen([str(a) for a in train] + ["--force"], stderr=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
            history = self.out / "history.csv"
            while process.poll() is None and not history.exists():
                pass
            split = t.read_csv(self.out / "split.csv")
            for path in remove([row["path"] for row in split if row["split"] == "train"]):
                os.unlink(path)
            stderr = process.communicate(timeout=100)[1]
            self.assertEqual(process.returncode, code, stderr)
            self.assertIn("going on without" if code == 0 else "can no longer be read", stderr)
            shutil.rmtree(self.data)
            if code == 0:
                self.assertEqual(len(t.read_csv(self.out / "skipped.csv")), 1)
                t.draw_scenes(self.data, 4, size=32)
                shutil.rmtree(self.out)

    def test_images_changed_between_phases(self):
        """The second phase trains on the images of the first, from the cache where they have gone."""
        train = [str(a) for a in (t.GRAFT, "train", self.data, *self.FAST, "--fine-tune", "block5_conv1", "--lr",
                                  "0.002", "--freeze-epochs", "5", "--epochs", "6", "--patience", "0", "--cache-dir")]
        subprocess.run([*train, str(self.folder / "cache1"), "-o", str(self.folder / "want")], check=True,
                       capture_output=True)
        process = subprocess.Popen([*train, str(self.folder / "cache2"), "-o", str(self.out)],
                                   stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while process.poll() is None and not (self.out / "history.csv").exists():
            pass
        paths = [row["path"] for row in t.read_csv(self.out / "split.csv") if row["split"] == "train"]
        for path in paths[1::2]:
            shutil.copy(paths[0], path)
        for path in paths[2::2]:
            os.unlink(path)
        stderr = process.communicate(timeout=100)[1]
        self.assertEqual(process.returncode, 0, stderr)
        got, want = (t.read_safetensors(run / "model.safetensors")[0] for run in (self.out, self.folder / "want"))
        self.assertEqual(sorted(got), sorted(want))
        for name in want:
            self.assertTrue((got[name] == want[name]).all(), name)

    def test_advice_of_a_refusal_can_be_followed(self):
        """What was refused before its first epoch leaves nothing that stands in the way."""
        (self.data / "sea" / "bad.jpg").write_bytes(b"no image")
        (self.data / "sea" / "layers.psd").write_bytes(b"8BPS")
        command = ["train", self.data, *self.FAST, "-o", self.out, "--epochs", "1"]
        self.fail_with(1, "--max-skipped", *command, "--max-skipped", "0.05")
        self.succeed(*command, "--exclude", "corrupt")
        self.fail_with(2, "exists already", *command, "--exclude", "corrupt")

    def test_a_misspelt_class_is_named_with_its_split(self):
        t.draw_scenes(self.folder / "root" / "train", 2, 50, size=32)
        t.draw_scenes(self.folder / "root" / "test", 2, 60, size=32)
        (self.folder / "root" / "test" / "forest").rename(self.folder / "root" / "test" / "forrest")
        self.fail_with(1, "class 'forrest' has no training image; its test images", "train",
                       self.folder / "root", *self.FAST, "-o", self.out)

    def test_labels_of_a_crafted_model_reach_no_terminal(self):
        self.succeed("train", self.data, *self.FAST, "-o", self.out, "--epochs", "1")
        tensors, metadata = t.read_safetensors(self.out / "model.safetensors")
        names = json.loads(metadata["classes"])
        metadata["classes"] = json.dumps([f"{name}\x1b[2J\n\u009bforged: line" for name in names])
        data = (self.out / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + size])
        del metadata["file_xxh3"]
        header["__metadata__"] = metadata
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        model = self.folder / "crafted.safetensors"
        model.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])
        done = self.succeed("predict", model, self.data / "sea")
        self.assertEqual(len(done.stdout.splitlines()), 4)
        wrong = self.fail_with(1, "is not among the model's classes", "evaluate", model, self.data)
        for output in (done.stdout, wrong.stderr):
            for control in ("\x1b", "\u009b", "\nforged"):
                self.assertNotIn(control, output)

    def test_evaluation(self):
        t.draw_scenes(self.folder / "root" / "test", 2, 50, size=32)
        t.draw_scenes(self.folder / "root" / "train", 2, 60, size=32)
        self.succeed("train", self.data, *self.FAST, "-o", self.out, "--epochs", "1")
        done = self.succeed("evaluate", self.out, self.folder / "root", "--json")
        self.assertIn("understood as train/ and test/ splits, 6 classes; evaluating the test split "
                      "(12 images)", done.stderr)
        # The class folders of another machine.
        (self.folder / "root" / "test" / "sea").rename(self.folder / "root" / "test" / "sea ")
        self.succeed("evaluate", self.out, self.folder / "root" / "test")
        (self.folder / "root" / "test" / "sea ").rename(self.folder / "root" / "test" / "Sea")
        self.fail_with(1, "'sea' differs from it only in letter case", "evaluate", self.out,
                       self.folder / "root" / "test")
        (self.folder / "root" / "test" / "Sea").rename(self.folder / "root" / "test" / "sea")
        (self.folder / "root" / "test" / "sea" / "50.jpg").write_text("x")
        bad = next((self.folder / "root" / "test" / "sea").iterdir())
        bad.write_text("no image")
        done = self.fail_with(1, "cannot be used", "evaluate", self.out, self.folder / "root", "--json")
        self.assertIn('"skipped"', done.stdout)
        self.succeed("evaluate", self.out, self.folder / "root", "--max-skipped", "0.5")


if __name__ == "__main__":
    t.main()
