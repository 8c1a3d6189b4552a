"""Makes suffix_golden.safetensors: a small suffix's forward pass, gradients and one Adam step,
computed in float64 by PyTorch in Python, for suffix_test.cpp. Run with Debian's python3-torch:

    /usr/bin/python3 tests/train/make_suffix_golden.py
"""
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from graft_testing import write_safetensors  # noqa: E402

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)


def draw(*shape, scale=1.0, shift=0.0):
    # Rounded to float32, so that both sides start from the same numbers.
    return (torch.randn(*shape) * scale + shift).float().double()


# The network of suffix_test.cpp: conv 5, ReLU | maxpool, head: conv 6, batchnorm, ReLU, stats,
# dense 7, ReLU, predictions 3; and gmp, gap in place of stats.
params = {
    "block1_conv1.weight": draw(5, 3, 3, 3, scale=0.3),
    "block1_conv1.bias": draw(5, scale=0.1),
    "head_conv1.weight": draw(6, 5, 3, 3, scale=0.2),
    "head_conv1.bias": draw(6, scale=0.1),
    "head_conv1_bn.weight": draw(6, scale=0.1, shift=1.0),
    "head_conv1_bn.bias": draw(6, scale=0.1),
    "fc1.weight": draw(7, 18, scale=0.3),
    "fc1.bias": draw(7, scale=0.1),
    "predictions.weight": draw(3, 7, scale=0.4),
    "predictions.bias": draw(3, scale=0.1),
}
mean, var = draw(6, scale=0.2), draw(6, scale=0.05, shift=1.0)
x, y = draw(4, 3, 8, 8), torch.tensor([0, 2, 1, 2])

out = {"x": x, "y": y.double()}
for name, value in params.items():
    out["before/" + name] = value.clone()
    value.requires_grad_(True)
out["before/head_conv1_bn.running_mean"] = mean.clone()
out["before/head_conv1_bn.running_var"] = var.clone()


def forward(training):
    h = F.relu(F.conv2d(x, params["block1_conv1.weight"], params["block1_conv1.bias"], padding=1))
    h = F.max_pool2d(h, 2)
    h = F.conv2d(h, params["head_conv1.weight"], params["head_conv1.bias"], padding=1)
    h = F.relu(F.batch_norm(h, mean, var, params["head_conv1_bn.weight"],
                            params["head_conv1_bn.bias"], training, 0.1, 1e-5))
    flat = h.flatten(2)
    h = torch.cat([flat.mean(2), flat.amax(2), flat.std(2, unbiased=False)], 1)
    h = F.relu(F.linear(h, params["fc1.weight"], params["fc1.bias"]))
    return F.linear(h, params["predictions.weight"], params["predictions.bias"])


out["logits_inference"] = forward(False).detach()
optimizer = torch.optim.Adam(params.values(), lr=1e-2)
logits = forward(True)
loss = F.cross_entropy(logits, y)
loss.backward()
out["logits_training"] = logits.detach()
out["loss"] = loss.detach().reshape(1)
for name, value in params.items():
    out["gradient/" + name] = value.grad.clone()
optimizer.step()
for name, value in params.items():
    out["after/" + name] = value.detach()
out["after/head_conv1_bn.running_mean"] = mean
out["after/head_conv1_bn.running_var"] = var

target = pathlib.Path(__file__).with_name("suffix_golden.safetensors")
write_safetensors(target, {k: np.asarray(v, dtype="<f4") for k, v in out.items()})
print(target, torch.__version__)
