"""The main job on real photos with the real weights of VGG19's first three blocks."""
import shutil

import graft_testing as t
import numpy as np

t.skip_without(t.SCENES, "the real scene photos")
t.skip_without(t.REAL_WEIGHTS, "the real VGG19 weights")

BLOCKS = ("--backbone", "vgg19", "--weights", t.REAL_WEIGHTS, "--until", "block3_pool")


def some_photos(count, first=0):
    """`count` photos of each class."""
    return [path for folder in sorted((t.SCENES / "train").iterdir())
            for path in sorted(folder.iterdir())[first:first + count]]


class Scenes(t.TestCase):
    def reference(self, photos, size):
        import h5py
        import torch
        from PIL import Image
        mean = np.array([103.939, 116.779, 123.68])
        rows = []
        for path in photos:
            image = Image.open(path).convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.BILINEAR)
            rows.append((np.asarray(image).astype("f8")[..., ::-1] - mean).transpose(2, 0, 1))
        x = torch.tensor(np.stack(rows))
        with h5py.File(t.REAL_WEIGHTS) as file:
            for layer, shape in t.layer_specs("vgg19"):
                if shape is None:
                    x = torch.max_pool2d(x, 2)
                else:
                    kernel = torch.tensor(file[layer][layer + "_W_1:0"][:].astype("f8"))
                    bias = torch.tensor(file[layer][layer + "_b_1:0"][:].astype("f8"))
                    x = torch.relu(torch.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
                if layer == "block3_pool":
                    return x.numpy()

    def test_activations_at_150(self):
        photos = some_photos(1)
        out = self.folder / "f.npy"
        self.succeed("features", *photos, *BLOCKS, "--input-size", "150", "-o", out)
        want = self.reference(photos, 150)
        got = np.load(out)
        self.assertEqual(got.shape, (6, 256, 18, 18))
        # The engine's promise with the default plan; the activations' own scale.
        error = np.abs(got - want).max() / np.abs(want).max()
        print(f"error of block3_pool at 150x150: {error:.1e} of the largest activation")
        self.assertLess(error, 2e-5)

    def test_gap_at_224_through_pillows_bilinear(self):
        photos = some_photos(1, first=40)
        out = self.folder / "f.npy"
        self.succeed("features", *photos, *BLOCKS, "--pool", "gap", "-o", out)
        want = self.reference(photos, 224).mean((2, 3))
        self.assertLess(np.abs(np.load(out) - want).max() / np.abs(want).max(), 1e-3)

    def test_feature_extraction_then_fine_tuning(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without LibTorch")
        data = self.folder / "data"
        for part, first, count in (("train", 0, 24), ("test", 100, 10)):
            for path in some_photos(count, first):
                target = data / part / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        run = self.folder / "run"
        document = self.succeed_json("train", data, *BLOCKS, "--input-size", "96", "--epochs", "15",
                                     "--patience", "0", "-o", run, "--json")
        self.assertGreater(document["test"]["top1"], 0.55, "chance is 0.17")
        history = t.read_csv(run / "history.csv")
        best = history[document["best_epoch"] - 1]
        again = self.succeed_json("evaluate", run, run / "split.csv", "--split", "val", "--json")
        self.assertAlmostEqual(again["loss"], document["validation"]["loss"], delta=1e-4)
        raw = document["calibration"]["uncalibrated_validation"]["loss"]
        self.assertAlmostEqual(raw, float(best["val_loss"]), delta=1e-4)
        self.assertLessEqual(again["loss"], raw)
        self.assertAlmostEqual(again["top1"], float(best["val_accuracy"]), places=5)

        tuned = self.folder / "tuned"
        document = self.succeed_json("train", data, *BLOCKS, "--input-size", "64", "--epochs", "3",
                                     "--fine-tune", "block3_conv1", "-o", tuned, "--json")
        self.assertEqual(document["test"]["images"], 60)
        losses = [float(row["loss"]) for row in t.read_csv(tuned / "history.csv")]
        self.assertLess(losses[-1], losses[0])
        frozen, _ = t.read_safetensors(run / "model.safetensors")
        moved, _ = t.read_safetensors(tuned / "model.safetensors")
        for layer in ("block1_conv1", "block2_conv2"):
            np.testing.assert_array_equal(frozen[layer + ".weight"], moved[layer + ".weight"])
        for layer in ("block3_conv1", "block3_conv4"):
            self.assertTrue((frozen[layer + ".weight"] != moved[layer + ".weight"]).any())


if __name__ == "__main__":
    t.main()
