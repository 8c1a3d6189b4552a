"""What training in a group sends, beside what docs/scaling-training.md says that it does; what that takes of a step;
and what a job over very many photos costs. By root, which may make network namespaces: a machine for each process.

    sudo python3 bench/scaling.py build [--ranks 1 2 4] [--rate 1gbit] [--million 100]

- bytes: a step's, by the counters of each machine's network card. Two runs that differ in the number of their steps
  alone are subtracted, so that what an epoch and a start send is left out.
- seconds of a step, with cables as fast as they go and with cables of --rate; how much of the sending is hidden
  behind the computing; and at which speed of the network sending takes as long as computing.
- extraction: images a second of two processes with a thread each, and of one with two threads.
- on paper, from the rates measured here: core-hours, disk and money for a job over --million million photos. Prices
  are options; the defaults are those of large clouds, for the order of magnitude.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

IMAGES, VALIDATION = 64, 0.2  # of each of the six classes; share set aside
FEATURES = 4 * 4 * 128        # of vgg-mini at 64 pixels behind block4_pool


def parser():
    out = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    out.add_argument("build", type=pathlib.Path)
    out.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    out.add_argument("--width", type=int, default=4096, help="of the head's hidden layer")
    out.add_argument("--rate", default="1gbit", help="of the slow cables, as tc takes it")
    out.add_argument("--compression", default="none")
    out.add_argument("--million", type=float, default=100, help="photos of the job on paper, in millions")
    out.add_argument("--extraction-images", type=int, default=400)
    out.add_argument("--core-hour", type=float, default=0.04, help="dollars for an hour of a core")
    out.add_argument("--gigabyte-month", type=float, default=0.023, help="dollars for a gigabyte and month of disk")
    out.add_argument("--photo-kilobytes", type=float, default=100)
    out.add_argument("--parts", nargs="+", default=["bytes", "seconds", "extraction", "paper"])
    return out


def model_bytes(parameters, ranks, compression):
    """docs/scaling-training.md, "What is sent": a step's, of each rank."""
    share = (ranks - 1) / ranks
    return parameters * share * ((4 if compression == "none" else 2) + 4)


class Bench:
    def __init__(self, options, folder):
        os.environ["GRAFT_BUILD"] = str(options.build.resolve())
        global t, Machines, clean_environment
        import graft_testing as t
        from group_testing import clean_environment
        from network_namespaces import Machines
        self.options, self.folder = options, folder
        self.data = folder / "data"
        t.draw_scenes(self.data, IMAGES, 0, 64)
        self.network = ("--backbone", "vgg-mini", "--weights", "none", "--input-size", "64", "--until", "block4_pool",
                        "--fine-tune", "0", "--head", f"flatten dense:{options.width} dense:{options.width // 4}",
                        "--optimizer", "adam", "--schedule", "constant", "--threads", "1", "--no-report", "--quiet",
                        "--seed", "1", "--val-split", str(VALIDATION), "--cache-dir", str(folder / "cache"))
        self.runs = 0
        w, classes = options.width, 6
        self.parameters = (FEATURES + 1) * w + (w + 1) * (w // 4) + (w // 4 + 1) * classes

    def train(self, machines, batch, epochs):
        """Bytes sent by each machine, and the epochs' seconds."""
        self.runs += 1
        run = self.folder / f"run{self.runs}"
        ranks = len(machines.names)
        before = [machines.sent(k) for k in range(ranks)]
        arguments = [t.GRAFT, "train", self.data, *self.network, "--epochs", epochs, "--batch-size", batch,
                     "--gradient-compression", self.options.compression, "-o", run]
        places = machines.places() if ranks > 1 else [{}]
        processes = [subprocess.Popen([*machines.inside(k), *map(str, arguments)], stdout=subprocess.DEVNULL,
                                      env=clean_environment(**place)) for k, place in enumerate(places)]
        if any([process.wait() for process in processes]):
            raise SystemExit("a training failed")
        sent = [machines.sent(k) - b for k, b in zip(range(ranks), before)]
        history = t.read_csv(run / "history.csv")
        self.training = sum(row["split"] == "train" for row in t.read_csv(run / "split.csv"))
        shutil.rmtree(run)
        return sent, [float(row["seconds"]) for row in history]

    def steps(self, batch):
        return -(-self.training // batch)

    def bytes(self):
        print(f"a head of {self.parameters:,} parameters, gradients {self.options.compression}: MB sent a step by each "
              "machine\nranks   measured      model   measured/model   most of one machine")
        for ranks in self.options.ranks:
            with Machines(ranks) as machines:
                few, _ = self.train(machines, 64, 2)
                many, _ = self.train(machines, 16, 2)
                steps = 2 * (self.steps(16) - self.steps(64))
                a_step = [(m - f) / steps for m, f in zip(many, few)]
                mean, model = sum(a_step) / ranks, model_bytes(self.parameters, ranks, self.options.compression)
                ratio = f"{mean / model:14.3f}" if model else f"{'':>14}"
                print(f"{ranks:5} {mean / 1e6:10.2f} {model / 1e6:10.2f} {ratio} {max(a_step) / 1e6:14.2f}", flush=True)

    def step_seconds(self, machines, batch=64):
        """The least of several epochs: other work only adds."""
        _, seconds = self.train(machines, batch, 5)
        return min(seconds[1:]) / self.steps(batch)

    def seconds(self):
        print(f"\nseconds of a step of 64 images, a thread for each process, {os.cpu_count()} cores: fast cables, "
              f"cables of {self.options.rate}")
        rate = float(self.options.rate.removesuffix("gbit")) * 1e9 / 8
        print("ranks    fast    slow   sending alone   of it hidden   sending = computing at")
        for ranks in self.options.ranks:
            with Machines(ranks) as machines:
                fast = self.step_seconds(machines)
            if ranks == 1:
                print(f"{ranks:5} {fast:7.3f}", flush=True)
                continue
            with Machines(ranks, self.options.rate) as machines:
                slow = self.step_seconds(machines)
            sending = model_bytes(self.parameters, ranks, self.options.compression) / rate
            hidden = min(max((fast + sending - slow) / sending, 0), 1)
            bound = model_bytes(self.parameters, ranks, self.options.compression) / fast * 8 / 1e9
            print(f"{ranks:5} {fast:7.3f} {slow:7.3f} {sending:15.3f} {hidden:14.0%} {bound:15.2f} Gbit/s", flush=True)

    def photos(self, count):
        """As large as photos are once they were made smaller for the web."""
        from PIL import Image
        import numpy as np
        folder = self.folder / "photos"
        folder.mkdir()
        random = np.random.default_rng(3)
        for k in range(count):
            rough = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
            rough.resize((640, 480), Image.BICUBIC).save(folder / f"{k:05}.jpg", quality=85)
        return folder

    def extraction(self):
        count = self.options.extraction_images
        photos = self.photos(count)
        command = ("--backbone", "vgg16", "--weights", "none", "--pool", "gap", "--quiet")
        files = sorted(photos.iterdir())

        def seconds(images, *more):
            listed = self.folder / "photos.txt"
            listed.write_text("".join(f"{path}\n" for path in files[:images]))
            begin = time.monotonic()
            subprocess.run([t.GRAFT, "features", f"@{listed}", *command, *more, "-o",
                            str(self.folder / "features.npy")],
                           check=True, stdout=subprocess.DEVNULL, env=clean_environment())
            return time.monotonic() - begin

        few = count // 4
        print(f"\nextraction, VGG16 at 224, photos of 640x480: the seconds that {count} take beyond those of {few}, so "
              "without the starts; the least of three, by turns; images a second")
        ways = {"one process, two threads": ("--threads", "2"),
                "two processes, a thread each": ("--threads", "2", "--workers", "2")}
        least = {}
        for _ in range(3):
            for name, more in ways.items():
                for images in (few, count):
                    least[name, images] = min(least.get((name, images), 1e9), seconds(images, *more))
        best = {name: (count - few) / (least[name, count] - least[name, few]) for name in ways}
        for name, rate in best.items():
            print(f"{name:30} {rate:7.2f}")
        one, two = best.values()
        print(f"{'ratio':30} {two / one:7.3f}")
        shutil.rmtree(photos)
        self.per_core = one / 2
        return one / 2

    def paper(self):
        o = self.options
        images = o.million * 1e6
        rate = getattr(self, "per_core", None) or self.extraction()
        hours = images / rate / 3600
        print(f"\non paper: {o.million:.0f} million photos of {o.photo_kilobytes:.0f} kB, VGG16 at 224, "
              f"{rate:.2f} images a second and core, ${o.core_hour} an hour of a core, ${o.gigabyte_month} a GB and "
              "month of disk")
        rows = [("photos", images * o.photo_kilobytes * 1e3),
                ("pooled features, .npy (512 float32)", images * 512 * 4),
                ("features in the cache (7x7x512 fp16)", images * 7 * 7 * 512 * 2)]
        print(f"{'extraction':40} {hours:12,.0f} core-hours   ${hours * o.core_hour:,.0f}   "
              f"{hours / 1000:,.1f} hours on 1000 cores")
        for name, size in rows:
            print(f"{name:40} {size / 1e12:12.2f} TB   ${size / 1e9 * o.gigabyte_month:,.0f} a month")
        print("a head of 107 million parameters, batches of 1024, an epoch:")
        parameters, batch = 107e6, 1024
        for ranks in (8, 64):
            sent = model_bytes(parameters, ranks, "none")
            half = model_bytes(parameters, ranks, "fp16")
            steps = images / batch
            print(f"  {ranks:3} machines: {sent / 1e6:.0f} MB a step from each ({half / 1e6:.0f} with fp16), "
                  f"{steps:,.0f} steps, at 25 Gbit/s {sent / (25e9 / 8) * steps / 3600:.1f} h of sending "
                  f"({half / (25e9 / 8) * steps / 3600:.1f})")


def main():
    options = parser().parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-scaling-"))
    try:
        bench = Bench(options, folder)
        for part in options.parts:
            getattr(bench, part)()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
