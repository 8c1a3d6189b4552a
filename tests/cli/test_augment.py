"""Augmentation, views, fine-tuning in one run, averages and the range test, on drawn images."""
import re
import xml.etree.ElementTree

import graft_testing as t
import numpy as np
from PIL import Image

FAST = ("--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--batch-size", "16",
        "--seed", "3")
WORDS = "rotate:20 shift:0.1 brightness:0.5-1.2 hflip"


class Preview(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 3)

    def test_contact_sheet(self):
        out = self.folder / "sheet.png"
        self.succeed("preview", self.data, "--augment", WORDS, "--input-size", "40x50", "--images", "4",
                     "--views", "3", "-o", out)
        with Image.open(out) as image:
            self.assertEqual((image.format, image.mode), ("PNG", "RGB"))
            sheet = np.asarray(image)
        self.assertGreaterEqual(sheet.shape[0], 4 * 40)
        self.assertGreaterEqual(sheet.shape[1], 4 * 50)
        again = self.folder / "again.png"
        self.succeed("preview", self.data, "--augment", WORDS, "--input-size", "40x50", "--images", "4",
                     "--views", "3", "-o", again)
        self.assertEqual(out.read_bytes(), again.read_bytes())
        # Without augmentation all columns are the image.
        self.succeed("preview", self.data, "--augment", "none", "--input-size", "40", "--images", "1",
                     "--views", "1", "-o", out)
        sheet = np.asarray(Image.open(out))
        np.testing.assert_array_equal(sheet[4:44, 4:44], sheet[4:44, -44:-4])

    def test_mistakes(self):
        self.fail_with(2, "rotat", "preview", self.data, "--augment", "rotat:3")
        self.fail_with(2, ".png", "preview", self.data, "-o", self.folder / "sheet.jpg")
        self.fail_with(2, "200 are the limit", "preview", self.data, "--input-size", "16384")
        self.fail_with(1, "nowhere", "preview", self.folder / "nowhere")
        (self.folder / "bad").mkdir()
        for name in ("a", "b"):
            (self.folder / "bad" / name).mkdir()
            (self.folder / "bad" / name / "x.jpg").write_bytes(b"none")
        self.fail_with(1, "none of the images", "preview", self.folder / "bad", "-o",
                       self.folder / "s.png")


class Augmentation(t.TestCase):
    def setUp(self):
        super().setUp()
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 8)

    def train(self, name, *arguments):
        done = self.succeed("train", self.data, *FAST, "-o", self.folder / name, "--epochs", "3",
                            "--force", "--cache-dir", self.folder / "cache", *arguments)
        return (self.folder / name / "model.safetensors").read_bytes(), done

    def sets(self):
        return self.succeed_json("cache", "list", "--json", "--cache-dir",
                                 self.folder / "cache")["sets"]

    def images(self):
        return sum(s["images"] for s in self.sets())

    def in_split(self, split):
        return sum(row["split"] == split for row in t.read_csv(self.folder / "a" / "split.csv"))

    def test_views_are_cached_once_and_repeat(self):
        first, _ = self.train("a", "--augment", WORDS, "--views", "3")
        count = self.images()
        again, done = self.train("a", "--augment", WORDS, "--views", "3", "--verbose")
        self.assertEqual(first, again)
        self.assertEqual(self.images(), count)
        self.assertNotRegex(done.stderr, r"[1-9]\d* computed")
        threads, _ = self.train("b", "--augment", WORDS, "--views", "3", "--threads", "1",
                                "--no-cache", "--cache-dtype", "fp32")
        other, _ = self.train("c", "--augment", WORDS, "--views", "3", "--threads", "1", "--no-cache")
        self.assertEqual(threads, other)
        plain, _ = self.train("d")
        self.assertNotEqual(plain, first)

    def test_each_part_of_a_view_is_in_the_key(self):
        self.train("a", "--augment", "rotate:20", "--views", "1")
        before = self.images()
        train = self.in_split("train")  # validation images are not augmented
        self.assertEqual(before, 48)
        for words in ("rotate:21", "rotate:20 brightness:0.5-0.9", "rotate:20 fill:wrap"):
            self.train("a", "--augment", words, "--views", "1")
            now = self.images()
            self.assertEqual(now - before, train, words)
            before = now
        # Two views for flips: one of them is the image itself, whoever computed it.
        self.train("a", "--augment", "none")
        plain = self.images()
        self.train("a", "--augment", "hflip")
        self.assertEqual(self.images() - plain, train)

    def test_fresh_views(self):
        first, _ = self.train("a", "--augment", WORDS + " mixup:0.2", "--views", "0")
        again, _ = self.train("b", "--augment", WORDS + " mixup:0.2", "--views", "0")
        self.assertEqual(first, again)
        # Nothing but the validation images' features is worth storing.
        self.assertEqual(self.images(), self.in_split("val"))
        whole, _ = self.train("c", "--augment", WORDS + " cutmix:1", "--fine-tune", "all", "--head",
                              "gap")
        self.assertNotEqual(whole, first)

    def test_resume_with_everything(self):
        options = ("--augment", WORDS, "--views", "2", "--freeze-epochs", "1", "--fine-tune", "2",
                   "--ema", "0.9", "--lr-decay-per-block", "0.5", "--epochs", "3", "--head",
                   "stats dense:8 dropout:0.3")
        data, run = self.data, self.folder / "r"
        self.succeed("train", data, *FAST, "-o", self.folder / "whole", *options)
        want = (self.folder / "whole" / "model.safetensors").read_bytes()
        want_last = (self.folder / "whole" / "checkpoints" / "last.safetensors").read_bytes()
        for stop_after in (1, 2):
            # A run that ends there is what a kill after that epoch leaves.
            self.succeed("train", data, *FAST, "-o", run, "--force", *options)
            self.kill_after(run, stop_after, options)
            self.succeed("train", data, "--resume", run)
            self.assertEqual((run / "model.safetensors").read_bytes(), want)
            self.assertEqual((run / "checkpoints" / "last.safetensors").read_bytes(), want_last)

    def kill_after(self, run, epochs, options):
        """Runs until that many epochs are in the history, and kills."""
        import shutil
        import subprocess
        import time
        shutil.rmtree(run)
        process = subprocess.Popen([t.GRAFT, "train", *map(str, (self.data, *FAST, "-o", run, *options))],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while time.time() < deadline and process.poll() is None:
            if (run / "history.csv").exists() and len(t.read_csv(run / "history.csv")) >= epochs:
                break
            time.sleep(0.002)
        process.kill()
        process.wait()

    def test_freeze_epochs(self):
        _, done = self.train("a", "--freeze-epochs", "2", "--fine-tune", "2", "--lr", "1e-4",
                             "--head-lr", "0.003", "--schedule", "constant", "--patience", "1",
                             "--warmup-epochs", "0")
        rates = [float(row["learning_rate"]) for row in t.read_csv(self.folder / "a" / "history.csv")]
        self.assertEqual(rates, [0.003, 0.003, 1e-4])
        self.assertEqual(done.stderr.count("prefix     "), 2)
        self.fail_with(2, "--freeze-epochs", "train", self.data, *FAST, "--epochs", "2",
                       "--freeze-epochs", "2", "--fine-tune", "2", "-o", self.folder / "x")
        self.fail_with(2, "--fine-tune", "train", self.data, *FAST, "--epochs", "2",
                       "--freeze-epochs", "1", "-o", self.folder / "x")

    def test_average_is_what_is_saved(self):
        plain, _ = self.train("a", "--patience", "0")
        averaged, _ = self.train("b", "--patience", "0", "--ema", "0.99")
        self.assertNotEqual(plain, averaged)
        metrics = self.succeed_json("evaluate", self.folder / "b", self.data, "--json")
        self.assertEqual(metrics["images"], 48)

    def test_find_lr(self):
        out = self.folder / "find"
        found = self.succeed_json("train", self.data, *FAST, "--find-lr", "--json", "-o", out)
        self.assertTrue(1e-7 <= found["suggested_lr"] <= 10)
        rows = t.read_csv(out / "find-lr.csv")
        rates = [float(row["learning_rate"]) for row in rows]
        self.assertEqual(rates, sorted(rates))
        self.assertGreater(len(rows), 40)
        root = xml.etree.ElementTree.parse(out / "find-lr.svg").getroot()
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        text = "".join(root.itertext())
        self.assertIn("learning rate", text)
        self.assertTrue(re.search(r"suggested: \S+", text))
        self.assertFalse((out / "model.safetensors").exists())

    def test_mistakes(self):
        for option, value in (("--augment", "blur:3"), ("--augment", "mixup:1 cutmix:1"),
                              ("--views", "-1"), ("--ema", "1"), ("--lr-decay-per-block", "2"),
                              ("--head-lr", "0"), ("--freeze-epochs", "-1")):
            self.fail_with(2, option, "train", self.data, *FAST, "-o", self.folder / "x", option,
                           value)


if __name__ == "__main__":
    t.main()
