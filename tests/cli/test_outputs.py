"""What may stand in the place of a result: a file that the user named, or one that Graft made as the
same kind of result. Nothing else, but with --force; and it is said before any work begins."""
import shutil

from PIL import Image

import graft_testing as t

NETWORK = ("--backbone", "vgg-mini", "--input-size", "32")
FOREIGN = "a;b\n1;2\n"


class Outputs(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 2, size=32)
        self.images = sorted(self.data.rglob("*.jpg"))[:3]

    def test_features_list(self):
        out, rows = self.folder / "m.npy", self.folder / "m.csv"
        features = ("features", *self.images, *NETWORK, "--weights", "none", "--pool", "gap", "-o", out)
        for make in (lambda: rows.write_text(FOREIGN), lambda: rows.write_text(""),
                     lambda: rows.symlink_to("nowhere")):
            make()
            before = rows.readlink() if rows.is_symlink() else rows.read_text()
            done = self.fail_with(2, f"{rows} exists already", *features)
            self.assertIn("--force", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1)
            self.assertEqual(rows.readlink() if rows.is_symlink() else rows.read_text(), before)
            self.assertFalse(out.exists())
            rows.unlink()
        rows.write_text(FOREIGN)
        self.succeed(*features, "--force")
        self.assertEqual(len(t.read_csv(rows)), 3)
        out.write_text("named by the user")
        self.succeed(*features)  # its own list, and FILE.npy as ever
        # The same name with another end would take the rows away from it.
        self.fail_with(2, f"{rows} is the list of the rows of {out}", *features[:-1], rows)
        self.assertTrue(rows.read_text().startswith("row,path\n"))
        self.assertEqual(out.read_bytes()[:6], b"\x93NUMPY")
        rows.unlink()
        rows.mkdir()
        self.fail_with(2, "is a folder", *features, "--force")

    def test_before_the_work(self):
        """Refused although the weights are not there: nothing was loaded."""
        (self.folder / "m.csv").write_text(FOREIGN)
        self.fail_with(2, "m.csv exists already", "features", self.data, "--weights", "nowhere.h5", "-o",
                       self.folder / "m.npy")

    def test_preview_by_default(self):
        sheet = self.folder / "preview.png"
        preview = ("preview", self.data, "--images", "1", "--views", "1", "--input-size", "32")
        Image.new("RGB", (3, 3)).save(sheet)
        before = sheet.read_bytes()
        self.fail_with(2, "preview.png exists already", *preview, cwd=self.folder)
        self.assertEqual(sheet.read_bytes(), before)
        self.succeed(*preview, "--force", cwd=self.folder)
        self.succeed(*preview, cwd=self.folder)  # its own
        with Image.open(sheet) as image:
            image.load()
            self.assertEqual(image.text["Software"], "graft preview")
        Image.new("RGB", (3, 3)).save(self.folder / "named.png")
        self.succeed(*preview, "-o", "named.png", cwd=self.folder)

    def test_demo_data(self):
        """--force is for an earlier demo, not for anything that is called data."""
        mine = self.folder / "project" / "data" / "train" / "sea" / "10006.jpg"
        mine.parent.mkdir(parents=True)
        shutil.copy(self.images[0], mine)
        self.fail_with(2, "not of an earlier demo", "demo", "-o", self.folder / "project", "--force")
        self.assertTrue(mine.exists())

    def test_run_folder(self):
        """Files that a beginning run writes too, but of somebody else."""
        run = self.folder / "project"
        run.mkdir()
        train = ("train", self.data, *NETWORK, "--weights", "none", "--dry-run", "-o", run)
        self.succeed(*train)
        for name in ("config.toml", "split.csv", "skipped.csv", "events.out.tfevents.1700000000.host.1.0"):
            (run / name).write_text("title = 'mine'\n")
            self.fail_with(2, "exists already", *train)
            (run / name).unlink()
        # What a run leaves that was killed before its first epoch.
        (run / "config.toml").write_text("# Options of this run. Repeat it with: …\n")
        (run / "split.csv").write_text("path,label,split\n")
        (run / "events.out.tfevents.1700000000.host.1").write_text("x")
        self.succeed(*train)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Maps(t.TestCase):
    def test_explain(self):
        t.draw_scenes(self.folder / "data", 4, size=32)
        run, why = self.folder / "run", self.folder / "why"
        self.succeed("train", self.folder / "data", *NETWORK, "--head", "gap", "--epochs", "1",
                     "--no-report", "--quiet", "-o", run)
        image = sorted((self.folder / "data").rglob("*.jpg"))[0]
        other = self.folder / "other.jpg"
        shutil.copy(image, other)
        why.mkdir()
        names = [why / f"{path.stem}.png" for path in (image, other)]
        predict = ("predict", run, image, other, "--explain", why)
        for name in names:
            Image.new("RGB", (3, 3)).save(name)
        before = [name.read_bytes() for name in names]
        done = self.fail_with(2, f"{names[0]} (one of 2) exists already", *predict)
        self.assertEqual(done.stdout, "", "before anything is classified")
        self.assertEqual([name.read_bytes() for name in names], before)
        names[1].unlink()
        self.fail_with(2, f"{names[0]} exists already", *predict)
        self.succeed(*predict, "--force")
        self.succeed(*predict)  # its own
        with Image.open(names[0]) as map_of_it:
            map_of_it.load()
            self.assertEqual(map_of_it.text["Software"], "graft predict --explain")
            self.assertEqual(map_of_it.width, 2 * 224 + 4, "the image, and its map beside it")
        # A sheet of another command is no map.
        self.succeed("preview", self.folder / "data", "--images", "1", "--views", "1", "-o", names[0])
        self.fail_with(2, "exists already", *predict)
        self.fail_with(2, "--force", "predict", run, image, "--force")


if __name__ == "__main__":
    t.main()
