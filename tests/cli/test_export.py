"""graft export: what the files compute is what `graft predict` says."""
import json
import shutil
import subprocess
import zipfile

import numpy as np
import onnx
import torch
from PIL import Image

import export_testing as e
import graft_testing as t

KERAS = {"bgr": True, "shift": (103.939, 116.779, 123.68), "gain": 0.1}
UNIT = {"scale": (1 / 58, 1 / 57, 1 / 57), "shift": (2.1, 2.0, 1.8)}
# Every kind of layer, what reads a flattened map directly, through dropout and through BatchNorm,
# what follows a ReLU and what does not.
NETWORKS = {
    "flatten": ("conv:6+ maxpool conv:8+ maxpool | conv:5+ flatten dense:7+ dropout:0.5 dense:3", UNIT),
    "permuted": ("conv:6 batchnorm+ maxpool conv:8+ | maxpool flatten dropout:0.2 batchnorm dense:9 batchnorm+ dense:3", UNIT),
    "stats": ("conv:6+ conv:7+ maxpool conv:9+ | stats batchnorm dense:8+ dense:3", KERAS),
    "gap": ("conv:6+ maxpool | conv:4 batchnorm+ gap dropout:0.1 dense:3", UNIT),
    "gmp": ("conv:6+ | batchnorm gmp dense:3", KERAS),
    "bare": ("maxpool maxpool | flatten dense:3", KERAS),
}
FORMATS = ("onnx", "keras", "h5", "pth", "safetensors")
LABELS = ("a", "b", "c")


class Export(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(1)
        self.pixels = np.stack([np.asarray(Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
                                           .resize((40, 32), Image.Resampling.BICUBIC)) for _ in range(3)])
        self.images = []
        for i, pixels in enumerate(self.pixels):
            self.images.append(self.folder / f"{i}.png")
            Image.fromarray(pixels).save(self.images[-1])

    def model(self, name, **changes):
        words, options = NETWORKS[name]
        return e.make_model(self.folder / f"{name}.safetensors", words.split(), **{**options, **changes})

    def export(self, model, suffix, *options):
        out = self.folder / f"out.{suffix}"
        said = self.succeed_json("export", model, "-o", out, "--json", *options)
        self.assertEqual(said["bytes"], out.stat().st_size)
        return out, said

    def logits(self, path):
        """Of the pixels, by code that is not the product's."""
        suffix = path.suffix
        if suffix == ".onnx":
            logits, probabilities = e.OnnxGraph(path).run(self.pixels)
        elif suffix in (".keras", ".h5"):
            logits, probabilities = e.KerasGraph(path).run(self.pixels)
        else:
            load, classifier = e.document_classifier()
            if suffix == ".pth":
                tensors, about = load(path)
            else:
                mine, metadata = read_tensors(path)
                self.assertEqual(metadata["format"], "pt")
                tensors = {name: torch.from_numpy(value.copy()) for name, value in mine.items()}
                about = {key: json.loads(text) for key, text in metadata.items() if key not in ("format", "file_xxh3")}
            with torch.no_grad():
                logits = classifier(tensors, about)(torch.from_numpy(self.pixels)).numpy()
            return logits
        np.testing.assert_allclose(np.log(probabilities), e.log_softmax(logits), atol=1e-4)
        return logits

    def compare(self, model, path, tolerance=1e-5):
        want = e.log_probabilities(self, model, self.images, LABELS)
        got = self.logits(path)
        off = np.abs(e.log_softmax(got) - want).max() / np.abs(got).max()
        self.assertLess(off, tolerance, path)

    def test_every_format_computes_what_the_model_does(self):
        for name in NETWORKS:
            for views in (1, 2):
                model = self.model(name, views=views)
                for suffix in FORMATS:
                    with self.subTest(network=name, views=views, format=suffix):
                        path, said = self.export(model, suffix)
                        self.compare(model, path)
                        self.assertEqual(said["images_compared"], 4)
                        self.assertLessEqual(said["largest_error"], 1e-6)
                        self.assertEqual(bool(said["checks"]), suffix == "onnx")

    def test_every_export_comes_back_as_the_model_that_it_was(self):
        for name in NETWORKS:
            model = self.model(name, views=1 + len(name) % 2)
            tensors, about = read_tensors(model)
            for suffix in FORMATS:
                with self.subTest(network=name, format=suffix):
                    back = self.folder / "back.safetensors"
                    self.succeed("weights", "convert", self.export(model, suffix)[0], back)
                    again, metadata = read_tensors(back)
                    self.assertEqual(set(again), set(tensors))
                    for key, values in tensors.items():
                        np.testing.assert_array_equal(again[key], values, key)
                    for key in ("classes", "test_views"):
                        self.assertEqual(json.loads(metadata.get(key, "1")), json.loads(about.get(key, "1")), key)
                    pixels, wanted = (json.loads(m["preprocessing"]) for m in (metadata, about))
                    for key, value in wanted.items():
                        if isinstance(value, str):
                            self.assertEqual(pixels[key], value, key)
                        else:
                            np.testing.assert_allclose(pixels[key], value, rtol=1e-7, err_msg=key)
                    layers = [[(layer["name"], layer["kind"]) for layer in json.loads(m["network"])["layers"]]
                              for m in (metadata, about)]
                    self.assertEqual(*layers)
                    back.unlink()

    def rewrite(self, path, suffix):
        """The file with another network, as other programs might leave it: Graft's record stays as it was."""
        if suffix == "safetensors":
            tensors, about = read_tensors(path)
            about.pop("file_xxh3")
            t.write_safetensors(path, tensors, dict(about, modules='{"conv1": 3}'))
        elif suffix in ("keras", "pth"):
            with zipfile.ZipFile(path) as archive:
                entries = [(name, archive.read(name)) for name in archive.namelist()]
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in entries:
                    archive.writestr(name, data.replace(b'"relu"', b'"tanh"') if suffix == "keras" and name == "config.json"
                                     else data.replace(b'"relu":true', b'"relu":false') if name.endswith("graft.json") else data)
        elif suffix == "h5":
            data = path.read_bytes()
            self.assertIn(b'"activation":"relu"', data)
            path.write_bytes(data.replace(b'"activation":"relu"', b'"activation":"tanh"'))
        else:
            model = onnx.load(path)
            gemm = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
            gemm.attribute.append(onnx.helper.make_attribute("alpha", 0.5))
            onnx.save(model, path)

    def test_a_changed_export_is_read_as_any_other_file(self):
        model = self.model("gap")
        out = self.folder / "back.safetensors"
        for suffix in FORMATS:
            with self.subTest(format=suffix):
                path = self.export(model, suffix)[0]
                self.succeed("weights", "convert", path, out)
                self.rewrite(path, suffix)
                done = t.run("weights", "convert", path, out, "--classes", "a,b,c", "--preprocessing", "unit")
                self.assertIn("was changed since 'graft export' wrote it", done.stderr)
                self.assertIn(done.returncode, (1, 2), done.stderr)

    def test_an_exports_backbone_has_its_own_pixels(self):
        """Of a .pth others' backbones are prepared as torchvision's."""
        model = self.folder / "run"
        photos = self.folder / "photos"
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        t.draw_scenes(photos, 6, size=32)
        self.succeed("train", photos, "-o", model, "--backbone", "vgg-mini", "--epochs", "1", "--input-size", "32", "--until", "block2_pool",
                     "--head", "gap", "--no-cache", "--no-report", "--quiet")
        wanted = self.succeed_json("weights", "inspect", model, "--json")
        for suffix in FORMATS:
            with self.subTest(format=suffix):
                path = self.export(model, suffix)[0]
                about = self.succeed_json("weights", "inspect", path, "--json")
                for key in ("family", "preprocessing", "labels", "source", "licence"):
                    self.assertEqual(about.get(key), wanted.get(key), key)
                again = self.folder / f"again-{suffix}"
                self.succeed("train", photos, "-o", again, "--backbone", "vgg-mini", "--weights", path, "--epochs", "1", "--input-size", "32",
                             "--until", "block2_pool", "--head", "gap", "--no-cache", "--no-report", "--quiet")
                self.assertEqual(*(json.loads(read_tensors(run / "model.safetensors")[1]["preprocessing"])
                                   for run in (model, again)))
                self.fail_with(2, "--preprocessing", "train", photos, "-o", self.folder / "no", "--backbone", "vgg-mini", "--weights", path,
                               "--preprocessing", "torch", "--until", "block2_pool", "--input-size", "32")

    def test_half(self):
        model = self.model("flatten", views=2)
        for suffix in FORMATS:
            with self.subTest(format=suffix):
                whole = self.export(model, suffix)[0].stat().st_size
                path, said = self.export(model, suffix, "--dtype", "fp16")
                self.assertLess(path.stat().st_size, 0.9 * whole)
                self.compare(model, path, 5e-3)
                with self.assertRaises(AssertionError):
                    self.compare(model, path, 1e-7)

    def test_no_weights_without_their_model(self):
        model = self.model("gmp")
        for command in (("export", model, "-o"), ("weights", "convert", model)):
            self.fail_with(2, "choose a name in .keras or .h5", *command, self.folder / "x.weights.h5")

    def test_half_refuses_what_it_cannot_hold(self):
        words, options = NETWORKS["gmp"]
        model = e.make_model(self.folder / "m.safetensors", words.split(), **{**options, "gain": 1e6})
        for suffix in FORMATS:
            out = self.folder / f"out.{suffix}"
            self.fail_with(1, "store it as fp32", "export", model, "--dtype", "fp16", "-o", out)
            self.assertFalse(out.exists())

    def test_onnx_with_prepared_input(self):
        for options in (UNIT, KERAS):
            model = e.make_model(self.folder / "m.safetensors", NETWORKS["gap"][0].split(), views=2, **options)
            path, _ = self.export(model, "onnx", "--input", "float")
            x = self.pixels[..., ::-1 if options.get("bgr") else 1].astype("f4")
            x = x * np.array(options.get("scale", 1), "f4") - np.array(options["shift"], "f4")
            graph = e.OnnxGraph(path)
            (entry,) = graph.model.graph.input
            self.assertEqual(entry.name, "input")
            logits, _ = graph.run(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
            want = e.log_probabilities(self, model, self.images, LABELS)
            self.assertLess(np.abs(e.log_softmax(logits) - want).max() / np.abs(logits).max(), 1e-5)

    def test_onnx_says_what_it_is(self):
        labels = ("grün", "a, b", "c")
        model = self.model("gap", labels=labels, resampling="nearest")
        path, _ = self.export(model, "onnx")
        graph = e.OnnxGraph(path)
        about = graph.metadata
        self.assertEqual(json.loads(about["labels"]), list(labels))
        self.assertEqual(json.loads(about["input_size"]), [32, 40])
        self.assertEqual(about["resampling"], "nearest")
        self.assertEqual(about["Image.BitmapPixelFormat"], "Rgb8")
        self.assertIn("Licence of the weights: none", about["model_card"])
        self.assertGreaterEqual(graph.model.opset_import[0].version, 13)
        shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
                  for v in (*graph.model.graph.input, *graph.model.graph.output)}
        self.assertEqual(shapes, {"image": ["N", 32, 40, 3], "logits": ["N", 3], "probabilities": ["N", 3]})
        self.assertIn("conv1.weight", graph.weights)

    def test_names_that_others_do_not_have(self):
        """Layers called as the graph's own parts, and with characters that Keras and HDF5 do not take."""
        words = "image=conv:4+ a/b=conv:4+ .=maxpool logits=conv:4+ | preprocessing=gap x_Relu=dense:5+ probabilities=dense:3"
        model = e.make_model(self.folder / "m.safetensors", words.split(), views=2, **UNIT)
        for suffix in FORMATS:
            with self.subTest(format=suffix):
                self.compare(model, self.export(model, suffix)[0])

    def test_torch_names(self):
        path, _ = self.export(self.model("flatten"), "pth")
        tensors = torch.load(path, weights_only=True)
        self.assertEqual(list(tensors), [f"{module}.{role}" for module in ("features.0", "features.3", "head.0", "head.3", "head.6")
                                         for role in ("weight", "bias")])
        # As a module's, whose strides and storages are PyTorch's own.
        module = torch.nn.Conv2d(3, 6, 3)
        module.load_state_dict({"weight": tensors["features.0.weight"], "bias": tensors["features.0.bias"]})
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            for entry in archive.infolist():
                self.assertEqual(entry.compress_type, zipfile.ZIP_STORED)
        with open(path, "rb") as file:
            for entry in zipfile.ZipFile(path).infolist():
                file.seek(entry.header_offset + 26)
                name, extra = np.frombuffer(file.read(4), "<u2")
                self.assertEqual((entry.header_offset + 30 + name + extra) % 64, 0)

    def test_the_same_model_gives_the_same_bytes(self):
        model = self.model("stats")
        for suffix in ("onnx", "pth", "safetensors"):
            first = self.export(model, suffix)[0].read_bytes()
            self.assertEqual(first, self.export(model, suffix)[0].read_bytes(), suffix)

    def test_names_of_files(self):
        model = self.model("gap")
        run = self.folder / "run"
        run.mkdir()
        model.rename(run / "model.safetensors")
        for format, made in (("onnx", "model.onnx"), ("keras", "model.keras"), ("torch", "model.pth"),
                             ("safetensors", "model.torch.safetensors")):
            self.assertIn(made, self.succeed("export", run, "--format", format).stdout)
            self.assertTrue((run / made).exists())
            self.fail_with(2, "exists already", "export", run, "--format", format)
            self.succeed("export", run, "--format", format, "--force", "--quiet")
        self.assertEqual({p.name for p in run.iterdir()},
                         {"model.safetensors", "model.onnx", "model.keras", "model.pth", "model.torch.safetensors"})
        self.succeed("export", run, "-o", self.folder / "M.ONNX")
        self.fail_with(2, "must end in .onnx", "export", run, "--format", "onnx", "-o", self.folder / "m.keras")
        self.fail_with(2, "must end in .keras or .h5", "export", run, "--format", "keras", "-o", self.folder / "m")
        self.fail_with(2, "name the format", "export", run, "-o", self.folder / "m.tflite")
        self.fail_with(2, "name the format", "export", run)
        self.fail_with(2, "did you mean", "export", run, "--format", "onx")
        self.fail_with(2, "is for ONNX alone", "export", run, "--input", "float", "-o", self.folder / "m.pth")
        self.fail_with(2, "model.safetensors", "export", run, "-o", run / "model.safetensors")
        self.fail_with(1, "no such model", "export", self.folder / "none", "-o", self.folder / "m.onnx")
        self.fail_with(1, "cannot write", "export", run, "-o", self.folder / "none" / "m.onnx")
        self.assertFalse((self.folder / "m.pth").exists())

    def test_a_failing_disk_leaves_what_was(self):
        model = self.model("flatten")
        out, counter = self.folder / "out", self.folder.with_suffix(".counter")
        out.mkdir()
        self.addCleanup(counter.unlink)
        environment = {"LD_PRELOAD": str(t.TOOLS / "libfailing_disk.so"), "GRAFT_DISK_ROOT": str(out),
                       "GRAFT_DISK_COUNTER": str(counter), "ASAN_OPTIONS": "verify_asan_link_order=0"}
        for suffix in FORMATS:
            path = out / f"m.{suffix}"
            path.write_text("before")
            counter.write_bytes(bytes(8))
            self.succeed("export", model, "-o", path, env=environment)
            operations = int.from_bytes(counter.read_bytes(), "little")
            self.assertGreater(operations, 4, suffix)
            path.write_text("before")
            # Up to the rename; after it the file is there, whatever comes of syncing its folder.
            for at in sorted({1, 2, operations // 3, operations // 2, operations - 3}):
                counter.write_bytes(bytes(8))
                done = t.run("export", model, "-o", path, env={**environment, "GRAFT_DISK_AT": str(at), "GRAFT_DISK_HOW": "ever"})
                with self.subTest(format=suffix, operation=f"{at} of {operations}"):
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertIn("graft: ", done.stderr)
                    self.assertEqual(path.read_text(), "before")

    def test_a_damaged_model_is_refused(self):
        model = self.model("gap")
        data = bytearray(model.read_bytes())
        model.write_bytes(data[:-4])
        out = self.folder / "m.onnx"
        self.fail_with(1, "gap.safetensors", "export", model, "-o", out)
        self.assertFalse(out.exists())


class Features(t.TestCase):
    def test_npz_and_csv_hold_what_npy_does(self):
        t.draw_scenes(self.folder / "p", 2)
        odd = self.folder / "p" / "naïve, \"quoted\".jpg"
        next((self.folder / "p").rglob("*.jpg")).rename(odd)
        network = ("--backbone", "vgg-mini", "--input-size", "32", "--until", "block2_pool")
        for pool in ("none", "gap"):
            made = {}
            for suffix in ("npy", "npz", "csv"):
                made[suffix] = self.folder / f"f-{suffix}.{suffix}"
                said = self.succeed_json("features", self.folder / "p", *network, "--pool", pool, "-o", made[suffix],
                                         "--json", "--force")
                self.assertEqual(said["list"] is None, suffix != "npy")
            want = np.load(made["npy"])
            paths = [row["path"] for row in t.read_csv(self.folder / "f-npy.csv")]
            with np.load(made["npz"]) as file:
                self.assertEqual(set(file), {"features", "paths"})
                np.testing.assert_array_equal(file["features"], want)
                self.assertEqual(file["paths"].tolist(), paths)
            self.assertIn(str(odd), paths)
            rows = t.read_csv(made["csv"])
            self.assertEqual([row["path"] for row in rows], paths)
            values = np.array([[float(row[f"f{i}"]) for i in range(want[0].size)] for row in rows], "f4")
            np.testing.assert_array_equal(values, want.reshape(len(paths), -1))
            self.assertEqual(len(rows[0]), want[0].size + 1)
        self.fail_with(2, "must end in .npy", "features", self.folder / "p", *network, "-o", self.folder / "f.parquet")


class Zip(t.TestCase):
    def test_archives(self):
        """With and without zip64 fields, which stand from 4 GiB on; here from a size that tests can write."""
        want = {"a": "x" * 100, "folder/u": "y" * 7, "empty": "", "b": "z" * 300}
        for alignment in (1, 64):
            for limit in (0xFFFFFFFF, 200, 50):
                path = self.folder / f"{alignment}-{limit}.zip"
                t.tool("zip_probe", path, alignment, limit, *(f"{k}={v}" for k, v in want.items()), check=True)
                with zipfile.ZipFile(path) as archive:
                    self.assertIsNone(archive.testzip())
                    self.assertEqual({name: archive.read(name).decode() for name in archive.namelist()}, want)
                    zip64 = [entry.filename for entry in archive.infolist() if entry.extract_version == 45]
                self.assertEqual(bool(zip64), limit < 1000)
                # Another reader, which goes by the entries' own headers too.
                done = subprocess.run(["unzip", "-tqq", path], capture_output=True) if shutil.which("unzip") else None
                self.assertFalse(done and done.returncode, done and done.stdout)


def read_tensors(path):
    """As t.read_safetensors, float16 too."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__")
    return {name: np.frombuffer(data[8 + size:][slice(*entry["data_offsets"])], {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
            .reshape(entry["shape"]) for name, entry in header.items()}, metadata


if __name__ == "__main__":
    t.main()
