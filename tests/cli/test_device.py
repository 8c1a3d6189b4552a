"""--device: what LibTorch computes is what the engine computes, nothing of it is loaded for the processor, and a
device that is not there is said to be missing. Runs the code for GPUs with the processor as its device."""
import os
import pathlib
import re
import shutil
import tempfile

import graft_testing as t
import numpy as np

NETWORK = ("--backbone", "vgg-mini", "--input-size", "48", "--fine-tune", "0")
DEVICE = ("--device", "torch-cpu")
BASE = None


def setUpModule():
    global BASE
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-device-"))
    t.draw_scenes(BASE / "data" / "train", 8)
    t.draw_scenes(BASE / "data" / "test", 3, first_seed=500)
    if t.HAS_TRAINING:
        done = train(BASE / "run", "--device", "cpu")
        assert done.returncode == 0, done.stderr


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


def train(run, *options, epochs=3, cache=None):
    return t.run("train", BASE / "data", *NETWORK, "--epochs", epochs, "--cache-dir", cache or BASE / "cache", "-o",
                 run, *options)


def record(run):
    _, metadata = t.read_safetensors(run / "model.safetensors")
    return t.json.loads(metadata["training"])


class Words(t.TestCase):
    def test_words(self):
        for command in (("train", "x"), ("features", "x", "-o", "y.npy"), ("predict", "x", "y"),
                        ("evaluate", "x", "y")):
            for word in ("gpu", "cuda:", "cuda:01", "cuda:1000", "CUDA:0"):
                done = self.fail_with(2, f"--device: '{word}' is none of auto, cpu, cuda, cuda:N", *command,
                                      "--device", word)
                self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("did you mean cuda?", t.run("train", "x", "--device", "cude").stderr)

    def test_maps_are_the_processors(self):
        for device in ("torch-cpu", "cuda", "auto"):
            self.fail_with(2, f"--explain computes on the processor; leave out --device {device}", "predict", "x", "y",
                           "--explain", self.folder / "maps", "--device", device)

    def test_nothing_is_loaded_for_the_processor(self):
        image = next((BASE / "data" / "test").rglob("*.jpg"))
        for options in ((), ("--device", "cpu")):
            for arguments in (("features", image, "-o", self.folder / "x.npy", "--backbone", "vgg-mini"),
                              ("predict", BASE / "run", image)):
                if arguments[0] == "predict" and not t.HAS_TRAINING:
                    continue
                self.succeed(*arguments, *options,
                             env={"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(self.folder / "loaded")})
        loaded = "".join(file.read_text() for file in self.folder.glob("loaded*"))
        self.assertIn("libjpeg", loaded)
        self.assertNotIn("libtorch", loaded)

    def test_without_the_training_program(self):
        """As built or installed without LibTorch: said in a line, and auto is the processor."""
        alone = self.folder / "bin" / "graft"
        alone.parent.mkdir()
        shutil.copy(t.GRAFT, alone)
        helpers = self.folder / "libexec" / "graft"
        helpers.mkdir(parents=True)
        for name in ("graft-read-h5", "graft-read-image"):
            os.symlink(t.BUILD / "libexec" / "graft" / name, helpers / name)
        image = next((BASE / "data" / "test").rglob("*.jpg"))

        def features(device):
            return t.subprocess.run([alone, "features", image, "-o", self.folder / "x.npy", "--backbone", "vgg-mini",
                                     "--device", device], capture_output=True, text=True)

        done = features("cuda")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, "^graft: .*graft-train: cannot start the training program: .*with LibTorch\n$")
        self.assertFalse((self.folder / "x.npy").exists())
        self.assertEqual(features("auto").returncode, 0)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class OnDevice(t.TestCase):
    def test_a_device_that_is_not_there(self):
        image = next((BASE / "data" / "test").rglob("*.jpg"))
        out = self.folder / "made.npy"
        commands = (("features", image, "-o", out, "--backbone", "vgg-mini"), ("predict", BASE / "run", image),
                    ("evaluate", BASE / "run", BASE / "data"),
                    ("train", BASE / "data", *NETWORK, "-o", self.folder / "run", "--epochs", "1"))
        for command in commands:
            # No machine has so many.
            done = self.fail_with(1, "--device cuda:127", *command, "--device", "cuda:127")
            last = [line for line in done.stderr.splitlines() if line.startswith("graft: ")]
            self.assertRegex(last[-1], "has no CUDA, or this machine no GPU|LibTorch sees")
            if command[0] != "train":
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertEqual(done.stdout, "")
        self.assertEqual(list(self.folder.iterdir()), [])

    def features(self, name, *options):
        out = self.folder / f"{name}.npy"
        document = self.succeed_json("features", BASE / "data" / "test", "-o", out, "--backbone", "vgg-mini",
                                     "--input-size", "51x45", "--json", *options)
        return np.load(out), (out.with_suffix(".csv")).read_text(), document

    def test_features(self):
        for options in ((), ("--pool", "gap"), ("--until", "block2_conv1", "--pool", "flatten")):
            exact, rows, _ = self.features("cpu", *options)
            device, same_rows, _ = self.features("device", *options, *DEVICE)
            self.assertEqual(rows, same_rows)
            self.assertEqual(exact.shape, device.shape)
            self.assertLess(abs(device - exact).max() / abs(exact).max(), 1e-4)
            self.assertTrue((device != exact).any(), "computed by the engine")
            rounded, _, document = self.features("rounded", *options, *DEVICE, "--precision", "bf16")
            self.assertEqual(document["precision"], "bf16")
            self.assertLess(abs(rounded - exact).max() / abs(exact).max(), 2e-2)
            self.assertGreater(abs(rounded - exact).max() / abs(exact).max(), 1e-4)
        # By itself the test device takes float32.
        self.assertEqual(self.features("auto", *DEVICE, "--precision", "auto")[2]["precision"], "fp32")

    def test_features_in_shards(self):
        whole, rows, _ = self.features("whole", *DEVICE)
        parts = self.folder / "parts"
        for shard in ("0/2", "1/2"):
            self.succeed("features", BASE / "data" / "test", "-o", parts, "--backbone", "vgg-mini", "--input-size",
                         "51x45", "--shard", shard, *DEVICE)
        out = self.folder / "merged.npy"
        self.succeed("features", "--merge", parts, "-o", out)
        self.assertEqual(np.load(out).tobytes(), whole.tobytes())
        self.assertEqual(out.with_suffix(".csv").read_text(), rows)
        # What the engine computes is no part of them.
        self.fail_with(2, "--force", "features", BASE / "data" / "test", "-o", parts, "--backbone", "vgg-mini",
                       "--input-size", "51x45", "--shard", "0/2")

    def test_predict(self):
        images = BASE / "data" / "test"

        def predict(*options):
            done = self.succeed_json("predict", BASE / "run", images, "--json", "--logits", "--probabilities", *options)
            return done["precision"], [p["path"] for p in done["predictions"]], done

        def logits(document):
            return np.array([p["logits"] for p in document["predictions"]])

        _, paths, exact = predict("--top", "6")
        precision, same_paths, device = predict("--top", "6", *DEVICE)
        self.assertEqual((precision, same_paths), ("fp32", paths))
        self.assertLess(abs(logits(device) - logits(exact)).max(), 1e-3)
        precision, _, rounded = predict("--top", "6", *DEVICE, "--precision", "bf16")
        self.assertEqual(precision, "bf16")
        scale = max(1, abs(logits(exact)).max())
        self.assertLess(abs(logits(rounded) - logits(exact)).max() / scale, 2e-2)
        # One image gives what it gives among others.
        alone = self.succeed_json("predict", BASE / "run", paths[0], "--json", "--logits", "--top", "6", *DEVICE)
        self.assertEqual(logits(alone).tolist(), logits(device)[:1].tolist())
        mirrored = [logits(predict("--top", "6", "--views", "2", *options)[2]) for options in ((), DEVICE)]
        self.assertLess(abs(mirrored[0] - mirrored[1]).max(), 1e-3)

    def test_predict_says_what_it_cannot_read(self):
        (self.folder / "damaged.jpg").write_text("no image")
        image = next((BASE / "data" / "test").rglob("*.jpg"))
        done = self.fail_with(1, "damaged.jpg", "predict", BASE / "run", image, self.folder / "damaged.jpg", image,
                              *DEVICE)
        self.assertEqual(len(done.stdout.splitlines()), 2)

    def test_evaluate(self):
        exact = self.succeed_json("evaluate", BASE / "run", BASE / "data", "--json")
        report = self.folder / "page.html"
        device = self.succeed_json("evaluate", BASE / "run", BASE / "data", "--json", "--report", report, *DEVICE)
        self.assertAlmostEqual(exact["loss"], device["loss"], delta=1e-3)
        self.assertEqual(exact["images"], device["images"])
        self.assertIn("--device torch-cpu --report", report.read_text())

    def test_verbose_names_the_device(self):
        image = next((BASE / "data" / "test").rglob("*.jpg"))
        done = self.succeed("predict", BASE / "run", image, "--verbose", *DEVICE)
        self.assertRegex(done.stderr, r"LibTorch \S+, \d+ threads, .*, device torch-cpu\n")

    def test_auto_is_the_processor_where_there_is_no_gpu(self):
        image = next((BASE / "data" / "test").rglob("*.jpg"))
        done = self.succeed("predict", BASE / "run", image, "--verbose", "--device", "auto", "--logits", "--json",
                            env={"CUDA_VISIBLE_DEVICES": ""})
        self.assertIn("device cpu\n", done.stderr)
        plain = self.succeed("predict", BASE / "run", image, "--logits", "--json")
        self.assertEqual(plain.stdout, done.stdout)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Runs(t.TestCase):
    def test_frozen_layers_by_libtorch(self):
        """The same run but for rounding, its features a set of their own, found again by the next."""
        run = self.folder / "run"
        cache = self.folder / "cache"
        done = train(run, *DEVICE, cache=cache)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(record(run)["device"], "torch-cpu")
        self.assertIn("device = 'torch-cpu'\n", (run / "config.toml").read_text())
        here, there = ([row["loss"] for row in t.read_csv(folder / "history.csv")] for folder in (BASE / "run", run))
        self.assertNotEqual(here, there)
        for a, b in zip(here, there):
            self.assertAlmostEqual(float(a), float(b), delta=2e-3)
        weights = [t.read_safetensors(folder / "model.safetensors")[0] for folder in (BASE / "run", run)]
        for name, value in weights[0].items():
            self.assertLess(abs(value - weights[1][name]).max(), 1e-2, name)

        again = train(self.folder / "again", *DEVICE, "--verbose", cache=cache)
        self.assertRegex(again.stderr,
                         r"features, train: \d+ from the cache, 0 continued from an earlier layer, 0 computed")
        self.assertEqual(*((folder / "model.safetensors").read_bytes() for folder in (run, self.folder / "again")))

        def sets():
            return len(self.succeed_json("cache", "list", "--json", "--cache-dir", cache)["sets"])

        self.assertEqual(sets(), 1)
        engine = self.folder / "engine"
        self.assertEqual(train(engine, "--device", "cpu", cache=cache).returncode, 0)
        self.assertEqual(sets(), 2)
        self.assertEqual(*((folder / "model.safetensors").read_bytes() for folder in (BASE / "run", engine)))

    def test_views_fine_tuning_and_bf16(self):
        """Views that are new in every epoch; two phases, of which the second's prefix goes on from the first's."""
        for name, options in (("views", ("--augment", "hflip", "--views", "0")),
                              ("bf16", ("--precision", "bf16", "--head", "stats dense:8")),
                              ("tuned", ("--freeze-epochs", "1", "--fine-tune", "block5_conv1", "--no-cache"))):
            arguments = [word for word in NETWORK if options[:1] != ("--freeze-epochs",) or word not in
                         ("--fine-tune", "0")]
            done = t.run("train", BASE / "data", *arguments, "--epochs", "2", "-o", self.folder / name, "--quiet",
                         "--no-report", *options, *DEVICE, "--cache-dir", self.folder / "cache")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(record(self.folder / name)["precision"], "bf16" if name == "bf16" else "fp32")
            self.assertTrue((self.folder / name / "metrics.json").exists())

    def test_resume_may_change_it(self):
        run = self.folder / "run"
        self.assertEqual(train(run, *DEVICE, "--no-report", "--schedule", "constant").returncode, 0)
        self.succeed("train", BASE / "data", "--resume", run, "--epochs", "4", "--device", "cpu", "--quiet")
        self.assertEqual(len(t.read_csv(run / "history.csv")), 4)

    def test_dry_run_tells_no_time_of_a_device(self):
        done = self.succeed("train", BASE / "data", *NETWORK, "--dry-run", *DEVICE, "--precision", "bf16")
        self.assertRegex(done.stdout, r"prefix .*; in bfloat16\n")
        self.assertRegex(done.stdout, r"time +not told for torch-cpu")

    def test_a_group_without_gpus_says_so(self):
        done = self.fail_with(1, "--device cuda:127", "train", BASE / "data", *NETWORK, "--epochs", "1", "-o",
                              self.folder / "run", "--workers", "2", "--device", "cuda:127")
        self.assertFalse(re.search("rank 1.*rank 1", done.stderr, re.S))


@t.unittest.skipUnless(t.HAS_TRAINING and t.SCENES.exists(), "built without LibTorch, or no photos")
class RealWeights(t.TestCase):
    def test_features_of_photos(self):
        images = sorted(t.SCENES.rglob("*.jpg"))[:16]
        # Small for bfloat16, which LibTorch computes a hundred times slower on most processors.
        for backbone, weights, layer, size, precision, tolerance in (
                ("vgg16", "vgg16_imagenet_notop.h5", "block5_pool", "97", "fp32", 1e-3),
                ("vgg19", t.REAL_WEIGHTS.name, "block3_pool", "90x61", "fp32", 1e-3),
                ("vgg16", "vgg16_imagenet_notop.h5", "block3_pool", "40", "bf16", 2e-2)):
            got = {}
            for name, options in (("cpu", ()), ("device", (*DEVICE, "--precision", precision))):
                out = self.folder / f"{name}.npy"
                self.succeed("features", *images, "--backbone", backbone, "--weights", t.SHARED / "weights" / weights,
                             "--until", layer, "--input-size", size, "-o", out, *options)
                got[name] = np.load(out)
            error = abs(got["device"] - got["cpu"]).max() / abs(got["cpu"]).max()
            print(f"{backbone} to {layer}, {precision}: {error:.1e} of the largest value")
            self.assertLess(error, tolerance)


if __name__ == "__main__":
    t.main()
