"""PyTorch's weights: .pth of both formats and safetensors, with torchvision's and timm's names."""
import collections
import os
import pickle
import re
import zipfile

import graft_testing as t
import numpy as np
import torch
import torch_testing as tt


class Code:
    """Pickles as a call of os.system."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class TorchWeights(t.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = tt.make("vgg11")

    def setUp(self):
        super().setUp()
        t.draw_scenes(self.folder / "p", 1, size=60)
        self.image = next((self.folder / "p").rglob("*.jpg"))
        self.path = self.folder / "w.pth"

    def features(self, path, *more, backbone="vgg11", size=32):
        out = self.folder / "out.npy"
        done = self.succeed("features", self.image, "-o", out, "--backbone", backbone, "--input-size",
                            size, "--weights", path, *more)
        said = [line for line in done.stderr.splitlines(True) if not line.startswith("wrote ")]
        return np.load(out), "".join(said)

    def refuse(self, text, path=None, *more, backbone="vgg11"):
        out = self.folder / "refused.npy"
        done = self.fail_with(1, text, "features", self.image, "-o", out, "--backbone", backbone,
                              "--input-size", "32", "--weights", path or self.path, *more)
        self.assertFalse(out.exists())
        return done.stderr

    def check(self, path, model, tolerance=1e-5, backbone="vgg11", size=32, more=()):
        got, said = self.features(path, *more, backbone=backbone, size=size)
        with torch.no_grad():
            want = model(tt.inputs(self.image, size)).numpy()
        self.assertEqual(got.shape, want.shape)
        self.assertLess(np.abs(got - want).max() / np.abs(want).max(), tolerance)
        return said

    def only_pixels(self, said):
        """The one note of a file that is taken whole and is none of torchvision's own."""
        self.assertRegex(said, r"^graft: note: \S+: pixels are prepared as for torchvision's own weights \(.*\)\n$")

    def save(self, value, zipped=True, **options):
        torch.save(value, self.path, _use_new_zipfile_serialization=zipped, **options)
        return self.path

    def test_both_formats(self):
        for zipped in (True, False):
            self.only_pixels(self.check(self.save(self.model.state_dict(), zipped), self.model))

    def test_batchnorm(self):
        model = tt.make("vgg11_bn")
        for zipped in (True, False):
            self.check(self.save(model.state_dict(), zipped), model, backbone="vgg11_bn")
        path = self.folder / "bn.safetensors"
        tt.write_safetensors(path, model.state_dict())
        self.check(path, model, backbone="vgg11_bn")

    def test_top(self):
        model = tt.make("vgg11", classes=7, map_size=1)
        for name, state in (("torchvision", model.state_dict()), ("timm", tt.as_timm(model.state_dict()))):
            for path in (self.save(state), self.folder / f"{name}.safetensors"):
                if path.suffix == ".safetensors":
                    tt.write_safetensors(path, state)
                said = self.check(path, model, more=("--include-top",))
                self.only_pixels(said)

    def test_top_reads_maps_in_order(self):
        """Of maps of 2×2 pixels, channels first."""
        model = tt.make("vgg11", classes=3, map_size=2)
        self.check(self.save(tt.as_timm(model.state_dict())), model, size=64, more=("--include-top",))

    def test_types(self):
        state = self.model.state_dict()
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            stored = {k: v.to(dtype) for k, v in state.items()}
            rounded = tt.make("vgg11")
            rounded.load_state_dict({k: v.float() for k, v in stored.items()})
            safetensors = self.folder / "w.safetensors"
            tt.write_safetensors(safetensors, stored)
            for path in (self.save(stored), self.save(stored, False), safetensors):
                self.check(path, rounded)

    def test_checkpoints(self):
        state = self.model.state_dict()
        parallel = collections.OrderedDict((f"module.{k}", v) for k, v in state.items())
        import argparse
        for value in ({"state_dict": state, "epoch": 3, "best": 0.5, "args": argparse.Namespace(lr=1e-3)},
                      {"model": parallel, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}},
                      {"model_state_dict": state, "loss": np.float64(2)}, parallel,
                      {f"_orig_mod.module.{k}": v for k, v in state.items()},
                      {k: torch.nn.Parameter(v) for k, v in state.items()},
                      {k.removeprefix("features."): v for k, v in state.items()}):
            for zipped in (True, False):
                self.check(self.save(value, zipped), self.model)

    def test_checkpoint_of_many_tensors(self):
        """Its list of entries is longer than what is looked at to know the kind of file."""
        moments = {i: torch.zeros(1) for i in range(2000)}
        for zipped in (True, False):
            self.check(self.save({"optimizer": moments, "state_dict": self.model.state_dict()}, zipped), self.model)

    def test_other_layers_are_left_out(self):
        state = dict(self.model.state_dict())
        state = {f"backbone.{k}": v for k, v in state.items()}
        state.update({"neck.weight": torch.ones(3, 3), "neck.bias": torch.ones(3)})
        self.assertIn("left out neck", self.check(self.save(state), self.model))

    def test_views_of_a_storage(self):
        """channels_last, transposed, and tensors that share one storage."""
        state = dict(self.model.state_dict())
        flat = torch.cat([v.flatten() for v in state.values()])
        shared, at = {}, 0
        for key, value in state.items():
            shared[key] = flat[at:at + value.numel()].view(value.shape)
            at += value.numel()
        last = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state.items()}
        turned = {k: v.flip(0).contiguous().flip(0) if v.ndim == 1 else v.transpose(0, 1).contiguous().transpose(0, 1)
                  for k, v in state.items()}
        for value in (shared, last, turned):
            for zipped in (True, False):
                self.check(self.save(value, zipped), self.model)

    def test_a_sign_that_is_still_to_be_turned(self):
        """torch._neg_view of PyTorch 2 is saved with the bit in a seventh argument."""
        path = self.save(self.model.state_dict(), True)
        self.check(path, self.model)
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        pickled = next(name for name in files if name.endswith("data.pkl"))
        hooks = re.search(rb"\x89(?:h.|j....)\)R(?:q.|r....)t", files[pickled], re.S)
        end = hooks.end() - 1  # of the arguments
        for bits, refused in ((b"}", False), (b"}X\3\0\0\0neg\x88s", True)):
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data[:end] + bits + data[end:] if name == pickled else data)
            if refused:
                self.fail_with(1, "resolve_neg", "weights", "inspect", path)
            else:
                self.check(path, self.model)

    def test_protocols(self):
        """Other pickle protocols than torch.save's own 2."""
        for protocol in (3, 4, 5):
            for zipped in (True, False):
                self.check(self.save(self.model.state_dict(), zipped, pickle_protocol=protocol), self.model)

    def test_names_do_not_matter(self):
        self.save(self.model.state_dict())
        other = self.folder / "weights.bin"
        self.path.rename(other)
        self.check(other, self.model)

    def test_deflated_archive(self):
        self.save(self.model.features[:3].state_dict())
        packed = self.folder / "packed.pth"
        with zipfile.ZipFile(self.path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        got, _ = self.features(packed, "--until", "block1_pool")
        want = self.model.features[:3](tt.inputs(self.image, 32)).detach().numpy()
        self.assertLess(np.abs(got - want).max(), 1e-4)

    def test_trains(self):
        if not t.HAS_TRAINING:
            self.skipTest("built without training")
        model = tt.make("vgg-mini")
        self.save(model.state_dict())
        run, again = self.folder / "run", self.folder / "again"
        common = ("--input-size", "32", "--epochs", "1", "--no-cache", "--val", self.folder / "p", "--backbone",
                  "vgg-mini")
        self.succeed("train", self.folder / "p", "-o", run, "--weights", self.path, *common)
        _, metadata = t.read_safetensors(run / "model.safetensors")
        self.assertIn('"rgb"', metadata["preprocessing"])
        self.assertIn("torchvision weights file w.pth", metadata["provenance"])
        # A run folder serves as weights, and its preprocessing goes on.
        self.succeed("train", self.folder / "p", "-o", again, "--weights", run, *common)
        _, further = t.read_safetensors(again / "model.safetensors")
        self.assertEqual(further["preprocessing"], metadata["preprocessing"])

    # What is refused.

    def test_another_vgg(self):
        self.save(tt.make("vgg13").state_dict())
        self.assertIn("use --backbone vgg13", self.refuse("differences"))
        self.save(tt.make("vgg11_bn").state_dict())
        self.assertIn("use --backbone vgg11_bn", self.refuse("differences"))

    def test_first_blocks(self):
        self.save({k: v for k, v in self.model.state_dict().items() if int(k.split(".")[1]) < 6})
        self.assertIn("cut there with --until block2_pool", self.refuse("differences"))
        self.features(self.path, "--until", "block2_pool")

    def test_no_vgg(self):
        self.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(3)})
        self.assertIn("conv1.weight", self.refuse("no VGG's tensors"))

    def test_two_of_them(self):
        state = self.model.state_dict()
        self.save({f"{side}.{k}": v for side in ("student", "teacher") for k, v in state.items()})
        self.refuse("more than one network (student.features., teacher.features.)")

    def test_two_under_known_keys(self):
        state = self.model.state_dict()
        self.save({"model": state, "state_dict": {k: 2 * v for k, v in state.items()}})
        self.refuse("two networks, under 'state_dict' and under 'model'")
        self.save({"model": state, "net": {"epoch": 3}})
        self.check(self.path, self.model)

    def test_whole_models(self):
        for zipped in (True, False):
            self.save(torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3)), zipped)
            self.assertIn("torch.save(model.state_dict()", self.refuse("a whole model"))
        torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3))).save(str(self.path))
        self.refuse("a TorchScript model")

    def test_nothing_is_executed(self):
        mark = self.folder / "mark"
        for zipped in (True, False):
            self.save({"state_dict": self.model.state_dict(), "x": Code(mark)}, zipped)
            done = self.refuse("system")
            self.assertIn("nothing of it was executed", done)
        for protocol in range(6):
            self.path.write_bytes(pickle.dumps(Code(mark), protocol))
            self.refuse("w.pth")
        self.assertFalse(mark.exists())

    def test_no_state_dict(self):
        for value, text in (({"epoch": 3, "lr": 0.1}, "its keys: epoch, lr"), ([torch.zeros(3)], "no state_dict"),
                            (torch.zeros(3), "no state_dict")):
            self.save(value)
            self.refuse(text)

    def test_integers(self):
        state = dict(self.model.state_dict())
        state["features.0.weight"] = state["features.0.weight"].long()
        self.save(state)
        self.refuse("features.0.weight is not floating-point")

    def test_not_finite(self):
        state = dict(self.model.state_dict())
        for value in (float("nan"), float("inf")):
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                bad = state["features.0.bias"].clone().to(dtype)
                bad[3] = value
                self.save({**state, "features.0.bias": bad})
                self.refuse("NaN or infinite")

    def test_bomb(self):
        """A storage of 256 MB of zeros, deflated to 256 KB."""
        self.save({"features.0.weight": torch.zeros(64, 3, 3, 3)})
        bomb = self.folder / "bomb.pth"
        with zipfile.ZipFile(self.path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                if name.endswith("data/0"):
                    with new.open(name, "w", force_zip64=True) as file:
                        for _ in range(1 << 8):
                            file.write(bytes(1 << 20))
                else:
                    new.writestr(name, old.read(name))
        self.refuse("claims 268435456 bytes", bomb)

    def test_flipped_value(self):
        """The archive's checksums find what no rule of the format would."""
        self.save(self.model.state_dict())
        data = bytearray(self.path.read_bytes())
        at = data.find(self.model.features[0].weight.detach().numpy().tobytes())
        data[at + 10] ^= 1
        self.path.write_bytes(data)
        self.refuse("cannot be read")

    def test_cut_short(self):
        for zipped in (True, False):
            data = self.save(self.model.state_dict(), zipped).read_bytes()
            for share in (0.001, 0.3, 0.9, 0.9999):
                short = self.folder / "short.pth"
                short.write_bytes(data[:int(len(data) * share)])
                self.refuse("short.pth", short)

    def test_model_commands_name_the_file(self):
        self.save(self.model.state_dict())
        done = self.fail_with(1, "a PyTorch weights file (.pth), not a Graft model", "predict", self.path, self.image)
        self.assertIn("--weights", done.stderr)


if __name__ == "__main__":
    t.main()
