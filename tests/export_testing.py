"""Models of any layers with random weights, and what exported files compute, by code apart from the
product's: ONNX graphs and Keras configurations run node by node in PyTorch."""
import json
import pathlib
import re
import struct
import zipfile

import numpy as np
import torch
from torch.nn import functional as F

import graft_testing as t


def document_classifier():
    """The module of docs/export.md: (load, Classifier)."""
    page = (t.SOURCE / "docs" / "export.md").read_text()
    found = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Classifier" in code]
    assert len(found) == 1
    names = {}
    exec(compile(found[0], "docs/export.md", "exec"), names)
    return names["load"], names["Classifier"]


def make_model(path, layers, size=(32, 40), labels=("a", "b", "c"), views=1, bgr=False, scale=(1, 1, 1),
               shift=(0, 0, 0), resampling="bilinear", seed=0, gain=1.0):
    """Writes a model file of format 2 or 3. layers: words such as conv:8, dense:5, batchnorm, maxpool, and
    name=word; a '+' behind the word is a ReLU; words from the first '|' on are the head's."""
    random = np.random.default_rng(seed)
    listed, tensors, head = [{"kind": "input", "name": "input_1"}], {}, False
    channels, height, width = 3, *size
    for word in layers:
        if word == "|":
            head = True
            continue
        relu, word = word.endswith("+"), word.rstrip("+")
        name, _, word = word.rpartition("=")
        kind, _, units = word.partition(":")
        name = name or f"{kind}{len(listed)}"
        layer = {"kind": kind, "name": name, "inputs": [listed[-1]["name"]]}
        if relu:
            layer["relu"] = True
        if head:
            layer["head"] = True
        inputs = channels if height else width
        if kind == "conv":
            layer |= {"outputs": int(units), "kernel": 3, "stride": 1, "padding": 1, "groups": 1}
            tensors[f"{name}.weight"] = random.normal(0, gain * (2 / (9 * channels)) ** 0.5, (int(units), channels, 3, 3))
            tensors[f"{name}.bias"] = random.normal(0, 0.3, int(units))
            channels = int(units)
        elif kind == "maxpool":
            layer |= {"kernel": 2, "stride": 2, "padding": 0}
            height, width = height // 2, width // 2
        elif kind == "batchnorm":
            layer["epsilon"] = 1e-3
            for role, values in (("weight", random.normal(1, 0.3, inputs)), ("bias", random.normal(0, 0.3, inputs)),
                                 ("running_mean", random.normal(0, 0.5, inputs)),
                                 ("running_var", random.uniform(0.3, 2, inputs))):
                tensors[f"{name}.{role}"] = values
        elif kind in ("gap", "gmp", "stats", "flatten"):
            width = {"flatten": channels * height * width, "stats": 3 * channels}.get(kind, channels)
            height = 0
        elif kind == "dense":
            layer["outputs"] = int(units)
            tensors[f"{name}.weight"] = random.normal(0, gain * (2 / width) ** 0.5, (int(units), width))
            tensors[f"{name}.bias"] = random.normal(0, 0.3, int(units))
            width = int(units)
        elif kind == "dropout":
            layer["rate"] = float(units)
        listed.append(layer)
    metadata = {"graft_format": "3" if views > 1 else "2",
                "network": {"backbone": "small", "input_size": list(size), "layers": listed},
                "classes": list(labels),
                "preprocessing": {"channel_order": "bgr" if bgr else "rgb", "scale": list(scale),
                                  "shift": list(shift), "resampling": resampling, "crop_ratio": 0},
                "provenance": {"source": "random", "md5": "", "licence": "none"},
                "training": {"epoch": 1}}
    if views > 1:
        metadata["test_views"] = views
    header = {"__metadata__": {key: value if isinstance(value, str) else json.dumps(value)
                               for key, value in metadata.items()}}
    offset, values = 0, []
    for name, tensor in tensors.items():
        values.append(np.ascontiguousarray(tensor, "<f4").tobytes())
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(values[-1])]}
        offset += len(values[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values))
    return path


def log_probabilities(case, model, images, labels):
    """What `graft predict` says, (images, classes)."""
    done = case.succeed_json("predict", model, *images, "--json", "--top", len(labels))
    rows = [{top["label"]: top["probability"] for top in row["top"]} for row in done["predictions"]]
    return np.log(np.array([[row[label] for label in labels] for row in rows]))


def log_softmax(logits):
    logits = np.asarray(logits, "f8")
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))


class OnnxGraph:
    """Runs a graph of the few operators that an export has."""

    def __init__(self, path):
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
        self.model = onnx.load(str(path))
        onnx.checker.check_model(self.model, full_check=True)
        self.metadata = {entry.key: entry.value for entry in self.model.metadata_props}
        self.weights = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy())
                        for i in self.model.graph.initializer}
        self.types = {onnx.TensorProto.FLOAT: torch.float32}
        self.attribute = onnx.helper.get_attribute_value

    def run(self, value):
        (entry,) = self.model.graph.input
        values = dict(self.weights, **{entry.name: torch.from_numpy(value)})
        for node in self.model.graph.node:
            a = {attribute.name: self.attribute(attribute) for attribute in node.attribute}
            values[node.output[0]] = self.node(node.op_type, a, *(values[name] for name in node.input))
        return [values[output.name].numpy() for output in self.model.graph.output]

    def node(self, op, a, x, *rest):
        if op == "Cast":
            return x.to(self.types[a["to"]])
        if op == "Transpose":
            return x.permute(a["perm"])
        if op == "Gather":
            return x.index_select(a["axis"], rest[0])
        if op == "Slice":
            starts, ends, axes, steps = (r.tolist() for r in rest)
            assert (starts, ends, axes, steps) == ([-1], [-2**63], [3], [-1])
            return x.flip(3)
        if op == "Concat":
            return torch.cat([x, *rest], a["axis"])
        if op == "Conv":
            p = a["pads"]
            assert len(set(p)) == 1
            return F.conv2d(x, *rest, stride=a["strides"], padding=p[0], groups=a["group"])
        if op == "BatchNormalization":
            scale, bias, mean, var = rest
            return F.batch_norm(x, mean, var, scale, bias, eps=a["epsilon"])
        if op == "MaxPool":
            return F.max_pool2d(x, a["kernel_shape"], a["strides"], a["pads"][0])
        if op == "Gemm":
            return F.linear(x, rest[0] if a.get("transB") else rest[0].T, rest[1])
        if op == "Reshape":
            return x.reshape(rest[0].tolist())
        if op == "ReduceMean":
            return x.mean(a["axes"], keepdim=bool(a["keepdims"]))
        if op == "ReduceMax":
            return x.amax(a["axes"], keepdim=bool(a["keepdims"]))
        if op == "Flatten":
            return x.flatten(a.get("axis", 1))
        return {"Mul": lambda: x * rest[0], "Sub": lambda: x - rest[0], "Relu": lambda: x.relu(), "Sqrt": lambda: x.sqrt(),
                "Identity": lambda: x, "Softmax": lambda: x.softmax(a["axis"]),
                "GlobalAveragePool": lambda: x.mean((2, 3), keepdim=True),
                "GlobalMaxPool": lambda: x.amax((2, 3), keepdim=True)}[op]()


class KerasGraph:
    """Runs a functional model's configuration, channels last, with weights by layer name."""

    def __init__(self, path):
        import h5py
        import io
        if str(path).endswith(".keras"):
            archive = zipfile.ZipFile(path)
            assert archive.testzip() is None
            self.config = json.loads(archive.read("config.json"))["config"]
            self.about = json.loads(archive.read("graft.json"))
            file = h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")
            # Keras numbers layers by their class' name in snake case.
            seen, self.weights = {}, {}
            for layer in self.config["layers"]:
                kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])).lower()
                number = seen[kind] = seen.get(kind, -1) + 1
                group = file["layers"][f"{kind}_{number}" if number else kind]["vars"]
                self.weights[layer["name"]] = [group[str(i)][()] for i in range(len(group))]
        else:
            file = h5py.File(path, "r")
            self.config = json.loads(file.attrs["model_config"])["config"]
            self.about = json.loads(file.attrs["graft"])
            root = file["model_weights"]
            assert list(root.attrs["layer_names"]) == [layer["name"] for layer in self.config["layers"]]
            self.weights = {name: [root[name][weight][()] for weight in root[name].attrs["weight_names"]]
                            for name in root.attrs["layer_names"]}

    @staticmethod
    def references(node):
        """[(layer, call)] of one inbound node of Keras 3's or Keras 2's form."""
        if isinstance(node, list):
            return [(entry[0], entry[1]) for entry in node]
        (argument,) = node["args"]
        tensors = argument if isinstance(argument, list) else [argument]
        return [tuple(tensor["config"]["keras_history"][:2]) for tensor in tensors]

    def run(self, pixels):
        """logits, probabilities"""
        first = self.config["layers"][0]
        values = {(first["name"], 0): torch.from_numpy(pixels.astype("f4"))}
        for layer in self.config["layers"][1:]:
            for call, node in enumerate(layer["inbound_nodes"]):
                inputs = [values[reference] for reference in self.references(node)]
                values[layer["name"], call] = self.layer(layer["class_name"], layer["config"],
                                                         [torch.from_numpy(w.astype("f4")) for w in self.weights[layer["name"]]],
                                                         *inputs)
        (output,) = self.config["output_layers"]
        return values["logits", 0].numpy(), values[output[0], 0].numpy()

    @staticmethod
    def layer(kind, c, w, x, *rest):
        act = {"relu": torch.relu, "linear": lambda v: v, None: lambda v: v}[c.get("activation")]
        if kind == "Conv2D":
            assert c["padding"] in ("same", "valid") and c.get("strides", [1, 1]) == [1, 1]
            y = F.conv2d(x.permute(0, 3, 1, 2), w[0].permute(3, 2, 0, 1), w[1], padding=c["padding"])
            return act(y.permute(0, 2, 3, 1))
        if kind == "Dense":
            y = x @ w[0]
            return act(y + w[1] if c["use_bias"] else y)
        if kind == "BatchNormalization":
            gamma, beta, mean, var = w
            return (x - mean) / torch.sqrt(var + c["epsilon"]) * gamma + beta
        if kind == "LayerNormalization":
            assert c["axis"] == -1 and not c["center"] and not c["scale"]
            return F.layer_norm(x, x.shape[-1:], eps=c["epsilon"])
        if kind == "MaxPooling2D":
            assert c["padding"] == "valid"
            return F.max_pool2d(x.permute(0, 3, 1, 2), c["pool_size"], c["strides"]).permute(0, 2, 3, 1)
        return {"Activation": lambda: act(x), "Dropout": lambda: x, "Flatten": lambda: x.flatten(1),
                "Softmax": lambda: x.softmax(-1), "GlobalAveragePooling2D": lambda: x.mean((1, 2)),
                "GlobalAveragePooling1D": lambda: x.mean(1), "GlobalMaxPooling2D": lambda: x.amax((1, 2)),
                "Reshape": lambda: x.reshape(-1, *c["target_shape"]), "Permute": lambda: x.permute(0, *c["dims"]),
                "Subtract": lambda: x - rest[0], "Multiply": lambda: x * rest[0],
                "Concatenate": lambda: torch.cat([x, *rest], -1), "Average": lambda: (x + rest[0]) / 2}[kind]()
