"""Whole classifiers from ONNX models: their answers, computed here by NumPy and PyTorch."""
import graft_testing as t
import numpy as np
import onnx_testing as o
from onnx import TensorProto, helper
from PIL import Image

SIZE = 32
CLASSES = ["cat", "dog", "emu"]


class OnnxClassifiers(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(5)
        self.images = []
        for i in range(3):
            self.images.append(self.folder / f"{i}.png")
            Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(self.images[-1])
        self.rgb = np.stack([np.asarray(Image.open(i), "f4").transpose(2, 0, 1) for i in self.images])
        self.path = self.folder / "m.onnx"
        self.model = self.folder / "m.safetensors"
        self.blocks = o.weights("vgg-mini", blocks=2)
        self.side, self.channels = SIZE // 4, 32

    def convert(self, *options, classes=CLASSES):
        about = self.succeed_json("weights", "inspect", self.path, "--json")["files"][0]
        self.assertTrue(about["convertible"], about)
        return self.succeed("weights", "convert", self.path, self.model, *(("--classes", ",".join(classes)) if classes else ()),
                            *options)

    def check(self, logits, *options, classes=CLASSES, tolerance=1e-5):
        """Converts the file; its answers must be these."""
        self.convert(*options, classes=classes)
        self.compare(o.softmax(logits), classes, tolerance)

    def compare(self, want, classes, tolerance=1e-5):
        done = self.succeed_json("predict", self.model, *self.images, "--json", "--top", len(classes))
        got = np.array([[{top["label"]: top["probability"] for top in row["top"]}[name] for name in classes]
                        for row in done["predictions"]])
        self.assertLess(np.abs(got - want).max(), tolerance)
        self.assertGreater(np.abs(want - want[0]).max(), 1e-3)

    def refuse(self, text, *options, code=1):
        done = self.fail_with(code, text, "weights", "convert", self.path, self.model, "--classes", ",".join(CLASSES),
                              *options)
        self.assertIn("m.onnx", done.stderr)
        self.assertFalse(self.model.exists())
        return done.stderr

    def maps(self, x=None):
        return o.run_trunk(self.blocks, self.rgb / 255 if x is None else x)

    def head(self, *sizes, seed=1):
        layers = [(*o.dense(a, b, seed + i), i + 2 < len(sizes)) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]
        return layers

    def test_the_form_of_the_zoo(self):
        """Its VGGs are MXNet's: opset 7, weights among the inputs, every attribute said, a flatten before each Gemm."""
        head = self.head(self.side**2 * self.channels, 8, 7, 3)
        g = o.Graph((SIZE, SIZE), batch=1, opset=7)
        for block in self.blocks:
            for kernel, bias in block:
                g.add("Conv", kernel, bias, dilations=[1, 1], group=1, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
                g.add("Relu")
            g.add("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[2, 2])
        for kernel, bias, relu in head:
            g.add("Flatten", axis=1)
            g.add("Gemm", np.ascontiguousarray(kernel.T), bias, alpha=1.0, beta=1.0, transA=0, transB=1)
            if relu:
                g.add("Relu").add("Dropout", ratio=0.5)
        model = g.model()
        model.ir_version, model.producer_name = 3, "onnx-mxnet"
        for made in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(made.name, made.data_type, made.dims))
        self.path.write_bytes(model.SerializeToString())
        mean, deviation = (np.float32(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        maps = o.run_trunk(self.blocks, (self.rgb / 255 - mean) / deviation)
        self.check(o.run_head(head, maps.reshape(3, -1)), "--preprocessing", "torch-stretched")

    def test_flatten_in_both_orders(self):
        head = self.head(self.side**2 * self.channels, 8, 3)
        o.tensorflow(self.blocks, SIZE, head).save(self.path)
        self.check(o.run_head(head, self.maps().transpose(0, 2, 3, 1).reshape(3, -1)), "--preprocessing", "unit")
        g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks).add("Flatten")
        for kernel, bias, relu in head:
            g.add("Gemm", np.ascontiguousarray(kernel.T), bias, transB=1)
            if relu:
                g.add("Relu").add("Dropout", np.float32(0.3))
        g.save(self.path)
        self.check(o.run_head(head, self.maps().reshape(3, -1)), "--preprocessing", "unit")

    def test_not_square(self):
        """Rows and columns are not exchanged on the way."""
        head = self.head(self.side * (self.side + 4) * self.channels, 3)
        for i, path in enumerate(self.images):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIZE, SIZE + 16, 3), dtype=np.uint8)).save(path)
        x = np.stack([np.asarray(Image.open(i), "f4").transpose(2, 0, 1) for i in self.images]) / 255
        g = o.Graph((SIZE, SIZE + 16), last=True).add("Transpose", perm=[0, 3, 1, 2])
        o.trunk(g, self.blocks).add("Transpose", perm=[0, 2, 3, 1]).add("Reshape", np.int64([-1, len(head[0][0])]))
        g.add("Gemm", head[0][0], head[0][1]).save(self.path)
        self.check(o.run_head(head, self.maps(x).transpose(0, 2, 3, 1).reshape(3, -1)), "--preprocessing", "unit")

    def test_arithmetic_behind_a_flatten(self):
        """A BatchNorm between flatten and dense layer, in the order of the maps."""
        count = self.side**2 * self.channels
        random = np.random.default_rng(2)
        scale, shift = random.uniform(0.5, 2, count).astype("f4"), random.normal(0, 0.3, count).astype("f4")
        kernel, bias = o.dense(count, 3, 1)
        for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
            g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks)
            if order != (0, 1, 2, 3):
                g.add("Transpose", perm=list(order))
            g.add("Reshape", np.int64([0, -1])).add("Mul", scale).add("Add", shift).add("MatMul", kernel).add("Add", bias)
            g.save(self.path)
            flat = self.maps().transpose(order).reshape(3, -1) * scale + shift
            self.check(flat @ kernel + bias, "--preprocessing", "unit")

    def test_poolings(self):
        kernel, bias = o.dense(self.channels, 3, 1)
        maps = self.maps()
        for pool, vector in (
                (lambda g: g.add("GlobalAveragePool").add("Flatten"), maps.mean((2, 3))),
                (lambda g: g.add("ReduceMean", axes=[-1, -2], keepdims=0), maps.mean((2, 3))),
                (lambda g: g.add("AveragePool", kernel_shape=[self.side] * 2).add("Squeeze", np.int64([3, 2])), maps.mean((2, 3))),
                (lambda g: g.add("Transpose", perm=[0, 2, 3, 1]).add("ReduceMax", axes=[1, 2], keepdims=1).add(
                    "Reshape", np.int64([-1, self.channels])), maps.max((2, 3))),
                (lambda g: g.add("MaxPool", kernel_shape=[self.side] * 2).add("Flatten"), maps.max((2, 3)))):
            g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks)
            pool(g)
            g.add("Gemm", kernel, bias).add("Softmax", axis=-1).save(self.path)
            self.check(vector @ kernel + bias, "--preprocessing", "unit")

    def test_norms_of_a_head(self):
        """In front of a ReLU, behind one, and as a node."""
        random = np.random.default_rng(3)
        a, b = o.dense(self.channels, 8, 1), o.dense(8, 3, 2)
        scale, shift, mean = (random.uniform(0.5, 2, 8).astype("f4") for _ in range(3))
        variance = random.uniform(0.5, 2, 8).astype("f4")
        relu = lambda x: np.maximum(x, 0)
        x = self.maps().mean((2, 3)) @ a[0] + a[1]
        norm = lambda x: (x - mean) / np.sqrt(variance + np.float32(1e-3)) * scale + shift
        for nodes, want in (
                (lambda g: g.add("Mul", scale).add("Add", shift).add("Relu"), relu(x * scale + shift)),
                (lambda g: g.add("Relu").add("Sub", shift).add("Div", scale), (relu(x) - shift) / scale),
                (lambda g: g.add("Relu").add("BatchNormalization", scale, shift, mean, variance, epsilon=1e-3), norm(relu(x))),
                (lambda g: g.add("BatchNormalization", scale, shift, mean, variance, epsilon=1e-3).add("Relu"), relu(norm(x)))):
            g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks).add("GlobalAveragePool").add("Flatten").add("Gemm", *a)
            nodes(g)
            g.add("Gemm", *b).save(self.path)
            self.check(want @ b[0] + b[1], "--preprocessing", "unit")

    def test_sigmoid(self):
        kernel, bias = o.dense(self.channels, 1, 1)
        g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks).add("GlobalMaxPool").add("Flatten").add("Gemm", kernel, bias)
        g.add("Sigmoid").save(self.path)
        z = self.maps().max((2, 3)) @ kernel + bias
        self.check(np.concatenate([0 * z, z], 1), "--preprocessing", "unit", classes=["no", "yes"])
        self.model.unlink()
        g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks).add("GlobalMaxPool").add("Flatten")
        g.add("Gemm", *o.dense(self.channels, 3, 1)).add("Sigmoid").save(self.path)
        self.refuse("labels beside each other", "--preprocessing", "unit")

    def test_pixels(self):
        """Told by the graph; asked for; and both, one behind the other."""
        kernel, bias = o.dense(self.channels, 3, 1)

        def save(*front):
            g = o.Graph((SIZE, SIZE))
            for op, values in front:
                g.add(op, np.float32(values))
            o.trunk(g, self.blocks).add("GlobalAveragePool").add("Flatten").add("Gemm", kernel, bias).save(self.path)

        logits = lambda x: self.maps(x).mean((2, 3)) @ kernel + bias
        save(("Mul", 1 / 255))
        self.check(logits(self.rgb / 255))
        self.model.unlink()
        self.refuse("leave the option out", "--preprocessing", "unit", code=2)
        mean, std = o.TORCH_MEAN.reshape(1, 3, 1, 1), o.TORCH_STD.reshape(1, 3, 1, 1)
        save(("Mul", 1 / 255), ("Sub", mean), ("Div", std))
        self.refuse("torchvision's mean and deviation alone", code=2)
        self.refuse("whether images are cropped", "--preprocessing", "unit", code=2)
        self.check(logits((self.rgb / 255 - mean) / std), "--preprocessing", "torch-stretched")
        self.assertEqual(t.json.loads(t.read_safetensors(self.model)[1]["preprocessing"])["crop_ratio"], 0)
        self.convert("--preprocessing", "torch")
        self.assertGreater(t.json.loads(t.read_safetensors(self.model)[1]["preprocessing"])["crop_ratio"], 1)
        self.model.unlink()
        save()
        self.refuse("which --preprocessing does: keras", code=2)
        save(("Mul", 2), ("Sub", 0.5))
        self.assertIn("its own arithmetic comes behind that", self.refuse("which --preprocessing does: keras", code=2))
        self.check(logits(self.rgb / 255 * 2 - np.float32(0.5)), "--preprocessing", "unit")
        # Channels turned round, and no question where the scale is a known one.
        g = o.Graph((SIZE, SIZE)).add("Gather", np.int64([2, 1, 0]), axis=1).add("Div", np.float32(255))
        o.trunk(g, self.blocks).add("GlobalAveragePool").add("Flatten").add("Gemm", kernel, bias).add("LogSoftmax")
        g.save(self.path)
        self.check(logits(self.rgb[:, ::-1] / 255))

    def test_own_export(self):
        """Labels, statistics, two views and where the weights come from survive the way out and back."""
        if not t.HAS_TRAINING:
            self.skipTest("built without training")
        t.draw_scenes(self.folder / "p", 2, size=40)
        run = self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--backbone", "vgg-mini", "--input-size", SIZE, "--epochs",
                     "1", "--no-cache", "--val", self.folder / "p", "--no-report", "--head", "stats dense:8",
                     "--test-views", "2")
        self.succeed("export", run, "-o", self.path)
        self.convert(classes=None)
        predictions = [self.succeed_json("predict", model, *self.images, "--json", "--top", "9")["predictions"]
                       for model in (run, self.model)]
        self.assertEqual(*predictions)
        (_, before), (_, after) = (t.read_safetensors(f) for f in (run / "model.safetensors", self.model))
        for key in ("classes", "preprocessing", "provenance", "network", "test_views"):
            self.assertEqual(before[key], after[key])

    def test_training_goes_on(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without training")
        t.draw_scenes(self.folder / "p", 2, size=40)
        labels = sorted(path.name for path in (self.folder / "p").iterdir())
        kernel, bias = o.dense(self.channels, len(labels), 1)
        g = o.Graph((SIZE, SIZE)).add("Mul", np.float32(1 / 255))
        o.trunk(g, self.blocks).add("GlobalAveragePool").add("Flatten").add("Gemm", kernel, bias).save(self.path)
        run = self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--weights", self.path, "--head", "keep", "--epochs", "1",
                     "--lr", "1e-9", "--no-cache", "--val", self.folder / "p", "--no-report", "--classes", ",".join(labels))
        tensors, _ = t.read_safetensors(run / "checkpoints" / "best.safetensors")
        self.assertLess(np.abs(tensors["predictions.weight"] - kernel.T).max(), 1e-5)

    # What is refused.

    def test_layers_that_are_not_there(self):
        kernel, bias = o.dense(self.channels, 3, 1)

        def behind(*nodes):
            g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks)
            for op, constants, attributes in nodes:
                g.add(op, *constants, **attributes)
            return g

        pooled = [("GlobalAveragePool", (), {}), ("Flatten", (), {})]
        for graph, text in (
                (behind(("LeakyRelu", (), {}), *pooled, ("Gemm", (kernel, bias), {})), "LeakyRelu (node 'LeakyRelu_"),
                (behind(*pooled, ("Gemm", (kernel, bias), {"alpha": 2.0})), "it scales"),
                (behind(*pooled, ("Gemm", (kernel, bias), {}), ("Softmax", (), {"axis": 0})), "is not over the classes"),
                (behind(*pooled, ("Gemm", (kernel, bias), {}), ("Softmax", (), {}), ("Mul", (np.float32(2),), {})),
                 "behind a softmax"),
                (behind(*pooled, ("Gemm", (kernel[:5], bias), {})), "weights for 5 inputs"),
                (behind(*pooled, ("Gemm", (kernel, bias[:2]), {})), "a bias that does not fit"),
                (behind(*pooled), "no head that ends in a dense layer"),
                (behind(("AveragePool", (), {"kernel_shape": [2, 2]}), *pooled), "averages over 2x2"),
                (behind(("Reshape", (np.int64([-1, 4, 4]),), {})), "makes another shape"),
                (behind(("Transpose", (), {"perm": [0, 1, 3, 2]})), "exchanges dimensions of maps"),
                (behind(*pooled, ("Gemm", o.dense(self.channels, 1, 1), {}), ("Softmax", (), {})), "one output")):
            graph.save(self.path)
            with self.subTest(text):
                self.refuse(text, "--preprocessing", "unit")

    def test_branch(self):
        g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks)
        maps = g.end
        mean = g.node("Flatten", [g.node("GlobalAveragePool", [maps])])
        greatest = g.node("Flatten", [g.node("GlobalMaxPool", [maps])])
        g.end = g.node("Concat", [mean, greatest], axis=1)
        g.add("Gemm", *o.dense(2 * self.channels, 3, 1)).save(self.path)
        self.refuse("is a branch", "--preprocessing", "unit")

    def test_output_elsewhere(self):
        """An output that is not the last layer's."""
        g = o.trunk(o.Graph((SIZE, SIZE)), self.blocks)
        maps = g.end
        g.add("GlobalAveragePool").add("Flatten").add("Gemm", *o.dense(self.channels, 3, 1))
        g.end = maps
        g.save(self.path)
        self.refuse("no output of the graph", "--preprocessing", "unit")

    def test_backbone_alone(self):
        o.trunk(o.Graph((SIZE, SIZE)), self.blocks).add("LeakyRelu").save(self.path)
        self.assertIn("--without-head", self.refuse("LeakyRelu", "--preprocessing", "unit"))
        self.succeed("weights", "convert", self.path, self.model, "--without-head", "--preprocessing", "unit")
        out = self.folder / "o.npy"
        self.succeed("features", *self.images, "-o", out, "--weights", self.model, "--backbone", "vgg-mini", "--until",
                     "block2_pool", "--input-size", SIZE)
        want = self.maps()
        self.assertLess(np.abs(np.load(out) - want).max() / np.abs(want).max(), 1e-5)
        # No advice that would be refused in its turn.
        self.model.unlink()
        o.Graph((SIZE, SIZE)).add("LeakyRelu").save(self.path)
        self.assertNotIn("--without-head", self.refuse("LeakyRelu", "--preprocessing", "unit"))


if __name__ == "__main__":
    t.main()
