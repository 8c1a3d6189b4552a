"""Values of train's options: refused where they mean nothing, and the same after config.toml and
--resume. Numbers that are not finite while training."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import graft_testing as t

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)

NETWORK = ("--backbone", "vgg-mini", "--input-size", "32", "--until", "block1_pool")
FAST = (*NETWORK, "--head", "gap", "--patience", "0", "--threads", "1", "--no-report")

WHOLE = ("--epochs", "--batch-size", "--views", "--freeze-epochs", "--patience", "--seed", "--threads",
         "--dashboard")
REAL = ("--val-split", "--test-split", "--lr", "--head-lr", "--lr-decay-per-block", "--ema",
        "--weight-decay", "--momentum", "--warmup-epochs", "--label-smoothing", "--clip-gradients",
        "--cache-limit")


class Numbers(t.TestCase):
    def test_refused(self):
        for option in WHOLE:
            for value in ("-1", "nan"):
                self.fail_with(2, option, "train", "x", f"{option}={value}")
        for value in ("0x10", "1e2", "3.5", " 3", "", "3x", "010",
                      "18446744073709551616"):
            self.fail_with(2, "--seed", "train", "x", f"--seed={value}")
        for option in REAL:
            for value in ("-1", "nan", "inf"):
                self.fail_with(2, option, "train", "x", f"{option}={value}")
        for value in ("-nan", "-inf", "1e999", "", "0,5", "1x"):
            self.fail_with(2, "--lr", "train", "x", f"--lr={value}")
        for command, option in (("features", "--seed"), ("features", "--batch-size"),
                                ("preview", "--seed"), ("preview", "--views"), ("predict", "--top"),
                                ("summary", "--classes"), ("bench", "--repeats"), ("check", "--most")):
            self.fail_with(2, option, command, "x", f"{option}=-1")

    def test_not_finite(self):
        """Rates at which weights overflow: training stops, and what was best before stays usable."""
        t.draw_scenes(self.folder / "data", 8, size=32)
        common = ("train", self.folder / "data", "--backbone", "vgg-mini", "--input-size", "32",
                  "--threads", "1", "--no-report", "--patience", "0", "--schedule", "constant", "--optimizer", "sgd",
                  "--lr", "1000", "--momentum", "0.99", "--epochs", "30", "--cache-dir",
                  self.folder / "cache")
        for k, more in enumerate(((), ("--ema", "0.5"), ("--class-weights", "balanced"))):
            run = self.folder / f"run{k}"
            done = self.fail_with(1, "smaller --lr", *common, *more, "-o", run)
            self.assertRegex(done.stderr, "best so far: epoch [1-9]|no epoch was complete")
            if "best so far" not in done.stderr:
                continue
            text = (run / "history.csv").read_text()
            self.assertNotIn("nan", text)
            self.assertNotIn("inf", text)
            self.succeed("predict", run / "checkpoints" / "best.safetensors",
                         next((self.folder / "data").rglob("*.jpg")))


class RoundTrip(t.TestCase):
    def setUp(self):
        super().setUp()
        self.work = self.folder / "here"
        for name, count, seed in (("data", 8, 0), ("more", 3, 100), ("last", 3, 200)):
            t.draw_scenes(self.work / name, count, seed, 32)

    def again(self, data, *options, at="here", resumed_at="here", resumed_data=None, run="run"):
        """One epoch, then another by --resume; the options must come out of config.toml as they went
        in, and the model as in a run of two epochs."""
        shutil.rmtree(os.path.join(os.fsencode(self.work), os.fsencode(run)), ignore_errors=True)
        cwd = os.path.join(self.folder, at)
        first = t.run("train", data, *FAST, *options, "--epochs", "1", "-o", run, cwd=cwd)
        self.assertEqual(first.returncode, 0, first.stderr)
        config = os.path.join(os.fsencode(cwd), os.fsencode(run), b"config.toml")
        with open(config, encoding="utf-8") as file:
            before = file.read()
        place = os.path.relpath(os.path.join(cwd, run), os.path.join(self.folder, resumed_at))
        second = t.run("train", resumed_data or data, "--resume", place, "--epochs", "2",
                       cwd=os.path.join(self.folder, resumed_at))
        self.assertEqual(second.returncode, 0, second.stderr)
        self.assertIn("going on after epoch 1", second.stderr)
        with open(config, encoding="utf-8") as file:
            self.assertEqual(file.read(), before.replace("epochs = 1\n", "epochs = 2\n", 1))
        return before

    def test_folders_elsewhere(self):
        self.again("data", "--val", "more", "--test", "last")
        self.again(self.work / "data", "--val", "./more/", "--test", "../here/last")
        self.again("data", "--val", self.work / "more", resumed_data="./data/")
        self.again("data", "--test", "last", resumed_at=".", resumed_data=self.work / "data")

    def test_other_images_are_still_noticed(self):
        self.again("data", "--test", "last")
        sorted((self.work / "last").rglob("*.jpg"))[0].unlink()
        self.fail_with(1, "not those that this run began with", "train", "data", "--resume", "run",
                       "--epochs", "3", cwd=self.work)

    def test_manifests(self):
        rows = [f"{path.relative_to(self.work)},{path.parent.name}"
                for path in sorted((self.work / "data").rglob("*.jpg"))]
        (self.work / "m.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
        rows = [f"{self.work}/{row}" for row in rows]
        (self.work / "n.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
        for name in ("m.csv", "n.csv"):
            self.again(name, "--val", "more", resumed_data=f"../here/./{name}")

    def test_paths_of_any_bytes(self):
        # Bytes that are not UTF-8, and whatever else TOML and terminals care for.
        names = [os.fsdecode(b"caf\xe9 \xff\xfe %41"), "Größe 山 q\"\\'# = [x] file:%41\nend\x01\x1b[31m"]
        for name in names:
            base = self.work / name
            base.mkdir()
            shutil.copytree(self.work / "more", base / "more")
            shutil.copytree(self.work / "data", base / "data")
            shutil.copy(t.SOURCE / "data" / "vgg-mini.safetensors", base / "w.safetensors")
            config = self.again(f"{name}/data", "--val", f"{name}/more", "--cache-dir", f"{name}/cache",
                                "--weights", f"{name}/w.safetensors", run=f"{name}/run")
            self.assertEqual("file://" in config, name == names[0], config)

    def test_numbers(self):
        self.again("data", "--seed", "18446744073709551615", "--lr", "1e-12", "--cache-limit", "0.001")
        self.again("data", "--seed", "9223372036854775808", "--lr", "0.30000000000000004",
                   "--cache-limit", "100000")

    def test_every_option(self):
        self.again("data", "--val", "more", "--test", "last", "--exclude", "duplicates,leaks",
                   "--weights", "none", "--fine-tune", "all", "--batch-size", "5", "--optimizer", "sgd",
                   "--lr", "1e-05", "--augment", "hflip rotate:10.5", "--views", "0",
                   "--lr-decay-per-block", "0.1", "--ema", "0.9", "--weight-decay", "1e-09",
                   "--momentum", "0.123456789012345", "--beta2", "0.99", "--schedule", "cosine", "--warmup-epochs", "0.5",
                   "--label-smoothing", "0.05", "--clip-gradients", "1e9", "--class-weights", "balanced",
                   "--init", "glorot-uniform", "--device", "cpu", "--cache-dtype", "fp32", "--no-cache",
                   "--cache-limit", "0.5")
        self.again("data", "--test-split", "0.2", "--val-split", "0.25", "--head-lr", "0.01")

    def test_what_excludes_each_other(self):
        config = self.folder / "c.toml"
        config.write_text('val-split = 0.3\ntest-split = 0.2\n')
        done = t.run("train", "data", *FAST, "--config", config, "--val", "more", "--test", "last",
                     "--dry-run", cwd=self.work)
        self.assertEqual(done.returncode, 0, done.stderr)
        config.write_text('val = "more"\ntest = "last"\n')
        done = t.run("train", "data", *FAST, "--config", config, "--val-split", "0.3", "--test-split",
                     "0.2", "--dry-run", cwd=self.work)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_config_that_no_option_takes(self):
        config = self.folder / "c.toml"
        for text, word in (("seed = -1", "--seed"), ("lr = nan", "--lr"),
                           ("cache-limit = inf", "--cache-limit"), ("epochs = 1.5", "--epochs")):
            config.write_text(text + "\n")
            self.fail_with(2, word, "train", "data", "--config", config, cwd=self.work)

    def test_initialisation(self):
        tensors = {}
        for name, options in (("he", ()), ("glorot", ("--init", "glorot-uniform")),
                              ("notebook", ("--recipe", "notebook"))):
            run = self.folder / name
            # A rate of next to nothing leaves the weights where they began.
            self.succeed("train", self.work / "data", *options, *NETWORK, "--head", "flatten dense:64",
                         "--epochs", "1", "--lr", "1e-12", "--no-report", "-o", run)
            tensors[name], metadata = t.read_safetensors(run / "checkpoints" / "best.safetensors")
            want = "he-normal" if name == "he" else "glorot-uniform"
            self.assertIn(f"init = '{want}'", (run / "config.toml").read_text())
            self.assertIn(want, json.dumps(metadata))
        for name in ("glorot", "notebook"):
            for layer, weights in tensors[name].items():
                if layer.startswith("block") or weights.ndim != 2:
                    continue
                limit = (6 / sum(weights.shape)) ** 0.5
                self.assertLessEqual(abs(weights).max(), limit * 1.000001, layer)
                self.assertGreater(abs(weights).max(), limit * 0.95, layer)


class Dashboard(t.TestCase):
    def train(self, port, epochs):
        t.draw_scenes(self.folder / "@TITLE@", 8, size=32)
        process = subprocess.Popen(
            [t.GRAFT, "train", str(self.folder / "@TITLE@"), *FAST, "--fine-tune", "all", "--epochs",
             str(epochs), "-o", str(self.folder / "run"), "--dashboard", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def slow_clients(self, port, count=4):
        clients = []
        for _ in range(200):
            try:
                clients.append(socket.create_connection(("127.0.0.1", port), 1))
            except OSError:
                time.sleep(0.05)
            if len(clients) == count:
                break
        self.assertEqual(len(clients), count)
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        return clients

    def free_port(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def test_slow_clients_and_a_signal(self):
        port = self.free_port()
        process = self.train(port, 5000)
        clients = self.slow_clients(port)
        while not (self.folder / "run" / "checkpoints" / "state.safetensors").exists():
            self.assertIsNone(process.poll())
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < end:
            for client in clients:
                try:
                    client.sendall(b"x")
                except OSError:
                    pass
            time.sleep(0.2)
        self.assertEqual(process.poll(), 130, "the first signal ends it")

    def test_the_default_port(self):
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", 80))
        except OSError as error:
            self.skipTest(f"port 80: {error}")
        self.train(80, 5000)
        (client,) = self.slow_clients(80, 1)
        client.sendall(b"127.0.0.1\r\n\r\n")
        client.settimeout(5)
        self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200"))


if __name__ == "__main__":
    t.main()
