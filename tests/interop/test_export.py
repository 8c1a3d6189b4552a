"""What graft export writes, in ONNX Runtime, OpenVINO, Keras and PyTorch: the same logits."""
import json
import re
import shutil
import subprocess
import sys
import unittest

import keras
import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from PIL import Image

import export_testing as e
import graft_testing as t

VGG16 = t.SHARED / "weights" / "vgg16_imagenet_notop.h5"
PHOTOS = 200
BATCH = 25


class Backbones(t.TestCase):
    def test_keras_and_pytorch_start_from_them(self):
        size = (64, 64, 3)
        base = keras.applications.VGG16(weights=None, include_top=False, input_shape=size)
        base.save(self.folder / "base.h5")
        for name in ("out.h5", "out.pth"):
            self.succeed("weights", "convert", self.folder / "base.h5", self.folder / name, "--without-head")
        again = keras.applications.VGG16(weights=None, include_top=False, input_shape=size)
        again.load_weights(self.folder / "out.h5")
        for got, want in zip(again.get_weights(), base.get_weights()):
            np.testing.assert_array_equal(got, want)
        state = torch.load(self.folder / "out.pth", weights_only=True)
        kernels = [w for w in base.get_weights() if w.ndim == 4]
        self.assertEqual(len(state), 2 * len(kernels))
        for (name, got), want in zip(((n, v) for n, v in state.items() if n.endswith("weight")), kernels):
            np.testing.assert_array_equal(got.numpy(), want.transpose(3, 2, 0, 1), err_msg=name)


class Exported(t.TestCase):
    """A trained model on real photos, or, where there are none, on drawn scenes."""

    def train(self, per_class, *options):
        data = self.folder / "data"
        if t.SCENES.exists():
            for kind in sorted(path for path in (t.SCENES / "train").iterdir() if path.is_dir()):
                (data / kind.name).mkdir(parents=True)
                for image in sorted(kind.iterdir())[:per_class]:
                    shutil.copy(image, data / kind.name)
            kinds = [sorted(path.iterdir()) for path in sorted((t.SCENES / "train").iterdir()) if path.is_dir()]
            photos = [kind[-1 - i] for i in range(PHOTOS // len(kinds) + 1) for kind in kinds][:PHOTOS]
        else:
            t.draw_scenes(data, per_class)
            t.draw_scenes(self.folder / "more", PHOTOS // 6 + 1, 1000)
            photos = sorted((self.folder / "more").rglob("*.jpg"))[:PHOTOS]
        run = self.folder / "run"
        self.succeed("train", data, "-o", run, "--no-report", "--quiet", *options, timeout=1800)
        return run, photos

    def prepare(self, run, photos):
        _, metadata = t.read_safetensors(run / "model.safetensors")
        self.labels = json.loads(metadata["classes"])
        height, width = json.loads(metadata["network"])["input_size"]
        self.assertEqual(json.loads(metadata["preprocessing"])["crop_ratio"], 0)
        # Two passes of whole levels, the horizontal one first: docs/formats.md.
        def fitted(path):
            image = Image.open(path).convert("RGB")
            return image.resize((width, image.height), Image.BILINEAR).resize((width, height), Image.BILINEAR)
        self.pixels = np.stack([np.asarray(fitted(path)) for path in photos])
        done = self.succeed_json("predict", run, *photos, "--json", "--top", len(self.labels), timeout=1800)
        self.top = [row["label"] for row in done["predictions"]]
        self.want = np.log(np.array([[{top["label"]: top["probability"] for top in row["top"]}[label]
                                      for label in self.labels] for row in done["predictions"]]))

    def batches(self):
        return (self.pixels[i:i + BATCH] for i in range(0, len(self.pixels), BATCH))

    def compare(self, what, logits, tolerance=1e-4):
        """Logits up to what a softmax leaves out, in parts of the largest."""
        logits = np.concatenate([np.asarray(part) for part in logits])
        self.assertEqual(logits.shape, self.want.shape)
        off = np.abs(e.log_softmax(logits) - self.want).max(1) / np.abs(logits).max(1)
        print(f"{what}: {off.max():.1e} on {len(off)} images")
        self.assertLess(off.max(), tolerance, what)
        if self.top:
            self.assertEqual([self.labels[i] for i in logits.argmax(1)], self.top, what)

    def export(self, run, name, *options):
        path = self.folder / name
        self.succeed("export", run, "-o", path, *options)
        return path

    def check_onnx(self, run, name, tolerance=1e-4, *options):
        path = self.export(run, name, *options)
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.compare(f"ONNX Runtime {name}", (session.run(["logits"], {"image": x})[0] for x in self.batches()), tolerance)
        probabilities = session.run(["probabilities"], {"image": self.pixels[:3]})[0]
        np.testing.assert_allclose(np.log(probabilities), self.want[:3], atol=100 * tolerance)
        # Else it computes in bfloat16 where the processor can.
        model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.compare(f"OpenVINO {name}", (model(x)[model.output("logits")] for x in self.batches()), tolerance)

    def check_keras(self, run, name, tolerance=1e-4, *options):
        model = keras.models.load_model(self.export(run, name, *options))
        logits = keras.Model(model.input, model.get_layer("logits").output)
        self.compare(f"Keras {name}", (logits.predict(x, verbose=0) for x in self.batches()), tolerance)
        np.testing.assert_allclose(np.log(model.predict(self.pixels[:3], verbose=0)), self.want[:3], atol=100 * tolerance)
        return model

    def check_torch(self, run, name, tolerance=1e-4, *options):
        load, classifier = e.document_classifier()
        module = classifier(*load(self.export(run, name, *options)))
        with torch.no_grad():
            self.compare(f"PyTorch {name}", [module(torch.from_numpy(x)) for x in self.batches()], tolerance)

    def check(self, run, photos):
        self.prepare(run, photos)
        self.check_onnx(run, "m.onnx")
        for name in ("m.keras", "m.h5"):
            self.check_keras(run, name)
        for name in ("m.pth", "m.safetensors"):
            self.check_torch(run, name)

    def test_small_models_in_every_format(self):
        """A flattened head of two views; statistics; convolutions and BatchNorm."""
        mini = ("--backbone", "vgg-mini")
        for options in ((*mini, "--head", "flatten dropout:0.3 dense:24", "--test-views", "2"),
                        (*mini, "--until", "block3_pool", "--head", "default"),
                        ("--backbone", "vgg-mini_bn", "--weights", "none", "--head", "conv:16 batchnorm gmp batchnorm")):
            with self.subTest(options=options):
                shutil.rmtree(self.folder / "data", ignore_errors=True)
                shutil.rmtree(self.folder / "run", ignore_errors=True)
                run, photos = self.train(10, "--input-size", "64x80", "--epochs", "2", *options)
                self.check(run, photos)

    def test_half(self):
        run, photos = self.train(10, "--backbone", "vgg-mini", "--epochs", "2")
        self.prepare(run, photos)
        # Weights are rounded: classes that were all but equal may change places.
        self.top = None
        for check, name in ((self.check_onnx, "m.onnx"), (self.check_keras, "m.keras"), (self.check_keras, "m.h5"),
                            (self.check_torch, "m.pth"), (self.check_torch, "m.safetensors")):
            check(run, name, 5e-3, "--dtype", "fp16")

    def test_keras_goes_on_training(self):
        run, photos = self.train(10, "--backbone", "vgg-mini", "--epochs", "2")
        self.prepare(run, photos)
        model = self.check_keras(run, "m.keras")
        frozen = model.get_layer("preprocessing").get_weights()
        (before, _) = model.get_layer("predictions").get_weights()
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(self.pixels[:16], np.arange(16) % len(self.labels), epochs=1, verbose=0)
        for was, now in zip(frozen, model.get_layer("preprocessing").get_weights()):
            np.testing.assert_array_equal(was, now)
        self.assertGreater(np.abs(model.get_layer("predictions").get_weights()[0] - before).max(), 0)

    def test_programs_in_the_document(self):
        """docs/export.md's lines for ONNX Runtime and Keras, beside files of those names."""
        run, photos = self.train(10, "--backbone", "vgg-mini", "--epochs", "2")
        self.prepare(run, photos[:1])
        for name in ("pets.onnx", "pets.keras"):
            self.export(run, name)
        shutil.copy(photos[0], self.folder / "photo.jpg")
        page = (t.SOURCE / "docs" / "export.md").read_text()
        programs = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Classifier" not in code]
        self.assertEqual(len(programs), 2)
        said = [subprocess.run([sys.executable, "-B", "-c", program], cwd=self.folder, capture_output=True, text=True)
                for program in programs]
        for done in said:
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(said[0].stdout.strip(), self.top[0])

    @unittest.skipUnless(VGG16.exists() and t.SCENES.exists(), f"no {VGG16} or no photos")
    def test_the_real_vgg16(self):
        run, photos = self.train(10, "--weights", VGG16, "--fine-tune", "0", "--epochs", "2")
        self.check(run, photos)


if __name__ == "__main__":
    print("onnxruntime", onnxruntime.__version__, "OpenVINO", openvino.__version__, "Keras", keras.__version__,
          "PyTorch", torch.__version__)
    t.main()
