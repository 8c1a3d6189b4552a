"""A folder of very many images: what scanning it takes, and working on it in shards.

    python3 bench/shards.py build [--images 20000] [--shards 8] [--folder DIR] [--keep] [--compute]

Makes tiny JPEGs in class folders (a million take some minutes, 4 GB of blocks and a million inodes)
and the same in tar shards with labels, and times, with the greatest resident memory of each:

- the scan of the folder, of a list of its files, and of the shards: a shard of `graft features`
  with next to no image in it (the list is made, sorted, hashed and cut, weights are loaded);
- `graft check` likewise, which knows of classes and splits too;
- with --compute all shards one after the other, their joining, and the same by one process; the
  two results are compared.

The files are in the page cache: it is the processor's time, not the disk's.
"""
import argparse
import filecmp
import io
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time

from PIL import Image

NETWORK = ["--backbone", "vgg-mini", "--input-size", "32", "--pool", "gap"]
CLASSES, IN_A_FOLDER, IN_A_SHARD = 10, 1000, 10000


def pixels():
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 200, 30)).save(out, "JPEG")
    return out.getvalue()


def make_folder(folder, count):
    jpeg = pixels()
    for first in range(0, count, IN_A_FOLDER):
        number = first // IN_A_FOLDER
        below = folder / f"class{number % CLASSES}" / f"{number:04d}"
        below.mkdir(parents=True)
        for k in range(first, min(first + IN_A_FOLDER, count)):
            descriptor = os.open(below / f"{k:07d}.jpg", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, jpeg + str(k).encode())  # no two are the same file
            os.close(descriptor)


def make_shards(folder, count):
    jpeg = pixels()
    folder.mkdir()
    for first in range(0, count, IN_A_SHARD):
        with tarfile.open(folder / f"shard-{first // IN_A_SHARD:04d}.tar", "w") as tar:
            for k in range(first, min(first + IN_A_SHARD, count)):
                for suffix, content in ((".jpg", jpeg + str(k).encode()), (".cls", str(k % CLASSES).encode())):
                    info = tarfile.TarInfo(f"{k:07d}{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def measure(name, *command):
    start = time.monotonic()
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{name}: exit code {process.returncode}")
    print(f"{name:44} {time.monotonic() - start:8.2f} s {usage.ru_utime + usage.ru_stime:8.2f} s of processors "
          f"{usage.ru_maxrss / 1024:7.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--folder", type=pathlib.Path, help="where to make them, and to find them again")
    parser.add_argument("--keep", action="store_true", help="leave them there")
    parser.add_argument("--compute", action="store_true")
    options = parser.parse_args()
    graft = options.build / "bin" / "graft"
    root = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="graft-bench-"))
    photos, tars, parts = root / "photos", root / "tars", root / "parts"
    if not photos.exists():
        start = time.monotonic()
        make_folder(photos, options.images)
        make_shards(tars, options.images)
        print(f"{options.images} images made in {time.monotonic() - start:.0f} s")
    files = root / "files.txt"
    files.write_text("".join(f"{path.relative_to(root)}\n" for path in sorted(photos.rglob("*.jpg"))))
    few = ["--shard", "99999/100000", "-o", root / "few", "--force", "--quiet"]
    for name, data in (("a folder", photos), ("a list", f"@{files}"), ("tar shards", tars)):
        measure(f"features, scan of {name}", graft, "features", data, *NETWORK, *few)
    for name, data in (("a folder", photos), ("tar shards", tars)):
        measure(f"check, scan of {name}", graft, "check", data, *few)
    if options.compute:
        for shard in range(options.shards):
            measure(f"features, shard {shard} of {options.shards}", graft, "features", photos, *NETWORK, "--shard",
                    f"{shard}/{options.shards}", "-o", parts, "--quiet")
        measure("features, joining", graft, "features", "--merge", parts, "-o", root / "joined.npy", "--quiet")
        measure("features, one process", graft, "features", photos, *NETWORK, "-o", root / "whole.npy", "--quiet")
        same = filecmp.cmp(root / "joined.npy", root / "whole.npy", shallow=False)
        print("the same bytes" if same else "OTHER BYTES")
        for shard in range(options.shards):
            measure(f"check, shard {shard} of {options.shards}", graft, "check", photos, "--shard",
                    f"{shard}/{options.shards}", "-o", parts, "--quiet")
    if not options.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
