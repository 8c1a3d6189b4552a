"""Weights files: what is read, what is refused, and how it is said."""
import h5py
import graft_testing as t
import numpy as np


class Weights(t.TestCase):
    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "p", 1)
        self.picture = next((self.folder / "p").rglob("*.jpg"))
        self.env = {"XDG_CACHE_HOME": str(self.folder / "cache")}

    def refuse(self, text, path, *arguments, backbone="vgg11"):
        out = self.folder / "out.npy"
        done = self.fail_with(1, text, "features", self.picture, "-o", out, "--backbone", backbone,
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

    def test_extra_layer(self):
        path = self.write()
        layers = ["input_1"] + [layer for layer, _ in t.layer_specs("vgg11")]
        with h5py.File(path, "a") as file:
            file.attrs["layer_names"] = [n.encode() for n in layers] + [b"dense_9"]
            group = file.create_group("dense_9")
            group.create_dataset("kernel:0", data=np.zeros((4, 4), "f4"))
            group.attrs["weight_names"] = [b"kernel:0"]
        self.refuse("not in the network", path)

    def test_partial_file_only_up_to_the_cut(self):
        def change(weights):
            for layer in list(weights):
                if layer > "block3":
                    del weights[layer]
        path = self.write(change)
        self.refuse("cut there with --until", path)
        self.succeed("features", self.picture, "-o", self.folder / "o.npy", "--backbone", "vgg11",
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
        page = self.folder / "page.h5"
        page.write_text("<!DOCTYPE html><html>Not found</html>")
        self.refuse("not HDF5 at all", page)
        empty = self.folder / "empty.h5"
        empty.write_bytes(b"")
        self.refuse("not HDF5 at all", empty)
        with h5py.File(self.folder / "other.h5", "w") as file:
            file["x"] = [1]
        self.refuse("no layer_names", self.folder / "other.h5")
        self.refuse("no such file", self.folder / "missing.h5")
        self.refuse("not a regular file", self.folder)

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
        for backbone in ("vgg11", "vgg13_bn", "vgg-mini"):
            done = self.refuse("no ImageNet weights are published", "imagenet", backbone=backbone)
            self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_builtin_needs_no_network(self):
        env = dict(self.env, GRAFT_WEIGHTS_MIRROR="http://127.0.0.1:9")
        out = self.folder / "x.npy"
        self.succeed("features", self.picture, "--backbone", "vgg-mini", "-o", out, env=env)
        self.assertGreater(np.abs(np.load(out)).max(), 0)
        self.fail_with(2, "no weights inside graft", "features", self.picture, "--backbone", "vgg16",
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
            self.succeed("features", self.picture, "--backbone", name, "--weights", file,
                         "--input-size", "32", "-o", out)
            features.append(np.load(out))
        scale = np.abs(features[0]).max()
        self.assertLess(np.abs(features[1] - features[0]).max(), 1e-5 * scale)
        self.assertLess(np.abs(features[2] - features[0]).max(), 1e-2 * scale)  # 11 bits of weights
        self.fail_with(1, "cannot classify", "predict", file, self.picture)

    def test_imagenet_offline_says_where_to_get_it(self):
        env = dict(self.env, GRAFT_WEIGHTS_MIRROR="http://127.0.0.1:9")
        done = self.fail_with(1, "6d6bbae143d832006294945121d1f1fc", "features", self.picture, "-o",
                              self.folder / "x.npy", env=env)
        self.assertIn("http://127.0.0.1:9/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                      done.stderr)
        self.assertIn(str(self.folder / "cache" / "graft" / "weights"), done.stderr)

    def test_list_and_verify(self):
        listed = self.succeed_json("weights", "list", "--json", env=self.env)
        self.assertEqual(len(listed["files"]), 4)
        first = listed["files"][0]
        self.assertTrue(first["url"].startswith("https://storage.googleapis.com/tensorflow/"))
        self.assertEqual(self.succeed("weights", "verify", env=self.env).stdout.split()[0], "nothing")
        import pathlib
        target = pathlib.Path(first["path"])
        target.parent.mkdir(parents=True)
        target.write_bytes(b"x" * 100)
        self.assertTrue(self.succeed_json("weights", "list", "--json",
                                          env=self.env)["files"][0]["present"])
        self.fail_stdout("wrong size", "weights", "verify")
        with open(target, "wb") as file:
            file.truncate(first["bytes"])
        self.fail_stdout("wrong MD5", "weights", "verify", "vgg16")
        self.fail_with(1, "not the published file", "weights", "download", "vgg16", env=self.env)
        self.fail_with(2, "no published weights", "weights", "download", "vgg11", env=self.env)
        self.fail_with(2, "ACTION", "weights", "steal")

    def fail_stdout(self, text, *arguments):
        done = t.run(*arguments, env=self.env)
        self.assertEqual(done.returncode, 1)
        self.assertIn(text, done.stdout)


if __name__ == "__main__":
    t.main()
