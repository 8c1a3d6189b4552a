"""Training beside other programs: seconds of a small training alone and beside as many busy loops as
there are processors, with Graft's waiting and with libgomp's own (GOMP_SPINCOUNT=300000), in turn.

    python3 bench/busy.py build PHOTOS [REPEATS]     PHOTOS: a folder of class folders
"""
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

WAITING = {"Graft": {}, "libgomp": {"GOMP_SPINCOUNT": "300000"}}


def seconds(build, photos, folder, variables):
    start = time.perf_counter()
    subprocess.run([f"{build}/bin/graft", "train", photos, "--backbone", "vgg-mini", "--recipe", "quick",
                    "--min-steps", "0", "--epochs", "10", "--cache-dir", folder / "cache", "-o", folder / "run",
                    "--force", "--quiet", "--no-report"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, **variables})
    return time.perf_counter() - start


def main():
    build, photos = sys.argv[1], sys.argv[2]
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        seconds(build, photos, folder, {})  # fills the cache
        for loops, what in ((0, "alone"), (len(os.sched_getaffinity(0)), "beside busy loops")):
            busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(loops)]
            try:
                pairs = [{who: seconds(build, photos, folder, more) for who, more in WAITING.items()}
                         for _ in range(repeats)]
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
            medians = "  ".join(f"{who} {statistics.median(p[who] for p in pairs):.2f} s" for who in WAITING)
            ratios = sorted(p["Graft"] / p["libgomp"] for p in pairs)
            print(f"{what}: {medians}  ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                  flush=True)


if __name__ == "__main__":
    main()
