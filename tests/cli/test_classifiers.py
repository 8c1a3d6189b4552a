"""Classifiers of other programs come over whole: `graft weights convert`, `graft train --head keep`."""
import collections
import json
import shutil
import struct
import unittest
import zipfile

import graft_testing as t
import keras_testing as k
import numpy as np
import torch
from PIL import Image
from torch import nn

NAMES = ["ash", "birch", "cedar"]


class Classifiers(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        self.images = []
        for i in range(4):
            image = Image.fromarray(random.integers(0, 256, (5 + i, 7, 3), dtype=np.uint8))
            self.images.append(self.folder / f"{i}.png")
            image.resize((k.SIZE, k.SIZE), Image.BICUBIC).save(self.images[-1])
        self.pixels = np.stack([np.asarray(Image.open(path), "f4") for path in self.images])
        self.prepared = self.pixels[..., ::-1] - np.float32([103.939, 116.779, 123.68])
        self.ours = self.folder / "ours.safetensors"

    def convert(self, path, *more, names=NAMES, out=None):
        return self.succeed("weights", "convert", path, out or self.ours, "--classes", ",".join(names), *more).stderr

    def probabilities(self, model=None, names=NAMES):
        done = self.succeed_json("predict", model or self.ours, *self.images, "--json", "--top", len(names))
        return np.array([[{top["label"]: top["probability"] for top in row["top"]}[name] for name in names]
                         for row in done["predictions"]])

    def head(self, *more):
        return [k.layer("Flatten", "flatten", data_format="channels_last"), *more,
                k.dense("hidden", 640, 12, "relu"), k.layer("Dropout", "drop", rate=0.5),
                k.dense("answers", 12, 3, "softmax")]

    def test_every_layout(self):
        """Rows behind a flatten are in another order than Graft's; maps of 2x2 show it."""
        flatten, *rest = self.head()
        heads = [[flatten, *rest], self.head(k.batchnorm("norm", 640)),
                 [k.layer("GlobalAveragePooling2D", "gap"), k.batchnorm("norm", 160), k.dense("answers", 160, 3, "softmax")],
                 [k.layer("GlobalMaxPooling2D", "gmp"), k.dense("answers", 160, 3), k.layer("Activation", "end",
                                                                                          activation="softmax")]]
        for head in heads:
            want = k.compute(k.base() + head, self.prepared)
            self.assertGreater(np.ptp(want), 1e-2)
            for layers in (k.base() + head, [["vgg", k.base()]] + head, [["outer", [["vgg", k.base(prefix="my_")]]]] + head):
                for version in (2, 3):
                    for suffix in (".h5", ".keras"):
                        self.convert(k.write(self.folder / f"m{suffix}", layers, version), "--preprocessing", "keras")
                        np.testing.assert_allclose(self.probabilities(), want, atol=1e-5)

    def test_pixels_as_the_model_prepares_them(self):
        layers = [k.layer("RandomFlip", "flip", mode="horizontal"), k.layer("Rescaling", "scaled", scale=1 / 127.5, offset=-1)]
        layers += k.base(spread=0.5) + self.head()
        for suffix in (".h5", ".keras"):
            path = k.write(self.folder / f"m{suffix}", layers)
            self.assertIn("left out layer flip (RandomFlip)", self.convert(path))
            np.testing.assert_allclose(self.probabilities(), k.compute(layers, self.pixels), atol=1e-5)
            self.fail_with(2, "says itself", "weights", "convert", path, self.ours, "--classes", "a,b,c", "--preprocessing",
                           "torch")

    def test_pixels_through_a_convolution(self):
        """As graft export writes them; Keras may have saved the model anew, without Graft's record."""
        scale, shift = np.float32([0.5, 0.25, 0.2]), np.float32([9, 8, 7])
        kernel = np.zeros((1, 1, 3, 3), "f4")
        for out in range(3):
            kernel[0, 0, 2 - out, out] = scale[out]
        tail = k.base(spread=20) + self.head()
        want = k.compute(tail, self.pixels[..., ::-1] * scale - shift)
        for suffix in (".h5", ".keras"):
            layers = [k.conv("preprocessing", kernel, -shift, "linear", kernel_size=[1, 1], padding="valid")] + tail
            self.convert(k.write(self.folder / f"m{suffix}", layers))
            np.testing.assert_allclose(self.probabilities(), want, atol=1e-5)
        kernel[0, 0, 0, 0] = 1  # a mixture of two channels
        path = k.write(self.folder / "mixed.keras", [k.conv("grey", kernel, -shift, "linear", kernel_size=[1, 1],
                                                            padding="valid")] + tail)
        self.fail_with(1, "layer grey (Conv2D)", "weights", "convert", path, self.ours, "--classes", "a,b,c")

    def test_pixels_that_are_named(self):
        path = k.write(self.folder / "m.keras", k.base() + self.head())
        unit = self.pixels / 255
        torch_like = (unit - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        for family, pixels in (("raw", self.pixels), ("unit", unit), ("symmetric", self.pixels / 127.5 - 1), ("torch-stretched", torch_like), ("keras", self.prepared)):
            self.convert(path, "--preprocessing", family)
            np.testing.assert_allclose(self.probabilities(), k.compute(k.base() + self.head(), pixels), atol=1e-5)
            self.assertIn(f"pixels      {family}: ", self.succeed("weights", "inspect", self.ours).stdout)

    def test_resampling_is_said_or_told(self):
        """Keras' loaders do not antialias; a layer that resizes says what it does."""
        plain = k.write(self.folder / "m.keras", k.base() + self.head())
        self.assertIn("--resampling bilinear-noaa", self.convert(plain, "--preprocessing", "keras"))

        def resampling(file):
            return json.loads(t.read_safetensors(file)[1]["preprocessing"])["resampling"]
        self.assertEqual(resampling(self.ours), "bilinear")
        said = self.convert(plain, "--preprocessing", "keras", "--resampling", "nearest")
        self.assertNotIn("antialiased", said)
        self.assertEqual(resampling(self.ours), "nearest")
        again = self.folder / "again.safetensors"
        self.succeed("weights", "convert", self.ours, again, "--resampling", "bicubic")
        self.assertEqual(resampling(again), "bicubic")
        layers = [k.layer("Resizing", "fit", height=k.SIZE, width=k.SIZE, interpolation="bilinear")] + k.base() + self.head()
        self.convert(k.write(self.folder / "r.keras", layers), "--preprocessing", "keras")
        self.assertEqual(resampling(self.ours), "bilinear-noaa")

    def test_inspection_of_whole_models(self):
        layers = [k.layer("Rescaling", "scaled", scale=1 / 255, offset=0)] + k.base(spread=0.5) + self.head()
        path = k.write(self.folder / "m.keras", layers)
        about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
        self.assertTrue(about["convertible"])
        self.assertEqual(about["classes"], 3)
        self.assertEqual(about["input_size"], [k.SIZE, k.SIZE])
        self.assertAlmostEqual(about["preprocessing"]["scale"][0], 1 / 255, 8)
        self.assertIn("weights convert", self.succeed("weights", "inspect", path).stdout)
        plain = k.write(self.folder / "p.keras", k.base() + self.head())
        self.assertIsNone(self.succeed_json("weights", "inspect", plain, "--json")["files"][0]["preprocessing"])
        self.fail_with(2, "--classes is for a classifier", "weights", "convert", path, "-o", self.ours, "--classes", "a,b,c")

    def test_inspection_says_why_a_model_is_not_taken_whole(self):
        layers = [k.layer("Rescaling", "scaled", scale=1 / 255, offset=0)] + k.base(spread=0.5)
        layers += [k.layer("Flatten", "flatten", data_format="channels_last"), k.dense("odd", 640, 12, "tanh"),
                   k.dense("answers", 12, 3, "softmax")]
        path = k.write(self.folder / "m.keras", layers)
        about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
        self.assertFalse(about["convertible"])
        self.assertEqual(about["preprocessing"]["family"], "unit")
        self.assertIn("odd", about["note"])
        self.assertIn("tanh", about["note"])
        self.assertIn("cannot be taken whole", self.succeed("weights", "inspect", path).stdout)

    def test_what_the_file_does_not_say_is_asked_for(self):
        path = k.write(self.folder / "m.keras", k.base() + self.head())
        self.fail_with(2, "does not say the names of its 3 classes", "weights", "convert", path, self.ours)
        self.fail_with(2, "nor how pixels were prepared, which --preprocessing does: keras", "weights", "convert", path, self.ours)
        self.fail_with(2, "does not say how pixels", "weights", "convert", path, self.ours, "--classes", "a,b,c")
        self.fail_with(2, "2 names, and", "weights", "convert", path, self.ours, "--classes", "a,b")
        self.fail_with(2, "stands twice", "weights", "convert", path, self.ours, "--classes", "a,b,a")
        self.fail_with(2, "is no file", "weights", "convert", path, self.ours, "--classes", "names.txt")
        names = self.folder / "names.txt"
        names.write_text("ash\r\nbirch, the white one\ncedar\n\n", "utf-8")
        self.succeed("weights", "convert", path, self.ours, "--classes", names, "--preprocessing", "keras")
        metadata = t.read_safetensors(self.ours)[1]
        self.assertEqual(json.loads(metadata["classes"]), ["ash", "birch, the white one", "cedar"])
        self.assertFalse(list(self.folder.glob("*.tmp*")))

    def test_two_classes_of_one_sigmoid(self):
        layers = k.base() + [k.layer("GlobalAveragePooling2D", "gap"), k.dense("answer", 160, 1, "sigmoid")]
        want = k.compute(layers, self.prepared)
        self.convert(k.write(self.folder / "m.h5", layers), "--preprocessing", "keras", names=["no", "yes"])
        np.testing.assert_allclose(self.probabilities(names=["no", "yes"]), np.concatenate([1 - want, want], 1), atol=1e-5)

    def test_what_graft_has_not_is_refused_by_name(self):
        gap = k.layer("GlobalAveragePooling2D", "gap")
        end = k.dense("answers", 160, 3, "softmax")
        odd = k.conv("odd", np.zeros((1, 1, 160, 160), "f4"), np.zeros(160, "f4"), kernel_size=[1, 1])
        for layers, text in (
                (k.base() + [gap, k.dense("odd", 160, 160, "gelu"), end], "layer odd (Dense) has the activation gelu"),
                (k.base() + [odd, gap, end], "layer odd (Conv2D) has a kernel of [1,1]"),
                (k.base() + [k.layer("PReLU", "odd"), gap, end], "layer odd (PReLU) is of a kind"),
                (k.base() + [gap, k.layer("ReLU", "odd", max_value=6.0), end], "layer odd (ReLU)"),
                (k.base() + [gap, k.dense("odd", 160, 3, "sigmoid")], "labels that do not exclude each other"),
                (k.base() + [gap, k.dense("odd", 160, 1, "softmax")], "of which its softmax makes 1"),
                (k.base() + [gap], "ends in layer gap"),
                (k.base()[:1] + [gap, k.dense("odd", 16, 3, "softmax")], "no VGG"),
                (k.base(activation="gelu") + [gap, end], "block1_conv1 (Conv2D) has the activation gelu")):
            for suffix in (".h5", ".keras"):
                path = k.write(self.folder / f"m{suffix}", layers)
                self.fail_with(1, text, "weights", "convert", path, self.ours, "--classes", "a,b,c", "--preprocessing", "keras")
        self.assertFalse(self.ours.exists())

    def test_backbone_alone_has_vgg_layers_too(self):
        """An activation of the head is of no concern then, one of the backbone is."""
        gap = k.layer("GlobalAveragePooling2D", "gap")
        out = self.folder / "out.npy"

        def features(layers, *more):
            return ("features", self.images[0], "-o", out, "--backbone", "vgg-mini", "--input-size", k.SIZE, "--weights",
                    k.write(self.folder / "m.h5", layers), *more)
        self.succeed(*features(k.base() + [gap, k.dense("x", 160, 5, "gelu")]))
        layers = k.base()
        layers[-2] = k.conv("block5_conv2", *layers[-2]["weights"], activation="swish")
        self.fail_with(1, "block5_conv2 (Conv2D) of its backbone has the activation swish", *features(layers + [gap]))
        self.succeed(*features(layers + [gap], "--until", "block4_pool"))
        layers = k.base()
        layers[2] = k.pool("block1_pool", "AveragePooling2D")
        self.fail_with(1, "block1_pool (AveragePooling2D) of its backbone stands between", *features([["vgg", layers], gap]))
        layers = [k.layer("Rescaling", "scaled", scale=1 / 255, offset=0)] + k.base(spread=0.3)
        self.assertIn("as the model in it does", self.succeed(*features(layers + self.head())).stderr)

    def test_weights_alone_with_words_for_the_head(self):
        layers = k.base() + self.head(k.batchnorm("norm", 640))
        want = k.compute(layers, self.prepared)
        k.write_keras(self.folder / "m.keras", layers)
        k.write_h5(self.folder / "alone.h5", layers, 2, description=False)
        for path in (self.folder / "m.weights.h5", self.folder / "alone.h5"):
            flags = ("weights", "convert", path, self.ours, "--classes", ",".join(NAMES), "--preprocessing", "keras",
                     "--input-size", k.SIZE)
            self.fail_with(2, '--head, perhaps "flatten batchnorm dense:12"', *flags)
            self.fail_with(2, "more dense layers than", *flags, "--head", "flatten dense:12 dense:3")
            self.fail_with(2, "a batchnorm layer more", *flags, "--head", "flatten dense:12")
            self.fail_with(2, "which has 12 outputs", *flags, "--head", "flatten batchnorm dense:13")
            self.fail_with(1, "where", *flags, "--head", "gap batchnorm dense:12")
            self.succeed(*flags, "--head", "flatten batchnorm dense:12 dropout:0.5")
            np.testing.assert_allclose(self.probabilities(), want, atol=1e-5)
            words = ("--head", "flatten batchnorm dense:12")
            self.fail_with(2, "does not say the size of its images", *flags[:-2], *words)
            self.fail_with(2, "--input-size: layer", *flags[:-1], 96, *words)
            self.succeed(*flags[:-1], "70x64", *words)

    def test_groups_renamed_with_weights_that_are_not(self):
        """What Keras 2 leaves where layers got new names after they were made."""
        names, layers = {}, []
        for i, entry in enumerate(k.base() + self.head()):
            layers.append(dict(entry, name=f"layer_{i}"))
            names[f"layer_{i}"] = entry["name"]
        path = self.folder / "renamed.h5"
        for description in (True, False):
            k.write_h5(path, layers, 2, names, description)
            about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
            self.assertEqual([(fit["backbone"], fit["whole"]) for fit in about["fits"]], [("vgg-mini", True)])
            if description:
                self.convert(path, "--preprocessing", "keras")
                np.testing.assert_allclose(self.probabilities(), k.compute(layers, self.prepared), atol=1e-5)

    def test_torch_classifier(self):
        torch.manual_seed(0)
        layers, inputs = [], 3
        for count, channels in zip(t.BLOCKS["vgg-mini"], t.MINI_CHANNELS):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
                inputs = channels
            layers.append(nn.MaxPool2d(2, 2))
        model = nn.Sequential(collections.OrderedDict(
            features=nn.Sequential(*layers), flatten=nn.Flatten(),
            classifier=nn.Sequential(nn.Linear(640, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 8), nn.ReLU(), nn.Dropout(),
                                     nn.Linear(8, 3)))).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
        path = self.folder / "m.pth"
        torch.save({"module." + name: value for name, value in model.state_dict().items()}, path)
        self.fail_with(2, "does not say the size of its images", "weights", "convert", path, self.ours, "--classes", "a,b,c")
        self.assertIn("with its centre crop", self.convert(path, "--input-size", k.SIZE))
        big = Image.open(self.images[0]).resize((73, 73), Image.BILINEAR)
        x = np.asarray(big.crop((4, 4, 68, 68)), "f4") / 255
        x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        with torch.no_grad():
            want = model(torch.from_numpy(x.transpose(2, 0, 1)[None].copy())).softmax(1).numpy()[0]
        np.testing.assert_allclose(self.probabilities()[0], want, atol=1e-4)
        torch.save(model.features.state_dict(), path)
        self.fail_with(2, "does not say how a head computes", "weights", "convert", path, self.ours, "--classes", "a,b,c")

    def test_on_to_other_formats(self):
        path = k.write(self.folder / "m.keras", k.base() + self.head())
        flags = ("--preprocessing", "keras")
        self.convert(path, *flags)
        want = self.probabilities()
        for suffix in (".onnx", ".h5", ".pth", ".keras"):
            out = self.folder / f"out{suffix}"
            self.convert(path, *flags, out=out)
            self.succeed("weights", "convert", self.ours, self.folder / f"again{suffix}")
            self.assertEqual(out.exists() and (self.folder / f"again{suffix}").exists(), True)
        self.assertIn("agree", self.succeed("weights", "convert", self.ours, self.folder / "again.h5").stdout)
        half = self.folder / "half.safetensors"
        self.convert(path, *flags, "--dtype", "fp16", out=half)
        np.testing.assert_allclose(self.probabilities(half), want, atol=0.02)
        trunk = self.folder / "trunk.safetensors"
        self.succeed("weights", "convert", path, trunk, "--without-head")
        self.assertEqual(json.loads(t.read_safetensors(trunk)[1]["classes"]), [])
        self.fail_with(2, "must end in", "weights", "convert", path, self.folder / "out.bin")
        self.fail_with(2, "one file to read, one to write", "weights", "convert", path)

    def test_inspection_looks_at_values(self):
        layers = k.base() + self.head()
        path = k.write(self.folder / "m.h5", layers)
        self.succeed("weights", "inspect", path)
        layers[3]["weights"][0][0, 0, 0, 0] = np.nan
        for suffix in (".h5", ".keras"):
            done = t.run("weights", "inspect", k.write(self.folder / f"bad{suffix}", layers))
            self.assertEqual(done.returncode, 1)
            self.assertIn("1 of 4608 values are NaN", done.stdout)
        bad = self.folder / "bad.pth"
        torch.save({f"features.{i}.weight": torch.zeros(16, 3, 3, 3) for i in (0,)}, bad)
        data = bytearray(bad.read_bytes())
        with zipfile.ZipFile(bad) as archive:
            entry = next(e for e in archive.infolist() if "/data/" in e.filename)
        at = entry.header_offset
        name, extra = struct.unpack("<HH", data[at + 26:at + 30])
        data[at + 30 + name + extra + 200] ^= 1
        bad.write_bytes(data)
        done = t.run("weights", "inspect", bad)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("CRC", done.stdout + done.stderr)


@unittest.skipUnless(t.HAS_TRAINING, "built without training")
class KeepHead(t.TestCase):
    FAST = ("--epochs", "1", "--lr", "1e-9", "--fine-tune", "0", "--label-smoothing", "0", "--no-report", "--no-cache",
            "--threads", "2", "--batch-size", "16")

    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 8)
        self.classes = sorted(path.name for path in self.data.iterdir())
        units = len(self.classes)
        self.layers = k.base() + [k.layer("Flatten", "flatten"), k.dense("hidden", 640, 12, "relu"),
                                  k.dense("answers", 12, units, "softmax")]
        self.theirs = k.write(self.folder / "theirs.keras", self.layers)
        self.ours = self.folder / "ours.safetensors"
        self.succeed("weights", "convert", self.theirs, self.ours, "--classes", ",".join(self.classes),
                     "--preprocessing", "keras")

    def train(self, weights, *more, data=None):
        run = self.folder / f"run{len(list(self.folder.glob('run*')))}"
        done = self.succeed("train", data or self.data, "--weights", weights, "--head", "keep", "-o", run, *self.FAST, *more)
        return run, done.stderr, t.read_safetensors(run / "checkpoints" / "best.safetensors")

    def test_goes_on_from_a_model(self):
        before, about = t.read_safetensors(self.ours)
        run, said, (after, metadata) = self.train(self.ours)
        self.assertIn("the head of all", said)
        self.assertEqual(sorted(after), sorted(before))
        for name, value in after.items():
            np.testing.assert_allclose(value, before[name], atol=1e-6, err_msg=name)
        self.assertEqual(json.loads(metadata["preprocessing"]), json.loads(about["preprocessing"]))
        self.assertEqual(json.loads(metadata["network"])["input_size"], [k.SIZE, k.SIZE])
        _, _, (_, metadata) = self.train(self.ours, "--resampling", "nearest", "--force")
        self.assertEqual(json.loads(metadata["preprocessing"])["resampling"], "nearest")
        self.train(self.ours, "--force")
        config = (run / "config.toml").read_text()
        for line in ("head = 'keep'", "backbone = 'vgg-mini'"):
            self.assertIn(line, config)
        # The run is a classifier to go on from, and its configuration repeats it.
        self.train(run)
        again = self.folder / "again"
        self.succeed("train", self.data, "--config", run / "config.toml", "-o", again)
        got = t.read_safetensors(again / "checkpoints" / "best.safetensors")[0]
        for name, value in after.items():
            np.testing.assert_array_equal(got[name], value)
        self.succeed("train", self.data, "--resume", run, "--epochs", "2")

    def test_one_class_more_and_one_less(self):
        (self.data / self.classes[0]).rename(self.data / "zebra")
        (self.data / self.classes[1]).rename(self.data / "aardvark")
        t.draw_scenes(self.folder / "more", 8, 100)
        shutil.move(next((self.folder / "more").iterdir()), self.data / "middle")
        before = t.read_safetensors(self.ours)[0]
        _, said, (after, metadata) = self.train(self.ours)
        now = json.loads(metadata["classes"])
        self.assertEqual(len(now), len(self.classes) + 1)
        self.assertIn("are new", said)
        self.assertIn("are left out", said)
        for row, label in enumerate(now):
            for name in ("predictions.weight", "predictions.bias"):
                if label in self.classes:
                    np.testing.assert_allclose(after[name][row], before[name][self.classes.index(label)], atol=1e-6)
                else:
                    self.assertLess(np.abs(after[name][row]).max(), 3)
        np.testing.assert_allclose(after["fc1.weight"], before["fc1.weight"], atol=1e-6)

    def test_goes_on_from_another_programs_classifier(self):
        before = t.read_safetensors(self.ours)[0]
        self.fail_with(2, "--preprocessing does: keras", "train", self.data, "--weights", self.theirs, "--head", "keep", "-o",
                       self.folder / "no", *self.FAST, "--dry-run")
        _, said, (after, _) = self.train(self.theirs, "--preprocessing", "keras")
        self.assertIn("in alphabetical order", said)
        for name, value in after.items():
            np.testing.assert_allclose(value, before[name], atol=1e-6, err_msg=name)
        turned = self.classes[::-1]
        run, _, (after, _) = self.train(self.theirs, "--preprocessing", "keras", "--classes", ",".join(turned))
        np.testing.assert_allclose(after["predictions.weight"], before["predictions.weight"][::-1], atol=1e-6)
        self.assertIn(",".join(turned), (run / "config.toml").read_text())
        shutil.rmtree(self.data / self.classes[0])
        self.fail_with(2, "say which they are", "train", self.data, "--weights", self.theirs, "--head", "keep", "-o",
                       self.folder / "no", "--preprocessing", "keras", *self.FAST)

    def test_refusals(self):
        trunk = self.folder / "trunk.safetensors"
        self.succeed("weights", "convert", self.ours, trunk, "--without-head")

        def refuse(code, text, *more):
            self.fail_with(code, text, "train", self.data, "--head", "keep", "-o", self.folder / "no", *self.FAST, *more)
        refuse(2, "name its file or run with --weights")
        refuse(1, "a backbone without a head", "--weights", trunk)
        refuse(2, "--input-size", "--weights", self.ours, "--input-size", "96")
        refuse(2, "--backbone", "--weights", self.ours, "--backbone", "vgg19")
        refuse(2, "--classes", "--weights", self.ours, "--classes", "a,b,c")
        for kind in ("a", "b", "c"):
            (self.folder / "others" / kind).mkdir(parents=True)
            shutil.copy(next(next(self.data.iterdir()).iterdir()), self.folder / "others" / kind)
        self.fail_with(2, "none of the classes", "train", self.folder / "others", "--weights", self.ours, "--head", "keep",
                       "-o", self.folder / "no", *self.FAST)
        self.fail_with(2, "--classes is for --head keep", "train", self.data, "--weights", self.ours, "--classes", "a,b",
                       "-o", self.folder / "no", "--backbone", "vgg-mini")
        refuse(1, "no such file", "--weights", self.folder / "nothing.keras")
        self.fail_with(2, "graft train", "summary", "--head", "keep", "--classes", "3")
        self.assertFalse((self.folder / "no").exists())


if __name__ == "__main__":
    t.main()
