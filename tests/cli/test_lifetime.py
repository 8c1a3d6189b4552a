"""A project's second month: splits that stay, runs that begin from runs, which of two is better, and what
a finished run keeps on disk."""
import csv
import json
import os
import re
import shutil
import sys

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

FAST = ("--backbone", "vgg-mini", "--input-size", "48", "--head", "gap dense:16", "--fine-tune", "0", "--epochs", "2",
        "--no-report", "--threads", "2")


def splits(run):
    """file name → split, of a run."""
    return {os.path.basename(row["path"]): row["split"] for row in t.read_csv(run / "split.csv")}


class Lifetime(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 12)
        # Names of their own, by which images are known again wherever they are.
        for path in sorted(self.data.rglob("*.jpg")):
            path.rename(path.with_name(f"{path.parent.name}-{path.name}"))
        self.cache = ("--cache-dir", self.folder / "cache")
        self.one = self.folder / "one"
        self.succeed("train", self.data, *FAST, *self.cache, "-o", self.one)
        self.classes = sorted(path.name for path in self.data.iterdir())

    def more(self, count=6):
        """Images that the first run did not have."""
        extra = self.folder / "extra"
        t.draw_scenes(extra, count, first_seed=1000)
        for path in sorted(extra.rglob("*.jpg")):
            shutil.move(path, self.data / path.parent.name / f"new-{path.parent.name}-{path.name}")

    def test_images_stay_on_their_side(self):
        before = splits(self.one)
        self.assertEqual(set(before.values()), {"train", "val"})
        self.more()
        folder = self.data / self.classes[0]
        moved = sorted(folder.glob(f"{self.classes[0]}-*.jpg"))
        moved[0].rename(self.data / self.classes[1] / moved[0].name)
        moved[1].unlink()
        shutil.copy(moved[2], folder / f"copy-of-{moved[2].name}")
        two = self.folder / "two"
        self.succeed("train", self.data, *FAST, *self.cache, "-o", two)
        after = splits(two)
        for name, split in after.items():
            if name in before:
                self.assertEqual(split, before[name], name)
        self.assertEqual(after[f"copy-of-{moved[2].name}"], before[moved[2].name])
        self.assertTrue(any(name.startswith("new-") for name in after))

    def test_another_runs_split(self):
        two = self.folder / "two"
        self.more()
        moved = self.folder / "elsewhere"
        self.data.rename(moved)
        done = self.succeed("train", moved, *FAST, *self.cache, "-o", two, "--seed", "9", "--split-from", self.one)
        before, after = splits(self.one), splits(two)
        for name, split in before.items():
            self.assertEqual(after[name], split, name)
        self.assertIn(f"{len(before)} of {len(after)} images are split as in", done.stderr)
        self.assertIn("split-from = ", (two / "config.toml").read_text())
        # Goes on with the same split, and so does a repetition from its configuration.
        self.succeed("train", moved, "--resume", two, "--epochs", "3")
        self.succeed("train", moved, "--config", two / "config.toml", "-o", self.folder / "three")
        self.assertEqual(splits(self.folder / "three"), after)
        # Where the earlier run has gone, a run that is resumed knows its own split.
        shutil.move(self.one, self.folder / "gone")
        self.succeed("train", moved, "--resume", two, "--epochs", "4")
        self.assertEqual(splits(two), after)
        shutil.move(self.folder / "gone", self.one)
        # What is set aside by the data and was learned there is told.
        val = self.folder / "val"
        for label in self.classes:
            (val / label).mkdir(parents=True)
            name = next(n for n in sorted(before) if n.startswith(label) and before[n] == "train")
            shutil.copy(moved / label / name, val / label)
        done = self.succeed("train", moved, "--val", val, "--exclude", "leaks", *FAST, "--split-from", self.one, "--dry-run")
        self.assertIn(f"{len(self.classes)} images are set aside here and were trained on in", done.stdout)
        self.fail_with(2, "--split-from: ", "train", moved, *FAST, "--split-from", moved, "--dry-run")
        other = self.folder / "other"
        t.draw_scenes(other, 4, first_seed=5000)
        self.fail_with(2, "none of the", "train", other, *FAST, "--split-from", self.one, "--dry-run")

    def test_what_the_runs_before_learned_from(self):
        """Photos go, and a run goes on from the earlier one: that has still learned from them."""
        learned = [name for name, split in splits(self.one).items() if split == "train"]
        kept = self.folder / "kept"
        shutil.copytree(self.data, kept)
        for path in sorted(self.data.rglob("*.jpg"))[::2]:
            path.unlink()
        two, three = self.folder / "two", self.folder / "three"
        self.succeed("train", self.data, "--from", self.one, *self.cache, "-o", two, "--epochs", "1")
        self.succeed("train", kept, *FAST, *self.cache, "-o", three, "--seed", "7", "--val-split", "0.4")
        for more in ((), ("--data", kept)):
            (pair,) = self.succeed_json("compare", two, three, "--json", *more)["pairs"]
            third = splits(three)
            fair = [name for name in third if name not in learned and third[name] != "train"]
            self.assertEqual(pair["images"], len(fair), more)
        # By content, wherever the images are, and by the model's file.
        moved = self.folder / "moved"
        shutil.copytree(kept, moved)
        for model in (two, two / "model.safetensors"):
            document = self.succeed_json("evaluate", model, moved, "--json")
            self.assertEqual(document["trained_on"], len(learned))
        done = self.succeed("evaluate", "model.safetensors", moved, "--json", cwd=two)
        self.assertEqual(json.loads(done.stdout)["trained_on"], len(learned))
        done = self.succeed("evaluate", two, moved)
        self.assertIn(f"{len(learned)} of these 72 images are among those", done.stderr)
        # Another split of the same images validates on what the weights know.
        for options in (("--weights", self.one, "--head", "keep", "--seed", "5", "--val-split", "0.5", "--epochs", "1"),
                        ("--from", self.one, "--split-from", three)):
            done = self.succeed("train", kept, *options, "--dry-run")
            self.assertRegex(done.stdout, r"\d+ of \d+ val images were trained on by .*/one or the runs before it")
            count = int(re.search(r"(\d+) of \d+ val images were trained on", done.stdout).group(1))
            run = self.folder / f"run{options[0]}"
            self.succeed("train", kept, *options, *self.cache, "-o", run)
            self.assertEqual(json.loads((run / "metrics.json").read_text())["validation"]["trained_on"], count)
            if "--weights" in options:  # the earlier run wrote no report
                self.assertRegex((run / "report.html").read_text(), rf"Measured</th><td>.*; {count} of them were trained "
                                                                    "on, by this run or one that it went on from")
        # New heads on frozen layers know nothing of the images.
        done = self.succeed("train", kept, "--weights", self.one, "--seed", "5", "--dry-run", "--backbone", "vgg-mini",
                            "--input-size", "48")
        self.assertNotIn("were trained on by", done.stdout)

    def test_a_runs_rates_are_for_what_it_trained(self):
        """A head's rate of the earlier run does not become that of its pretrained layers."""
        two = self.folder / "two"
        done = self.succeed("train", self.data, "--from", self.one, *self.cache, "-o", two, "--fine-tune", "2",
                            "--freeze-epochs", "1", "--epochs", "2")
        config = (two / "config.toml").read_text()
        self.assertRegex(config, r"(?m)^lr = 0\.0001$")
        self.assertRegex(config, r"(?m)^head-lr = 0\.0001$", "a head that has been trained")
        # Fewer epochs than the freeze epochs that the earlier run had, and nobody typed.
        three = self.folder / "three"
        self.succeed("train", self.data, "--from", two, *self.cache, "-o", three, "--epochs", "1")
        self.assertRegex((three / "config.toml").read_text(), r"(?m)^freeze-epochs = 0$")
        for more, what in ((("--head-lr", "0.1"), "--head-lr without --freeze-epochs: not used"),
                           (("--lr-decay-per-block", "0.5"), "--lr-decay-per-block with a frozen backbone: not used")):
            done = self.succeed("train", self.data, "--from", self.one, *more, "--dry-run")
            self.assertIn(what, done.stdout)
            done = self.succeed("train", self.data, "--from", self.one, *more, "--fine-tune", "2", "--freeze-epochs",
                                "1", "--dry-run")
            self.assertNotIn(what, done.stdout)

    def test_a_run_goes_on_with_its_own_images(self):
        other = next(iter(sorted((self.data / self.classes[0]).iterdir())))
        kept = other.read_bytes()
        t.draw_scenes(self.folder / "x", 1, first_seed=7777)
        shutil.copy(next((self.folder / "x").rglob("*.jpg")), other)
        before = (self.one / "split.csv").read_bytes()
        self.fail_with(1, f"an image is not what it was when this run began, the first: {other}", "train", self.data,
                       "--resume", self.one, "--epochs", "3")
        self.assertEqual((self.one / "split.csv").read_bytes(), before)
        # Another of the run's own images is as wrong at this place.
        rows = t.read_csv(self.one / "split.csv")
        same = [row for row in rows if row["split"] == next(r["split"] for r in rows if r["path"] == str(other))]
        shutil.copy(next(row["path"] for row in same if row["path"] != str(other)), other)
        self.fail_with(1, "not what it was when this run began", "train", self.data, "--resume", self.one, "--epochs", "3")
        other.write_bytes(kept)
        # Before the first epoch nothing but split.csv knows the images.
        begun = self.folder / "begun"
        shutil.copytree(self.one, begun)
        shutil.rmtree(begun / "checkpoints")
        less = self.folder / "less"
        shutil.copytree(self.data, less)
        for path in sorted((less / self.classes[0]).iterdir())[:2]:
            path.unlink()
        self.fail_with(1, "of this run's", "train", less, "--resume", begun)
        self.succeed("train", self.data, "--resume", begun)
        self.succeed("train", self.data, "--resume", self.one, "--epochs", "3")
        done = self.succeed("train", self.data, "--resume", self.one, "--epochs", "2")
        self.assertIn("the run has had its 2 epochs; a larger number of --epochs adds some", done.stderr)
        (self.one / "config.toml").write_text("")
        self.fail_with(1, "config.toml: empty", "train", self.data, "--resume", self.one)
        self.fail_with(2, "is DATA", "train", self.data, *FAST, "-o", self.data, "--force")

    def test_a_class_under_another_spelling(self):
        (self.data / self.classes[0]).rename(self.data / self.classes[0].upper())
        self.fail_with(1, "differs from it only in letter case", "train", self.data, "--from", self.one, "--dry-run")

    def test_mistakes_of_from(self):
        self.fail_with(2, f"{self.one} is a model on vgg-mini", "train", self.data, "--from", self.one, "--backbone", "vgg16")
        self.fail_with(2, "--from and -o name one folder", "train", self.data, "--from", self.one, "-o", self.one, "--force")
        self.fail_with(2, "no such folder", "train", self.data, "--from", self.folder / "none")
        self.fail_with(2, "is no folder", "train", self.data, "--from", self.one / "model.safetensors")
        # Validation images in a folder of their own leave no side to the others.
        val = self.folder / "val"
        t.draw_scenes(val, 3, first_seed=9000)
        two = self.folder / "two"
        self.succeed("train", self.data, "--val", val, *FAST, *self.cache, "-o", two)
        self.fail_with(2, "name them with --val", "train", self.data, *FAST, "--split-from", two, "-o", self.folder / "x")
        self.assertFalse((self.folder / "x").exists())
        self.succeed("train", self.data, "--val", val, *FAST, "--split-from", two, "--dry-run")

    def test_classes_that_one_does_not_have(self):
        (self.data / "zebra").mkdir()
        t.draw_scenes(self.folder / "z", 12, first_seed=4000)
        for path in (self.folder / "z" / self.classes[0]).iterdir():
            shutil.move(path, self.data / "zebra" / f"zebra-{path.name}")
        more, other = self.folder / "more", self.folder / "other"
        self.succeed("train", self.data, "--from", self.one, *self.cache, "-o", more, "--epochs", "1")
        self.assertIn("does not have class zebra", self.succeed("compare", self.one, more).stderr)
        t.draw_scenes(other, 3, first_seed=6000)
        shutil.copytree(self.data / "zebra", other / "zebra")
        done = self.succeed("compare", self.one, more, "--data", other)
        self.assertIn("12 of 30 images are left out, of class zebra, which not every run has", done.stderr)

    def test_near_duplicates_stay_together(self):
        from PIL import Image
        for path in sorted(self.data.rglob("*.jpg")):
            Image.open(path).save(path.with_name(path.stem + "-again.jpg"), quality=60)
        two = self.folder / "two"
        self.succeed("train", self.data, *FAST, *self.cache, "-o", two, "--group-near-duplicates")
        after = splits(two)
        pairs = [(name, name.replace("-again", "")) for name in after if "-again" in name]
        self.assertGreater(len(pairs), 20)
        self.assertEqual([pair for pair in pairs if after[pair[0]] != after[pair[1]]], [])
        self.assertIn("group-near-duplicates = true", (two / "config.toml").read_text())

    def test_a_class_more(self):
        self.more()
        fresh = self.data / "zebra"
        (self.folder / "z").mkdir()
        t.draw_scenes(self.folder / "z", 8, first_seed=2000)
        shutil.move(self.folder / "z" / self.classes[0], fresh)
        shutil.rmtree(self.data / self.classes[-1])
        two = self.folder / "two"
        done = self.succeed("train", self.data, "--from", self.one, "-o", two, "--lr", "1e-9", "--epochs", "1", "--verbose",
                            *self.cache)
        before, after = splits(self.one), splits(two)
        for name in set(before) & set(after):
            self.assertEqual(after[name], before[name], name)
        self.assertIn("class zebra is new", done.stderr)
        self.assertIn(f"class {self.classes[-1]} left out", done.stderr)
        self.assertIn("new images", done.stderr)
        # Its options, and its head where classes agree.
        config = (two / "config.toml").read_text()
        for line in ("head = 'keep'", "backbone = 'vgg-mini'", "input-size = '48x48'", "lr = 1e-09", "split-from = "):
            self.assertIn(line, config)
        old, about = t.read_safetensors(self.one / "model.safetensors")
        new, now = t.read_safetensors(two / "checkpoints" / "best.safetensors")
        labels, kept = json.loads(about["classes"]), json.loads(now["classes"])
        for label in set(labels) & set(kept):
            for name in ("predictions.weight", "predictions.bias"):
                self.assertLess(abs(new[name][kept.index(label)] - old[name][labels.index(label)]).max(), 1e-5)
        # Features of images that were there come from the cache.
        listed = self.succeed_json("cache", "list", "--json", *self.cache)
        self.assertEqual(len(listed["sets"]), 1, listed)

    def test_the_report_says_what_changed(self):
        self.more()
        two = self.folder / "two"
        self.succeed("train", self.data, "--from", self.one, "-o", two, "--epochs", "1", *self.cache)
        self.assertFalse((two / "report.html").exists(), "as the earlier run was told")
        config = (self.one / "config.toml").read_text().replace("no-report = true\n", "")
        (self.one / "config.toml").write_text(config)
        three = self.folder / "three"
        self.succeed("train", self.data, "--from", self.one, "-o", three, "--epochs", "1", *self.cache)
        page = (three / "report.html").read_text()
        self.assertIn("What has changed", page)
        self.assertIn("had another label", page)

    def test_mistakes(self):
        for other in (("--config", self.one / "config.toml"), ("--recipe", "quick"), ("--resume", self.one)):
            self.fail_with(2, "exclude", "train", self.data, "--from", self.one, *other)
        self.fail_with(2, "no finished run", "train", self.data, "--from", self.data)
        other = self.folder / "other"
        t.draw_scenes(other, 4, first_seed=7000)
        for label in self.classes:
            (other / label).rename(other / f"not-{label}")
        self.fail_with(2, "none of the classes", "train", other, "--from", self.one, "--dry-run")


class Comparing(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 12)
        self.a, self.b = self.folder / "a", self.folder / "b"
        self.succeed("train", self.data, *FAST, "--no-cache", "-o", self.a)
        self.succeed("train", self.data, *FAST, "--no-cache", "-o", self.b, "--seed", "3", "--val-split", "0.4", "--lr", "0.02")

    def test_on_images_that_neither_learned(self):
        document = self.succeed_json("compare", self.a, self.b, "--json")
        pair = document["pairs"][0]
        held = []
        for run in (self.a, self.b):
            held.append({row["content"] for row in t.read_csv(run / "split.csv") if row["split"] == "val"})
        self.assertEqual(pair["images"], len(held[0] & held[1]))
        self.assertEqual(sum(row["images"] for row in pair["per_class"]), pair["images"])
        self.assertEqual(len(pair["flipped"]), pair["only_a"] + pair["only_b"])
        self.assertEqual(set(document["options"]), {"seed", "val-split", "lr"})
        self.assertAlmostEqual(pair["difference"], (pair["only_b"] - pair["only_a"]) / max(pair["images"], 1))

    def test_what_one_has_not_seen_is_classified(self):
        # b gets images that a does not know.
        t.draw_scenes(self.folder / "more", 8, first_seed=3000)
        self.succeed("train", self.folder / "more", *FAST, "--no-cache", "-o", self.folder / "c", "--val-split", "0.5")
        document = self.succeed_json("compare", self.a, self.folder / "c", "--json")
        known = sum(row["split"] == "val" for run in (self.a, self.folder / "c") for row in t.read_csv(run / "split.csv"))
        pair = document["pairs"][0]
        self.assertEqual((pair["split"], pair["images"]), ("unseen", known))

    def test_on_other_images(self):
        other = self.folder / "other"
        t.draw_scenes(other, 5, first_seed=4000)
        label = next(path for path in sorted(self.data.iterdir()))
        learned = next(row["path"] for row in t.read_csv(self.a / "split.csv") if row["split"] == "train" and label.name in row["path"])
        shutil.copy(learned, other / label.name / "known.jpg")
        done = self.succeed("compare", self.a, self.b, "--data", other, "--json")
        pair = json.loads(done.stdout)["pairs"][0]
        self.assertEqual(pair["images"], 5 * len(list(other.iterdir())))
        self.assertIn("1 of", done.stderr)
        # The figures are what evaluate gives of the same images.
        (other / label.name / "known.jpg").unlink()
        tops = [self.succeed_json("evaluate", run, other, "--json")["top1"] for run in (self.a, self.b)]
        self.assertAlmostEqual(pair["difference"], tops[1] - tops[0])
        self.fail_with(1, "trained on each", "compare", self.a, self.b, "--data", self.only_learned())
        page = self.folder / "c.html"
        self.fail_with(2, "--html", "compare", self.a, self.b, "--html", self.a)
        text = self.succeed("compare", self.a, self.b, "--data", other, "--html", page).stdout
        self.assertIn("a right", text)
        self.assertIn("options in which they differ", text)
        self.assertIn("Where they differ", page.read_text())

    def only_learned(self):
        manifest = self.folder / "learned.csv"
        rows = [row for row in t.read_csv(self.a / "split.csv") if row["split"] == "train"]
        with open(manifest, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"])
            writer.writerows([row["path"], row["label"]] for row in rows)
        return manifest

    def test_from_another_folder_than_that_of_training(self):
        """Paths that were typed relative to where training was, and images that have moved since."""
        runs = []
        for seed in ("5", "6"):
            runs.append(self.folder / f"relative-{seed}")
            self.succeed("train", "data", *FAST, "--no-cache", "--seed", seed, "--val-split", "0.4", "-o", runs[-1],
                         cwd=self.folder)
        near = self.succeed_json("compare", *runs, "--json", cwd=self.folder)
        far = self.succeed_json("compare", *runs, "--json", cwd="/")
        self.assertEqual(far["pairs"], near["pairs"])
        self.assertGreater(near["pairs"][0]["images"], 0)
        self.data.rename(self.folder / "elsewhere")
        gone = self.succeed_json("compare", *runs, "--json", cwd="/")
        self.assertEqual(gone["pairs"], near["pairs"])


class SmallDisk(t.TestCase):
    """A whole VGG11, whose checkpoints are worth freeing."""

    OPTIONS = ("--backbone", "vgg11", "--weights", "none", "--input-size", "32", "--head", "gap dense:8", "--fine-tune",
               "block5_conv1", "--epochs", "2", "--batch-size", "16", "--threads", "2", "--no-cache", "--no-report")

    def size(self, run):
        seen = {}
        for path in run.rglob("*"):
            if path.is_file():
                seen[path.stat().st_ino] = path.stat().st_size
        return sum(seen.values())

    def test_a_finished_run(self):
        data = self.folder / "data"
        t.draw_scenes(data, 6, size=32)
        run = self.folder / "run"
        self.succeed("train", data, *self.OPTIONS, "-o", run)
        model = (run / "model.safetensors").read_bytes()
        self.assertLess(self.size(run), 1.2 * len(model))
        self.assertTrue(os.path.samefile(run / "model.safetensors", run / "checkpoints" / "best.safetensors"))
        self.succeed("predict", run / "checkpoints" / "best.safetensors", next(data.rglob("*.jpg")))
        # Concluded anew it is the same, to the bit, and as small.
        self.succeed("train", data, "--resume", run)
        self.assertEqual((run / "model.safetensors").read_bytes(), model)
        self.assertLess(self.size(run), 1.2 * len(model))
        # Prolonged it goes on from its best epoch.
        self.succeed("train", data, "--resume", run, "--epochs", "4")
        self.assertEqual(len(t.read_csv(run / "history.csv")), 4)
        self.assertLess(self.size(run), 1.2 * len(model))

    def test_a_constant_rate_keeps_its_state(self):
        data = self.folder / "data"
        t.draw_scenes(data, 6, size=32)
        run = self.folder / "run"
        self.succeed("train", data, *self.OPTIONS, "--schedule", "constant", "-o", run)
        self.assertGreater((run / "checkpoints" / "state.safetensors").stat().st_size, 16_000_000)


t.main()
