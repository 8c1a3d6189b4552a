"""Training gives the same weights, bit for bit, from version to version.

Hashes of small runs, one for each instruction set and processor, by which this program, LibTorch and OpenBLAS
choose kernels and with them the order of sums. Where none is on record the test is skipped and says what it got.
"""
import hashlib
import json
import pathlib
import re
import unittest

import graft_testing as t

RUNS = {
    # Features from the engine, cached as halves; the head from the trainer.
    "frozen": ["--epochs", "2"],
    # Convolutions train, views are drawn anew, the head is dense.
    "fine-tuned": ["--epochs", "2", "--freeze-epochs", "1", "--fine-tune", "block2_conv1", "--augment",
                   "rotate:20 hflip", "--views", "0", "--head", "flatten dense:32 dropout:0.2", "--ema", "0.9"],
}
ZEN_4 = {"frozen": "7adf6f84e06b2fc9535792ddd03ff56e", "fine-tuned": "bb0f9254c6e1b5254fadf40006b4cf0d"}
GOLDEN = {"avx512 AuthenticAMD 25/17": ZEN_4, "avx2 AuthenticAMD 25/17": ZEN_4}


def processor():
    """The engine's instruction set, and the processor by which LibTorch and OpenBLAS choose their kernels."""
    done = t.run("bench", "--size", "32", "--batch", "1", "--repeats", "1", "--backbone", "vgg-mini", "--json")
    facts = dict(re.findall(r"^(\S.*?)\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M))
    return "{} {} {}/{}".format(json.loads(done.stdout)["instruction_set"], facts.get("vendor_id", "?"),
                                facts.get("cpu family", "?"), facts.get("model", "?"))


def digest(model):
    tensors, _ = t.read_safetensors(model)
    hash = hashlib.sha256()
    for name in sorted(tensors):
        hash.update(name.encode() + tensors[name].tobytes())
    return hash.hexdigest()[:32]


@unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Golden(t.TestCase):
    def test_weights(self):
        data = self.folder / "data"
        t.draw_scenes(data, 12, size=48)
        got = {}
        for name, options in RUNS.items():
            self.succeed("train", data, "-o", self.folder / name, "--backbone", "vgg-mini", "--input-size", "32",
                         "--until", "block3_pool", "--seed", "7", "--threads", "2", "--no-report", *options)
            got[name] = digest(self.folder / name / "model.safetensors")
        if processor() not in GOLDEN:
            self.skipTest(f"no hashes on record for {processor()}; this build gives {got}")
        self.assertEqual(got, GOLDEN[processor()])


if __name__ == "__main__":
    t.main()
