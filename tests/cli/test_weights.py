"""Weights files: what is read, what is refused, and how it is said."""
import gzip
import io
import os
import signal
import subprocess
import time
import zipfile

import h5py
import graft_testing as t
import numpy as np


def write_fine_tuned(path, backbone, style):
    """A whole-model file of layers before and behind a backbone. style: flat (one straight list),
    nested (the backbone is a layer), encoder (a layer that holds the backbone and more), repeated
    (nested, with the names that Keras 2 gives a second copy)."""
    specs = t.layer_specs(backbone)
    weights = t.random_weights(specs)
    others = {"normalization": {"mean": np.zeros(3, "f4"), "variance": np.ones(3, "f4"),
                                "count": np.int64(0)},
              "dense": {"kernel": np.ones((4, 4), "f4"), "bias": np.ones(4, "f4")},
              "p_re_lu": {"alpha": np.ones(4, "f4")}}
    convolutions = {layer: {"kernel": weights[layer][0], "bias": weights[layer][1]}
                    for layer, shape in specs if shape}
    layers = {"random_flip": {"seed_generator/seed_generator_state": np.zeros(2, "u4")}}
    for layer, parts in others.items():
        layers[layer] = {f"{layer}/{name}": value for name, value in parts.items()}
    inner = {f"{layer}{'_1' if style == 'repeated' else ''}/{name}": value
             for layer, parts in convolutions.items() for name, value in parts.items()}
    if style == "flat":
        for layer, parts in convolutions.items():
            layers[layer] = {f"sequential/{layer}/{name}:0": value for name, value in parts.items()}
    elif style == "encoder":
        inner.update(layers.pop("dense"))
        layers["encoder"] = inner
    else:
        layers[backbone] = inner
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.15.1"
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = ["input_layer", *layers]
        for layer, parts in {"input_layer": {}, **layers}.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = list(parts) or np.zeros(0)
            for name, value in parts.items():
                group.create_dataset(name, data=value)
        file.create_group("optimizer_weights").attrs["weight_names"] = [b"adam/iter:0"]


class Weights(t.TestCase):
    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "p", 1)
        self.image = next((self.folder / "p").rglob("*.jpg"))
        self.env = {"XDG_CACHE_HOME": str(self.folder / "cache")}

    def refuse(self, text, path, *arguments, backbone="vgg11"):
        out = self.folder / "out.npy"
        done = self.fail_with(1, text, "features", self.image, "-o", out, "--backbone", backbone,
                              "--input-size", "32", "--weights", path, *arguments, env=self.env)
        self.assertFalse(out.exists())
        self.assertFalse(list(self.folder.glob("*.tmp")))
        return done

    def write(self, change=None, backbone="vgg11", style="official", name="w.h5"):
        specs = t.layer_specs(backbone)
        weights = t.random_weights(specs)
        if change:
            change(weights)
        path = self.folder / name
        t.write_keras_h5(path, specs, weights, style)
        return path

    def test_differences_are_a_table(self):
        def change(weights):
            del weights["block2_conv1"]
            weights["block4_conv1"] = (np.zeros((3, 3, 256, 500), "f4"), np.zeros(500, "f4"))
        done = self.refuse("4 differences", self.write(change))
        for part in ("block2_conv1.weight", "missing", "(512, 256, 3, 3)", "(500, 256, 3, 3)"):
            self.assertIn(part, done.stderr)

    def mini(self, change=None):
        return self.write(change, backbone="vgg-mini")

    def note(self, path, *texts, backbone="vgg-mini"):
        """Reads the file; what is left out is said in one line. Returns the features."""
        out = self.folder / "note.npy"
        done = self.succeed("features", self.image, "-o", out, "--backbone", backbone,
                            "--input-size", "32", "--weights", path)
        if texts:
            said = [line for line in done.stderr.splitlines() if not line.startswith("wrote ")]
            self.assertEqual(len(said), 1, done.stderr)
        for text in texts:
            self.assertIn(text, done.stderr)
        return np.load(out)

    def test_fine_tuned_models(self):
        """model.save() of a backbone and a head, as Keras 2 and 3 write it."""
        plain = self.note(self.mini())
        for style in ("flat", "nested", "encoder", "repeated"):
            path = self.folder / f"{style}.h5"
            write_fine_tuned(path, "vgg-mini", style)
            np.testing.assert_array_equal(
                self.note(path, "left out", "normalization", "p_re_lu", "dense"), plain)

    def test_fine_tuned_model_trains(self):
        path, run = self.folder / "nested.h5", self.folder / "run"
        write_fine_tuned(path, "vgg-mini", "nested")
        if not t.HAS_TRAINING:
            self.skipTest("built without training")
        done = self.succeed("train", self.folder / "p", "-o", run, "--backbone", "VGG_mini",
                            "--weights", path, "--input-size", "32", "--epochs", "1", "--no-cache",
                            "--val", self.folder / "p")
        self.assertIn("left out random_flip, normalization, dense", done.stderr.replace("\n", " "))
        self.assertIn("backbone = 'vgg-mini'", (run / "config.toml").read_text())

    def test_never_half_loaded(self):
        """A VGG13 has all that a VGG11 needs, in the same shapes: neither is read as the other."""
        for name, asked, what in (("vgg13", "vgg11", "not in the network"),
                                  ("vgg11", "vgg13", "missing")):
            path = self.folder / "other.h5"
            write_fine_tuned(path, name, "nested")
            done = self.refuse(f"use --backbone {name}", path, backbone=asked)
            self.assertIn(what, done.stderr)

    def test_hint_only_where_all_convolutions_match(self):
        """Every vgg13 holds vgg11's tensors; with one of them cut off it is neither."""
        def change(weights):
            del weights["block5_conv2"]
        done = self.refuse("differences", self.write(change, "vgg13"), backbone="vgg13")
        self.assertNotIn("use --backbone", done.stderr)

    def test_two_backbones_in_one_file(self):
        path = self.folder / "two.h5"
        write_fine_tuned(path, "vgg-mini", "nested")
        with h5py.File(path, "a") as file:
            root = file["model_weights"]
            root.copy("vgg-mini", root, "vgg-mini_1")
            root.attrs["layer_names"] = [*root.attrs["layer_names"], "vgg-mini_1"]
        self.refuse("more than once", path, backbone="vgg-mini")

    def test_no_layer_of_a_vgg(self):
        path = self.folder / "resnet.h5"
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv1_conv"]
            group = file.create_group("conv1_conv")
            group.attrs["weight_names"] = [b"conv1_conv/kernel:0"]
            group["conv1_conv/kernel:0"] = np.zeros((7, 7, 3, 64), "f4")
        self.refuse("it has conv1_conv", path)

    def test_names_of_the_file_do_not_reach_the_terminal(self):
        path = self.mini()
        with h5py.File(path, "a") as file:
            name = b"evil\x1b]0;x\x07\nline"
            file.attrs["layer_names"] = [n.encode() for n in file.attrs["layer_names"]] + [name]
            group = file.create_group(name)
            group["kernel"] = np.zeros((4, 4), "f4")
            group.attrs["weight_names"] = [b"kernel"]
        self.note(path, "evil?]0;x??line")
        other = self.folder / "other.h5"
        with h5py.File(other, "w") as file:
            file.attrs["layer_names"] = [b"\x1b[2Ja\nb"]
        done = self.refuse("?[2Ja?b", other)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_partial_file_only_up_to_the_cut(self):
        def change(weights):
            for layer in list(weights):
                if layer > "block3":
                    del weights[layer]
        path = self.write(change)
        self.refuse("cut there with --until", path)
        self.succeed("features", self.image, "-o", self.folder / "o.npy", "--backbone", "vgg11",
                     "--input-size", "32", "--weights", path, "--until", "block2_pool")

    def test_wrong_backbone_is_recognised(self):
        self.refuse("use --backbone vgg13", self.write(backbone="vgg13"))

    def test_theano_order(self):
        specs = t.layer_specs("vgg11")
        weights = {k: (w.transpose(3, 2, 0, 1).copy(), b) for k, (w, b)
                   in t.random_weights(specs).items()}
        path = self.folder / "th.h5"
        t.write_keras_h5(path, specs, weights)
        self.refuse("th_dim_ordering", path)

    def test_not_a_weights_file(self):
        with h5py.File(self.folder / "other.h5", "w") as file:
            file["x"] = [1]
        self.refuse("neither layer_names nor", self.folder / "other.h5")
        self.refuse("no such file", self.folder / "missing.h5")
        self.refuse("not a regular file", self.folder)
        noise = self.folder / "noise.h5"
        noise.write_bytes(np.random.default_rng(1).bytes(5000))
        self.refuse("neither a Keras .h5 file", noise)

    def test_other_kinds_are_named(self):
        """By content, whatever the name; and what to do."""
        def archive(*names):
            data = io.BytesIO()
            with zipfile.ZipFile(data, "w") as file:
                for name in names:
                    file.writestr(name, b"x" * 100)
            return data.getvalue()
        lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 58889256\n"
        for name, data, what, todo in (
                ("plain.pkl", b"\x80\x02}q\0.", "a Python pickle", "Keras .h5"),
                ("w.npz", archive("a.npy"), "a NumPy archive", "Keras .h5"),
                ("w.zip", archive("w.h5"), "a zip archive", "unpack"),
                ("w.h5.gz", gzip.compress(b"x" * 100), "a gzip archive", "unpack"),
                ("lfs.h5", lfs, "a git-lfs pointer", "git lfs pull"),
                ("page.h5", b"\n<!DOCTYPE html><html>Not found</html>", "a web page", "again"),
                ("error.h5", b"<?xml version='1.0'?><Error/>", "an XML document", "again"),
                ("zeros.h5", b"\0" * 9000, "nothing but zeros", "again"),
                ("empty.h5", b"", "empty", "again")):
            path = self.folder / name
            path.write_bytes(data)
            done = self.refuse(what, path)
            self.assertIn(todo, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1)
            self.fail_with(1, what, "predict", path, self.image)

    def test_keras_file_as_model(self):
        path = self.mini()
        for command in (("predict", path, self.image), ("summary", path),
                        ("evaluate", path, self.folder / "p")):
            done = self.fail_with(1, "a Keras weights file (HDF5), not a Graft model", *command)
            self.assertIn(f"--weights {path}", done.stderr)
            self.assertIn(f"graft weights convert {path}", done.stderr)
        self.succeed("weights", "convert", path, "-o", self.folder / "x.safetensors")

    def test_content_decides_not_the_name(self):
        path = self.folder / "keras.safetensors"
        path.write_bytes(self.mini().read_bytes())
        self.assertEqual(self.note(path).shape, (1, 160, 1, 1))

    def test_file_in_use_by_a_writer(self):
        path = self.mini()
        with h5py.File(path, "a"):
            self.refuse("open for writing", path, backbone="vgg-mini")
        self.note(path)
        # What a writer of the newer format leaves behind when it is killed.
        new = self.folder / "new.h5"
        with h5py.File(new, "w", libver="latest") as file:
            file["x"] = [1]
        data = bytearray(new.read_bytes())
        data[11] |= 1
        new.write_bytes(data)
        self.refuse("h5clear", new)

    def test_unreadable_file(self):
        path = self.mini()
        path.chmod(0)
        self.folder.chmod(0o755)
        command = [t.GRAFT, "features", str(self.image), "-o", "/nowhere/x.npy", "--backbone",
                   "vgg-mini", "--input-size", "32", "--weights", str(path)]
        user = {"user": 65534} if os.geteuid() == 0 else {}
        try:
            done = subprocess.run(command, capture_output=True, text=True, **user)
        except PermissionError:
            self.skipTest("another user cannot run the program here")
        self.assertEqual(done.returncode, 1)
        self.assertIn("w.h5: cannot open: Permission denied; make the file", done.stderr)

    def test_filters(self):
        """gzip, shuffle, checksums and LZF are read; others are named."""
        path = self.mini()
        plain = self.note(path)
        for options in ({"compression": "gzip", "shuffle": True, "fletcher32": True},
                        {"compression": "lzf"}, {"compression": "lzf", "shuffle": True},
                        {"chunks": True, "maxshape": (None, None, None, None)}):
            self.rewrite(path, options)
            np.testing.assert_array_equal(self.note(path), plain)
        for number, name in ((32001, "Blosc"), (32015, "Zstandard"), (32026, "Blosc2")):
            self.rewrite_filter(path, number)
            self.refuse(f"compressed with {name} (filter {number})", path, backbone="vgg-mini")

    def rewrite_filter(self, path, number=32015):
        """Values behind a filter that neither library has: h5py writes another one's number."""
        self.rewrite(path, {"compression": "lzf"})
        data = bytearray(path.read_bytes())
        at = data.index(b"lzf\0") - 8  # number, length of name, flags, number of parameters
        self.assertEqual(int.from_bytes(data[at:at + 2], "little"), 32000)
        data[at:at + 2] = number.to_bytes(2, "little")
        path.write_bytes(data)

    def fake_reader(self, body):
        """A stand-in for the program that reads .h5 files: what it may do to Graft."""
        folder = self.folder / "libexec"
        folder.mkdir(exist_ok=True)
        (folder / "graft-read-h5").write_text(f"#!/usr/bin/python3 -BS\nimport os, time\n{body}\n")
        (folder / "graft-read-h5").chmod(0o755)
        return {"GRAFT_LIBEXEC": str(folder)}

    def test_reader_that_fails(self):
        """Crashes, strange answers and none at all are one line each."""
        path = self.mini()
        command = ("features", self.image, "-o", self.folder / "x.npy", "--backbone", "vgg-mini",
                   "--input-size", "32", "--weights", path)
        for body, text in (("os.kill(os.getpid(), 11)", "signal 11"),
                           ("os.kill(os.getpid(), 24)", "computed longer"),
                           ("pass", "without an answer"),
                           ("os.write(3, b'\\xff\\xff\\xff\\xff')\ntime.sleep(60)",
                            "without an answer"),
                           ("os.write(3, b'\\x01\\0\\0\\0\\3')", "no layer in it"),
                           ("os.write(3, b'\\x09\\0\\0\\0\\2\\4\\0\\0\\0no\\x1b\\n')", "no??")):
            done = self.fail_with(1, text, *command, env=self.fake_reader(body))
            self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_reader_that_hangs_ends_with_an_interrupt(self):
        path, mark = self.mini(), self.folder / "mark"
        env = self.fake_reader(f"open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
        process = subprocess.Popen(
            [t.GRAFT, "features", self.image, "-o", self.folder / "x.npy", "--backbone",
             "vgg-mini", "--input-size", "32", "--weights", path], stderr=subprocess.PIPE,
            env=dict(os.environ, **env))
        while not t.says_something(mark):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        self.assertEqual(process.returncode, 130)
        with self.assertRaises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)

    def test_no_plugin_is_loaded(self):
        """HDF5 would load every shared library of $HDF5_PLUGIN_PATH for a filter that it lacks."""
        path = self.mini()
        self.rewrite_filter(path)
        library, mark = self.folder / "plugin" / "libevil.so", self.folder / "mark"
        library.parent.mkdir()
        source = self.folder / "evil.c"
        source.write_text('#include <stdio.h>\n__attribute__((constructor)) static void f(void)'
                          f'{{fclose(fopen("{mark}", "w"));}}')
        if subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source]).returncode != 0:
            self.skipTest("no C compiler")
        self.env["HDF5_PLUGIN_PATH"] = str(library.parent)
        self.refuse("compressed with Zstandard", path, backbone="vgg-mini")
        self.assertFalse(mark.exists())

    def rewrite(self, path, options):
        with h5py.File(path, "a") as file:
            group = file["block1_conv1"]
            values = group["block1_conv1_W_1:0"][...]
            del group["block1_conv1_W_1:0"]
            group.create_dataset("block1_conv1_W_1:0", data=values, **options)

    def test_other_ways_to_store_the_same(self):
        """Newest format, half and double precision, big-endian, a user block, long attributes."""
        specs = t.layer_specs("vgg-mini")
        weights = {k: (w.astype("f2").astype("f4"), b.astype("f2").astype("f4"))
                   for k, (w, b) in t.random_weights(specs).items()}
        reference = self.folder / "reference.h5"
        t.write_keras_h5(reference, specs, weights, "keras3")
        plain = self.note(reference)
        for options, dtype in (({"libver": "latest"}, "f4"), ({"userblock_size": 512}, ">f4"),
                               ({"libver": "latest", "track_order": True}, "f2"), ({}, ">f8")):
            path = self.folder / "same.h5"
            with h5py.File(path, "w", **options) as file:
                names = [layer for layer, _ in specs] + [f"activation_{i}" for i in range(10)]
                if "libver" in options:  # 90 KB, in dense storage
                    file.attrs["layer_names"] = np.array(names, "S4000")
                else:
                    file.attrs.create("layer_names", names, dtype=h5py.string_dtype())
                for layer in names:
                    group = file.create_group(layer)
                    parts = weights.get(layer, ())
                    labels = [f"{layer}/kernel", f"{layer}/bias"][:len(parts)]
                    group.attrs["weight_names"] = labels or np.zeros(0)
                    for label, value in zip(labels, parts):
                        group.create_dataset(label, data=value.astype(dtype))
            np.testing.assert_array_equal(self.note(path), plain)

    def test_backbone_in_capitals(self):
        path = self.mini()
        expected = self.note(path)
        for name in ("VGG-Mini", "vgg_mini", "vggmini", "Vgg mini"):
            np.testing.assert_array_equal(self.note(path, backbone=name), expected)
        self.assertEqual(self.succeed_json("summary", "--backbone", "VGG16_BN", "--json"),
                         self.succeed_json("summary", "--backbone", "vgg16_bn", "--json"))
        self.fail_with(2, "unknown backbone 'vgg99'", "summary", "--backbone", "vgg99")
        self.assertIn("6d6bbae1", self.fail_with(
            1, "vgg16_weights", "weights", "download", "VGG16",
            env=dict(self.env, GRAFT_WEIGHTS_URL="http://127.0.0.1:9")).stderr)

    def test_top_has_the_files_number_of_classes(self):
        specs = t.layer_specs("vgg11", top_classes=7, map_size=1)
        path = self.folder / "top.h5"
        t.write_keras_h5(path, specs, t.random_weights(specs))
        out = self.folder / "top.npy"
        self.succeed("features", self.image, "-o", out, "--backbone", "vgg11", "--input-size",
                     "32", "--weights", path, "--include-top")
        self.assertEqual(np.load(out).shape, (1, 7))

    def test_cut_short(self):
        data = self.write().read_bytes()
        for share in (0.001, 0.3, 0.9, 0.999):
            path = self.folder / "short.h5"
            path.write_bytes(data[:int(len(data) * share)])
            self.refuse("short.h5", path)

    def test_links_and_external_data(self):
        path = self.write()
        with h5py.File(path, "a") as file:
            del file["block1_conv1"]["block1_conv1_W_1:0"]
            file["block1_conv1"]["block1_conv1_W_1:0"] = h5py.ExternalLink("/etc/passwd", "/x")
        self.refuse("a link to another place", path)
        path = self.write()
        with h5py.File(path, "a") as file:
            del file["block2_conv1"]
            file["block2_conv1"] = h5py.SoftLink("/block1_conv1")
        self.refuse("a link to another place", path)

    def test_bomb(self):
        path = self.write()
        with h5py.File(path, "a") as file:
            group = file["block1_conv1"]
            del group["block1_conv1_W_1:0"]
            group.create_dataset("block1_conv1_W_1:0", shape=(3, 3, 3, 60_000_000), dtype="f4",
                                 chunks=(3, 3, 3, 1000), compression="gzip")
        self.refuse("too large", path)
        with h5py.File(path, "a") as file:
            group = file["block1_conv1"]
            del group["block1_conv1_W_1:0"]
            group.create_dataset("block1_conv1_W_1:0", shape=(3, 3, 3, 6_000_000), dtype="f4",
                                 chunks=(3, 3, 3, 1000), compression="gzip")
            group["block1_conv1_W_1:0"][..., :10] = 1
        self.refuse("fewer bytes", path)

    def test_nan(self):
        def change(weights):
            weights["block3_conv1"][0][1, 1, 0, 0] = np.nan
        self.refuse("NaN", self.write(change))

    def test_imagenet_where_there_is_none(self):
        for weights, backbone, why in (("imagenet", "vgg-mini", "for vgg-mini;"),
                                       ("keras", "vgg13_bn", "for vgg13_bn by keras;"),
                                       ("torchvision", "vgg-mini", "for vgg-mini by torchvision;")):
            done = self.refuse("no ImageNet weights are published " + why, weights, backbone=backbone)
            self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_builtin_needs_no_network(self):
        env = dict(self.env, GRAFT_WEIGHTS_URL="http://127.0.0.1:9")
        out = self.folder / "x.npy"
        self.succeed("features", self.image, "--backbone", "vgg-mini", "-o", out, env=env)
        self.assertGreater(np.abs(np.load(out)).max(), 0)
        self.fail_with(2, "no weights inside graft", "features", self.image, "--backbone", "vgg16",
                       "--weights", "builtin", "-o", out)

    def test_convert_folds_batchnorm(self):
        data, run = self.folder / "data", self.folder / "run"
        t.draw_scenes(data, 5)
        self.succeed("train", data, "--backbone", "vgg-mini_bn", "--weights", "none", "--fine-tune",
                     "all", "--input-size", "32", "--batch-size", "8", "--epochs", "2", "-o", run)
        features = []
        for name, more in (("vgg-mini_bn", ()), ("vgg-mini", ("--fold-batchnorm",)),
                           ("vgg-mini", ("--fold-batchnorm", "--dtype", "fp16"))):
            file, out = self.folder / "b.safetensors", self.folder / "x.npy"
            self.succeed("weights", "convert", run, "-o", file, *more)
            self.succeed("features", self.image, "--backbone", name, "--weights", file,
                         "--input-size", "32", "-o", out)
            features.append(np.load(out))
        scale = np.abs(features[0]).max()
        self.assertLess(np.abs(features[1] - features[0]).max(), 1e-5 * scale)
        self.assertLess(np.abs(features[2] - features[0]).max(), 1e-2 * scale)  # 11 bits of weights
        self.fail_with(1, "cannot classify", "predict", file, self.image)


if __name__ == "__main__":
    t.main()
