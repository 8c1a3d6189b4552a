"""graft weights inspect: what a file is, which network fits, what is missing."""
import hashlib
import json

import graft_testing as t
import torch
import torch_testing as tt


class Inspect(t.TestCase):
    def inspect(self, path, code=0):
        done = t.run("weights", "inspect", path, "--json")
        self.assertEqual((done.returncode, done.stderr), (code, ""))
        (about,) = t.json.loads(done.stdout)["files"]
        self.assertEqual(about["bytes"], path.stat().st_size)
        self.assertEqual(about["md5"], hashlib.md5(path.read_bytes()).hexdigest())
        return about

    def test_pytorch(self):
        path = self.folder / "w.pth"
        state = tt.make("vgg11", classes=4, map_size=1).state_dict()
        torch.save({"state_dict": {f"module.{k}": v.half() for k, v in state.items()} | {"module.neck.w": state["features.0.bias"]}}, path)
        about = self.inspect(path)
        self.assertEqual(about["fits"], [{"backbone": "vgg11", "until": "block5_pool", "whole": True}])
        self.assertEqual((about["format"], about["family"], about["classes"], about["left_out"], about["types"]),
                         ("PyTorch file (.pth)", "torchvision", 4, ["module.neck"], "float16, float32"))
        self.assertEqual(about["preprocessing"]["family"], "torch")
        self.assertEqual(about["preprocessing"]["channel_order"], "rgb")
        text = self.succeed("weights", "inspect", path).stdout
        self.assertIn(f"graft train PHOTOS --backbone vgg11 --weights {path}", text)
        # Whole, it is a classifier; its pixels are an assumption, which is said.
        self.assertTrue(about["convertible"])
        self.assertIn("left out module.neck.w, which no layer has", about["note"])
        torch.save(state, self.folder / "plain.pth")
        about = self.inspect(self.folder / "plain.pth")
        self.assertTrue(about["convertible"])
        self.assertIn("taken for prepared as torchvision's own weights are", about["note"])
        text = self.succeed("weights", "inspect", self.folder / "plain.pth").stdout
        self.assertIn(f"whole: graft weights convert {self.folder}/plain.pth MODEL.safetensors --classes", text)
        own = self.folder / "own.safetensors"
        self.succeed("weights", "convert", self.folder / "plain.pth", own, "--classes", "a,b,c,d", "--input-size", 32,
                     "--preprocessing", "unit", "--resampling", "nearest")
        text = self.succeed("weights", "inspect", own).stdout
        self.assertIn(f"MD5         {hashlib.md5(own.read_bytes()).hexdigest()} (this file's)", text)
        self.assertIn("pixels      unit: RGB", text)
        self.assertIn(f"whole: graft predict {own} PHOTOS", text)
        tt.write_safetensors(self.folder / "t.safetensors", tt.as_timm(state))
        about = self.inspect(self.folder / "t.safetensors")
        self.assertEqual((about["format"], about["family"], about["classes"]), ("safetensors", "timm", 4))

    def test_every_backbone_is_told_from_the_others(self):
        for name in ("vgg11", "vgg13_bn", "vgg16", "vgg19_bn", "vgg-mini"):
            path = self.folder / "w.pth"
            torch.save(tt.make(name).state_dict(), path)
            self.assertEqual([fit["backbone"] for fit in self.inspect(path)["fits"]], [name])

    def test_what_is_missing(self):
        path = self.folder / "w.pth"
        state = tt.make("vgg16").state_dict()
        torch.save({k: v for k, v in state.items() if int(k.split(".")[1]) < 8}, path)
        self.assertEqual([(fit["backbone"], fit["until"], fit["whole"]) for fit in self.inspect(path)["fits"]],
                         [(name, "block2_pool", False) for name in ("vgg13", "vgg16", "vgg19")])
        self.assertIn("--until block2_pool", self.succeed("weights", "inspect", path).stdout)
        state.pop("features.5.bias")
        torch.save(state, path)
        about = self.inspect(path, 1)
        self.assertEqual((about["fits"], about["nearest"]), ([], "vgg16"))
        (row,) = about["differences"]
        self.assertEqual(row.split(), ["block2_conv1.bias", "(128)", "missing"])

    def test_keras(self):
        specs = t.layer_specs("vgg-mini")
        path = self.folder / "w.h5"
        t.write_keras_h5(path, specs + [("hidden", (4, 4))], t.random_weights(specs + [("hidden", (4, 4))]), "model")
        about = self.inspect(path)
        self.assertEqual((about["family"], about["by_order"], about["left_out"]), ("keras", False, ["hidden"]))
        self.assertIsNone(about["preprocessing"])  # somebody's classifier, without its description
        renamed = [(f"base_{name}", shape) for name, shape in specs]
        t.write_keras_h5(path, renamed, t.random_weights(renamed))
        about = self.inspect(path)
        self.assertTrue(about["by_order"])
        self.assertEqual(about["preprocessing"]["family"], "keras")
        self.assertEqual(about["preprocessing"]["channel_order"], "bgr")
        self.assertEqual([fit["backbone"] for fit in about["fits"]], ["vgg-mini"])
        first = [spec for spec in specs if spec[0] < "block3"]
        t.write_keras_h5(path, first, t.random_weights(first))
        self.assertEqual([(fit["backbone"], fit["until"]) for fit in self.inspect(path)["fits"]],
                         [("vgg-mini", "block2_pool")])

    def test_types_of_keras_files(self):
        specs = [spec for spec in t.layer_specs("vgg-mini") if spec[0] < "block2"]
        weights = t.random_weights(specs)
        path = self.folder / "my weights.h5"
        t.write_keras_h5(path, specs, weights)
        self.assertEqual(self.inspect(path)["types"], "float32")
        self.assertIn(f"--weights '{path}'\n", self.succeed("weights", "inspect", path).stdout)
        t.write_keras_h5(path, specs, {k: tuple(v.astype("f2") for v in values) for k, values in weights.items()})
        self.assertEqual(self.inspect(path)["types"], "float16")

    def test_published_weights_by_name(self):
        rows = self.succeed_json("weights", "list", "vgg16", "--json")["files"]
        self.assertEqual({row["backbone"] for row in rows}, {"vgg16"})
        self.assertEqual({row["family"] for row in self.succeed_json("weights", "list", "keras", "--json")["files"]}, {"keras"})
        self.fail_with(2, "'timm' is neither", "weights", "list", "timm")

    def test_several_files(self):
        specs = [spec for spec in t.layer_specs("vgg-mini") if spec[0] < "block2"]
        good, bad = self.folder / "good.h5", self.folder / "bad.h5"
        t.write_keras_h5(good, specs, t.random_weights(specs))
        bad.write_text("no weights\n")
        done = self.fail_with(1, f"{bad}: ", "weights", "inspect", bad, good)
        self.assertIn(f"{good}: Keras HDF5", done.stdout)
        done = t.run("weights", "inspect", bad, good, "--json")
        first, second = json.loads(done.stdout)["files"]
        self.assertEqual((done.returncode, first["path"], second["family"]), (1, str(bad), "keras"))
        self.assertIn("this is a text", first["error"])

    @t.unittest.skipUnless(t.HAS_TRAINING, "built without training")
    def test_a_run(self):
        t.draw_scenes(self.folder / "p", 4)
        run = self.folder / "run"
        self.succeed("train", self.folder / "p", "-o", run, "--backbone", "vgg-mini", "--input-size", "32", "--epochs",
                     "1", "--no-cache")
        for path in (run, run / "model.safetensors"):
            (about,) = self.succeed_json("weights", "inspect", path, "--json")["files"]
            self.assertEqual((about["family"], about["classes"], len(about["labels"])), ("graft", 6, 6))
            self.assertEqual([fit["backbone"] for fit in about["fits"]], ["vgg-mini"])
            self.assertIn("distilled", about["source"])

    def test_other_files(self):
        path = self.folder / "x.txt"
        path.write_text("no weights\n")
        self.fail_with(1, "this is a text", "weights", "inspect", path)
        self.fail_with(1, "no such file", "weights", "inspect", self.folder / "none")
        self.fail_with(1, "not a regular file", "weights", "inspect", self.folder)
        self.fail_with(2, "name a file", "weights", "inspect")


if __name__ == "__main__":
    t.main()
