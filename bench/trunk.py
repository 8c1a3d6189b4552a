"""VGG trunk, forward: Graft beside PyTorch (Debian's python3-torch), interleaved, as ratios.

    bench/run.sh build            # or: /usr/bin/python3 bench/trunk.py BUILD [SIZE BATCH]…
"""
import os
import statistics
import subprocess
import sys
import time

THREADS = len(os.sched_getaffinity(0))
os.environ.update(OMP_NUM_THREADS=str(THREADS), OPENBLAS_NUM_THREADS=str(THREADS))

import torch  # noqa: E402
import torch_vgg  # noqa: E402


def main():
    build = sys.argv[1]
    sizes = [tuple(map(int, pair)) for pair in zip(sys.argv[2::2], sys.argv[3::2])]
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    print(f"PyTorch {torch.__version__}, {THREADS} threads; times of one batch, medians of "
          "interleaved runs")
    print(f"{'network':8} {'size':>4} {'batch':>5} {'graft ms':>9} {'torch ms':>9} "
          f"{'graft/torch':>11}  spread")
    for size, batch in sizes or [(224, 8), (224, 1), (150, 16)]:
        model = torch_vgg.trunk("vgg16")
        x = torch.randn(batch, 3, size, size)
        model(x)
        with subprocess.Popen([f"{build}/bench/trunk_bench", "vgg16", str(size), str(batch),
                               str(THREADS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True, bufsize=1) as mine:
            mine.stdout.readline()
            pairs = []
            for _ in range(7):
                mine.stdin.write("run\n")
                graft_seconds = float(mine.stdout.readline())
                start = time.perf_counter()
                model(x)
                pairs.append((graft_seconds, time.perf_counter() - start))
            mine.stdin.close()
        ratios = sorted(a / b for a, b in pairs)
        print(f"{'vgg16':8} {size:>4} {batch:>5} {1e3 * statistics.median(a for a, _ in pairs):9.1f} "
              f"{1e3 * statistics.median(b for _, b in pairs):9.1f} {statistics.median(ratios):11.3f}"
              f"  {ratios[0]:.3f}–{ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
