"""What the frozen prefix makes of images, computed by all processes of a group: features in the cache of a training,
graft features, graft evaluate."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
import unittest

import graft_testing as t
from group_testing import VARIABLES, Processes, clean_environment, over, torchrun

NETWORK = ("--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--threads", "1")
TRAIN = (*NETWORK, "--fine-tune", "0", "--seed", "5", "--lr", "0.01", "--batch-size", "8", "--val-split", "0.2",
         "--head", "gap dense:8", "--epochs", "1", "--no-report", "--verbose")

QUIET = tuple(word if word != "--verbose" else "--quiet" for word in TRAIN)


class TestCase(Processes):
    SCENES = 9

    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, self.SCENES, 0, 40)

    def alone(self, *arguments, code=0):
        done = t.run(*arguments, env={k: "" for k in VARIABLES})
        self.assertEqual(done.returncode, code, done.stderr)
        return done


@unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Training(TestCase):
    """Features in the cache."""

    def train(self, places, *arguments, caches=("cache",), code=0, run="run", **more):
        processes = []
        for k, place in enumerate(places):
            cache = self.folder / caches[min(k, len(caches) - 1)]
            processes += self.start([place], self.data, "-o", self.folder / run,
                                    *over(TRAIN, "--cache-dir", cache, *arguments), **more)
        codes, _, errors = self.end(processes)
        self.assertEqual(codes, [code] * len(places), errors)
        return errors[0]

    def counts(self, text):
        """Of each list of images: from the cache, continued, computed."""
        found = re.findall(r"(\d+) from the cache, (\d+) continued from an earlier layer, (\d+) computed", text)
        return [tuple(map(int, numbers)) for numbers in found]

    def computed(self, cache, *arguments, run="later"):
        """By one process that has this cache."""
        done = self.alone("train", self.data, "-o", self.folder / run,
                          *over(TRAIN, "--cache-dir", self.folder / cache, *arguments))
        return sum(numbers[2] for numbers in self.counts(done.stderr))

    def cached(self, cache):
        listed = self.alone("cache", "list", "--json", "--cache-dir", self.folder / cache)
        return json.loads(listed.stdout)["sets"]

    def model(self, run):
        return t.read_safetensors(self.folder / run / "checkpoints" / "best.safetensors")[0]

    def same_features(self, cache, *arguments):
        """What is there trains to the very weights that a process's own features train to."""
        self.assertEqual(self.computed(cache, *arguments), 0, "features are missing in this cache")
        self.alone("train", self.data, "-o", self.folder / "alone",
                   *over(TRAIN, "--cache-dir", self.folder / "own", *arguments))
        one, two = self.model("alone"), self.model("later")
        for name, values in one.items():
            self.assertTrue((values == two[name]).all(), name)

    def test_one_cache(self):
        self.train(torchrun(3))
        self.same_features("cache")
        # Nothing is there twice.
        for what in ("images", "bytes"):
            self.assertEqual([entry[what] for entry in self.cached("cache")],
                             [entry[what] for entry in self.cached("own")])

    def test_views(self):
        options = ("--augment", "hflip shift:0.1", "--views", "3")
        self.train(torchrun(2), *options)
        self.same_features("cache", *options)

    def test_a_cache_of_each(self):
        """As on machines that share nothing but the images: each ends with all features."""
        self.train(torchrun(2), caches=("a", "b"))
        self.same_features("a")
        shutil.rmtree(self.folder / "later")
        self.assertEqual(self.computed("b"), 0)

    def test_what_one_has_is_not_computed_again(self):
        """A process that joins with an empty cache is sent what the first has; what is new is computed once."""
        self.assertGreater(self.computed("a", run="before"), 0)
        text = self.train(torchrun(2), caches=("a", "b"), run="second")
        self.assertEqual({numbers[2] for numbers in self.counts(text)}, {0})
        self.assertNotIn("share", text)
        self.assertEqual(self.computed("b"), 0)

    def test_from_an_earlier_cut(self):
        self.computed("cache", "--until", "block3_pool", run="before")
        self.train(torchrun(2), "--until", "block4_pool")
        self.assertEqual(self.computed("cache", "--until", "block4_pool"), 0)

    def test_phases(self):
        """The first phase computes what the second needs on the way."""
        options = ("--freeze-epochs", "1", "--epochs", "2", "--fine-tune", "block5_conv1")
        self.train(torchrun(2), *options, caches=("a", "b"))
        for cache in "ab":
            self.assertEqual(self.computed(cache, *options, run=f"later-{cache}"), 0)

    def test_without_a_cache(self):
        self.train(torchrun(2), "--no-cache")
        self.alone("train", self.data, *TRAIN, "--no-cache", "-o", self.folder / "alone")
        one, two = self.model("alone"), self.model("run")
        for name, values in one.items():
            self.assertLess(abs(values - two[name]).max(initial=0), 1e-4, name)

    def test_a_cache_that_cannot_be_written(self):
        """That process computes for itself, the others go on."""
        (self.folder / "b").mkdir()
        (self.folder / "b" / "features").write_bytes(b"")
        self.train(torchrun(2), caches=("a", "b"))
        self.assertEqual(self.computed("a"), 0)

    def test_a_full_cache(self):
        self.train(torchrun(2), "--cache-limit", "0.001", "--input-size", "64", "--until", "block1_pool")
        self.assertTrue((self.folder / "run" / "model.safetensors").exists())

    def test_killed(self):
        """What was computed is not lost, and the restart computes the rest."""
        self.data = self.folder / "many"
        t.draw_scenes(self.data, 120, 0, 40)
        options = ("--input-size", "160")
        places = torchrun(2)
        processes = [process for k, place in enumerate(places)
                     for process in self.start([place], self.data, "-o", self.folder / "run",
                                               *over(TRAIN, *options, "--cache-dir", self.folder / "ab"[k]),
                                               GRAFT_GROUP_TIMEOUT=3)]
        values = self.folder / "b" / "features"
        begin = time.monotonic()
        while not any(path.stat().st_size > 0 for path in values.glob("*.values")):
            self.assertLess(time.monotonic() - begin, 60)
            time.sleep(0.05)
        processes[1].kill()
        codes, _, errors = self.end(processes, timeout=30)
        self.assertEqual(codes, [1, -signal.SIGKILL])
        self.assertRegex(errors[0].splitlines()[-1], r"^graft: rank 1 on \S+ ")
        # On a fast machine all may have been computed before the other is missed, and been sent too.
        stored = max(sum(entry["images"] for entry in self.cached(cache)) for cache in "ab")
        self.assertGreater(stored, 0)
        text = self.train(places, *options, "--force", caches=("a", "b"))
        self.assertEqual({numbers[2] for numbers in self.counts(text)}, {0}, "after the extraction")
        share = [int(number) for number in re.findall(r"share: \d+ continued from an earlier layer, (\d+) c", text)]
        self.assertLessEqual(sum(share), 720 - stored)
        for cache in "ab":
            self.assertEqual(self.computed(cache, *options, run=f"later-{cache}"), 0)


class Features(TestCase):
    COMMAND = "features"
    SCENES = 30

    def setUp(self):
        super().setUp()
        next((self.data / "sea").iterdir()).write_bytes(b"no image at all")
        self.whole = self.folder / "whole.npy"
        self.out = self.folder / "out.npy"
        self.one = self.alone("features", self.data, *NETWORK, "--pool", "gap", "-o", self.whole, "--json", code=1)

    def features(self, places, *options, codes=None, **more):
        got, out, errors = self.end(self.start(places, self.data, "-o", self.out, "--json",
                                               *over(NETWORK, "--pool", "gap", *options), **more))
        self.assertEqual(got, codes or [1] + [0] * (len(places) - 1), errors)
        return out, errors

    def same(self):
        self.assertEqual(self.out.read_bytes(), self.whole.read_bytes())
        self.assertEqual(self.out.with_suffix(".csv").read_bytes(), self.whole.with_suffix(".csv").read_bytes())
        self.assertEqual([path.name for path in self.folder.glob("out*")].count("out.npy.parts"), 0)

    def test_as_one_process(self):
        out, errors = self.features(torchrun(3))
        self.same()
        self.assertEqual(out[0].replace("out.", "whole."), self.one.stdout)
        self.assertEqual(out[1:], ["", ""])
        self.assertEqual(errors[1:], ["", ""])
        self.assertIn("skipped: ", errors[0])

    def test_no_network(self):
        """Slurm's and Open MPI's variables, of which nothing says where rank 0 is."""
        self.features([dict(SLURM_PROCID=k, SLURM_NTASKS=2) for k in range(2)])
        self.same()
        self.out.unlink()
        self.features([dict(OMPI_COMM_WORLD_RANK=k, OMPI_COMM_WORLD_SIZE=2) for k in range(2)])
        self.same()

    def test_workers(self):
        for suffix in (".npy", ".npz", ".csv"):
            place = self.folder / suffix[1:]
            place.mkdir()
            whole, out = place / f"whole{suffix}", place / f"out{suffix}"
            one = self.alone("features", self.data, *NETWORK, "--pool", "gap", "-o", whole, code=1)
            of3 = self.alone("features", self.data, *NETWORK, "--pool", "gap", "-o", out, "--workers", "3", code=1)
            self.assertEqual(out.read_bytes(), whole.read_bytes())
            self.assertEqual(of3.stdout.replace("out.", "whole."), one.stdout)
            self.assertEqual(of3.stderr.count("skipped"), 1)

    @unittest.skipUnless(shutil.which("mpirun"), "Open MPI is not installed")
    def test_mpirun(self):
        done = subprocess.run(["mpirun", "-n", "2", "--allow-run-as-root", "--oversubscribe", t.GRAFT, "features",
                               *map(str, (self.data, *NETWORK, "--pool", "gap", "-o", self.out))],
                              capture_output=True, text=True, env=clean_environment(), timeout=120)
        self.assertIn("float32", done.stdout)
        self.same()

    def test_one_that_does_not_come(self):
        places = torchrun(3)
        del places[1]
        _, errors = self.features(places, codes=[1, 1], GRAFT_JOIN_TIMEOUT=2)
        self.assertRegex(errors[0], r"^graft: rank 1 of 3 has not come to [^\n]*out\.npy\.parts within 2 s[^\n]*\n$")
        self.assertFalse(self.out.exists())

    def test_other_images(self):
        other = self.folder / "other"
        shutil.copytree(self.data, other)
        processes = []
        for data, place in zip((self.data, other), torchrun(2)):
            processes += self.start([place], data, *NETWORK, "--pool", "gap", "-o", self.out)
        codes, _, errors = self.end(processes)
        self.assertEqual(codes, [1, 1], errors)
        self.assertRegex(errors[1], r"^graft: rank 1 of 2: its images or options differ from those of rank 0[^\n]*\n$")
        self.same()  # rank 0 has done it all

    def test_the_command_twice(self):
        places = torchrun(2)
        waiting = self.start(places[:1], self.data, *NETWORK, "--pool", "gap", "-o", self.out, GRAFT_JOIN_TIMEOUT=20)
        mark = self.folder / "out.npy.parts" / "rank-0-of-2"
        begin = time.monotonic()
        while not t.says_something(mark):
            self.assertLess(time.monotonic() - begin, 20)
            time.sleep(0.02)
        _, errors = self.features(places[:1], codes=[1])
        self.assertIn("rank 0 of 2 is at work already (process ", errors[0])
        codes, _, _ = self.end(waiting + self.start(places[1:], self.data, *NETWORK, "--pool", "gap", "-o", self.out))
        self.assertEqual(codes, [1, 0])
        self.same()

    def slow(self):
        """Enough work to be killed in its middle."""
        self.data = self.folder / "many"
        t.draw_scenes(self.data, 60, 0, 40)
        options = ("--input-size", "160")
        self.alone("features", self.data, *over(NETWORK, *options), "--pool", "gap", "-o", self.whole)
        return options

    def begun(self, places, options, **more):
        processes = self.start(places, self.data, *over(NETWORK, *options), "--pool", "gap", "-o", self.out, **more)
        folder = self.folder / "out.npy.parts"
        begin = time.monotonic()
        while len(list(folder.glob("*.part"))) < 2:
            self.assertLess(time.monotonic() - begin, 60)
            time.sleep(0.01)
        return processes

    def test_a_killed_process_is_helped(self):
        options = self.slow()
        for victim in (1, 2):
            processes = self.begun(torchrun(3), options)
            processes[victim].kill()
            codes, _, errors = self.end(processes)
            want = [0, 0, 0]
            want[victim] = -signal.SIGKILL
            self.assertEqual(codes, want, errors)
            self.same()
            self.out.unlink()

    def test_rank_0_is_missed(self):
        options = self.slow()
        processes = self.begun(torchrun(2), options)
        processes[0].kill()
        codes, _, errors = self.end(processes)
        self.assertEqual(codes, [-signal.SIGKILL, 1])
        self.assertRegex(errors[1], r"^graft: rank 1 of 2: rank 0 has ended before all was done[^\n]*\n$")
        # One process does not go on with it, and says so.
        done = self.alone("features", self.data, *over(NETWORK, *options), "--pool", "gap", "-o", self.out)
        self.assertIn("only a group goes on with it", done.stderr)

    def test_a_process_that_hangs_is_named(self):
        options = self.slow()
        processes = self.begun(torchrun(2), options, GRAFT_GROUP_TIMEOUT=4)
        processes[1].send_signal(signal.SIGSTOP)
        try:
            _, errors = processes[0].communicate(timeout=60)
        finally:
            processes[1].kill()
            processes[1].communicate()
        self.assertEqual(processes[0].returncode, 1, errors)
        self.assertRegex(errors, rf"(?m)^graft: rank 1 \(process {processes[1].pid}[^)]*\) of 2 hangs: no sign of life for "
                                 r"4 s, with \d+ parts? in hand; end it, and start the command again")
        codes, _, errors = self.end(self.start(torchrun(2), self.data, *over(NETWORK, *options), "--pool", "gap",
                                               "-o", self.out))
        self.assertEqual(codes, [0, 0], errors)
        self.same()

    def test_a_start_after_a_kill_goes_on(self):
        options = self.slow()
        processes = self.begun(torchrun(2), options)
        for process in processes:
            process.kill()
        self.end(processes)
        parts = {path: path.stat().st_ino for path in (self.folder / "out.npy.parts").glob("*.part")}
        self.assertGreaterEqual(len(parts), 2)
        damaged = sorted(parts)[0]
        with open(damaged, "r+b") as file:
            file.seek(-40, os.SEEK_END)
            file.write(b"x")
        # With other options than those of the parts: nothing is mixed.
        codes, _, errors = self.end(self.start(torchrun(2), self.data, "-o", self.out,
                                               *over(NETWORK, "--pool", "gap", "--input-size", "128")))
        self.assertEqual(codes[0], 2, errors)
        self.assertIn("there already, of other options: input", errors[0])
        # The other may have seen the same, or only that rank 0 has gone.
        self.assertIn(codes[1], (1, 2))
        self.assertRegex(errors[1], r"^graft: (rank 1 of 2: rank 0 (has ended|is not at [^\n]*)|[^\n]*there already[^\n]*)\n$")
        codes, _, errors = self.end(self.start(torchrun(2), self.data, *over(NETWORK, *options),
                                               "--pool", "gap", "-o", self.out))
        self.assertEqual(codes, [0, 0], errors)
        self.assertIn("damaged", "".join(errors))
        self.same()

    def test_usage(self):
        for options, text in ((("--workers", "2", "--shard", "0/2"), "--workers"),
                              (("--workers", "0"), "--workers"),
                              (("--parts", self.folder, "--shard", "0/2"), "--parts")):
            done = self.alone("features", self.data, *NETWORK, "-o", self.out, *options, code=2)
            self.assertIn(text, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        codes, _, errors = self.end(self.start(torchrun(2)[1:], self.data, *NETWORK, "-o", self.out, "--workers", "2"))
        self.assertEqual(codes, [2])
        self.assertIn("leave --workers out", errors[0])
        codes, _, errors = self.end(self.start([dict(RANK=0)], self.data, *NETWORK, "-o", self.out))
        self.assertEqual(codes, [2])
        self.assertIn("RANK but no WORLD_SIZE", errors[0])
        # A mistake of the command is told once.
        done = self.alone("features", self.data, *NETWORK, "-o", self.folder / "out.txt", "--workers", "3", code=2)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_a_list_is_named_with_its_sign(self):
        listed = self.folder / "list.txt"
        listed.write_text("x.jpg\n")
        done = self.alone("features", listed, *NETWORK, "-o", self.out, code=2)
        self.assertRegex(done.stderr, r"^graft: [^\n]*list\.txt: a list of images is given as @FILE[^\n]*\n$")

    def test_parts_elsewhere(self):
        parts = self.folder / "scratch"
        processes = self.start(torchrun(2), self.data, *NETWORK, "--pool", "gap", "-o", self.out, "--parts", parts)
        self.assertEqual(self.end(processes)[0], [1, 0])
        self.same()
        self.assertEqual(list(parts.iterdir()), [])


@unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Evaluate(TestCase):
    COMMAND = "evaluate"
    SCENES = 12

    def setUp(self):
        super().setUp()
        self.run_folder = self.folder / "run"
        self.alone("train", self.data, *QUIET, "-o", self.run_folder)
        next((self.data / "sea").iterdir()).write_bytes(b"no image at all")

    def outputs(self, name):
        return ("--predictions", self.folder / f"{name}.csv", "--json", "--threads", "1", "--max-skipped", "1",
                "--split", "all")

    def test_as_one_process(self):
        one = self.alone("evaluate", self.run_folder, self.data, *self.outputs("one"))
        before = sorted(path.name for path in self.run_folder.iterdir())
        for name, places in (("torchrun", torchrun(3)), ("slurm", [dict(SLURM_PROCID=k, SLURM_NTASKS=2)
                                                                    for k in range(2)])):
            codes, out, errors = self.end(self.start(places, self.run_folder, self.data, *self.outputs(name)))
            self.assertEqual(codes, [0] * len(places), errors)
            self.assertEqual(out[0], one.stdout)
            self.assertEqual(out[1:] + errors[1:], [""] * (2 * len(places) - 2))
            self.assertEqual((self.folder / f"{name}.csv").read_bytes(), (self.folder / "one.csv").read_bytes())
        workers = self.alone("evaluate", self.run_folder, self.data, *self.outputs("workers"), "--workers", "2",
                             "--parts", self.folder / "scratch")
        self.assertEqual(workers.stdout, one.stdout)
        self.assertEqual((self.folder / "workers.csv").read_bytes(), (self.folder / "one.csv").read_bytes())
        self.assertEqual(sorted(path.name for path in self.run_folder.iterdir()), before)

    def test_a_mistake_is_told_once(self):
        (self.data / "sea").rename(self.data / "ocean")
        done = self.alone("evaluate", self.run_folder, self.data, "--workers", "3", code=1)
        self.assertRegex(done.stderr, r"^graft: [^\n]*class 'ocean' is not among the model's classes[^\n]*\n$")

    def test_other_models(self):
        """A process that has another model under the same name."""
        self.alone("train", self.data, *over(QUIET, "--seed", "6", "--max-skipped", "1"), "-o",
                   self.folder / "other")
        processes = []
        for run, place in zip((self.run_folder, self.folder / "other"), torchrun(2)):
            processes += self.start([place], run, self.data, *self.outputs("out"), "--parts", self.folder / "scratch")
        codes, _, errors = self.end(processes)
        self.assertEqual(codes, [0, 1], errors)
        self.assertRegex(errors[1].splitlines()[-1], r"^graft: rank 1 of 2: its images or options differ")

    def test_a_folder_that_cannot_be_written(self):
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        self.run_folder.chmod(0o555)
        self.addCleanup(self.run_folder.chmod, 0o755)
        done = self.alone("evaluate", self.run_folder, self.data, "--workers", "2", code=1)
        self.assertIn("--parts", done.stderr)


if __name__ == "__main__":
    t.main()
