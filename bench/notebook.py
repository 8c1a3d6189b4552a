"""The Keras notebook's two stages with real weights, in Graft and in Keras, on the same splits.

    bench/peers.sh notebook build DATA WEIGHTS.h5 [--seeds 3] [--stages 1 2] [--cache DIR]
                                           [--maps DIR] [--xla]

DATA: class folders of photos. Each seed splits off 15 % as test and 15 % as validation images.
VGG16 without its top at 224x224; Flatten, Dense 4096, Dense 1072, Dropout 0.2, softmax; Adam, batch
64, no augmentation. Stage 1: the base frozen, rate 1e-3. Stage 2: a new head, and the base's last
two layers train too (base.layers[:-2] stay frozen), rate 1e-5. Up to ten epochs, the best by
validation accuracy kept, patience 5. Keras gets the maps of the frozen layers from `graft features`
(tests/parity compares those with Keras'), so that it, too, computes them once; all that trains is
Keras' own, the pretrained convolution as loaded by keras.applications. --xla has its steps compiled,
which Keras leaves out on processors: the same model in less time. --maps keeps the
maps (3.5 GB) for other calls of this script.
"""
import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np

EPOCHS, BATCH, PATIENCE = 10, 64, 5
STAGES = {1: (0, "1e-3"), 2: (2, "1e-5")}  # layers of the base that train, rate
FROZEN_UNTIL = "block5_conv2"


def maps_of(o, folder):
    """(N, H, W, C) behind the last layer that is frozen in both stages; row numbers by path."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "maps.npy"
    if not out.exists():
        subprocess.run([f"{o.build}/bin/graft", "features", o.data, "--weights", o.weights, "--until",
                        FROZEN_UNTIL, "--quiet", "-o", out], check=True)
    with open(out.with_suffix(".csv"), encoding="utf-8") as rows:
        numbers = {os.path.realpath(row["path"]): i for i, row in enumerate(csv.DictReader(rows))}
    return np.load(out, mmap_mode="r"), numbers


def graft(o, seed, stage, run):
    layers, rate = STAGES[stage]
    start = time.perf_counter()
    done = subprocess.run(
        [f"{o.build}/bin/graft", "train", o.data, "--weights", o.weights, "--recipe", "notebook",
         "--fine-tune", str(layers), "--lr", rate, "--test-split", "0.15", "--seed", str(seed), "--quiet",
         "--json", "--no-report", "-o", run, *(["--cache-dir", o.cache] if o.cache else ["--no-cache"])],
        check=True, capture_output=True, text=True)
    metrics = json.loads(done.stdout)
    epochs = sum(1 for _ in open(f"{run}/history.csv")) - 1
    return (metrics["validation"]["top1"], metrics["test"]["top1"], metrics["best_epoch"], epochs,
            time.perf_counter() - start)


def keras_stage(o, seed, stage, maps, numbers, split):
    import keras
    keras.utils.set_random_seed(seed)
    layers, rate = STAGES[stage]
    with open(split, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    base = keras.applications.VGG16(weights=o.weights, include_top=False, input_shape=(224, 224, 3))
    names = [layer.name for layer in base.layers]
    tail = base.layers[names.index(FROZEN_UNTIL) + 1:]
    trained = tail[len(tail) - layers:]
    frozen = keras.Sequential([keras.Input((*maps.shape[2:], maps.shape[1])),
                               *tail[:len(tail) - layers]])
    part = {}
    for name in ("train", "val", "test"):
        of = [row for row in rows if row["split"] == name]
        order = [numbers[os.path.realpath(row["path"])] for row in of]
        x = np.concatenate([frozen.predict(maps[order[i:i + 256]].transpose(0, 2, 3, 1), verbose=0)
                            if layers < len(tail) else maps[order[i:i + 256]].transpose(0, 2, 3, 1)
                            for i in range(0, len(order), 256)])
        part[name] = x, keras.utils.to_categorical([classes.index(row["label"]) for row in of], len(classes))
    model = keras.Sequential([
        keras.Input(part["val"][0].shape[1:]), *trained, keras.layers.Flatten(),
        keras.layers.Dense(4096, "relu"), keras.layers.Dense(1072, "relu"), keras.layers.Dropout(0.2),
        keras.layers.Dense(len(classes), "softmax")])
    model.compile(keras.optimizers.Adam(float(rate)), "categorical_crossentropy", metrics=["accuracy"],
                  jit_compile=o.xla or "auto")
    best = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=PATIENCE,
                                         restore_best_weights=True)
    start = time.perf_counter()
    history = model.fit(*part["train"], batch_size=BATCH, epochs=EPOCHS, validation_data=part["val"],
                        verbose=0, callbacks=[best]).history["val_accuracy"]
    model.set_weights(best.best_weights)  # also where patience was not exhausted, as in Keras 2
    seconds = time.perf_counter() - start
    return (model.evaluate(*part["val"], verbose=0)[1], model.evaluate(*part["test"], verbose=0)[1],
            int(np.argmax(history)) + 1, len(history), seconds)


def main():
    parser = argparse.ArgumentParser()
    for name in ("build", "data", "weights"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--stages", type=int, nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--cache")
    parser.add_argument("--maps", type=pathlib.Path)
    parser.add_argument("--xla", action="store_true")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        maps, numbers = maps_of(o, o.maps or folder)
        for stage in o.stages:
            means = {"Graft": [], "Keras": []}
            for seed in range(o.first_seed, o.first_seed + o.seeds):
                run = folder / f"run-{stage}-{seed}"
                rows = {"Graft": graft(o, seed, stage, run),
                        "Keras": keras_stage(o, seed, stage, maps, numbers, run / "split.csv")}
                for who, (val, test, epoch, epochs, seconds) in rows.items():
                    means[who].append((val, test))
                    print(f"stage {stage}  seed {seed}  {who}  val {val:.4f}  test {test:.4f}  epoch "
                          f"{epoch} of {epochs}, {seconds:.0f} s", flush=True)
            for who, figures in means.items():
                val, test = (statistics.mean(column) for column in zip(*figures))
                print(f"stage {stage}  mean    {who}  val {val:.4f}  test {test:.4f}", flush=True)


if __name__ == "__main__":
    main()
