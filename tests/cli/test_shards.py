"""graft features and graft check by workers that do not talk to each other, and the joining of their parts."""
import os
import random
import shutil
import signal
import subprocess
import time
import unittest

import graft_testing as t

NETWORK = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "32", "--pool", "gap"]


class Shards(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "photos"
        t.draw_scenes(self.data, 6, size=40)
        (self.data / "sea" / "3.jpg").write_bytes(b"no image at all")
        (self.data / "sea" / "5.jpg").unlink()  # 35 images: no multiple of 2 or 3
        self.parts = self.folder / "parts"
        self.out = self.folder / "joined.npy"

    def shard(self, index, count, *options, code=0, **keywords):
        done = t.run("features", self.data, *NETWORK, "--shard", f"{index}/{count}", "-o", self.parts, "--json",
                     *options, **keywords)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def shards(self, count):
        for index in range(count):
            self.shard(index, count)
        return sorted(self.parts.iterdir())

    def merge(self, name, *given):
        out = self.folder / name
        return out, t.run("features", "--merge", *(given or [self.parts]), "-o", out, "--json")

    def refuse(self, text, *given):
        out, done = self.merge("refused.npy", *given)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(text, done.stderr)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("graft: skipped: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertEqual(list(self.folder.glob("refused*")), [])
        return done.stderr

    # What is joined is what one process writes.

    def test_every_format_to_the_byte(self):
        for suffix in (".npy", ".npz", ".csv"):
            whole = self.folder / f"whole{suffix}"
            one = t.run("features", self.data, *NETWORK, "-o", whole, "--json")
            self.assertEqual(one.returncode, 1)  # of the image that is none
            for count in (1, 2, 3, 7):
                shutil.rmtree(self.parts, ignore_errors=True)
                self.assertEqual(len(self.shards(count)), count)
                joined, done = self.merge(f"joined-{count}{suffix}")
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("skipped: ", done.stderr)
                self.assertIn("3.jpg", done.stderr)
                self.assertEqual(joined.read_bytes(), whole.read_bytes())
                if suffix == ".npy":
                    self.assertEqual(joined.with_suffix(".csv").read_bytes(),
                                     whole.with_suffix(".csv").read_bytes())
                self.assertEqual(done.stdout.replace(f"joined-{count}", "whole"), one.stdout)
            for file in [*self.folder.glob("whole.*"), *self.folder.glob("joined-*")]:
                file.unlink()  # whole.csv beside whole.npy is its list of rows

    def test_maps_in_several_chunks(self):
        """Rows that are larger than a chunk."""
        options = ["--backbone", "vgg-mini", "--weights", "none", "--input-size", "96", "--until", "block1_conv2"]
        whole = self.folder / "whole.npy"
        t.run("features", self.data, *options, "-o", whole)
        for index in range(2):
            self.succeed("features", self.data, *options, "--shard", f"{index}/2", "-o", self.parts)
        joined, _ = self.merge("joined.npy")
        self.assertEqual(joined.read_bytes(), whole.read_bytes())

    def test_sizes_differ_by_one_at_most(self):
        sizes = [t.json.loads(self.shard(index, 7).stdout)["images"] for index in range(7)]
        self.assertEqual(sum(sizes), 35)
        self.assertLessEqual(max(sizes) - min(sizes), 1)

    def test_more_shards_than_images(self):
        shutil.rmtree(self.data)
        t.draw_scenes(self.data, 1, size=40)
        self.shards(9)
        whole = self.folder / "whole.npy"
        self.succeed("features", self.data, *NETWORK, "-o", whole)
        joined, done = self.merge("joined.npy")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(joined.read_bytes(), whole.read_bytes())

    def test_a_worker_that_skips_is_done(self):
        """A batch system would start it again for ever."""
        skipped = sum(len(t.json.loads(self.shard(index, 2).stdout)["skipped"]) for index in range(2))
        self.assertEqual(skipped, 1)

    # Kills.

    def test_killed_twenty_times(self):
        t.draw_scenes(self.folder / "many", 34, size=40)
        self.data = self.folder / "many"
        whole = self.folder / "whole.npy"
        options = [*NETWORK[:4], "--input-size", "160", "--pool", "gap", "--threads", "1"]
        start = time.monotonic()
        self.succeed("features", self.data, *options, "-o", whole)
        duration = time.monotonic() - start
        command = [t.GRAFT, "features", self.data, *options, "--shard", "0/2", "-o", self.parts, "--json"]
        rng = random.Random(19)
        killed = 0
        while killed < 20:
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                time.sleep(rng.uniform(0, duration / 8))
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    killed += 1
                else:  # it came to its end: begin again
                    shutil.rmtree(self.parts)
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.succeed("features", self.data, *options, "--shard", "1/2", "-o", self.parts)
        joined, done = self.merge("joined.npy")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(joined.read_bytes(), whole.read_bytes())
        self.assertEqual(sorted(p.name for p in self.parts.iterdir()),
                         ["features-0-of-2.part", "features-1-of-2.part"])

    def test_goes_on_behind_the_last_whole_chunk(self):
        self.shards(2)
        part = self.parts / "features-0-of-2.part"
        whole = part.read_bytes()
        unfinished = part.with_name(part.name + ".unfinished")
        for size in (0, 7, 100, len(whole) - 100, len(whole) - 5, len(whole)):
            part.unlink(missing_ok=True)
            unfinished.write_bytes(whole[:size])
            self.shard(0, 2)
            self.assertEqual(part.read_bytes(), whole, size)
            self.assertFalse(unfinished.exists())

    def test_again_when_done(self):
        self.shards(2)
        part = self.parts / "features-1-of-2.part"
        before = part.stat().st_mtime_ns
        found = t.json.loads(self.shard(1, 2).stdout)
        self.assertEqual(part.stat().st_mtime_ns, before)
        self.assertEqual(found["earlier"], found["images"])

    def begin(self, count):
        """A worker that has begun to write its shard."""
        t.draw_scenes(self.folder / "many", count, size=40)
        command = [t.GRAFT, "features", self.folder / "many", *NETWORK[:4], "--input-size", "224", "--threads", "1",
                   "--shard", "0/1", "-o", self.parts]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not t.says_something(self.parts / "features-0-of-1.part.unfinished") and process.poll() is None:
            time.sleep(0.005)
        return command, process

    def test_interrupted(self):
        """As after a kill, with nothing lost."""
        command, process = self.begin(30)
        with process:
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        if code == 0:
            self.skipTest("too fast a machine")
        self.assertEqual(code, 143)
        self.succeed(*map(str, command[1:]))

    def test_two_workers_at_one_shard(self):
        command, process = self.begin(200)
        with process:
            process.send_signal(signal.SIGSTOP)
            done = t.run(*map(str, command[1:]))
            process.send_signal(signal.SIGKILL)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("another process is writing this shard", done.stderr)

    # What is not joined.

    def test_missing_and_unfinished(self):
        files = self.shards(7)
        files[3].unlink()
        self.assertIn("run --shard 3/7", self.refuse("1 of its 7 shards is missing: 3"))
        files[5].rename(f"{files[5]}.unfinished")
        files[3].with_name(files[3].name + ".unfinished").write_bytes(b"")
        self.refuse("2 of its 7 shards are missing: 3, 5 (3 is unfinished)")
        self.refuse("No such file", self.folder / "none.part")
        (self.folder / "empty").mkdir()
        self.refuse("no features-I-of-N.part in this folder", self.folder / "empty")

    def test_one_twice(self):
        files = self.shards(3)
        copy = self.folder / "copy.part"
        shutil.copy(files[1], copy)
        self.refuse("both are shard 1 of 3", *files, copy)

    def test_other_options(self):
        files = self.shards(3)
        for options, words in ((("--resampling", "nearest"), "weights or preprocessing"),
                               (("--until", "block4_pool"), "other options"), (("--seed", "1"), "weights")):
            done = self.shard(1, 3, *options, code=2)
            self.assertIn("there already, of other options", done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.shard(1, 3, *options, "--force")
            self.refuse(words)
            self.shard(1, 3, "--force")
        self.assertEqual(self.merge("joined.npy")[1].returncode, 1, files)

    def test_other_numbers_and_images(self):
        files = self.shards(3)
        self.shard(0, 2)
        self.refuse("one of 2 shards, but", *files[:2], self.parts / "features-0-of-2.part")
        (self.data / "sea" / "new.jpg").write_bytes((self.data / "sea" / "1.jpg").read_bytes())
        done = self.shard(2, 3, code=2)
        self.assertIn("of another list of images", done.stderr)
        self.shard(2, 3, "--force")
        self.refuse("of another list of images (36)", *files)

    def test_damage(self):
        """Whatever byte: one line, and the shard repairs it."""
        files = self.shards(2)
        whole = files[0].read_bytes()
        rng = random.Random(1)
        for place in [0, 8, 12, 20, 40, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(12))]:
            damaged = bytearray(whole)
            damaged[place] ^= 0x41
            files[0].write_bytes(damaged)
            self.refuse("features-0-of-2.part")
            self.shard(0, 2)
            self.assertEqual(files[0].read_bytes(), whole, place)
        for size in (0, 10, 500, len(whole) - 1):
            files[0].write_bytes(whole[:size])
            self.refuse("features-0-of-2.part")
        files[0].write_bytes(whole + b"more")
        self.refuse("damaged or cut short")
        self.shard(0, 2)
        self.assertEqual(files[0].read_bytes(), whole)

    def test_what_is_no_part(self):
        file = self.folder / "x.part"
        file.write_text("hello, world: this is no part of anything")
        self.refuse("no part of a sharded result", file)
        os.mkfifo(self.folder / "pipe.part")
        self.refuse("no plain file", self.folder / "pipe.part")
        self.succeed("check", self.data, "--shard", "0/1", "-o", self.parts)
        self.refuse("a part of 'graft check'", self.parts / "check-0-of-1.part")

    # What is typed.

    def test_how_shards_are_named(self):
        for text, words in (("4/4", "the last of 4 is 3/4"), ("3", "neither I/N"), ("x/4", "neither I/N"),
                            ("-1/4", "neither I/N"), ("1/0", "from 1 to 100000"), ("1/4/2", "neither I/N"),
                            ("1.0/4", "neither I/N"), ("auto", "neither I/N"), ("99999999999/4", "neither I/N")):
            done = t.run("features", self.data, *NETWORK, f"--shard={text}", "-o", self.parts)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1), done.stderr)
            self.assertIn(words, done.stderr)
        self.assertFalse(self.parts.exists())

    def test_numbers_from_the_environment(self):
        for variable in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "TASK_ID", "CLOUD_RUN_TASK_INDEX"):
            done = self.shard("auto", 3, env={variable: "2"})
            self.assertEqual(t.json.loads(done.stdout)["shard"], 2)
        slurm = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_COUNT": "3"}
        self.assertEqual(t.json.loads(self.shard("auto", 3, env={"SLURM_ARRAY_TASK_ID": "1", **slurm}).stdout)["shard"],
                         1)
        # One task of an array that is run again alone is the same shard.
        again = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "1"}
        self.assertEqual(t.json.loads(self.shard("auto", 3, env=again).stdout)["shard"], 1)
        # An array from 1 fails in its first task already.
        for env, words in (({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "3"}, "--array=0-2"),
                           ({"JOB_COMPLETION_INDEX": "3"}, "goes up to 3"), ({}, "no batch system"),
                           ({"TASK_ID": ""}, "no batch system"), ({"TASK_ID": "one"}, "'one'"),
                           ({"TASK_ID": "1", "JOB_COMPLETION_INDEX": "2"}, "but TASK_ID is 1")):
            done = self.shard("auto", 3, code=2, env=env)
            self.assertIn(words, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_options_that_do_not_go_together(self):
        for arguments, words in ((("features", "--merge", "parts", "--pool", "gap", "-o", "x.npy"), "--pool"),
                                 (("features", "--merge", "parts", "--shard", "0/2", "-o", "x.npy"), "--shard"),
                                 (("features", "-o", "x.npy"), "PATH is required"),
                                 (("features", self.data, "--shard", "0/2", "-o", "x.npy"), "must be a folder"),
                                 (("check", self.data, "--shard", "0/2"), "needs -o"),
                                 (("check", self.data, "-o", "x"), "is for --shard"),
                                 (("check", self.data, "--shard", "0/2", "-o", "x", "--html", "x.html"), "--html"),
                                 (("check", self.data, "--shard", "0/2", "-o", "x", "--merge", "y"), "--merge")):
            done = self.fail_with(2, words, *arguments, cwd=self.folder)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_a_part_is_not_replaced_by_its_result(self):
        self.shards(1)
        odd = self.folder / "odd.npy"
        shutil.copy(self.parts / "features-0-of-1.part", odd)
        self.fail_with(2, "is what the result is made from", "features", "--merge", odd, "-o", odd)


class Check(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "photos"
        t.draw_scenes(self.data, 5, size=40)
        (self.data / "sea" / "3.jpg").write_bytes(b"no image at all")
        for name in ("a", "b", "c"):  # copies in several shards
            shutil.copy(self.data / "sea" / "1.jpg", self.data / "forest" / f"{name}.jpg")
        self.tests = self.folder / "tests"
        shutil.copytree(self.data, self.tests)
        (self.tests / "sea" / "3.jpg").unlink()
        self.parts = self.folder / "parts"

    def shards(self, count):
        for index in range(count):
            self.succeed("check", self.data, "--test", self.tests, "--shard", f"{index}/{count}", "-o", self.parts)

    def test_joined_as_of_one_process(self):
        whole = self.succeed("check", self.data, "--test", self.tests, "--json").stdout
        self.assertGreater(len(t.json.loads(whole)["train_test_leaks"]), 3)
        self.assertEqual(len(t.json.loads(whole)["conflicting_labels"]), 1)
        for count in (2, 3, 7):
            shutil.rmtree(self.parts, ignore_errors=True)
            self.shards(count)
            merged = self.succeed("check", self.data, "--test", self.tests, "--merge", self.parts, "--json").stdout
            self.assertEqual(merged, whole)
        text = self.succeed("check", self.data, "--test", self.tests, "--merge", self.parts).stdout
        self.assertEqual(text, self.succeed("check", self.data, "--test", self.tests).stdout)
        page = self.folder / "page.html"
        self.succeed("check", self.data, "--test", self.tests, "--merge", self.parts, "--html", page)
        self.assertIn("data:image", page.read_text())

    def test_a_cut_part_goes_on(self):
        self.shards(2)
        part = self.parts / "check-0-of-2.part"
        whole = part.read_bytes()
        part.with_name(part.name + ".unfinished").write_bytes(whole[:-30])
        part.unlink()
        self.shards(2)
        self.assertEqual(part.read_bytes(), whole)

    def test_other_data(self):
        self.shards(2)
        self.fail_with(1, "of other images", "check", self.data, "--merge", self.parts)
        (self.parts / "check-1-of-2.part").unlink()
        self.fail_with(1, "run --shard 1/2", "check", self.data, "--test", self.tests, "--merge", self.parts)
        self.fail_with(2, "of another list of images", "check", self.data, "--shard", "0/2", "-o", self.parts)
        self.succeed("check", self.data, "--shard", "0/2", "-o", self.parts, "--force")


class Parallel(t.TestCase):
    """docs/scaling.md: GNU parallel."""

    @unittest.skipUnless(shutil.which("parallel"), "GNU parallel is not installed")
    def test_workers(self):
        data = self.folder / "photos"
        t.draw_scenes(data, 4, size=40)
        version = subprocess.run(["parallel", "--version"], capture_output=True, text=True).stdout
        if "GNU parallel" not in version:
            self.skipTest("another program is called parallel")
        options = " ".join(NETWORK)
        line = f"seq 0 3 | parallel -j 2 '{t.GRAFT} features photos {options} --shard {{}}/4 -o parts'"
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, capture_output=True, text=True,
                              env=dict(os.environ, HOME=str(self.folder)))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.succeed("features", "--merge", "parts", "-o", "joined.npy", cwd=self.folder)
        self.succeed("features", "photos", *NETWORK, "-o", "whole.npy", cwd=self.folder)
        self.assertEqual((self.folder / "joined.npy").read_bytes(), (self.folder / "whole.npy").read_bytes())


if __name__ == "__main__":
    t.main()
