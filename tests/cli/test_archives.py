"""A zip or tar as DATA: read in place, the same results as from the folder in it."""
import csv
import gzip
import io
import os
import tarfile
import time
import unittest
import warnings
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
        (kept,) = (cache / "graft" / "archives").glob("*.tar")
        before = kept.stat().st_mtime_ns
        self.succeed("check", path, env=env)
        self.assertEqual(kept.stat().st_mtime_ns, before)
        # One copy of an archive, whatever became of its earlier versions.
        os.utime(path, (1, 1))
        self.succeed("check", path, env=env)
        self.assertEqual(len(list((cache / "graft" / "archives").glob("*.tar"))), 1)
        listed = self.succeed_json("cache", "list", "--json", env=env)["archives"]
        self.assertEqual((listed["files"], listed["bytes"]), (1, kept.parent.glob("*.tar").__next__().stat().st_size))
        self.assertIn("1 decompressed archive, ", self.succeed("cache", "list", env=env).stdout)
        freed = self.succeed_json("cache", "clear", "--json", env=env)["freed"]
        self.assertEqual(freed, listed["bytes"])
        self.assertEqual(list((cache / "graft" / "archives").iterdir()), [])

    def test_a_damaged_copy_is_made_anew(self):
        env = {"XDG_CACHE_HOME": str(self.folder / "cache")}
        path = self.tar("photos.tar.gz", mode="w:gz")
        want = self.succeed_json("check", path, "--json", env=env)
        (kept,) = (self.folder / "cache" / "graft" / "archives").glob("*.tar")
        whole = kept.read_bytes()
        flipped = bytearray(whole)
        flipped[700] ^= 1
        other = self.tar("other.tar").read_bytes()[:2048]
        target = self.folder / "target"
        target.write_bytes(b"mine")

        def link():
            kept.unlink()
            kept.symlink_to(target)
        for damage in (lambda: kept.write_bytes(b""), lambda: kept.write_bytes(whole[:len(whole) // 2]),
                       lambda: kept.write_bytes(flipped), lambda: kept.write_bytes(other), link,
                       lambda: kept.with_suffix(".json").write_text("{"), lambda: kept.with_suffix(".json").unlink()):
            damage()
            self.assertEqual(self.succeed_json("check", path, "--json", env=env), want)
            self.assertEqual(kept.read_bytes(), whole)
            self.assertFalse(kept.is_symlink())
        self.assertEqual(target.read_bytes(), b"mine")

    def test_no_place_to_decompress(self):
        path = self.tar("photos.tar.gz", mode="w:gz")
        done = self.fail_with(1, "decompressed into the cache folder first", "check", path,
                              env={"XDG_CACHE_HOME": "/dev/null"})
        for words in ("photos.tar.gz", "unpack it", "$XDG_CACHE_HOME"):
            self.assertIn(words, done.stderr)
        self.succeed("check", self.zip(), env={"XDG_CACHE_HOME": "/dev/null"})

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
            for name in ("../evil.jpg", "sea/../../evil.jpg", "/etc/evil.jpg", "sea/" + "d/" * 3000 + "x.jpg"):
                info = tarfile.TarInfo(name)
                info.size = 3
                out.addfile(info, io.BytesIO(b"abc"))
        found = self.check(path)
        self.assertEqual(found["classes"], self.check(self.data)["classes"])
        self.assertTrue(any("4 files whose names lead out" in note for note in found["notes"]), found["notes"])

    def test_an_absolute_or_deep_name_in_a_zip(self):
        """Takes no time, and makes no class."""
        path = self.zip()
        with zipfile.ZipFile(path, "a") as out:
            out.writestr("/etc/evil.jpg", b"x")
            out.writestr("sea/" + "d/" * 5000 + "x.jpg", b"x")
        start = time.monotonic()
        self.assertEqual(self.check(path)["classes"], self.check(self.data)["classes"])
        self.assertLess(time.monotonic() - start, 10)

    def test_names_that_are_there_twice(self):
        path = self.zip()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with zipfile.ZipFile(path, "a") as out:
                out.writestr(str(self.files[0]), (self.data / self.files[1]).read_bytes())
        found = self.check(path)
        self.assertEqual(found["images"], len(self.files))
        self.assertTrue(any("more than once" in note for note in found["notes"]), found["notes"])

    def test_links_in_a_zip(self):
        path = self.zip()
        with zipfile.ZipFile(path, "a") as out:
            info = zipfile.ZipInfo("sea/link.jpg")
            info.create_system, info.external_attr = 3, (0o120777 << 16)
            out.writestr(info, "1.jpg")
        found = self.check(path)
        self.assertEqual((found["corrupt"], found["images"]), ([], len(self.files)))
        self.assertTrue(any("an entry that is a link" in note for note in found["notes"]))

    def test_classes_that_would_vanish(self):
        """As from the folder: an error of train, and said by check."""
        (self.data / "zebra").mkdir()
        (self.data / "zebra" / "all.zip").write_bytes(b"PK")
        (self.data / "yak").mkdir()
        plain = self.zip("plain.zip")
        with zipfile.ZipFile(plain, "a") as out:
            out.writestr("zebra/all.zip", b"PK")
            out.writestr("yak/", b"")
        links = self.tar("links.tar")
        with tarfile.open(links, "a") as out:
            for name in ("zebra/1.jpg", "yak/1.jpg"):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, "/elsewhere/1.jpg"
                out.addfile(info)
        for data in (self.data, plain, links):
            found = self.check(data)
            self.assertEqual(len(found["empty_classes"]), 2, found)
            text = self.succeed("check", data).stdout
            self.assertNotIn("nothing odd found", text)
            self.assertIn("class without images", text)
            done = self.fail_with(1, "no image in this class folder", "train", data, *FAST, "--quiet", "-o",
                                  self.folder / "run")
            self.assertIn("and 1 more", done.stderr)

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

    def test_a_damaged_gzip(self):
        """Its checksum is compared, of several members each."""
        whole = self.tar("whole.tar.gz", mode="w:gz").read_bytes()
        trailer = bytearray(whole)
        trailer[-6] ^= 1
        path = self.folder / "flipped.tar.gz"
        path.write_bytes(trailer)
        self.refuse(path, "not a usable tar", "download or copy it again")
        tar = self.tar("two.tar").read_bytes()
        path.write_bytes(gzip.compress(tar[:5000]) + gzip.compress(tar[5000:]))
        self.assertEqual(self.check(path)["classes"], self.check(self.data)["classes"])

    def test_members_made_to_fill_memory(self):
        """A photo, then zeros: what shrinks so much is not inflated."""
        path = self.zip(compression=zipfile.ZIP_DEFLATED)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as out:
            out.writestr("sea/large.jpg", (self.data / self.files[0]).read_bytes() + bytes(200 << 20))
        found = self.check(path)
        self.assertEqual(len(found["corrupt"]), 1)
        self.assertIn("grows to more than 100 times", found["corrupt"][0]["why"])

    def test_methods_that_are_not_read(self):
        path = self.zip()
        data = bytearray(path.read_bytes())
        for magic, at in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
            start = data.index(magic)
            data[start + at:start + at + 2] = (9).to_bytes(2, "little")  # deflate64
        path.write_bytes(data)
        self.refuse(path, "compressed by a method that is not read", "unpack the archive")

    def test_names_of_archives_with_something_else_in_them(self):
        for name, content in (("zero.zip", b""), ("hi.zip", b"hi"), ("zero.tar", bytes(10240)),
                              ("noise.tar.gz", b"\0\1\2" * 99)):
            path = self.folder / name
            path.write_bytes(content)
            self.refuse(path, "zip", "download or copy it again")
        path = self.folder / "program.zip"  # one that unpacks itself
        path.write_bytes(b"MZ" + bytes(1000))
        with zipfile.ZipFile(path, "a") as out:
            for file in self.files:
                out.write(self.data / file, str(file))
        self.assertEqual(self.check(path)["classes"], self.check(self.data)["classes"])

    def test_archives_of_a_manifest_that_are_damaged_or_gone(self):
        self.zip()
        cut = self.folder / "cut.zip"
        cut.write_bytes((self.folder / "photos.zip").read_bytes()[:2000])
        manifest = self.folder / "data.csv"
        manifest.write_text("path,label\n" + "".join(f"photos.zip/{file},{file.parts[0]}\n" for file in self.files) +
                            f"cut.zip/{self.files[0]},sea\ngone.zip/{self.files[0]},sea\n")
        self.fail_with(1, "2 of 26 images cannot be used", "train", manifest, *FAST, "-o", self.folder / "run")
        self.succeed("train", manifest, *FAST, "-o", self.folder / "run", "--max-skipped", "0.2")
        text = (self.folder / "run" / "skipped.csv").read_text()
        self.assertIn("in an archive that is not there", text)
        self.assertIn("damaged or cut short", text)

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
