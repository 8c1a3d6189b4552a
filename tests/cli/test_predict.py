"""graft predict and evaluate on a model that this test trains on drawn pictures."""
import csv
import io
import os
import pathlib
import shutil
import subprocess
import tempfile

import graft_testing as t
from PIL import Image

BASE = None


def setUpModule():
    """One small trained model for all tests of this file."""
    global BASE
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-predict-"))
    t.draw_scenes(BASE / "data" / "train", 8)
    t.draw_scenes(BASE / "data" / "test", 3, first_seed=500)
    done = t.run("train", BASE / "data", "--backbone", "vgg-mini", "--epochs", "4", "--input-size", "64",
                 "-o", BASE / "run", "--quiet")
    assert done.returncode == 0, done.stderr


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Predict(t.TestCase):
    def setUp(self):
        super().setUp()
        self.model = BASE / "run"
        self.pictures = sorted((BASE / "data" / "test").rglob("*.jpg"))

    def test_formats_agree(self):
        some = self.pictures[5:8]
        document = self.succeed_json("predict", self.model, *some, "--json", "--top", 3)
        self.assertEqual([p["path"] for p in document["predictions"]], [str(p) for p in some])
        for p in document["predictions"]:
            self.assertEqual(len(p["top"]), 3)
            self.assertEqual(p["label"], p["top"][0]["label"])
            probabilities = [k["probability"] for k in p["top"]]
            self.assertEqual(probabilities, sorted(probabilities, reverse=True))
        rows = list(csv.reader(io.StringIO(self.succeed("predict", self.model, *some, "--format", "csv",
                                                        "--top", 2).stdout)))
        self.assertEqual(rows[0], ["path", "label", "probability", "label_2", "probability_2"])
        text = self.succeed("predict", self.model, *some).stdout.splitlines()
        for row, line, p in zip(rows[1:], text, document["predictions"]):
            self.assertEqual(row[:2], [p["path"], p["label"]])
            self.assertAlmostEqual(float(row[2]), p["probability"], places=5)
            self.assertTrue(line.startswith(f"{p['path']}: {p['label']} "))

    def test_top_beyond_the_classes(self):
        p = self.succeed_json("predict", self.model, self.pictures[0], "--json", "--top", 99)
        top = p["predictions"][0]["top"]
        self.assertEqual(len(top), 6)
        self.assertAlmostEqual(sum(k["probability"] for k in top), 1, places=5)

    def test_order_given_and_folders_walked(self):
        folder = BASE / "data" / "test" / "sea"
        document = self.succeed_json("predict", self.model, self.pictures[7], folder, self.pictures[0],
                                     "--json")
        self.assertEqual([p["path"] for p in document["predictions"]],
                         [str(p) for p in (self.pictures[7], *sorted(folder.iterdir()),
                                           self.pictures[0])])

    def test_list_on_stdin(self):
        stdin = f"{self.pictures[1]}\r\n\n{self.pictures[0]}\n"
        document = self.succeed_json("predict", self.model, "-", "--json", stdin=stdin)
        self.assertEqual([p["path"] for p in document["predictions"]],
                         [str(self.pictures[1]), str(self.pictures[0])])

    def test_one_bad_among_many(self):
        bad = self.folder / "bad.jpg"
        bad.write_text("hello")
        missing = self.folder / "missing.png"
        done = self.fail_with(1, "bad.jpg: not a JPEG, PNG or WebP", "predict", self.model,
                              self.pictures[0], bad, missing, self.pictures[1])
        self.assertIn("missing.png: no such file", done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 2)

    def test_odd_names_and_sizes(self):
        odd = self.folder / "a, \"b\"\nc.png"
        Image.new("RGB", (1, 1)).save(odd)
        wide = self.folder / "wide.png"
        Image.new("L", (5000, 1)).save(wide)
        latin = os.fsencode(self.folder) + b"/\xe9.png"
        shutil.copy(wide, latin)
        document = self.succeed_json("predict", self.model, self.folder, "--json")
        self.assertEqual(len(document["predictions"]), 3)
        self.succeed("predict", self.model, self.folder, "--format", "csv")

    def test_model_by_file_and_thread_counts(self):
        one = self.succeed("predict", self.model / "model.safetensors", *self.pictures, "--threads", 1)
        many = self.succeed("predict", self.model, *self.pictures, "--threads", 5)
        self.assertEqual(one.stdout, many.stdout)

    def test_bad_models(self):
        picture = self.pictures[0]
        self.fail_with(1, "no such model", "predict", self.folder / "none", picture)
        self.fail_with(1, "no model.safetensors", "predict", self.folder, picture)
        good = (self.model / "model.safetensors").read_bytes()
        bad = self.folder / "m.safetensors"
        for data in (b"", b"x" * 100, good[:50], good[:len(good) // 2], good[:-1], good + b"x"):
            bad.write_bytes(data)
            self.fail_with(1, str(bad), "predict", bad, picture)
        t.write_safetensors(bad, {})
        self.fail_with(1, "not a model written by graft", "predict", bad, picture)
        self.fail_with(2, "PATH", "predict", self.model)
        self.fail_with(2, "--format", "predict", self.model, picture, "--format", "xml")

    def test_libtorch_is_not_loaded_and_libraries_are_few(self):
        done = subprocess.run([t.GRAFT, "predict", str(self.model), str(self.pictures[0])],
                              env=dict(os.environ, LD_DEBUG="libs"), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        loaded = {line.split("calling init: ")[1] for line in done.stderr.splitlines()
                  if "calling init: " in line}
        self.assertGreater(len(loaded), 5)
        self.assertFalse([name for name in loaded if "torch" in name])
        self.assertLessEqual(len(loaded), 60)

    def test_evaluate(self):
        document = self.succeed_json("evaluate", self.model, BASE / "data", "--json")
        self.assertEqual(document["images"], 18)
        self.assertEqual(document["split"], "test")
        self.assertEqual(document["classes"], sorted(document["classes"]))
        confusion = document["confusion"]
        self.assertEqual([sum(row) for row in confusion], [3] * 6)
        self.assertAlmostEqual(document["top1"], sum(confusion[i][i] for i in range(6)) / 18)
        self.assertGreaterEqual(document["top5"], document["top1"])
        for row in document["per_class"]:
            self.assertEqual(row["support"], 3)
        # Against predict, picture by picture.
        predicted = self.succeed_json("predict", self.model, BASE / "data" / "test", "--json")
        right = sum(pathlib.Path(p["path"]).parent.name == p["label"]
                    for p in predicted["predictions"])
        self.assertAlmostEqual(document["top1"], right / 18)

    def test_evaluate_joins_classes_by_name(self):
        some = self.folder / "some"
        for name in ("sea", "forest"):
            shutil.copytree(BASE / "data" / "test" / name, some / name)
        document = self.succeed_json("evaluate", self.model, some, "--json")
        self.assertEqual(document["images"], 6)
        support = {row["class"]: row["support"] for row in document["per_class"]}
        self.assertEqual(support["sea"], 3)
        self.assertEqual(support["street"], 0)
        (some / "sea").rename(some / "ocean")
        self.fail_with(1, "class 'ocean' is not among the model's classes", "evaluate", self.model, some)

    def test_evaluate_skips_and_says_so(self):
        data = self.folder / "data"
        shutil.copytree(BASE / "data" / "test", data)
        (data / "sea" / "0.jpg").write_bytes(b"\xff\xd8\xff broken")
        import json
        done = self.fail_with(1, "--max-skipped", "evaluate", self.model, data, "--json")
        self.assertEqual(json.loads(done.stdout)["images"], 17)
        done = self.succeed("evaluate", self.model, data, "--json", "--max-skipped", "0.1")
        document = json.loads(done.stdout)
        self.assertEqual(document["images"], 17)
        self.assertEqual(len(document["skipped"]), 1)
        self.assertIn("skipped", done.stderr)

    def test_evaluate_predictions_file(self):
        out = self.folder / "p.csv"
        self.succeed("evaluate", self.model, BASE / "data", "--predictions", out)
        rows = t.read_csv(out)
        self.assertEqual(len(rows), 18)
        self.assertEqual({row["label"] for row in rows}, {p.parent.name for p in self.pictures})

    def test_evaluate_split(self):
        self.fail_with(1, "has no val split", "evaluate", self.model, BASE / "data", "--split", "val")
        document = self.succeed_json("evaluate", self.model, self.model / "split.csv", "--split", "val",
                                     "--json")
        self.assertEqual(document["images"], 6)

    def test_summary_of_a_model(self):
        document = self.succeed_json("summary", self.model, "--json")
        self.assertEqual(document["layers"][-1]["output_shape"], [6])
        self.assertEqual(document["layers"][0]["output_shape"], [3, 64, 64])
        self.assertGreater(document["trainable"], 0)
        self.fail_with(2, "contradicts a MODEL", "summary", self.model, "--backbone", "vgg16")


if __name__ == "__main__":
    t.main()
