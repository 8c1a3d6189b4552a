"""Makes vgg-mini's weights (data/vgg-mini.safetensors) by distillation: a narrow network learns to
give the maps that VGG16's block4_pool and block5_pool give, on strongly varied photos, without labels.

    python3 scripts/distill.py VGG16.h5 SPLIT.csv OUT.safetensors [--minutes 60] [--batch 256]

VGG16.h5: ImageNet weights, Keras layout. SPLIT.csv: path, label, split, as a run of `graft train`
leaves it; images whose split is test are not looked at. Needs PyTorch, h5py and Pillow; a GPU takes
minutes. The one-cycle schedule follows the clock, so that runs differ. docs/vgg-mini.md
"""
import argparse
import csv
import json
import math
import multiprocessing
import os
import struct
import time

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TEACHER = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
STUDENT = ((16, 2), (32, 2), (64, 2), (128, 2), (160, 2))  # src/network/vgg.cpp
PHOTO, TEACHER_SIZE, STUDENT_SIZE = 150, 224, 112
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)   # ImageNet's, of values from 0 to 1
CAFFE_MEAN = (123.68, 116.779, 103.939)                    # red, green, blue; Keras' VGG16
RATE, DECAY, AVERAGE, EPSILON = 3e-3, 0.02, 0.999, 1e-5
TAPS = ("block4_pool", "block5_pool")


def names(blocks):
    return [(f"block{b}_conv{i}", channels) for b, (channels, count) in enumerate(blocks, 1)
            for i in range(1, count + 1)]


class Vgg(nn.Module):
    """Convolutions with ReLU, BatchNorm between where asked for; gives the maps of TAPS."""

    def __init__(self, blocks, batchnorm):
        super().__init__()
        self.blocks, inputs = blocks, 3
        for name, channels in names(blocks):
            setattr(self, name, nn.Conv2d(inputs, channels, 3, padding=1))
            nn.init.kaiming_normal_(getattr(self, name).weight, nonlinearity="relu")
            nn.init.zeros_(getattr(self, name).bias)
            setattr(self, f"{name}_bn", nn.BatchNorm2d(channels, EPSILON) if batchnorm else nn.Identity())
            inputs = channels

    def forward(self, x):
        taps = []
        for block, (_, count) in enumerate(self.blocks, 1):
            for i in range(1, count + 1):
                name = f"block{block}_conv{i}"
                x = F.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)))
            x = F.max_pool2d(x, 2)
            if f"block{block}_pool" in TAPS:
                taps.append(x)
        return taps


def load_teacher(path):
    teacher = Vgg(TEACHER, batchnorm=False)
    with h5py.File(path, "r") as file:
        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                layer = next(n for n, _ in names(TEACHER) if n in name)
                value = torch.from_numpy(np.array(item))
                target = getattr(teacher, layer)
                if value.ndim == 4:
                    target.weight.data.copy_(value.permute(3, 2, 0, 1))
                else:
                    target.bias.data.copy_(value)
        file.visititems(visit)
    return teacher.to(DEVICE, torch.bfloat16, memory_format=torch.channels_last).requires_grad_(False)


def read(path):
    return np.asarray(Image.open(path).convert("RGB").resize((PHOTO, PHOTO), Image.Resampling.BILINEAR))


def uniform(count, low, high):
    return torch.empty(count, 1, 1, 1, device=DEVICE).uniform_(low, high)


def chance(count, p):
    return torch.rand(count, 1, 1, 1, device=DEVICE) < p


def crops(photos, size, least):
    """Rotated random parts of `least` of the area and more, mirrored in half of the cases."""
    n = len(photos)
    area, aspect = uniform(n, least, 1).flatten(), uniform(n, math.log(0.7), math.log(1.4)).exp().flatten()
    angle = (uniform(n, -0.35, 0.35) * chance(n, 0.5)).flatten()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(n, 2, 3, device=DEVICE)
    theta[:, 0, 0] = width * angle.cos() * (1 - 2 * chance(n, 0.5).flatten().float())
    theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1] = -height * angle.sin(), width * angle.sin(), height * angle.cos()
    theta[:, 0, 2] = uniform(n, -1, 1).flatten() * (1 - width)
    theta[:, 1, 2] = uniform(n, -1, 1).flatten() * (1 - height)
    grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
    return F.grid_sample(photos, grid, "bilinear", "reflection", align_corners=False)


def colours(x):
    """Brightness, contrast, saturation, tints, swapped channels, grey, negatives; 0 to 255."""
    n = len(x)
    x = x * uniform(n, 0.5, 1.5)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * uniform(n, 0.5, 1.5) + mean
    grey = (x * torch.tensor((0.299, 0.587, 0.114), device=DEVICE).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = grey + (x - grey) * torch.where(chance(n, 0.1), torch.zeros(1, device=DEVICE), uniform(n, 0.3, 1.7))
    tint = torch.empty(n, 3, 1, 1, device=DEVICE).uniform_(0.7, 1.3)
    x = torch.where(chance(n, 0.3), x * tint, x)
    order = torch.rand(n, 3, device=DEVICE).argsort(1).view(n, 3, 1, 1).expand_as(x)
    x = torch.where(chance(n, 0.2), x.gather(1, order), x)
    x = torch.where(chance(n, 0.1), 255 - x, x)
    return x.clamp(0, 255)


def views(photos, chosen):
    """Views of the photos with these numbers: parts of one or two images, or four small ones."""
    n = len(chosen)
    x = crops(photos[chosen].float(), TEACHER_SIZE, 0.1)
    if np.random.rand() < 0.25:
        small = F.interpolate(x, scale_factor=0.5, mode="area")
        rows = [torch.cat([small, small.roll(k, 0)], 3) for k in (1, 2)]
        x = torch.cat(rows, 2)
    if np.random.rand() < 0.5:
        side = [int(v) for v in np.random.randint(TEACHER_SIZE // 4, TEACHER_SIZE, 2)]
        top, left = (np.random.randint(0, TEACHER_SIZE - s + 1) for s in side)
        other = x.roll(3, 0)
        x = x.clone()
        x[:, :, top:top + side[0], left:left + side[1]] = other[:, :, top:top + side[0], left:left + side[1]]
    assert len(x) == n
    return colours(x)


def channels(values):
    return torch.tensor(values, device=DEVICE).view(1, 3, 1, 1)


@torch.no_grad()
def targets(teacher, x):
    """Square roots of the teacher's maps, at the student's resolution."""
    x = (x - channels(CAFFE_MEAN)).flip(1).to(torch.bfloat16, memory_format=torch.channels_last)
    return [F.adaptive_avg_pool2d(t.float(), STUDENT_SIZE // 2 ** int(tap[5])).sqrt()
            for t, tap in zip(teacher(x), TAPS)]


def for_student(x):
    x = F.avg_pool2d(x, TEACHER_SIZE // STUDENT_SIZE) / 255
    return ((x - channels(MEAN)) / channels(STD)).contiguous(memory_format=torch.channels_last)


def one_cycle(at):
    def half(begin, end, t):
        return end + (begin - end) / 2 * (1 + math.cos(math.pi * min(max(t, 0), 1)))
    return half(0.04, 1, at / 0.15) if at < 0.15 else half(1, 0, (at - 0.15) / 0.85)


def train(teacher, photos, o):
    torch.manual_seed(o.seed)
    np.random.seed(o.seed)
    student = Vgg(STUDENT, batchnorm=True)
    adapters = nn.ModuleList(nn.Conv2d(STUDENT[int(tap[5]) - 1][0], TEACHER[int(tap[5]) - 1][0], 1)
                             for tap in TAPS)
    both = nn.ModuleList([student, adapters]).to(DEVICE, memory_format=torch.channels_last)
    decayed = [p for p in both.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY},
                                   {"params": [p for p in both.parameters() if p.ndim == 1],
                                    "weight_decay": 0}], lr=RATE)
    average = {k: v.clone() for k, v in student.state_dict().items()}
    with torch.no_grad():
        sample = [targets(teacher, views(photos, torch.randint(len(photos), (o.batch,), device=DEVICE)))
                  for _ in range(10)]
        scales = [(torch.cat(t).mean((0, 2, 3), keepdim=True),
                   torch.cat(t).std((0, 2, 3), keepdim=True).clamp(min=1e-3)) for t in zip(*sample)]
    start, step, shown = time.time(), 0, 0
    while (at := (time.time() - start) / (60 * o.minutes)) < 1:
        x = views(photos, torch.randint(len(photos), (o.batch,), device=DEVICE))
        wanted = [(t - mean) / std for t, (mean, std) in zip(targets(teacher, x), scales)]
        for group in optimizer.param_groups:
            group["lr"] = RATE * one_cycle(at)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            given = [adapter(tap) for adapter, tap in zip(adapters, student(for_student(x)))]
        losses = [F.mse_loss(g.float(), w) for g, w in zip(given, wanted)]
        optimizer.zero_grad(set_to_none=True)
        sum(losses).backward()
        optimizer.step()
        step += 1
        decay = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in student.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, 1 - decay)
        if time.time() - start > shown:
            shown += 15
            print(f"{at:4.0%}  step {step}  unexplained {losses[0]:.3f} {losses[1]:.3f}", flush=True)
    student.load_state_dict(average)
    return student.eval().float().cpu(), step


def folded(student):
    """Weights by name, BatchNorm folded into the convolutions."""
    out = {}
    for name, _ in names(STUDENT):
        conv, norm = getattr(student, name), getattr(student, f"{name}_bn")
        factor = norm.weight / (norm.running_var + EPSILON).sqrt()
        out[f"{name}.weight"] = conv.weight * factor.view(-1, 1, 1, 1)
        out[f"{name}.bias"] = (conv.bias - norm.running_mean) * factor + norm.bias
    return {k: v.detach().numpy().astype(np.float16) for k, v in sorted(out.items())}


def save(path, tensors, source):
    layers = [{"kind": "input", "name": "input"}]
    for block, (outputs, count) in enumerate(STUDENT, 1):
        layers += [{"kind": "conv", "name": f"block{block}_conv{i}", "outputs": outputs, "relu": True}
                   for i in range(1, count + 1)] + [{"kind": "maxpool", "name": f"block{block}_pool"}]
    header = {"__metadata__": {
        "graft_format": "1", "classes": "[]", "training": "{}",
        "network": json.dumps({"backbone": "vgg-mini", "input_size": [STUDENT_SIZE] * 2, "layers": layers}),
        "preprocessing": json.dumps({
            "channel_order": "rgb", "resampling": "bilinear", "crop_ratio": 0.0,
            "scale": [1 / 255 / s for s in STD], "shift": [m / s for m, s in zip(MEAN, STD)]}),
        "provenance": json.dumps({"source": source, "md5": "",
                                  "licence": "as Graft; of VGG16's weights: CC BY 4.0, Simonyan and Zisserman, Oxford; "
                       "photos: see docs/vgg-mini.md"})}}
    offset = 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(value.shape),
                        "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{path}.tmp", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(value.tobytes())
    os.replace(f"{path}.tmp", path)


def main():
    parser = argparse.ArgumentParser()
    for name in ("weights", "split", "out"):
        parser.add_argument(name)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    paths = [row["path"] for row in csv.DictReader(open(o.split)) if row["split"] != "test"]
    with multiprocessing.Pool() as pool:
        photos = torch.from_numpy(np.stack(pool.map(read, paths, chunksize=32))).permute(0, 3, 1, 2)
    torch.backends.cudnn.benchmark = True
    student, steps = train(load_teacher(o.weights), photos.contiguous().to(DEVICE), o)
    save(o.out, folded(student), f"Graft vgg-mini, distilled from VGG16 on {len(paths):,} photos of "
         "six kinds of scene (docs/vgg-mini.md)")
    print(f"{steps} steps of {o.batch} views; {o.out}: {os.path.getsize(o.out):,} bytes")


if __name__ == "__main__":
    main()
