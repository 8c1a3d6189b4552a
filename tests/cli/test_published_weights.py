"""Published weights: what is listed, where it is looked for, and what is refused. Nothing is downloaded."""
import pathlib

import graft_testing as t


class PublishedWeights(t.TestCase):
    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "p", 1)
        self.image = next((self.folder / "p").rglob("*.jpg"))
        self.env = {"XDG_CACHE_HOME": str(self.folder / "cache")}

    def fail_stdout(self, text, *arguments):
        done = t.run(*arguments, env=self.env)
        self.assertEqual(done.returncode, 1)
        self.assertIn(text, done.stdout)

    def test_wrong_file_under_the_official_name(self):
        """Is refused at every load; a right one is hashed once."""
        first = self.succeed_json("weights", "list", "--json", env=self.env)["files"][0]
        target = pathlib.Path(first["path"])
        target.parent.mkdir(parents=True)
        specs = t.layer_specs("vgg16")
        t.write_keras_h5(target, specs, t.random_weights(specs))
        features = ("features", self.image, "-o", self.folder / "x.npy", "--input-size", "32")
        self.fail_with(1, f"bytes instead of {first['bytes']}", *features, env=self.env)
        with open(target, "ab") as file:
            file.truncate(first["bytes"])
        for _ in range(2):
            done = self.fail_with(1, "its hash is not", *features, env=self.env)
            self.assertIn("delete it", done.stderr)
            self.assertFalse(list(target.parent.glob("*.checked")))

    def test_published_weights_of_torchvision(self):
        """What Keras has not comes from there, and all that is asked for by name."""
        env = dict(self.env, GRAFT_WEIGHTS_URL="http://127.0.0.1:9")
        out = self.folder / "x.npy"
        for weights, backbone, file in ((None, "vgg11", "vgg11-8a719046.pth"),
                                        ("imagenet", "vgg16_bn", "vgg16_bn-6c64b313.pth"),
                                        ("torchvision", "vgg16", "vgg16-397923af.pth"),
                                        ("keras", "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5")):
            more = ("--weights", weights) if weights else ()
            done = self.fail_with(1, f"http://127.0.0.1:9/{file}", "features", self.image, "--backbone", backbone,
                                  "-o", out, *more, env=env)
            self.assertIn("MD5 " if file.endswith(".h5") else "SHA-256 " + file[-12:-4], done.stderr)
        self.assertIn("vgg16-397923af.pth", self.fail_with(1, "127.0.0.1:9", "weights", "download", "vgg16", "--family",
                                                           "torchvision", env=env).stderr)
        self.fail_with(2, "no published weights for 'vgg11' by keras", "weights", "download", "vgg11", "--family",
                       "keras", env=env)
        fake = self.folder / "vgg11-8a719046.pth"
        fake.write_bytes(b"no weights")
        self.fail_with(1, "none of the published files", "weights", "import", fake, env=env)
        self.fail_with(2, "name the file", "weights", "import", env=env)
        self.fail_with(1, "absent.pth", "weights", "import", self.folder / "absent.pth", env=env)

    def test_imagenet_offline_says_where_to_get_it(self):
        env = dict(self.env, GRAFT_WEIGHTS_URL="http://127.0.0.1:9")
        done = self.fail_with(1, "6d6bbae143d832006294945121d1f1fc", "features", self.image, "-o",
                              self.folder / "x.npy", env=env)
        self.assertIn("http://127.0.0.1:9/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                      done.stderr)
        self.assertIn(str(self.folder / "cache" / "graft" / "weights"), done.stderr)

    def test_list_and_verify(self):
        listed = self.succeed_json("weights", "list", "--json", env=self.env)
        self.assertEqual(len(listed["files"]), 12)
        for row in listed["files"]:
            self.assertTrue((row["md5"] or row["sha256"]) and 0.69 < row["top1"] < 0.75, row)
            self.assertGreater(row["bytes"], 50_000_000)
        first = listed["files"][0]
        self.assertTrue(first["url"].startswith("https://storage.googleapis.com/tensorflow/"))
        self.assertEqual(self.succeed("weights", "verify", env=self.env).stdout.split()[0], "nothing")
        target = pathlib.Path(first["path"])
        target.parent.mkdir(parents=True)
        target.write_bytes(b"x" * 100)
        self.assertTrue(self.succeed_json("weights", "list", "--json",
                                          env=self.env)["files"][0]["present"])
        self.fail_stdout("wrong size", "weights", "verify")
        with open(target, "wb") as file:
            file.truncate(first["bytes"])
        self.fail_stdout("wrong hash", "weights", "verify", "vgg16")
        self.fail_with(1, "not the published file", "weights", "download", "vgg16", env=self.env)
        self.fail_with(2, "no published weights", "weights", "download", "vgg-mini", env=self.env)
        self.fail_with(2, "ACTION", "weights", "steal")


if __name__ == "__main__":
    t.main()
