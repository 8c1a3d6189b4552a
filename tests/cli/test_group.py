"""graft train as one process of a group: N of them come to the weights that one does."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import numpy as np

import graft_testing as t
from group_testing import VARIABLES, Processes, clean_environment, free_port, over, torchrun
from network_namespaces import Machines, Unavailable

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

BASE = ("--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--until", "block2_pool",
        "--fine-tune", "0", "--seed", "5", "--optimizer", "sgd", "--lr", "0.05",
        "--schedule", "constant", "--batch-size", "8", "--val-split", "0.2", "--threads", "1")
# Of the largest of a tensor: sums have another order, and what that leaves grows from step to step, most behind
# normalisation over eight images (2e-5 with LibTorch's convolutions on an Emerald Rapids Xeon).
LIMIT = 1e-4


class TestCase(Processes):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 9, 0, 40)
        self.cache = ("--cache-dir", self.folder / "cache")

    def together(self, size, *arguments, **more):
        codes, out, errors = self.end(self.start(torchrun(size), *arguments, **more))
        self.assertEqual(codes, [0] * size, errors)
        for text in (*out[1:], *errors[1:]):
            self.assertEqual(text, "")
        return out[0], errors[0]

    def alone(self, *arguments):
        done = t.run("train", *arguments, env={k: "" for k in VARIABLES})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def state(self, run):
        return t.read_safetensors(self.folder / run / "checkpoints" / "state.safetensors")[0]

    def same(self, run, other, adam=False):
        """Weights, moments, averages and the curves. Adam makes a whole step of a gradient that is nothing but
        rounding, which no two orders of a sum share: a few of its weights may differ."""
        one, two = self.state(run), self.state(other)
        self.assertEqual(one.keys(), two.keys())
        for name in one:
            differ = np.abs(one[name] - two[name]) > LIMIT * max(1, np.abs(one[name]).max(initial=0))
            few = 0.01 * differ.size if adam and not name.startswith("moment") else 0
            self.assertLessEqual(int(differ.sum()), few, f"{other}: {name}")
        for a, b in zip(*(t.read_csv(self.folder / name / "history.csv") for name in (run, other)), strict=True):
            for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
                self.assertAlmostEqual(float(a[key]), float(b[key]), places=4, msg=f"{other}: {key}")


class Same(TestCase):
    def compare(self, *options, sizes=(2, 3), epochs=1, adam=False):
        arguments = (self.data, *over(BASE, *self.cache, "--epochs", epochs, *options), "--no-report")
        self.alone(*arguments, "-o", self.folder / "one")
        for size in sizes:
            self.together(size, *arguments, "-o", self.folder / f"of{size}")
            self.same("one", f"of{size}", adam)

    def test_dense_and_dropout(self):
        """Four processes too; the last batch leaves some of them without a row."""
        self.compare("--head", "gap dense:20 dropout:0.4", "--batch-size", "11", sizes=(2, 3, 4), epochs=2)

    def test_batch_norm_of_maps_and_of_features(self):
        self.compare("--head", "conv:8 batchnorm dropout:0.3 maxpool flatten batchnorm dense:12 batchnorm", "--lr",
                     "0.02")

    def test_class_weights_smoothing_clipping_and_average(self):
        for path in sorted((self.data).rglob("*.jpg"))[:5]:
            path.unlink()  # classes of different sizes
        self.compare("--head", "stats batchnorm dense:16 dropout:0.5", "--class-weights", "balanced",
                     "--label-smoothing", "0.1", "--clip-gradients", "0.3", "--ema", "0.9", "--momentum", "0.8")

    def test_adam_and_a_phase_after_another(self):
        """A large dense layer, whose gradient one process makes in pieces."""
        self.compare("--optimizer", "adamw", "--lr", "0.001", "--weight-decay", "0.01", "--freeze-epochs", "1",
                     "--fine-tune", "2", "--head", "flatten dense:160", "--lr-decay-per-block", "0.5",
                     sizes=(2,), epochs=2, adam=True)

    def test_new_views_in_every_epoch(self):
        self.compare("--augment", "hflip shift:0.1", "--views", "0", "--head", "gap dense:8", sizes=(2,))


    def test_compressed_gradients(self):
        """Near the single process, and not the same; alone nothing is rounded."""
        options = (self.data, *over(BASE, *self.cache, "--head", "gap dense:20 dropout:0.4", "--epochs", "1"),
                   "--no-report")
        self.alone(*options, "-o", self.folder / "one")
        one = self.state("one")
        for compression, limit in (("fp16", 2e-3), ("bf16", 2e-2)):
            compressed = (*options, "--gradient-compression", compression)
            self.together(3, *compressed, "-o", self.folder / compression)
            worst = max(np.abs(one[name] - values).max(initial=0) / max(1, np.abs(one[name]).max(initial=0))
                        for name, values in self.state(compression).items())
            self.assertLess(worst, limit)
            self.assertGreater(worst, 1e-7)
            # A run that is resumed may change it.
            done = self.alone(self.data, "--resume", self.folder / compression, "--epochs", "2", "--threads", "1")
            self.assertIn("one process sends no gradients", done.stderr)
            self.together(2, self.data, "--resume", self.folder / compression, "--epochs", "3", "--threads", "1",
                          "--gradient-compression", "none")
        done = self.alone(*options, "--gradient-compression", "fp16", "-o", self.folder / "alone")
        self.assertIn("note: --gradient-compression: one process sends no gradients and rounds none", done.stderr)
        for name, values in self.state("alone").items():
            self.assertTrue((values == one[name]).all(), name)


class Resume(TestCase):
    def test_with_another_number_of_processes(self):
        options = over(BASE, *self.cache, "--head", "stats batchnorm dense:16 dropout:0.3", "--optimizer", "adam",
                       "--lr", "0.001", "--ema", "0.9")
        self.alone(self.data, *options, "--epochs", "3", "-o", self.folder / "whole")
        self.together(2, self.data, *options, "--epochs", "2", "-o", self.folder / "begun")
        for name in ("by1", "by3"):
            shutil.copytree(self.folder / "begun", self.folder / name)
        resume = ("--epochs", "3", "--threads", "1")
        self.alone(self.data, "--resume", self.folder / "by1", *resume)
        self.together(3, self.data, "--resume", self.folder / "by3", *resume)
        for name in ("by1", "by3"):
            self.same("whole", name, adam=True)


class Workers(TestCase):
    OPTIONS = (*over(BASE, "--head", "gap dense:20 dropout:0.4", "--threads", "2"), "--no-report")

    def test_as_one_process(self):
        arguments = (self.data, *self.OPTIONS, *self.cache, "--epochs", "2")
        self.alone(*arguments, "-o", self.folder / "one")
        done = self.alone(*arguments, "-o", self.folder / "of2", "--workers", "2")
        self.assertIn("best epoch", done.stdout)
        self.assertIn("\ngroup      2 processes, ", done.stderr)
        self.same("one", "of2")
        self.assertTrue((self.folder / "of2" / "model.safetensors").exists())

    def children(self, process):
        path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def begun(self, *options, **more):
        """A run that has made an epoch and would go on for long."""
        run = self.folder / "run"
        [process] = self.start([{}], self.data, *self.OPTIONS, *self.cache, "--epochs", "100000", "-o", run,
                               *options, **more)
        self.addCleanup(process.kill)
        begin = time.monotonic()
        while not (run / "checkpoints" / "state.safetensors").exists():
            self.assertIsNone(process.poll(), process.stderr.read() if process.poll() is not None else "")
            self.assertLess(time.monotonic() - begin, 60)
            time.sleep(0.02)
        return process, run

    def gone(self, pids, seconds=5):
        begin = time.monotonic()
        while any(pathlib.Path(f"/proc/{pid}").exists() and
                  " Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text() for pid in pids):
            self.assertLess(time.monotonic() - begin, seconds, "a process was left behind")
            time.sleep(0.05)

    def test_a_kill_leaves_no_orphan(self):
        process, run = self.begun("--workers", "3")
        workers = self.children(process)
        self.assertEqual(len(workers), 2)
        process.kill()
        self.end([process])
        self.gone(workers)
        # And the run goes on, as one process.
        epochs = len(t.read_csv(run / "history.csv"))
        self.alone(self.data, "--resume", run, "--epochs", epochs + 1)

    def test_a_signal_saves_the_state(self):
        process, run = self.begun("--workers", "2")
        workers = self.children(process)
        process.send_signal(signal.SIGTERM)
        codes, _, errors = self.end([process], timeout=20)
        self.assertEqual(codes, [143], errors)
        self.assertIn(f"--resume {run}", errors[0])
        self.gone(workers)

    def test_a_dead_worker_is_named(self):
        process, _ = self.begun("--workers", "3", "--quiet")
        worker = self.children(process)[1]
        os.kill(worker, signal.SIGKILL)
        begin = time.monotonic()
        codes, _, errors = self.end([process], timeout=30)
        self.assertLess(time.monotonic() - begin, 15)
        self.assertEqual(codes, [1], errors)
        self.assertRegex(errors[0], r"^graft: rank 2 on \S+ has ended or hangs[^\n]*\n$")

    def test_a_worker_that_hangs_is_named(self):
        process, run = self.begun("--workers", "3", "--quiet", GRAFT_GROUP_TIMEOUT=3)
        workers = self.children(process)
        self.addCleanup(self.gone, workers)
        os.kill(workers[0], signal.SIGSTOP)
        begin = time.monotonic()
        codes, _, errors = self.end([process], timeout=30)
        self.assertLess(time.monotonic() - begin, 15)
        self.assertEqual(codes, [1], errors)
        self.assertRegex(errors[0], r"^graft: rank 1 on \S+ [^\n]*\n$")
        # Nothing but the epoch that was not whole is lost.
        epochs = len(t.read_csv(run / "history.csv"))
        done = self.alone(self.data, "--resume", run, "--epochs", epochs + 1, "--workers", "2")
        self.assertIn(f"going on after epoch {epochs}", done.stderr)


class Failures(TestCase):
    OPTIONS = Workers.OPTIONS

    def test_rank_0_dies(self):
        run = self.folder / "run"
        processes = self.start(torchrun(3), self.data, *self.OPTIONS, *self.cache, "--epochs", "100000", "-o", run,
                               GRAFT_GROUP_TIMEOUT=3)
        while not (run / "checkpoints" / "state.safetensors").exists():
            time.sleep(0.02)
        processes[0].kill()
        begin = time.monotonic()
        codes, _, errors = self.end(processes, timeout=30)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(codes[1:], [1, 1], errors)
        for text in errors[1:]:
            self.assertRegex(text, r"^graft: rank 0 on \S+ (has ended or )?cannot be reached[^\n]*\n$")

    def test_a_signal_to_another_rank(self):
        """All stop with the state saved; who got the signal says so in its exit code."""
        run = self.folder / "run"
        processes = self.start(torchrun(2), self.data, *self.OPTIONS, *self.cache, "--epochs", "100000", "-o", run)
        begin = time.monotonic()
        while not (run / "checkpoints" / "state.safetensors").exists():
            self.assertLess(time.monotonic() - begin, 60)
            time.sleep(0.02)
        processes[1].terminate()
        codes, _, errors = self.end(processes, timeout=30)
        self.assertEqual(codes, [1, 143], errors)
        self.assertIn("--resume", errors[0])

    def test_one_that_does_not_come(self):
        places = torchrun(3)
        del places[1]
        codes, _, errors = self.end(self.start(places, self.data, *self.OPTIONS, *self.cache, "-o",
                                               self.folder / "run", GRAFT_JOIN_TIMEOUT=2))
        self.assertEqual(codes, [1, 1])
        self.assertRegex(errors[0], r"^graft: rank 1 of 3 has not arrived within 2 s[^\n]*\n$")
        self.assertEqual(errors[1], "")

    def test_rank_0_does_not_come(self):
        codes, _, errors = self.end(self.start(torchrun(2)[1:], self.data, *self.OPTIONS, GRAFT_JOIN_TIMEOUT=2))
        self.assertEqual(codes, [1])
        self.assertRegex(errors[0], r"^graft: rank 1 of 2 cannot reach rank 0 at 127[^\n]*\n$")

    def test_another_program_at_the_rendezvous(self):
        """It listens, and does not answer as rank 0 does: nothing hangs, and a signal ends it."""
        for talks in (False, True):
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
                stop = threading.Event()

                def answer():
                    held = []
                    server.settimeout(0.1)
                    while not stop.is_set():
                        try:
                            held.append(server.accept()[0])
                            if talks:
                                held[-1].sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" * 8)
                        except TimeoutError:
                            pass
                    for one in held:
                        one.close()

                thread = threading.Thread(target=answer)
                thread.start()
                try:
                    began = time.monotonic()
                    codes, _, errors = self.end(self.start(torchrun(2, port)[1:], self.data, *self.OPTIONS,
                                                           GRAFT_JOIN_TIMEOUT=2), timeout=30)
                    self.assertLess(time.monotonic() - began, 15)
                    self.assertEqual(codes, [1], errors)
                    self.assertRegex(errors[0], r"^graft: rank 1 of 2: [^\n]*another program[^\n]*--rendezvous HOST:PORT"
                                                r"[^\n]*\n$")
                    if talks:
                        continue
                    processes = self.start(torchrun(2, port)[1:], self.data, *self.OPTIONS)
                    time.sleep(2)
                    processes[0].terminate()
                    codes, _, errors = self.end(processes, timeout=10)
                    self.assertEqual(codes, [143], errors)
                finally:
                    stop.set()
                    thread.join()

    def test_long_work_of_rank_0_is_waited_for(self):
        """Features that take several times as long as an exchange may."""
        data = self.folder / "many"
        t.draw_scenes(data, 150, 0, 64)
        began = time.monotonic()
        codes, _, errors = self.end(self.start(torchrun(2), data, *over(BASE, *self.cache, "--input-size", "224",
                                                                        "--until", "block5_pool", "--head", "gap",
                                                                        "--views", "4", "--augment", "hflip"),
                                               "--quiet", "--no-report", "-o", self.folder / "run",
                                               GRAFT_GROUP_TIMEOUT=1))
        self.assertEqual(codes, [0, 0], errors)
        self.assertGreater(time.monotonic() - began, 4, "the machine is too fast for this test")

    def test_other_options_or_images(self):
        other = self.folder / "other"
        shutil.copytree(self.data, other)
        next(other.rglob("*.jpg")).unlink()
        for data, option, what in ((self.data, ("--batch-size", "7"), r"batch-size: 7, not \d+"),
                                   (other, (), r"images: \d+, not \d+")):
            places = torchrun(2)
            options = (*self.cache, "--head", "gap", "-o", self.folder / "run")
            processes = (self.start(places[:1], self.data, *over(BASE, *options), "--quiet", "--force")
                         + self.start(places[1:], data, *over(BASE, *options, *option), "--quiet", "--force"))
            codes, _, errors = self.end(processes)
            self.assertEqual(codes, [1, 1])
            self.assertRegex(errors[0], rf"^graft: rank 1[^\n]*: its images, weights or options differ from those of "
                                        rf"rank 0 \([^\n]*{what}[^\n]*\n$")
            self.assertEqual(errors[1], "")

    def test_an_error_of_all_is_said_once(self):
        codes, _, errors = self.end(self.start(torchrun(2), self.folder / "nowhere", *self.OPTIONS))
        self.assertEqual(codes, [1, 1])
        self.assertEqual("".join(errors).count("\n"), 1, errors)
        codes, _, errors = self.end(self.start(torchrun(2), self.data, *self.OPTIONS, *self.cache, "--quiet",
                                               "--augment", "mixup:0.2", "-o", self.folder / "run"))
        self.assertEqual(codes[0], 2)
        self.assertIn("mixup", errors[0])
        self.assertEqual("".join(errors).count("\n"), 1, errors)


class Environment(TestCase):
    OPTIONS = Workers.OPTIONS

    def refuse(self, text, *arguments, **variables):
        codes, _, errors = self.end(self.start([variables], self.data, *self.OPTIONS, *arguments))
        self.assertEqual(codes, [2], errors)
        self.assertIn(text, errors[0])
        self.assertEqual(errors[0].count("\n"), 1, errors[0])

    def test_contradictions(self):
        self.refuse("RANK but no WORLD_SIZE", RANK=0)
        self.refuse("WORLD_SIZE but no RANK", WORLD_SIZE=2)
        self.refuse("contradict", RANK=2, WORLD_SIZE=2)
        self.refuse("RANK=one", RANK="one", WORLD_SIZE=2)
        self.refuse("MASTER_PORT=99999", RANK=0, WORLD_SIZE=2, MASTER_ADDR="a", MASTER_PORT=99999)
        self.refuse("MASTER_ADDR", RANK=0, WORLD_SIZE=2)
        self.refuse("SLURM_NTASKS", SLURM_PROCID=1)
        self.refuse("--rendezvous HOST:PORT", OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=2,
                    OMPI_COMM_WORLD_LOCAL_SIZE=1)
        self.refuse("HOST:PORT", "--rendezvous", "node1", RANK=0, WORLD_SIZE=2)
        self.refuse("alone", "--rendezvous", "node1:29500")
        self.refuse("leave --workers out", "--workers", "2", **torchrun(2)[1])
        self.refuse("--find-lr", "--find-lr", **torchrun(2)[1])
        self.refuse("--workers", "--workers", "0")

    def test_one_process_is_alone(self):
        for k, place in enumerate((dict(RANK=0, WORLD_SIZE=1), dict(SLURM_PROCID=0, SLURM_NTASKS=1),
                                   dict(SLURM_PROCID=0), dict(SLURM_PROCID=0, SLURM_NTASKS=4, ENVIRONMENT="BATCH"),
                                   dict(OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=1))):
            codes, _, errors = self.end(self.start([place], self.data, *self.OPTIONS, *self.cache, "--epochs", "1",
                                                   "--quiet", "-o", self.folder / f"run{k}"))
            self.assertEqual(codes, [0], errors)

    def test_launchers(self):
        job = free_port()  # as good a number as any
        slurm = [dict(SLURM_PROCID=r, SLURM_NTASKS=2, SLURM_JOB_ID=job, SLURM_STEP_ID=0, SLURM_STEP_NUM_TASKS=2,
                      SLURM_JOB_NODELIST="localhost") for r in range(2)]
        mpi = [dict(OMPI_COMM_WORLD_RANK=r, OMPI_COMM_WORLD_SIZE=2, OMPI_COMM_WORLD_LOCAL_SIZE=2) for r in range(2)]
        agent = [dict(place, TORCHELASTIC_USE_AGENT_STORE="True") for place in torchrun(2)]
        for k, places in enumerate((slurm, mpi, agent)):
            codes, _, errors = self.end(self.start(places, self.data, *self.OPTIONS, *self.cache, "--epochs", "1",
                                                   "--quiet", "-o", self.folder / f"run{k}"))
            self.assertEqual(codes, [0, 0], errors)
            self.assertTrue((self.folder / f"run{k}" / "model.safetensors").exists())

    @unittest.skipUnless(shutil.which("mpirun"), "Open MPI is not installed")
    def test_mpirun(self):
        done = subprocess.run(["mpirun", "-n", "2", "--allow-run-as-root", "--oversubscribe", t.GRAFT, "train",
                               *map(str, (self.data, *self.OPTIONS, *self.cache, "--epochs", "1", "-o",
                                          self.folder / "run"))],
                              capture_output=True, text=True, env=clean_environment(), timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("best epoch"), 1)


class Networks(TestCase):
    """Machines with a cable each to a switch."""
    OPTIONS = (*Workers.OPTIONS, "--quiet")

    def machines(self, count):
        try:
            machines = Machines(count)
        except Unavailable as error:
            self.skipTest(f"network namespaces cannot be made here: {error}")
        self.addCleanup(machines.remove)
        return machines

    def start_on(self, machines, *arguments):
        """Each has a cache of its own."""
        return [process for k, place in enumerate(machines.places())
                for process in self.start([place], self.data, *arguments, "--cache-dir", self.folder / f"cache{k}",
                                          wrap=machines.inside(k), GRAFT_GROUP_TIMEOUT=4)]

    def test_two_and_four_machines(self):
        self.alone(self.data, *self.OPTIONS, *self.cache, "--epochs", "1", "-o", self.folder / "one")
        for count in (2, 4):
            run = self.folder / f"of{count}"
            codes, _, errors = self.end(self.start_on(self.machines(count), *self.OPTIONS, "--epochs", "1", "-o", run))
            self.assertEqual(codes, [0] * count, errors)
            self.same("one", run.name)

    def test_a_cable_is_cut(self):
        machines = self.machines(2)
        run = self.folder / "cut"
        processes = self.start_on(machines, *self.OPTIONS, "--epochs", "100000", "-o", run)
        while not (run / "checkpoints" / "state.safetensors").exists():
            time.sleep(0.02)
        machines.plug(0, False)
        begin = time.monotonic()
        codes, _, errors = self.end(processes, timeout=40)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(codes, [1, 1], errors)
        self.assertRegex(errors[0], r"^graft: rank 1 on [^\n]*\n$")
        self.assertRegex(errors[1], r"^graft: rank 0 on [^\n]*\n$")
        machines.plug(0, True)
        epochs = len(t.read_csv(run / "history.csv"))
        codes, _, errors = self.end(self.start_on(machines, "--resume", run, "--epochs", epochs + 1, "--threads", "1"))
        self.assertEqual(codes, [0, 0], errors)
        self.assertIn(f"going on after epoch {epochs}", errors[0])


if __name__ == "__main__":
    t.main()
