"""A training step of the notebook's head (batch 64, features in memory): Graft beside LibTorch's own
C++ Adam, and beside current PyTorch's fused Adam where a Python that has it is given. Interleaved.

    /usr/bin/python3 bench/head_step.py BUILD [PYTHON]
"""
import os
import statistics
import subprocess
import sys

PYTORCH = """
import sys, time, torch
torch.set_num_threads({threads})
net = torch.nn.Sequential(torch.nn.Linear(25088, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 1072),
                          torch.nn.ReLU(), torch.nn.Linear(1072, 6))
x, y = torch.rand(64, 25088), torch.randint(6, (64,))
adam = torch.optim.Adam(net.parameters(), 1e-4, fused=True)
def step():
    adam.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    adam.step()
step()
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    step()
    print(time.perf_counter() - start, flush=True)
"""


class Steps:
    def __init__(self, name, command):
        self.name, self.times = name, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)
        self.process.stdout.readline()

    def run(self):
        self.process.stdin.write("step\n")
        self.times.append(float(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    threads = len(os.sched_getaffinity(0))
    program = f"{sys.argv[1]}/bench/head_step"
    all_steps = [Steps("Graft", [program, "graft"]), Steps("LibTorch C++ Adam", [program, "libtorch"])]
    if len(sys.argv) > 2:
        code = PYTORCH.format(threads=threads)
        all_steps.append(Steps("PyTorch fused Adam", [sys.argv[2], "-c", code]))
    for _ in range(9):
        for steps in all_steps:
            steps.run()
    mine = all_steps[0].times
    for steps in all_steps:
        ratios = sorted(a / b for a, b in zip(mine, steps.times))
        print(f"{steps.name:20} {statistics.median(steps.times):.3f} s a step; Graft's time over it "
              f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})")
        steps.close()


if __name__ == "__main__":
    main()
