"""Whole commands on mutations of every kind of file that Graft reads: model, .h5, .pth, .onnx, state, cache, CSV, TOML,
images that a process of their own decodes, archives of images.

No exit by a signal, no hang over ten seconds, no more memory than the file itself and 64 MB above what
the valid file takes, and one line of the program's own where it refuses. Mutations come from a seed.

  make mutate [COUNT=1000]
  GRAFT_BUILD=build-sanitize … python3 tests/robustness/mutate.py --count 1000 --kind h5
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile

import graft_testing as t

SECONDS = 60 if "sanitize" in str(t.BUILD) else 10
MEMORY = 64 << 20
EXTREMES = [b"-1", b"0", b"32.9", b"1e300", b"4294967328", b"9223372036854775807", b"18446744073709551616",
            b"null", b"true", b"\"\"", b"[]", b"{}", b"NaN", b"\"a\\u0000b\"", b"[" * 2000 + b"]" * 2000]


def mutate_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 2 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 16))
        elif kind == 4:
            n = rng.choice([1, 2, 4, 8])
            data[at:at + n] = rng.choice([b"\xff", b"\0", b"\x7f", b"\x80"]) * n
        elif kind == 5:
            del data[at:at + rng.randint(1, 64)]
        else:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start:start + rng.randint(1, 64)]
    return bytes(data)


def cut(data, number, count):
    """At places that are evenly spread, the empty file among them."""
    return data[:len(data) * number // count]


def flip(data, rng):
    data = bytearray(data)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def mutate_text(data, rng):
    """Numbers and words of a text become extremes; else bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    places = list(re.finditer(rb"-?\d+(\.\d+)?|\"[^\"\n]*\"|\btrue\b|\bfalse\b", data))
    for place in rng.sample(places, min(len(places), rng.choice([1, 1, 2]))):
        data = data[:place.start()] + rng.choice(EXTREMES) + data[place.end():]
        break
    return data


def mutate_safetensors(data, rng):
    """The header's values, with its length made to fit; else bytes of header or tensors."""
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = data[8:8 + size], data[8 + size:]
    choice = rng.random()
    if choice < 0.2:
        return mutate_bytes(data, rng)
    if choice < 0.5:
        header = mutate_text(header, rng)
    else:
        # Fields inside the strings of the metadata are JSON once more.
        top = json.loads(header)
        top["__metadata__"].pop("file_xxh3", None)  # else nothing behind the hash is reached
        key = rng.choice(list(top["__metadata__"]))
        inner = mutate_text(top["__metadata__"][key].encode(), rng)
        top["__metadata__"][key] = inner.decode("utf-8", "replace")
        header = json.dumps(top).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + rest


def mutate_torch(data, rng):
    """Half of them where there are no values: what those say tells nothing."""
    if rng.random() < 0.5:
        return mutate_bytes(data, rng)
    if data[:2] == b"PK":
        begin, end = data.rfind(b"/data/") + 64, len(data)
        return data[:begin] + mutate_bytes(data[begin:end], rng)
    return mutate_bytes(data[:2000], rng) + data[2000:]


def mutate_onnx(data, rng):
    """Half of them in what is no kernel: nodes, names, shapes; of an input it has some 2,000 bytes."""
    if rng.random() < 0.5:
        return mutate_bytes(data, rng)
    at = data.rfind(b"MaxPool") + 200
    return (mutate_bytes(data[:at], rng) + data[at:]) if rng.random() < 0.7 else data[:-500] + mutate_bytes(data[-500:], rng)


def mutate_foreign(data, rng):
    """A header without Graft's own fields."""
    (size,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    header = mutate_text(data[8:8 + size], rng)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + size:]


class Kind:
    """A valid file, how it is mutated, and the command that reads it."""

    def __init__(self, name, file, mutate, command, hold=None, codes=(0, 1)):
        self.name, self.file, self.mutate, self.command = name, pathlib.Path(file), mutate, command
        self.hold = hold  # a folder that is copied, the file in it replaced
        self.codes = codes
        self.memory = 0


class CommandServer:
    """Commands in processes that find all libraries loaded, which take most of a run's start."""

    def __init__(self, program):
        # Leaks are the fuzz targets' matter: looking for them takes longer than a command.
        self.process = subprocess.Popen([t.TOOLS / program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=dict(os.environ, OPENBLAS_NUM_THREADS="1",
                                                            ASAN_OPTIONS="detect_leaks=0"))

    def spawn(self, arguments, folder, seconds):
        """Exit status (negative: signal; None: still running at the end), peak memory, stderr."""
        errors = folder / "stderr"
        words = [folder / "xdg", errors, seconds, *arguments]
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        status, memory = map(int, self.process.stdout.readline().split())
        code = os.waitstatus_to_exitcode(status)
        return None if code == -signal.SIGALRM else code, memory * 1024, errors.read_text(errors="replace")


def make_pictures(folder, image):
    """One of each format that graft-read-image decodes; HEIC and AVIF where Debian's heif-enc is."""
    from PIL import Image
    picture = Image.open(image)
    files = []
    for suffix, options in (("gif", {}), ("bmp", {}), ("tiff", {"compression": "tiff_lzw"})):
        files.append(folder / f"picture.{suffix}")
        picture.save(files[-1], **options)
    picture.save(folder / "picture.png")
    for suffix, options in (("heic", []), ("avif", ["-A"])):
        if shutil.which("heif-enc"):
            files.append(folder / f"picture.{suffix}")
            subprocess.run(["heif-enc", *options, "-o", files[-1], folder / "picture.png"], check=True,
                           capture_output=True)
    return files


def make_archives(folder, data):
    files = [folder / "photos.zip", folder / "photos.tar", folder / "photos.tgz"]
    some = sorted(data.rglob("*0.jpg")) + sorted(data.rglob("*1.jpg"))
    with zipfile.ZipFile(files[0], "w", zipfile.ZIP_DEFLATED) as out:
        for path in some:
            out.write(path, path.relative_to(data))
    for file, mode in ((files[1], "w"), (files[2], "w:gz")):
        with tarfile.open(file, mode) as out:
            for path in some:
                out.add(path, path.relative_to(data))
    return files


def make_kinds(folder):
    data = folder / "data"
    t.draw_scenes(data, 4, size=32)
    image = sorted(data.rglob("*.jpg"))[0]
    run = folder / "run"
    cache = folder / "cache"
    options = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--until", "block1_pool",
               "--head", "gap", "--no-report", "--threads", "1", "--cache-dir", cache]
    if t.HAS_TRAINING:
        done = t.run("train", data, "-o", run, "--epochs", "2", *options)
        assert done.returncode == 0, done.stderr
    weights = folder / "weights.h5"
    specs = t.layer_specs("vgg16")[:2]
    t.write_keras_h5(weights, specs, t.random_weights(specs))
    manifest = folder / "manifest.csv"
    manifest.write_text("path,label,split\n" + "".join(
        f"{path},{path.parent.name},{split}\n"
        for path, split in zip(sorted(data.rglob("*.jpg")), ["train", "train", "val", "test"] * 99)))
    config = folder / "config.toml"
    config.write_text('backbone = "vgg-mini"\ninput-size = "32x32"\nhead = "gap"\nepochs = 2\nlr = 1e-3\n'
                      'augment = "rotate:20 hflip"\nviews = 2\nema = 0.9\nseed = 3\nno-cache = true\n')
    import torch_testing
    state = {k: v for k, v in torch_testing.make("vgg16").state_dict().items() if int(k.split(".")[1]) < 4}
    for name, zipped in (("archive.pth", True), ("stream.pth", False)):
        torch_testing.torch.save(state, folder / name, _use_new_zipfile_serialization=zipped)
    torch_testing.write_safetensors(folder / "torch.safetensors", state)
    import onnx_testing
    onnx_testing.trunk(onnx_testing.Graph().add("Mul", onnx_testing.np.float32(1 / 255)),
                       onnx_testing.weights("vgg16", blocks=1)).save(folder / "trunk.onnx")
    pictures = make_pictures(folder, image)
    archives = make_archives(folder, data)
    exported = {}
    if t.HAS_TRAINING:
        for suffix in ("keras", "h5", "pth", "safetensors", "onnx"):
            exported[suffix] = folder / f"exported.{suffix}"
            done = t.run("export", run, "-o", exported[suffix])
            assert done.returncode == 0, done.stderr
    first_block = lambda f: ["features", image, "--backbone", "vgg16", "--weights", f, "--input-size", "32",
                             "--until", "block1_pool", "-o", f.parent / "out.npy"]
    kinds = [
        Kind("h5", weights, mutate_bytes, first_block),
        Kind("torch-archive", folder / "archive.pth", mutate_torch, first_block),
        Kind("torch-stream", folder / "stream.pth", mutate_torch, first_block),
        Kind("onnx", folder / "trunk.onnx", mutate_onnx, first_block),
        Kind("torch-safetensors", folder / "torch.safetensors", mutate_foreign, first_block),
        Kind("csv", manifest, mutate_text, lambda f: ["check", f]),
        Kind("toml", config, mutate_text, lambda f: ["train", data, "--config", f, "--dry-run"],
             codes=(0, 1, 2)),
    ]
    kinds += [Kind(f"image-{file.suffix[1:]}", file, mutate_bytes,
                   lambda f: ["features", f, "--backbone", "vgg-mini", "--input-size", "32", "--until",
                              "block1_pool", "-o", f.parent / "out.npy"]) for file in pictures]
    kinds += [Kind(f"archive-{file.suffix[1:]}", file, mutate_bytes, lambda f: ["check", f]) for file in archives]
    if t.HAS_TRAINING:
        stores = [max(cache.rglob(pattern), key=lambda p: p.stat().st_size)
                  for pattern in ("*.index", "*.values")]
        kinds += [
            Kind("model", run / "model.safetensors", mutate_safetensors, lambda f: ["predict", f, image]),
            Kind("summary", run / "model.safetensors", mutate_safetensors, lambda f: ["summary", f]),
            Kind("state", run / "checkpoints" / "state.safetensors", mutate_safetensors,
                 lambda f: ["train", data, "--resume", f.parent.parent, "--epochs", "3"], hold=run),
        ]
        kinds += [Kind(f"exported-{suffix}", file, mutate_bytes,
                       lambda f: ["weights", "convert", f, f.parent / "out.safetensors"], codes=(0, 1, 2))
                  for suffix, file in exported.items()]
        for store in stores:
            depth = len(store.relative_to(cache).parts)
            kinds += [
                Kind(f"list-{store.suffix[1:]}", store, mutate_bytes,
                     lambda f, depth=depth: ["cache", "list", "--cache-dir", f.parents[depth - 1]], hold=cache),
                Kind(f"cache-{store.suffix[1:]}", store, mutate_bytes,
                     lambda f, depth=depth: ["train", data, "-o", f.parents[depth] / "new", "--force",
                                             "--epochs", "1", *options[:-1], f.parents[depth - 1]], hold=cache),
            ]
    return kinds


def place(kind, folder, data):
    """The mutated file where the command looks for it."""
    if kind.hold is None:
        file = folder / kind.file.name
    else:
        held = folder / "held"
        shutil.rmtree(held, ignore_errors=True)
        shutil.copytree(kind.hold, held)
        file = held / kind.file.relative_to(kind.hold)
    file.write_bytes(data)
    return file


def check(kind, folder, data, size_of_valid, run):
    """What is wrong with how the command ended, or nothing."""
    file = place(kind, folder, data)
    code, memory, errors = run(kind.command(file), folder, SECONDS)
    if code is None:
        return "hangs"
    if code not in kind.codes:
        return f"ends with {code}: {errors[-300:]}"
    if code != 0 and not any(line.startswith("graft: ") for line in errors.splitlines()):
        return f"says nothing: {errors[-300:]}"
    if "unexpected:" in errors or "type_error" in errors or "Sanitizer" in errors or "runtime error" in errors:
        return f"is not typed: {errors[-300:]}"
    if kind.memory and memory > kind.memory + max(0, len(data) - size_of_valid) + MEMORY:
        return f"takes {memory >> 20} MB, the valid file {kind.memory >> 20} MB"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="mutations of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation, to go on with a run")
    parser.add_argument("--kind", action="append")
    parser.add_argument("--how", choices=("mixed", "cut", "flip"), default="mixed",
                        help="each kind's own mutations, truncations at COUNT offsets, or one bit each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files that failed")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sanitized = "sanitize" in str(t.BUILD)
    failures = passed = 0
    with tempfile.TemporaryDirectory(prefix="graft-mutate-") as name:
        root = pathlib.Path(name)
        (root / "valid").mkdir()
        for kind in make_kinds(root / "valid"):
            if options.kind and kind.name not in options.kind:
                continue
            valid = kind.file.read_bytes()
            first = root / "first"
            first.mkdir(exist_ok=True)
            trains = kind.command(kind.file)[0] == "train" and "--dry-run" not in kind.command(kind.file)
            make_runner = lambda: CommandServer("train_server" if trains else "command_server").spawn
            runner = make_runner()
            code, memory, errors = runner(kind.command(place(kind, first, valid)), first, 60)
            if code != 0:
                sys.exit(f"{kind.name}: the valid file ends with {code}: {errors}")
            if kind.name == "toml":  # of an empty file the options' own defaults, a larger network
                memory = max(memory, runner(kind.command(place(kind, first, b"")), first, 60)[1])
            kind.memory = 0 if sanitized else memory
            local = threading.local()

            def one(number):
                if not hasattr(local, "folder"):
                    local.folder = pathlib.Path(tempfile.mkdtemp(dir=root))
                    local.run = make_runner()
                rng = random.Random(f"{options.seed} {kind.name} {number}")
                data = {"mixed": lambda: kind.mutate(valid, rng), "cut": lambda: cut(valid, number, options.count),
                        "flip": lambda: flip(valid, rng)}[options.how]()
                why = check(kind, local.folder, data, len(valid), local.run)
                if why and options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{kind.name}-{number}").write_bytes(data)
                return number, why

            start = said = time.monotonic()
            bad = 0
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                for done, (number, why) in enumerate(pool.map(one, range(options.first, options.first + options.count)), 1):
                    if why:
                        bad += 1
                        print(f"FAILED {kind.name} {number}: {why}", flush=True)
                    if time.monotonic() - said > 30:
                        said = time.monotonic()
                        rate = done / (said - start)
                        print(f"{kind.name}: {done}/{options.count}, {rate:.0f}/s, {bad} failed, "
                              f"{(options.count - done) / rate / 60:.1f} minutes left", flush=True)
            print(f"{kind.name}: {options.count} mutations, {bad} failed, "
                  f"{time.monotonic() - start:.0f} s", flush=True)
            failures += bad
            passed += options.count - bad
    print(f"{passed} passed, {failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
