"""What the formats cost that graft-read-image decodes, and what libraries cost to load (decisions 0030, 0031).

  python3 bench/image_formats.py build

Each line is a median of runs that took turns; times on a machine that does nothing else.
"""
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

ROUNDS = 15


def seconds(command, **environment):
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL,
                   env=dict(os.environ, **environment))
    return time.perf_counter() - start


def medians(*jobs):
    """Milliseconds of each of several commands, by turns."""
    times = [[job() for job in jobs] for _ in range(ROUNDS)]
    return [1000 * statistics.median(column) for column in zip(*times)]


def photo(width, height):
    random = np.random.default_rng(3)
    small = Image.fromarray(random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    return small.resize((width, height), Image.BICUBIC)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build = pathlib.Path(sys.argv[1]).resolve()
    os.environ["GRAFT_LIBEXEC"] = str(build / "libexec" / "graft")
    probe, graft = build / "tests" / "tools" / "image_probe", build / "bin" / "graft"
    for name in ("libheif.so.1", "libarchive.so.13"):
        with_it, without = medians(lambda: seconds(["/bin/true"], LD_PRELOAD=name), lambda: seconds(["/bin/true"]))
        print(f"loading {name}: {with_it - without:.1f} ms")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tiny = photo(150, 150)
        for suffix in ("png", "bmp"):
            tiny.save(folder / f"tiny.{suffix}")
        bmp, png = medians(*(lambda f=folder / f"tiny.{s}": seconds([probe, f]) for s in ("bmp", "png")))
        print(f"starting graft-read-image, and one small image: {bmp - png:.1f} ms")
        count = 300
        for suffix in ("png", "gif", "bmp"):
            for label in "ab":
                (folder / suffix / label).mkdir(parents=True)
                for k in range(count // 2):
                    image = tiny.rotate(k, fillcolor=(k, 0, 0))
                    (image.quantize(256) if suffix == "gif" else image).save(folder / suffix / label / f"{k}.{suffix}")
        some = medians(*(lambda d=folder / s: seconds([graft, "check", d]) for s in ("png", "gif", "bmp")))
        print("checking 300 small images: " + ", ".join(f"{s} {m:.0f} ms" for s, m in zip(("png", "gif", "bmp"), some)))
        large = photo(4032, 3024)
        large.save(folder / "large.jpg", quality=92)
        large.save(folder / "large.bmp")
        kinds = ["jpg", "bmp"]
        if shutil.which("heif-enc"):
            subprocess.run(["heif-enc", "-q", "50", "-o", folder / "large.heic", folder / "large.jpg"], check=True,
                           capture_output=True)
            kinds.append("heic")
        times = medians(*(lambda f=folder / f"large.{s}": seconds([probe, f]) for s in kinds))
        print("12 megapixels, the whole program: " + ", ".join(f"{s} {m:.0f} ms" for s, m in zip(kinds, times)))


if __name__ == "__main__":
    main()
