"""ONNX models as weights: graphs of PyTorch's and TensorFlow's exporters, all types, hostile ones."""
import io
import os

import graft_testing as t
import numpy as np
import onnx_testing as o
import torch
import torch_testing as tt
from onnx import TensorProto
from PIL import Image

SIZE = 32


def families(image, size=SIZE):
    """Pixels (3, H, W) as each family prepares them, of an image that has the size."""
    rgb = np.asarray(Image.open(image).convert("RGB"), "f4").transpose(2, 0, 1)
    mean, std = o.TORCH_MEAN.reshape(3, 1, 1), o.TORCH_STD.reshape(3, 1, 1)
    return {"rgb": rgb, "unit": rgb / 255, "torch": (rgb / 255 - mean) / std,
            "keras": rgb[::-1] - o.CAFFE_MEAN.reshape(3, 1, 1), "symmetric": rgb / np.float32(127.5) - 1}


class OnnxWeights(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(5)
        self.image = self.folder / "x.png"
        Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(self.image)
        self.path = self.folder / "m.onnx"
        self.blocks = o.weights("vgg-mini")

    def features(self, path, *more, backbone="vgg-mini", size=SIZE):
        out = self.folder / "out.npy"
        done = self.succeed("features", self.image, "-o", out, "--backbone", backbone, "--input-size", size,
                            "--weights", path, *more)
        return np.load(out), done.stderr

    def check(self, path, want, *more, tolerance=1e-5, **keywords):
        got, said = self.features(path, *more, **keywords)
        self.assertEqual(got.shape[1:], want.shape[1:])
        self.assertLess(np.abs(got - want).max() / np.abs(want).max(), tolerance)
        return said

    def refuse(self, text, path=None, *more, backbone="vgg-mini", code=1):
        out = self.folder / "refused.npy"
        done = self.fail_with(code, text, "features", self.image, "-o", out, "--backbone", backbone,
                              "--input-size", SIZE, "--weights", path or self.path, "--preprocessing", "unit", *more)
        self.assertFalse(out.exists())
        self.assertIn("m.onnx", done.stderr)
        return done.stderr

    def inspect(self, path=None):
        return self.succeed_json("weights", "inspect", path or self.path, "--json")["files"][0]

    def want(self, family="unit"):
        return o.run_trunk(self.blocks, families(self.image)[family][None])

    # Exporters.

    def test_torch_export(self):
        """torch.onnx.export's own graph: BatchNorms folded into the convolutions, and kept."""
        x = torch.from_numpy(families(self.image)["unit"][None])
        model = tt.make("vgg11_bn").features
        want = model(x).detach().numpy()
        mode = torch.onnx.TrainingMode
        for training, backbone, tolerance in ((mode.EVAL, "vgg11", 1e-4), (mode.PRESERVE, "vgg11_bn", 1e-5)):
            torch.onnx.export(model, x, str(self.path), training=training, opset_version=13,
                              do_constant_folding=training == mode.EVAL)
            said = self.check(self.path, want, "--preprocessing", "unit", backbone=backbone, tolerance=tolerance)
            self.assertIn(f"took the layers of {backbone}, by their order and shapes\n", said)
            about = self.inspect()
            self.assertEqual([fit["backbone"] for fit in about["fits"]], [backbone])
            self.assertTrue(about["by_order"])
            self.assertEqual(about["input_size"], [SIZE, SIZE])

    def test_whole_torch_model(self):
        """The head is left out; fc1 and so on are read where they are a VGG's own."""
        model = tt.make("vgg11", classes=5, map_size=1)
        x = torch.from_numpy(families(self.image)["unit"][None])
        torch.onnx.export(model, x, str(self.path), opset_version=13, dynamic_axes={"input": {0: "N"}},
                          input_names=["input"])
        said = self.check(self.path, model.features(x).detach().numpy(), "--preprocessing", "unit", backbone="vgg11")
        self.assertIn("left out ", said)
        said = self.check(self.path, model(x).detach().numpy(), "--preprocessing", "unit", "--include-top",
                          backbone="vgg11")
        self.assertNotIn("left out", said)
        self.assertEqual(self.inspect()["classes"], 5)

    def test_timm_convolutions_as_dense_layers(self):
        """fc1 and fc2 as convolutions over the whole map."""
        model = tt.make("vgg11", classes=3, map_size=2)
        g = o.Graph((64, 64))
        for module in model.features:
            if isinstance(module, torch.nn.Conv2d):
                g.add("Conv", module.weight.detach().numpy(), module.bias.detach().numpy(), pads=[1, 1, 1, 1])
            elif isinstance(module, torch.nn.ReLU):
                g.add("Relu")
            else:
                g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        first, second, last = (model.classifier[i] for i in (0, 3, 6))
        g.add("Conv", first.weight.detach().numpy().reshape(4096, 512, 2, 2), first.bias.detach().numpy()).add("Relu")
        g.add("Dropout").add("Conv", second.weight.detach().numpy().reshape(4096, 4096, 1, 1), second.bias.detach().numpy())
        g.add("Relu").add("GlobalAveragePool").add("Flatten")
        g.add("Gemm", last.weight.detach().numpy(), last.bias.detach().numpy(), transB=1).save(self.path)
        image = self.folder / "x.png"
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
        want = model(torch.from_numpy(families(image)["unit"][None])).detach().numpy()
        self.check(self.path, want, "--preprocessing", "unit", "--include-top", backbone="vgg11", size=64)

    def test_tensorflow_export(self):
        head = [(*o.dense(160, 8, 1), True), (*o.dense(8, 3, 2), False)]
        o.tensorflow(self.blocks, head=head).save(self.path)
        said = self.check(self.path, self.want(), "--preprocessing", "unit")
        self.assertIn("left out MatMul_", said)

    def test_top_in_tensorflow_order(self):
        """fc1 behind a flatten that goes through rows, columns, channels."""
        blocks = o.weights("vgg11")
        head = [(*o.dense(512 * 4, 4096, 1), True), (*o.dense(4096, 4096, 2), True), (*o.dense(4096, 6, 3), False)]
        o.tensorflow(blocks, 64, head).save(self.path)
        image = self.folder / "x.png"
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
        maps = o.run_trunk(blocks, families(image)["unit"][None])
        want = o.run_head(head, maps.transpose(0, 2, 3, 1).reshape(1, -1))
        self.check(self.path, want, "--preprocessing", "unit", "--include-top", backbone="vgg11", size=64)

    def test_forms_of_convolutions(self):
        """auto_pad, a Pad in front, biases by Add, kernels that are transposed, shared, in a Constant."""
        for pads in ({"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}):
            o.trunk(o.Graph(), self.blocks, pads).save(self.path)
            self.check(self.path, self.want(), "--preprocessing", "unit")
        o.trunk(o.Graph(), self.blocks, bias=False).save(self.path)
        self.check(self.path, self.want(), "--preprocessing", "unit")
        g = o.Graph()
        for block in self.blocks:
            for kernel, bias in block:
                g.add("Pad", np.int64([0, 0, 1, 1, 0, 0, 1, 1]))
                turned = g.node("Transpose", [g.constant(kernel.transpose(2, 3, 1, 0))], perm=[3, 2, 0, 1])
                shift = g.node("Constant", [], value=o.tensor("", bias))
                g.add("Conv", turned, g.node("Identity", [shift]), auto_pad="VALID").add("Relu")
            g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        g.save(self.path)
        self.check(self.path, self.want(), "--preprocessing", "unit")

    def test_batchnorm_as_arithmetic(self):
        """What is left of a BatchNorm: a product and a sum before the ReLU; and another epsilon."""
        model = tt.make("vgg11_bn", seed=3).features
        want = model(torch.from_numpy(families(self.image)["unit"][None])).detach().numpy()
        for kept in (False, True):
            g = o.Graph()
            for module in model:
                if isinstance(module, torch.nn.Conv2d):
                    g.add("Conv", module.weight.detach().numpy(), module.bias.detach().numpy(), pads=[1, 1, 1, 1])
                elif isinstance(module, torch.nn.BatchNorm2d):
                    weight, bias, mean, var = (p.detach().numpy() for p in (
                        module.weight, module.bias, module.running_mean, module.running_var))
                    if kept:
                        # An epsilon of its own, with variances that make up for it.
                        g.add("BatchNormalization", weight, bias, mean, var + np.float32(1e-5 - 1e-3), epsilon=1e-3)
                    else:
                        scale = weight / np.sqrt(var + np.float32(1e-5))
                        g.add("Mul", scale.reshape(-1, 1, 1)).add("Add", (bias - mean * scale).reshape(1, -1, 1, 1))
                elif isinstance(module, torch.nn.ReLU):
                    g.add("Relu")
                else:
                    g.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            g.save(self.path)
            self.check(self.path, want, "--preprocessing", "unit", backbone="vgg11_bn")

    def test_types(self):
        """float16, bfloat16 and float64, as bytes and as lists."""
        for dtype in ("f4", "f2", "bf16", "f8"):
            for raw in (True, False):
                g = o.Graph()
                g.dtype, g.raw = dtype, raw
                blocks = o.weights("vgg-mini", blocks=1)
                o.trunk(g, blocks).save(self.path)
                rounded = [[tuple(self.rounded(v, dtype) for v in layer) for layer in block] for block in blocks]
                want = o.run_trunk(rounded, families(self.image)["unit"][None])
                self.check(self.path, want, "--preprocessing", "unit", "--until", "block1_pool")
                self.assertEqual(self.inspect()["types"], {"f4": "float32", "f2": "float16", "bf16": "bfloat16",
                                                           "f8": "float64"}[dtype])

    @staticmethod
    def rounded(values, dtype):
        if dtype == "bf16":
            return (values.view("<u4") & 0xFFFF0000).view("<f4")
        return values.astype(dtype).astype("f4")

    def test_first_blocks(self):
        o.trunk(o.Graph(), self.blocks[:3]).add("GlobalAveragePool").add("Flatten").save(self.path)
        self.assertIn("cut there with --until block3_pool", self.refuse("differences"))
        self.assertEqual(self.inspect()["fits"], [{"backbone": "vgg-mini", "until": "block3_pool", "whole": False}])
        self.features(self.path, "--preprocessing", "unit", "--until", "block3_pool")

    def test_another_vgg(self):
        o.trunk(o.Graph(), o.weights("vgg13")).save(self.path)
        self.assertIn("use --backbone vgg13", self.refuse("differences", backbone="vgg11"))

    def test_what_stands_behind_does_not_matter(self):
        """A head that is none of Graft's: the trunk serves all the same, and is said to end there."""
        g = o.trunk(o.Graph(), self.blocks)
        g.add("LeakyRelu", alpha=0.1).add("GlobalAveragePool").save(self.path)
        said = self.check(self.path, self.want(), "--preprocessing", "unit")
        self.assertIn("LeakyRelu", said)
        self.assertTrue(any("LeakyRelu" in part for part in self.inspect()["left_out"]))

    # Pixels.

    def test_pixels_are_asked_for(self):
        o.trunk(o.Graph(), self.blocks).save(self.path)
        done = self.fail_with(2, "--preprocessing keras", "features", self.image, "-o", self.folder / "o.npy",
                              "--backbone", "vgg-mini", "--input-size", SIZE, "--weights", self.path)
        self.assertIn("m.onnx", done.stderr)
        self.assertIsNone(self.inspect()["preprocessing"])
        for family in ("unit", "keras"):
            self.check(self.path, self.want(family), "--preprocessing", family)
        # torchvision's cuts the centre out: of an image of that size nothing is cut out.
        self.features(self.path, "--preprocessing", "torch")

    def fronts(self):
        flip_first = lambda g: g.add("Gather", np.int64([2, 1, 0]), axis=1)

        def slices(g):
            """tf2onnx's x[..., ::-1]: three slices, joined again."""
            image, parts = g.end, []
            for c in (2, 1, 0):
                parts.append(g.node("Slice", [image, g.constant(np.int64([c])), g.constant(np.int64([c + 1])),
                                              g.constant(np.int64([3]))]))
            g.end = g.node("Concat", parts, axis=3)
            g.add("Add", -o.CAFFE_MEAN)

        def step(g):
            g.add("Slice", np.int64([-1]), np.int64([-2**63]), np.int64([1]), np.int64([-1]))
            g.add("Sub", o.CAFFE_MEAN.reshape(1, 3, 1, 1))

        std = o.TORCH_STD.reshape(1, 3, 1, 1)
        mean = o.TORCH_MEAN.reshape(3, 1, 1)
        return [
            ("unit", False, "unit", lambda g: g.add("Mul", np.float32(1 / 255)).add("Add", np.float32(0))),
            ("unit", True, "unit", lambda g: g.add("Div", np.float32(255))),
            ("symmetric", True, "its own", lambda g: g.add("Mul", np.float32(1 / 127.5)).add("Sub", np.float32(1))),
            ("keras", False, "keras", lambda g: flip_first(g).add("Sub", o.CAFFE_MEAN.reshape(3, 1, 1))),
            ("keras", True, "keras", slices),
            ("keras", False, "keras", step),
            ("torch", False, "torch", lambda g: g.add("Div", np.float32([255])).add("Sub", mean).add("Div", std)),
            ("torch", True, "torch", lambda g: g.add("Mul", np.float32(1 / 255)).add("Sub", o.TORCH_MEAN).add(
                "Mul", 1 / o.TORCH_STD)),
            ("torch", False, "torch", lambda g: g.add("Sub", mean).add("Div", std)),  # of numbers from 0 to 1
        ]

    def test_pixels_that_the_graph_prepares(self):
        for family, last, named, front in self.fronts():
            g = o.Graph(last=last)
            front(g)
            if last:
                g.add("Transpose", perm=[0, 3, 1, 2])
            o.trunk(g, self.blocks).save(self.path)
            about = self.inspect()["preprocessing"]
            with self.subTest(family=family, last=last):
                if named != "its own":
                    self.assertEqual(about["family"], named)
                features = ("features", self.image, "-o", self.folder / "o.npy", "--backbone", "vgg-mini", "--input-size",
                            SIZE, "--weights", self.path)
                if family == "torch":
                    # Mean and deviation say nothing of a crop.
                    self.assertIsNone(about["crop_ratio"])
                    self.fail_with(2, "does not say how images were brought to its input size", *features)
                    self.check(self.path, self.want(family), "--preprocessing", "torch-stretched")
                    cropped, _ = self.features(self.path, "--preprocessing", "torch")
                    self.fail_with(2, "whether images are cropped", *features, "--preprocessing", "unit")
                    continue
                self.assertEqual(about["crop_ratio"], 0)
                self.check(self.path, self.want(family))
                # What the graph says is not asked for.
                self.fail_with(2, "leave the option out", *features, "--preprocessing", "unit")

    def test_bytes(self):
        """Of uint8 the graph tells everything, whatever it does with them."""
        g = o.Graph(last=True, input_type=TensorProto.UINT8)
        g.add("Cast", to=TensorProto.FLOAT).add("Sub", np.float32([100, 90, 80])).add("Mul", np.float32(0.02))
        o.trunk(g.add("Transpose", perm=[0, 3, 1, 2]), self.blocks).save(self.path)
        x = (families(self.image)["rgb"] - np.float32([100, 90, 80]).reshape(3, 1, 1)) * np.float32(0.02)
        self.check(self.path, o.run_trunk(self.blocks, x[None]))

    def test_pixels_in_two_steps(self):
        """What is no known preprocessing is computed behind the one that is asked for."""
        g = o.Graph()
        g.add("Gather", np.int64([2, 1, 0]), axis=1).add("Mul", np.float32([2, 3, 4]).reshape(3, 1, 1))
        g.add("Add", np.float32([0.1, 0.2, 0.3]).reshape(3, 1, 1))
        o.trunk(g, self.blocks).save(self.path)
        unit = families(self.image)["unit"][::-1]
        x = unit * np.float32([2, 3, 4]).reshape(3, 1, 1) + np.float32([0.1, 0.2, 0.3]).reshape(3, 1, 1)
        self.check(self.path, o.run_trunk(self.blocks, x[None]), "--preprocessing", "unit")
        self.assertIsNone(self.inspect()["preprocessing"])

    # Files.

    def test_external_data(self):
        model = o.external(o.trunk(o.Graph(), self.blocks).model(), self.folder, "data/w.bin")
        self.path.write_bytes(model.SerializeToString())
        self.check(self.path, self.want(), "--preprocessing", "unit")
        (self.folder / "data" / "w.bin").write_bytes(b"\0" * 100)
        self.assertIn("data/w.bin", self.refuse("are not all in"))
        (self.folder / "data" / "w.bin").unlink()
        self.refuse("No such file")

    def test_external_data_elsewhere(self):
        inner = self.folder / "inner"
        inner.mkdir()
        path = inner / "m.onnx"
        outside = self.folder / "w.bin"
        for location, text in (("../w.bin", "nothing else is read"), (str(outside), "nothing else is read"),
                               ("a/../../w.bin", "nothing else is read"), ("/etc/passwd", "nothing else is read"),
                               ("link.bin", "symbolic link"), ("links/w.bin", "symbolic link"), (".", "not a regular"),
                               ("fifo", "not a regular"), ("", "which must lie beside it")):
            model = o.external(o.trunk(o.Graph(), self.blocks).model(), self.folder, "w.bin")
            for init in model.graph.initializer:
                for entry in init.external_data:
                    if entry.key == "location":
                        entry.value = location
            path.write_bytes(model.SerializeToString())
            for name, target in (("link.bin", outside), ("links", self.folder)):
                if not (inner / name).is_symlink():
                    (inner / name).symlink_to(target)
            if not (inner / "fifo").exists():
                os.mkfifo(inner / "fifo")
            with self.subTest(location):
                self.refuse(text, path)

    def test_external_places(self):
        for changes in ({"offset": "-1"}, {"offset": "18446744073709551615"}, {"length": "1"}, {"offset": "x"},
                        {"length": "9223372036854775807"}):
            model = o.external(o.trunk(o.Graph(), self.blocks).model(), self.folder)
            for entry in model.graph.initializer[0].external_data:
                entry.value = changes.get(entry.key, entry.value)
            self.path.write_bytes(model.SerializeToString())
            self.refuse("the values of tensor 'c0'")

    def test_runs_of_training(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without training")
        t.draw_scenes(self.folder / "p", 2, size=40)
        g = o.Graph()
        g.add("Mul", np.float32(1 / 255))
        o.trunk(g, self.blocks).save(self.path)
        run = self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--weights", self.path, "--backbone", "vgg-mini",
                     "--input-size", SIZE, "--epochs", "1", "--no-cache", "--val", self.folder / "p", "--no-report")
        _, metadata = t.read_safetensors(run / "model.safetensors")
        self.assertIn("ONNX weights file m.onnx", metadata["provenance"])
        self.assertIn("0.00392", metadata["preprocessing"])

    def test_own_exports(self):
        """Also with two views and statistics, which are no layers of the graph."""
        if not t.HAS_TRAINING:
            self.skipTest("built without training")
        t.draw_scenes(self.folder / "p", 2, size=40)
        run = self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--backbone", "vgg-mini", "--input-size", SIZE, "--epochs",
                     "1", "--no-cache", "--val", self.folder / "p", "--no-report", "--head", "stats dense:8",
                     "--test-views", "2")
        want, _ = self.features(run)
        for more in (("--input", "uint8"), ("--input", "float"), ("--dtype", "fp16")):
            self.succeed("export", run, "-o", self.path, "--force", *more)
            self.check(self.path, want, tolerance=1e-2 if "fp16" in more else 1e-6)
            about = self.inspect()
            self.assertEqual((about["family"], about["fits"][0]["backbone"]), ("graft", "vgg-mini"))
            self.assertEqual(len(about["labels"]), about["classes"])
            self.refuse("leave the option out", code=2)

    # What is refused, by operator and name.

    def test_layers_that_are_not_there(self):
        kernel, bias = self.blocks[0][0]

        def first(**attributes):
            return o.Graph().add("Conv", kernel, bias, **attributes).add("Relu")

        def then(graph):
            return o.trunk(graph, [self.blocks[0][1:]] + self.blocks[1:])

        for graph, text in (
                (then(first(pads=[1, 1, 1, 1], strides=[2, 2])), "Conv (node 'Conv_0') has a window of 3x3, stride 2x2"),
                (then(first(pads=[2, 2, 2, 2], dilations=[2, 2])), "dilated"),
                (then(first(pads=[0, 0, 0, 0])), "padding 0x0x0x0"),
                (then(first()), "padding 0x0x0x0"),
                (then(first(pads=[1, 1, 1, 1], group=3)), "3 groups"),
                (then(o.Graph().add("Conv", kernel, bias, pads=[1] * 4).add("LeakyRelu")), "LeakyRelu (node 'LeakyRelu_1')"),
                (then(o.Graph().add("Resize", np.float32([]), np.float32([1, 1, 2, 2]))), "before the first convolution"),
                (o.Graph().add("Relu"), "before the first convolution"),
                (o.Graph().add("Transpose", perm=[0, 1, 3, 2]), "exchanges dimensions of the image"),
                (then(o.Graph(last=True).add("Conv", kernel, bias, pads=[1] * 4)), "colours are its last dimension"),
                (o.Graph().add("Gather", np.int64([0, 0, 0]), axis=1).add("Conv", kernel, bias, pads=[1] * 4),
                 "red, green and blue"),
                (o.Graph().add("Mul", np.ones((3, 32, 32), "f4")).add("Conv", kernel, bias), "pixels unlike each other")):
            graph.save(self.path)
            with self.subTest(text):
                self.refuse(text)

    def test_no_network(self):
        o.Graph().add("Identity").save(self.path)
        self.refuse("without a convolution")
        o.Graph().add("Conv", np.ones((8, 3, 3, 3), "f4"), np.ones(8, "f4"), pads=[1] * 4).add("Relu").save(self.path)
        self.refuse("no VGG")

    def test_graphs_that_are_none(self):
        g = o.trunk(o.Graph(), self.blocks)
        cases = []
        model = g.model()  # in a circle
        model.graph.node[0].input[0] = model.graph.node[-1].output[0]
        cases.append((model, "the graph runs in a circle"))
        model = g.model()
        del model.graph.initializer[0]
        cases.append((model, "a tensor is missing"))
        model = g.model()
        model.graph.initializer.append(model.graph.initializer[0])
        cases.append((model, "two tensors of the name 'c0'"))
        model = g.model()
        model.graph.node.insert(1, o.helper.make_node("Conv", ["image", "c0", "c1"], ["b"], name="second", pads=[1] * 4))
        cases.append((model, "more than one convolution reads its image"))
        model = g.model()
        model.graph.initializer[0].dims[0] = 1 << 40
        cases.append((model, "a shape that is not possible"))
        model = g.model()
        model.graph.initializer[0].dims[0] = -1
        cases.append((model, "a shape that is not possible"))
        model = g.model()
        model.graph.initializer[0].dims[0] = 17
        cases.append((model, "should have 459 values"))
        model = g.model()
        model.graph.initializer[0].name = model.graph.node[0].input[1] = "x" * 1_000_000
        model.graph.node[0].op_type = "y" * 1_000_000
        cases.append((model, "before the first convolution"))
        model = g.model()  # deep nesting
        node = model.graph.node[0]
        for _ in range(50):
            outer = o.helper.make_node("If", ["image"], ["z"])
            inner = o.helper.make_graph([node], "g", [], [])
            outer.attribute.append(o.helper.make_attribute("then_branch", inner))
            node = outer
        model.graph.node.insert(0, node)
        cases.append((model, "If (node"))
        for model, text in cases:
            self.path.write_bytes(model.SerializeToString())
            with self.subTest(text):
                said = self.refuse(text)
                self.assertLess(len(said), 2000)

    def test_branch(self):
        """A second reader of a layer ends the list there, and what was before it serves."""
        g = o.trunk(o.Graph(), self.blocks[:1])
        early = g.end
        o.trunk(g, self.blocks[1:])
        g.end = g.node("Concat", [g.node("GlobalAveragePool", [early]), g.node("GlobalAveragePool", [g.end])], axis=1)
        g.save(self.path)
        said = self.check(self.path, self.want(), "--preprocessing", "unit")
        self.assertIn("is a branch", said)

    def test_not_finite(self):
        blocks = o.weights("vgg-mini")
        blocks[0][0][0][0, 0, 0, 0] = np.inf
        o.trunk(o.Graph(), blocks).save(self.path)
        self.refuse("NaN or infinite")

    def test_cut_short(self):
        o.trunk(o.Graph(), self.blocks).save(self.path)
        data = self.path.read_bytes()
        for share in (0.0001, 0.3, 0.9, 0.9999):
            self.path.write_bytes(data[:int(len(data) * share)])
            self.refuse("m.onnx")

    def test_one_tensor_for_all(self):
        """A small file cannot claim a large network by reading one tensor many times."""
        g = o.trunk(o.Graph(), self.blocks).add("GlobalAveragePool").add("Flatten")
        wide, back = g.constant(np.ones((160, 65536), "f4")), g.constant(np.ones((65536, 160), "f4"))
        for _ in range(100):
            g.add("MatMul", wide).add("MatMul", back)
        g.save(self.path)
        self.refuse("its layers would take")


if __name__ == "__main__":
    t.main()
