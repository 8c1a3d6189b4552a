"""The lines of Python in docs/formats.md read a model as the program does."""
import json
import re
import subprocess
import sys

import numpy as np
from PIL import Image

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

TOLERANCE = 5e-4  # as docs/formats.md says; the engine's Winograd convolutions round otherwise


def snippet():
    """The one Python program of the page."""
    found = re.findall(r"```python\n(.*?)```", (t.SOURCE / "docs" / "formats.md").read_text(),
                       re.DOTALL)
    assert len(found) == 1, len(found)
    return found[0]


class Formats(t.TestCase):
    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "data", 4)
        self.script = self.folder / "snippet.py"
        self.script.write_text(snippet())
        random = np.random.default_rng(3)
        image = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        self.image = self.folder / "image.png"
        Image.fromarray(image).resize((90, 70), Image.Resampling.BICUBIC).save(self.image)

    def train(self, *options):
        run = self.folder / "run"
        self.succeed("train", self.folder / "data", "--backbone", "vgg-mini", "--input-size", "48x40",
                     "--epochs", "2", "--threads", "2", "--no-report", "--force", "-o", run, *options)
        return run / "model.safetensors"

    def numpy(self, model):
        done = subprocess.run([sys.executable, "-B", self.script, model, self.image],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def compare(self, model):
        """The greatest difference of a probability."""
        row = self.succeed_json("predict", model, self.image, "--json", "--top", "6")["predictions"][0]
        want = {top["label"]: top["probability"] for top in row["top"]}
        got = self.numpy(model)
        self.assertEqual(set(got), set(want))
        return max(abs(got[label] - want[label]) for label in want)

    def test_flatten_reads_channels_rows_columns(self):
        model = self.train("--until", "block3_pool", "--head", "batchnorm conv:8 flatten dense:16 dropout:0.5",
                           "--augment", "none")
        self.assertLess(self.compare(model), TOLERANCE)
        # Rows, columns, channels would be something else: the test can tell.
        tensors, metadata = t.read_safetensors(model)
        fc1 = tensors["fc1.weight"]
        height, width = 6, 5
        wrong = fc1.reshape(16, height, width, -1).transpose(0, 3, 1, 2).reshape(fc1.shape)
        data = bytearray(model.read_bytes())
        at = bytes(data).index(np.ascontiguousarray(fc1).tobytes())
        data[at:at + fc1.nbytes] = np.ascontiguousarray(wrong).tobytes()
        other = self.folder / "other.safetensors"
        other.write_bytes(data)
        before, after = self.numpy(model), self.numpy(other)
        self.assertGreater(max(abs(before[k] - after[k]) for k in before), 10 * TOLERANCE)
        # ... and the program finds a file that was changed so.
        self.fail_with(1, "file_xxh3", "predict", other, self.image)

    def test_every_other_kind_of_layer(self):
        for head in ("stats batchnorm dense:12", "conv:8 batchnorm maxpool gap", "gmp dropout:0.2"):
            model = self.train("--head", head, "--until", "block2_pool", "--augment", "none")
            self.assertLess(self.compare(model), TOLERANCE, head)

    def test_two_views(self):
        model = self.train("--until", "block2_pool", "--head", "conv:8 flatten", "--test-views", "2")
        self.assertLess(self.compare(model), TOLERANCE)

    def test_half_precision(self):
        model = self.train("--head", "gap", "--augment", "none")
        half = self.folder / "half.safetensors"
        self.succeed("weights", "convert", model, "-o", half, "--dtype", "fp16")
        raw = half.read_bytes()
        self.assertRegex(raw[:4000].decode("latin-1"), r'"file_xxh3":"[0-9a-f]{32}"')


if __name__ == "__main__":
    t.main()
