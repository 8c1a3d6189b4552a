"""Activations against a float64 PyTorch reference: full-size weights in the official layout, drawn
images. The real weights on real photos are in e2e/test_scenes.py."""
import graft_testing as t
import numpy as np
import torch
from PIL import Image

MEAN = np.array([103.939, 116.779, 123.68])


def keras_input(path, size):
    image = Image.open(path).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.BILINEAR)
    return (np.asarray(image).astype("f8")[..., ::-1] - MEAN).transpose(2, 0, 1)


def reference(specs, weights, x, until):
    """Runs Keras-layout weights in float64; returns N, C, H, W, or N, units."""
    x = torch.tensor(x)
    for layer, shape in specs:
        if shape is None:
            if layer == "flatten":
                x = x.permute(0, 2, 3, 1).flatten(1)  # H, W, C as Keras does
            else:
                x = torch.max_pool2d(x, 2)
        else:
            kernel = torch.tensor(weights[layer][0].astype("f8"))
            bias = torch.tensor(weights[layer][1].astype("f8"))
            if kernel.ndim == 4:
                x = torch.relu(torch.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
            else:
                x = x @ kernel + bias
                if layer != "predictions":
                    x = torch.relu(x)
        if layer == until:
            return x.numpy()
    raise ValueError(until)


class Features(t.TestCase):
    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "images", 1, size=100)
        self.images = sorted((self.folder / "images").rglob("*.jpg"))[:2]

    def features(self, *arguments):
        out = self.folder / "out.npy"
        self.succeed("features", *self.images, "-o", out, *arguments)
        return np.load(out)

    def assertNear(self, got, want, tolerance):
        self.assertEqual(got.shape, want.shape)
        self.assertLess(np.abs(got - want).max() / np.abs(want).max(), tolerance)

    def test_full_size_vgg16_notop_at_224(self):
        specs = t.layer_specs("vgg16")
        weights = t.random_weights(specs)
        path = self.folder / "vgg16_notop.h5"
        t.write_keras_h5(path, specs, weights)
        self.assertGreater(path.stat().st_size, 58_000_000)
        x = np.stack([keras_input(p, 224) for p in self.images])
        want = reference(specs, weights, x, "block5_pool")
        got = self.features("--backbone", "vgg16", "--weights", path)
        self.assertEqual(got.dtype, np.float32)
        self.assertNear(got, want, 1e-4)
        self.assertNear(self.features("--backbone", "vgg16", "--weights", path, "--pool", "gap"),
                        want.mean((2, 3)), 1e-4)
        self.assertNear(self.features("--backbone", "vgg16", "--weights", path, "--pool", "flatten"),
                        want.reshape(2, -1), 1e-4)

    def test_full_size_vgg19_notop_at_odd_size(self):
        specs = t.layer_specs("vgg19")
        weights = t.random_weights(specs, seed=1)
        path = self.folder / "vgg19_notop.h5"
        t.write_keras_h5(path, specs, weights, style="keras2")
        x = np.stack([keras_input(p, 111) for p in self.images])
        for until in ("block4_conv2", "block5_pool"):
            got = self.features("--backbone", "vgg19", "--weights", path, "--until", until,
                                "--input-size", "111")
            self.assertNear(got, reference(specs, weights, x, until), 1e-4)

    def test_top_flattens_as_keras_does(self):
        # Full-size convolutions and the real fc1 width would be 550 MB: a 64-pixel input makes
        # fc1 read 2×2×512.
        specs = t.layer_specs("vgg11", top_classes=1000, map_size=2)
        weights = t.random_weights(specs, seed=2)
        path = self.folder / "top.h5"
        t.write_keras_h5(path, specs, weights, style="model")
        x = np.stack([keras_input(p, 64) for p in self.images])
        common = ("--backbone", "vgg11", "--weights", path, "--input-size", "64")
        for until, more in (("fc1", ("--until", "fc1")), ("fc2", ("--until", "fc2")),
                            ("predictions", ("--include-top",))):
            self.assertNear(self.features(*common, *more), reference(specs, weights, x, until), 1e-4)
        # Without the top the same file serves any input size.
        x = np.stack([keras_input(p, 80) for p in self.images])
        self.assertNear(self.features("--backbone", "vgg11", "--weights", path, "--input-size", "80"),
                        reference(specs, weights, x, "block5_pool"), 1e-4)

    def test_all_namings_read_alike(self):
        specs = t.layer_specs("vgg11")
        weights = t.random_weights(specs, seed=3)
        rows = []
        for style in ("official", "keras2", "keras3", "model", "chunked"):
            path = self.folder / f"{style}.h5"
            t.write_keras_h5(path, specs, weights, style=style)
            rows.append(self.features("--backbone", "vgg11", "--weights", path, "--input-size", "64",
                                      "--pool", "gap"))
        for row in rows[1:]:
            np.testing.assert_array_equal(row, rows[0])

    def test_rows_follow_sorted_paths(self):
        paths = sorted((self.folder / "images").rglob("*.jpg"))
        out = self.folder / "rows.npy"
        document = self.succeed_json("features", *reversed(paths), self.folder / "images", "-o", out,
                                     "--backbone", "vgg-mini", "--weights", "none", "--json", "--no-cache")
        self.assertEqual(document["shape"][0], len(paths))
        lines = (self.folder / "rows.csv").read_text().splitlines()
        self.assertEqual(lines[0], "row,path")
        self.assertEqual([line.split(",")[1] for line in lines[1:]], [str(p) for p in paths])
        one = self.folder / "one.npy"
        self.succeed("features", paths[3], "-o", one, "--backbone", "vgg-mini", "--weights", "none")
        np.testing.assert_allclose(np.load(one)[0], np.load(out)[3], rtol=1e-4, atol=1e-5)

    def test_bad_image_is_named_and_the_others_are_written(self):
        bad = self.folder / "images" / "bad.jpg"
        bad.write_text("not an image")
        out = self.folder / "f.npy"
        done = self.fail_with(1, str(bad), "features", self.folder / "images", "-o", out,
                              "--backbone", "vgg-mini", "--weights", "none")
        self.assertEqual(np.load(out).shape[0], 6)
        self.assertIn("skipped", done.stderr)

    def test_usage(self):
        self.fail_with(2, ".npy", "features", self.folder, "-o", "x.bin", "--weights", "none")
        self.fail_with(2, "--output", "features", self.folder)
        self.fail_with(2, "flat vector", "features", self.folder, "-o", "x.npy", "--include-top",
                       "--pool", "gap", "--weights", "none")


if __name__ == "__main__":
    t.main()
