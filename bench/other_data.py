"""The default on images that it was not tuned to, beside logistic regression on the same features.

    python3 bench/other_data.py build WEIGHTS.h5 [--scenes DATA] [--seeds 3] [--cache DIR] [NAME...]

Needs numpy, Pillow and scikit-learn; Debian's fonts-noto-color-emoji and unicode-data.

digits          scikit-learn's handwritten digits, 8x8 pixels: 10 classes, 100 training images each
three-eight     two of these digits, 10 training images each
emoji           Noto's emoji by Unicode's groups: 8 classes, 20 to 200 training images each
emoji-50        the same by the 50 largest subgroups, 10 to 60 each
things          drawn things in any colours (tests/tools/draw_scenes): 6 classes, 40 each
scenes-N        N training photos of each class of DATA, 200 test photos of each

Rows: test accuracy of `graft train` with nothing said but the weights, its 95 % interval, and that
of scikit-learn's logistic regression (the strength of its penalty by five-fold cross-validation) on
mean, maximum and deviation of the maps at block5_pool: of the same training images, and with the
validation images as training images too.
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

import numpy as np
from PIL import Image, ImageDraw, ImageFont

EMOJI = "/usr/share/unicode/emoji/emoji-test.txt"
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE = 109  # pixels: the size of the font's bitmaps
SHOTS = (5, 10, 20)


def save(images, folder, seed, train, test=None):
    """{class: [image or file]} to folder/train and folder/test, `train` (a number, or a share) of
    each class for training, at most `test` of the rest for testing."""
    for label, members in sorted(images.items()):
        order = list(members)
        random.Random(f"{seed} {label}").shuffle(order)
        count = train if isinstance(train, int) else max(2, round(train * len(order)))
        for i, image in enumerate(order[:None if test is None else count + test]):
            target = folder / ("train" if i < count else "test") / label
            target.mkdir(parents=True, exist_ok=True)
            if isinstance(image, pathlib.Path):
                (target / image.name).symlink_to(image.resolve())
            else:
                image.save(target / f"{i:04}.png")


def digits():
    from sklearn.datasets import load_digits
    data = load_digits()
    out = {}
    for image, label in zip(data.images, data.target):
        pixels = Image.fromarray((image * 255 / 16).astype(np.uint8)).convert("RGB")
        out.setdefault(str(label), []).append(pixels.resize((64, 64), Image.Resampling.BICUBIC))
    return out


def emoji(level):
    """By "group" or "subgroup"; without skin tones, which repeat one drawing, and flags, which are
    hundreds of pictures of nothing but themselves."""
    font = ImageFont.truetype(FONT, STRIKE)
    out, names = {}, {}
    for line in open(EMOJI, encoding="utf-8"):
        for key in ("group", "subgroup"):
            if line.startswith(f"# {key}:"):
                names[key] = line.split(":", 1)[1].strip().replace(" ", "-").replace("&", "and")
        if "; fully-qualified" not in line or "skin tone" in line or names["group"] == "Flags":
            continue
        text = "".join(chr(int(code, 16)) for code in line.split(";")[0].split())
        image = Image.new("RGB", (136, 128), "white")
        ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
        if image.getextrema() != ((255, 255),) * 3:  # the font has it
            out.setdefault(names[level], []).append(image)
    return out


def make(name, options, folder, seed):
    if name == "digits":
        save(digits(), folder, seed, 100)
    elif name == "three-eight":
        save({k: v for k, v in digits().items() if k in "38"}, folder, seed, 10)
    elif name == "emoji":
        save({k: v for k, v in emoji("group").items() if len(v) >= 30}, folder, seed, 0.6)
    elif name == "emoji-50":
        groups = emoji("subgroup")
        largest = sorted(groups, key=lambda k: (-len(groups[k]), k))[:50]
        save({k: groups[k] for k in largest}, folder, seed, 0.6)
    elif name == "things":
        for split, count, first in (("train", 40, 0), ("test", 50, 500)):
            subprocess.run([f"{options.build}/tests/tools/draw_scenes", folder / split, str(count),
                            str(10_000 * (seed + 1) + first), "128", "things"], check=True)
    else:
        classes = sorted(p for p in pathlib.Path(options.scenes).iterdir() if p.is_dir())
        save({p.name: sorted(p.iterdir()) for p in classes}, folder, seed,
             int(name.removeprefix("scenes-")), 200)


def stats_features(options, folder, out):
    """Means, maxima and deviations at block5_pool, and the images' paths."""
    subprocess.run([f"{options.build}/bin/graft", "features", folder, "--weights",
                    options.weights, "--quiet", "-o", out, *options.cached], check=True)
    maps = np.load(out)
    maps = maps.reshape(*maps.shape[:2], -1)
    with open(out.with_suffix(".csv"), encoding="utf-8") as rows:
        paths = [os.path.realpath(row["path"]) for row in csv.DictReader(rows)]
    return np.concatenate([maps.mean(2), maps.max(2), maps.std(2)], 1), paths


def logistic(train, labels, test):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    folds = min(5, min(labels.count(label) for label in set(labels)))
    if folds >= 2:
        model = GridSearchCV(model, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1]},
                             cv=StratifiedKFold(folds, shuffle=True, random_state=0))
    return model.fit(train, labels).predict(test)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("weights")
    parser.add_argument("--scenes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache")
    parser.add_argument("names", nargs="*")
    o = parser.parse_intermixed_args()
    o.cached = ["--cache-dir", o.cache] if o.cache else []
    names = o.names or ["digits", "three-eight", "emoji", "emoji-50", "things",
                        *([f"scenes-{n}" for n in SHOTS] if o.scenes else [])]
    for name in names:
        ours, theirs = [], []
        for seed in range(o.seeds):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                make(name, o, folder / "data", seed)
                start = time.perf_counter()
                done = subprocess.run(
                    [f"{o.build}/bin/graft", "train", folder / "data", "--weights", o.weights, "--seed",
                     str(seed), "--quiet", "--json", "--no-report", "-o", folder / "run", *o.cached],
                    check=True, capture_output=True, text=True)
                seconds = time.perf_counter() - start
                test = json.loads(done.stdout)["test"]
                x, paths = stats_features(o, folder / "data" / "train", folder / "x.npy")
                with open(folder / "run" / "split.csv", encoding="utf-8") as rows:
                    split = {os.path.realpath(r["path"]): (r["label"], r["split"])
                             for r in csv.DictReader(rows)}
                y, test_paths = stats_features(o, folder / "data" / "test", folder / "y.npy")
                want = [split[p][0] for p in test_paths]
                accuracy = []
                for parts in (("train",), ("train", "val")):
                    rows = [i for i, p in enumerate(paths) if split[p][1] in parts]
                    got = logistic(x[rows], [split[paths[i]][0] for i in rows], y)
                    accuracy.append(float(np.mean([a == b for a, b in zip(got, want)])))
                low, high = test["intervals"]["top1"]
                ours.append(test["top1"])
                theirs.append(accuracy)
                trained = sum(kind == "train" for _, kind in split.values())
                print(f"{name:<12} seed {seed}  {len(set(want))} classes, {trained} + "
                      f"{len(paths) - trained} training images, {len(want)} test images  "
                      f"{test['top1']:.4f} ({low:.4f} to {high:.4f})  logistic regression "
                      f"{accuracy[0]:.4f}, of all {accuracy[1]:.4f}  {seconds:.0f} s", flush=True)
        print(f"{name:<12} mean    {statistics.mean(ours):.4f}  logistic regression "
              f"{statistics.mean(a for a, _ in theirs):.4f}, of all "
              f"{statistics.mean(b for _, b in theirs):.4f}", flush=True)


if __name__ == "__main__":
    main()
