"""VGGs in PyTorch, as torchvision and timm lay them out, written here apart from the product."""
import collections

import graft_testing as t
import numpy as np
import torch
from PIL import Image
from torch import nn


def features(backbone):
    """torchvision's list: convolution, BatchNorm, ReLU, pooling."""
    layers, inputs = [], 3
    widths = t.MINI_CHANNELS if backbone.startswith("vgg-mini") else t.CHANNELS
    for count, channels in zip(t.BLOCKS[backbone.removesuffix("_bn")], widths):
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
            if backbone.endswith("_bn"):
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU())
            inputs = channels
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


class Vgg(nn.Module):
    """torchvision.models.VGG at an input of 32·map pixels."""

    def __init__(self, backbone, classes=0, map_size=7, units=4096):
        super().__init__()
        self.features = features(backbone)
        if classes:
            self.classifier = nn.Sequential(
                nn.Linear(map_size * map_size * 512, units), nn.ReLU(), nn.Dropout(),
                nn.Linear(units, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, classes))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.flatten(1)) if hasattr(self, "classifier") else x


def make(backbone, seed=0, **options):
    """A network whose activations neither vanish nor grow, and whose BatchNorms do something."""
    torch.manual_seed(seed)
    model = Vgg(backbone, **options).eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def as_timm(state, classes_prefix="head.fc"):
    """timm's names: its VGG keeps fc1 and fc2 as convolutions."""
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2",
             "classifier.6": classes_prefix}
    out = collections.OrderedDict()
    for key, value in state.items():
        module, role = key.rsplit(".", 1)
        if module in ("classifier.0", "classifier.3") and role == "weight":
            side = int((value.shape[1] // 512) ** 0.5) if module == "classifier.0" else 1
            value = value.reshape(value.shape[0], -1, side, side)
        out[names.get(module, module) + "." + role] = value
    return out


def inputs(image, size):
    """torchvision's preset: the shorter side to size · 256/224, the centre cut out, normalised."""
    target = round(size * 256 / 224)
    image = Image.open(image).convert("RGB")
    scale = target / min(image.size)
    image = image.resize([int(side * scale + 1e-6) for side in image.size], Image.BILINEAR)
    left, top = (round((side - size) / 2) for side in image.size)
    x = np.asarray(image.crop((left, top, left + size, top + size)), "f4") / np.float32(255)
    x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]


def write_safetensors(path, state):
    """Of any of the types that PyTorch has."""
    import json
    import pathlib
    import struct
    types = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
             torch.int64: "I64"}
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in state.items():
        raw = value.contiguous()
        raw = raw.view(torch.int16) if value.dtype == torch.bfloat16 else raw
        data = raw.numpy().tobytes()
        header[name] = {"dtype": types[value.dtype], "shape": list(value.shape),
                        "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
