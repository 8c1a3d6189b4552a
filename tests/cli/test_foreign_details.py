"""What Keras' files leave open: names, orders, sizes, pixels."""
import html
import json
import unittest
import zipfile

import graft_testing as t
import h5py
import keras_testing as k
import numpy as np
from foreign_testing import Files

REAL = t.SHARED / "weights" / "vgg16_imagenet_notop.h5"


class Keras(Files):
    GAP = k.layer("GlobalAveragePooling2D", "gap")

    def normed(self, every=1, named=True):
        """A base with a BatchNorm of Keras' default name behind each convolution, or some."""
        out, count = [], 0
        for i, entry in enumerate(k.base(spread=0.3, activation="linear")):
            if entry["kind"] != "Conv2D":
                out.append(entry)
                continue
            out.append(dict(entry, name=entry["name"] if named else "conv2d" + (f"_{count}" if count else "")))
            if count % every == 0:
                name = "batch_normalization" + (f"_{count}" if count else "")
                out.append(k.batchnorm(name, entry["config"]["filters"], i))
            out.append(k.layer("Activation", f"relu_{count}", activation="relu"))
            count += 1
        return out

    def test_norms_of_default_names(self):
        """They are taken with the convolutions, with Keras' epsilon, whatever the layers are called."""
        for named in (True, False):
            layers = self.normed(named=named)
            want = k.compute(layers, self.unit)
            for suffix in (".h5", ".keras"):
                path = k.write(self.folder / f"m{suffix}", layers)
                about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
                self.assertEqual([(fit["backbone"], fit["whole"]) for fit in about["fits"]], [("vgg-mini_bn", True)])
                got, _ = self.maps(path, "--preprocessing", "unit", backbone="vgg-mini_bn")
                self.assertLess(np.abs(got - want).max(), 1e-5 * np.abs(want).max())
                self.fail_with(1, "use --backbone vgg-mini_bn", "features", self.images[0], "-o",
                               self.folder / "no.npy", "--backbone", "vgg-mini", "--weights", path)
                self.succeed("weights", "convert", path, self.ours, "--without-head")
                self.assertEqual(json.loads(t.read_safetensors(self.ours)[1]["network"])["backbone"], "vgg-mini_bn")
            for path in (self.folder / "m.weights.h5", self.folder / "alone.h5"):
                k.write_h5(self.folder / "alone.h5", layers, description=False)
                got, _ = self.maps(path, "--preprocessing", "unit", backbone="vgg-mini_bn")
                self.assertLess(np.abs(got - want).max(), 1e-5 * np.abs(want).max())

    def test_norms_behind_some_convolutions(self):
        layers = self.normed(every=3)
        for suffix in (".h5", ".keras"):
            path = k.write(self.folder / f"m{suffix}", layers)
            self.fail_with(1, "m" + suffix, "weights", "convert", path, self.ours, "--without-head")
        k.write_h5(self.folder / "alone.h5", layers, description=False)
        self.fail_with(1, "alone.h5", "weights", "convert", self.folder / "alone.h5", self.ours, "--without-head")
        self.assertFalse(self.ours.exists())

    def test_a_norm_of_the_head_stays_there(self):
        layers = k.base(spread=0.3) + [self.GAP, k.batchnorm("batch_normalization", 160),
                                       k.dense("out", 160, 3, "softmax")]
        for suffix in (".h5", ".keras"):
            path = k.write(self.folder / f"m{suffix}", layers)
            self.maps(path, "--preprocessing", "unit")
            self.convert(path, "--preprocessing", "unit")
            self.check(k.compute(layers, self.unit))

    def test_models_within_of_default_names(self):
        """conv2d and conv2d_1 are two layers, not one whose name Keras 2 repeats."""
        base = [dict(entry, name="conv2d" + (f"_{i}" if i else "")) for i, entry in
                enumerate(one for one in k.base(spread=0.3) if one["kind"] == "Conv2D")]
        layers, at = [], 0
        for entry in k.base():
            layers.append(base[at] if entry["kind"] == "Conv2D" else entry)
            at += entry["kind"] == "Conv2D"
        model = [["functional", layers], self.GAP, k.dense("dense_1", 160, 8, "relu"),
                 k.dense("dense", 8, 3, "softmax")]
        want = k.compute(k.flat(model), self.unit)
        for version in (2, 3):
            for suffix in (".h5", ".keras"):
                self.convert(k.write(self.folder / f"m{suffix}", model, version), "--preprocessing", "unit")
                self.check(want)

    def test_layers_that_train_stand_first(self):
        """In a model that is a layer: two convolutions of one form are not exchanged."""
        count, layers = 0, []
        for entry in k.base(spread=0.3):
            if entry["kind"] == "Conv2D":
                entry = dict(entry, name="conv2d" + (f"_{count}" if count else ""))
                entry["config"] = dict(entry["config"], trainable=count == 3)
                count += 1
            layers.append(entry)
        want = k.compute(layers, self.unit)
        head = [self.GAP, k.dense("dense", 160, 3, "softmax")]
        path = self.folder / "m.h5"
        for description in (True, False):
            k.write_h5(path, [["functional", layers]] + head, description=description)
            with h5py.File(path, "r+") as file:
                group = (file["model_weights"] if description else file)["functional"]
                names = list(group.attrs["weight_names"])
                mine = [name for name in names if str(name).startswith(("b'conv2d_3", "conv2d_3"))]
                self.assertEqual(len(mine), 2)
                group.attrs["weight_names"] = mine + [name for name in names if name not in mine]
            got, _ = self.maps(path, "--preprocessing", "unit")
            self.assertLess(np.abs(got - want).max(), 1e-5 * np.abs(want).max())
            if description:
                self.convert(path, "--preprocessing", "unit")
                self.check(k.compute(layers + head, self.unit))

    def test_the_order_of_relu_and_norm(self):
        """Weights alone do not say it: both can be said, and what was taken is told."""
        relu_first = k.base(spread=0.3) + [self.GAP, k.dense("hidden", 160, 12, "relu"), k.batchnorm("norm", 12),
                                           k.dense("out", 12, 3, "softmax")]
        norm_first = k.base(spread=0.3) + [self.GAP, k.dense("hidden", 160, 12), k.batchnorm("norm", 12),
                                           k.layer("Activation", "relu", activation="relu"),
                                           k.dense("out", 12, 3, "softmax")]
        k.write_keras(self.folder / "m.keras", relu_first)
        path, more = self.folder / "m.weights.h5", ("--preprocessing", "unit", "--input-size", k.SIZE)
        self.refuse(2, 'perhaps "gap dense:12 batchnorm"', path, *more)
        said = self.convert(path, *more, "--head", "gap dense:12 batchnorm")
        self.assertIn('write "dense:12 dropout:0 batchnorm"', said)
        self.check(k.compute(norm_first, self.unit))
        said = self.convert(path, *more, "--head", "gap dense:12 dropout:0 batchnorm")
        self.assertNotIn("batchnorm", said)
        self.check(k.compute(relu_first, self.unit))

    def test_relus_that_only_words_have(self):
        """Of weights alone nobody knows whether a Dense was linear."""
        k.write_keras(self.folder / "m.keras", k.base(spread=0.3) + [
            self.GAP, k.dense("hidden", 160, 12, "relu"), k.dense("out", 12, 3, "softmax")])
        path, more = self.folder / "m.weights.h5", ("--preprocessing", "unit", "--input-size", k.SIZE)
        self.assertIn("a ReLU is taken to stand behind dense, as --head has it",
                      self.convert(path, *more, "--head", "gap dense:12"))
        self.refuse(2, 'perhaps "gap dense:12"', path, *more, "--head", "gap dense:9")
        k.write_keras(self.folder / "m.keras", k.base(spread=0.3) + [self.GAP, k.dense("out", 160, 3, "softmax")])
        self.assertNotIn("ReLU", self.convert(path, *more, "--head", "gap"))

    def test_images_that_are_not_square(self):
        """The size that is said counts, and where none is said the message names it."""
        k.write_keras(self.folder / "m.keras", k.base(spread=0.3) + [
            k.layer("Flatten", "flat"), k.dense("out", 160 * 3 * 2, 3, "softmax")])
        path, more = self.folder / "m.weights.h5", ("--preprocessing", "unit", "--head", "flatten")
        self.refuse(1, "--input-size says another size", path, *more)
        self.refuse(2, "--input-size: layer dense of", path, *more, "--input-size", 32)
        self.convert(path, *more, "--input-size", "96x64")
        self.assertEqual(json.loads(t.read_safetensors(self.ours)[1]["network"])["input_size"], [96, 64])

    def test_a_layer_that_no_head_has(self):
        """It is not passed over where its weights are all there is."""
        layers = k.base() + [self.GAP, k.layer("LayerNormalization", "norm", (np.ones(160), np.zeros(160))),
                             k.dense("out", 160, 3, "softmax")]
        k.write_keras(self.folder / "m.keras", layers)
        self.refuse(1, "its backbone alone can be taken with --without-head", self.folder / "m.weights.h5", "--head",
                    "gap", "--preprocessing", "unit")

    def test_casts(self):
        tail = k.base(spread=0.3) + [self.GAP, k.dense("out", 160, 3, "softmax")]
        scaled = k.layer("Rescaling", "scaled", scale=1 / 255, offset=0)
        for suffix in (".h5", ".keras"):
            for kind in ("int32", "uint8", "bool"):
                path = k.write(self.folder / f"m{suffix}", [k.layer("Cast", "cast", dtype=kind), scaled] + tail)
                self.refuse(1, "layer cast (Cast)", path)
                # The backbone alone does not guess either.
                self.fail_with(2, "layer cast (Cast)", "weights", "convert", path, self.ours, "--without-head")
                self.maps(path, "--preprocessing", "unit")
                about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
                self.assertIsNone(about["preprocessing"])
            self.convert(k.write(self.folder / f"m{suffix}", [k.layer("Cast", "cast", dtype="float16"), scaled] + tail))
            self.check(k.compute([scaled] + tail, self.pixels))

    def test_resizing(self):
        scaled = k.layer("Rescaling", "scaled", scale=1 / 255, offset=0)
        tail = k.base() + [self.GAP, k.dense("out", 160, 3, "softmax")]
        for config, want, said in (({"antialias": True}, "bilinear", "antialiased"),
                                   ({}, "bilinear-noaa", "without antialiasing"),
                                   ({"antialias": False}, "bilinear-noaa", "without antialiasing"),
                                   ({"interpolation": "nearest"}, "nearest", "TensorFlow's rounding")):
            config = dict({"height": 64, "width": 64, "interpolation": "bilinear"}, **config)
            layer = k.layer("Resizing", "sized", **config)
            path = k.write(self.folder / "m.keras", [layer, scaled] + tail)
            self.assertIn(said, self.convert(path))
            self.assertEqual(self.preprocessing()["resampling"], want)
            self.assertNotIn("images are resized", self.convert(path, "--resampling", "bicubic"))
            self.assertEqual(self.preprocessing()["resampling"], "bicubic")
            self.succeed("weights", "convert", path, self.ours, "--without-head")
            self.assertEqual(self.preprocessing()["resampling"], want)

    def test_pixels_of_a_base_are_told(self):
        """The official names are no official weights."""
        path = self.folder / "base.h5"
        k.write_h5(path, k.base(), description=False)
        told = "pixels are prepared as for Keras' own weights (--preprocessing says otherwise)"
        self.assertIn(told, self.maps(path)[1])
        self.assertNotIn("pixels", self.maps(path, "--preprocessing", "unit")[1])
        self.assertIn(told, self.succeed("weights", "convert", path, self.ours, "--without-head").stderr)
        self.assertIn("taken for prepared as Keras' own weights are; --preprocessing says otherwise",
                      self.succeed_json("weights", "inspect", path, "--json")["files"][0]["note"])

    @unittest.skipUnless(REAL.exists(), "needs ../shared")
    def test_pixels_of_the_official_base_are_known(self):
        self.assertNotIn("pixels", self.succeed("weights", "convert", REAL, self.ours, "--without-head").stderr)
        self.assertEqual(self.succeed_json("weights", "inspect", REAL, "--json")["files"][0]["note"], "")
        # The file is none of the published ones, byte for byte, and says nothing of its images.
        self.assertIn("whose first layer is that of Keras' ImageNet weights",
                      self.succeed_json("weights", "inspect", self.ours, "--json")["files"][0]["source"])
        if not t.HAS_TRAINING:
            return
        classes = self.folder / "data"
        t.draw_scenes(classes, 4)
        run = self.folder / "run"
        self.succeed("train", classes, "--weights", self.ours, "--backbone", "vgg16", "--input-size", "32", "--head",
                     "gap", "--fine-tune", "0", "--epochs", "1", "--no-cache", "-o", run)
        card = html.unescape((run / "report.html").read_text().split("<h2>Model card</h2>")[1])
        self.assertRegex(card, "ImageNet's: 1.28 million photos.*; and whatever else the file was trained on")

    def test_advice(self):
        """Where the whole is not taken, the backbone is, as the message says."""
        gap, end = self.GAP, k.dense("end", 160, 3, "softmax")
        point = k.conv("point", np.ones((1, 1, 160, 8)), np.zeros(8), kernel_size=[1, 1])
        for text, tail in (("activation tanh", [gap, k.dense("odd", 160, 8, "tanh"), k.dense("end", 8, 3, "softmax")]),
                           ("a kernel of [1,1]", [point, gap, k.dense("end", 8, 3, "softmax")]),
                           ("do not exclude each other", [gap, k.dense("odd", 160, 3, "sigmoid")]),
                           ("of which its softmax makes 1", [gap, k.dense("odd", 160, 1, "softmax")]),
                           ("is of a kind that Graft does not have", [gap, k.layer("LayerNormalization", "odd"), end]),
                           ("ends in layer gap", [gap])):
            for suffix in (".h5", ".keras"):
                path = k.write(self.folder / f"m{suffix}", k.base() + tail)
                said = self.refuse(1, text, path, "--preprocessing", "unit")
                self.assertIn("its backbone alone can be taken with --without-head", said)
                self.succeed("weights", "convert", path, self.ours, "--without-head")
                self.ours.unlink()
        # Not where the backbone cannot be taken either.
        for suffix in (".h5", ".keras"):
            for text, layers in (("gelu", k.base(activation="gelu")),
                                 ("ZeroPadding2D", [k.layer("ZeroPadding2D", "zeros", padding=[4, 4])] + k.base())):
                path = k.write(self.folder / f"m{suffix}", layers + [gap, end])
                if "without-head" in self.refuse(1, text, path, "--preprocessing", "unit"):
                    self.succeed("weights", "convert", path, self.ours, "--without-head", "--preprocessing", "unit")

    def test_a_class_of_ones_own(self):
        """A subclassed model describes itself as it likes."""
        path = k.write(self.folder / "m.keras", k.base() + [self.GAP, k.dense("end", 160, 3, "softmax")])
        with zipfile.ZipFile(path) as file:
            weights = file.read("model.weights.h5")
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("config.json", json.dumps({"class_name": "Mine", "config": {"name": "mine"}}))
            file.writestr("model.weights.h5", weights)
        self.assertIn("with --without-head", self.refuse(1, "not one that Keras writes", path))
        self.succeed("weights", "convert", path, self.ours, "--without-head")

    def edit(self, path, change):
        """Changes the description in a .keras file."""
        with zipfile.ZipFile(path) as file:
            weights, config = file.read("model.weights.h5"), json.loads(file.read("config.json"))
        change(config)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("config.json", json.dumps(config))
            file.writestr("model.weights.h5", weights)

    def test_layers_of_ones_own_that_are_called_as_keras(self):
        """What their call() computes is not in the file."""
        layers = k.base() + [self.GAP, k.dense("hidden", 160, 8, "relu"), k.dense("end", 8, 3, "softmax")]
        for change in ({"module": None, "registered_name": "my>Dense"}, {"module": "mine", "registered_name": "Dense"},
                       {"module": None, "registered_name": "Dense"}, {"class_name": "my>Dense"}):
            path = k.write(self.folder / "m.keras", layers)
            self.edit(path, lambda config: [e.update(change) for e in config["config"]["layers"]
                                            if "hidden" in (e.get("name"), e["config"].get("name"))])
            self.refuse(1, "layer hidden (", path, "--preprocessing", "unit")
        path = k.write(self.folder / "m.keras", layers)
        self.edit(path, lambda config: config.update(module=None, registered_name="Mine", class_name="Mine"))
        self.assertIn("class Mine, whose Python code is not read", self.convert(path, "--preprocessing", "unit"))
        self.edit(path, lambda config: config.update(module="keras.src.models.functional", registered_name="Functional",
                                                     class_name="Functional"))
        self.assertNotIn("Python code", self.convert(path, "--preprocessing", "unit"))

    def test_norms_behind_the_relu(self):
        """Networks with BatchNorm have it in front."""
        layers = []
        for i, entry in enumerate(k.base(spread=0.3)):
            layers.append(entry)
            if entry["kind"] == "Conv2D":
                layers.append(k.batchnorm(f"norm_{i}", entry["config"]["filters"], i))
        layers += [self.GAP, k.dense("end", 160, 3, "softmax")]
        for suffix in (".h5", ".keras"):
            path = k.write(self.folder / f"m{suffix}", layers)
            self.fail_with(1, "stands behind a ReLU", "features", self.images[0], "-o", self.folder / "no.npy",
                           "--backbone", "vgg-mini_bn", "--preprocessing", "unit", "--weights", path)

    def test_resizing_twice(self):
        sizes = [k.layer("Resizing", f"sized_{side}", height=side, width=side, interpolation="bilinear")
                 for side in (48, 64)]
        path = k.write(self.folder / "m.keras", sizes + k.base() + [self.GAP, k.dense("end", 160, 3, "softmax")])
        self.refuse(1, "resizes once more", path)

    def test_layers_that_are_attributes(self):
        """A class of one's own stores them in alphabetical order."""
        k.write_keras(self.folder / "m.keras", k.base() + [
            self.GAP, k.dense("b", 160, 12, "relu"), k.dense("a", 12, 12, "relu"), k.dense("c", 12, 12, "relu"),
            k.dense("out", 12, 3, "softmax")])
        path = self.folder / "m.weights.h5"
        more = ("--head", "gap dense:12 dense:12 dense:12", "--preprocessing", "unit", "--input-size", k.SIZE)
        self.convert(path, *more)
        with h5py.File(path, "r+") as file:
            for old, new in (("dense", "hidden"), ("dense_1", "extra"), ("dense_2", "another")):
                file.move(f"layers/{old}", new)
        self.refuse(1, "stand in alphabetical order", path, *more)


if __name__ == "__main__":
    t.main()
