"""Hostile requests against a running `graft serve`: seeds, cut, flipped, repeated and glued together.

    python3 tests/robustness/hostile_requests.py PORT IMAGE [--count 10000] [--seed 0]

Each must be answered with a status below 500 (503 apart), or by closing the connection, within ten seconds; the server must
answer a proper request after every hundred. Prints how often each status came."""
import argparse
import collections
import json
import pathlib
import random
import socket
import struct
import sys


def seeds(image):
    host = b"Host: localhost\r\n"

    def post(path, body, *headers):
        lines = b"".join(h + b"\r\n" for h in (b"Content-Length: %d" % len(body), *headers))
        return b"POST " + path + b" HTTP/1.1\r\n" + host + lines + b"\r\n" + body
    form = (b'--b\r\nContent-Disposition: form-data; name="top"\r\n\r\n2\r\n--b\r\nContent-Disposition: form-data; '
            b'name="image"; filename="../../x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + image + b"\r\n--b--\r\n")
    pixels = json.dumps({"inputs": [{"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8",
                                     "data": list(range(12))}]}).encode()
    files = struct.pack("<I", len(image)) + image
    head = json.dumps({"inputs": [{"name": "encoded", "shape": [1], "datatype": "BYTES",
                                   "parameters": {"binary_data_size": len(files)}}]}).encode()
    chunks = b"%x\r\n" % len(image) + image + b"\r\n0\r\n\r\n"
    yield from (b"GET " + path + b" HTTP/1.1\r\n" + host + b"\r\n"
                for path in (b"/", b"/models", b"/metrics", b"/openapi.json", b"/v2/models/%2e%2e%2fetc", b"/../../etc/passwd",
                             b"http://evil/", b"/v2/models/scenes/versions/1/ready", b"/predict?" + b"a=1&" * 500))
    yield post(b"/predict", image, b"Content-Type: image/jpeg")
    yield post(b"/predict?explain=1&top=99999999999999999999", image)
    yield post(b"/predict", form, b"Content-Type: multipart/form-data; boundary=b")
    yield post(b"/features?pool=none", form, b"Content-Type: multipart/form-data; boundary=b")
    yield post(b"/v2/models/scenes/infer", pixels)
    yield post(b"/v2/models/scenes/infer", b'{"inputs":' + b"[" * 5000)
    yield post(b"/v2/models/scenes/infer", head + files, b"Inference-Header-Content-Length: %d" % len(head))
    yield b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    yield b"POST /predict HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunks
    yield b"POST /predict HTTP/1.1\r\n" + host + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"


def mutated(rng, corpus):
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((0, 1, 1, 2, 8))):
        kind, at = rng.randrange(7), rng.randrange(len(data) + 1)
        # Headers are more of interest than pixels.
        at = at if rng.random() < 0.3 else min(at, rng.randrange(400))
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif kind == 3:
            data[at:at] = rng.choice((b"\r\n", b"\n", b"\0", b" ", b":", b"%00", b"%", b"..", b"\xff\xfe", b'"', b"--b\r\n",
                                      b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n", b"{", b"1e999"))
        elif kind == 4:
            end = min(len(data), at + rng.randrange(1, 64))
            data[at:at] = data[at:end] * rng.randrange(1, 40)
        elif kind == 5:
            data += rng.choice(corpus)
        else:
            del data[at:at + rng.randrange(1, 64)]
    return bytes(data)


def status_of(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        try:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            reply = link.recv(4096)
            while reply.startswith(b"HTTP/1.1 100"):
                reply = reply.split(b"\r\n\r\n", 1)[1] or link.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        return int(reply[9:12]) if reply.startswith(b"HTTP/1.1 ") else "closed"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("image", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    corpus, rng = list(seeds(o.image.read_bytes())), random.Random(o.seed)
    seen, bad = collections.Counter(), 0
    for number in range(o.count):
        data = mutated(rng, corpus)
        try:
            status = status_of(o.port, data)
        except TimeoutError:
            status = "no answer"
        seen[status] += 1
        if status == "no answer" or (isinstance(status, int) and status >= 500 and status != 503):
            bad += 1
            print(f"request {number}: {status}: {data[:200]!r}", flush=True)
        if number % 100 == 99:
            assert status_of(o.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == 200
    print(dict(sorted(seen.items(), key=str)))
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
