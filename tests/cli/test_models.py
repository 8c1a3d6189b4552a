"""Model files, run folders and configurations that say what cannot be: one clear line from every command."""
import json
import struct
import time

import numpy as np
from PIL import Image

import graft_testing as t

INPUT = {"kind": "input", "name": "input"}
FLAT = {"kind": "flatten", "name": "flat", "head": True}
DENSE = {"kind": "dense", "name": "predictions", "outputs": 3, "head": True}
PREPROCESSING = {"channel_order": "rgb", "scale": [0.01] * 3, "shift": [0, 0, 0],
                 "resampling": "bilinear", "crop_ratio": 0}


class Models(t.TestCase):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.safetensors"
        self.image = self.folder / "image.png"
        Image.fromarray(np.full((64, 64, 3), 200, "u1")).save(self.image)

    def write(self, layers=(INPUT, FLAT, DENSE), classes=("a", "b", "c"), tensors=None, size=(8, 8),
              extra=(), **metadata):
        """A model file with fields as given; strings are taken as JSON text."""
        if tensors is None:
            pixels = 3 * 8 * 8
            tensors = {"predictions.weight": np.zeros((3, pixels), "f4"),
                       "predictions.bias": np.zeros(3, "f4")}
        fields = {"network": {"backbone": "vgg-mini", "input_size": size, "layers": layers},
                  "classes": classes, "preprocessing": PREPROCESSING, "training": {},
                  "provenance": {"source": "s", "md5": "", "licence": "l"}, **metadata}
        texts = {key: value if isinstance(value, str) else json.dumps(value)
                 for key, value in fields.items()}
        header, offset = {"__metadata__": {"graft_format": "1", **texts}}, 0
        for name, value in tensors.items():
            header[name] = {"dtype": "F32", "shape": value.shape,
                            "data_offsets": [offset, offset + value.nbytes]}
            offset += value.nbytes
        text = json.dumps(header | dict(extra)).encode()
        self.model.write_bytes(struct.pack("<Q", len(text)) + text
                               + b"".join(value.tobytes() for value in tensors.values()))

    def test_labels_that_look_the_same(self):
        self.write(classes=("cat", "cat ", "dog"))
        self.refuse("stands twice")

    def refuse(self, text, *commands):
        """Every command that reads a model says so."""
        data = self.folder / "data"
        if not data.exists():
            t.draw_scenes(data, 1)
        for command in commands or (
                ("predict", self.model, self.image), ("summary", self.model), ("evaluate", self.model, data),
                ("predict", self.model, self.image, "--explain", self.folder / "why"),
                ("weights", "convert", self.model, "-o", self.folder / "out.safetensors")):
            done = self.fail_with(1, text, *command, timeout=20)
            self.assertIn("model.safetensors", done.stderr)
            self.assertEqual(done.stdout, "")

    def test_the_model_that_the_others_change_is_good(self):
        self.write()
        self.assertIn("a 0.3333", self.succeed("predict", self.model, self.image).stdout)

    def test_a_head_that_is_not_flat(self):
        self.write([{"kind": "input", "name": "input", "head": True}], tensors={}, size=(64, 64))
        self.refuse("input layer belongs to the head")
        self.write([INPUT, {"kind": "maxpool", "name": "pool", "head": True}], tensors={})
        self.refuse("last layer is not dense")

    def test_sizes(self):
        for size in ((2**32 + 8, 8), (8.9, 8), (8, 8, 3), (1e300, 8), (True, 8)):
            self.write(size=size)
            self.refuse("input_size", ("predict", self.model, self.image))

    def test_negative_variance(self):
        layers = (INPUT, {"kind": "batchnorm", "name": "bn", "epsilon": 1e-5, "head": True}, FLAT, DENSE)
        ones = np.ones(3, "f4")
        tensors = {"bn.weight": ones, "bn.bias": ones, "bn.running_mean": ones, "bn.running_var": -ones,
                   "predictions.weight": np.zeros((3, 192), "f4"), "predictions.bias": ones}
        self.write(layers, tensors=tensors)
        self.refuse("negative variance")

    def test_nesting(self):
        deep = '{"a":' * 100_000 + "1" + "}" * 100_000
        self.write(training=deep)
        self.refuse("nested deeper")
        self.write(extra={"x": json.loads("[" * 50 + "]" * 50)})
        self.refuse("nested deeper", ("predict", self.model, self.image))

    def test_many_tensors(self):
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        self.write(extra={f"t{i}": empty for i in range(40_000)})
        start = time.monotonic()
        self.refuse("40000 differences", ("predict", self.model, self.image))
        self.assertLess(time.monotonic() - start, 10)

    def test_records(self):
        self.write(training={"fine_tune": 3})
        self.refuse("training.fine_tune")
        self.write(training={"fine_tune": "block9"})
        self.refuse("training.fine_tune")
        self.write(training={"temperature": "warm"})
        self.refuse("training.temperature")

    def test_as_weights(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        data = self.folder / "data"
        t.draw_scenes(data, 2)
        for field, value in (("training", '{"a":' * 100_000), ("network", {"backbone": "vgg-mini"}),
                             ("preprocessing", {**PREPROCESSING, "scale": [1e300] * 3})):
            self.write(**{field: value})
            self.fail_with(1, field, "train", data, "--backbone", "vgg-mini", "--weights", self.model,
                           "-o", self.folder / "run")

    def test_a_flipped_bit(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        data, run = self.folder / "data", self.folder / "run"
        t.draw_scenes(data, 3)
        self.succeed("train", data, "--backbone", "vgg-mini", "--input-size", "32", "--head", "gap",
                     "--epochs", "1", "--no-report", "-o", run)
        model = run / "model.safetensors"
        good = model.read_bytes()
        predict = ("predict", run, self.image)
        want = self.succeed(*predict).stdout
        for at in (len(good) - 2, len(good) // 2, good.index(b"imagenet" if b"imagenet" in good else b"source"),
                   good.index(b"forest")):
            bad = bytearray(good)
            bad[at] ^= 1
            model.write_bytes(bad)
            for command in (predict, ("summary", run), ("evaluate", run, data),
                            ("weights", "convert", run, "-o", self.folder / "b.safetensors")):
                self.fail_with(1, "damaged", *command)
        model.write_bytes(good)
        self.assertEqual(self.succeed(*predict).stdout, want)
        # As readers elsewhere see it: a valid file, with one string more.
        tensors, metadata = t.read_safetensors(model)
        self.assertEqual(len(metadata["file_xxh3"]), 32)
        # A file without the hash is as good as ever, whatever else is in it.
        t.write_safetensors(model, tensors)
        text = json.loads(good[8:8 + struct.unpack("<Q", good[:8])[0]])
        del text["__metadata__"]["file_xxh3"]
        text = json.dumps(text).encode()
        size = struct.unpack("<Q", good[:8])[0]
        model.write_bytes(struct.pack("<Q", len(text)) + text + good[8 + size:])
        self.assertEqual(self.succeed(*predict).stdout, want)

    def test_run_folders(self):
        row = "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n{},1,1,1,1,0.1,1\n"
        predictions = "path,label,predicted,probability,split\nx.jpg,a,a,0.5,val\n"
        runs = [self.folder / "r1", self.folder / "r2"]
        for run in runs:
            run.mkdir()
            (run / "history.csv").write_text(row.format(1))
            (run / "metrics.json").write_text('{"best_epoch":1,"validation":{"top1":0.5,"loss":1.0}}')
            (run / "predictions.csv").write_text(predictions)
            (run / "config.toml").write_text('backbone = "vgg16"\n')
        compare = ("compare", *runs, "--html", self.folder / "page.html")
        self.succeed(*compare)
        for name, content, text in (
                ("metrics.json", '{"best_epoch":"1"}', "field 'best_epoch'"),
                ("metrics.json", '{"validation":{"top1":"high"}}', "field 'validation.top1'"),
                ("metrics.json", '{"validation":[]}', "field 'validation'"),
                ("metrics.json", "[" * 100_000, "nested deeper"),
                ("metrics.json", '{"best_epoch":1e300}', "field 'best_epoch'"),
                ("history.csv", row.format("nan"), "history.csv:2"),
                ("history.csv", row.format("1e300"), "history.csv:2"),
                ("history.csv", row.format("-3"), "history.csv:2"),
                ("predictions.csv", predictions.replace("x", "x\0"), "NUL byte")):
            path = runs[1] / name
            before = path.read_text()
            path.write_text(content)
            done = self.fail_with(1, text, *compare)
            self.assertIn(str(path), done.stderr)
            path.write_text(before)

    def test_configurations(self):
        data = self.folder / "data"
        t.draw_scenes(data, 2)
        config = self.folder / "c.toml"
        for content, text in (
                ("a" + ".a" * 50_000 + " = 1\n", "dots"),
                ("\n".join(f"[{'.'.join('a' * 100)}]" for _ in range(100)), "dots"),
                ("a = " + "[" * 100_000 + "]" * 100_000, "c.toml"),
                ("a = " + "{a=" * 60_000 + "1" + "}" * 60_000, "c.toml"),
                ("#" * 300_000, "at most"),
                ('head = "gap\\u0000dense:3"\n', "NUL character"),
                ('weights = "none\\u0000"\n', "NUL character"),
                ('head = "gap\0"\n', "c.toml:1"),
                (f'head = "{"dropout:0 " * 20_000}"\n', "at most"),
                (f'head = "gap {"dropout:0 " * 5_000}"\n', "--head: 5001 words")):
            config.write_text(content)
            start = time.monotonic()
            self.fail_with(2, text, "train", data, "--config", config, "--dry-run", "--backbone", "vgg-mini")
            self.assertLess(time.monotonic() - start, 5, text)

    def test_many_words(self):
        """Whatever the words, and however many: at once."""
        data = self.folder / "data"
        t.draw_scenes(data, 2)
        train = ("train", data, "--dry-run", "--backbone", "vgg-mini")
        start = time.monotonic()
        self.fail_with(2, "at most 500", *train, "--head", "gap " + "dropout:0 " * 12_000)
        self.fail_with(2, "at most 500", "summary", "--classes", "2", "--head", "gap" + ",batchnorm" * 12_000)
        self.succeed(*train, "--augment", "hflip " * 20_000)
        self.succeed(*train, "--exclude", "corrupt," * 15_000)
        self.assertLess(time.monotonic() - start, 10)

    def test_lists_with_nul_bytes(self):
        self.write()
        done = self.fail_with(1, "NUL", "predict", self.model, "-", stdin=f"{self.image}\0x\n")
        self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    t.main()
