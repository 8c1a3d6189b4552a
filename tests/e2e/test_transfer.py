"""Transfer from the weights inside the program, offline, on drawn images that they never saw."""
import sys

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

HEAD = ("--head", "stats batchnorm dense:64 dropout:0.5")


class Transfer(t.TestCase):
    def draw(self, count, *kind):
        t.tool("draw_scenes", self.folder / "train", count, 70_000, 112, *kind, check=True)
        t.tool("draw_scenes", self.folder / "test", 24, 80_000, 112, *kind, check=True)

    def train(self, *arguments):
        run = self.folder / "run"
        document = self.succeed_json("train", self.folder, "--backbone", "vgg-mini", *HEAD, "--json",
                                     "--force", "-o", run, *arguments)
        return document["test"]["top1"]

    def test_scenes(self):
        self.draw(24)
        transferred = self.train("--epochs", "16")
        self.assertGreater(transferred, 0.55, "chance is 0.17")
        self.assertGreater(transferred, self.train("--epochs", "16", "--weights", "none") + 0.03)
        # Every word of the program's main story, on one run.
        tuned = self.train("--epochs", "16", "--freeze-epochs", "8", "--fine-tune", "block4_conv1",
                           "--lr", "5e-4")
        self.assertGreater(tuned, 0.55)
        image = self.folder / "test" / "sea" / "0.jpg"
        p = self.succeed_json("predict", self.folder / "run", image, "--json")["predictions"][0]
        self.assertGreater(p["probability"], 1 / 6)
        again = self.succeed_json("evaluate", self.folder / "run", self.folder, "--json")
        self.assertAlmostEqual(again["top1"], tuned, places=5)

    def test_things_that_are_no_scenes(self):
        self.draw(60, "things")
        self.assertGreater(self.train("--epochs", "16"), 1 / 6 + 0.04)


if __name__ == "__main__":
    t.main()
