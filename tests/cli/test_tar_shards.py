"""Tar shards as WebDataset lays them out, patterns that name many files, and lists of paths."""
import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
import unittest

import graft_testing as t

NETWORK = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--pool", "gap"]


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


class TarShards(t.TestCase):
    def setUp(self):
        super().setUp()
        self.photos = self.folder / "photos"
        t.draw_scenes(self.photos, 5, size=32)
        self.files = sorted(self.photos.rglob("*.jpg"))
        self.names = sorted({file.parent.name for file in self.files})
        self.data = self.folder / "shards"
        self.data.mkdir()

    def label(self, file):
        return self.names.index(file.parent.name)

    def write(self, count=3, cls=lambda self, file: str(self.label(file)), document=None, name="shard-{:04d}.tar",
              classes=True):
        """Samples dealt to the shards in turn."""
        for shard in range(count):
            path = self.data / name.format(shard)
            path.parent.mkdir(exist_ok=True)
            with tarfile.open(path, "w") as tar:
                for number, file in list(enumerate(self.files))[shard::count]:
                    add(tar, f"{number:05d}.jpg", file.read_bytes())
                    if cls:
                        add(tar, f"{number:05d}.cls", cls(self, file).encode())
                    if document:
                        add(tar, f"{number:05d}.json", json.dumps(document(self, file)).encode())
        if classes:
            (self.data / "classes.txt").write_text("".join(f"{name}\n" for name in self.names))

    def check(self, data=None, *options):
        return self.succeed_json("check", data or self.data, "--json", *options, cwd=self.folder)

    def want(self):
        return {name: 5 for name in self.names}

    def refuse(self, text, data=None, command=("check",)):
        done = self.fail_with(1, text, *command, data or self.data, cwd=self.folder)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    # Labels.

    def test_numbers_with_a_list_of_classes(self):
        self.write()
        found = self.check()
        self.assertEqual((found["classes"], found["images"]), (self.want(), 30))
        self.assertIn("samples in 3 tar files, classes by classes.txt", found["layout"])

    def test_names(self):
        self.write(cls=lambda self, file: file.parent.name + "\n", classes=False)
        self.assertEqual(self.check()["classes"], self.want())

    def test_json(self):
        for key in ("label", "class", "cls"):
            for value in (lambda self, file: self.label(file), lambda self, file: file.parent.name):
                self.write(cls=None,
                           document=lambda self, file, key=key, value=value: {"w": [1], key: value(self, file)})
                self.assertEqual(self.check()["classes"], self.want())

    def test_numbers_alone(self):
        self.write(classes=False)
        self.assertEqual(self.check()["classes"], {str(k): 5 for k in range(6)})

    def test_class_lists_that_do_not_fit(self):
        self.write()
        (self.data / "classes.txt").write_text("\n".join(self.names[:5]))
        self.refuse("has the classes 0 to 4")
        self.write(cls=lambda self, file: str(self.label(file) + 1))
        self.refuse("do the numbers begin with 1?")
        self.write(cls=lambda self, file: "zebra")
        self.refuse("class 'zebra' is not in")
        for text, words in (("", "empty; expected a class a line"), ("a\n\nb\n", "classes.txt:2: the label is empty"),
                            ("a\na\n", "stands there twice"),
                            ("cat\nCat\nb\n", "Cat")):
            (self.data / "classes.txt").write_text(text)
            self.refuse(words)

    def test_numbers_and_names_at_once(self):
        self.write(cls=lambda self, file: "3" if file.name == "1.jpg" else file.parent.name, classes=False)
        self.refuse("are numbers")

    def test_samples_without_labels(self):
        self.write()
        with tarfile.open(self.data / "shard-0001.tar", "a") as tar:
            image = self.files[0].read_bytes()
            add(tar, "a.jpg", image)
            add(tar, "b.jpg", image)
            add(tar, "b.cls", b" \n")
            add(tar, "c.jpg", image)
            add(tar, "c.json", b'{"label": 1.5, "class": null, "other": "cat"}')
            add(tar, "d.jpg", image)
            add(tar, "d.json", b'{"label": ')
            add(tar, "e.jpg", image)
            add(tar, "e.cls", b"\xff\xfe\n")
            add(tar, "f.cls", b"1")  # no image
            add(tar, "00001.mask.png", image)
            add(tar, "g.cr2", b"raw")
            add(tar, "g.cls", b"1")
        found = self.check()
        self.assertEqual((found["images"], len(found["skipped"])), (30, 6), found["skipped"])
        why = {row["path"].rsplit("/", 1)[1]: row["why"] for row in found["skipped"]}
        self.assertIn("no label beside it", why["a.jpg"])
        self.assertIn("empty", why["b.jpg"])
        self.assertIn("no label", why["c.jpg"])
        self.assertIn(".json", why["d.jpg"])
        self.assertIn(".cls", why["e.jpg"])
        self.assertIn("raw", why["g.cr2"])
        notes = "\n".join(found["notes"])
        self.assertIn("1 samples without an image", notes)
        self.assertIn("1 images of further roles", notes)

    def test_no_labels_at_all(self):
        self.write(cls=None)
        self.refuse("no image with a label in its 3 shards")
        # For features none are needed.
        self.succeed("features", self.data, *NETWORK, "-o", self.folder / "x.npy")

    # What else may be in them.

    def test_hostile(self):
        self.write()
        image = self.files[0].read_bytes()
        with tarfile.open(self.data / "shard-0002.tar", "a") as tar:
            for name in ("../evil.jpg", "/etc/evil.jpg", "x/../../evil.jpg"):
                add(tar, name, image)
                add(tar, name.replace(".jpg", ".cls"), b"0")
            for content in (b"0", b"1"):  # two samples of one key
                add(tar, "twice.jpg", image)
                add(tar, "twice.cls", content)
            add(tar, "pair.jpg", image)  # which of the two is meant?
            add(tar, "pair.png", image)
            add(tar, "pair.cls", b"0")
            add(tar, "broken.jpg", b"no image")
            add(tar, "broken.cls", b"2")
            add(tar, "._00001.jpg", b"x")
            add(tar, "noext", b"x")
            add(tar, ".cls", b"0")
        found = self.check()
        self.assertEqual(found["images"], 31)
        self.assertEqual([row["path"].rsplit("/", 1)[1] for row in found["corrupt"]], ["broken.jpg"])
        why = {row["path"].rsplit("/", 1)[1]: row["why"] for row in found["skipped"]}
        self.assertIn("two samples of this name", why["twice.jpg"])
        self.assertIn("more than one image", why["pair.jpg"])
        self.assertEqual(len(why), 2)
        self.assertTrue(any("6 files whose names lead out" in note for note in found["notes"]), found["notes"])
        out = self.folder / "x.csv"
        done = t.run("features", self.data, *NETWORK, "-o", out)
        self.assertEqual(done.returncode, 1)
        self.assertIn("broken.jpg", done.stderr)
        self.assertEqual(len(t.read_csv(out)), 33)

    def test_damaged_shards(self):
        self.write()
        whole = (self.data / "shard-0001.tar").read_bytes()
        (self.data / "shard-0001.tar").write_bytes(whole[:len(whole) // 2])
        self.refuse("shard-0001.tar")
        (self.data / "shard-0001.tar").write_bytes(b"")
        self.refuse("shard-0001.tar")

    def test_compressed_and_one_alone(self):
        self.write(count=1)
        with open(self.data / "shard-0000.tar", "rb") as plain:
            import gzip
            (self.folder / "one.tar.gz").write_bytes(gzip.compress(plain.read()))
        shutil.copy(self.data / "classes.txt", self.folder / "classes.txt")
        self.assertEqual(self.check("one.tar.gz")["classes"], self.want())
        self.assertEqual(self.check(self.data / "shard-0000.tar")["classes"], self.want())

    def test_class_folders_with_json_beside_are_no_samples(self):
        with tarfile.open(self.folder / "photos.tar", "w") as tar:
            for file in self.files:
                add(tar, f"{file.parent.name}/{file.name}", file.read_bytes())
                add(tar, f"{file.parent.name}/{file.stem}.json", b'{"label": "x"}')
        found = self.check(self.folder / "photos.tar")
        self.assertTrue(found["layout"].startswith("one folder per class"), found["layout"])

    # Which shards.

    def test_patterns(self):
        self.write(count=12)
        self.assertEqual(self.check("shards/shard-{0000..0011}.tar")["classes"], self.want())
        self.assertEqual(self.check("shards/shard-{0002..0003}.tar")["images"], 6)
        self.assertEqual(self.check("shards/shard-00{00,11}.tar")["images"], 5)  # 3 and 2
        self.refuse("2 of the 14 files that the pattern names are not there, the first: shards/shard-0012.tar",
                    "shards/shard-{0000..0013}.tar")
        self.fail_with(2, "not over the last", "check", "shards/shard-{0003..0001}.tar", cwd=self.folder)
        self.fail_with(2, "at most", "check", "shards/shard-{0..9999999999}.tar", cwd=self.folder)
        self.refuse("no such file", "shards/shard-{0000.tar")

    def test_splits_by_names(self):
        self.write(name="flowers-train-{:04d}.tar")
        self.write(count=1, name="flowers-val-{:04d}.tar")
        self.assertEqual(self.check()["splits"], {"train": 30, "val": 30})
        found = self.check("shards/flowers-train-{0000..0002}.tar", "--test", "shards/flowers-val-0000.tar")
        self.assertEqual(len(found["train_test_leaks"]), 30)  # taken for what it is named as

    def test_splits_that_are_unclear(self):
        self.write(name="train-{:04d}.tar")
        self.write(count=1, name="more-{:04d}.tar")
        self.refuse("by its name of a split, which")

    def test_splits_by_folders(self):
        self.write(name="train/{:04d}.tar", classes=False)
        self.write(count=1, name="val/{:04d}.tar", classes=False)
        self.assertEqual(self.check()["splits"], {"train": 30, "val": 30})

    def test_lists(self):
        self.write(count=4)
        (self.data / "some.txt").write_text("shard-0000.tar\r\n\nshard-0003.tar\n")
        self.assertEqual(self.check("@shards/some.txt")["images"], 15)
        self.assertEqual(self.check(self.data / "some.txt")["images"], 15)
        images = self.folder / "images.txt"
        images.write_text("".join(f"{file.relative_to(self.folder)}\n" for file in self.files)
                          + "photos/sea/none.jpg\n")
        found = self.check("@images.txt")
        self.assertEqual(found["images"], 31)
        self.assertEqual([row["path"] for row in found["corrupt"]], ["photos/sea/none.jpg"])
        (self.folder / "manifest.txt").write_text("".join(
            ["path,label\n", *(f"{file.relative_to(self.folder)},x{k % 2}\n" for k, file in enumerate(self.files))]))
        self.assertEqual(self.check("manifest.txt")["classes"], {"x0": 15, "x1": 15})
        (self.folder / "mixed.txt").write_text(f"{self.files[0]}\nshards/shard-0000.tar\n")
        self.refuse("list images or tar files", "@mixed.txt")
        (self.folder / "empty.txt").write_text("\n")
        self.refuse("an empty list", "@empty.txt")
        (self.folder / "bytes.txt").write_bytes(b"a\0b")
        self.refuse("no text", "@bytes.txt")
        self.refuse("nowhere.txt", "@nowhere.txt")

    # Features and training.

    def test_features_in_order(self):
        """Of the photos in any form, the same rows."""
        self.write()
        out = self.folder / "a.csv"
        self.succeed("features", self.data, *NETWORK, "-o", out)
        rows = t.read_csv(out)
        paths = [row["path"] for row in rows]
        self.assertEqual(paths, sorted(paths))
        self.assertTrue(paths[0].endswith("shards/shard-0000.tar/00000.jpg"), paths[0])
        plain = self.folder / "b.csv"
        self.succeed("features", self.photos, *NETWORK, "-o", plain)
        want = {row["path"]: row["f7"] for row in t.read_csv(plain)}
        for row in rows:
            self.assertEqual(row["f7"], want[str(self.files[int(row["path"][-9:-4])])])
        again = self.folder / "c.csv"
        self.succeed("features", self.data / "shard-{0000..0002}.tar", *NETWORK, "-o", again)
        self.assertEqual(again.read_bytes(), out.read_bytes())
        (self.data / "list.txt").write_text("shard-0002.tar\nshard-0001.tar\nshard-0000.tar\n")
        self.succeed("features", f"@{self.data}/list.txt", *NETWORK, "-o", again)
        self.assertEqual(again.read_bytes(), out.read_bytes())
        for index in range(2):
            self.succeed("features", self.data, *NETWORK, "--shard", f"{index}/2", "-o", self.folder / "parts")
        self.succeed("features", "--merge", self.folder / "parts", "-o", again)
        self.assertEqual(again.read_bytes(), out.read_bytes())

    def test_memory_is_not_the_shards(self):
        """300 MB of shards, of which nothing stays in memory."""
        padding = os.urandom(1 << 20)
        for shard in range(3):
            with tarfile.open(self.data / f"{shard}.tar", "w") as tar:
                for k in range(100):
                    add(tar, f"{k:05d}.jpg", self.files[k % 30].read_bytes() + padding)
        peaks = []
        for data in (self.data / "0.tar", self.data):
            with subprocess.Popen([t.GRAFT, "features", data, *NETWORK, "--threads", "1", "-o", self.folder / "x.npy"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            peaks.append(usage.ru_maxrss)
        self.assertLess(peaks[1], peaks[0] + 30_000, peaks)
        self.assertLess(peaks[1], 250_000)

    def test_more_shards_than_descriptors(self):
        self.write(count=30)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        done = subprocess.run([t.GRAFT, "features", self.data, *NETWORK, "-o", self.folder / "x.npy"],
                              capture_output=True, text=True,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, hard)))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (soft, hard))

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_training(self):
        self.write(count=4)
        options = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--until", "block1_pool",
                   "--head", "gap", "--epochs", "1", "--threads", "1", "--no-report"]
        run = self.folder / "run"
        self.succeed("train", "shards/shard-{0000..0003}.tar", "-o", run, *options, cwd=self.folder)
        self.assertEqual(len(t.read_csv(run / "split.csv")), 30)
        self.succeed("train", "shards/shard-{0000..0003}.tar", "--resume", run, "--epochs", "2", cwd=self.folder)
        (self.folder / "list.txt").write_text("".join(f"shards/shard-{k:04d}.tar\n" for k in range(4)))
        found = self.succeed_json("evaluate", run, "@list.txt", "--json", cwd=self.folder)
        self.assertEqual(found["images"], 30)


if __name__ == "__main__":
    t.main()
