"""The feature cache through the program: shared by runs, never stale, survives kills."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)


class Cache(t.TestCase):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        t.draw_scenes(self.data, 8, 1, 64)
        self.cache = self.folder / "cache"

    def arguments(self, name, *more):
        options = {"--backbone": "vgg-mini", "--weights": "none", "--input-size": "48",
                   "--until": "block3_pool", "--fine-tune": "0", "--epochs": "2", "--seed": "3",
                   "--cache-dir": self.cache}
        options.update(zip(more[::2], more[1::2]))
        pairs = [part for pair in options.items() for part in pair if part is not None]
        return ["train", self.data, "--output", self.folder / name, "--force", *pairs]

    def train(self, name, *more):
        self.succeed(*self.arguments(name, *more))
        return (self.folder / name / "model.safetensors").read_bytes()

    def sets(self):
        return self.succeed_json("cache", "list", "--json", "--cache-dir", self.cache)["sets"]

    def images(self, until="block3_pool"):
        return [s["images"] for s in self.sets() if s["until"] == until]

    def photos(self):
        return sorted(self.data.rglob("*.jpg"))

    def test_second_run_computes_nothing_and_gives_the_same_model(self):
        first = self.train("a")
        count = len(self.photos())
        self.assertEqual(self.images(), [count])
        self.assertEqual(self.train("b"), first)
        self.assertEqual(self.images(), [count])

    def test_a_second_phase_finds_what_the_first_one_passed(self):
        phases = ("--fine-tune", "2", "--freeze-epochs", "1", "--lr", "1e-4")
        done = self.succeed(*self.arguments("a", *phases), "--verbose")
        told = re.findall(r"train: (\d+) from the cache, (\d+) continued from an earlier layer, (\d+) computed",
                          done.stderr)
        train = told[0][2]
        self.assertEqual(told, [("0", "0", train), (train, "0", "0")], done.stderr)
        self.assertEqual(len(self.sets()), 2)
        want = (self.folder / "a" / "model.safetensors").read_bytes()
        self.assertEqual(self.train("b", *phases), want)
        # Without a cache features are not rounded.
        exact = self.train("c", *phases, "--cache-dtype", "fp32")
        self.succeed(*self.arguments("d", *phases), "--no-cache")
        self.assertEqual((self.folder / "d" / "model.safetensors").read_bytes(), exact)

    def test_same_model_whatever_part_was_cached(self):
        self.train("all")
        want = self.train("all")
        shutil.rmtree(self.cache)
        removed = {p: p.read_bytes() for p in self.photos()[::3]}
        for p in removed:
            p.unlink()
        self.train("part")
        for p, content in removed.items():
            p.write_bytes(content)
        self.assertEqual(self.train("rest"), want)

    def test_other_heads_share_and_deeper_cuts_continue(self):
        self.train("a", "--head", "gap dense:8")
        self.train("b", "--head", "flatten dense:8")
        self.assertEqual(len(self.sets()), 1)
        self.succeed(*self.arguments("c", "--until", "block4_pool"))
        self.assertEqual(self.images("block4_pool"), [len(self.photos())])

    def test_weights_size_and_dtype_have_sets_of_their_own(self):
        self.train("a")
        self.train("a", "--seed", "4")
        self.train("a", "--input-size", "40")
        self.train("a", "--cache-dtype", "fp32")
        self.assertEqual(len(self.sets()), 4)

    def test_content_counts_not_names(self):
        self.train("a")
        count = len(self.photos())
        first, second = self.photos()[:2]
        first.rename(first.with_name("moved.jpg"))
        self.train("b")
        self.assertEqual(self.images(), [count], "an image that moved is not computed again")
        t.draw_scenes(self.folder / "more", 1, 100, 64)
        other = sorted((self.folder / "more").rglob("*.jpg"))[0]
        shutil.copy(other, second)  # same name, other content
        cached = self.train("c")
        self.assertEqual(self.images(), [count + 1])
        # The truth comes from an empty cache, and from none.
        shutil.rmtree(self.cache)
        self.assertEqual(self.train("d"), cached)
        self.assertEqual(self.train("e", "--no-cache", None),
                         self.train("f", "--cache-dtype", "fp32"))

    def test_no_cache_leaves_no_trace(self):
        self.train("a", "--no-cache", None)
        self.assertFalse((self.cache / "features").exists())

    def test_limit(self):
        self.succeed(*self.arguments("a", "--cache-limit", "0.05"))
        full = self.sets()[0]["bytes"]
        self.assertLessEqual(full, 50e6)

    def files(self, suffix):
        return sorted((self.cache / "features").glob(f"*{suffix}"))

    def test_unusable_cache_costs_time_only(self):
        want = self.train("a")
        shutil.rmtree(self.cache / "features")
        (self.cache / "features").write_text("a file where the folder should be")
        done = self.succeed(*self.arguments("b"))
        self.assertIn("going on without the cache", done.stderr)
        self.assertEqual((self.folder / "b" / "model.safetensors").read_bytes(), want)
        # A deeper head has layers without parameters behind what is stored.
        without = self.train("c", "--head", "flatten dense:8")
        (self.cache / "features").unlink()
        self.assertEqual(self.train("d", "--head", "flatten dense:8"), without)

    def test_damage_is_computed_again(self):
        want = self.train("a")
        count = len(self.photos())
        noise = random.Random(1).randbytes

        def cut(path):
            path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])

        def fill(path):
            path.write_bytes(noise(path.stat().st_size))

        def empty(path):
            path.write_bytes(b"")

        def overwrite(path):
            content = bytearray(path.read_bytes())
            for at in range(len(content) // 3, len(content), len(content) // 3 + 1):
                content[at:at + 40] = noise(40)
            path.write_bytes(content)

        for damage in (cut, fill, empty, overwrite):
            for suffix in (".index", ".values"):
                with self.subTest(damage=damage.__name__, file=suffix):
                    for path in self.files(suffix):
                        damage(path)
                    self.sets()
                    done = self.succeed(*self.arguments("b"))
                    self.assertEqual((self.folder / "b" / "model.safetensors").read_bytes(), want)
                    lines = [line for line in done.stderr.splitlines() if "damaged" in line]
                    self.assertLessEqual(len(lines), 1)
                    if suffix == ".values":
                        self.assertEqual(len(lines), 1, done.stderr)
                    self.assertEqual(self.images(), [count])
        self.assertTrue(self.files(".damaged-*"), "an index that is none is put aside")
        self.succeed("cache", "clear", "--cache-dir", self.cache)
        self.assertEqual(list((self.cache / "features").iterdir()), [])

    def test_what_is_no_file_in_the_place_of_one(self):
        want = self.train("a")
        self.train("other", "--input-size", "64")

        def folder(path):
            (path / "within").mkdir(parents=True)
            (path / "within" / "file").write_bytes(b"x" * 1000)

        kinds = {"folder": folder, "pipe": os.mkfifo,
                 "dangling link": lambda path: path.symlink_to(self.folder / "nowhere"),
                 "loop": lambda path: path.symlink_to(path),
                 "link": lambda path: path.symlink_to(self.data)}
        store = self.cache / "features"
        mine = [s["id"] for s in self.sets() if s["input"] == [48, 48]][0]
        for name, make in kinds.items():
            for suffix in (".index", ".values"):
                with self.subTest(kind=name, suffix=suffix):
                    path = store / (mine + suffix)
                    path.unlink()
                    make(path)
                    done = t.run("cache", "list", "--json", "--cache-dir", self.cache)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual([s["input"] for s in json.loads(done.stdout)["sets"]], [[64, 64]])
                    self.assertIn("not a plain file", done.stderr)
                    done = t.run(*self.arguments("b"))
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(done.stderr.count("going on without"), 1, done.stderr)
                    self.assertEqual((self.folder / "b" / "model.safetensors").read_bytes(), want)
                    self.assertEqual(len(self.sets()), 2, "put aside and made again")
        folder(store / "0.index")
        held = sum(p.stat().st_size for p in store.rglob("*") if p.is_file() and not p.is_symlink())
        freed = self.succeed_json("cache", "clear", "--json", "--cache-dir", self.cache)["freed"]
        self.assertGreaterEqual(freed, 1000)
        self.assertLess(abs(freed - held), 10000)
        self.assertEqual(list(store.iterdir()), [])
        self.assertTrue(self.photos(), "what a link points to stays")

    def test_damage_before_a_resume(self):
        long = ("--epochs", "40", "--patience", "40")
        want = self.train("a", *long)
        for harm in ("cut", "gone", "a file"):
            with self.subTest(harm=harm):
                shutil.rmtree(self.folder / "k", ignore_errors=True)
                process = subprocess.Popen([t.GRAFT, *map(str, self.arguments("k", *long))],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                while not (self.folder / "k" / "checkpoints" / "state.safetensors").exists():
                    time.sleep(0.005)
                process.kill()
                process.wait()
                if harm == "cut":
                    for path in self.files(".values"):
                        path.write_bytes(path.read_bytes()[:1000])
                else:
                    shutil.rmtree(self.cache / "features")
                if harm == "a file":
                    (self.cache / "features").write_text("")
                self.succeed("train", self.data, "--resume", self.folder / "k")
                self.assertEqual((self.folder / "k" / "model.safetensors").read_bytes(), want)

    def test_the_earlier_format_makes_room(self):
        (self.cache / "features").mkdir(parents=True)
        for name in ("data.mdb", "lock.mdb"):
            (self.cache / "features" / name).write_bytes(b"nonsense" * 2000)
        done = self.succeed("cache", "list", "--cache-dir", self.cache)
        self.assertIn("earlier version", done.stderr)
        done = self.succeed(*self.arguments("a"))
        self.assertIn("earlier version", done.stderr)
        self.assertFalse((self.cache / "features" / "data.mdb").exists())

    def test_kills_leave_it_valid(self):
        want = self.train("a")
        shutil.rmtree(self.cache)
        chance = random.Random(1)
        for _ in range(10):
            process = subprocess.Popen([t.GRAFT, *map(str, self.arguments("k"))],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.02, 0.6))
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.sets()
        self.assertEqual(self.train("k"), want)

    def test_two_processes_at_once(self):
        runs = [subprocess.Popen([t.GRAFT, *map(str, self.arguments(name))],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for name in ("x", "y")]
        for process in runs:
            _, errors = process.communicate()
            self.assertEqual(process.returncode, 0, errors)
        models = [(self.folder / name / "model.safetensors").read_bytes() for name in ("x", "y")]
        self.assertEqual(models[0], models[1])
        self.assertEqual(self.images(), [len(self.photos())])


if __name__ == "__main__":
    t.main()
