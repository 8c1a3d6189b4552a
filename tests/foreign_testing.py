"""What tests of other programs' files share: images, conversion, comparison with the original's answers."""
import json

import graft_testing as t
import keras_testing as k
import numpy as np
from PIL import Image

NAMES = ["ash", "birch", "cedar"]


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
