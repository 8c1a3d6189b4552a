"""Is it transfer? vgg-mini on images that it was not trained on: a head on its frozen features,
against the same head on the same network with random weights, and against training the network
from nothing for at least the same time.

    python3 bench/transfer.py build [--seeds 3] [--threads 2]

Two sets of drawn images: the demo's scenes, and things (a butterfly, a car, a cup, a fish, a
flower, an umbrella) in any colours on any ground. Each seed draws its own 40 training and
validation images and 50 test images of each class and seeds everything else too. Nothing is
cached between runs.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

TRAIN, TEST, SIZE = 40, 50, 128
HEAD = ["--head", "stats batchnorm dense:128 dropout:0.5", "--epochs", "20"]
FROZEN = ["--backbone", "vgg-mini", *HEAD]
TUNED = [*FROZEN[:-1], "24", "--freeze-epochs", "12", "--fine-tune", "block4_conv1", "--lr", "5e-4"]


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder

    def draw(self, kind, seed):
        """A folder with train/ and test/; no two seeds and splits share an image."""
        data = self.folder / f"{kind}-{seed}"
        for split, count, first in (("train", TRAIN, 0), ("test", TEST, 500)):
            subprocess.run([f"{self.options.build}/tests/tools/draw_scenes", data / split,
                            str(count), str(10_000 * (seed + 1) + first), str(SIZE),
                            *(["things"] if kind == "things" else [])], check=True)
        return data

    def train(self, data, seed, *arguments):
        """Test accuracy and seconds of the whole command."""
        start = time.perf_counter()
        done = subprocess.run(
            [f"{self.options.build}/bin/graft", "train", data, *arguments, "--seed", str(seed),
             "--threads", str(self.options.threads), "--quiet", "--json", "--force", "--no-cache",
             "-o", self.folder / "run"], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["test"]["top1"], time.perf_counter() - start

    def from_scratch(self, data, seed, seconds):
        """As many epochs as fit, and one more: never less time than `seconds`."""
        def scratch(epochs):
            return self.train(data, seed, "--recipe", "scratch", "--input-size", "112",
                              "--epochs", str(epochs))
        one, three = scratch(1)[1], scratch(3)[1]
        each = max((three - one) / 2, 0.05)
        epochs = max(1, int((seconds - (one - each)) / each) + 1)
        accuracy, taken = scratch(epochs)
        while taken < seconds:
            epochs += 1
            accuracy, taken = scratch(epochs)
        return accuracy, taken


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(o, pathlib.Path(folder))
        for kind in ("scenes", "things"):
            rows = {"frozen vgg-mini": [], "frozen random": [], "from scratch": [],
                    "then fine-tuned": []}
            for seed in range(o.seeds):
                data = bench.draw(kind, seed)
                frozen = bench.train(data, seed, *FROZEN)
                rows["frozen vgg-mini"].append(frozen)
                rows["frozen random"].append(bench.train(data, seed, *FROZEN, "--weights", "none"))
                rows["from scratch"].append(bench.from_scratch(data, seed, frozen[1]))
                rows["then fine-tuned"].append(bench.train(data, seed, *TUNED))
            for name, results in rows.items():
                values = [accuracy for accuracy, _ in results]
                print(f"{kind:<7} {name:<16} top-1 mean {statistics.mean(values):.3f}  "
                      f"({', '.join(f'{v:.3f}' for v in values)})  "
                      f"{statistics.mean(s for _, s in results):.1f} s", flush=True)
            for other in ("frozen random", "from scratch"):
                margins = [a[0] - b[0] for a, b in zip(rows["frozen vgg-mini"], rows[other])]
                print(f"{kind:<7} margin over {other}: mean {statistics.mean(margins):+.3f}, "
                      f"least {min(margins):+.3f}", flush=True)


if __name__ == "__main__":
    main()
