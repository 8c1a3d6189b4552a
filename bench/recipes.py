"""Accuracy of recipes on splits of one's own: mean and spread over seeds.

    python3 bench/recipes.py build DATA WEIGHTS.h5 [--seeds 3] [--cache DIR] [--threads 2] [NAME...]

DATA: class folders of 150x150 photos; WEIGHTS: VGG19 blocks 1-3. Each seed splits off 15 % as test
and 15 % as validation images and seeds everything else too. Seconds are of the whole command;
features that an earlier run has left in the cache are not computed again.
"""
import argparse
import json
import statistics
import subprocess
import tempfile
import time

CONV256 = "batchnorm conv:256 batchnorm maxpool conv:256 batchnorm maxpool gap dropout:0.3"
RECIPES = {
    "default": [],
    "best": ["--recipe", "best"],
    "best-15": ["--recipe", "best", "--val-split", "0.15"],
    "mixup": ["--recipe", "best", "--val-split", "0.15", "--augment", "hflip mixup:0.3", "--epochs",
              "16"],
    "stats": ["--head", "stats batchnorm dense:256 dropout:0.5", "--epochs", "20"],
    "pool-conv": ["--head", "batchnorm maxpool conv:256 batchnorm maxpool gap dropout:0.3"],
    "pool-conv-stats": ["--head", "batchnorm maxpool conv:256 batchnorm stats dropout:0.5"],
    "conv256": ["--head", CONV256, "--epochs", "7"],
    "hflip": ["--augment", "hflip", "--epochs", "6"],
    "crops": ["--augment", "hflip crop:0.5-1", "--epochs", "12", "--ema", "0.998", "--head",
              "batchnorm conv:128 batchnorm maxpool conv:384 batchnorm maxpool gap dropout:0.4"],
}


def main():
    parser = argparse.ArgumentParser()
    for name in ("build", "data", "weights"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("names", nargs="*", default=list(RECIPES))
    o = parser.parse_args()
    for name in o.names:
        rows = []
        for seed in range(o.seeds):
            with tempfile.TemporaryDirectory() as out:
                start = time.perf_counter()
                done = subprocess.run(
                    [f"{o.build}/bin/graft", "train", o.data, "--backbone", "vgg19", "--weights",
                     o.weights, "--until", "block3_pool", "--input-size", "150", "--test-split",
                     "0.15", "--seed", str(seed), "--quiet", "--json", "-o", f"{out}/run",
                     "--threads", str(o.threads),
                     *(["--cache-dir", o.cache] if o.cache else []), *RECIPES[name]],
                    check=True, capture_output=True, text=True)
                seconds = time.perf_counter() - start
                epochs = [float(line.rsplit(",", 1)[1])
                          for line in list(open(f"{out}/run/history.csv"))[1:]]
            metrics = json.loads(done.stdout)
            rows.append((metrics["validation"]["top1"], metrics["test"]["top1"], seconds))
            print(f"{name:<16} seed {seed}  val {rows[-1][0]:.4f}  test {rows[-1][1]:.4f}  "
                  f"{seconds:5.0f} s, {statistics.median(epochs):.0f} s an epoch", flush=True)
        for label, column in (("val", 0), ("test", 1)):
            values = [row[column] for row in rows]
            print(f"{name:<16} {label:<4} mean {statistics.mean(values):.4f}  "
                  f"from {min(values):.4f} to {max(values):.4f}", flush=True)


if __name__ == "__main__":
    main()
