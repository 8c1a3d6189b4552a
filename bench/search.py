"""The search for a recipe, on a GPU, in PyTorch: what Graft's training does, in minutes.

    python3 bench/search.py VGG16.h5 SPLIT.csv [--seed 0] [NAME...]

SPLIT.csv: path, label, split, as a run of `graft train DATA --test-split 0.15 --seed N` leaves it.
Needs PyTorch 2, h5py and Pillow. Products are bfloat16, weights and their updates float32. Rows:
top-1 of validation and test images with one view and with two (the image and its mirror image).
Settings are those of `graft train`: one-cycle, AdamW, label smoothing 0.1, batches of 64; the head
for some epochs at 2e-3, then with the backbone from a layer on.
"""
import argparse
import csv
import functools
import math
import multiprocessing
import time

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
LAYERS = [f"block{b}_{layer}" for b, (_, count) in enumerate(BLOCKS, 1)
          for layer in (*(f"conv{i}" for i in range(1, count + 1)), "pool")]
PHOTO, HEAD_RATE, SMOOTHING, CHUNK = 150, 2e-3, 0.1, 256
MEAN = (103.939, 116.779, 123.68)  # blue, green, red; Keras' VGG16
CONV_STATS = "conv-stats"
BLOCK_5, BLOCK_4, ALL = "block5_conv1", "block4_conv1", "block1_conv1"


def setting(first=BLOCK_5, head=CONV_STATS, freeze=4, epochs=6, views="hflip", rate=1e-4, decay=1.0,
            weight_decay=0.01, ema=0.0, mixup=0.0, cutmix=0.0, size=224):
    return dict(locals())


SETTINGS = {
    "default": setting(epochs=2, views="none"),
    "default-4": setting(epochs=4, views="none"),
    "default-192": setting(epochs=2, views="none", size=192),
    "two-cuts": setting(head="two-cuts", epochs=2, views="none"),
    "hflip": setting(),
    "best": setting(freeze=13, epochs=7, ema=0.998, weight_decay=0.02),
    "mixup": setting(mixup=0.3),
    "cutmix": setting(cutmix=1.0),
    "cutmix-12": setting(cutmix=1.0, epochs=12),
    "crops": setting(views="crop"),
    "blocks45-2": setting(BLOCK_4, epochs=2, views="none"),
    "blocks45-hflip-3": setting(BLOCK_4, epochs=3),
    "blocks45-hflip-3-5e-5": setting(BLOCK_4, epochs=3, rate=5e-5),
    "blocks45-hflip": setting(BLOCK_4),
    "blocks45-layerwise": setting(BLOCK_4, decay=0.5),
    "blocks45-ema": setting(BLOCK_4, ema=0.998),
    "blocks45-gap": setting(BLOCK_4, head="gap"),
    "blocks45-mixup": setting(BLOCK_4, mixup=0.3),
    "blocks45-cutmix": setting(BLOCK_4, cutmix=1.0),
    "blocks45-crops": setting(BLOCK_4, views="crop"),
    "all-crops-cutmix-12": setting(ALL, epochs=12, views="crop", cutmix=1.0),
}


def read(path):
    return np.asarray(Image.open(path).convert("RGB").resize((PHOTO, PHOTO), Image.Resampling.BILINEAR))


class Trunk(nn.Module):
    """VGG16 from a layer on."""

    def __init__(self, weights, first):
        super().__init__()
        self.names = LAYERS[LAYERS.index(first):]
        for name in self.names:
            if "conv" in name:
                kernel, bias = weights[name]
                conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                conv.weight.data.copy_(kernel)
                conv.bias.data.copy_(bias)
                setattr(self, name, conv)

    def forward(self, x, until=LAYERS[-1]):
        for name in self.names:
            x = F.relu(getattr(self, name)(x)) if "conv" in name else F.max_pool2d(x, 2)
            if name == until:
                return x
        return x


class Stats(nn.Module):
    def forward(self, x):
        x = x.float()
        deviation = (x.var((2, 3), unbiased=False) + 1e-12).sqrt()
        return torch.cat([x.mean((2, 3)), x.amax((2, 3)), deviation], 1)


class Head(nn.Module):
    """Over block5_pool's maps; two-cuts: beside statistics of block4_pool's."""

    def __init__(self, kind, classes):
        super().__init__()
        self.features, width = nn.AdaptiveAvgPool2d(1), 512
        if kind != "gap":
            self.features = nn.Sequential(nn.BatchNorm2d(512), nn.Conv2d(512, 256, 3, padding=1), nn.ReLU(),
                                          Stats())
            width = 3 * 256
        self.earlier = None
        if kind == "two-cuts":
            self.earlier = nn.Sequential(nn.BatchNorm2d(512), Stats(), nn.BatchNorm1d(3 * 512))
            width += 3 * 512
        self.out = nn.Sequential(nn.Dropout(0.5), nn.Linear(width, classes))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, maps, cut):
        x = self.features(maps.float()).flatten(1)
        return self.out(x if self.earlier is None else torch.cat([self.earlier(cut.float()), x], 1))


def one_cycle(step, steps):
    def half(begin, end, at):
        return end + (begin - end) / 2 * (1 + math.cos(math.pi * min(max(at, 0), 1)))
    peak = 0.3 * steps - 1
    if step <= peak:
        return half(1 / 25, 1, step / max(peak, 1))
    return half(1, 1 / 250_000, (step - peak) / max(steps - 1 - peak, 1))


class Search:
    def __init__(self, weights_file, split, seed):
        rows = sorted(csv.DictReader(open(split)), key=lambda row: row["path"])
        with multiprocessing.Pool() as pool:
            photos = np.stack(pool.map(read, [row["path"] for row in rows], chunksize=32))
        self.photos = torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous().to(DEVICE)
        self.classes = sorted({row["label"] for row in rows})
        self.labels = torch.tensor([self.classes.index(row["label"]) for row in rows], device=DEVICE)
        self.parts = {part: torch.tensor([i for i, row in enumerate(rows) if row["split"] == part],
                                         device=DEVICE) for part in ("train", "val", "test")}
        found = {}
        with h5py.File(weights_file, "r") as file:
            def visit(name, item):
                layer = next((layer for layer in LAYERS if layer in name), None)
                if isinstance(item, h5py.Dataset) and layer:
                    value = torch.from_numpy(np.array(item))
                    found.setdefault(layer, {})[value.ndim] = value
            file.visititems(visit)
        self.weights = {layer: (v[4].permute(3, 2, 0, 1), v[1]) for layer, v in found.items()}
        self.frozen = Trunk(self.weights, LAYERS[0]).to(DEVICE, torch.bfloat16).requires_grad_(False)
        self.seed = seed

    def images(self, chosen, size, mirror=False):
        x = self.photos[chosen].float()
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False).round()
        return self.centred(x.flip(3) if mirror else x)

    def centred(self, x):
        x = x.flip(1) - torch.tensor(MEAN, device=DEVICE).view(1, 3, 1, 1)
        return x.contiguous(memory_format=torch.channels_last)

    def crops(self, chosen, size):
        """hflip crop:0.5-1"""
        n = len(chosen)
        area = torch.empty(n, device=DEVICE).uniform_(0.5, 1)
        aspect = torch.empty(n, device=DEVICE).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        theta = torch.zeros(n, 2, 3, device=DEVICE)
        theta[:, 0, 0] = width * (1 - 2 * (torch.rand(n, device=DEVICE) < 0.5).float())
        theta[:, 0, 2] = (2 * torch.rand(n, device=DEVICE) - 1) * (1 - width)
        theta[:, 1, 1] = height
        theta[:, 1, 2] = (2 * torch.rand(n, device=DEVICE) - 1) * (1 - height)
        grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
        return self.centred(F.grid_sample(self.photos[chosen].float(), grid, "bilinear", "reflection",
                                          align_corners=False))

    @torch.no_grad()
    def prefix(self, x, first):
        x = x.to(torch.bfloat16)
        return x if first == LAYERS[0] else self.frozen(x, LAYERS[LAYERS.index(first) - 1])

    @functools.lru_cache(1)
    def cached(self, size, first):
        """Maps of all photos and of their mirror images, as halves."""
        numbers = torch.arange(len(self.photos), device=DEVICE)
        return [torch.cat([self.prefix(self.images(chunk, size, mirror), first).clamp(max=65_000).half()
                           for chunk in numbers.split(CHUNK)]) for mirror in (False, True)]

    def inputs(self, s, chosen, epoch):
        if s["views"] == "crop":
            return self.prefix(self.crops(chosen, s["size"]), s["first"])
        plain, mirrored = self.cached(s["size"], s["first"])
        if s["views"] == "none":
            return plain[chosen]
        turn = ((chosen + epoch) % 2 == 0).view(-1, 1, 1, 1)
        return torch.where(turn, plain[chosen], mirrored[chosen])

    def mix(self, s, x, y):
        if s["mixup"]:
            share, partner = np.random.beta(s["mixup"], s["mixup"]), torch.randperm(len(x), device=DEVICE)
            return x * share + x[partner] * (1 - share), y * share + y[partner] * (1 - share)
        if s["cutmix"]:
            share, partner = np.random.beta(s["cutmix"], s["cutmix"]), torch.randperm(len(x), device=DEVICE)
            size = x.shape[-1]
            side = round(size * math.sqrt(1 - share))
            top, left = np.random.randint(0, size - side + 1, 2)
            area = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
            x = x.clone()
            x[area] = x[partner][area]
            share = 1 - side * side / size / size
            return x, y * share + y[partner] * (1 - share)
        return x, y

    def train(self, s):
        torch.manual_seed(self.seed)
        np.random.seed(self.seed)
        trunk, head = Trunk(self.weights, s["first"]), Head(s["head"], len(self.classes))
        model = nn.ModuleList([head, trunk]).to(DEVICE, memory_format=torch.channels_last)
        average, done = [p.detach().clone() for p in model.parameters()], 0
        numbers, epoch = self.parts["train"], 0
        for epochs, rate, tuned in ((s["freeze"], HEAD_RATE, False), (s["epochs"], s["rate"], True)):
            groups = [{"params": list(head.parameters()), "factor": 1}]
            for block in range(5, 0, -1) if tuned else ():
                groups.append({"params": [p for n, p in trunk.named_parameters() if n.startswith(f"block{block}")],
                               "factor": s["decay"] ** (6 - block)})
            optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate,
                                          weight_decay=s["weight_decay"])
            steps, step = epochs * math.ceil(len(numbers) / 64), 0
            for epoch in range(epoch, epoch + epochs):
                head.train()
                for chosen in numbers[torch.randperm(len(numbers), device=DEVICE)].split(64):
                    for group in optimizer.param_groups:
                        group["lr"] = rate * group["factor"] * one_cycle(step, steps)
                    x, y = self.mix(s, self.inputs(s, chosen, epoch),
                                    F.one_hot(self.labels[chosen], len(self.classes)).float())
                    with torch.autocast(DEVICE, dtype=torch.bfloat16):
                        with torch.set_grad_enabled(tuned):
                            maps = trunk(x)
                        logits = head(maps, x)
                    optimizer.zero_grad(set_to_none=True)
                    F.cross_entropy(logits.float(), y, label_smoothing=SMOOTHING).backward()
                    optimizer.step()
                    step, done = step + 1, done + 1
                    with torch.no_grad():
                        for mean, p in zip(average, model.parameters()):
                            mean.lerp_(p, 1 - min(s["ema"], (1 + done) / (10 + done)))
            epoch += 1
        for p, mean in zip(model.parameters(), average):
            p.data.copy_(mean)
        return trunk, head.eval()

    @torch.no_grad()
    def accuracies(self, s, trunk, head, part):
        """With one view and with two."""
        total = []
        for mirror in (False, True):
            rows = []
            for chosen in self.parts[part].split(CHUNK):
                x = (self.prefix(self.images(chosen, s["size"], mirror), s["first"])
                     if s["views"] == "crop" else self.cached(s["size"], s["first"])[mirror][chosen])
                with torch.autocast(DEVICE, dtype=torch.bfloat16):
                    rows.append(head(trunk(x), x).float())
            total.append(torch.cat(rows))
        right = self.labels[self.parts[part]]
        return [(t.argmax(1) == right).float().mean().item() for t in (total[0], total[0] + total[1])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*")
    o = parser.parse_intermixed_args()
    search = Search(o.weights, o.split, o.seed)
    for name in o.names or SETTINGS:
        s, start = SETTINGS[name], time.time()
        trunk, head = search.train(s)
        (val, val2), (test, test2) = (search.accuracies(s, trunk, head, part) for part in ("val", "test"))
        counts = [len(search.parts[part]) for part in ("val", "test")]
        both, both2 = (np.average(pair, weights=counts) for pair in ((val, test), (val2, test2)))
        print(f"{name:<22} seed {o.seed}  val {val:.4f}  test {test:.4f}  both {both:.4f}  with two views "
              f"{val2:.4f} {test2:.4f} {both2:.4f}  {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
