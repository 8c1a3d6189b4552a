"""VGG's convolutions in PyTorch, for benchmarks beside it; random weights."""
import torch

COUNTS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


def trunk(backbone):
    layers, inputs = [], 3
    for count, channels in zip(COUNTS[backbone], CHANNELS):
        for _ in range(count):
            layers += [torch.nn.Conv2d(inputs, channels, 3, padding=1), torch.nn.ReLU(inplace=True)]
            inputs = channels
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers).eval().requires_grad_(False)
