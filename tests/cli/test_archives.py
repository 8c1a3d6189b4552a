"""A zip or tar as DATA: read in place, the same results as from the folder in it."""
import csv
import gzip
import io
import os
import tarfile
import unittest
import zipfile

import graft_testing as t

FAST = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--until", "block1_pool",
        "--head", "gap", "--epochs", "2", "--threads", "1", "--no-report"]


class Archives(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "photos"
        t.draw_scenes(self.data, 4, size=32)
        self.files = sorted(path.relative_to(self.data) for path in self.data.rglob("*.jpg"))

    def zip(self, name="photos.zip", prefix="", **options):
        path = self.folder / name
        with zipfile.ZipFile(path, "w", **options) as out:
            for file in self.files:
                out.write(self.data / file, prefix + str(file))
        return path

    def tar(self, name="photos.tar", prefix="", mode="w"):
        path = self.folder / name
        with tarfile.open(path, mode) as out:
            for file in self.files:
                out.add(self.data / file, prefix + str(file))
        return path

    def all_kinds(self):
        return [self.zip(), self.zip("deflated.zip", compression=zipfile.ZIP_DEFLATED), self.tar(),
                self.tar("photos.tar.gz", mode="w:gz"), self.tar("photos.tar.xz", mode="w:xz"),
                self.tar("photos.tar.bz2", mode="w:bz2"), self.tar("dotted.tar", prefix="./"),
                self.zip("wrapped.zip", prefix="photos/")]

    def model(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        run = self.folder / "model"
        if not run.exists():
            self.succeed("train", self.data, "-o", run, *FAST)
        return run

    def check(self, data, *options):
        return self.succeed_json("check", data, "--json", *options)

    def test_every_kind_is_as_the_folder(self):
        want = self.check(self.data)
        for path in self.all_kinds():
            found = self.check(path)
            for key in ("classes", "images", "layout", "duplicates", "corrupt", "unread"):
                if key == "layout":
                    self.assertTrue(found[key].startswith("one folder per class"), found[key])
                else:
                    self.assertEqual(found[key], want[key], key)

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_training_is_the_same(self):
        models = []
        for path in (self.data, self.zip(compression=zipfile.ZIP_DEFLATED), self.tar("photos.tgz", mode="w:gz")):
            run = self.folder / f"run-{path.name}"
            self.succeed("train", path, "-o", run, *FAST)
            models.append(t.read_safetensors(run / "model.safetensors")[0])
        for model in models[1:]:
            self.assertEqual(sorted(model), sorted(models[0]))
            for name, values in models[0].items():
                self.assertTrue((model[name] == values).all(), name)
        # The run's own files lead into the archive.
        run = self.folder / "run-photos.zip"
        with open(run / "split.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), len(self.files))
        self.assertTrue(all("/photos.zip/" in row["path"] for row in rows))
        found = self.succeed_json("evaluate", run, run / "split.csv", "--split", "val", "--json")
        self.assertEqual(found["images"], sum(row["split"] == "val" for row in rows))
        self.succeed("train", self.folder / "photos.zip", "--resume", run, "--epochs", "3")

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_report_shows_photos(self):
        run = self.folder / "run"
        options = [option for option in FAST if option != "--no-report"]
        self.succeed("train", self.zip(), "-o", run, *options)
        page = (run / "report.html").read_text()
        self.assertIn("photos.zip/", page)
        self.assertIn("data:image/jpeg;base64,", page)

    def predictions(self, *arguments):
        return self.succeed_json("predict", self.model(), *arguments, "--json")["predictions"]

    def test_predict(self):
        rows = self.predictions(self.zip())
        self.assertEqual([row["path"] for row in rows], [f"{self.folder}/photos.zip/{file}" for file in self.files])
        want = self.predictions(self.data)
        self.assertEqual([row["top"] for row in rows], [row["top"] for row in want])
        one = self.predictions(self.folder / "photos.zip" / self.files[3])
        self.assertEqual(one[0]["top"], want[3]["top"])
        some = self.predictions(self.folder / "photos.zip" / self.files[0].parent)
        self.assertEqual(len(some), 4)
        done = self.fail_with(1, "no such file", "predict", self.model(),
                              self.folder / "photos.zip" / "none.jpg")
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_sorting_copies(self):
        out = self.folder / "sorted"
        model = self.model()
        self.succeed("predict", model, self.zip(), "--sort-into", out)
        copies = sorted(out.rglob("*.jpg"))
        self.assertEqual(len(copies), len(self.files))
        contents = sorted(path.read_bytes() for path in copies)
        self.assertEqual(contents, sorted((self.data / file).read_bytes() for file in self.files))
        self.succeed("predict", model, self.folder / "photos.zip", "--sort-into", out)  # once more
        self.assertEqual(len(list(out.rglob("*.jpg"))), len(self.files))
        done = t.run("predict", model, self.folder / "photos.zip", "--sort-into", self.folder / "links",
                     "--link", "symbolic")
        self.assertIn("can be copied, not linked", done.stderr)

    def test_tests_in_an_archive(self):
        found = self.check(self.data, "--test", self.zip())
        self.assertEqual(len(found["train_test_leaks"]), len(self.files))

    def test_a_manifest_may_lead_into_one(self):
        self.zip()
        manifest = self.folder / "data.csv"
        manifest.write_text("path,label\n" + "".join(f"photos.zip/{file},{file.parts[0]}\n" for file in self.files))
        self.assertEqual(self.check(manifest)["classes"], self.check(self.data)["classes"])

    def test_a_compressed_tar_is_decompressed_once(self):
        cache = self.folder / "cache"
        path = self.tar("photos.tar.gz", mode="w:gz")
        env = {"XDG_CACHE_HOME": str(cache)}
        self.succeed("check", path, env=env)
        (kept,) = (cache / "graft" / "archives").iterdir()
        before = kept.stat().st_mtime_ns
        self.succeed("check", path, env=env)
        self.assertEqual(kept.stat().st_mtime_ns, before)
        os.utime(path, (1, 1))
        self.succeed("check", path, env=env)
        self.assertEqual(len(list((cache / "graft" / "archives").iterdir())), 2)

    # Names and links.

    def test_names_of_windows(self):
        """Backslashes between folders, and a code page."""
        path = self.folder / "windows.zip"
        with zipfile.ZipFile(path, "w") as out:
            for file in self.files:
                info = zipfile.ZipInfo("x")
                info.filename = str(file).replace("/", "\\")
                out.writestr(info, (self.data / file).read_bytes())
        self.assertEqual(self.check(path)["classes"], self.check(self.data)["classes"])

    def test_what_leads_out_is_left_out(self):
        path = self.tar()
        with tarfile.open(path, "a") as out:
            for name in ("../evil.jpg", "sea/../../evil.jpg"):
                info = tarfile.TarInfo(name)
                info.size = 3
                out.addfile(info, io.BytesIO(b"abc"))
        found = self.check(path)
        self.assertEqual(found["classes"], self.check(self.data)["classes"])
        self.assertTrue(any("2 files whose names lead out" in note for note in found["notes"]), found["notes"])

    def test_links_in_a_tar(self):
        path = self.tar()
        name = str(self.files[0])
        with tarfile.open(path, "a") as out:
            for link, kind, target in ((name.replace(".jpg", "-hard.jpg"), tarfile.LNKTYPE, name),
                                       (name.replace(".jpg", "-soft.jpg"), tarfile.SYMTYPE, self.files[0].name),
                                       ("elsewhere", tarfile.SYMTYPE, "/etc")):
                info = tarfile.TarInfo(link)
                info.type, info.linkname = kind, target
                out.addfile(info)
        found = self.check(path)
        self.assertEqual(len(found["duplicates"]), 1)
        self.assertEqual(len(found["duplicates"][0]), 3)
        self.assertTrue(any("a link to folders or to what is not in it" in note for note in found["notes"]))

    def test_what_macs_add(self):
        path = self.zip()
        with zipfile.ZipFile(path, "a") as out:
            for file in self.files:
                out.writestr(f"__MACOSX/{file.parent}/._{file.name}", b"\0\5\x16\7")
            out.writestr(".DS_Store", b"x")
        self.assertEqual(self.check(path)["classes"], self.check(self.data)["classes"])

    # What cannot be read.

    def refuse(self, path, *words):
        done = self.fail_with(1, words[0], "check", path)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertIn(path.name, done.stderr)

    def test_damage(self):
        whole = self.zip(compression=zipfile.ZIP_DEFLATED).read_bytes()
        cut = self.folder / "cut.zip"
        cut.write_bytes(whole[:len(whole) // 2])
        self.refuse(cut, "damaged or cut short", "download or copy it again")
        flipped = bytearray(whole)
        flipped[200] ^= 0xFF
        cut.write_bytes(flipped)
        self.assertEqual(len(self.check(cut)["corrupt"]), 1)
        for mode, name in (("w", "cut.tar"), ("w:gz", "cut.tar.gz"), ("w:xz", "cut.tar.xz")):
            whole = self.tar("whole", mode=mode).read_bytes()
            (self.folder / name).write_bytes(whole[:len(whole) * 2 // 3])
            self.refuse(self.folder / name, "not a usable tar" if name != "cut.tar" else "tar", "again")

    def test_kinds_that_are_not_read(self):
        for name, content in (("a.7z", b"7z\xbc\xaf\x27\x1c\0\4" + b"x" * 99), ("a.rar", b"Rar!\x1a\x07\1\0" + b"x" * 99)):
            path = self.folder / name
            path.write_bytes(content)
            self.refuse(path, "7z or RAR", "unpack it")
        path = self.folder / "notes.gz"
        path.write_bytes(gzip.compress(b"no tar archive " * 99))
        self.refuse(path, "no tar archive")

    def test_encrypted(self):
        path = self.zip()
        data = bytearray(path.read_bytes())
        at = 0
        while (at := data.find(b"PK\1\2", at)) >= 0:
            data[at + 8] |= 1
            at += 4
        at = 0
        while (at := data.find(b"PK\3\4", at)) >= 0:
            data[at + 6] |= 1
            at += 4
        path.write_bytes(data)
        self.refuse(path, "is encrypted", "password")

    def test_bomb(self):
        path = self.folder / "bomb.tar.gz"
        header = self.tar().read_bytes()[:512]
        with gzip.open(path, "wb", compresslevel=9) as out:
            out.write(header)
            for _ in range(300):
                out.write(bytes(1 << 20))
        cache = self.folder / "cache"
        self.fail_with(1, "more than 50 times its size", "check", path, env={"XDG_CACHE_HOME": str(cache)})
        self.assertEqual(list((cache / "graft" / "archives").iterdir()), [])

    def test_without_images(self):
        path = self.folder / "empty.zip"
        zipfile.ZipFile(path, "w").close()
        self.refuse(path, "no class folder with images")
        office = self.folder / "table.xlsx"
        with zipfile.ZipFile(office, "w") as out:
            out.writestr("[Content_Types].xml", "<x/>")
            out.writestr("xl/workbook.xml", "<x/>")
        self.refuse(office, "a spreadsheet", "save it as CSV")


if __name__ == "__main__":
    t.main()
