"""Whole networks on every instruction set of this processor, as GRAFT_TARGET picks them."""
import os
import re

import graft_testing as t
import numpy as np

FUSED = {"avx512", "avx2"}  # multiply-adds, of the same sums in the same order
TILES = {"amx", "emulated-amx"}  # of bfloat16, beside the best of the others
ROUNDED = "rounded-bf16"  # of float32 kernels, with operands as tiles round them
HALVES = {"amx-fp16", "emulated-amx-fp16"}  # float32 by products of halves
NETWORKS = (["--backbone", "vgg-mini"],
            ["--backbone", "vgg11", "--weights", "none", "--input-size", "68x95"],
            ["--backbone", "vgg16", "--weights", "none", "--input-size", "32", "--include-top"])


def environment(target):
    return {**os.environ, "GRAFT_TARGET": target}


def all_targets():
    done = t.run("bench", "--size", "32", env=environment("none"))
    return re.search(r"choose one of: (.*)", done.stderr)[1].split(", ")


def targets():
    """Those of float32."""
    return [name for name in all_targets() if name not in TILES | HALVES | {ROUNDED}]


class Targets(t.TestCase):
    def features(self, target, *options):
        out = self.folder / f"{target}.npy"
        self.succeed("features", self.folder / "data", "-o", out, "--force", "--quiet", *options,
                     env=environment(target))
        return np.load(out)

    def test_give_the_same_bits(self):
        t.draw_scenes(self.folder / "data", 2, size=72)
        names = targets()
        print("targets of this processor:", ", ".join(names))
        for options in NETWORKS:
            got = {name: self.features(name, *options) for name in names}
            want = got[names[0]]
            for name in names[1:]:
                if {names[0], name} <= FUSED:
                    self.assertEqual(got[name].tobytes(), want.tobytes(), (options, name))
                else:
                    self.assertLess(abs(got[name] - want).max() / abs(want).max(), 1e-4, (options, name))

    def test_bf16(self):
        """Tiles of bfloat16: AMX gives the emulation's bits, AVX512_BF16 sums in another order, and all
        are near float32. Emulation runs anywhere, the others where the processor has them."""
        t.draw_scenes(self.folder / "data", 1, size=72)
        able = [name for name in ("emulated-amx", "amx", "avx512") if name == "emulated-amx" or self.has_bf16(name)]
        print("bf16 by:", ", ".join(able), "— not on this processor:",
              ", ".join({"amx", "avx512"} - set(able)) or "none")
        for options in NETWORKS:
            exact = self.features(targets()[0], *options)
            got = {name: self.features(name, *options, "--precision", "bf16") for name in able}
            for name, features in got.items():
                error = abs(features - exact).max() / abs(exact).max()
                self.assertGreater(error, 0, (options, name))
                self.assertLess(error, 0.03, (options, name))
                if name == "amx":
                    self.assertEqual(features.tobytes(), got["emulated-amx"].tobytes(), options)
            # The same roundings but for sums in another order: some numbers are rounded the other way, which
            # later layers spread. The error is as large, and partly the same.
            rounded = self.features(ROUNDED, *options, "--precision", "bf16")
            error = np.std(got["emulated-amx"] - exact)
            self.assertLess(abs(np.std(rounded - exact) / error - 1), 0.2, options)
            self.assertLess(np.std(rounded - got["emulated-amx"]), 0.9 * error, options)

    def test_halves(self):
        """float32 from products of halves: the emulation anywhere, and AMX-FP16 with its bits."""
        t.draw_scenes(self.folder / "data", 1, size=72)
        able = sorted(set(all_targets()) & HALVES, reverse=True)
        print("float32 by halves:", ", ".join(able))
        self.assertIn("emulated-amx-fp16", able)
        for options in NETWORKS:
            exact = self.features(targets()[0], *options)
            got = [self.features(name, *options) for name in able]
            self.assertLess(abs(got[0] - exact).max() / abs(exact).max(), 1e-5, options)
            self.assertNotEqual(got[0].tobytes(), exact.tobytes())
            self.assertTrue(all(other.tobytes() == got[0].tobytes() for other in got), options)

    def has_bf16(self, target):
        done = t.run("features", self.folder / "data", "-o", self.folder / "x.npy", "--backbone", "vgg-mini",
                     "--input-size", "32", "--precision", "bf16", "--force", env=environment(target))
        if done.returncode != 0:
            self.assertRegex(done.stderr, "--precision bf16 needs a processor|GRAFT_TARGET: '(amx|avx512)' is not")
        return done.returncode == 0

    def test_tiles_leave_float32_alone(self):
        t.draw_scenes(self.folder / "data", 1, size=48)
        want = self.features(targets()[0], *NETWORKS[0]).tobytes()
        for name in set(all_targets()) & (TILES | {ROUNDED}):
            self.assertEqual(self.features(name, *NETWORKS[0]).tobytes(), want, name)

    @t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_share_cached_features(self):
        both = [name for name in targets() if name in FUSED]
        if len(both) < 2:
            self.skipTest("this processor has no AVX-512")
        t.draw_scenes(self.folder / "data", 4, size=48)
        models = []
        for name in both:
            self.succeed("train", self.folder / "data", "-o", self.folder / name, "--backbone", "vgg-mini",
                         "--epochs", "2", "--no-report", "--cache-dir", self.folder / "cache",
                         env=environment(name))
            sets = self.succeed_json("cache", "list", "--json", "--cache-dir", self.folder / "cache")["sets"]
            self.assertEqual([s["images"] for s in sets], [24])
            models.append((self.folder / name / "model.safetensors").read_bytes())
        self.assertEqual(models[0], models[1])

    def test_fuzz(self):
        for name in all_targets():
            done = t.tool("engine_fuzz", "2", "1", env=environment(name))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_is_named(self):
        for name in targets():
            document = self.succeed_json("bench", "--size", "32", "--batch", "1", "--repeats", "1", "--backbone",
                                         "vgg-mini", "--json", env=environment(name))
            self.assertEqual(document["instruction_set"], name)
            self.assertEqual(document["target"], name)

    def test_unknown(self):
        t.draw_scenes(self.folder / "data", 1)
        done = t.run("features", self.folder / "data", "-o", self.folder / "x.npy", "--backbone", "vgg-mini",
                     env=environment("avx3"))
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"^graft: GRAFT_TARGET: 'avx3' is not an instruction set of this processor")


if __name__ == "__main__":
    t.main()
