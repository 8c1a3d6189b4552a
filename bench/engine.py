"""What holds for the engine beyond one figure: rates of all backbones, of one thread beside all, and
of `graft features` from file to file beside the trunk alone. Interleaved runs, as ratios.

    /usr/bin/python3 bench/engine.py BUILD [FOLDER_OF_PHOTOS]
"""
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = len(os.sched_getaffinity(0))
# Multiplications and additions of direct convolution, ×10⁹ for one image at 224×224.
GFLOP = {"vgg16": 30.69, "vgg16_bn": 30.69, "vgg19": 39.04, "vgg19_bn": 39.04}


class Trunk:
    def __init__(self, build, backbone, size, batch, threads):
        self.process = subprocess.Popen(
            [f"{build}/bench/trunk_bench", backbone, str(size), str(batch), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.process.stdout.readline()
        self.times = []

    def run(self):
        self.process.stdin.write("run\n")
        self.times.append(float(self.process.stdout.readline()))
        return self.times[-1]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def spread(ratios):
    ratios = sorted(ratios)
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"


def backbones(build):
    print(f"effective rate at 224x224, batch 8, {THREADS} threads, over vgg16's")
    trunks = {name: Trunk(build, name, 224, 8, THREADS) for name in GFLOP}
    for _ in range(5):
        for trunk in trunks.values():
            trunk.run()
    first = trunks["vgg16"].times
    for name, trunk in trunks.items():
        ratios = [GFLOP[name] / mine / (GFLOP["vgg16"] / base)
                  for mine, base in zip(trunk.times, first)]
        rate = 8 * GFLOP[name] / statistics.median(trunk.times)
        print(f"  {name:9} {rate:6.0f} GFLOP/s  {spread(ratios)}")
        trunk.close()


def threads(build):
    print("vgg16 at 224x224, batch 8: rate with n threads over the rate with one")
    counts = sorted({1, 2, THREADS})
    trunks = [Trunk(build, "vgg16", 224, 8, n) for n in counts]
    for _ in range(5):
        for trunk in trunks:
            trunk.run()
    for n, trunk in zip(counts, trunks):
        print(f"  {n:2} threads  {spread(a / b for a, b in zip(trunks[0].times, trunk.times))}")
        trunk.close()


def features(build, photos):
    print(f"graft features on {len(photos)} photos at 150x150, vgg16: images/s over the trunk's at "
          "batch 16")
    trunk = Trunk(build, "vgg16", 150, 16, THREADS)
    loop, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            trunk_rate = 16 / statistics.median(trunk.run() for _ in range(5))
            start = time.perf_counter()
            done = subprocess.run(
                [f"{build}/bin/graft", "features", *photos, "--weights", "none", "--input-size",
                 "150", "--output", f"{folder}/f.npy"], check=True, stderr=subprocess.PIPE,
                text=True)
            whole.append(len(photos) / (time.perf_counter() - start) / trunk_rate)
            rate = next(line for line in reversed(done.stderr.splitlines()) if "100 %" in line)
            loop.append(float(rate.split("100 %")[1].split("/s")[0]) / trunk_rate)
    trunk.close()
    print(f"  decode to file     {spread(loop)}\n  with the program's start, random weights included  "
          f"{spread(whole)}")


def main():
    build = sys.argv[1]
    backbones(build)
    threads(build)
    if len(sys.argv) > 2:
        photos = sorted(map(str, pathlib.Path(sys.argv[2]).rglob("*.jpg")))
        features(build, photos[::max(1, len(photos) // 500)][:500])


if __name__ == "__main__":
    main()
