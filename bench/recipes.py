"""Accuracy, time and memory of recipes on splits of one's own: mean and spread over seeds.

    python3 bench/recipes.py build DATA WEIGHTS.h5 [--trunk vgg16] [--seeds 3] [--cache DIR]
                             [--threads 2] [NAME...]

DATA: class folders of photos. Trunks: `vgg16`, WEIGHTS being the whole of it; `vgg19-3`, VGG19's
blocks 1 to 3 at 150x150. Each seed splits off 15 % as test and 15 % as validation images (`best`
sets less aside) and seeds everything else too. Seconds and megabytes are of the whole
command; features that an earlier run has left in the cache are not computed again: without --cache
it begins empty. Names in -bf16 on a processor without bfloat16: with GRAFT_TARGET=rounded-bf16.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

TRUNKS = {
    "vgg16": ["--backbone", "vgg16"],
    "vgg19-3": ["--backbone", "vgg19", "--until", "block3_pool", "--input-size", "150"],
}
CONV256 = "batchnorm conv:256 batchnorm maxpool conv:256 batchnorm maxpool gap dropout:0.3"
STATS = "stats batchnorm dense:256 dropout:0.5"
FROZEN = ["--fine-tune", "0", "--augment", "hflip"]
CONV_STATS = "batchnorm conv:256 batchnorm stats dropout:0.5"
NAMED = {name: ["--recipe", name] for name in ("default", "best", "quick", "notebook")}


def tuned(first, freeze, epochs, *more, rate="1e-4"):
    return ["--fine-tune", first, "--freeze-epochs", str(freeze), "--epochs", str(freeze + epochs),
            "--lr", rate, *more]


RECIPES = {
    "vgg16": {
        **NAMED,
        "default-bf16": ["--recipe", "default", "--precision", "bf16"],
        "quick-bf16": ["--recipe", "quick", "--precision", "bf16"],
        "quick-288-bf16": ["--recipe", "quick", "--precision", "bf16", "--input-size", "288"],
        "stats-150": ["--input-size", "150", *FROZEN, "--epochs", "12", "--head", STATS],
        "gap-150": ["--input-size", "150", *FROZEN, "--epochs", "12", "--head",
                    "gap batchnorm dense:256 dropout:0.5"],
        "flatten-150": ["--input-size", "150", *FROZEN, "--epochs", "12", "--head",
                        "batchnorm flatten dropout:0.5 dense:256 dropout:0.5"],
        "conv-150": ["--input-size", "150", *FROZEN, "--epochs", "12", "--head",
                     "batchnorm conv:256 batchnorm gap dropout:0.3"],
        "conv-stats-150": ["--input-size", "150", *FROZEN, "--epochs", "12", "--head", CONV_STATS],
        "stats": [*FROZEN, "--epochs", "12", "--head", STATS],
        "gap": [*FROZEN, "--epochs", "12", "--head", "gap batchnorm dense:256 dropout:0.5"],
        "conv-stats": [*FROZEN, "--epochs", "10", "--head", CONV_STATS],
        "quick-hflip": [*FROZEN, "--epochs", "5", "--head", CONV_STATS],
        "tuned-150": tuned("block5_conv1", 4, 6, "--input-size", "150", "--augment", "hflip", "--head",
                           STATS),
        "tuned-150-3e-4": tuned("block5_conv1", 3, 5, "--input-size", "150", "--augment", "hflip",
                                "--head", STATS, rate="3e-4"),
        "tuned-hflip": tuned("block5_conv1", 2, 6, "--augment", "hflip", "--test-views", "2", "--head",
                             STATS),
        "tuned": tuned("block5_conv1", 2, 4, "--head", STATS),
        "tuned-conv2": tuned("block5_conv2", 3, 4, "--head", STATS),
        "tuned-conv-stats": tuned("block5_conv1", 4, 3, "--head", CONV_STATS),
    },
    "vgg19-3": {
        **NAMED,
        "best-15": ["--recipe", "best", "--val-split", "0.15"],
        "mixup": ["--recipe", "best", "--val-split", "0.15", "--augment", "hflip mixup:0.3",
                  "--epochs", "16"],
        "stats": ["--head", STATS, "--epochs", "20"],
        "pool-conv": ["--head", "batchnorm maxpool conv:256 batchnorm maxpool gap dropout:0.3"],
        "pool-conv-stats": ["--head", "batchnorm maxpool conv:256 batchnorm stats dropout:0.5"],
        "conv256": ["--head", CONV256, "--epochs", "7"],
        "hflip": ["--augment", "hflip", "--epochs", "6"],
        "crops": ["--augment", "hflip crop:0.5-1", "--epochs", "12", "--ema", "0.998", "--head",
                  "batchnorm conv:128 batchnorm maxpool conv:384 batchnorm maxpool gap dropout:0.4"],
    },
}


def train(o, name, seed, run):
    """(metrics, seconds, megabytes, seconds an epoch) of one run."""
    command = [f"{o.build}/bin/graft", "train", o.data, "--weights", o.weights, *TRUNKS[o.trunk],
               "--test-split", "0.15", "--seed", str(seed), "--quiet", "--json", "--no-report", "-o",
               run, "--threads", str(o.threads), "--cache-dir", o.cache or f"{run}-cache",
               *RECIPES[o.trunk][name]]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    epochs = [float(line.rsplit(",", 1)[1]) for line in list(open(f"{run}/history.csv"))[1:]]
    return json.loads(out), seconds, usage.ru_maxrss / 1e3, epochs


def main():
    parser = argparse.ArgumentParser()
    for name in ("build", "data", "weights"):
        parser.add_argument(name)
    parser.add_argument("--trunk", choices=TRUNKS, default="vgg16")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cache")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("names", nargs="*")
    o = parser.parse_intermixed_args()
    for name in o.names or list(RECIPES[o.trunk]):
        if name not in RECIPES[o.trunk]:
            parser.error(f"there is no {name}; names of {o.trunk}: {', '.join(RECIPES[o.trunk])}")
        rows = []
        for seed in range(o.first_seed, o.first_seed + o.seeds):
            with tempfile.TemporaryDirectory() as out:
                metrics, seconds, megabytes, epochs = train(o, name, seed, f"{out}/run")
            rows.append((metrics["validation"]["top1"], metrics["test"]["top1"], seconds))
            low, high = metrics["test"]["intervals"]["top1"]
            print(f"{name:<16} seed {seed}  val {rows[-1][0]:.4f}  test {rows[-1][1]:.4f} ({low:.4f} to "
                  f"{high:.4f})  {seconds:5.0f} s, {megabytes:.0f} MB, last epoch {epochs[-1]:.0f} s, "
                  f"epoch {metrics['best_epoch']} of {len(epochs)}", flush=True)
        for label, column in (("val", 0), ("test", 1)):
            values = [row[column] for row in rows]
            print(f"{name:<16} {label:<4} mean {statistics.mean(values):.4f}  "
                  f"from {min(values):.4f} to {max(values):.4f}", flush=True)


if __name__ == "__main__":
    main()
