"""What PyTorch's files leave open, and backbones on their way out."""
import collections
import json
import zipfile

import graft_testing as t
import h5py
import keras_testing as k
import numpy as np
import torch
import torch.nn.utils.parametrizations
import torch.nn.utils.prune
import torch_testing as tt
from foreign_testing import NAMES, Files
from torch import nn


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

    def test_shapes_tell_the_order(self):
        """Where each layer can read one other's outputs only."""
        head = collections.OrderedDict(z=nn.Linear(160, 16), r=nn.ReLU(), b=nn.Linear(16, 16), s=nn.ReLU(),
                                       a=nn.Linear(16, 3))
        model, path = Network(nn.Sequential(head)), self.folder / "m.safetensors"
        tt.write_safetensors(path, model.state_dict())
        self.refuse(2, 'perhaps "gap dense:16 dense:16"', path, *self.UNIT)
        self.convert(path, *self.UNIT, "--head", "gap dense:16 dense:16")
        self.check(self.want(model))

    def test_one_list_of_all_layers(self):
        model = Network(nn.Sequential(nn.Linear(160, 8), nn.ReLU(), nn.Linear(8, 3)))
        whole = nn.Sequential(*model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *model.classifier).eval()
        for name, state in (("a", whole.state_dict()), ("b", nn.Sequential(whole).state_dict())):
            path = self.save(state, f"{name}.pth")
            self.convert(path, *self.UNIT, "--head", "gap dense:8")
            self.check(self.want(model))
            self.assertTrue(self.succeed_json("weights", "inspect", path, "--json")["files"][0]["fits"][0]["whole"])

    def test_one_logit(self):
        model = Network(nn.Linear(160, 1))
        done = self.succeed("weights", "convert", self.save(model.state_dict()), self.ours, "--classes", "no,yes",
                            *self.UNIT, "--head", "gap")
        self.assertIn("the logit of the second of two classes", done.stderr)
        with torch.no_grad():
            want = torch.sigmoid(model(torch.from_numpy(self.unit.transpose(0, 3, 1, 2).copy())))[:, 0].numpy()
        rows = self.succeed_json("predict", self.ours, *self.images, "--json", "--top", 2)["predictions"]
        got = [{top["label"]: top["probability"] for top in row["top"]}["yes"] for row in rows]
        np.testing.assert_allclose(got, want, atol=1e-5)
        self.refuse(2, "has 2 classes", self.folder / "m.pth", *self.UNIT, "--head", "gap")

    def test_weights_of_a_head_that_are_computed(self):
        for change, text in (
                (lambda m: torch.nn.utils.prune.l1_unstructured(m, "weight", 0.5), "torch.nn.utils.prune.remove"),
                (lambda m: torch.nn.utils.weight_norm(m), "remove_weight_norm"),
                (lambda m: torch.nn.utils.spectral_norm(m), "remove_spectral_norm"),
                (lambda m: torch.nn.utils.parametrizations.orthogonal(m), "remove_parametrizations")):
            model = Network(nn.Linear(160, 3))
            change(model.classifier)
            said = self.refuse(1, text, self.save(model.state_dict()), *self.UNIT, "--head", "gap")
            self.assertIn("its backbone alone can be taken with --without-head", said)

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
