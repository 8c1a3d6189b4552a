"""Keras' newer files (.weights.h5, .keras), models whose layers bear other names, other types of numbers."""
import zipfile

import graft_testing as t
import h5py
import numpy as np
import torch
from PIL import Image


def numbered(group, layers, named):
    """Layers as Keras keeps them in a group: by class and number, with their names only in newer versions."""
    holder, counts = group.create_group("layers"), {}
    for name, content in layers:
        is_model = isinstance(content, list)
        kind = "functional" if is_model else {4: "conv2d", 2: "dense", 1: "batch_normalization"}[content[0].ndim]
        number = counts[kind] = counts.get(kind, -1) + 1
        layer = holder.create_group(kind + (f"_{number}" if number else ""))
        variables = layer.create_group("vars")
        if named:
            variables.attrs["name"] = name
        if is_model:
            numbered(layer, content, named)
            continue
        for i, value in enumerate(content):
            if value.dtype == np.uint16:  # bfloat16, as h5py writes what it does not know
                variables.create_dataset(str(i), data=value.view("V2")).attrs["dtype"] = "bfloat16"
            else:
                variables.create_dataset(str(i), data=value)


class KerasWeights(t.TestCase):
    BACKBONE = "vgg-mini"

    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "p", 1)
        self.image = next((self.folder / "p").rglob("*.jpg"))
        self.specs = t.layer_specs(self.BACKBONE)
        self.weights = t.random_weights(self.specs)
        self.base = [(name, self.weights[name]) for name, shape in self.specs if shape]
        t.write_keras_h5(self.folder / "plain.h5", self.specs, self.weights)
        self.want, _ = self.features(self.folder / "plain.h5")

    def features(self, path, *more, backbone=BACKBONE, image=None):
        out = self.folder / "out.npy"
        done = self.succeed("features", image or self.image, "-o", out, "--backbone", backbone, "--input-size", "32",
                            "--weights", path, *more)
        return np.load(out), done.stderr

    def same(self, path, *more):
        got, said = self.features(path, *more)
        np.testing.assert_array_equal(got, self.want)
        return said

    def write(self, layers, named=True, compression=None):
        """The same as .weights.h5 and as .keras."""
        weights, archive = self.folder / "m.weights.h5", self.folder / "m.keras"
        with h5py.File(weights, "w") as file:
            numbered(file, layers, named)
            file.create_group("vars")
            file.create_group("optimizer/vars").create_dataset("0", data=np.int64(7))
        with zipfile.ZipFile(archive, "w", compression or zipfile.ZIP_STORED) as file:
            file.writestr("metadata.json", "{}")
            file.writestr("config.json", "{}")
            file.write(weights, "model.weights.h5")
        return weights, archive

    def head(self):
        random = np.random.default_rng(3)
        return [("hidden", (random.random((4, 8), dtype="f4"), np.ones(8, "f4"))),
                ("bn", tuple(np.ones(8, "f4") for _ in range(4))),
                ("out", (np.ones((8, 3), "f4"), np.ones(3, "f4")))]

    def test_a_plan_has_read_its_weights(self):
        """What training would refuse, --dry-run does; what it would download, it says."""
        t.draw_scenes(self.folder / "data", 4)
        plan = ("train", self.folder / "data", "--backbone", "vgg-mini", "--input-size", "32", "--dry-run")
        self.succeed(*plan, "--weights", self.folder / "plain.h5")
        wrong = {**self.weights, "block1_conv2": self.weights["block2_conv1"]}
        t.write_keras_h5(self.folder / "wrong.h5", self.specs, wrong)
        for weights in (self.folder / "wrong.h5", self.image):
            said = self.fail_with(1, weights.name, *plan, "--weights", weights).stderr
            self.assertEqual(self.fail_with(1, weights.name, *plan[:-1], "--weights", weights, "-o",
                                            self.folder / "run").stderr.splitlines()[-1], said.splitlines()[-1])
        done = self.succeed("train", self.folder / "data", "--dry-run", "--input-size", "32", "--cache-dir",
                            self.folder / "empty")
        self.assertIn("note: --weights imagenet: not in the cache yet", " ".join(done.stdout.split()))

    def refuse(self, text, path, backbone=BACKBONE):
        return self.fail_with(1, text, "features", self.image, "-o", self.folder / "no.npy", "--backbone", backbone,
                              "--input-size", "32", "--weights", path).stderr

    def test_numbered_layers(self):
        stem = [("to_rgb", (np.ones((1, 1, 1, 3), "f4"), np.zeros(3, "f4")))]
        for layers in (self.base, self.base + self.head(), [("vgg", self.base)] + self.head(),
                       [("encoder", [("vgg", self.base)] + self.head())], stem + self.base + self.head()):
            for named in (True, False):
                for path in self.write(layers, named):
                    said = self.same(path)
                    self.assertEqual("by their order and shapes" in said, not named)
                    self.assertEqual("left out" in said, len(layers) != len(self.base)
                                     and layers[0][0] != "vgg" or "hidden" in str(layers[1:]))

    def test_renamed_layers(self):
        """Also in the older layout of .h5."""
        for path in self.write([(f"base_{name}", value) for name, value in self.base] + self.head()):
            self.assertIn("by their order", self.same(path))
        specs = [(f"base_{name}", shape) for name, shape in self.specs]
        path = self.folder / "renamed.h5"
        for style in ("official", "keras2", "keras3", "model"):
            t.write_keras_h5(path, specs, {f"base_{k}": v for k, v in self.weights.items()}, style)
            self.assertIn("by their order", self.same(path))

    def test_numbers_beyond_nine_are_in_order(self):
        self.assertGreater(len(self.base), 9)
        self.same(self.write(self.base, named=False)[0])

    def test_other_types(self):
        """Whatever a policy makes of the numbers; bfloat16 is no type of HDF5's."""
        rounded = [(name, tuple((v.view("u4") >> 16).astype("u2") for v in value)) for name, value in self.base]
        exact = {name: tuple((v.astype("u4") << 16).view("f4") for v in value) for name, value in rounded}
        t.write_keras_h5(self.folder / "exact.h5", self.specs, exact)
        want, _ = self.features(self.folder / "exact.h5")
        for named in (True, False):
            for path in self.write(rounded, named):
                got, _ = self.features(path)
                np.testing.assert_array_equal(got, want)

    def test_batchnorm(self):
        random = np.random.default_rng(4)
        layers = []
        for name, (kernel, bias) in self.base:
            norm = tuple(random.uniform(0.5, 1.5, len(bias)).astype("f4") for _ in range(4))
            layers += [(name, (kernel, bias)), (name + "_bn", norm)]
        want, _ = self.features(self.write(layers)[0], backbone=self.BACKBONE + "_bn")
        for path in self.write(layers, named=False):
            got, _ = self.features(path, backbone=self.BACKBONE + "_bn")
            np.testing.assert_array_equal(got, want)
            self.refuse("use --backbone vgg-mini_bn", path)  # its convolutions alone would fit

    def test_another_network(self):
        for path in self.write(self.base, named=False):
            self.refuse("use --backbone vgg-mini", path, backbone="vgg13")
        wider = [(name, (np.zeros((3, 3, 3, 7), "f4"), np.zeros(7, "f4"))) for name in "ab"]
        for path in self.write(wider, named=False):
            self.refuse("by name (block1_conv1 and so on) or by order and shapes", path)

    def test_first_blocks(self):
        first = [item for item in self.base if item[0] < "block3"]
        for path in self.write(first, named=False):
            self.refuse("no layer in it", path)
            got, _ = self.features(path, "--until", "block2_pool")
            want, _ = self.features(self.folder / "plain.h5", "--until", "block2_pool")
            np.testing.assert_array_equal(got, want)

    def test_a_top_is_known_by_its_names_alone(self):
        specs = t.layer_specs("vgg11")
        weights = t.random_weights(specs)
        layers = [(name, weights[name]) for name, shape in specs if shape] + self.head()
        for path in self.write(layers, named=False):
            done = self.fail_with(1, "differences", "features", self.image, "-o", self.folder / "no.npy", "--backbone",
                                  "vgg11", "--input-size", "32", "--weights", path, "--include-top")
            self.assertIn("fc1.weight", done.stderr)
            self.features(path, backbone="vgg11")

    def test_preprocessing_is_asked_for(self):
        """Of a file that does not say it; else it is a mistake."""
        path = self.write([(f"base_{name}", value) for name, value in self.base])[0]
        self.assertIn("--preprocessing", self.same(path))
        self.assertNotIn("pixels", self.same(path, "--preprocessing", "keras"))
        made = [self.features(path, "--preprocessing", family)[0] for family in ("keras", "torch", "unit")]
        for i in range(3):
            for j in range(i):
                self.assertGreater(np.abs(made[i] - made[j]).max(), 1e-3)
        pixels = np.asarray(Image.open(self.image).convert("RGB").resize((32, 32), Image.BILINEAR), "f4") / 255
        with torch.no_grad():
            x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
            for name, (kernel, bias) in self.base[:2]:
                x = torch.relu(torch.nn.functional.conv2d(x, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
                                                          torch.from_numpy(bias), padding=1))
        got, _ = self.features(path, "--preprocessing", "unit", "--until", "block1_conv2")
        self.assertLess(np.abs(got - x.numpy()).max(), 1e-4 * np.abs(got).max())
        for weights in ("builtin", "none"):
            self.fail_with(2, "leave the option out", "features", self.image, "-o", self.folder / "no.npy",
                           "--backbone", self.BACKBONE, "--weights", weights, "--preprocessing", "keras")
        self.fail_with(2, "keras", "features", self.image, "--preprocessing", "guess")

    @t.unittest.skipUnless(t.HAS_TRAINING, "built without training")
    def test_preprocessing_is_recorded(self):
        path, run = self.write(self.base, named=False)[1], self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--backbone", self.BACKBONE, "--weights", path,
                     "--input-size", "32", "--epochs", "1", "--no-cache", "--val", self.folder / "p",
                     "--preprocessing", "unit")
        _, metadata = t.read_safetensors(run / "model.safetensors")
        record = t.json.loads(metadata["preprocessing"])
        self.assertEqual((record["channel_order"], record["shift"]), ("rgb", [0, 0, 0]))
        self.assertAlmostEqual(record["scale"][0], 1 / 255, 8)
        self.assertIn("preprocessing = 'unit'", (run / "config.toml").read_text())

    def test_resampling_is_chosen_and_recorded(self):
        """Keras' load_img takes the nearest pixel."""
        path = self.write(self.base, named=False)[1]
        image = self.folder / "wide.png"
        Image.fromarray(np.random.default_rng(5).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(image)
        made = {}
        for name, filtered in (("nearest", Image.NEAREST), ("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
            small = self.folder / f"{name}.png"
            Image.open(image).resize((32, 32), filtered).save(small)
            got, want = (self.features(path, "--resampling", name, image=i)[0] for i in (image, small))
            np.testing.assert_array_equal(got, want)
            made[name] = got
        made["bilinear-noaa"] = self.features(path, "--resampling", "bilinear-noaa", image=image)[0]
        np.testing.assert_array_equal(self.features(path, image=image)[0], made["bilinear"])
        self.assertEqual(len({value.tobytes() for value in made.values()}), 4)
        self.fail_with(2, "bicubic", "features", image, "--resampling", "lanczos")
        if not t.HAS_TRAINING:
            return
        run = self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--backbone", self.BACKBONE, "--weights", path,
                     "--input-size", "32", "--epochs", "1", "--no-cache", "--val", self.folder / "p",
                     "--resampling", "nearest")
        record = t.json.loads(t.read_safetensors(run / "model.safetensors")[1]["preprocessing"])
        self.assertEqual(record["resampling"], "nearest")
        self.assertIn("resampling = 'nearest'", (run / "config.toml").read_text())
        # A model's own goes on with it, and may be replaced.
        for options, want in (([], "nearest"), (["--resampling", "bicubic"], "bicubic")):
            self.succeed("train", self.folder / "p", "-o", self.folder / want, "--weights", run, "--backbone",
                         self.BACKBONE, "--input-size", "32", "--epochs", "1", "--no-cache", "--val",
                         self.folder / "p", *options)
            record = t.json.loads(t.read_safetensors(self.folder / want / "model.safetensors")[1]["preprocessing"])
            self.assertEqual(record["resampling"], want)

    def test_deflated_archive(self):
        self.same(self.write(self.base, compression=zipfile.ZIP_DEFLATED)[1])

    def test_damaged_archives(self):
        path = self.write(self.base)[1]
        good = path.read_bytes()
        for share in (0.01, 0.5, 0.99):
            path.write_bytes(good[:int(len(good) * share)])
            self.refuse("m.keras", path)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model.weights.h5.txt", "x")
        self.refuse("without model.weights.h5", path)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("model.weights.h5", bytes(200 << 20))
        self.refuse("claims", path)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model.weights.h5", b"x" * 1000)
        self.refuse("damaged", path)

    def test_links_lead_nowhere(self):
        path = self.write(self.base)[0]
        with h5py.File(path, "a") as file:
            del file["layers/conv2d_1/vars"]
            file["layers/conv2d_1/vars"] = h5py.ExternalLink("/etc/passwd", "/x")
        self.refuse("1_conv2", path)
        path = self.write(self.base)[0]
        with h5py.File(path, "a") as file:  # a graph without end
            file["layers/more"] = file["/"]
        self.refuse("nested too deep", path)

    def test_predict_names_the_file(self):
        self.fail_with(1, "a Keras model (.keras), not a Graft model", "predict", self.write(self.base)[1], self.image)


if __name__ == "__main__":
    t.main()
