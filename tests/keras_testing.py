"""Keras' whole models without Keras: configurations, files and what they compute, written apart from the product
by what Keras 2.15 and 3.15 were seen to write."""
import json
import zipfile

import graft_testing as t
import h5py
import numpy as np
import torch
from torch.nn import functional as F

SIZE = 64


def layer(kind, name, weights=(), **config):
    return {"kind": kind, "name": name, "weights": [np.asarray(w, "f4") for w in weights], "config": config}


def conv(name, kernel, bias, activation="relu", **config):
    return layer("Conv2D", name, (kernel, bias), **dict(
        {"filters": kernel.shape[-1], "kernel_size": [3, 3], "strides": [1, 1], "padding": "same",
         "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "activation": activation, "use_bias": True},
        **config))


def dense(name, inputs, units, activation="linear", seed=0, gain=2.0):
    random = np.random.default_rng([seed, inputs, units])
    return layer("Dense", name, (random.normal(0, (gain / inputs) ** 0.5, (inputs, units)), random.normal(0, 0.3, units)),
                 units=units, activation=activation, use_bias=True)


def pool(name, kind="MaxPooling2D"):
    return layer(kind, name, pool_size=[2, 2], strides=[2, 2], padding="valid")


def batchnorm(name, units, seed=0):
    random = np.random.default_rng([seed, units])
    return layer("BatchNormalization", name, [random.uniform(0.5, 1.5, units) for _ in range(4)], axis=-1, epsilon=1e-3,
                 center=True, scale=True)


def base(spread=60, prefix="", activation="relu"):
    """vgg-mini, for pixels of that spread."""
    specs = t.layer_specs("vgg-mini")
    weights = t.random_weights(specs)
    out = []
    for name, shape in specs:
        if shape is None:
            out.append(pool(prefix + name))
            continue
        kernel, bias = weights[name]
        out.append(conv(prefix + name, kernel / (spread if name == "block1_conv1" else 1), bias, activation))
    return out


def compute(layers, x):
    """Probabilities of pixels (N, H, W, 3), layer by layer in PyTorch."""
    x = torch.from_numpy(np.asarray(x, "f4")).permute(0, 3, 1, 2)
    activations = {"linear": lambda x: x, "relu": F.relu, "softmax": lambda x: x.softmax(1), "sigmoid": torch.sigmoid}
    for entry in layers:
        w = [torch.from_numpy(v) for v in entry["weights"]]
        kind, config = entry["kind"], entry["config"]
        if kind == "Conv2D":
            x = F.conv2d(x, w[0].permute(3, 2, 0, 1), w[1], padding=1)
        elif kind == "MaxPooling2D":
            x = F.max_pool2d(x, 2)
        elif kind == "GlobalAveragePooling2D":
            x = x.mean((2, 3))
        elif kind == "GlobalMaxPooling2D":
            x = x.amax((2, 3))
        elif kind == "Flatten":
            x = x.permute(0, 2, 3, 1).flatten(1)
        elif kind == "Dense":
            x = x @ w[0] + w[1]
        elif kind == "BatchNormalization":
            x = F.batch_norm(x, w[2], w[3], w[0], w[1], eps=config["epsilon"])
        elif kind == "Rescaling":
            x = x * config["scale"] + config["offset"]
        elif kind not in ("Dropout", "Activation", "RandomFlip"):
            raise ValueError(kind)
        if "activation" in config:
            x = activations[config["activation"]](x)
    return x.numpy()


def described(layers, name="model", version=3, shape=(None, SIZE, SIZE, 3), input_name="input_1"):
    """A Functional model's description. An entry that is a list is a model: [name, layers]."""
    def call(before):
        if version == 2:
            return [[[before, 0, 0, {}]]]
        return [{"args": [{"class_name": "__keras_tensor__",
                           "config": {"shape": [], "dtype": "float32", "keras_history": [before, 0, 0]}}], "kwargs": {}}]
    shape_key = "batch_input_shape" if version == 2 else "batch_shape"
    listed = [{"class_name": "InputLayer", "config": {shape_key: list(shape), "name": input_name}, "name": input_name,
               "inbound_nodes": []}]
    for entry in layers:
        if isinstance(entry, list):
            one = dict(described(entry[1], entry[0], version, shape, "input_inner"), name=entry[0])
        else:
            one = {"class_name": entry["kind"], "name": entry["name"], "config": dict(entry["config"], name=entry["name"])}
        one["inbound_nodes"] = call(listed[-1]["name"])
        listed.append(one)
    ends = [[[input_name, 0, 0]], [[listed[-1]["name"], 0, 0]]] if version == 2 else \
        [[input_name, 0, 0], [listed[-1]["name"], 0, 0]]
    return {"class_name": "Functional", "config": {"name": name, "layers": listed, "input_layers": ends[0],
                                                   "output_layers": ends[1]}}


ROLES = {"Conv2D": ("kernel", "bias"), "Dense": ("kernel", "bias"),
         "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance")}


def flat(layers):
    return [one for entry in layers for one in (flat(entry[1]) if isinstance(entry, list) else [entry])]


def write_h5(path, layers, version=3, names=None, description=True):
    """As model.save('….h5'). names: what weights' paths call a layer in place of its name."""
    end = ":0" if version == 2 else ""
    with h5py.File(path, "w") as file:
        if description:
            file.attrs["model_config"] = json.dumps(described(layers, version=version))
        root = file.create_group("model_weights") if description else file
        root.attrs["layer_names"] = [(e[0] if isinstance(e, list) else e["name"]).encode() for e in layers]
        for entry in layers:
            group = root.create_group(entry[0] if isinstance(entry, list) else entry["name"])
            listed = []
            for one in flat([entry]):
                for role, value in zip(ROLES.get(one["kind"], ()), one["weights"]):
                    listed.append(f"{(names or {}).get(one['name'], one['name'])}/{role}{end}")
                    group.create_dataset(listed[-1], data=value)
            group.attrs["weight_names"] = [name.encode() for name in listed]


def write_keras(path, layers, version=3):
    """As model.save('….keras'): layers are numbered by their class."""
    snake = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "MaxPooling2D": "max_pooling2d"}

    def fill(group, entries):
        holder, counts = group.create_group("layers"), {}
        for entry in entries:
            kind = "functional" if isinstance(entry, list) else snake.get(entry["kind"], entry["kind"].lower())
            number = counts[kind] = counts.get(kind, -1) + 1
            inner = holder.create_group(kind + (f"_{number}" if number else ""))
            if isinstance(entry, list):
                fill(inner, entry[1])
                continue
            variables = inner.create_group("vars")
            for i, value in enumerate(entry["weights"]):
                variables.create_dataset(str(i), data=value)
    weights = path.with_suffix(".weights.h5")
    with h5py.File(weights, "w") as file:
        fill(file, layers)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps(described(layers, version=version)))
        file.write(weights, "model.weights.h5")


def write(path, layers, version=3):
    (write_keras if path.suffix == ".keras" else write_h5)(path, layers, version)
    return path
