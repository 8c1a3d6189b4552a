"""ONNX graphs as exporters write them, made with python3-onnx, and what they compute, by PyTorch."""
import graft_testing as t
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

TYPES = {"f4": TensorProto.FLOAT, "f2": TensorProto.FLOAT16, "f8": TensorProto.DOUBLE, "i8": TensorProto.INT64,
         "i4": TensorProto.INT32}
TORCH_MEAN, TORCH_STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CAFFE_MEAN = np.float32([103.939, 116.779, 123.68])


def tensor(name, values, dtype=None, raw=True):
    """An initializer: `dtype` a code of NumPy's, or "bf16"; its values as bytes or in a list."""
    values = np.asarray(values)
    if dtype == "bf16":
        upper = (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2")
        made = TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=values.shape)
        if raw:
            made.raw_data = upper.tobytes()
        else:
            made.int32_data.extend(upper.flatten().tolist())
        return made
    dtype = dtype or {"f": "f4", "i": "i8"}[values.dtype.kind]
    values = np.ascontiguousarray(values, "<" + dtype)
    made = TensorProto(name=name, data_type=TYPES[dtype], dims=values.shape)
    if raw:
        made.raw_data = values.tobytes()
    elif dtype == "f2":
        made.int32_data.extend(values.view("<u2").flatten().tolist())
    else:
        field = {"f4": "float_data", "f8": "double_data", "i8": "int64_data", "i4": "int32_data"}[dtype]
        getattr(made, field).extend(values.flatten().tolist())
    return made


class Graph:
    """A graph that grows by its end: `g.add(op, constants…)` reads the newest value."""

    def __init__(self, size=(32, 32), last=False, input_type=TensorProto.FLOAT, batch=None, opset=13):
        self.nodes, self.initializers, self.opset = [], [], opset
        height, width = size
        shape = [batch or "N", height, width, 3] if last else [batch or "N", 3, height, width]
        self.inputs = [helper.make_tensor_value_info("image", input_type, shape)]
        self.end = "image"
        self.raw, self.dtype = True, None  # of floating-point constants
        self.metadata = {}

    def constant(self, values, dtype=None):
        name = f"c{len(self.initializers)}"
        is_float = np.asarray(values).dtype.kind == "f"
        self.initializers.append(tensor(name, values, dtype or (self.dtype if is_float else None), self.raw))
        return name

    def node(self, op, inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{len(self.nodes)}", **attributes))
        return names[0]

    def add(self, op, *constants, dtype=None, **attributes):
        inputs = [self.end] + [c if isinstance(c, str) else self.constant(c, dtype) for c in constants]
        self.end = self.node(op, inputs, **attributes)
        return self

    def model(self):
        graph = helper.make_graph(self.nodes, "g", self.inputs, [helper.make_tensor_value_info(
            self.end, TensorProto.FLOAT, None)], self.initializers)
        model = helper.make_model(graph, producer_name="test", opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 7
        for key, value in self.metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model

    def save(self, path):
        path.write_bytes(self.model().SerializeToString())
        return path


def weights(backbone, seed=0, blocks=5):
    """[(kernel OIHW, bias), …] of each block."""
    random = np.random.default_rng(seed)
    widths = t.MINI_CHANNELS if backbone.startswith("vgg-mini") else t.CHANNELS
    out, inputs = [], 3
    for count, channels in list(zip(t.BLOCKS[backbone], widths))[:blocks]:
        block = []
        for _ in range(count):
            kernel = random.standard_normal((channels, inputs, 3, 3), dtype="f4") * np.float32((2 / (9 * inputs)) ** 0.5)
            block.append((kernel, random.standard_normal(channels, dtype="f4") * np.float32(0.05)))
            inputs = channels
        out.append(block)
    return out


def trunk(graph, blocks, pads=None, bias=True):
    """The convolutions, ReLUs and poolings of blocks. `pads`: attributes in place of explicit ones."""
    for block in blocks:
        for kernel, shift in block:
            constants = (kernel, shift) if bias else (kernel,)
            graph.add("Conv", *constants, kernel_shape=[3, 3], **(pads or {"pads": [1, 1, 1, 1]}))
            if not bias:
                graph.add("Add", shift.reshape(-1, 1, 1))
            graph.add("Relu")
        graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    return graph


def run_trunk(blocks, x):
    """The same by PyTorch: (N, 3, H, W) → maps."""
    x = torch.as_tensor(np.asarray(x))
    for block in blocks:
        for kernel, shift in block:
            x = torch.relu(torch.nn.functional.conv2d(x, torch.from_numpy(kernel), torch.from_numpy(shift), padding=1))
        x = torch.nn.functional.max_pool2d(x, 2)
    return x.numpy()


def dense(inputs, outputs, seed):
    random = np.random.default_rng(seed)
    return (random.standard_normal((inputs, outputs), dtype="f4") * np.float32((2 / inputs) ** 0.5),
            random.standard_normal(outputs, dtype="f4") * np.float32(0.1))


def tensorflow(blocks, size=32, head=None, front=None):
    """As tf2onnx writes a Keras model: pixels and the flattened maps in (N, H, W, C) order, shapes by
    nodes, MatMul and Add. `head`: [(kernel, bias, relu), …]; `front`: adds nodes before all."""
    g = Graph((size, size), last=True)
    if front:
        front(g)
    g.add("Transpose", perm=[0, 3, 1, 2])
    trunk(g, blocks)
    if not head:
        return g
    pooled = g.end
    g.add("Transpose", perm=[0, 2, 3, 1])
    shape = g.node("Gather", [g.node("Shape", [pooled]), g.constant(np.int64([0, 2, 3, 1]))])
    shape = g.node("Cast", [shape], to=TensorProto.INT32)
    zero, one = g.constant(np.int64([0])), g.constant(np.int64([1]))
    shape = g.node("Slice", [shape, zero, one, zero])
    shape = g.node("Concat", [shape, g.constant(np.int32([-1]), "i4")], axis=0)
    g.add("Reshape", g.node("Cast", [shape], to=TensorProto.INT64))
    for kernel, bias, relu in head:
        g.add("MatMul", kernel).add("Add", bias)
        if relu:
            g.add("Relu")
    return g.add("Softmax")


def run_head(head, vectors):
    for kernel, bias, relu in head:
        vectors = vectors @ kernel + bias
        vectors = np.maximum(vectors, 0) if relu else vectors
    return vectors


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def external(model, folder, location="w.bin", threshold=100):
    """Moves the values of large tensors into a file beside the model."""
    data = bytearray()
    for init in model.graph.initializer:
        if len(init.raw_data) < threshold:
            continue
        for key, value in (("location", location), ("offset", len(data)), ("length", len(init.raw_data))):
            init.external_data.add(key=key, value=str(value))
        data += init.raw_data
        init.ClearField("raw_data")
        init.data_location = TensorProto.EXTERNAL
    if location:
        target = folder / location
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bytes(data))
    return model
