"""graft serve: answers, refusals and limits, over sockets."""
import base64
import io
import json
import shutil
import socket
import struct
import subprocess
import time

import graft_testing as t
import numpy as np
from PIL import Image
from serve_testing import Server, form, make_models

BASE = make_models()


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Serve(t.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(BASE / "scenes", f"other={BASE / 'others'}", "--max-images", "8", "--max-body", "2",
                            "--max-megapixels", "4", "--allow-host", "photos.example")
        cls.images = sorted((BASE / "data").rglob("*.jpg"))[:12]

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def post(self, path, files, fields=(), **headers):
        body, kind = form([(p.name, p.read_bytes()) for p in files], fields)
        return self.server.ask("POST", path, body, Content_Type=kind, **headers)

    def test_answers_are_those_of_predict(self):
        for model, folder in (("", "scenes"), ("?model=other", "others")):
            status, _, got = self.post(f"/predict{model}", self.images[:8])
            self.assertEqual(status, 200)
            want = self.succeed_json("predict", BASE / folder, *self.images[:8], "--json", "--top", "5", "--logits")
            for g, w in zip(got["predictions"], want["predictions"]):
                self.assertEqual(g["label"], w["label"])
                self.assertEqual([r["label"] for r in g["top"]], [r["label"] for r in w["top"]])
                for a, b in zip(g["top"], w["top"]):
                    self.assertAlmostEqual(a["probability"], b["probability"], delta=1e-5)
            self.assertEqual([g["name"] for g in got["predictions"]], [p.name for p in self.images[:8]])
        status, _, got = self.server.ask("POST", "/predict?top=2&logits=true", self.images[0].read_bytes(),
                                         Content_Type="image/jpeg")
        self.assertEqual((status, len(got["predictions"][0]["top"])), (200, 2))
        want = self.succeed_json("predict", BASE / "scenes", self.images[0], "--json", "--logits")
        np.testing.assert_allclose(got["predictions"][0]["logits"], want["predictions"][0]["logits"], atol=1e-5)
        status, _, got = self.post("/predict", self.images[:1], [("top", "1"), ("model", "other")])
        self.assertEqual((got["model"], len(got["predictions"][0]["top"])), ("other", 1))

    def test_every_format(self):
        """Also those that graft-read-image decodes for the server."""
        files = []
        for path, suffix in zip(self.images, ("bmp", "gif", "tiff", "png", "webp")):
            files.append(self.folder / f"{path.stem}.{suffix}")
            Image.open(path).save(files[-1])
        for suffix, options in (("heic", []), ("avif", ["-A"])):
            if shutil.which("heif-enc"):
                files.append(self.folder / f"x.{suffix}")
                subprocess.run(["heif-enc", *options, "-o", files[-1], files[3]], check=True, capture_output=True)
        status, _, got = self.post("/predict?logits=true", files)
        self.assertEqual(status, 200, got)
        want = self.succeed_json("predict", BASE / "scenes", *files, "--json", "--logits")
        for g, w in zip(got["predictions"], want["predictions"]):
            np.testing.assert_allclose(g["logits"], w["logits"], atol=1e-5)
        status, _, got = self.server.ask("POST", "/predict", files[0].read_bytes()[:-9], Content_Type="image/bmp")
        self.assertEqual(status, 422)
        self.assertIn("damaged BMP", json.dumps(got))

    def test_images_that_come_together_are_one_batch(self):
        def counts():
            text = self.server.ask("GET", "/metrics")[2].decode()
            return [int(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[1])
                    for name in ("graft_batches_total", "graft_batch_images_total")]
        batches, images = counts()
        self.assertEqual(self.post("/predict", self.images[:8])[0], 200)
        after = counts()
        self.assertEqual(after[1] - images, 8)
        self.assertLess(after[0] - batches, 8)

    def test_explanations(self):
        status, _, got = self.post("/predict?explain=true", self.images[:2])
        self.assertEqual(status, 200)
        self.succeed("predict", BASE / "scenes", *self.images[:2], "--explain", self.folder / "maps", "--quiet")
        for p, path in zip(got["predictions"], self.images):
            head, data = p["explanation"].split(",")
            self.assertEqual(head, "data:image/png;base64")
            served = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
            given = Image.open(path).convert("RGB")
            self.assertEqual(served.size, given.size)
            # The sheet of `predict` has the same map on its right, on the image made larger.
            sheet = Image.open(self.folder / "maps" / f"{path.stem}.png").convert("RGB")
            side = (sheet.width - 4) // 2
            drawn = sheet.crop((sheet.width - side, 0, sheet.width, side)).resize(given.size, Image.BILINEAR)
            served, drawn, given = (np.asarray(image, float) for image in (served, drawn, given))
            self.assertLess(np.abs(served - drawn).mean(), np.abs(served - given).mean() / 3)

    def test_one_bad_file_among_good_ones(self):
        bad = self.folder / "bad.jpg"
        bad.write_bytes(self.images[0].read_bytes()[:500])
        huge = self.folder / "huge.png"
        Image.new("L", (3000, 2000)).save(huge)
        status, _, got = self.post("/predict", [self.images[0], bad, huge, self.images[1]])
        self.assertEqual(status, 200)
        rows = got["predictions"]
        self.assertIn("label", rows[0])
        self.assertIn("bad.jpg", rows[1]["error"])
        self.assertIn("megapixels", rows[2]["error"].replace("million pixels", "megapixels"))
        self.assertIn("label", rows[3])
        self.assertEqual(self.server.ask("POST", "/predict", b"no image")[0], 422)

    def test_features_are_those_of_the_backbone(self):
        status, _, got = self.post("/features", self.images[:3])
        self.assertEqual(status, 200)
        out = self.folder / "x.npy"
        self.succeed("features", *self.images[:3], "--backbone", "vgg-mini", "--weights", BASE / "scenes", "--pool",
                     "gap", "--input-size", "48", "-o", out)
        np.testing.assert_allclose([r["values"] for r in got["features"]], np.load(out), atol=1e-5)
        self.assertEqual(got["shape"], [np.load(out).shape[1]])
        status, _, got = self.post("/features?pool=none", self.images[:1])
        self.assertEqual(len(got["features"][0]["values"]), np.prod(got["shape"]))
        self.assertEqual(self.post("/features?pool=max", self.images[:1])[0], 400)

    def test_open_inference_protocol(self):
        ask = self.server.ask
        self.assertEqual(ask("GET", "/v2")[2]["name"], "graft")
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/scenes/ready"):
            self.assertEqual(ask("GET", path)[0], 200)
        about = ask("GET", "/v2/models/scenes")[2]
        self.assertEqual(about["inputs"][0]["datatype"], "UINT8")
        version = about["versions"][0]
        self.assertEqual(ask("GET", f"/v2/models/scenes/versions/{version}")[0], 200)
        self.assertEqual(ask("GET", "/v2/models/scenes/versions/1")[0], 404)
        pixels = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in self.images[:2]])
        want = self.succeed_json("predict", BASE / "scenes", *self.images[:2], "--json", "--logits")
        request = {"id": "x", "inputs": [{"name": "image", "shape": list(pixels.shape), "datatype": "UINT8",
                                          "data": pixels.ravel().tolist()}]}
        status, _, got = ask("POST", "/v2/models/scenes/infer", json.dumps(request))
        self.assertEqual((status, got["id"]), (200, "x"))
        outputs = {o["name"]: o for o in got["outputs"]}
        self.assertEqual(outputs["label"]["data"], [p["label"] for p in want["predictions"]])
        np.testing.assert_allclose(outputs["logits"]["data"], np.ravel([p["logits"] for p in want["predictions"]]),
                                   atol=1e-5)
        files = b"".join(struct.pack("<I", p.stat().st_size) + p.read_bytes() for p in self.images[:2])
        request = {"inputs": [{"name": "encoded", "shape": [2], "datatype": "BYTES",
                               "parameters": {"binary_data_size": len(files)}}],
                   "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}
        head = json.dumps(request).encode()
        status, headers, got = ask("POST", f"/v2/models/scenes/versions/{version}/infer", head + files,
                                   Inference_Header_Content_Length=str(len(head)))
        self.assertEqual(status, 200)
        got = got[int(headers["Inference-Header-Content-Length"]):]
        np.testing.assert_allclose(np.frombuffer(got, "<f4"), np.ravel([p["logits"] for p in want["predictions"]]),
                                   atol=1e-5)
        for body in (b"", b"{", b"[]", b'{"inputs": 3}', b"[" * 100_000, json.dumps(request).encode()):
            status, _, got = ask("POST", "/v2/models/scenes/infer", body)
            self.assertEqual(status, 400, body[:20])
            self.assertIn("error", got)
        self.assertEqual(ask("POST", "/v2/models/nobody/infer", b"{}")[0], 404)

    def test_pages_and_probes(self):
        ask = self.server.ask
        status, headers, page = ask("GET", "/")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn("script-src 'self'", headers["Content-Security-Policy"])
        self.assertNotIn(b"http", page.replace(b"http-equiv", b""))
        for path, kind in (("/app.js", "text/javascript"), ("/style.css", "text/css"), ("/openapi.json", "application/json")):
            self.assertTrue(ask("GET", path)[1]["Content-Type"].startswith(kind))
        for path in ("/healthz", "/readyz"):
            self.assertEqual(ask("GET", path)[2], b"ok\n")
        models = ask("GET", "/models")[2]["models"]
        self.assertEqual([m["name"] for m in models], ["scenes", "other"])
        self.assertEqual(len(models[0]["labels"]), 6)
        self.assertTrue(models[0]["card"])
        self.assertRegex(ask("GET", "/metrics")[2].decode(), r"graft_requests_total\{route=\"page\",status=\"200\"\} \d")
        for path, parts in json.loads(json.dumps(ask("GET", "/openapi.json")[2]))["paths"].items():
            if "get" in parts:
                self.assertEqual(ask("GET", path.replace("{model}", "other"))[0], 200, path)
        head = self.server.raw(b"HEAD /models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        self.assertTrue(head.endswith(b"\r\n\r\n"))
        self.assertIn(b"Content-Length: ", head)

    def test_refusals(self):
        ask, image = self.server.ask, self.images[0].read_bytes()
        for method, path, body, headers, status in (
                ("GET", "/nothing", None, {}, 404), ("GET", "/../etc/passwd", None, {}, 400),
                ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", None, {}, 404), ("GET", "/%00", None, {}, 400),
                ("GET", "/predict", None, {}, 405), ("DELETE", "/models", None, {}, 405), ("POST", "/", b"x", {}, 405),
                ("TRACE", "/", None, {}, 405), ("GET", "/", None, {"Host": "evil.example"}, 403),
                ("GET", "/", None, {"Host": "photos.example"}, 200), ("GET", "/healthz", None, {"Host": "x"}, 200),
                ("POST", "/predict", image, {"Origin": "http://evil.example"}, 403),
                ("POST", "/predict", image, {"Origin": f"http://127.0.0.1:{self.server.port}"}, 200),
                ("POST", "/predict", image, {"Content-Type": "application/json"}, 415),
                ("POST", "/predict", image, {"Content-Encoding": "gzip"}, 415),
                ("POST", "/predict", b"", {}, 400), ("POST", "/predict?nonsense=1", image, {}, 400),
                ("POST", "/predict?top=0", image, {}, 400), ("POST", "/predict?top=1&top=2", image, {}, 400),
                ("POST", "/predict?explain=maybe", image, {}, 400), ("POST", "/predict?model=x", image, {}, 404),
                ("POST", "/predict", b"x", {"Content-Type": "multipart/form-data"}, 415),
                ("POST", "/predict", b"x", {"Content-Type": "multipart/form-data; boundary=a"}, 400),
                ("POST", "/predict", b"x" * 2_100_000, {}, 413)):
            got, _, content = ask(method, path, body, **headers)
            self.assertEqual(got, status, (method, path, headers))
            if status >= 400:
                self.assertIn("error", content)
        self.assertEqual(self.post("/predict", self.images[:9])[0], 413)
        # The server is none the worse.
        self.assertEqual(self.post("/predict", self.images[:1])[0], 200)

    def test_malformed_requests(self):
        host = b"Host: localhost\r\n"
        for text, status in (
                (b"nonsense\r\n\r\n", 400), (b"GET / HTTP/9.9\r\n" + host + b"\r\n", 400),
                (b"GET / HTTP/1.1\r\n\r\n", 403), (b"GET / HTTP/1.1\r\n" + host * 2 + b"\r\n", 400),
                (b"GET / HTTP/1.1\r\n" + host + b"A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n", 400),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Content-Length: 9999999999\r\n\r\n", 413),
                (b"POST /predict HTTP/1.1\r\n" + host + b"Expect: nonsense\r\nContent-Length: 1\r\n\r\n", 417),
                (b"GET / HTTP/1.1\r\n" + host + b"Bad Name: x\r\n\r\n", 400)):
            reply = self.server.raw(text)
            self.assertTrue(reply.startswith(f"HTTP/1.1 {status} ".encode()), (text[:80], reply[:80]))
        chunks = b"POST /predict HTTP/1.1\r\nConnection: close\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
        image = self.images[0].read_bytes()
        for at in range(0, len(image), 1000):
            part = image[at:at + 1000]
            chunks += f"{len(part):x}\r\n".encode() + part + b"\r\n"
        reply = self.server.raw(chunks + b"0\r\n\r\n")
        self.assertTrue(reply.startswith(b"HTTP/1.1 200 "), reply[:100])
        big = self.server.raw(b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" +
                              (b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 3)
        self.assertTrue(big.startswith(b"HTTP/1.1 413 "), big[:100])
        # Two requests on one connection, and one that comes before the first is answered.
        two = self.server.raw((b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n") * 2 + b"GET /healthz HTTP/1.1\r\n" + host +
                              b"Connection: close\r\n\r\n")
        self.assertEqual(two.count(b"HTTP/1.1 200 OK"), 3)
        go_on = self.server.raw(b"POST /predict HTTP/1.1\r\n" + host + b"Expect: 100-continue\r\nConnection: close\r\n"
                                b"Content-Length: " + str(len(image)).encode() + b"\r\n\r\n" + image)
        self.assertTrue(go_on.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), go_on[:100])

    def test_nothing_is_buffered_without_bounds(self):
        """Extensions of chunks, their sizes' digits, trailers: refused after some KB."""
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for begin, byte in ((head + b"1;", b"x"), (head + b"0", b"0"), (head + b"0\r\nX: ", b"x")):
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as link:
                link.sendall(begin)
                with self.assertRaises(OSError):
                    for _ in range(1000):
                        link.sendall(byte * (1 << 20))
        body = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde"
        self.assertTrue(self.server.raw(body).startswith(b"HTTP/1.1 400 "))

    def test_bodies_that_do_not_come_take_no_place(self):
        links = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(200)]
        for link in links:
            link.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n")
        self.assertEqual(self.post("/predict", self.images[:1])[0], 200)
        for link in links:
            link.close()

    def test_pixels_of_tensors_are_limited(self):
        request = {"inputs": [{"name": "image", "shape": [1, 2000, 2001, 3], "datatype": "UINT8",
                               "parameters": {"binary_data_size": 0}}]}
        status, _, got = self.server.ask("POST", "/v2/models/scenes/infer", json.dumps(request))
        self.assertEqual(status, 400)
        numbers = {"inputs": [{"name": "image", "shape": [1, 413, 413, 3], "datatype": "UINT8", "data": [0] * 511_707}]}
        self.assertEqual(self.server.ask("POST", "/v2/models/scenes/infer", json.dumps(numbers))[0], 400)

    def test_log_is_json_without_contents(self):
        marker = "marker-of-this-test"
        self.server.ask("POST", f"/predict?x={marker}", b"secret pixels")
        deadline = time.time() + 20
        while not any(marker in line for line in list(self.server.lines)):
            self.assertLess(time.time(), deadline)
            time.sleep(0.05)
        for line in list(self.server.lines):
            record = json.loads(line)
            self.assertIn("event", record)
            self.assertNotIn("secret", line)
            if record["event"] == "request":
                self.assertIn("id", record)


if __name__ == "__main__":
    t.main()
