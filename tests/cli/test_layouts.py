"""How folders are understood: splits, classes, wrappers, labels, and what is refused."""
import json
import os
import shutil
import unicodedata

import data_testing
import graft_testing as t
from PIL import Image, PngImagePlugin

NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


class Layouts(data_testing.TestCase):
    # Splits.

    def test_split_names_in_any_case_and_form(self):
        for names in (("Training", "Test"), ("train", "Test"), ("TRAIN", "VAL", "TEST"),
                      ("training", "validation", "testing"), ("train", "dev", "test"),
                      ("train", "eval"), ("seg_train", "seg_dev", "seg_test"),
                      ("training_set", "test_set"), ("train_images", "valid-images"),
                      ("trainset", "testdata")):
            shutil.rmtree(self.data, ignore_errors=True)
            for name in names:
                self.fill(f"{name}/cat", f"{name}/dog")
            document = self.check()
            self.assertEqual(document["classes"], {"cat": 2 * len(names), "dog": 2 * len(names)}, names)
            self.assertEqual(len(document["splits"]), len(names), names)
            self.assertIn("splits, 2 classes", document["layout"])
            self.assertIn(names[0] + "/", document["layout"])

    def test_splits_and_classes_in_one_name(self):
        self.fill("trainA", "trainB", "testA", "testB")
        self.refuse("seem to name splits and classes at once", "testA/", "test/A/")

    def test_some_classes_with_the_same_parts_are_noted(self):
        self.fill("s1/cat", "s1/dog", "s2/cat", "s2/dog", "s3")
        document = self.check()
        self.assertEqual(document["classes"], {"s1": 4, "s2": 4, "s3": 2})
        self.assertIn("s1/ and s2/ both hold the folders cat, dog", self.notes(document))

    def test_splits_inside_one_class_alone(self):
        self.fill("forest/train", "forest/test", "sea")
        self.refuse("there are splits inside the classes (forest/")

    def test_folders_that_share_one_folder_are_noted(self):
        self.fill("2020/sea", "2020/forest", "2021/sea", "2021/street")
        self.assertIn("2020/ and 2021/ both hold the folder sea, read as parts", self.notes(self.check()))
        shutil.rmtree(self.data)
        self.fill("cat/images", "dog/images")
        self.assertNotIn("both hold", self.notes(self.check()))

    def test_a_folder_of_maps_and_their_list(self):
        self.fill("cat", "dog")
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", "graft predict --explain")
        os.makedirs(self.data / "why")
        Image.new("RGB", (40, 40)).save(self.data / "why" / "0.png", pnginfo=info)
        (self.data / "why" / "index.csv").write_text("path,overlay\n")
        document = self.check()
        self.assertEqual(document["classes"], {"cat": 2, "dog": 2})
        self.assertNotIn("no image in this class folder", json.dumps(document))

    def test_maps_of_predict_are_no_class(self):
        self.fill("cat", "dog")
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", "graft predict --explain")
        os.makedirs(self.data / "why")
        Image.new("RGB", (40, 40)).save(self.data / "why" / "0.png", pnginfo=info)
        document = self.check()
        self.assertEqual(document["classes"], {"cat": 2, "dog": 2})
        self.assertIn("why: maps that 'graft predict --explain' drew; left out", self.notes(document))

    def test_classes_that_are_called_like_splits(self):
        self.fill("train", "bus", "car")
        document = self.check()
        self.assertEqual(document["classes"], {"bus": 2, "car": 2, "train": 2})
        self.assertEqual(document["layout"], "one folder per class, 3 classes")
        self.fill("valid", "test")
        self.assertEqual(len(self.check()["classes"]), 5)

    def test_nested_class_called_train(self):
        self.fill("train/freight", "train/fast", "bus/red", "car/old", "car/new")
        self.assertEqual(self.check()["classes"], {"bus": 2, "car": 4, "train": 4})

    def test_splits_beside_something_else(self):
        self.fill("train/cat", "train/dog", "test/cat", "test/dog", "extra")
        self.refuse("beside them lies extra/", "expected a folder of class folders")
        shutil.rmtree(self.data / "extra")
        # Tools' leavings, hidden, empty folders and those without images are nothing else.
        self.fill("@eaDir", "__MACOSX", ".ipynb_checkpoints")
        (self.data / "docs").mkdir()
        (self.data / "docs" / "readme.txt").write_text("x")
        self.assertEqual(self.check()["splits"], {"train": 4, "test": 4})

    def test_images_for_prediction_are_left_out(self):
        self.fill("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b", "seg_pred")
        document = self.check()
        self.assertEqual(document["splits"], {"train": 4, "test": 4})
        self.assertIn("seg_pred: images to be predicted", self.notes(document))

    def test_no_training_split(self):
        self.fill("val/a", "val/b", "test/a", "test/b")
        self.refuse("no training images", "val/ and test/ splits")
        self.assertEqual(self.check()["splits"], {"val": 4, "test": 4})

    def test_two_names_for_one_split(self):
        self.fill("train/a", "train/b", "val/a", "val/b", "dev/a", "dev/b")
        self.refuse("dev/ and val/ both name the val split")

    def test_splits_without_a_common_class(self):
        self.fill("train/cat", "train/dog", "test/katze", "test/hund")
        self.refuse("no class folder in common", "cat, dog", "hund, katze")

    def test_unlabelled_test_images_are_noted(self):
        self.fill("train/cat", "train/dog", "test", count=8)
        for where in ("test", "test/unknown"):
            document = self.check()
            self.assertEqual(document["classes"], {"cat": 8, "dog": 8}, where)
            self.assertIn("8 images in no class folders", self.notes(document))
            self.assertEqual(len(document["notes"]), 1, document["notes"])
            if where == "test":
                (self.data / "test").rename(self.data / "x")
                (self.data / "test").mkdir()
                (self.data / "x").rename(self.data / "test" / "unknown")

    def test_many_unlabelled_test_images_are_noted_too(self):
        self.fill("train/cat", "train/dog")
        self.fill("test", count=8)
        self.assertEqual(self.check()["classes"], {"cat": 2, "dog": 2})

    def test_unlabelled_validation_images_are_refused(self):
        self.fill("train/n01", "train/n02", "val/images")
        self.refuse("val: its images lie in images/", "n01, n02")
        shutil.rmtree(self.data / "val")
        self.fill("val")
        self.refuse("val: its 2 images lie in no class folders")

    def test_detection_layouts_are_refused(self):
        self.fill("train/images", "valid/images")
        self.refuse("hold one folder of images (images/)")
        shutil.rmtree(self.data)
        self.fill("images/train", "images/val")
        (self.data / "labels" / "train").mkdir(parents=True)
        (self.data / "labels" / "train" / "0.txt").write_text("0 0.5 0.5 1 1")
        self.refuse("images lie in no class folders")

    def test_nested_folder_of_the_same_name(self):
        for split in ("seg_train", "seg_test"):
            self.fill(f"{split}/{split}/a", f"{split}/{split}/b")
        self.assertEqual(self.check()["splits"], {"train": 4, "test": 4})
        self.assertEqual(self.check(data=self.data / "seg_test")["splits"], {"unassigned": 4})
        self.assertEqual(self.check("--test", self.data / "seg_test", data=self.data / "seg_train")[
            "splits"], {"unassigned": 4, "test": 4})

    def test_a_root_for_one_split_gives_that_split(self):
        for split in ("train", "test"):
            self.fill(f"{split}/a", f"{split}/b")
        other = self.folder / "other"
        shutil.copytree(self.data / "train", other)
        for i, path in enumerate(sorted(other.rglob("*.jpg"))):
            data_testing.image(str(path), 100 + i)
        document = self.check("--test", self.data, data=other)
        self.assertEqual(document["splits"], {"unassigned": 4, "test": 4})
        self.assertIn("the test split alone is taken", self.notes(document))
        self.assertEqual(document["train_test_leaks"], [])
        self.refuse("--val: ", "has splits of its own (train/ and test/ splits, 2 classes), but no val",
                    data=other, arguments=("--val", self.data))

    def test_a_split_that_is_a_link(self):
        self.fill("train/a", "train/b", "val/a", "val/b")
        (self.data / "test").symlink_to("val")
        document = self.check()
        self.assertEqual(document["splits"], {"train": 4, "val": 4, "test": 4})
        self.assertIn("a link to", self.notes(document))

    # Classes.

    def test_one_wrapper_folder_is_seen_through(self):
        self.fill("images/cat", "images/dog")
        document = self.check()
        self.assertEqual(document["classes"], {"cat": 2, "dog": 2})
        self.assertIn("one folder per class in ", document["layout"])
        shutil.rmtree(self.data)
        self.fill("archive/dataset/train/cat", "archive/dataset/train/dog", "archive/dataset/test/cat",
                  "archive/dataset/test/dog")
        self.assertEqual(self.check()["splits"], {"train": 4, "test": 4})
        shutil.rmtree(self.data)
        self.fill("train/images/cat", "train/images/dog", "test/cat", "test/dog")
        self.assertEqual(self.check()["classes"], {"cat": 4, "dog": 4})

    def test_flat_names(self):
        for folder in ("", "train"):
            shutil.rmtree(self.data, ignore_errors=True)
            for i in range(3):
                for kind in ("cat", "dog"):
                    data_testing.image(str(self.data / folder / f"{kind}.{i}.jpg"), i)
            if folder:  # Dogs vs. Cats as it is downloaded
                for i in range(3):
                    data_testing.image(str(self.data / "test1" / f"{i}.jpg"), i)
            self.refuse("begin with their class (cat, dog)", "cat/cat.0.jpg", "CSV manifest")
        shutil.rmtree(self.data)
        self.fill("")
        self.refuse("lie in no class folders, so they have no labels")

    def test_mostly_loose_images(self):
        self.fill("", count=9)
        self.fill("a", "b")
        self.refuse("its 9 images lie in no class folders")

    def test_folders_that_share_their_subfolders(self):
        for names in (("fold1", "fold2"), ("color", "grayscale")):
            shutil.rmtree(self.data, ignore_errors=True)
            for name in names:
                self.fill(f"{name}/cat", f"{name}/dog")
            self.refuse("all hold the folders cat, dog", names[0] + "/")
        shutil.rmtree(self.data)
        self.fill("cat/train", "cat/test", "dog/train", "dog/test")
        self.refuse("splits inside the classes", "train/cat")

    def test_splits_inside_classes_under_any_name(self):
        self.fill("cat/train", "cat/val", "dog/train", "dog/validation", "bird/Train")
        self.refuse("there are splits inside the classes")
        shutil.rmtree(self.data)
        self.fill("cat/train", "cat/test", "dog/train", "dog/test", "bird")
        self.refuse("there are splits inside the classes")

    def test_annotations_are_no_classes(self):
        for folders in (("images", "masks"), ("train/images", "train/labels", "test/images", "test/labels"),
                        ("Images", "Annotations")):
            shutil.rmtree(self.data, ignore_errors=True)
            self.fill(*folders)
            self.refuse("are no classes but images and annotations")

    def test_links_to_nothing_are_noted(self):
        self.fill("a", "b")
        (self.data / "bird").symlink_to(self.folder / "nowhere")
        self.assertIn("bird: a link to what is not there", self.notes(self.check()))

    def test_spreadsheets(self):
        sheet = self.folder / "m.xlsx"
        sheet.write_bytes(b"PK\x03\x04" + bytes(100))
        self.refuse("save it as CSV", data=sheet)

    def test_subfolders_of_a_class(self):
        self.fill("cat/indoor", "cat", "dog/indoor", "dog/outdoor")
        self.assertEqual(self.check()["classes"], {"cat": 4, "dog": 4})

    def test_hidden_classes_are_named(self):
        self.fill(".net", "java", "rust")
        document = self.check()
        self.assertEqual(document["classes"], {"java": 2, "rust": 2})
        self.assertIn(".net: 2 images in a hidden folder; left out", self.notes(document))
        # Above all where it is missing.
        shutil.rmtree(self.data / "rust")
        self.refuse("only one class ('java')", ".net: 2 images in a hidden folder", "rename it")
        shutil.rmtree(self.data / "java")
        self.refuse("no class folder with images", ".net: 2 images in a hidden folder")

    def test_leavings_of_tools(self):
        self.fill("a", "b", "a/@eaDir/0.jpg", "b/.thumbnails", "__MACOSX/a", "a/Thumbs")
        (self.data / "a" / "._0.jpg").write_bytes(b"\0\5\x16\7 resource fork")
        (self.data / "b" / "Thumbs.db").write_bytes(b"x")
        document = self.check()
        self.assertEqual(document["classes"], {"a": 2, "b": 2})
        self.assertEqual(document["corrupt"], [])
        self.assertIn("Thumbs: 2 images in a thumbnails folder", self.notes(document))
        self.assertEqual(len(document["notes"]), 1, document["notes"])

    def test_links_between_classes(self):
        self.fill("a", "b", "a/deep")
        (self.data / "b" / "more").symlink_to("../a/deep")
        self.refuse("b/more: a link into", "'b' and 'a' at once")
        (self.data / "b" / "more").unlink()
        (self.data / "b" / "one.jpg").symlink_to("../a/0.jpg")
        self.refuse("b/one.jpg: a link into", "remove the link")
        (self.data / "b" / "one.jpg").unlink()
        (self.data / "c").symlink_to("a")
        self.refuse("c: a link into", "'c' and 'a' at once")

    def test_links_that_harm_nothing(self):
        self.fill("a", "b", "a/deep")
        (self.data / "a" / "again").symlink_to("deep")
        (self.data / "a" / "up").symlink_to("..")
        (self.data / "a" / "top").symlink_to("/")
        (self.data / "b" / "self").symlink_to("self")
        outside = self.folder / "outside"
        data_testing.image(str(outside / "x.jpg"), 99)
        (self.data / "b" / "more").symlink_to(outside)
        data_testing.image(str(self.folder / "y.jpg"), 98)
        (self.data / "b" / "y.jpg").symlink_to(self.folder / "y.jpg")
        document = self.check()
        self.assertEqual(document["classes"], {"a": 4, "b": 4})
        self.assertIn("up: a link back to a folder above it", self.notes(document))
        self.assertIn("top: a link back to a folder above it", self.notes(document))
        self.assertIn("more: a link out of the class folder; followed", self.notes(document))
        self.assertIn("1 image: a link out of this folder", self.notes(document))

    def test_folders_that_cannot_be_read(self):
        loop = self.folder / "loop"
        loop.symlink_to("loop")
        self.refuse("loop: Too many levels of symbolic links", data=loop)
        self.fill("a", "b")
        if os.geteuid() == 0:
            return  # root reads everything
        (self.data / "a").chmod(0)
        self.refuse("a: cannot read this folder: Permission denied")

    # Labels.

    def test_labels_equal_to_the_eye(self):
        for pair in (("cat", "Cat"), ("cat", "cat "), ("cat", " cat"), (NFC, NFD), ("sea side", "sea  side"),
                     ("cat", "cat\u200b"), ("sea side", "sea\u00a0side"), ("STRASSE", "straße")):
            shutil.rmtree(self.data, ignore_errors=True)
            self.fill(*pair, "dog")
            self.refuse("data", "one")
        shutil.rmtree(self.data)
        self.fill("a", "A", "b")  # letters are classes of their own
        self.assertEqual(len(self.check()["classes"]), 3)

    def test_labels_that_look_alike_are_noted(self):
        for pair in (("cat", "c\u0430t"), ("istanbul", "\u0130stanbul"), ("cat", "cat."), ("caf\u00e9", "cafe"),
                     ("ice cream", "ice_cream"), ("icecream", "ice-cream"), ("cat", "\uff43\uff41\uff54")):
            shutil.rmtree(self.data, ignore_errors=True)
            self.fill(*pair, "dog")
            notes = self.notes(self.check())
            self.assertEqual(notes.count("look alike"), 1, (pair, notes))
            done = self.succeed("train", self.data, "--backbone", "vgg-mini", "--input-size", "32", "--dry-run")
            self.assertEqual(done.stdout.count("look alike"), 1, pair)
        for other in (("cat1", "cat2"), ("c", "c++"), ("c#", "c"), ("1.5", "15"), ("1-2", "12"), ("a b", "c d")):
            shutil.rmtree(self.data)
            self.fill(*other, "dog")
            self.assertNotIn("look alike", self.notes(self.check()), other)

    def test_near_labels_across_splits(self):
        self.fill("train/cat", "train/dog", "test/Cat", "test/dog")
        self.refuse("'Cat' and 'cat' differ only in letter case")
        self.refuse("differs from it only in letter case", data=self.data / "train",
                    arguments=("--test", self.data / "test"))

    def test_composed_and_decomposed_join(self):
        self.fill(f"train/{NFC}", "train/dog", f"test/{NFD}", "test/dog ")
        document = self.check()
        self.assertEqual(document["classes"], {NFC: 4, "dog": 4})
        self.assertIn("read as the class 'dog'", self.notes(document))
        apart = self.check("--test", self.data / "test", data=self.data / "train")
        self.assertEqual(apart["classes"], {NFC: 4, "dog": 4})

    def test_labels_that_are_no_text(self):
        for name, why in ((b"caf\xe9", "is not UTF-8"), (b"a\x1b[31mb", "control character (U+001B)"),
                          (b"a\nb", "control character (U+000A)"), ("a\u009bb".encode(), "U+009B"),
                          ("a\u202eb".encode(), "U+202E")):
            shutil.rmtree(self.data, ignore_errors=True)
            self.fill("dog")
            path = os.path.join(os.fsencode(self.data), name)
            shutil.copytree(os.path.join(os.fsencode(self.data), b"dog"), path)
            done = self.refuse(why, "rename it")
            self.assertNotIn("\x1b", done.stderr)

    # Formats.

    def test_classes_of_an_unread_format(self):
        self.fill("a", "b")
        for suffix in ("cr2", "JXL", "psd", "mov"):
            folder = self.data / "c"
            folder.mkdir()
            (folder / f"x.{suffix}").write_bytes(b"no matter what")
            self.refuse("c: none of this class's files can be read", f"1 .{suffix.lower()}")
            shutil.rmtree(folder)
        self.fill("c")
        for path in (self.data / "c").iterdir():
            path.rename(path.with_suffix(""))
        self.refuse("2 without a suffix")

    def test_a_hundredth_may_be_missing(self):
        """What `max-skipped` is where nobody says it."""
        self.fill("a", "b", count=99)
        for k in range(2):
            (self.data / "a" / f"x{k}.psd").write_bytes(b"8BPS")
        self.succeed("train", self.data, "--backbone", "vgg-mini", "--input-size", "32", "--dry-run")
        (self.data / "a" / "y.psd").write_bytes(b"8BPS")
        self.refuse("3 of 201 images cannot be used", "at most 1 % may be")

    def test_some_files_of_an_unread_format(self):
        self.fill("a", "b", count=4)
        (self.data / "a" / "x.cr2").write_bytes(b"II")
        (self.data / "b" / "x.MOV").write_bytes(b"ftyp")
        found = self.check()
        self.assertIn("a: 1 .cr2 not read and left out", self.notes(found))
        self.assertIn("b: 1 .mov not read and left out", self.notes(found))
        self.assertIn("camera raw files (.cr2) are not read: develop them", self.notes(found))
        self.assertIn("videos (.mov) are not read: take frames", self.notes(found))
        self.assertEqual(found["unread"], {"a": {".cr2": 1}, "b": {".mov": 1}})
        self.refuse("1 of 9 images cannot be used", "x.cr2", "--max-skipped")
        self.succeed("train", self.data, "--backbone", "vgg-mini", "--input-size", "32", "--dry-run",
                     "--max-skipped", "0.2")


if __name__ == "__main__":
    t.main()
