"""Grad-CAM against PyTorch's autograd on the same weights: every kind of layer on the way back."""
import json
import sys

import graft_testing as t
import numpy as np

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

import torch
from PIL import Image


def gradcam(model, image, target, output):
    """The network rebuilt from the file's own description, in double precision."""
    tensors, metadata = t.read_safetensors(model)
    network = json.loads(metadata["network"])
    preprocessing = json.loads(metadata["preprocessing"])
    height, width = network["input_size"]
    image = Image.open(image).convert("RGB").resize((width, height), Image.BILINEAR)
    x = np.asarray(image).astype("f8")
    if preprocessing["channel_order"] == "bgr":
        x = x[..., ::-1]
    x = x * np.array(preprocessing["scale"]) - np.array(preprocessing["shift"])
    x = torch.tensor(x.transpose(2, 0, 1)[None].copy())
    at = None
    for layer in network["layers"]:
        def value(role):
            return torch.tensor(tensors[f"{layer['name']}.{role}"].astype("f8"))
        kind = layer["kind"]
        if kind == "conv":
            x = torch.conv2d(x, value("weight"), value("bias"), padding=1)
        elif kind == "dense":
            x = torch.nn.functional.linear(x, value("weight"), value("bias"))
        elif kind == "batchnorm":
            x = torch.nn.functional.batch_norm(x, value("running_mean"), value("running_var"),
                                               value("weight"), value("bias"), eps=layer["epsilon"])
        elif kind == "maxpool":
            x = torch.max_pool2d(x, 2)
        elif kind == "gap":
            x = x.mean((2, 3))
        elif kind == "gmp":
            x = torch.nn.functional.adaptive_max_pool2d(x, 1).flatten(1)
        elif kind == "stats":
            x = torch.cat([x.mean((2, 3)), torch.nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
                           x.std((2, 3), unbiased=False)], 1)
        elif kind == "flatten":
            x = x.flatten(1)
        if layer.get("relu"):
            x = torch.relu(x)
        if layer["name"] == target:
            at = x
            x.requires_grad_() if x.is_leaf else x.retain_grad()
    x[0, output].backward()
    weights = at.grad.mean((2, 3), keepdim=True)
    cam = torch.relu((weights * at).sum(1))[0]
    return (cam / max(cam.max(), 1e-30)).detach().numpy(), x[0].detach().numpy()


class GradCam(t.TestCase):
    HEADS = {
        "batchnorm conv:8 batchnorm maxpool conv:6 gap": "vgg-mini",
        "stats batchnorm dense:16 dropout:0.5": "vgg-mini",
        "gmp dense:12 batchnorm": "vgg-mini",
        "flatten dense:20 dropout:0.2": "vgg-mini_bn",
    }

    def test_every_layer(self):
        t.draw_scenes(self.folder / "data", 6, size=72)
        image = self.folder / "data" / "sea" / "3.jpg"
        checked = alive = 0
        for number, (head, backbone) in enumerate(self.HEADS.items()):
            run = self.folder / f"run{number}"
            # Odd sizes: a row and a column that pooling drops.
            self.succeed("train", self.folder / "data", "--backbone", backbone, "--head", head,
                         *(["--weights", "none"] if backbone.endswith("bn") else []),
                         "--input-size", "74x70", "--epochs", "2", "--quiet", "-o", run)
            model = run / "model.safetensors"
            network = json.loads(t.read_safetensors(model)[1]["network"])
            layers = [l["name"] for l in network["layers"] if l["kind"] == "conv"]
            for layer in layers[:1] + layers[-3:]:
                for output in (0, 4):
                    done = t.tool("gradcam_probe", model, image, layer, output, check=True)
                    got = json.loads(done.stdout)
                    want, logits = gradcam(model, image, layer, output)
                    np.testing.assert_allclose(got["logits"], logits, atol=2e-4)
                    self.assertEqual((got["height"], got["width"]), want.shape)
                    np.testing.assert_allclose(np.reshape(got["values"], want.shape), want, atol=2e-3,
                                               err_msg=f"{head}: {layer}, class {output}")
                    checked += 1
                    alive += want.max() > 0
        self.assertEqual(checked, 32)
        self.assertGreater(alive, 20, "maps that are all zero show little")


if __name__ == "__main__":
    t.main()
