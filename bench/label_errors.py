"""How many wrong labels `graft check` finds among its first, and how long it takes.

    python3 bench/label_errors.py build DATA [--weights WEIGHTS.h5] [--backbone vgg16] [--until LAYER]
                                  [--input-size N] [--share 0.03] [--first 0.05] [--seeds 3]
                                  [--cache DIR]

DATA: class folders of photos. For each seed a share of the labels, drawn at random, is changed to
another class, drawn likewise, in a manifest; the images stay where they are. A row each: of the
changed labels those among the first 5 % of the images in the order of `graft check --json`, those
among all that it lists, how many it lists, the share of wrong labels that it estimates, and the
seconds of the whole command with features in the cache, and of what it does without labels. Changed
labels compete with those that are wrong or open to doubt in DATA as it is: the first row, without a
change, says how many those are by estimate.
"""
import argparse
import csv
import json
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

IMAGES = (".jpg", ".jpeg", ".png", ".webp")


def check(build, *arguments):
    begin = time.monotonic()
    done = subprocess.run([os.path.join(build, "bin", "graft"), "check", *map(str, arguments), "--json", "--quiet"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout), time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("data", type=pathlib.Path)
    for option, default in (("--weights", None), ("--backbone", "vgg16"), ("--until", None), ("--input-size", None)):
        parser.add_argument(option, default=default)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--first", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache")
    options = parser.parse_args()
    images = sorted((file, folder.name) for folder in options.data.iterdir() if folder.is_dir()
                    for file in folder.rglob("*") if file.suffix.lower() in IMAGES)
    classes = sorted({label for _, label in images})
    first = round(options.first * len(images))
    print(f"{len(images)} images, {len(classes)} classes; the first {first}")
    with tempfile.TemporaryDirectory() as folder:
        judge = ["--cache-dir", options.cache or os.path.join(folder, "cache")]
        for name in ("backbone", "weights", "until", "input_size"):
            if value := getattr(options, name):
                judge += ["--" + name.replace("_", "-"), value]
        manifest = os.path.join(folder, "data.csv")
        print(f"{'seed':>4}  {'changed':>7}  {'found':>6}  {'listed':>6}  {'found in all':>12}  {'noise':>6}  "
              f"{'seconds':>7}  {'without':>7}")
        found = []
        for seed in (None, *range(options.seeds)):
            chance = random.Random(seed)
            count = 0 if seed is None else round(options.share * len(images))
            changed = {images[i][0] for i in chance.sample(range(len(images)), count)}
            with open(manifest, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("path", "label"))
                for path, label in images:
                    if path in changed:
                        label = chance.choice([other for other in classes if other != label])
                    writer.writerow((path.resolve(), label))
            if seed is None:
                check(options.build, manifest, *judge)  # fills the cache
            document, seconds = check(options.build, manifest, *judge)
            _, without = check(options.build, manifest)
            real = {str(path.resolve()) for path in changed}
            listed = [error["path"] in real for error in document["label_errors"]]
            share = sum(listed[:first]) / max(count, 1)
            print(f"{'-' if seed is None else seed:>4}  {count:>7}  {share:>6.1%}  {len(listed):>6}  "
                  f"{sum(listed) / max(count, 1):>12.1%}  {document['label_noise']:>6.1%}  {seconds:>7.1f}  {without:>7.1f}",
                  flush=True)
            if seed is not None:
                found.append(share)
        print(f"mean {statistics.mean(found):.1%}, least {min(found):.1%}")


if __name__ == "__main__":
    main()
