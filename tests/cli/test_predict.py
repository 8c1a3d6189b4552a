"""graft predict and evaluate on a model that this test trains on drawn images."""
import csv
import io
import json
import math
import time
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

import graft_testing as t
import numpy as np
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
        self.images = sorted((BASE / "data" / "test").rglob("*.jpg"))

    def test_formats_agree(self):
        some = self.images[5:8]
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

    def test_logits(self):
        """In all formats; their softmax is what the probabilities are."""
        some = self.images[5:8]
        document = self.succeed_json("predict", self.model, *some, "--json", "--logits", "--top", 6)
        plain = self.succeed_json("predict", self.model, *some, "--json")
        self.assertNotIn("classes", plain)
        self.assertNotIn("logits", plain["predictions"][0])
        rows = list(csv.reader(io.StringIO(self.succeed("predict", self.model, *some, "--format", "csv", "--logits",
                                                        "--top", 2).stdout)))
        self.assertEqual(rows[0], ["path", "label", "probability", "logit", "label_2", "probability_2", "logit_2"])
        text = self.succeed("predict", self.model, *some, "--logits").stdout.splitlines()
        for p, row, line in zip(document["predictions"], rows[1:], text):
            of_class = dict(zip(document["classes"], p["logits"]))
            total = sum(math.exp(v) for v in p["logits"])
            for top in p["top"]:
                self.assertAlmostEqual(math.exp(of_class[top["label"]]) / total, top["probability"], places=5)
            self.assertAlmostEqual(float(row[3]), of_class[p["label"]], places=4)
            self.assertAlmostEqual(float(row[6]), of_class[row[4]], places=4)
            self.assertTrue(line.endswith(f"(logit {of_class[p['label']]:.4f})"), line)
        explained = self.succeed_json("predict", self.model, some[0], "--json", "--logits", "--explain",
                                      self.folder / "maps")
        self.assertEqual(explained["classes"], document["classes"])

    def test_top_beyond_the_classes(self):
        p = self.succeed_json("predict", self.model, self.images[0], "--json", "--top", 99)
        top = p["predictions"][0]["top"]
        self.assertEqual(len(top), 6)
        self.assertAlmostEqual(sum(k["probability"] for k in top), 1, places=5)

    def test_order_given_and_folders_walked(self):
        folder = BASE / "data" / "test" / "sea"
        document = self.succeed_json("predict", self.model, self.images[7], folder, self.images[0],
                                     "--json")
        self.assertEqual([p["path"] for p in document["predictions"]],
                         [str(p) for p in (self.images[7], *sorted(folder.iterdir()),
                                           self.images[0])])

    def test_list_on_stdin(self):
        stdin = f"{self.images[1]}\r\n\n{self.images[0]}\n"
        document = self.succeed_json("predict", self.model, "-", "--json", stdin=stdin)
        self.assertEqual([p["path"] for p in document["predictions"]],
                         [str(self.images[1]), str(self.images[0])])

    def test_one_bad_among_many(self):
        bad = self.folder / "bad.jpg"
        bad.write_text("hello")
        missing = self.folder / "missing.png"
        done = self.fail_with(1, "bad.jpg: not an image that Graft reads", "predict", self.model,
                              self.images[0], bad, missing, self.images[1])
        self.assertIn("missing.png: no such file", done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 2)

    def test_a_huge_file_holds_up_no_other(self):
        huge = self.folder / "huge.jpg"
        with open(huge, "wb") as file:
            file.truncate(50 << 30)
        done = self.fail_with(1, "huge.jpg: too large", "predict", self.model, huge, self.images[0])
        self.assertEqual(len(done.stdout.splitlines()), 1)
        data = self.folder / "photos"
        for kind in ("a", "b"):
            (data / kind).mkdir(parents=True)
            shutil.copy(self.images[0], data / kind)
        os.link(huge, data / "a" / "huge.jpg")
        corrupt = self.succeed_json("check", data, "--json")["corrupt"]
        self.assertIn("too large", corrupt[0]["why"])
        manifest = self.folder / "huge.csv"
        os.link(huge, manifest)
        self.fail_with(1, "huge.csv: too large", "check", manifest)

    def test_a_list_that_never_ends_heeds_signals(self):
        for text in (b"", b"\0" * 1000):
            process = subprocess.Popen([t.GRAFT, "predict", self.model, "-"], stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            process.stdin.write(text)
            process.stdin.flush()
            time.sleep(0.7)
            process.terminate()
            self.assertEqual(process.wait(10), 143)
            process.stdin.close()
            process.stderr.close()
        self.fail_with(1, "a line of over", "predict", self.model, "-", stdin="x" * 200_000)

    def test_maps_that_do_not_fit_are_refused_first(self):
        done = self.fail_with(1, "of memory for an image of 16384x16384", "predict",
                              self.large_input_model(16384, 64), self.images[0], "--explain",
                              self.folder / "why")
        self.assertEqual(done.stdout, "")

    def test_formats_that_are_not_read_are_named(self):
        folder = self.folder / "mixed"
        folder.mkdir()
        shutil.copy(self.images[0], folder)
        (folder / "a.cr2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
        done = self.succeed("predict", self.model, folder)
        self.assertIn("1 file of kinds that are not read (1 .cr2)", done.stderr)

    def test_results_do_not_replace_what_they_are_made_from(self):
        run = self.folder / "copy"
        shutil.copytree(self.model, run)
        before = (run / "model.safetensors").read_bytes()
        self.fail_with(2, "would be replaced", "weights", "convert", run, "-o", run / "model.safetensors")
        self.assertEqual((run / "model.safetensors").read_bytes(), before)
        manifest = self.folder / "m.csv"
        manifest.write_text(f"path,label\n{self.images[0]},{self.images[0].parent.name}\n")
        text = manifest.read_text()
        self.fail_with(2, "would be replaced", "evaluate", run, manifest, "--predictions", manifest)
        self.assertEqual(manifest.read_text(), text)

    def test_explained_or_not_the_answer_is_one(self):
        plain = self.succeed_json("predict", self.model, *self.images[:3], "--json", "--top", 9)
        why = self.succeed_json("predict", self.model, *self.images[:3], "--json", "--top", 9, "--explain",
                                self.folder / "why")
        self.assertEqual(why, plain)
        one = self.succeed_json("predict", self.model, self.images[1], "--json", "--top", 9)
        self.assertEqual(one["predictions"][0], plain["predictions"][1])

    def large_input_model(self, size, channels=4):
        """One convolution, averaged, and two classes: a few KB of weights."""
        random = np.random.default_rng(0)
        tensors = {"conv.weight": random.normal(size=(channels, 3, 3, 3)), "conv.bias": np.zeros(channels),
                   "out.weight": random.normal(size=(2, channels)), "out.bias": np.zeros(2)}
        layers = [{"kind": "input", "name": "input"},
                  {"kind": "conv", "name": "conv", "outputs": channels, "relu": True},
                  {"kind": "gap", "name": "gap", "head": True},
                  {"kind": "dense", "name": "out", "outputs": 2, "head": True}]
        _, metadata = t.read_safetensors(self.model / "model.safetensors")
        metadata.pop("file_xxh3", None)
        network = dict(json.loads(metadata["network"]), input_size=[size, size], layers=layers)
        metadata.update(graft_format="1", network=json.dumps(network), classes=json.dumps(["a", "b"]))
        header, data = {"__metadata__": metadata}, b""
        for name, value in tensors.items():
            raw = value.astype("<f4").tobytes()
            header[name] = {"dtype": "F32", "shape": list(value.shape),
                            "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = self.folder / f"{size}.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        return path

    def test_memory_is_for_the_images_at_hand(self):
        model = self.large_input_model(2048)
        for count in (1, 2):
            process = subprocess.Popen([t.GRAFT, "predict", model, *self.images[:count]],
                                       stdout=subprocess.PIPE)
            lines = process.stdout.read().splitlines()
            process.stdout.close()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual((process.returncode, len(lines)), (0, count))
            # 48 MB of input and 128 of activations an image, 256 in blocks of 16 channels; a batch of 16
            # would take 3 GB and more.
            self.assertLess(usage.ru_maxrss / 1024, 200 + 450 * count)

    def test_what_does_not_fit_is_refused_first(self):
        # 69 GB of maps, as much in rows, and the input.
        with open("/proc/meminfo") as file:
            available = dict(line.split(":") for line in file)["MemAvailable"]
        if int(available.split()[0]) > 100_000_000:
            self.skipTest("this machine has the memory")
        done = self.fail_with(1, "of memory for an image of 16384x16384", "predict",
                              self.large_input_model(16384, 64), self.images[0])
        self.assertEqual(done.stdout, "")

    def test_every_overlay_has_a_file(self):
        images = self.folder / "images"
        (images / "b").mkdir(parents=True)
        long = "x" * 246
        names = ["a.jpg", "b/a.jpg", "a-2.jpg", "a.png", f"{long}.jpg", f"b/{long}.jpg"]
        for i, name in enumerate(names):
            Image.new("RGB", (30 + i, 20), (40 * i, 90, 30)).save(images / name)
        out = self.folder / "why"
        paths = [images / name for name in names]
        self.succeed("predict", self.model, *paths, "--explain", out)
        made = {}
        for path in out.glob("*.png"):
            with Image.open(path) as overlay:
                # The colour in the middle of the left half tells which image it is of.
                red = overlay.convert("RGB").getpixel((overlay.width // 4, 40))[0]
                made[path.name] = round(red / 40)
        self.assertEqual({made[name] for name in ("a.png", "a-2.png", "a-3.png", "a-4.png")}, {0, 1, 2, 3})
        self.assertEqual(made["a.png"], 0)
        self.assertEqual(made["a-2.png"], 2)
        self.assertEqual(sorted(made.values()), [0, 1, 2, 3, 4, 5])
        rows = t.read_csv(out / "index.csv")
        self.assertEqual([row["path"] for row in rows], [str(path) for path in paths])
        self.assertEqual([made[row["overlay"]] for row in rows], [0, 1, 2, 3, 4, 5])
        again = self.folder / "again"
        self.succeed("predict", self.model, *paths, "--explain", again)
        for path in out.iterdir():
            self.assertEqual(path.read_bytes(), (again / path.name).read_bytes())

    def test_nothing_read_replaces_nothing(self):
        table = self.folder / "t.csv"
        table.write_text("kept\n")
        done = self.fail_with(1, "nothing is written to", "predict", self.model, "/none/1.jpg", "-o", table)
        self.assertNotIn("wrote", done.stderr)
        self.assertEqual(table.read_text(), "kept\n")

    def test_locked_folders_are_not_missing(self):
        if os.geteuid() != 0:
            self.skipTest("only root can become another user")
        closed = self.folder / "closed"
        shutil.copytree(self.images[0].parent, closed / "photos")
        shutil.copy(self.model if self.model.is_file() else self.model / "model.safetensors", closed)
        self.folder.chmod(0o755)
        closed.chmod(0o700)

        def enter():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        for arguments in (("predict", closed / "model.safetensors", self.images[0]), ("summary", closed / "run"),
                          ("predict", self.model, closed / "photos"), ("train", closed / "photos", "--resume", closed),
                          ("train", closed / "photos", "--from", closed)):
            done = subprocess.run([t.GRAFT, *map(str, arguments)], capture_output=True, text=True, preexec_fn=enter)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("Permission denied", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_many_that_are_missing(self):
        missing = [f"/none/{i}.jpg" for i in range(300)]
        done = t.run("predict", self.model, self.images[0], *missing)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 21, done.stderr)
        self.assertIn("280 more could not be classified, 300 in all", lines[-1])
        done = t.run("predict", self.model, self.images[0], *missing, "--json")
        self.assertEqual(len(json.loads(done.stdout)["errors"]), 300)

    def test_overlays_never_replace_the_images(self):
        folder = self.folder / "photos"
        folder.mkdir()
        for name in ("a.png", "b.png"):
            Image.new("RGB", (40, 40), (9, 99, 200)).save(folder / name)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        self.fail_with(2, "is one of the images", "predict", self.model, folder, "--explain", folder)
        self.assertEqual({path: path.read_bytes() for path in folder.iterdir()}, before)

    def test_overlays_among_the_images_are_not_read_as_images(self):
        folder = self.folder / "photos" / "cat"
        folder.mkdir(parents=True)
        for name in ("a.jpg", "b.png"):
            Image.new("RGB", (40, 40), (9, 99, 200)).save(folder / name)
        (folder.parent / "dog").mkdir()
        shutil.copy(folder / "a.jpg", folder.parent / "dog")
        for maps in (folder / "why", folder.parent):
            self.succeed("predict", self.model, folder, "--explain", maps)
            for again in range(2):
                done = self.succeed("predict", self.model, folder.parent, "--json")
                self.assertEqual(len(json.loads(done.stdout)["predictions"]), 3, done.stdout)
                self.assertIn("maps that 'graft predict --explain' drew; left out", done.stderr)
                self.succeed("predict", self.model, folder, "--explain", maps)
            read = self.succeed_json("check", folder.parent, "--json")
            self.assertEqual(read["classes"], {"cat": 2, "dog": 1})
            self.assertIn("maps that 'graft predict --explain' drew; left out", json.dumps(read))

    def test_results_never_replace_files_of_another_kind(self):
        model = self.folder / "model.safetensors"
        shutil.copy(self.model if self.model.is_file() else self.model / "model.safetensors", model)
        before = model.read_bytes()
        for option in ("--predictions", "--report"):
            self.fail_with(2, "must end in", "evaluate", model, BASE / "data", option, model)
        self.assertEqual(model.read_bytes(), before)

    def test_an_overlay_that_cannot_be_written(self):
        out = self.folder / "why"
        some = self.images[:3]
        paths = [shutil.copy(path, self.folder / f"{i}{path.stem}.jpg") for i, path in enumerate(some)]
        (out / f"1{some[1].stem}.png").mkdir(parents=True)
        done = self.fail_with(1, f"1{some[1].stem}.png", "predict", self.model, *paths, "--explain", out)
        self.assertEqual(len(done.stdout.splitlines()), 3)
        self.assertEqual(len([path for path in out.glob("*.png") if path.is_file()]), 2)
        self.assertEqual(len(t.read_csv(out / "index.csv")), 2)

    def test_a_reader_that_has_seen_enough(self):
        many = " ".join(str(path) for path in self.images * 60)
        for words in ("", "--format csv", "--json"):
            done = subprocess.run(
                ["bash", "-c", f"{t.GRAFT} predict {self.model} {many} {words} --quiet | head -1"],
                capture_output=True, text=True)
            self.assertEqual(len(done.stdout.splitlines()), 1)
            self.assertEqual(done.stderr, "")

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
        one = self.succeed("predict", self.model / "model.safetensors", *self.images, "--threads", 1)
        many = self.succeed("predict", self.model, *self.images, "--threads", 5)
        self.assertEqual(one.stdout, many.stdout)

    def test_bad_models(self):
        image = self.images[0]
        self.fail_with(1, "no such model", "predict", self.folder / "none", image)
        self.fail_with(1, "no model.safetensors", "predict", self.folder, image)
        good = (self.model / "model.safetensors").read_bytes()
        bad = self.folder / "m.safetensors"
        for data in (b"", b"x" * 100, good[:50], good[:len(good) // 2], good[:-1], good + b"x"):
            bad.write_bytes(data)
            self.fail_with(1, str(bad), "predict", bad, image)
        t.write_safetensors(bad, {})
        self.fail_with(1, "not a model written by graft", "predict", bad, image)
        self.fail_with(2, "PATH", "predict", self.model)
        self.fail_with(2, "--format", "predict", self.model, image, "--format", "xml")

    def test_libtorch_is_not_loaded_and_libraries_are_few(self):
        done = subprocess.run([t.GRAFT, "predict", str(self.model), str(self.images[0])],
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
        # Against predict, image by image.
        predicted = self.succeed_json("predict", self.model, BASE / "data" / "test", "--json")
        right = sum(pathlib.Path(p["path"]).parent.name == p["label"]
                    for p in predicted["predictions"])
        self.assertAlmostEqual(document["top1"], right / 18)

    def test_views(self):
        """A model that looks at mirror images too says so itself, and may be told otherwise."""
        run = self.folder / "both"
        self.succeed("train", BASE / "data", "-o", run, "--backbone", "vgg-mini", "--epochs", 2,
                     "--input-size", 64, "--test-views", 2)
        metrics = json.loads((run / "metrics.json").read_text())
        for views, same in ((None, True), (2, True), (1, False)):
            asked = [] if views is None else ["--views", views]
            got = self.succeed_json("evaluate", run, BASE / "data", "--json", *asked)
            close = abs(got["loss"] - metrics["test"]["loss"]) < 1e-3 * metrics["test"]["loss"]
            self.assertEqual(close, same, (views, got["loss"], metrics["test"]["loss"]))
            predicted = self.succeed_json("predict", run, *self.images[:4], "--json", *asked)
            explained = self.succeed_json("predict", run, *self.images[:4], "--json", *asked, "--force",
                                          "--explain", self.folder / "why")
            self.assertEqual(predicted, explained)
        self.fail_with(2, "--views", "predict", run, self.images[0], "--views", 3)
        self.fail_with(2, "--test-views", "train", BASE / "data", "--test-views", 0)

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
        self.assertEqual({row["label"] for row in rows}, {p.parent.name for p in self.images})

    def test_evaluate_split(self):
        self.fail_with(1, "has no val split", "evaluate", self.model, BASE / "data", "--split", "val")
        document = self.succeed_json("evaluate", self.model, self.model / "split.csv", "--split", "val",
                                     "--json")
        self.assertEqual(document["images"],
                         sum(row["split"] == "val" for row in t.read_csv(self.model / "split.csv")))

    def test_summary_of_a_model(self):
        document = self.succeed_json("summary", self.model, "--json")
        self.assertEqual(document["layers"][-1]["output_shape"], [6])
        self.assertEqual(document["layers"][0]["output_shape"], [3, 64, 64])
        self.assertGreater(document["trainable"], 0)
        self.fail_with(2, "contradicts a MODEL", "summary", self.model, "--backbone", "vgg16")


if __name__ == "__main__":
    t.main()
