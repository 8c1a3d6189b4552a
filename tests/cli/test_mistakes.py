"""What a new user gets wrong: each a clear line, the right exit code, and nothing half-written."""
import os
import shutil

import graft_testing as t


class Mistakes(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        self.out = self.folder / "run"

    def refuse(self, code, text, *arguments):
        done = self.fail_with(code, text, "train", *arguments, "-o", self.out, "--weights", "none",
                              "--backbone", "vgg-mini")
        self.assertFalse(self.out.exists())
        return done

    def test_wrong_path(self):
        self.refuse(1, "no such file or folder", self.folder / "nowhere")

    def test_empty_folder(self):
        self.data.mkdir()
        self.refuse(1, "expected a folder of class folders", self.data)

    def test_images_without_class_folders(self):
        t.draw_scenes(self.data, 1)
        self.refuse(1, "expected a folder of class folders", self.data / "sea")

    def test_one_class_only(self):
        t.draw_scenes(self.data, 3)
        for kind in list(self.data.iterdir())[1:]:
            shutil.rmtree(kind)
        self.refuse(1, "only one class", self.data)

    def test_class_with_one_image(self):
        t.draw_scenes(self.data, 4)
        for path in sorted((self.data / "sea").iterdir())[1:]:
            path.unlink()
        self.refuse(1, "class 'sea' has only one image", self.data)

    def test_all_images_corrupt(self):
        for kind in ("a", "b"):
            for i in range(4):
                path = self.data / kind / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{kind} {i}")
        if t.HAS_TRAINING:
            self.fail_with(1, "none of the", "train", self.data, "--weights", "none", "--backbone",
                           "vgg-mini", "-o", self.out)

    def test_class_without_training_image(self):
        t.draw_scenes(self.data / "train", 2)
        t.draw_scenes(self.data / "val", 2)
        (self.data / "val" / "sea").rename(self.data / "val" / "ocean")
        self.refuse(1, "class 'ocean' has no training image; its val images", self.data)

    def test_read_only_output(self):
        t.draw_scenes(self.data, 2)
        locked = self.folder / "locked"
        locked.mkdir()
        locked.chmod(0o555)
        if os.geteuid() == 0:
            # Root may write anywhere but to /proc.
            self.fail_with(1, "/proc/run", "train", self.data, "-o", "/proc/run", "--weights", "none",
                           "--backbone", "vgg-mini")
            return
        self.fail_with(1, "not writable", "train", self.data, "-o", locked / "run", "--weights", "none",
                       "--backbone", "vgg-mini")

    def test_output_is_a_file(self):
        t.draw_scenes(self.data, 2)
        file = self.folder / "file"
        file.write_text("x")
        self.fail_with(1, "is a file", "train", self.data, "-o", file, "--weights", "none")

    def test_head_that_cannot_fit_into_memory(self):
        t.draw_scenes(self.data, 2)
        done = self.refuse(1, "needs about", self.data, "--head", "flatten dense:1000000 dense:1000000")
        self.assertIn("smaller --head", done.stderr)

    def test_options(self):
        t.draw_scenes(self.data, 2)
        for arguments in (("--epochs", "0"), ("--epochs", "many"), ("--lr", "-1"), ("--lr", "nan"),
                          ("--optimizer", "lion"), ("--val-split", "1"), ("--batch-size", "0"),
                          ("--fine-tune", "block9"), ("--head", "dense:3"), ("--device", "tpu"),
                          ("--nonsense",), ("--patience", "-1"), ("--seed", "x")):
            self.refuse(2, "graft: ", self.data, *arguments)

    def test_missing_cuda(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        t.draw_scenes(self.data, 2)
        done = t.run("train", self.data, "--device", "cuda", "--weights", "none", "--backbone",
                     "vgg-mini", "--input-size", "32", "--epochs", "1", "-o", self.out)
        if done.returncode != 0:  # a machine with CUDA just trains
            self.assertEqual(done.returncode, 1)
            self.assertIn("no CUDA", done.stderr)
            self.assertFalse(self.out.exists())

    def test_manifest(self):
        manifest = self.folder / "m.csv"
        manifest.write_text("file,class\na.jpg,x\n")
        self.refuse(1, "path and label", manifest)
        manifest.write_text("path,label\nmissing.jpg,x\nmissing2.jpg,x\nb.jpg,y\nc.jpg,y\n")
        if t.HAS_TRAINING:
            self.fail_with(1, "none of its 4 images can be used", "train", manifest, "--weights", "none", "--backbone",
                           "vgg-mini", "-o", self.out)


if __name__ == "__main__":
    t.main()
