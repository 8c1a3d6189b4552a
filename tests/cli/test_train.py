"""graft train on drawn images: what it writes, what it freezes, how it stops."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock

import graft_testing as t
import numpy as np

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

FAST = ("--backbone", "vgg-mini", "--input-size", "32", "--batch-size", "16")


class Train(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 10)
        self.out = self.folder / "run"

    def train(self, *arguments, data=None, out=None):
        return self.succeed("train", data or self.data, *FAST, "-o", out or self.out, *arguments)

    def test_openblas_uses_the_vectors_that_there_are(self):
        """Its version 0.3.21 takes kernels of before AVX on newer processors; the user's word counts."""
        flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        for given, old in (({}, not {"avx2", "fma"} <= set(flags)), ({"OPENBLAS_CORETYPE": "Prescott"}, True)):
            with unittest.mock.patch.dict(os.environ, given):
                if not given:
                    os.environ.pop("OPENBLAS_CORETYPE", None)
                done = self.train("--epochs", "1", "--verbose", "--force")
            if "BLAS: OpenBLAS" not in done.stderr or "DYNAMIC_ARCH" not in done.stderr:
                self.skipTest("the BLAS here is another one than Debian's OpenBLAS")
            self.assertEqual(re.search(r" (Prescott|Nehalem|Barcelona) MAX", done.stderr) is not None, old, done.stderr)

    def test_threads_that_wait_let_go_of_the_processor(self):
        """Else a training beside other programs keeps its own threads from it; the user's word counts."""
        for given, want in (({}, "GOMP_SPINCOUNT=1000"), ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT=7"),
                            ({"OMP_WAIT_POLICY": "active"}, None)):
            environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
            process = subprocess.Popen([t.GRAFT, "train", str(self.data), *FAST, "--epochs", "10000", "-o",
                                        str(self.out), "--force"], env={**environment, **given},
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                deadline = time.time() + 60
                while not (self.out / "history.csv").exists() and time.time() < deadline:
                    time.sleep(0.01)
                has = pathlib.Path(f"/proc/{process.pid}/environ").read_text().split("\0")
                self.assertEqual([word for word in has if word.startswith("GOMP_SPINCOUNT")], [want] if want else [])
            finally:
                process.kill()
                process.wait()
            shutil.rmtree(self.out)

    def test_schedules_smoothing_clipping_and_class_weights(self):
        rates = {}
        for name in ("constant", "cosine", "one-cycle"):
            self.train("--epochs", "4", "--schedule", name, "--lr", "0.01", "--patience", "0",
                       "--label-smoothing", "0.1", "--clip-gradients", "1", "--class-weights",
                       "balanced", out=self.folder / name)
            rates[name] = [float(row["learning_rate"])
                           for row in t.read_csv(self.folder / name / "history.csv")]
            config = (self.folder / name / "config.toml").read_text()
            self.assertIn(f"schedule = '{name}'", config)
            self.assertIn("label-smoothing = 0.1", config)
        self.assertEqual(rates["constant"], [0.01] * 4)
        self.assertEqual(sorted(rates["cosine"], reverse=True), rates["cosine"])
        self.assertLess(rates["cosine"][-1], 2.5e-3)
        self.assertGreater(rates["one-cycle"][0], rates["one-cycle"][-1])
        self.assertLess(rates["one-cycle"][-1], 1e-6)
        # Repeating from the file alone gives the same model.
        self.train("--config", self.folder / "cosine" / "config.toml", "--force")
        self.assertEqual((self.out / "model.safetensors").read_bytes(),
                         (self.folder / "cosine" / "model.safetensors").read_bytes())

    def test_rejects_bad_training_options(self):
        for option, value in (("--schedule", "steps"), ("--label-smoothing", "1"),
                              ("--clip-gradients", "-1"), ("--class-weights", "3"),
                              ("--batch-size", "1"), ("--cache-dtype", "int8"), ("--cache-limit", "0")):
            self.fail_with(2, option, "train", self.data, *FAST, "-o", self.out, option, value)

    def test_run_folder(self):
        done = self.train("--epochs", "3", "--fine-tune", "all", "--head", "gap")
        self.assertEqual({p.name.split(".tfevents")[0] for p in self.out.iterdir()},
                         {"model.safetensors", "history.csv", "metrics.json", "times.json", "config.toml",
                          "split.csv", "predictions.csv", "report.html", "events.out", "checkpoints"})
        self.assertEqual({p.name for p in (self.out / "checkpoints").iterdir()},
                         {"best.safetensors", "last.safetensors", "state.safetensors",
                          "state-previous.safetensors"})
        self.assertIn("class ", done.stderr.splitlines()[0], "the class table comes first")
        history = t.read_csv(self.out / "history.csv")
        self.assertEqual([row["epoch"] for row in history], ["1", "2", "3"])
        metrics = json.loads((self.out / "metrics.json").read_text())
        best = history[metrics["best_epoch"] - 1]
        # The last of a one-cycle run, unless it is clearly worse: docs/decisions/0003-best-epoch.md.
        accuracies = [float(r["val_accuracy"]) for r in history]
        share = (max(accuracies) + accuracies[-1]) / 2
        split = t.read_csv(self.out / "split.csv")
        self.assertEqual(len(split), 60)
        aside = sum(row["split"] == "val" for row in split)
        self.assertEqual(metrics["validation"]["images"], aside)
        kept = accuracies[-1] >= max(accuracies) - 2 * (2 * share * (1 - share) / aside) ** 0.5
        self.assertEqual(float(best["val_accuracy"]), accuracies[-1] if kept else max(accuracies))
        # The saved model by evaluation agrees with the best epoch's validation.
        document = self.succeed_json("evaluate", self.out, self.out / "split.csv", "--split", "val",
                                     "--json")
        self.assertAlmostEqual(document["top1"], float(best["val_accuracy"]), places=5)
        self.assertAlmostEqual(document["loss"], metrics["validation"]["loss"], delta=1e-4)
        self.assertAlmostEqual(metrics["calibration"]["uncalibrated_validation"]["loss"],
                               float(best["val_loss"]), delta=1e-4)
        self.assertAlmostEqual(document["top1"], metrics["validation"]["top1"])

    def test_same_seed_same_model(self):
        models = []
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            self.train("--epochs", "2", "--seed", seed, "--head", "gap dropout:0.3", "--fine-tune", "3",
                       out=self.folder / name)
            models.append(t.read_safetensors(self.folder / name / "model.safetensors")[0])
        for name in models[0]:
            np.testing.assert_array_equal(models[0][name], models[1][name])
        self.assertTrue(any((models[0][n] != models[2][n]).any() for n in models[0]))

    def test_frozen_stays_and_unfrozen_moves(self):
        specs = t.layer_specs("vgg11")
        weights = t.random_weights(specs)
        path = self.folder / "w.h5"
        t.write_keras_h5(path, specs, weights)
        for fine_tune, moves in (("0", set()), ("2", {"block3_conv2"}),
                                 ("block2_conv1", {"block2_conv1", "block3_conv1", "block3_conv2"})):
            self.succeed("train", self.data, "--backbone", "vgg11", "--weights", path, "--until",
                         "block3_pool", "--input-size", "32", "--epochs", "1", "--fine-tune", fine_tune,
                         "-o", self.out, "--force", "--optimizer", "sgd", "--lr", "1e-5")
            tensors, _ = t.read_safetensors(self.out / "model.safetensors")
            for layer in ("block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2"):
                same = np.array_equal(tensors[layer + ".weight"],
                                      weights[layer][0].transpose(3, 2, 0, 1))
                self.assertEqual(same, layer not in moves, (fine_tune, layer))

    def test_a_whole_trunk_ends_with_fine_tuning_unless_told_otherwise(self):
        specs = t.layer_specs("vgg11")
        weights = t.random_weights(specs)
        path = self.folder / "w.h5"
        t.write_keras_h5(path, specs, weights)
        common = ("train", self.data, "--backbone", "vgg11", "--weights", path, "--input-size", "32")
        self.succeed(*common, "--epochs", "3", "-o", self.out)
        tensors, _ = t.read_safetensors(self.out / "model.safetensors")
        for layer in ("block4_conv2", "block5_conv1", "block5_conv2"):
            same = np.array_equal(tensors[layer + ".weight"], weights[layer][0].transpose(3, 2, 0, 1))
            self.assertEqual(same, layer == "block4_conv2", layer)
        rates = [float(row["learning_rate"]) for row in t.read_csv(self.out / "history.csv")]
        self.assertEqual(len(rates), 3)
        for more in (("--lr", "1e-3"), ("--find-lr",), ("--fine-tune", "0"), ("--recipe", "quick",
                     "--head", "gap"), ("--epochs", "1")):
            plan = self.succeed(*common, "--dry-run", *more).stdout
            self.assertNotIn("block4_pool", plan, more)
            self.assertEqual(plan.count("training   "), 1, more)
        plan = self.succeed(*common, "--dry-run").stdout
        self.assertIn("block4_pool", plan)
        self.assertEqual(plan.count("training   "), 2)

    def test_frozen_batchnorm_keeps_its_statistics(self):
        self.succeed("train", self.data, "--backbone", "vgg-mini_bn", "--weights", "none", *FAST[2:], "--epochs", "2",
                     "--head", "gap", "--fine-tune", "block4_conv1", "-o", self.out)
        tensors, _ = t.read_safetensors(self.out / "model.safetensors")
        self.assertTrue((tensors["block2_conv1_bn.running_mean"] == 0).all())
        self.assertTrue((tensors["block2_conv1_bn.running_var"] == 1).all())
        self.assertTrue((tensors["block4_conv1_bn.running_mean"] != 0).any())

    def test_learns(self):
        t.draw_scenes(self.folder / "more" / "train", 25)
        t.draw_scenes(self.folder / "more" / "test", 8, first_seed=700)
        done = self.train("--recipe", "scratch", "--epochs", "8", data=self.folder / "more")
        accuracy = float(done.stdout.split("test accuracy ")[1].split()[0])
        self.assertGreater(accuracy, 0.45, "chance is 0.17")

    def test_metadata(self):
        self.train("--epochs", "1", "--head", "gap")
        _, metadata = t.read_safetensors(self.out / "model.safetensors")
        self.assertEqual(metadata["graft_format"], "2")
        self.assertEqual(len(json.loads(metadata["classes"])), 6)
        self.assertEqual(json.loads(metadata["preprocessing"])["channel_order"], "rgb")
        self.assertIn("vgg-mini", json.loads(metadata["provenance"])["source"])
        self.assertEqual(json.loads(metadata["training"])["epoch"], 1)
        self.assertEqual(json.loads(metadata["network"])["input_size"], [32, 32])

    def test_config_repeats_the_run(self):
        self.train("--epochs", "2", "--head", "gmp dense:12", "--lr", "0.005", "--seed", "9")
        again = self.folder / "again"
        self.succeed("train", self.data, "--config", self.out / "config.toml", "-o", again)
        a, _ = t.read_safetensors(self.out / "model.safetensors")
        b, _ = t.read_safetensors(again / "model.safetensors")
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        self.assertEqual((self.out / "config.toml").read_text(), (again / "config.toml").read_text())

    def test_command_line_wins_over_config_over_recipe(self):
        config = self.folder / "c.toml"
        config.write_text('epochs = 7\nhead = "gap dropout:0.5" # a comment\nlr = 1e-2\n')
        text = self.succeed("train", self.data, "--recipe", "notebook", "--config", config, "--lr",
                            "0.5", "--dry-run", "--weights", "none", "--input-size", "64").stdout
        self.assertIn("gap dropout:0.5", text)
        self.assertIn("7 epochs", text)
        self.assertIn("adam at 0.5", text)
        self.assertIn("batch 64", text)
        for bad, why in (("lern = 1\n", "unknown key 'lern'"), ("lr = \n", "not TOML"),
                         ("optimizer = sgd\n", "words in quotes"),
                         ("lr = [1]\n", "must be a string"), ("epochs = 0\n", "--epochs"),
                         ("config = 'x'\n", "unknown key")):
            config.write_text(bad)
            self.fail_with(2, why, "train", self.data, "--config", config, "--dry-run")
        self.fail_with(2, "there is no 'better'", "train", self.data, "--recipe", "better", "--dry-run")
        self.assertIn("augment    hflip", self.succeed("train", self.data, *FAST, "--recipe", "best",
                                                       "--dry-run").stdout)

    def test_dry_run_writes_nothing(self):
        text = self.succeed("train", self.data, "--dry-run", "-o", self.out, *FAST).stdout
        for part in ("buildings", "memory", "time", "prefix"):
            self.assertIn(part, text)
        self.assertFalse(self.out.exists())

    def test_existing_run_is_kept(self):
        self.train("--epochs", "1", "--head", "gap")
        before = (self.out / "model.safetensors").read_bytes()
        self.fail_with(2, "--force", "train", self.data, *FAST, "-o", self.out)
        self.assertEqual((self.out / "model.safetensors").read_bytes(), before)

    def test_default_output_name(self):
        self.succeed("train", self.data, *FAST, "--epochs", "1", "--head", "gap", cwd=self.folder)
        runs = list((self.folder / "runs").iterdir())
        self.assertEqual(len(runs), 1)
        self.assertTrue(runs[0].name.startswith("data-20"))

    def test_json(self):
        document = self.succeed_json("train", self.data, *FAST, "--epochs", "1", "--head", "gap", "-o",
                                     self.out, "--json", "--test-split", "0.2")
        self.assertEqual(document["run"], str(self.out))
        # Shares are right but for chance: docs/decisions/0029-splits-by-content.md.
        split = [row["split"] for row in t.read_csv(self.out / "split.csv")]
        for name, key, share in (("test", "test", 0.2), ("val", "validation", 0.1)):
            self.assertEqual(document[key]["images"], split.count(name))
            self.assertAlmostEqual(split.count(name) / len(split), share, delta=0.15)

    def test_quiet(self):
        done = self.train("--epochs", "1", "--head", "gap", "--quiet")
        self.assertEqual(done.stderr, "")

    def test_val_and_test_folders(self):
        t.draw_scenes(self.folder / "val", 2, first_seed=300)
        t.draw_scenes(self.folder / "test", 3, first_seed=400)
        document = self.succeed_json("train", self.data, *FAST, "--epochs", "1", "--head", "gap", "-o",
                                     self.out, "--json", "--val", self.folder / "val", "--test",
                                     self.folder / "test")
        self.assertEqual(document["validation"]["images"], 12)
        self.assertEqual(document["test"]["images"], 18)
        self.fail_with(2, "--val", "train", self.data, "--val", "x", "--val-split", "0.2")
        self.fail_with(2, "--test", "train", self.data, "--test", "x", "--test-split", "0.2")

    def test_corrupt_images_are_skipped_and_listed(self):
        (self.data / "sea" / "0.jpg").write_text("text, not an image")
        data = (self.data / "sea" / "1.jpg").read_bytes()
        (self.data / "sea" / "1.jpg").write_bytes(data[:len(data) // 2])
        self.fail_with(1, "2 of 60 images cannot be used (3.3 %", "train", self.data, *FAST, "-o",
                       self.out, "--epochs", "1", "--head", "gap")
        done = self.train("--epochs", "1", "--head", "gap", "--max-skipped", "0.04", "--force")
        self.assertEqual(done.stderr.count("skipped: "), 2)
        metrics = json.loads((self.out / "metrics.json").read_text())
        self.assertEqual(len(metrics["skipped"]), 2)
        split = t.read_csv(self.out / "split.csv")
        self.assertEqual(sum(row["split"] == "excluded" for row in split), 2)

    def test_early_stopping(self):
        # A learning rate that changes nothing: the first epoch stays the best.
        self.train("--epochs", "50", "--patience", "2", "--lr", "1e-12", "--optimizer", "sgd", "--head",
                   "gap")
        metrics = json.loads((self.out / "metrics.json").read_text())
        self.assertTrue(metrics["stopped_early"])
        self.assertEqual(metrics["epochs"], metrics["best_epoch"] + 2)

    def test_diverging_is_an_error(self):
        done = self.fail_with(1, "--lr", "train", self.data, "--backbone", "vgg11", "--weights", "none",
                              "--input-size", "32", "--until", "block2_pool", "--lr", "1000",
                              "--optimizer", "sgd", "--head", "flatten dense:64", "--fine-tune", "all",
                              "-o", self.out)
        self.assertIn("loss became", done.stderr)
        self.assertFalse((self.out / "model.safetensors").exists())

    def test_graft_model_as_weights(self):
        self.train("--epochs", "1", "--head", "gap", "--fine-tune", "all")
        second = self.folder / "second"
        self.succeed("train", self.data, "--backbone", "vgg-mini", "--input-size", "32", "--weights",
                     self.out / "model.safetensors", "--epochs", "1", "-o", second)
        a, _ = t.read_safetensors(self.out / "model.safetensors")
        b, _ = t.read_safetensors(second / "model.safetensors")
        np.testing.assert_array_equal(a["block5_conv1.weight"], b["block5_conv1.weight"])
        self.fail_with(1, "use --backbone vgg-mini", "train", self.data, "--weights",
                       self.out / "model.safetensors", "-o", self.folder / "third")

    def interrupt(self, number, code):
        process = subprocess.Popen([t.GRAFT, "train", str(self.data), "--backbone", "vgg-mini",
                                    "--weights", "none", "--fine-tune", "all", "--input-size", "96",
                                    "--head", "gap", "--batch-size", "2", "--epochs", "10000",
                                    "--patience", "0", "-o", str(self.out)],
                                   stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        history = self.out / "history.csv"
        deadline = time.monotonic() + 120
        while not history.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        start = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, stderr)
        self.assertLess(time.monotonic() - start, 10)
        self.assertIn("interrupted in epoch", stderr)
        self.assertIn("last.safetensors", stderr)
        self.assertFalse(list(self.out.rglob("*.tmp")))
        self.assertFalse((self.out / "model.safetensors").exists())
        for name in ("best", "last"):
            image = next(self.data.rglob("*.jpg"))
            self.succeed("predict", self.out / "checkpoints" / f"{name}.safetensors", image)
        self.fail_with(1, "interrupted", "predict", self.out, image)

    def test_interrupted_by_ctrl_c(self):
        self.interrupt(signal.SIGINT, 130)

    def test_interrupted_by_sigterm(self):
        self.interrupt(signal.SIGTERM, 143)

    def test_full_disk_under_the_cache(self):
        """Costs what the cache would save, and nothing else."""
        if os.geteuid() != 0:
            self.skipTest("mounting a small tmpfs needs root")
        small = self.folder / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small],
                          capture_output=True).returncode != 0:
            self.skipTest("cannot mount a tmpfs here")
        try:
            options = [*FAST, "--head", "gap", "--epochs", "2", "--no-report"]
            done = self.succeed("train", self.data, *options, "-o", self.folder / "full", "--cache-dir",
                                small / "cache")
            self.assertIn("No space left on device", done.stderr)
            self.succeed("train", self.data, *options, "-o", self.folder / "free", "--cache-dir", self.folder / "cache")
            full, free = ((self.folder / run / "model.safetensors").read_bytes() for run in ("full", "free"))
            self.assertEqual(full, free)
        finally:
            subprocess.run(["umount", small], check=True)

    def test_full_disk(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small tmpfs needs root")
        small = self.folder / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", small],
                          capture_output=True).returncode != 0:
            self.skipTest("cannot mount a tmpfs here")
        try:
            done = self.fail_with(1, "No space left on device", "train", self.data, *FAST, "--head",
                                  "gap", "--epochs", "2", "-o", small / "run")
            self.assertIn("last.safetensors", done.stderr)
            self.assertFalse(list(small.rglob("*.tmp")))
            self.assertFalse((small / "run" / "model.safetensors").exists())
        finally:
            subprocess.run(["umount", small], check=True)


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Example(t.TestCase):
    def test_the_library_without_the_program(self):
        """examples/train.cpp, which includes public headers alone."""
        source = (t.SOURCE / "examples" / "train.cpp").read_text()
        for line in source.splitlines():
            if line.startswith('#include "'):
                self.assertTrue(line.startswith('#include "graft/'), line)
        data = self.folder / "data"
        t.draw_scenes(data, 6, size=40)
        done = subprocess.run([t.TOOLS / "example_train", data, self.folder / "run"], capture_output=True,
                              text=True, timeout=120, env=dict(os.environ, XDG_CACHE_HOME=str(self.folder / "c")))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertIn("interrupted in epoch 2", done.stdout)
        self.assertIn("resumed: 3 epochs", done.stdout)


if __name__ == "__main__":
    t.main()
