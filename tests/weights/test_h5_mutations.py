"""Damaged .h5 files end as one typed error each: no crash, no hang, no memory beyond the file's.

GRAFT_MUTATIONS=20000 tries more; GRAFT_MUTATION_SEED another sequence. A file that fails is kept."""
import os
import random
import shutil
import tempfile

import graft_testing as t
import h5py
import numpy as np

BACKBONE, UNTIL = "vgg-mini", "block1_pool"
COUNT = int(os.environ.get("GRAFT_MUTATIONS", 300))
SEED = int(os.environ.get("GRAFT_MUTATION_SEED", 1))
BATCH = 100
INTERESTING = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF,
               1 << 32, (1 << 63) - 1, (1 << 64) - 1]


def write_numbered(path, weights, named):
    """Keras 3's layout."""
    with h5py.File(path, "w") as file:
        for i, (layer, parts) in enumerate(weights.items()):
            variables = file.create_group(f"layers/functional/layers/conv2d_{i}/vars")
            if named:
                variables.attrs["name"] = layer
            for j, value in enumerate(parts):
                variables.create_dataset(str(j), data=value)


def write_seed(path, kind):
    """The ways in which Keras and h5py store the same weights."""
    specs = [spec for spec in t.layer_specs(BACKBONE) if spec[0].startswith("block1")]
    weights = t.random_weights(specs)
    options = {"compressed": {"compression": "gzip", "shuffle": True, "fletcher32": True},
               "latest": {"chunks": (3, 3, 2, 4), "maxshape": (None, None, 16, 16)},
               "lzf": {"compression": "lzf"}}.get(kind, {})
    if kind in ("numbered", "unnamed"):
        write_numbered(path, weights, kind == "numbered")
        return path.read_bytes(), values_in(path)
    with h5py.File(path, "w", libver="latest" if kind in ("latest", "dense") else None) as file:
        root = file.create_group("model_weights") if kind == "plain" else file
        names = [layer for layer, _ in specs] + [f"activation_{i}" for i in range(12)]
        if kind == "dense":
            root.attrs["layer_names"] = np.array(names, "S4096")  # fractal heap
        elif kind in ("variable", "compressed", "latest"):
            root.attrs.create("layer_names", names, dtype=h5py.string_dtype())
        elif kind == "parts":
            for i in range(0, len(names), 4):
                root.attrs[f"layer_names{i // 4}"] = [n.encode() for n in names[i:i + 4]]
        else:
            root.attrs["layer_names"] = [n.encode() for n in names]
        for layer in names:
            group = root.create_group(layer)
            parts = weights.get(layer, ())
            labels = [f"{layer}/kernel:0", f"{layer}/bias:0"][:len(parts)]
            if kind == "variable" and labels:
                group.attrs.create("weight_names", labels, dtype=h5py.string_dtype())
            else:
                group.attrs["weight_names"] = [n.encode() for n in labels] or np.zeros(0)
            for label, value in zip(labels, parts):
                more = options if value.ndim == 4 else {}
                group.create_dataset(label, data=value, **more)
    return path.read_bytes(), values_in(path)


def values_in(path):
    """The parts of the file that are values alone; damage there tells nothing."""
    parts = []
    def visit(_, item):
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            parts.append(range(item.id.get_offset(),
                               item.id.get_offset() + item.id.get_storage_size()))
    with h5py.File(path) as file:
        file.visititems(visit)
    return parts


def mutate(data, values, dice):
    data = bytearray(data)
    def place():
        while True:
            at = dice.randrange(len(data))
            if dice.random() < 0.02 or not any(at in part for part in values):
                return at
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        at = place()
        kind = dice.randrange(8)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at] = dice.choice(INTERESTING) & 255
        elif kind in (2, 3, 4):
            size = dice.choice((2, 4, 8))
            value = dice.choice(INTERESTING + [len(data), dice.randrange(len(data))])
            data[at:at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif kind == 5:
            size, source = dice.choice((4, 8, 16, 64)), place()
            data[at:at + size] = data[source:source + size]
        elif kind == 6:
            size = dice.choice((1, 8, 32, 256))
            data[at:at + size] = bytes(size) if dice.random() < 0.5 else dice.randbytes(size)
        elif dice.random() < 0.1:
            del data[at:]
            if not data:
                data = bytearray(1)
    return bytes(data)


class Mutations(t.TestCase):
    def probe(self, paths):
        done = t.tool("h5_probe", BACKBONE, UNTIL, *paths, timeout=60 + 10 * len(paths))
        lines = done.stdout.decode().splitlines()
        self.assertEqual((done.returncode, len(lines), done.stderr), (0, len(paths) + 1, b""), lines)
        slowest, own, helper = lines.pop().split()
        return lines, float(slowest), int(own), int(helper)

    def check(self, path, line, slowest, own, helper):
        """Sanitized programs reserve what they like."""
        if os.environ.get("GRAFT_SANITIZED"):
            return
        self.assertLess(slowest, 10, path)
        allowed = 64 * 1024 + path.stat().st_size // 1024
        self.assertLess(helper, allowed + 16 * 1024, path)  # and the programs themselves
        self.assertLess(own, allowed + 16 * 1024, path)

    def test_mutations(self):
        dice = random.Random(SEED)
        seeds = []
        for kind in ("plain", "variable", "compressed", "latest", "dense", "parts", "lzf", "numbered",
                     "unnamed"):
            path = self.folder / f"{kind}.h5"
            seeds.append(write_seed(path, kind))
            (line,), *_ = self.probe([path])
            self.assertIn("ok 4", line)
        outcomes = {"ok": 0, "refused": 0, "died": 0}
        for begin in range(0, COUNT, BATCH):
            paths = []
            for i in range(begin, min(begin + BATCH, COUNT)):
                paths.append(self.folder / f"m{i}.h5")
                paths[-1].write_bytes(mutate(*dice.choice(seeds), dice))
            try:
                lines, *costs = self.probe(paths)
                for path, line in zip(paths, lines):
                    self.assertTrue(line.startswith("ok ") or line.startswith(f"error: {path}: "),
                                    line)
                    outcomes["ok" if line.startswith("ok") else
                             "died" if "the HDF5 library failed" in line else "refused"] += 1
                self.check(paths[0], lines[0], *costs)
            except BaseException:
                kept = tempfile.mkdtemp(prefix="graft-h5-mutations-")
                for path in paths:
                    shutil.copy(path, kept)
                print("kept in", kept)
                raise
            for path in paths:
                path.unlink()
        print(outcomes)
        self.assertGreater(outcomes["refused"], COUNT / 10)


if __name__ == "__main__":
    t.main()
