"""Weights that torchvision and timm write, in every form that they write them: features and answers agree."""
import sys

import graft_testing as t
import numpy as np
from PIL import Image

try:
    import timm
    import torch
    import torchvision
    from safetensors.torch import save_file
except ImportError as error:  # PyTorch is some gigabytes; Debian's, or one that is there, serves
    print("SKIPPED:", error)
    sys.exit(0)

NAMES = [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")]


def settle(model, seed):
    """Activations that neither vanish nor grow, BatchNorms that do something."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias, std=0.05)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


class Torch(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        small = Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        self.image = self.folder / "x.jpg"
        small.resize((310, 270), Image.BICUBIC).save(self.image, quality=95)

    def preset(self, size):
        """torchvision's own, at other sizes too."""
        from torchvision.transforms import InterpolationMode, functional as F
        x = F.resize(Image.open(self.image), round(size * 256 / 224), InterpolationMode.BILINEAR)
        x = F.pil_to_tensor(F.center_crop(x, size)).float() / 255
        return F.normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))[None]

    def check(self, path, backbone, want, size, *more):
        out = self.folder / "out.npy"
        done = self.succeed("features", self.image, "-o", out, "--backbone", backbone, "--weights", path,
                            "--input-size", size, *more)
        # Random weights are none of the published ones.
        told = "pixels are prepared as for torchvision's own weights"
        self.assertEqual([line for line in done.stderr.splitlines() if not line.startswith("wrote ") and told not in line],
                         [])
        got, want = np.load(out), want.numpy()
        self.assertEqual(got.shape, want.shape)
        self.assertLess(np.abs(got - want).max() / np.abs(want).max(), 1e-4, (path, backbone))
        about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
        self.assertEqual([fit["backbone"] for fit in about["fits"]], [backbone])
        self.assertEqual(about["preprocessing"]["family"], "torch")
        return about

    def test_features_of_all(self):
        for name in NAMES:
            model = settle(getattr(torchvision.models, name)(), 1)
            with torch.no_grad():
                want = model.features(self.preset(65))
            for zipped in (True, False):
                path = self.folder / f"{zipped}.pth"
                torch.save(model.features.state_dict() if zipped else
                           {f"features.{k}": v for k, v in model.features.state_dict().items()}, path,
                           _use_new_zipfile_serialization=zipped)
                self.check(path, name, want, 65)
                path.unlink()

    def test_top(self):
        model = settle(torchvision.models.vgg16(num_classes=37), 2)
        with torch.no_grad():
            want = model(self.preset(224))
        for zipped in (True, False):
            path = self.folder / "w.pth"
            torch.save({"model": model.state_dict(), "epoch": 1}, path, _use_new_zipfile_serialization=zipped)
            about = self.check(path, "vgg16", want, 224, "--include-top")
            self.assertEqual((about["family"], about["classes"]), ("torchvision", 37))

    def test_timm(self):
        for name in ("vgg11", "vgg19_bn"):
            model = settle(timm.create_model(name, pretrained=False, num_classes=5), 3)
            with torch.no_grad():
                want = model(self.preset(224))
            for dtype, path in ((torch.float32, self.folder / "model.safetensors"),
                                (torch.float32, self.folder / "model.pth")):
                state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
                if path.suffix == ".pth":
                    torch.save(state, path)
                else:
                    save_file(state, path)
                about = self.check(path, name, want, 224, "--include-top")
                self.assertEqual((about["family"], about["classes"]), ("timm", 5))
                path.unlink()

    def test_halves(self):
        model = settle(torchvision.models.vgg13(num_classes=3), 4)
        state = {k: v for k, v in model.features.state_dict().items()}
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            stored = {f"features.{k}": v.to(dtype) for k, v in state.items()}
            model.features.load_state_dict({k.removeprefix("features."): v.float() for k, v in stored.items()})
            with torch.no_grad():
                want = model.features(self.preset(64))
            save_file(stored, self.folder / "h.safetensors")
            torch.save(stored, self.folder / "h.pth")
            for path in (self.folder / "h.safetensors", self.folder / "h.pth"):
                self.check(path, "vgg13", want, 64)

    def test_whole_models_are_refused(self):
        path = self.folder / "whole.pth"
        for model in (torchvision.models.vgg11(), timm.create_model("vgg11", pretrained=False)):
            for zipped in (True, False):
                torch.save(model, path, _use_new_zipfile_serialization=zipped)
                self.fail_with(1, "torch.save(model.state_dict()", "weights", "inspect", path)


if __name__ == "__main__":
    print("PyTorch", torch.__version__, "torchvision", torchvision.__version__, "timm", timm.__version__)
    t.main()
