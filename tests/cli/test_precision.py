"""--precision: what is computed in bfloat16 says so, is near float32, and is refused where it cannot be had.

Runs with the processor's own bf16 where it has one, else with the emulation; it says which."""
import os
import pathlib
import shutil
import tempfile

import graft_testing as t
import numpy as np

BENCH = ("bench", "--precision", "bf16", "--backbone", "vgg-mini", "--size", "32", "--batch", "1",
         "--repeats", "1", "--json")
NETWORK = ("--backbone", "vgg-mini", "--input-size", "48", "--fine-tune", "0")
BASE = None
BF16 = {}       # environment in which there is bf16
REFUSING = {}   # environment in which there is none


def setUpModule():
    global BASE, BF16, REFUSING
    if t.run(*BENCH).returncode == 0:
        REFUSING = {"GRAFT_TARGET": "avx2"}
    else:
        BF16 = {"GRAFT_TARGET": "emulated-amx"}
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-precision-"))
    t.draw_scenes(BASE / "data" / "train", 8)
    t.draw_scenes(BASE / "data" / "test", 3, first_seed=500)
    if t.HAS_TRAINING:
        done = train(BASE / "rounded", "--precision", "bf16", env=BF16)
        assert done.returncode == 0, done.stderr


def tearDownModule():
    shutil.rmtree(BASE, ignore_errors=True)


def train(run, *options, epochs=3, env=None):
    return t.run("train", BASE / "data", *NETWORK, "--epochs", epochs, "--cache-dir", BASE / "cache",
                 "-o", run, "--quiet", *options, env=env)


def record(run):
    _, metadata = t.read_safetensors(run / "model.safetensors")
    return t.json.loads(metadata["training"])


class Precision(t.TestCase):
    def test_bench_names_target_and_precision(self):
        document = self.succeed_json(*BENCH, env=BF16)
        self.assertEqual(document["precision"], "bf16")
        self.assertIn(document["target"], ("amx", "avx512_bf16", "emulated-amx"))
        print("bf16 by", document["target"])
        self.assertTrue(any(document["target"] == layer["instructions"] for layer in document["networks"][0]["layers"]))
        text = self.succeed(*BENCH[:-1], env=BF16).stdout
        self.assertIn(f"target {document['target']}, ", text)
        document = self.succeed_json(*BENCH[:1], *BENCH[3:], env=BF16)
        self.assertEqual(document["precision"], "fp32")
        self.assertIn(document["target"], (document["instruction_set"], "amx-fp16"))

    def test_an_unknown_target_is_said_to_be_one(self):
        self.assertRegex(t.run(*BENCH, env={**BF16, "GRAFT_TARGET": "nonsense"}).stderr,
                         "^graft: GRAFT_TARGET: 'nonsense' is not an instruction set")

    def test_features(self):
        got = {}
        for precision in ("fp32", "bf16"):
            out = self.folder / f"{precision}.npy"
            arguments = ("features", BASE / "data" / "test", "-o", out, "--backbone", "vgg-mini", "--input-size",
                         "48", "--precision", precision)
            self.assertEqual(self.succeed_json(*arguments, "--json", env=BF16)["precision"], precision)
            self.assertEqual("bfloat16" in self.succeed(*arguments, env=BF16).stdout, precision == "bf16")
            got[precision] = np.load(out)
        self.assertFalse((got["bf16"].view("u4") & 0xffff).any(), "more than 8 bits of significand")
        error = abs(got["bf16"] - got["fp32"]).max() / abs(got["fp32"]).max()
        self.assertGreater(error, 0)
        self.assertLess(error, 0.02)

    def refuse(self, *arguments):
        done = self.fail_with(2, "--precision bf16 needs a processor with AMX or AVX512_BF16", *arguments,
                              "--precision", "bf16", env=REFUSING)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_is_refused_before_anything_is_done(self):
        out = self.folder / "made"
        none = self.folder / "no such file"
        for arguments in (("features", BASE / "data", "-o", out.with_suffix(".npy"), "--backbone", "vgg-mini"),
                          ("predict", none, none), ("predict", none, none, "--explain", out),
                          ("evaluate", none, none), ("bench", "--size", "4096", "--repeats", "1000"),
                          ("train", none, "-o", out, *NETWORK), ("train", none, "-o", out, *NETWORK, "--dry-run"),
                          ("train", none, "-o", out, *NETWORK, "--find-lr")):
            if arguments[0] != "train" or t.HAS_TRAINING:
                self.refuse(*arguments)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_words(self):
        for command in (("train", "x"), ("features", "x", "-o", "y.npy"), ("predict", "x", "y"), ("evaluate", "x", "y"),
                        ("bench",)):
            done = self.fail_with(2, "--precision: 'fp16' is none of fp32, bf16, auto", *command, "--precision", "fp16")
            self.assertEqual(len(done.stderr.splitlines()), 1)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Runs(t.TestCase):
    def test_a_run_says_what_it_was_computed_with(self):
        run = BASE / "rounded"
        self.assertEqual(record(run)["precision"], "bf16")
        self.assertIn("precision = 'bf16'\n", (run / "config.toml").read_text())
        self.assertEqual(t.json.loads((run / "metrics.json").read_text())["precision"], "bf16")
        self.assertIn("Computed with", (run / "report.html").read_text())
        done = self.succeed("train", BASE / "data", *NETWORK, "--precision", "bf16", "--dry-run", env=BF16)
        self.assertRegex(done.stdout, r"prefix .*; in bfloat16\n")
        self.assertRegex(done.stdout, r"training .*; in bfloat16\n")

    def test_features_of_two_precisions_are_two_sets(self):
        def sets(*options, env=None):
            cache = self.folder / "cache"
            done = self.succeed_json("train", BASE / "data", *NETWORK, "--epochs", "1", "--no-report", "--cache-dir",
                                     cache, "-o", self.folder / "run", "--force", "--json", *options, env=env)
            rows = self.succeed_json("cache", "list", "--json", "--cache-dir", cache)["sets"]
            return done["precision"], sorted(row["precision"] for row in rows)

        self.assertEqual(sets(), ("fp32", ["fp32"]))
        self.assertEqual(sets("--precision", "bf16", env=BF16), ("bf16", ["bf16", "fp32"]))
        self.assertEqual(sets("--precision", "bf16", env=BF16), ("bf16", ["bf16", "fp32"]))
        text = self.succeed("cache", "list", "--cache-dir", self.folder / "cache").stdout
        self.assertEqual(text.count(", in bf16\n"), 1, text)

    def test_new_views_in_every_epoch(self):
        done = train(self.folder / "run", "--precision", "bf16", "--augment", "hflip", "--views", "0", "--no-report",
                     env=BF16)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(record(self.folder / "run")["precision"], "bf16")

    def test_nothing_frozen(self):
        """What trains is computed in bfloat16 too, near float32 and near what rounded operands give."""
        losses = {}
        for name, precision, env in (("exact", "fp32", None), ("rounded", "bf16", {"GRAFT_TARGET": "rounded-bf16"}),
                                     ("tiles", "bf16", BF16)):
            done = self.succeed_json("train", BASE / "data", "--backbone", "vgg-mini", "--input-size", "32",
                                     "--fine-tune", "all", "--epochs", "1", "--no-report", "--precision",
                                     precision, "--json", "-o", self.folder / name, env=env)
            self.assertEqual(record(self.folder / name)["precision"], precision)
            losses[name] = done["validation"]["loss"]
        self.assertNotEqual(losses["tiles"], losses["exact"])
        self.assertAlmostEqual(losses["tiles"], losses["rounded"], delta=0.002)
        self.assertAlmostEqual(losses["tiles"], losses["exact"], delta=0.02)

    def test_auto_is_decided_once(self):
        for name, precision in (("auto", "auto"), ("plain", "fp32")):
            done = train(self.folder / name, "--precision", precision, "--no-report", env=REFUSING)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("precision = 'fp32'\n", (self.folder / name / "config.toml").read_text())
            self.assertEqual(record(self.folder / name)["precision"], "fp32")
        self.assertEqual(*((self.folder / name / "model.safetensors").read_bytes() for name in ("auto", "plain")))
        for command in (("predict", BASE / "rounded", BASE / "data" / "test"),
                        ("evaluate", BASE / "rounded", BASE / "data"), BENCH[:1] + BENCH[3:-1]):
            document = self.succeed_json(*command, "--precision", "auto", "--json", env=REFUSING)
            self.assertEqual(document["precision"], "fp32")

    def test_predictions_in_bf16_are_near(self):
        """Whatever a model was trained with it computes in fp32, unless it is asked otherwise."""
        run, images = BASE / "rounded", BASE / "data" / "test"

        def predict(*options):
            done = self.succeed_json("predict", run, images, "--json", "--top", "6", *options, env=BF16)
            return done["precision"], np.array([[k["probability"] for k in sorted(p["top"], key=lambda k: k["label"])]
                                                for p in done["predictions"]])

        plain, exact = predict()
        rounded, near = predict("--precision", "bf16")
        self.assertEqual((plain, rounded), ("fp32", "bf16"))
        self.assertGreater(abs(near - exact).max(), 0)
        self.assertLess(abs(near - exact).max(), 0.03)
        explained, same = predict("--precision", "bf16", "--explain", self.folder / "maps")
        self.assertEqual(explained, "bf16")
        self.assertEqual(same.tolist(), near.tolist())

        figures = {}
        for precision in ("fp32", "bf16"):
            report = self.folder / "page.html"
            figures[precision] = self.succeed_json("evaluate", run, BASE / "data", "--precision", precision, "--json",
                                                   "--report", report, env=BF16)
            self.assertEqual(figures[precision]["precision"], precision)
            self.assertEqual("; computed in bfloat16" in report.read_text(), precision == "bf16")
            self.assertEqual("--precision bf16 --report" in report.read_text(), precision == "bf16")
        self.assertAlmostEqual(figures["fp32"]["loss"], figures["bf16"]["loss"], delta=0.02)
        # The run's own figures are of frozen layers in bf16.
        metrics = t.json.loads((run / "metrics.json").read_text())
        self.assertAlmostEqual(metrics["test"]["loss"], figures["bf16"]["loss"], delta=0.005)

    def test_resume(self):
        options = ("--precision", "bf16", "--schedule", "constant", "--no-report")
        whole, run = self.folder / "whole", self.folder / "run"
        self.assertEqual(train(whole, *options, env=BF16).returncode, 0)
        self.assertEqual(train(run, *options, epochs=2, env=BF16).returncode, 0)
        resume = ("train", BASE / "data", "--resume", run, "--epochs", "3")
        before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
        # Where there is no bf16 it cannot go on, nor with another precision anywhere.
        done = self.fail_with(2, "run: this run is computed with --precision bf16", *resume,
                              env=REFUSING)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.fail_with(2, "--precision bf16", *resume, "--precision", "auto", env=REFUSING)
        self.fail_with(1, "--precision ('bf16')", *resume, "--precision", "fp32", env=BF16)
        self.assertEqual({path: path.read_bytes() for path in before}, before)
        # Left to the processor: what the run has, whatever auto would be here now.
        self.succeed(*resume, "--precision", "auto", env=BF16)
        self.assertEqual((run / "model.safetensors").read_bytes(), (whole / "model.safetensors").read_bytes())
        self.assertIn("precision = 'bf16'\n", (run / "config.toml").read_text())

    def test_a_run_in_fp32_goes_on_in_fp32(self):
        run = self.folder / "run"
        self.assertEqual(train(run, "--precision", "auto", "--no-report", env=REFUSING).returncode, 0)
        resume = ("train", BASE / "data", "--resume", run)
        self.succeed(*resume, "--precision", "auto", env=BF16)
        self.assertEqual(record(run)["precision"], "fp32")
        self.fail_with(1, "--precision ('fp32')", *resume, "--precision", "bf16", env=BF16)


if __name__ == "__main__":
    t.main()
