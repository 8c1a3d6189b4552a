"""What files of other programs leave open (names, orders, sizes, pixels), and backbones on their way out."""
import collections
import json
import unittest
import zipfile

import graft_testing as t
import h5py
import keras_testing as k
import numpy as np
import torch
import torch_testing as tt
from PIL import Image
from torch import nn

NAMES = ["ash", "birch", "cedar"]
REAL = t.SHARED / "weights" / "vgg16_imagenet_notop.h5"


def features():
    """torchvision's list for vgg-mini."""
    layers, inputs = [], 3
    for count, channels in zip(t.BLOCKS["vgg-mini"], t.MINI_CHANNELS):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Network(nn.Module):
    def __init__(self, classifier, side=1):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.pool, self.classifier = features(), nn.AdaptiveAvgPool2d(side), classifier
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm1d):
                for tensor in (module.weight, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    nn.init.normal_(tensor, std=0.3)
        self.eval()

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


class Files(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        self.images = []
        for i in range(3):
            image = Image.fromarray(random.integers(0, 256, (5 + i, 7, 3), dtype=np.uint8))
            self.images.append(self.folder / f"{i}.png")
            image.resize((k.SIZE, k.SIZE), Image.BICUBIC).save(self.images[-1])
        self.pixels = np.stack([np.asarray(Image.open(path), "f4") for path in self.images])
        self.unit = self.pixels / 255
        self.ours = self.folder / "ours.safetensors"

    def convert(self, path, *more):
        return self.succeed("weights", "convert", path, self.ours, "--classes", ",".join(NAMES), *more).stderr

    def refuse(self, code, text, path, *more):
        return self.fail_with(code, text, "weights", "convert", path, self.ours, "--classes", ",".join(NAMES),
                              *more).stderr

    def probabilities(self):
        done = self.succeed_json("predict", self.ours, *self.images, "--json", "--top", len(NAMES))
        return np.array([[{top["label"]: top["probability"] for top in row["top"]}[name] for name in NAMES]
                         for row in done["predictions"]])

    def check(self, want):
        self.assertGreater(np.ptp(want), 1e-3)
        np.testing.assert_allclose(self.probabilities(), want, atol=1e-5)

    def maps(self, path, *more, backbone="vgg-mini"):
        out = self.folder / "out.npy"
        done = self.succeed("features", *self.images, "-o", out, "--backbone", backbone, "--input-size", k.SIZE,
                            "--weights", path, *more)
        return np.load(out), done.stderr

    def preprocessing(self, path=None):
        return json.loads(t.read_safetensors(path or self.ours)[1]["preprocessing"])


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
                                   ({}, "bilinear-noaa", "in the same way"),
                                   ({"antialias": False}, "bilinear-noaa", "in the same way"),
                                   ({"interpolation": "nearest"}, "nearest", "TensorFlow's rounding")):
            config = dict({"height": 64, "width": 64, "interpolation": "bilinear"}, **config)
            layer = k.layer("Resizing", "sized", **config)
            path = k.write(self.folder / "m.keras", [layer, scaled] + tail)
            self.assertIn(said, self.convert(path))
            self.assertEqual(self.preprocessing()["resampling"], want)
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

    def test_advice(self):
        """Where the whole is not taken, the backbone is, as the message says."""
        gap, end = self.GAP, k.dense("end", 160, 3, "softmax")
        point = k.conv("point", np.ones((1, 1, 160, 8)), np.zeros(8), kernel_size=[1, 1])
        for text, tail in (("activation tanh", [gap, k.dense("odd", 160, 8, "tanh"), k.dense("end", 8, 3, "softmax")]),
                           ("a kernel of [1,1]", [point, gap, k.dense("end", 8, 3, "softmax")]),
                           ("do not exclude each other", [gap, k.dense("odd", 160, 3, "sigmoid")]),
                           ("one output and no sigmoid", [gap, k.dense("odd", 160, 1)]),
                           ("is of a kind that Graft does not have", [gap, k.layer("LayerNormalization", "odd"), end]),
                           ("ends in layer gap", [gap])):
            for suffix in (".h5", ".keras"):
                path = k.write(self.folder / f"m{suffix}", k.base() + tail)
                said = self.refuse(1, text, path, "--preprocessing", "unit")
                self.assertIn("its backbone alone can be taken with --without-head", said)
                self.succeed("weights", "convert", path, self.ours, "--without-head")
                self.ours.unlink()
        layers = k.base(activation="gelu") + [gap, end]
        self.assertNotIn("without-head", self.refuse(1, "gelu", k.write(self.folder / "m.h5", layers)))

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


class Torch(Files):
    UNIT = ("--preprocessing", "unit", "--input-size", k.SIZE)

    def save(self, state, name="m.pth"):
        torch.save(state, self.folder / name)
        return self.folder / name

    def want(self, model):
        with torch.no_grad():
            return model(torch.from_numpy(self.unit.transpose(0, 3, 1, 2).copy())).softmax(1).numpy()

    @staticmethod
    def classifier(inputs, units=9):
        return nn.Sequential(nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, 8), nn.ReLU(),
                             nn.Dropout(), nn.Linear(8, 3))

    def test_maps_or_their_means(self):
        """Of a first layer with an input for each channel the file cannot tell; it is no 32x32 by itself."""
        model = Network(self.classifier(160))
        path = self.save(model.state_dict())
        words = "gap dense:9 dropout:0.5 dense:8 dropout:0.5"
        self.refuse(2, f'AdaptiveAvgPool2d(1), say --head "{words}"', path)
        self.convert(path, *self.UNIT, "--head", words)
        self.check(self.want(model))
        self.convert(path, "--preprocessing", "unit", "--input-size", 32)
        self.assertEqual(json.loads(t.read_safetensors(self.ours)[1]["network"])["input_size"], [32, 32])
        if t.HAS_TRAINING:
            t.draw_noise(self.folder / "p", NAMES, train=2)
            self.fail_with(2, "does not say the size of its images", "train", self.folder / "p", "--weights", path,
                           "--head", "keep", "-o", self.folder / "run", "--dry-run")
        path = self.save(Network(self.classifier(160 * 49), 7).state_dict())
        self.convert(path)
        self.assertEqual(json.loads(t.read_safetensors(self.ours)[1]["network"])["input_size"], [224, 224])
        self.refuse(2, "leave the option out", path, "--head", words)

    def test_averaged_models_and_buffers(self):
        model = Network(self.classifier(160 * 4), 2)
        averaged = torch.optim.swa_utils.AveragedModel(model)
        self.assertIn("n_averaged", averaged.state_dict())
        self.convert(self.save(averaged.state_dict()), *self.UNIT)
        self.check(self.want(model))
        model.register_buffer("mean", torch.ones(3))
        model.register_buffer("steps", torch.tensor(3))
        self.assertIn("left out mean, which no layer has", self.convert(self.save(model.state_dict()), *self.UNIT))
        self.check(self.want(model))

    def test_two_networks(self):
        model = Network(nn.Linear(160, 3))
        state = model.state_dict()
        for other in ({"state_dict_ema": state}, {"ema": {"module." + name: value for name, value in state.items()}},
                      {"best_state": state}):
            self.refuse(1, "it has two networks", self.save({"state_dict": state, **other}), *self.UNIT, "--head", "gap")
        self.convert(self.save({"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}),
                     *self.UNIT, "--head", "gap")

    def test_numbers_of_modules(self):
        """They say where there is no ReLU."""
        linear = Network(nn.Sequential(nn.Linear(160, 16), nn.Linear(16, 3)))
        self.refuse(1, "nothing stands between", self.save(linear.state_dict()), *self.UNIT, "--head", "gap dense:16")
        before = Network(nn.Sequential(nn.Linear(160, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)))
        behind = Network(nn.Sequential(nn.Linear(160, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3)))
        path = self.save(before.state_dict())
        self.refuse(2, 'perhaps "gap dense:16 batchnorm"', path, *self.UNIT)
        self.refuse(2, "nothing stands there", path, *self.UNIT, "--head", "gap dense:16 dropout:0 batchnorm")
        self.refuse(2, 'perhaps "gap dense:16 dropout:0 batchnorm"', self.save(behind.state_dict()), *self.UNIT)

    def test_a_head_of_ones_own(self):
        for head, words in (
                (nn.Linear(160, 3), "gap"),
                (nn.Sequential(nn.Linear(160, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3)),
                 "gap dense:24 batchnorm"),
                (nn.Sequential(nn.Linear(160, 24), nn.ReLU(), nn.BatchNorm1d(24), nn.Linear(24, 3)),
                 "gap dense:24 dropout:0 batchnorm"),
                (nn.Sequential(collections.OrderedDict(
                    z=nn.Linear(160, 16), r=nn.ReLU(), b=nn.Linear(16, 16), s=nn.ReLU(), a=nn.Linear(16, 16),
                    u=nn.ReLU(), c=nn.Linear(16, 3))),
                 "gap dense:16 dense:16 dense:16")):
            model = Network(head)
            path = self.save(model.state_dict())
            self.refuse(2, "does not say how a head computes", path)
            self.convert(path, *self.UNIT, "--head", words)
            self.check(self.want(model))
        self.refuse(2, "which has 3 outputs", path, *self.UNIT, "--head", "gap dense:16 dense:16 dense:16 dense:16")

    def test_safetensors_have_no_order(self):
        path = self.folder / "m.safetensors"
        many = [nn.Linear(160, 16), nn.ReLU()] + [m for _ in range(5) for m in (nn.Linear(16, 16), nn.ReLU())]
        model = Network(nn.Sequential(*many, nn.Linear(16, 3)))  # classifier.10 stands behind classifier.2
        tt.write_safetensors(path, dict(sorted(model.state_dict().items())))
        self.convert(path, *self.UNIT, "--head", "gap" + " dense:16" * 6)
        self.check(self.want(model))
        head = collections.OrderedDict(z=nn.Linear(160, 16), r=nn.ReLU(), b=nn.Linear(16, 16), s=nn.ReLU(),
                                       a=nn.Linear(16, 16), c=nn.Linear(16, 3))
        tt.write_safetensors(path, Network(nn.Sequential(head)).state_dict())
        self.refuse(1, "has no order that says which comes first", path, *self.UNIT, "--head",
                    "gap dense:16 dense:16 dense:16")

    def test_weights_that_are_computed(self):
        state = Network(nn.Linear(160, 3)).state_dict()
        state["features.0.weight_orig"] = state.pop("features.0.weight")
        state["features.0.weight_mask"] = torch.ones_like(state["features.0.weight_orig"])
        self.refuse(1, "torch.nn.utils.prune.remove", self.save(state))
        state = Network(nn.Linear(160, 3)).state_dict()
        state["features.0.parametrizations.weight.original1"] = state.pop("features.0.weight")
        self.refuse(1, "remove_parametrizations", self.save(state))
        with zipfile.ZipFile(self.folder / "m.pt2", "w") as file:
            file.writestr("m/data/weights/weight_0", b"0" * 64)
            file.writestr("m/models/model.json", "{}")
            file.writestr("m/data.pkl.not", "")
        self.refuse(1, "torch.export.load", self.folder / "m.pt2")

    def test_pixels_of_ones_own_are_told(self):
        path = self.save(Network(nn.Linear(160, 3)).features.state_dict())
        self.assertIn("as for torchvision's own weights (--preprocessing says otherwise)", self.maps(path)[1])
        self.assertNotIn("pixels", self.maps(path, "--preprocessing", "unit")[1])


class Backbones(Files):
    """A backbone alone, for other programs."""

    def setUp(self):
        super().setUp()
        self.trunk = self.folder / "trunk.safetensors"
        head = [k.layer("Flatten", "flat"), k.dense("out", 640, 3, "softmax")]
        self.theirs = k.write(self.folder / "m.h5", k.base(spread=0.3) + head)
        self.succeed("weights", "convert", self.theirs, self.trunk, "--without-head", "--preprocessing", "unit")
        self.want = k.compute(k.base(spread=0.3), self.unit)
        self.tensors = t.read_safetensors(self.trunk)[0]

    def test_every_format(self):
        self.convert(self.theirs, "--preprocessing", "unit")
        for suffix in (".pth", ".h5", ".torch.safetensors"):
            out = self.folder / f"out{suffix}"
            more = ("--format", "safetensors") if suffix == ".torch.safetensors" else ()
            for command in (("weights", "convert", self.trunk, out, "--without-head", *more),
                            ("weights", "convert", self.theirs, out, "--without-head", "--preprocessing", "unit",
                             *more),
                            ("export", self.ours, "-o", out, "--without-head"),
                            ("export", self.trunk, "-o", out, "--without-head")):
                done = self.succeed(*command)
                self.assertIn("maps of 4 synthetic images agree", done.stdout)
                self.assertIn("its pixels are not prepared as", done.stderr)
                got, _ = self.maps(out)  # with Graft's record
                self.assertLess(np.abs(got - self.want).max(), 1e-5 * np.abs(self.want).max())
                back = self.folder / "back.safetensors"
                self.succeed("weights", "convert", out, back, "--without-head")
                self.assertEqual(self.preprocessing(back), self.preprocessing(self.trunk))
                for name, value in t.read_safetensors(back)[0].items():
                    np.testing.assert_array_equal(value, self.tensors[name])
                out.unlink()

    def test_what_others_read(self):
        self.succeed("export", self.trunk, "-o", self.folder / "out.pth", "--without-head")
        model = features()
        model.load_state_dict({name.removeprefix("features."): value
                               for name, value in torch.load(self.folder / "out.pth").items()})
        with torch.no_grad():
            got = model(torch.from_numpy(self.unit.transpose(0, 3, 1, 2).copy())).numpy()
        self.assertLess(np.abs(got - self.want).max(), 1e-5 * np.abs(self.want).max())
        self.succeed("export", self.trunk, "-o", self.folder / "out.h5", "--without-head")
        with h5py.File(self.folder / "out.h5") as file:
            names = [name if isinstance(name, str) else name.decode() for name in file.attrs["layer_names"]]
            self.assertEqual(names, [name for name, _ in t.layer_specs("vgg-mini")])
            self.assertNotIn("model_config", file.attrs)
            for entry in k.base(spread=0.3):
                weights = [file[entry["name"]][name][...] for name in file[entry["name"]].attrs["weight_names"]]
                self.assertEqual(len(weights), len(entry["weights"]))
                for got, want in zip(weights, entry["weights"]):
                    np.testing.assert_array_equal(got, want)

    def test_refusals(self):
        for name in ("out.onnx", "out.keras"):
            self.fail_with(2, "a backbone alone is written as .pth, .safetensors", "export", self.trunk, "-o",
                           self.folder / name, "--without-head")
            self.fail_with(2, "a backbone alone is written as .pth, .safetensors", "weights", "convert", self.theirs,
                           self.folder / name, "--without-head", "--preprocessing", "unit")
            self.assertFalse((self.folder / name).exists())
        self.fail_with(1, "--without-head", "export", self.trunk, "-o", self.folder / "out.pth")
        self.fail_with(2, "--classes", "weights", "convert", self.theirs, self.folder / "out.pth", "--without-head",
                       "--classes", "a,b,c")


if __name__ == "__main__":
    t.main()
