"""graft summary: Keras' figures, the JSON document, the general shape of the command line."""
import graft_testing as t

HEAD = "flatten dense:4096 dense:1072 dropout:0.2"


class Summary(t.TestCase):
    def test_keras_figures(self):
        for backbone, fine_tune, total, trainable in (
                ("vgg16", 0, 121877654, 107162966), ("vgg16", 2, 121877654, 109522774),
                ("vgg19", 0, 127187350, 107162966), ("vgg19", 2, 127187350, 109522774)):
            document = self.succeed_json("summary", "--backbone", backbone, "--classes", 6, "--head",
                                         HEAD, "--fine-tune", fine_tune, "--json")
            self.assertEqual(document["parameters"], total)
            self.assertEqual(document["trainable"], trainable)
            self.assertEqual(document["non_trainable"], total - trainable)
            self.assertEqual(sum(row["parameters"] for row in document["layers"]), total)

    def test_recipe_is_the_notebook(self):
        text = (t.SOURCE / "recipes" / "notebook.toml").read_text()
        self.assertIn(f'head = "{HEAD}"', text)

    def test_layers(self):
        document = self.succeed_json("summary", "--backbone", "vgg19", "--until", "block3_pool",
                                     "--input-size", "150x120", "--json")
        last = document["layers"][-1]
        self.assertEqual((last["name"], last["kind"]), ("block3_pool", "maxpool"))
        self.assertEqual(last["output_shape"], [256, 18, 15])
        self.assertFalse(any(row["trainable"] for row in document["layers"]))
        tops = self.succeed_json("summary", "--backbone", "vgg16", "--include-top", "--json")
        self.assertEqual(tops["parameters"], 138357544)
        self.assertEqual([row["name"] for row in tops["layers"][-4:]],
                         ["flatten", "fc1", "fc2", "predictions"])

    def test_table(self):
        text = self.succeed("summary", "--backbone", "vgg16", "--classes", "6", "--head", HEAD).stdout
        for part in ("block5_conv3", "(512, 14, 14)", "Total params: 121,877,654",
                     "Trainable params: 107,162,966", "Non-trainable params: 14,714,688"):
            self.assertIn(part, text)

    def test_contradictions(self):
        self.fail_with(2, "--classes", "summary", "--head", "gap")
        self.fail_with(2, "contradicts", "summary", "--include-top", "--classes", 6)
        self.fail_with(2, "choose one of", "summary", "--backbone", "resnet50")
        self.fail_with(2, "its layers are", "summary", "--until", "block6_pool")
        self.fail_with(2, "too small", "summary", "--input-size", "31")
        self.fail_with(2, "not a size", "summary", "--input-size", "big")


class Bench(t.TestCase):
    def test_json(self):
        document = self.succeed_json("bench", "--backbone", "vgg11", "--size", 32, "--batch", 1, 3,
                                     "--repeats", 1, "--json")
        mine = [p for p in document["peaks"] if p["instructions"] == document["instruction_set"]]
        self.assertEqual([p["precision"] for p in mine], ["fp32"])
        self.assertTrue(all(p["gflops"] > 0 for p in document["peaks"]))
        shares = [layer["share"] for layer in document["networks"][0]["layers"]]
        self.assertTrue(0.5 < sum(shares) < 1.5, shares)
        self.assertEqual([n["batch"] for n in document["networks"]], [1, 3])
        layers = [row["layer"] for row in document["networks"][0]["layers"] if row["layer"]]
        self.assertEqual(layers[0], "block1_conv1")
        self.assertEqual(len(layers), 8)


class CommandLine(t.TestCase):
    def test_help_and_version(self):
        self.assertIn("graft 0.", self.succeed("--version").stdout)
        self.assertIn("train", self.succeed("--help").stdout)
        for command in ("train", "evaluate", "predict", "features", "summary", "weights", "demo", "bench",
                        "check", "compare", "preview", "cache"):
            text = self.succeed(command, "--help").stdout
            self.assertIn("--quiet", text)
            self.assertIn("--threads", text)
            if command != "demo":
                self.assertIn("Examples:", text)

    def test_unknown(self):
        self.fail_with(2, "unknown command 'teach'", "teach")
        self.fail_with(2, "no command")
        # What a later version brings is unknown until then.
        self.fail_with(2, "--tunnel", "train", "x", "--tunnel", "8080")
        self.fail_with(2, "--dashboard", "train", "x", "--dashboard", "0")
        self.fail_with(2, "--threads", "summary", "--threads", "0")
        self.fail_with(2, "--verbose", "summary", "--quiet", "--verbose")
        self.fail_with(2, "choose one of", "bench", "--backbone", "x", "--size", 32, "--batch", 1)

    def test_stdout_that_cannot_be_written(self):
        import subprocess
        with open("/dev/full", "w") as full:
            done = subprocess.run([t.GRAFT, "summary"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("standard output", done.stderr)

    def test_reader_that_leaves(self):
        import subprocess
        done = subprocess.run(f"{t.GRAFT} summary --include-top | head -n 1", shell=True,
                              capture_output=True, text=True)
        self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    t.main()
