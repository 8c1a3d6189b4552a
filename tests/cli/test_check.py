"""graft check: everything that can be odd about a dataset, each once; train's warnings from it."""
import io
import re
import shutil
import struct
import zlib

import graft_testing as t
import numpy as np
from PIL import Image


def photo(seed, size=(96, 96)):
    """An image of its own: coloured blobs, no two alike."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.BICUBIC)


def apng(path):
    """A PNG with an animation control chunk before its pixels."""
    data = io.BytesIO()
    photo(77).save(data, "PNG")
    data = data.getvalue()
    chunk = b"acTL" + struct.pack(">II", 1, 0)
    control = struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data[:33] + control + data[33:])  # behind the signature and IHDR


class Check(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        seed = 0
        for split, count in (("train", 6), ("test", 3)):
            for name in ("a", "b", "c"):
                (self.data / split / name).mkdir(parents=True)
                for i in range(count):
                    photo(seed).save(self.data / split / name / f"{i}.jpg", quality=95)
                    seed += 1

    def check(self, *arguments):
        return self.succeed_json("check", self.data, "--json", "--quiet", *arguments)

    def names(self, findings):
        return sorted(str(t.pathlib.Path(f["path"]).relative_to(self.data)) for f in findings)

    def groups(self, groups):
        return [[str(t.pathlib.Path(p).relative_to(self.data)) for p in group] for group in groups]

    def test_nothing_odd(self):
        document = self.check()
        self.assertEqual(document["images"], 27)
        self.assertEqual(document["classes"], {"a": 9, "b": 9, "c": 9})
        self.assertEqual(document["splits"], {"train": 18, "test": 9})
        for key in ("corrupt", "duplicates", "conflicting_labels", "train_test_leaks",
                    "near_duplicates", "wrong_extension", "tiny", "extreme_aspect", "greyscale", "cmyk",
                    "animated", "unsupported", "nearly_black"):
            self.assertEqual(document[key], [], key)
        self.assertIn("nothing odd found", self.succeed("check", self.data).stdout)

    def test_odd_images(self):
        a, b = self.data / "train" / "a", self.data / "train" / "b"
        whole = (a / "0.jpg").read_bytes()
        (a / "cut.jpg").write_bytes(whole[:len(whole) // 2])
        (a / "empty.jpg").write_bytes(b"")
        (a / "page.jpg").write_text("<html>not found</html>")
        photo(50).save(a / "really.png", "JPEG", quality=95)
        photo(51, (90, 20)).save(a / "tiny.jpg")
        photo(52, (500, 100)).save(a / "wide.jpg")
        photo(53).convert("L").save(b / "grey.jpg")
        photo(54).convert("L").convert("RGB").save(b / "colourless.png")
        photo(55).convert("CMYK").save(b / "cmyk.jpg")
        photo(56).save(b / "moves.webp", save_all=True, append_images=[photo(57)], duration=50)
        apng(b / "moves.png")
        document = self.check()
        self.assertEqual(document["images"], 27 + 11)
        self.assertEqual(self.names(document["corrupt"]),
                         ["train/a/cut.jpg", "train/a/empty.jpg", "train/a/page.jpg"])
        why = {t.pathlib.Path(f["path"]).name: f["why"] for f in document["corrupt"]}
        self.assertIn("empty", why["empty.jpg"])
        self.assertIn("HTML", why["page.jpg"])
        self.assertIn("damaged JPEG", why["cut.jpg"])
        self.assertEqual(self.names(document["wrong_extension"]), ["train/a/really.png"])
        self.assertEqual(self.names(document["tiny"]), ["train/a/tiny.jpg"])
        self.assertEqual(self.names(document["extreme_aspect"]),
                         ["train/a/tiny.jpg", "train/a/wide.jpg"])
        self.assertEqual(self.names(document["greyscale"]),
                         ["train/b/colourless.png", "train/b/grey.jpg"])
        self.assertEqual(self.names(document["cmyk"]), ["train/b/cmyk.jpg"])
        self.assertEqual(self.names(document["animated"]), ["train/b/moves.png", "train/b/moves.webp"])

    def test_tiffs_that_use_12_of_16_bits(self):
        a = self.data / "train" / "a"
        values = np.random.default_rng(1).integers(0, 4096, (64, 64), dtype=np.uint16)
        Image.fromarray(values).save(a / "scan.tiff")
        Image.fromarray(values * 16).save(a / "whole.tiff")
        found = self.check()["nearly_black"]
        self.assertEqual(self.names(found), ["train/a/scan.tiff"])
        self.assertIn("12 bits", found[0]["why"])

    def test_what_training_would_refuse(self):
        (self.data / "train" / "a" / "raw.cr2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
        document = self.check()
        self.assertEqual(self.names(document["skipped"]), ["train/a/raw.cr2"])
        text = self.succeed("check", self.data).stdout
        self.assertRegex(text, r"Not read: 1 of \d+ images")
        self.assertIn("raw.cr2: camera raw files are not read; develop them", text)
        self.assertIn("'graft train' refuses them, unless --exclude corrupt", text)
        self.assertNotIn("nothing odd found", text)

    def test_missing_images_are_no_imbalance(self):
        rows = [f"{path},{path.parent.name}" for path in sorted((self.data / "train").rglob("*.jpg"))]
        table = self.folder / "m.csv"
        table.write_text("\n".join(["path,label"] + rows + [f"/none/{i}.jpg,a" for i in range(60)]) + "\n")
        self.assertEqual(self.succeed_json("check", table, "--json")["imbalance"], 1)

    def test_unsupported_is_not_damaged(self):
        a = self.data / "train" / "a"
        deep = bytearray((a / "0.jpg").read_bytes())
        frame = deep.index(b"\xff\xc0")
        deep[frame + 1], deep[frame + 4] = 0xC1, 12
        (a / "12bit.jpg").write_bytes(deep)
        photo(60).save(a / "drawing.jpg", "JPEG2000")
        document = self.check()
        self.assertEqual(document["corrupt"], [])
        self.assertEqual(self.names(document["unsupported"]),
                         ["train/a/12bit.jpg", "train/a/drawing.jpg"])
        why = {t.pathlib.Path(f["path"]).name: f["why"] for f in document["unsupported"]}
        self.assertIn("JPEG with 12 bits a channel is not supported", why["12bit.jpg"])
        self.assertIn("it is a JPEG 2000", why["drawing.jpg"])
        text = self.succeed("check", self.data).stdout
        self.assertIn("Of a kind that is not read: 2", text)
        self.assertNotIn("damaged:", text)

    def test_values_of_12_bits_in_16(self):
        a = self.data / "train" / "a"
        values = np.random.default_rng(3).integers(0, 4096, (40, 50), dtype=np.uint16)
        Image.fromarray(values).save(a / "dark.png")
        Image.fromarray(values * 16).save(a / "scaled.png")
        Image.fromarray(np.zeros((40, 50), np.uint16)).save(a / "black.png")
        document = self.check()
        self.assertEqual(self.names(document["nearly_black"]), ["train/a/dark.png"])
        self.assertIn(f"no value over {values.max()} of 65535 (12 bits)", document["nearly_black"][0]["why"])

    def copies(self):
        """Three groups of copies: within a class, across classes, across train and test."""
        train, test = self.data / "train", self.data / "test"
        shutil.copy(train / "a" / "0.jpg", train / "a" / "again.jpg")
        shutil.copy(train / "a" / "1.jpg", train / "b" / "other.jpg")
        shutil.copy(train / "c" / "2.jpg", test / "c" / "seen.jpg")
        return [["test/c/seen.jpg", "train/c/2.jpg"], ["train/a/0.jpg", "train/a/again.jpg"],
                ["train/a/1.jpg", "train/b/other.jpg"]]

    def test_copies_conflicts_and_leaks(self):
        want = self.copies()
        document = self.check()
        self.assertEqual(self.groups(document["duplicates"]), want)
        self.assertEqual(self.groups(document["conflicting_labels"]), want[2:])
        self.assertEqual(self.groups(document["train_test_leaks"]), want[:1])
        self.assertEqual(document["near_duplicates"], [], "identical files are no near-duplicates")
        # The same with the test images named apart.
        apart = self.succeed_json("check", self.data / "train", "--test", self.data / "test", "--json")
        self.assertEqual(len(apart["train_test_leaks"]), 1)
        self.assertEqual(len(apart["duplicates"]), 3)

    def test_near_duplicates(self):
        train = self.data / "train"
        image = Image.open(train / "a" / "3.jpg")
        image.save(train / "b" / "worse.jpg", quality=40)
        image.resize((64, 64), Image.LANCZOS).save(train / "c" / "smaller.png")
        document = self.check()
        self.assertEqual(document["duplicates"], [])
        self.assertEqual(self.groups(document["near_duplicates"]),
                         [["train/a/3.jpg", "train/b/worse.jpg", "train/c/smaller.png"]])

    def test_flat_images_are_not_all_alike(self):
        for i in range(5):
            Image.new("RGB", (64, 64), (40 * i, 90, 200 - 30 * i)).save(
                self.data / "train" / "a" / f"flat{i}.png")
        self.assertEqual(self.check()["near_duplicates"], [])

    def test_page(self):
        self.copies()
        (self.data / "train" / "a" / "<b>&.jpg").write_bytes(b"nothing")
        page = self.folder / "check.html"
        self.succeed("check", self.data, "--html", page, "--quiet")
        text = page.read_text()
        self.assertIn("&lt;b&gt;&amp;.jpg", text)
        self.assertNotIn("<b>&.jpg", text)
        self.assertGreaterEqual(text.count("data:image/jpeg;base64,"), 8)
        self.assertIsNone(re.search(r"""(?:src|href)=["']?https?:""", text))

    def test_mistakes(self):
        self.fail_with(1, "no such file", "check", self.folder / "missing")
        (self.folder / "none").mkdir()
        self.fail_with(1, "no class folder", "check", self.folder / "none")
        self.fail_with(2, "--most", "check", self.data, "--most", "0")

    @t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_train_warns_and_excludes(self):
        self.copies()
        (self.data / "train" / "c" / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
        train = ("train", self.data, "--backbone", "vgg-mini", "--epochs", "1", "--input-size", "32",
                 "--val-split", "0.3", "-o", self.folder / "run", "--force")
        errors = self.succeed(*train, "--dry-run").stdout
        self.assertIn("1 group of identical files with conflicting labels", errors)
        self.assertIn("1 group of identical files are in training and test data", errors)
        # Without words 21 images of train; conflicts take two, leaks and corrupt one each.
        errors = self.succeed(*train, "--exclude", "conflicts,leaks corrupt").stderr
        self.assertIn("--exclude: 4 of 31 images left out", errors)
        self.assertNotIn("skipped", errors)
        rows = t.read_csv(self.folder / "run" / "split.csv")
        self.assertEqual(len(rows), 27)
        paths = {row["path"] for row in rows}
        self.assertFalse(any(p.endswith(("other.jpg", "bad.jpg", "train/c/2.jpg", "train/a/1.jpg"))
                             for p in paths))
        self.assertTrue(any(p.endswith("test/c/seen.jpg") for p in paths))
        # The run's own configuration repeats it.
        self.succeed("train", self.data, "--resume", self.folder / "run", "--epochs", "2")
        self.fail_with(2, "'conflict' is none of", *train, "--exclude", "conflict")

    def test_real_scenes(self):
        if not t.SCENES.exists():
            self.skipTest(f"the real scene photos are not at {t.SCENES}")
        document = self.succeed_json("check", t.SCENES / "train", "--json", "--quiet")
        self.assertEqual(document["images"], 8741)
        self.assertEqual(len(document["duplicates"]), 7)
        self.assertEqual(len(document["conflicting_labels"]), 5)
        self.assertEqual(document["train_test_leaks"], [])
        self.assertEqual(document["corrupt"], [])
        self.assertGreater(len(document["near_duplicates"]), 10)


if __name__ == "__main__":
    t.main()
