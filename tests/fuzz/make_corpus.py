"""Makes the corpora of the fuzz targets: small valid files of every kind that the readers know.
Run by hand after a format changed: GRAFT_BUILD=build PYTHONPATH=tests /usr/bin/python3 tests/fuzz/make_corpus.py"""
import argparse
import collections
import io
import json
import os
import pathlib
import shutil
import struct
import tempfile

import h5py
import numpy as np
import torch
from PIL import Image

import graft_testing as t
import onnx_testing as o

CORPUS = pathlib.Path(__file__).parent / "corpus"


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def exif_block(orientation, order):
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    entry = struct.pack(order + "HHI", 0x0112, 3, 1) + struct.pack(order + "HH", orientation, 0)
    return b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + struct.pack(order + "I", 0)


def images():
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)

    def save(target, name, image, form, **options):
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        put(target, name, buffer.getvalue())

    for name, mode in (("rgb", "RGB"), ("grey", "L"), ("cmyk", "CMYK")):
        save("jpeg", name + ".jpg", rgb.convert(mode), "JPEG", quality=60)
    save("jpeg", "progressive.jpg", rgb, "JPEG", progressive=True, quality=60)
    save("jpeg", "exif.jpg", rgb, "JPEG", exif=exif_block(6, "<"), quality=50)
    for name, mode in (("rgb", "RGB"), ("grey", "L"), ("rgba", "RGBA"), ("palette", "P"), ("bits", "1")):
        save("png", name + ".png", rgb.convert(mode), "PNG")
    save("png", "deep.png", Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200), "PNG")
    save("png", "exif.png", rgb, "PNG", exif=exif_block(8, ">"))
    save("webp", "lossy.webp", rgb, "WEBP", quality=40)
    save("webp", "lossless.webp", rgb.convert("RGBA"), "WEBP", lossless=True)
    save("webp", "animated.webp", rgb, "WEBP", save_all=True,
         append_images=[rgb.transpose(Image.ROTATE_180)])
    save("webp", "exif.webp", rgb, "WEBP", exif=exif_block(3, "<"))
    for orientation in (1, 6, 9):
        for order in "<>":
            put("exif", f"{orientation}{'le' if order == '<' else 'be'}", exif_block(orientation, order))


def weights(folder):
    shapes = {"block1_conv1": (3, 3, 3, 4), "block1_conv2": (3, 3, 4, 4)}
    for name, options in (("keras1", {}), ("latest", {"libver": "latest"})):
        path = folder / "w.h5"
        with h5py.File(path, "w", **options) as file:
            file.attrs["layer_names"] = [n.encode() for n in shapes]
            for layer, shape in shapes.items():
                group = file.create_group(layer)
                names = [f"{layer}_W_1:0", f"{layer}_b_1:0"]
                group.attrs["weight_names"] = [n.encode() for n in names]
                chunked = {"chunks": shape, "compression": "gzip"} if name == "latest" else {}
                group.create_dataset(names[0], data=np.ones(shape, "f4"), **chunked)
                group.create_dataset(names[1], data=np.zeros(shape[3], "f4"))
        put("h5", name + ".h5", path.read_bytes())
    with h5py.File(folder / "n.h5", "w") as file:  # Keras 3
        for i, (layer, shape) in enumerate(shapes.items()):
            variables = file.create_group(f"layers/functional/layers/conv2d_{i}/vars")
            variables.attrs["name"] = layer
            variables.create_dataset("0", data=np.ones(shape, "f4"))
            variables.create_dataset("1", data=np.zeros(shape[3], "u2").view("V2"))
    put("h5", "numbered.h5", (folder / "n.h5").read_bytes())
    # Answers of graft-read-h5 (src/weights/h5_message.h), without their frame.
    text = lambda data: struct.pack("<I", len(data)) + data
    put("h5", "catalogue", b"\x01" + struct.pack("<I", 2)
        + text(b"block1_conv1") + text(b"kernel:0") + text(b"")
        + b"\x04" + struct.pack("<4Q", 3, 3, 3, 16)
        + text(b"dense") + text(b"") + text(b"why") + b"\0")
    put("h5", "refusal", b"\x02" + text(b"no"))


def torch_files(folder):
    """A first layer in both formats, of several types, bare, in a checkpoint and channels_last."""
    weight = torch.arange(2 * 27, dtype=torch.float32).reshape(2, 3, 3, 3) / 64
    state = collections.OrderedDict([("features.0.weight", weight), ("features.0.bias", torch.ones(2)),
                                     ("classifier.6.weight", torch.ones(3, 2, dtype=torch.bfloat16))])
    last = {"state_dict": {"module.features.0.weight": weight.to(memory_format=torch.channels_last).half(),
                           "module.features.0.bias": torch.nn.Parameter(torch.ones(4).double()[1:3]),
                           "module.steps": torch.tensor(7)}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    for name, value in (("state", state), ("checkpoint", last)):
        for kind, zipped in (("zip", True), ("stream", False)):
            path = folder / "w.pth"
            torch.save(value, path, _use_new_zipfile_serialization=zipped)
            put("torch", f"{name}-{kind}.pth", path.read_bytes())


def onnx_files():
    """A first block and a head as three exporters write them, in several types."""
    blocks = o.weights("vgg-mini", blocks=1)
    g = o.trunk(o.Graph(), blocks).add("GlobalAveragePool").add("Flatten").add("Dropout", np.float32(0.5))
    weight, bias = o.dense(16, 3, 1)
    g.add("Gemm", np.ascontiguousarray(weight.T), bias, transB=1).add("Softmax", axis=1)
    put("onnx", "torch.onnx", g.model().SerializeToString())

    def front(graph):
        graph.dtype = "f2"
        graph.add("Mul", np.float32(1 / 255)).add("Sub", o.TORCH_MEAN).add("Div", o.TORCH_STD)

    g = o.tensorflow(blocks, 32, None, front).add("ReduceMean", axes=[2, 3], keepdims=0)
    g.add("Mul", np.ones(16, "f4")).add("Add", np.zeros(16, "f4")).add("MatMul", o.dense(16, 2, 2)[0])
    put("onnx", "means.onnx", g.model().SerializeToString())

    small = [[(kernel.round(1), bias.round(1)) for kernel, bias in blocks[0]]]
    g = o.Graph(last=True)
    g.dtype, g.raw = "bf16", False
    parts = [g.node("Slice", ["image", g.constant(np.int64([c])), g.constant(np.int64([c + 1])),
                              g.constant(np.int64([3]))]) for c in (2, 1, 0)]
    g.end = g.node("Concat", parts, axis=3)
    g.add("Add", -o.CAFFE_MEAN).add("Transpose", perm=[0, 3, 1, 2])
    o.trunk(g, small, {"auto_pad": "SAME_UPPER"}, bias=False).add("Transpose", perm=[0, 2, 3, 1])
    g.add("ReduceMax", axes=[1, 2], keepdims=1).add("Squeeze", np.int64([1, 2]))
    g.add("MatMul", o.dense(16, 1, 2)[0]).add("Add", np.zeros(1, "f4")).add("Sigmoid")
    put("onnx", "keras.onnx", g.model().SerializeToString())


def without_hash(path):
    """Else a fuzzer sees nothing of what is read behind the hash."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header["__metadata__"].pop("file_xxh3", None)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size:]


def training(folder):
    """A model and a state as the program writes them, cut down to a few weights."""
    data = folder / "data"
    t.draw_scenes(data, 4)
    run = folder / "run"
    done = t.run("train", data, "--backbone", "vgg-mini", "--weights", "none", "--until", "block1_pool",
                 "--input-size", "32", "--head", "gap", "--epochs", "1", "-o", run, "--no-report")
    assert done.returncode == 0, done.stderr
    put("safetensors", "model.safetensors", without_hash(run / "model.safetensors"))
    put("state", "state.safetensors", without_hash(run / "checkpoints" / "state.safetensors"))
    put("toml", "config.toml", (run / "config.toml").read_bytes())
    put("csv", "history.csv", (run / "history.csv").read_bytes())
    t.write_safetensors(folder / "plain.safetensors", {"a": np.ones((2, 3), "f4"), "b": np.zeros(0, "f4")})
    put("safetensors", "plain.safetensors", (folder / "plain.safetensors").read_bytes())


def parts(folder):
    t.draw_scenes(folder / "photos", 1, size=16)
    t.run("features", folder / "photos", "--backbone", "vgg-mini", "--weights", "none", "--input-size", "32",
          "--until", "block1_conv1", "--pool", "gap", "--shard", "0/1", "-o", folder)
    t.run("check", folder / "photos", "--shard", "0/2", "-o", folder)
    for file in sorted(folder.glob("*.part")):
        put("part", file.name, file.read_bytes())


def languages():
    for i, text in enumerate(("stats batchnorm dense:256 dropout:0.5", "conv:32 maxpool conv:16 gap",
                              "flatten dense:4096 dense:1072 dropout:0.2", "gmp", "default", "dense:8")):
        put("head", str(i), text)
    for i, text in enumerate(("rotate:90 shift:0.5 brightness:0.1-0.7 hflip vflip", "none", "light",
                              "crop:0.5-1 jitter:0.2 hue:0.1 erase:0.3", "zoom:0.2 shear:10 fill:reflect",
                              "mixup:0.2", "cutmix:1 channel:20")):
        put("augment", str(i), text)
    put("csv", "manifest", 'path,label,split\na.jpg,cat,train\n"b,""c"".jpg",dog,val\r\n\xef\xbb\xbf,x,\n')
    put("csv", "quotes", '"a\nb",""\n,,\n')
    put("toml", "options", 'epochs = 3\nlr = 1e-3\nhead = "gap"\nno-cache = true\n# end\n')
    put("npy", "rows", bytes([2, 3, 4, 0]) + np.arange(24, dtype="<f4").tobytes())
    put("npy", "empty", bytes(4))


def main():
    shutil.rmtree(CORPUS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        images()
        weights(pathlib.Path(folder))
        torch_files(pathlib.Path(folder))
        onnx_files()
        training(pathlib.Path(folder))
        parts(pathlib.Path(folder))
        languages()
    print(sum(f.stat().st_size for f in CORPUS.rglob("*") if f.is_file()), "bytes")


if __name__ == "__main__":
    main()
