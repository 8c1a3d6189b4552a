"""What the Python tests share. They run under Debian's python3 with numpy, PIL, h5py, torch."""
import csv
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
import unittest

import numpy as np

SOURCE = pathlib.Path(os.environ.get("GRAFT_SOURCE", pathlib.Path(__file__).resolve().parents[1]))
BUILD = pathlib.Path(os.environ.get("GRAFT_BUILD", SOURCE / "build"))
GRAFT = str(BUILD / "bin" / "graft")
TOOLS = BUILD / "tests" / "tools"
SHARED = SOURCE.parent / "shared"
SCENES = SHARED / "data" / "intel-scenes"
REAL_WEIGHTS = SHARED / "weights" / "vgg19_imagenet_blocks1-3_notop.h5"
HAS_TRAINING = (BUILD / "libexec" / "graft" / "graft-train").exists()

# The user's own cache is not for tests.
_CACHE = tempfile.TemporaryDirectory(prefix="graft-test-cache-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
# The tools lie elsewhere than the programs that they start.
os.environ["GRAFT_LIBEXEC"] = str(BUILD / "libexec" / "graft")

BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3),
          "vgg19": (2, 2, 4, 4, 4), "vgg-mini": (2, 2, 2, 2, 2)}
CHANNELS = (64, 128, 256, 512, 512)
MINI_CHANNELS = (16, 32, 64, 128, 160)


def run(*arguments, env=None, stdin=None, timeout=300, cwd=None):
    """Runs graft; returns the completed process with text output."""
    environment = dict(os.environ, **(env or {}))
    return subprocess.run([GRAFT, *map(str, arguments)], capture_output=True, text=True, input=stdin,
                          errors="surrogateescape", env=environment, timeout=timeout, cwd=cwd)


def tool(name, *arguments, **keywords):
    return subprocess.run([str(TOOLS / name), *map(str, arguments)], capture_output=True, **keywords)


def says_something(path):
    """A file is locked after it is made, and written after it is locked: one with a text is locked."""
    return path.exists() and path.stat().st_size > 0


def draw_scenes(folder, count, first_seed=0, size=64):
    tool("draw_scenes", folder, count, first_seed, size, check=True)


def draw_noise(folder, names, size=32, seed=3, **counts):
    """folder/<split>/<name>/*.png for each split: images that nothing can be learned from."""
    import numpy as np
    from PIL import Image
    random = np.random.default_rng(seed)
    for name in names:
        for split, count in counts.items():
            path = pathlib.Path(folder) / split / name
            path.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(random.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path / f"{k}.png")


class TestCase(unittest.TestCase):
    """A temporary folder for each test, and assertions about runs of the program."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-test-"))
        self.addCleanup(self._clean)

    def _clean(self):
        for path in self.folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(self.folder, ignore_errors=True)

    def succeed(self, *arguments, **keywords):
        done = run(*arguments, **keywords)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def succeed_json(self, *arguments, **keywords):
        """Stdout must be one JSON document and nothing else."""
        return json.loads(self.succeed(*arguments, **keywords).stdout)

    def fail_with(self, code, text, *arguments, **keywords):
        """The program must fail with that code and one clear line on stderr that has the text."""
        done = run(*arguments, **keywords)
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        self.assertIn(text, done.stderr)
        first = [line for line in done.stderr.splitlines() if line.startswith("graft: ")]
        self.assertTrue(first, done.stderr)
        for word in ("terminate called", "Traceback", "what():", "unexpected:", "Aborted"):
            self.assertNotIn(word, done.stderr)
        return done


def columns_of(text):
    """Columns of a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
               for c in text)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main():
    if not os.path.exists(GRAFT):
        sys.exit(f"{GRAFT} is missing: run 'make build' first")
    unittest.main(verbosity=2)


def skip_without(path, what):
    """Ends the script with ctest's code for 'skipped' if `path` is absent."""
    if not path.exists():
        print(f"SKIPPED: {what} are not at {path}")
        sys.exit(77)


def read_safetensors(path):
    """Tensors and metadata, by the format's own description (independent of the product's code)."""
    data = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[8 + size + begin:8 + size + end],
                                      "<f4").reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata=None):
    header, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape),
                        "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text
                                   + b"".join(np.ascontiguousarray(v).tobytes()
                                              for v in tensors.values()))


def layer_specs(backbone, top_classes=0, fc=4096, map_size=7):
    """(layer, kernel shape in Keras' layout) of a VGG, stated apart from the product."""
    specs, inputs = [], 3
    widths = MINI_CHANNELS if backbone == "vgg-mini" else CHANNELS
    for block, (count, channels) in enumerate(zip(BLOCKS[backbone], widths), 1):
        for i in range(1, count + 1):
            specs.append((f"block{block}_conv{i}", (3, 3, inputs, channels)))
            inputs = channels
        specs.append((f"block{block}_pool", None))
    if top_classes:
        specs += [("flatten", None), ("fc1", (map_size * map_size * 512, fc)), ("fc2", (fc, fc)),
                  ("predictions", (fc, top_classes))]
    return specs


def random_weights(specs, seed=0):
    """layer → (kernel, bias), He-normal, float32."""
    random = np.random.default_rng(seed)
    weights = {}
    for layer, shape in specs:
        if shape is None:
            continue
        fan_in = int(np.prod(shape[:-1]))
        kernel = random.standard_normal(shape, dtype="f4") * np.float32((2 / fan_in) ** 0.5)
        weights[layer] = (kernel, random.standard_normal(shape[-1], dtype="f4") * np.float32(0.05))
    return weights


def write_keras_h5(path, specs, weights, style="official"):
    """A Keras weights file. style: official (…_W_1:0), keras2 (…/kernel:0), keras3 (…/kernel),
    model (whole-model file), chunked (layer_names0, layer_names1)."""
    import h5py
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if style == "model" else file
        names = ["input_1"] + [layer for layer, _ in specs]
        encoded = [name.encode() for name in names]
        if style == "chunked":
            half = len(encoded) // 2
            root.attrs["layer_names0"], root.attrs["layer_names1"] = encoded[:half], encoded[half:]
        else:
            root.attrs["layer_names"] = encoded
        for name in names:
            group = root.create_group(name)
            weight_names = []
            if name in weights:
                kernel, bias = {"official": (f"{name}_W_1:0", f"{name}_b_1:0"),
                                "keras3": (f"{name}/kernel", f"{name}/bias")}.get(
                                    style, (f"{name}/kernel:0", f"{name}/bias:0"))
                group.create_dataset(kernel, data=weights[name][0])
                group.create_dataset(bias, data=weights[name][1])
                weight_names = [kernel.encode(), bias.encode()]
            group.attrs["weight_names"] = weight_names
