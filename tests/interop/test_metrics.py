"""scikit-learn on Graft's predictions gives Graft's metrics; TensorBoard reads its event files."""
import io
import json
import pathlib
import shutil
import tempfile

import graft_testing as t
import numpy as np
from PIL import Image
from sklearn import metrics as sk

BASE = None


def setUpModule():
    global BASE
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-interop-"))
    # The tests' drawing tool is not part of a plain build; images of coloured noise do.
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 40)):
        for k, name in enumerate(("a", "b", "c", "d", "e", "f", "g")):
            folder = BASE / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count if name != "g" or split == "train" else count // 4):
                base = random.normal(128, 60, (4, 4, 3)) + 25 * np.array([k % 3, k // 3, k % 2])
                Image.fromarray(base.clip(0, 255).astype("u1")).resize((64, 64)).save(
                    folder / f"{i}.png")
    done = t.run("train", BASE / "data", "--backbone", "vgg-mini", "--input-size", "64", "--epochs", 6,
                 "-o", BASE / "run", "--quiet")
    assert done.returncode == 0, done.stderr


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


class Metrics(t.TestCase):
    def test_scikit_learn_agrees(self):
        table = self.folder / "p.csv"
        got = self.succeed_json("evaluate", BASE / "run", BASE / "data", "--json", "--predictions", table)
        classes = got["classes"]
        rows = t.read_csv(table)
        y = np.array([classes.index(r["label"]) for r in rows])
        p = np.array([[float(r["p:" + c]) for c in classes] for r in rows])
        top = np.array([classes.index(r["predicted"]) for r in rows])
        labels = range(len(classes))

        def same(value, want):
            self.assertAlmostEqual(value, want, delta=1e-9)
        self.assertLess(got["top1"], 0.99, "mistakes are what metrics are about")
        same(got["top1"], sk.accuracy_score(y, top))
        same(got["top5"], sk.top_k_accuracy_score(y, p, k=5, labels=labels))
        same(got["loss"], sk.log_loss(y, p, labels=labels))
        self.assertEqual(got["confusion"], sk.confusion_matrix(y, top, labels=labels).tolist())
        for average, want in (("macro", got["macro"]), ("weighted", got["weighted"])):
            precision, recall, f1, _ = sk.precision_recall_fscore_support(
                y, top, labels=labels, average=average, zero_division=0)
            same(want["precision"], precision)
            same(want["recall"], recall)
            same(want["f1"], f1)
            same(want["auc"], sk.roc_auc_score(y, p, multi_class="ovr", average=average))
        each = sk.precision_recall_fscore_support(y, top, labels=labels, zero_division=0)
        for k, row in enumerate(got["per_class"]):
            same(row["precision"], each[0][k])
            same(row["recall"], each[1][k])
            same(row["f1"], each[2][k])
            self.assertEqual(row["support"], each[3][k])
            same(row["auc"], sk.roc_auc_score(y == k, p[:, k]))
        # Calibration by its definition.
        confidence, right = p.max(1), top == y
        bins = np.minimum((confidence * 15).astype(int), 14)
        ece = sum(abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(15)) / len(y)
        same(got["ece"], ece)
        # The bootstrap against NumPy's own draws.
        random = np.random.default_rng(1)
        draws = [right[random.integers(0, len(y), len(y))].mean() for _ in range(4000)]
        for mine, want in zip(got["intervals"]["top1"], np.percentile(draws, [2.5, 97.5])):
            self.assertAlmostEqual(mine, want, delta=0.012)

    def test_macro_averages_of_some_of_the_classes(self):
        table = self.folder / "p.csv"
        for name in ("a", "b"):
            (self.folder / "few" / name).mkdir(parents=True)
            for i in range(2):
                shutil.copy(BASE / "data" / "test" / name / f"{i}.png", self.folder / "few" / name)
        got = self.succeed_json("evaluate", BASE / "run", self.folder / "few", "--json", "--predictions", table)
        rows = t.read_csv(table)
        self.assertLess(len({r[key] for r in rows for key in ("label", "predicted")}), len(got["classes"]))
        want = sk.precision_recall_fscore_support([r["label"] for r in rows], [r["predicted"] for r in rows],
                                                  average="macro", zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), want):
            self.assertAlmostEqual(got["macro"][name], value, delta=1e-9)

    def test_tensorboard_reads_the_run(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        events = EventAccumulator(str(BASE / "run"))
        events.Reload()
        tags = events.Tags()
        self.assertEqual(set(tags["scalars"]),
                         {"loss/train", "loss/validation", "accuracy/train", "accuracy/validation",
                          "learning_rate"})
        history = t.read_csv(BASE / "run" / "history.csv")
        for tag, column in (("loss/train", "loss"), ("accuracy/validation", "val_accuracy"),
                            ("learning_rate", "learning_rate")):
            scalars = events.Scalars(tag)
            self.assertEqual([s.step for s in scalars], [int(r["epoch"]) for r in history])
            np.testing.assert_allclose([s.value for s in scalars], [float(r[column]) for r in history],
                                       rtol=1e-4, atol=1e-6)
        (image,) = events.Images("confusion_matrix/test")
        image = Image.open(io.BytesIO(image.encoded_image_string))
        self.assertEqual(image.size, (image.width, image.height))
        confusion = np.array(json.loads((BASE / "run" / "metrics.json").read_text())["test"]["confusion"])
        cell = image.width // len(confusion)
        middle = np.asarray(image)[cell // 2::cell, cell // 2::cell, 0].astype(int)
        shares = confusion / confusion.sum(1, keepdims=True)
        np.testing.assert_allclose(middle, 8 + (1 - shares) * 240, atol=1.5)


if __name__ == "__main__":
    t.main()
