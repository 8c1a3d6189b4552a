"""Labels that are probably wrong: found by check and train, listed for a person, corrected."""
import csv
import html
import io
import shutil

import graft_testing as t

BACKBONE = ("--backbone", "vgg-mini")
# The name in the data, and the class that it stands in by mistake.
MOVED = {"forest/3.jpg": "sea", "street/2.jpg": "forest", "sea/7.jpg": "glacier"}


class Labels(t.TestCase):
    """Drawn scenes, three of them in a class that is not theirs."""

    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 20)
        self.wrong = {}
        for name, label in MOVED.items():
            kind, file = name.split("/")
            moved = self.data / label / f"{kind}-{file}"
            (self.data / name).rename(moved)
            self.wrong[str(moved)] = (label, kind)
        self.cache = ("--cache-dir", self.folder / "cache")
        self.review = self.folder / "review.csv"

    def check(self, *arguments):
        return self.succeed_json("check", self.data, *BACKBONE, *self.cache, "--json", "--quiet", *arguments)

    def rows(self, path=None):
        return t.read_csv(path or self.review)

    def fill_in(self, actions, separator=","):
        """{name below the data: action}, as a spreadsheet would write it."""
        rows = self.rows()
        for row in rows:
            row["action"] = actions.get(row["path"], row["action"])
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0].keys(), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
        self.review.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())


class Check(Labels):
    def test_finds_what_was_moved(self):
        document = self.check("--review", self.review)
        # Drawn scenes are few and wild: one of them is as doubtful.
        first = {e["path"]: (e["label"], e["suggestion"]) for e in document["label_errors"][:4]}
        self.assertEqual({path: labels for path, labels in first.items() if path in self.wrong}, self.wrong)
        for error in document["label_errors"]:
            self.assertGreater(error["confidence"], error["label_confidence"])
            self.assertLessEqual(error["confidence"] + error["label_confidence"], 1 + 1e-6)
        self.assertEqual(document["labels_judged"], document["images"])
        self.assertAlmostEqual(document["label_noise"], sum(p["images"] for p in document["label_pairs"]) / 120, delta=0.02)
        self.assertIn({"label": "sea", "suggestion": "forest"},
                      [{k: p[k] for k in ("label", "suggestion")} for p in document["label_pairs"]])
        # One line an image, nothing decided, paths as they lie below the data.
        rows = self.rows()
        self.assertEqual(list(rows[0]), ["path", "label", "suggestion", "confidence", "action", "content"])
        self.assertEqual([str(self.data / row["path"]) for row in rows],
                         [e["path"] for e in document["label_errors"]])
        self.assertEqual({row["action"] for row in rows}, {""})
        # From the cache it comes out the same, whatever the number of threads.
        self.assertEqual(self.check("--threads", "1"), self.check("--threads", "3"))

    def test_without_asking_nothing_is_judged(self):
        document = self.succeed_json("check", self.data, "--json", "--quiet")
        self.assertNotIn("label_errors", document)
        self.fail_with(2, "--backbone vgg-mini", "check", self.data, "--review", self.review)
        self.fail_with(2, "leave --backbone", "check", self.data, "--model", "x", "--backbone", "vgg-mini")
        self.fail_with(1, "absent", "check", self.data, "--model", self.folder / "absent")
        self.fail_with(2, "vgg-mini", "check", self.data, "--backbone", "vgg-mi")

    def test_text_and_page(self):
        page = self.folder / "check.html"
        text = self.succeed("check", self.data, *BACKBONE, *self.cache, "--html", page, "--quiet").stdout
        self.assertIn("Labels that are probably wrong:", text)
        self.assertRegex(text, r"  forest labelled sea: about \d+\n")
        self.assertRegex(text, r"sea/forest-3\.jpg: labelled sea, probably forest \(\d+ %\)")
        content = html.unescape(page.read_text())
        self.assertIn("Labels that are probably wrong", content)
        self.assertIn('alt="labelled sea"', content)
        self.assertIn(">sea/forest-3.jpg</code>", content)

    def test_what_cannot_be_judged(self):
        (self.data / "sea" / "cut.jpg").write_bytes((self.data / "sea" / "0.jpg").read_bytes()[:500])
        (self.data / "lone").mkdir()
        shutil.copy(self.data / "sea" / "1.jpg", self.data / "lone" / "1.jpg")
        document = self.check()
        self.assertEqual(document["labels_judged"], 120)
        self.assertIn("class lone, of which there is one image", " ".join(document["notes"]))
        two = self.folder / "two"
        for kind in ("a", "b"):
            (two / kind).mkdir(parents=True)
            shutil.copy(self.data / "street" / ("3.jpg" if kind == "a" else "4.jpg"), two / kind / "x.jpg")
        self.fail_with(1, "two different images", "check", two, *BACKBONE)

    def test_review_and_back(self):
        self.check("--review", self.review)
        self.fill_in({"sea/forest-3.jpg": "relabel", "forest/street-2.jpg": "drop", "glacier/sea-7.jpg": "Keep"},
                     separator=";")
        text = self.review.read_bytes()
        # A person's work is not overwritten, but carried over.
        self.fail_with(2, "3 decisions", "check", self.data, *BACKBONE, *self.cache, "--review", self.review)
        self.assertEqual(self.review.read_bytes(), text)
        document = self.check("--corrections", self.review, "--review", self.review)
        decided = {row["path"]: row["action"] for row in self.rows() if row["action"]}
        self.assertEqual(decided, {"sea/forest-3.jpg": "relabel", "forest/street-2.jpg": "drop",
                                   "glacier/sea-7.jpg": "keep"})
        doubted = {e["path"] for e in document["label_errors"]}
        self.assertFalse(doubted & set(self.wrong), "decided on, and doubted again")
        self.assertEqual(document["classes"]["forest"], 20, "one there by relabel, one by mistake dropped")
        self.assertEqual(document["images"], 119)
        for bad, why in (("relable", "none of keep, drop, relabel"), ("lake", "(buildings, forest")):
            self.review.write_text(f"path,label,action\nsea/1.jpg,sea,{bad}\n")
            self.fail_with(1, why, "check", self.data, "--corrections", self.review)
        self.fail_with(1, "none.csv", "check", self.data, "--corrections", self.folder / "none.csv")

    def test_what_is_no_review_stays(self):
        """Reviews as spreadsheets save them, without a header or with an open quote, and other files."""
        line = "sea/1.jpg\tsea\tforest\t0.99\tdrop\n"
        for text in (("path\tlabel\tsuggestion\tconfidence\taction\n" + line).encode("utf-16"),
                     line.replace("\t", ",").encode(), b'path,label,action\n"sea/1.jpg,sea,drop\n', b"hello\n"):
            self.review.write_bytes(text)
            self.fail_with(2, "no review that can be read", "check", self.data, *BACKBONE, "--review", self.review)
            self.assertEqual(self.review.read_bytes(), text)
        # One without decisions is made anew.
        self.review.unlink()
        self.check("--review", self.review)
        self.check("--review", self.review)

    def test_decisions_are_on_an_image_not_on_a_path(self):
        self.check("--review", self.review)
        self.fill_in({"sea/forest-3.jpg": "drop"})
        wrong, right = self.data / "sea" / "forest-3.jpg", self.data / "sea" / "1.jpg"
        wrong.rename(self.folder / "x")
        right.rename(wrong)
        (self.folder / "x").rename(right)
        done = self.succeed("check", self.data, "--corrections", self.review)
        self.assertIn("0 dropped", done.stdout)
        self.assertIn("1 decision left out, since another image is in that place by now", done.stdout)
        # Where nothing says which image was meant, the path does.
        self.review.write_text("path,action\nsea/forest-3.jpg,drop\n")
        self.assertIn("1 dropped", self.succeed("check", self.data, "--corrections", self.review).stdout)

    def test_nothing_for_a_spreadsheet_to_compute(self):
        for name, other in (("sea", "=1+1"), ("forest", "-forest")):
            (self.data / name).rename(self.data / other)
        self.check("--review", self.review)
        fields = [field for row in csv.reader(io.StringIO(self.review.read_text())) for field in row]
        self.assertEqual([field for field in fields if field[:1] in ("=", "-", "+", "@")], [])
        self.fill_in({"./=1+1/forest-3.jpg": "relabel"})
        self.assertIn("'-forest", self.review.read_text())
        self.assertIn("1 relabelled", self.succeed("check", self.data, "--corrections", self.review).stdout)

    def test_encodings(self):
        (self.data / "sea" / "1.jpg").rename(self.data / "sea" / "é.jpg")
        self.review.write_bytes("path;action\nsea/é.jpg;drop\nsea/2.jpg;drop\n".encode("latin-1"))
        self.fail_with(1, "review.csv:2: the path is not UTF-8", "check", self.data, "--corrections", self.review)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Training(Labels):
    OPTIONS = (*BACKBONE, "--epochs", "2", "--threads", "2")

    def train(self, name, *arguments):
        return self.succeed("train", self.data, *self.OPTIONS, *self.cache, "-o", self.folder / name, *arguments)

    def split(self, name):
        return {str(t.pathlib.Path(row["path"]).relative_to(self.data)): row
                for row in self.rows(self.folder / name / "split.csv")}

    def test_a_run_judges_and_is_judged_by(self):
        done = self.train("run", "--check-labels", "--seed", "3")
        self.assertIn("labels that are probably wrong:", done.stdout)
        rows = self.rows(self.folder / "run" / "review.csv")
        self.assertLessEqual(set(self.wrong), {str(self.data / row["path"]) for row in rows[:4]})
        report = (self.folder / "run" / "report.html").read_text()
        self.assertIn('id="label_errors"', report)
        metrics = t.json.loads((self.folder / "run" / "metrics.json").read_text())
        self.assertEqual(metrics["labels"]["doubtful"], len(rows))
        self.assertEqual(metrics["labels"]["judged"], 120)
        # The same frozen layers, the same images: the same judgement, without a feature computed.
        document = self.succeed_json("check", self.data, "--model", self.folder / "run", "--json", "--verbose")
        self.assertEqual([str(t.pathlib.Path(e["path"]).relative_to(self.data)) for e in document["label_errors"]],
                         [row["path"] for row in rows])
        self.succeed("check", self.data, "--model", self.folder / "run" / "model.safetensors")

    def test_judged_by_layers_that_saw_no_label(self):
        """Few frozen layers: the backbone that the run began with."""
        self.train("tuned", "--fine-tune", "block2_conv1", "--no-report")
        document = self.succeed_json("check", self.data, "--model", self.folder / "tuned", "--json", "--quiet")
        self.assertEqual(document["labels_judged_by"], "block5_pool of vgg-mini")
        self.assertEqual(document["label_errors"], self.check()["label_errors"])
        # Weights that a run has trained may know these labels.
        done = self.succeed_json("check", self.data, "--backbone", "vgg-mini", "--weights", self.folder / "tuned",
                                 *self.cache, "--json", "--quiet")
        self.assertIn("may have been trained on labels", " ".join(done["notes"]))
        self.fail_with(2, "nearly all of its layers", "check", self.data, "--model",
                       self.folder / "tuned" / "model.safetensors")

    def test_corrections_of_a_run(self):
        self.check("--review", self.review)
        self.fill_in({"sea/forest-3.jpg": "relabel", "forest/street-2.jpg": "drop", "glacier/sea-7.jpg": "sea"})
        done = self.train("run", "--corrections", self.review)
        self.assertIn(f"note: --corrections {self.review}: 2 relabelled, 1 dropped, 0 kept", done.stderr)
        split = self.split("run")
        self.assertEqual(split["sea/forest-3.jpg"]["label"], "forest")
        self.assertEqual(split["glacier/sea-7.jpg"]["label"], "sea")
        self.assertNotIn("forest/street-2.jpg", split)
        config = (self.folder / "run" / "config.toml").read_text()
        self.assertIn(f'corrections = "{self.review}"', config.replace("'", '"'))
        model = (self.folder / "run" / "model.safetensors").read_bytes()
        report = (self.folder / "run" / "report.html").read_text()
        self.assertRegex(report, r"Corrected by a person's decisions on labels, .*: 2 relabelled, 1 dropped")
        page = self.folder / "page.html"
        self.succeed("evaluate", self.folder / "run", self.data, "--report", page, "--quiet")
        self.assertIn("trained on labels that a person had corrected", page.read_text())
        # As a dataset in which the labels are right.
        right = self.folder / "right"
        shutil.copytree(self.data, right)
        for name, label in {"sea/forest-3.jpg": "forest", "glacier/sea-7.jpg": "sea"}.items():
            (right / name).rename(right / label / t.pathlib.Path(name).name)
        (right / "forest" / "street-2.jpg").unlink()
        counts = {label: len(list((right / label).iterdir())) for label in
                  ("buildings", "forest", "glacier", "mountain", "sea", "street")}
        self.assertEqual({label: sum(row["label"] == label for row in split.values()) for label in counts}, counts)
        # A run that is resumed keeps what it began with, whatever has become of the file.
        half = self.folder / "half"
        self.succeed("train", self.data, *BACKBONE, "--epochs", "1", "--threads", "2", *self.cache,
                     "--corrections", self.review, "-o", half, "--no-report")
        self.review.write_text("path,label,action\nsea/1.jpg,sea,drop\n")
        self.succeed("train", self.data, "--resume", half, "--epochs", "2")
        self.assertEqual(self.split("half"), split)
        self.assertEqual((half / "config.toml").read_text().count(str(self.review)), 1)
        self.fail_with(1, "--corrections", "train", self.data, "--resume", half, "--corrections",
                       self.folder / "run" / "corrections.csv")
        # The configuration names the file that was typed.
        self.train("again", "--config", self.folder / "run" / "config.toml", "--no-report")
        self.assertNotIn("sea/1.jpg", self.split("again"))
        self.assertNotEqual((self.folder / "again" / "model.safetensors").read_bytes(), model)

    def test_decisions_of_earlier_runs_stay(self):
        first, second = self.folder / "first.csv", self.folder / "second.csv"
        first.write_text("path,action\nsea/forest-3.jpg,forest\nforest/street-2.jpg,drop\n")
        second.write_text("path,action\nglacier/sea-7.jpg,sea\n")
        self.train("a", "--corrections", first)
        self.train("b", "--from", self.folder / "a", "--corrections", second)
        labels = {path: row["label"] for path, row in self.split("b").items()}
        self.assertEqual((labels["sea/forest-3.jpg"], labels["glacier/sea-7.jpg"]), ("forest", "sea"))
        self.assertNotIn("forest/street-2.jpg", labels)
        # Looked for by that run, they are not doubted again.
        document = self.succeed_json("check", self.data, "--model", self.folder / "b", *self.cache, "--json", "--quiet")
        self.assertFalse({e["path"] for e in document["label_errors"]} & set(self.wrong))
        by_file = self.succeed("check", self.data, "--model", self.folder / "b" / "model.safetensors", *self.cache)
        self.assertIn("2 relabelled, 1 dropped", by_file.stdout)
        # Where the command is typed does not matter.
        inside = self.succeed("check", self.data, cwd=self.folder / "b")
        self.assertNotIn("relabelled", inside.stdout)
        # The file edited, or gone: what was decided is still decided.
        first.write_text("path,action\nsea/1.jpg,drop\n")
        self.train("c", "--from", self.folder / "a")
        labels = {path: row["label"] for path, row in self.split("c").items()}
        self.assertEqual(labels["sea/forest-3.jpg"], "forest")
        self.assertNotIn("sea/1.jpg", labels)
        first.unlink()
        self.train("d", "--from", self.folder / "a")
        self.assertEqual(self.split("d")["sea/forest-3.jpg"]["label"], "forest")
        # A later decision counts, and a class that has gone takes its decisions along.
        second.write_text("path,action\nsea/forest-3.jpg,keep\n")
        self.train("e", "--from", self.folder / "a", "--corrections", second)
        self.assertEqual(self.split("e")["sea/forest-3.jpg"]["label"], "sea")
        shutil.rmtree(self.data / "forest")
        done = self.train("f", "--from", self.folder / "a")
        self.assertIn("1 decision left out, on classes or labels that the data has no more", done.stderr)
        self.assertEqual(self.split("f")["sea/forest-3.jpg"]["label"], "sea")
        second.write_text("path,action\nsea/1.jpg,forrest\n")
        self.fail_with(1, "second.csv:2", "train", self.data, *self.OPTIONS, "--from", self.folder / "a",
                       "--corrections", second, "-o", self.folder / "g")

    def test_files_of_a_run_and_reviews_are_no_results(self):
        run = self.folder / "run"
        self.train("run")
        self.review.write_text("path,label,suggestion,confidence,action\nsea/1.jpg,sea,street,0.9,drop\n")
        image = self.data / "sea" / "1.jpg"
        for name in ("split.csv", "metrics.json", "history.csv", "predictions.csv"):
            before = (run / name).read_bytes()
            self.fail_with(2, "belongs to a run", "predict", run, image, "-o", run / name)
            self.assertEqual((run / name).read_bytes(), before)
        self.fail_with(2, "belongs to a run", "check", self.data, "--model", run, "--review", run / "split.csv")
        self.fail_with(2, "belongs to a run", "features", image, *BACKBONE, "-o", run / "predictions.csv")
        self.fail_with(2, "belongs to a run", "evaluate", run, self.data, "--predictions", run / "predictions.csv")
        self.fail_with(2, "is a review of labels", "evaluate", run, self.data, "--predictions", self.review)
        self.succeed("evaluate", run, self.data, "--report", run / "report.html")

    def test_decisions_in_a_run_folder_are_no_file_of_the_run(self):
        self.train("run", "--check-labels", "--no-report")
        self.review = self.folder / "run" / "review.csv"
        self.fill_in({"sea/forest-3.jpg": "relabel"})
        text = self.review.read_bytes()
        self.fail_with(2, "a decision in it", "train", self.data, *self.OPTIONS, "-o", self.folder / "run", "--force")
        self.assertEqual(self.review.read_bytes(), text)
        self.assertTrue((self.folder / "run" / "model.safetensors").exists())
        self.train("run", "--force", "--corrections", self.review, "--no-report")
        self.assertEqual(self.review.read_bytes(), text)
        self.train("run", "--force", "--corrections", self.review, "--check-labels", "--no-report")
        rows = self.rows()
        self.assertEqual((rows[0]["path"], rows[0]["action"]), ("sea/forest-3.jpg", "relabel"))
        self.assertEqual({row["action"] for row in rows[1:]}, {""})
        self.assertEqual(self.split("run")["sea/forest-3.jpg"]["label"], "forest")

    def test_too_few_images_to_judge(self):
        few = self.folder / "few"
        for kind in ("sea", "street"):
            (few / kind).mkdir(parents=True)
            for i in range(2):
                shutil.copy(self.data / kind / f"{i}.jpg", few / kind)
        self.succeed("train", few, *self.OPTIONS, "--check-labels", "-o", self.folder / "r", "--no-report")


if __name__ == "__main__":
    t.main()
