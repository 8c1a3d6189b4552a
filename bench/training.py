"""The notebook's job in Graft, Keras and PyTorch (the latter two from PyPI): seconds for the whole
job, measured on a subset of photos and scaled. Base weights are random. Run through bench/peers.sh:

    bench/peers.sh training build PHOTOS [IMAGES [JOB...]]     PHOTOS: a folder of class folders

VGG16 without its top at 224x224; Flatten, Dense 4096, Dense 1072, Dropout 0.2, softmax; batch 64;
Adam. A last job trains block 5 with global average pooling and softmax, batch 32, 6,000 photos an
epoch, its frozen layers' maps cached by Graft. Peers run each step on every image as the notebook does, on IMAGES photos; what repeats is
scaled by its count. Graft is measured on four times as many, by whole commands: a first run less a
second one is the cost of features (engine start included); an epoch is split by history.csv into
training, which grows with the photos, and the rest (checkpoints, the whole state), which does not.
"""
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = len(os.sched_getaffinity(0))
os.environ.update(OMP_NUM_THREADS=str(THREADS), TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1",
                  TF_NUM_INTRAOP_THREADS=str(THREADS), TF_NUM_INTEROP_THREADS="1")
os.environ.pop("OPENBLAS_CORETYPE", None)

EPOCHS = 10
AUGMENT = "rotate:90 shift:0.5 brightness:0.1-0.7 hflip vflip"


class Job:
    def __init__(self, name, limit, train=7430, val=1311, batch=64, fine_tune=0, augment=False, gap=False):
        """The real scenes, 15 % for validation; `limit`: what is asked of Graft, 1/limit."""
        self.name, self.limit, self.train, self.val, self.batch = name, limit, train, val, batch
        self.fine_tune, self.augment, self.gap = fine_tune, augment, gap

    def options(self):
        """Graft's."""
        options = ["--recipe", "notebook", "--batch-size", str(self.batch)]
        if self.augment:
            options += ["--augment", AUGMENT, "--views", "0"]
        if self.fine_tune:
            options += ["--fine-tune", str(self.fine_tune), "--lr", "1e-5"]
        return options + (["--head", "gap"] if self.gap else [])


JOBS = (Job("feature extraction", 15), Job("fresh augmented views", 4, augment=True),
        Job("fine-tuning, last 2 layers", 8, fine_tune=2),
        Job("fine-tuning, block 5, batch 32", None, 6000, 1060, 32, 4, gap=True))


def subset(photos, images, folder):
    """`images` photos, spread over the classes, as links."""
    classes = sorted(p for p in Path(photos).iterdir() if p.is_dir())
    for i in range(images):
        source = sorted(classes[i % len(classes)].iterdir())[i // len(classes)]
        target = folder / classes[i % len(classes)].name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())
    return len(classes)


def keras_job(folder, classes, job):
    """(seconds of a training image, of a validation image), in an epoch after the first; and
    what the first costs more."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
    keras.utils.set_random_seed(0)
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))
    for layer in base.layers[:-job.fine_tune] if job.fine_tune else base.layers:
        layer.trainable = False
    head = ([keras.layers.GlobalAveragePooling2D()] if job.gap else
            [keras.layers.Flatten(), keras.layers.Dense(4096, "relu"), keras.layers.Dense(1072, "relu"),
             keras.layers.Dropout(0.2)])
    model = keras.Sequential([base, *head, keras.layers.Dense(classes, "softmax")])
    model.compile(keras.optimizers.Adam(1e-5 if job.fine_tune else 1e-3), "categorical_crossentropy",
                  metrics=["accuracy"])
    words = dict(rotation_range=90, width_shift_range=0.5, height_shift_range=0.5,
                 brightness_range=(0.1, 0.7), horizontal_flip=True, vertical_flip=True)
    generator = ImageDataGenerator(preprocessing_function=keras.applications.vgg16.preprocess_input,
                                   **(words if job.augment else {}))
    rows = generator.flow_from_directory(folder, (224, 224), batch_size=job.batch, shuffle=True)

    class Times(keras.callbacks.Callback):
        seconds = []

        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter() - self.start)

    times = Times()
    times.seconds = []
    model.fit(rows, epochs=2, verbose=0, callbacks=[times])
    start = time.perf_counter()
    model.evaluate(rows, verbose=0)
    evaluated = time.perf_counter() - start
    return times.seconds[1] / rows.n, evaluated / rows.n, times.seconds[0] - times.seconds[1]


def torch_job(folder, classes, job):
    import numpy as np
    import torch
    from PIL import Image, ImageEnhance
    from torch import nn
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    layers, inputs = [], 3
    for count, channels in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    base = nn.Sequential(*layers)
    # The last layer of Keras' list is the pooling; convolutions are two layers here, with their ReLU.
    for p in base[:-2 * job.fine_tune + 1].parameters() if job.fine_tune else base.parameters():
        p.requires_grad = False
    head = ([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)] if job.gap else
            [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 1072), nn.ReLU(),
             nn.Dropout(0.2), nn.Linear(1072, classes)])
    model = nn.Sequential(base, *head)
    adam = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 1e-3)
    names = sorted(p.name for p in folder.iterdir())
    random = np.random.default_rng(0)

    class Photos(torch.utils.data.Dataset):
        paths = sorted(folder.glob("*/*"))

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, i):
            image = Image.open(self.paths[i]).convert("RGB").resize((224, 224), Image.BILINEAR)
            if job.augment:
                shift = random.uniform(-112, 112, 2)
                image = image.rotate(random.uniform(-90, 90), Image.BILINEAR, translate=tuple(shift))
                if random.random() < 0.5:
                    image = image.transpose(Image.FLIP_LEFT_RIGHT)
                if random.random() < 0.5:
                    image = image.transpose(Image.FLIP_TOP_BOTTOM)
                image = ImageEnhance.Brightness(image).enhance(random.uniform(0.1, 0.7))
            x = np.asarray(image, np.float32)[..., ::-1] - np.float32([103.939, 116.779, 123.68])
            return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))), names.index(
                self.paths[i].parent.name)

    rows = torch.utils.data.DataLoader(Photos(), job.batch, shuffle=True)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        for x, y in rows:
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            adam.step()
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    with torch.inference_mode():
        for x, _ in rows:
            model(x)
    evaluated = time.perf_counter() - start
    return seconds[1] / len(Photos()), evaluated / len(Photos()), seconds[0] - seconds[1]


def peer(which, folder, classes, job):
    """In a process of its own, for its memory's sake. Whole job, first epoch, later epoch, GB."""
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import training as t, "
            f"resource; from pathlib import Path; print(*t.{which}_job(Path({str(folder)!r}), "
            f"{classes}, t.JOBS[{JOBS.index(job)}]), "
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    train, val, extra, memory = map(float, done.stdout.split()[-4:])
    later = job.train * train + job.val * val
    return later * EPOCHS + max(extra, 0), later + max(extra, 0), later, memory / 1e6


def graft(build, folder, cache, *options, epochs):
    """Seconds of the command, training images, validation images, peak GB."""
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [f"{build}/bin/graft", "train", folder, "--backbone", "vgg16", "--weights", "none",
             "--patience", "0", "--cache-dir", cache, "-o", f"{out}/run",
             "--epochs", str(epochs), "--threads", str(THREADS), "--quiet", *options],
            stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            errors.seek(0)
            sys.exit(errors.read().decode())
        with open(f"{out}/run/split.csv", encoding="utf-8") as rows:
            splits = [row["split"] for row in csv.DictReader(rows)]
        epochs = [float(line.rsplit(",", 1)[1]) for line in list(open(f"{out}/run/history.csv"))[1:]]
    return (seconds, splits.count("train"), splits.count("val"), usage.ru_maxrss / 1e6,
            statistics.median(epochs))


def graft_job(build, folder, job):
    """First and second run of the whole job, first epoch, later epoch, and the peak memory."""
    with tempfile.TemporaryDirectory() as cache:
        cold, train, val, memory, _ = graft(build, folder, cache, *job.options(), epochs=1)
        one = graft(build, folder, cache, *job.options(), epochs=1)[0]
        three, *_, computing = graft(build, folder, cache, *job.options(), epochs=3)
    # With fresh views only the validation images' features are kept.
    features = (cold - one) / (val if job.augment else train + val) * (
        job.val if job.augment else job.train + job.val)
    epoch = (three - one) / 2
    start = one - epoch  # reading the cache, starting, the final metrics
    later = computing * job.train / train + max(epoch - computing, 0)
    second = start + later * EPOCHS
    return features + second, second, features + start + later, later, memory


def main():
    build, photos = sys.argv[1], sys.argv[2]
    images = int(sys.argv[3]) if len(sys.argv) > 3 else 192
    jobs = [job for job in JOBS if not sys.argv[4:] or job.name in sys.argv[4:]]
    print(f"{images} photos measured (Graft: {4 * images}), scaled to {EPOCHS} epochs of "
          f"{', '.join(f'{job.train} + {job.val}' for job in jobs)} photos, {THREADS} threads")
    row = "{:<34} {:<16} {:>9} {:>11} {:>11} {:>8}"
    print(row.format("job", "who", "whole job", "1st epoch", "later epoch", "peak GB"))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        classes = subset(photos, images, folder / "few")
        subset(photos, 4 * images, folder / "many")
        for job in jobs:
            whole, second, first, later, memory = graft_job(build, folder / "many", job)
            rows = [("Graft", whole, first, later, memory)]
            if not job.augment and not job.fine_tune:
                rows.append(("Graft, 2nd run", second, "", later, memory))
            for which in ("keras", "torch"):
                rows.append((which, *peer(which, folder / "few", classes, job)))
            for who, seconds, one, each, gb in rows:
                text = [f"{x:.0f} s" if x != "" else "" for x in (seconds, one, each)]
                print(row.format(job.name, who, *text, f"{gb:.1f}"), flush=True)
            for who, seconds, _, each, _ in rows:
                if who in ("keras", "torch"):
                    ratios = f"1/{seconds / whole:.1f}"
                    if not job.augment and not job.fine_tune:
                        ratios += f", second run 1/{seconds / second:.1f}"
                    asked = f" (asked: 1/{job.limit})" if job.limit else f", a later epoch 1/{each / later:.1f}"
                    print(f"    Graft over {who}: {ratios}{asked}", flush=True)


if __name__ == "__main__":
    main()
