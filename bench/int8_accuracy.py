"""What would int8 do to accuracy? VGG16's trunk with weights in int8 for each output channel and
activations in eight bits for each layer, simulated in float32 beside float32 itself.

    /usr/bin/python3 bench/int8_accuracy.py WEIGHTS.h5 PHOTOS [--images 1500] [--size 150]

Scales of activations come from 64 images, by their largest value or by the 99.99th percentile.
Classifier: logistic regression on the mean and standard deviation of block5_pool's channels, a third
of the images being test images; every combination of precision in training and in testing.
"""
import argparse
import pathlib
import random

import h5py
import numpy as np
import torch
from PIL import Image

LAYERS = [(b, c, c == n) for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
MEAN = np.array([103.939, 116.779, 123.68], "f4")  # of blue, green, red (keras_applications)


def read_weights(path):
    with h5py.File(path) as file:
        for block, conv, pool in LAYERS:
            group = file[f"block{block}_conv{conv}"]
            kernel, bias = (group[f"block{block}_conv{conv}_{name}:0"][()] for name in ("W_1", "b_1")) \
                if f"block{block}_conv{conv}_W_1:0" in group else \
                (group[f"block{block}_conv{conv}"][f"{name}:0"][()] for name in ("kernel", "bias"))
            yield torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias), pool


def rounded(x, scale, low, high):
    return torch.clamp(torch.round(x / scale), low, high) * scale


def quantised(weight):
    """To int8, symmetric, a scale for each output channel."""
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    return rounded(weight, scale, -127, 127)


def trunk(x, layers, scales=None, observe=None):
    """Features of a batch; `scales`: of each layer's input; `observe(layer, input)` sees them."""
    for i, (weight, bias, pool) in enumerate(layers):
        if observe:
            observe(i, x)
        if scales:  # the image has both signs, what ReLU gives has not
            x = rounded(x, scales[i], -127 if i == 0 else 0, 127 if i == 0 else 255)
        x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1))
        if pool:
            x = torch.nn.functional.max_pool2d(x, 2)
    return torch.cat([x.mean((2, 3)), x.std((2, 3), unbiased=False)], 1)


def regression(x, y, classes):
    mean, std = x.mean(0), x.std(0) + 1e-6
    layer = torch.nn.Linear(x.shape[1], classes)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(layer((x - mean) / std), y) \
            + 1e-2 * layer.weight.square().sum() / 2
        value.backward()
        return value

    optimiser.step(loss)
    return lambda z: layer((z - mean) / std).argmax(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("photos")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--size", type=int, default=150)
    o = parser.parse_args()
    layers = list(read_weights(o.weights))
    classes = sorted(p.name for p in pathlib.Path(o.photos).iterdir() if p.is_dir())
    photos = [(p, i) for i, name in enumerate(classes)
              for p in sorted(pathlib.Path(o.photos, name).glob("*.jpg"))]
    random.Random(0).shuffle(photos)
    photos = photos[:o.images]

    def load(chosen):
        for at in range(0, len(chosen), 16):
            images = [np.asarray(Image.open(p).convert("RGB").resize((o.size, o.size), Image.BILINEAR),
                                 "f4")[..., ::-1] - MEAN for p, _ in chosen[at:at + 16]]
            yield torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())

    inputs = [[] for _ in layers]
    with torch.no_grad():
        for batch in load(photos[:64]):
            trunk(batch, layers, observe=lambda i, x: inputs[i].append(
                (x.abs().max().item(), np.percentile(x.abs().numpy(), 99.99))))
        kinds = {"fp32": (layers, None)}
        small = [(quantised(w), b, pool) for w, b, pool in layers]
        for k, name in enumerate(("largest", "99.99 %")):
            most = [max(values[k] for values in seen) for seen in inputs]
            kinds[f"int8, {name}"] = (small, [m / (127 if i == 0 else 255) for i, m in enumerate(most)])
        features = {name: torch.cat([trunk(batch, w, scales) for batch in load(photos)])
                    for name, (w, scales) in kinds.items()}
    y = torch.tensor([label for _, label in photos])
    split = len(photos) * 2 // 3
    exact = features["fp32"]
    for name, x in features.items():
        error = (x - exact).norm(dim=1) / exact.norm(dim=1)
        print(f"{name:14} relative error of an image's features: median {error.median():.4f}, "
              f"most {error.max():.4f}")
    for trained, x in features.items():
        classify = regression(x[:split], y[:split], len(classes))
        for tested, z in features.items():
            right = (classify(z[split:]) == y[split:]).float().mean().item()
            changed = (classify(z[split:]) != classify(exact[split:])).float().mean().item()
            print(f"trained on {trained:14} tested on {tested:14} top-1 {right:.4f}, "
                  f"{100 * changed:.2f} % of the answers other than on fp32", flush=True)


if __name__ == "__main__":
    main()
