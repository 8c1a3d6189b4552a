"""A backbone's features on a device: Graft through LibTorch (and its own engine, on the processor) beside PyTorch,
eager and compiled, in one run. All from the host's memory to the host's memory.

    PYTHON bench/device.py BUILD [--device cuda|torch-cpu] [--backbone vgg16] [--size 224] [--batches 20] [--repeats 3]

PYTHON has a PyTorch for that device: on a GPU one of the CUDA that Graft's LibTorch has, for torch-cpu any, such as
that of `make interop`. BUILD is built with -DGRAFT_BUILD_BENCH=ON. Prints images a second, the best of the repeats,
which take turns; a peer that fails is named with its reason."""
import argparse
import json
import pathlib
import subprocess
import time

import torch
import torch_vgg


class Peer:
    """PyTorch on batches in pinned memory; outputs come back too."""

    def __init__(self, options, precision, compiled):
        on_gpu = options.device != "torch-cpu"
        self.device = options.device if on_gpu else "cpu"
        # As Graft has it: float32 is float32, and bfloat16 and processors read channels last.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.type = torch.bfloat16 if precision == "bf16" else torch.float32
        self.format = torch.channels_last if precision == "bf16" or not on_gpu else torch.contiguous_format
        net = torch_vgg.trunk(options.backbone).to(self.device, self.type, memory_format=self.format)
        self.net = torch.compile(net) if compiled else net
        self.x = torch.full((options.batch, 3, options.size, options.size), 0.5)
        self.x = self.x.pin_memory() if on_gpu else self.x
        self.options = options
        for _ in range(3):
            self.step()

    def step(self):
        x = self.x.to(self.device, non_blocking=True).to(self.type).contiguous(memory_format=self.format)
        return self.net(x).float().cpu()

    def __call__(self):
        with torch.inference_mode():
            start = time.perf_counter()
            for _ in range(self.options.batches):
                self.step()
            return self.options.batch * self.options.batches / (time.perf_counter() - start)


def graft(options, device, precision):
    done = subprocess.run([options.build / "bench" / "device_bench", device, precision, options.backbone,
                           str(options.size), str(options.batches)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="vgg16", choices=torch_vgg.COUNTS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.batch = graft(argparse.Namespace(**{**vars(options), "batches": 1}), options.device, "fp32")["batch"]
    where = torch.cuda.get_device_name(options.device) if options.device != "torch-cpu" else "processor"
    print(f"{options.backbone} {options.size}x{options.size}, batches of {options.batch}, {where}, "
          f"PyTorch {torch.__version__}")
    for precision in ("fp32", "bf16"):
        runs, failed = {}, {}
        runs[f"Graft, {options.device}"] = lambda: graft(options, options.device, precision)["images_per_second"]
        if options.device == "torch-cpu":
            runs["Graft's engine"] = lambda: graft(options, "cpu", precision)["images_per_second"]
        for name, compiled in (("PyTorch eager", False), ("PyTorch compiled", True)):
            try:
                runs[name] = Peer(options, precision, compiled)
            except Exception as error:  # whatever a compiler lacks
                failed[name] = str(error).splitlines()[0]
        best = dict.fromkeys(runs, 0.0)
        for _ in range(options.repeats):
            for name, run in runs.items():
                try:
                    best[name] = max(best[name], run())
                except RuntimeError as error:
                    failed[name] = str(error)
        for name, rate in best.items():
            print(f"{precision}  {name:24} " + (failed[name] if name in failed else f"{rate:10.1f} images/s"))
        for name in failed.keys() - best.keys():
            print(f"{precision}  {name:24} {failed[name]}")


if __name__ == "__main__":
    main()
