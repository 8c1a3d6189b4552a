"""Models to serve, and a server of its own on a free port, for the tests of graft serve."""
import atexit
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import graft_testing as t


def make_models():
    """A folder with photos in data/ and two small trained models, scenes and others; gone at the end. None: built
    without training."""
    if not t.HAS_TRAINING:
        return None
    base = pathlib.Path(tempfile.mkdtemp(prefix="graft-serve-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    t.draw_scenes(base / "data", 6)
    for name, seed in (("scenes", "1"), ("others", "2")):
        done = t.run("train", base / "data", "--backbone", "vgg-mini", "--epochs", "2", "--input-size", "48",
                     "-o", base / name, "--seed", seed, "--quiet", "--no-report")
        assert done.returncode == 0, done.stderr
    return base


class Server:
    """A server of its own on a free port, with what it writes."""

    def __init__(self, *arguments, env=None, limit=None):
        command = [str(a) for a in (t.GRAFT, "serve", *arguments, "--port", "0", "--json")]
        if limit:  # of descriptors
            command = ["prlimit", f"--nofile={limit}", *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, **(env or {})})
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()
        address = ""
        while not address.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, "".join(self.lines)
            address += line
        self.port = json.loads(address)["port"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body, parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            reply = connection.getresponse()
            content = reply.read()
            if reply.getheader("Content-Type") == "application/json" and content:
                content = json.loads(content)
            return reply.status, reply.headers, content
        finally:
            connection.close()

    def raw(self, data, wait=10):
        """What comes back for bytes as they are, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as link:
            link.sendall(data)
            out = b""
            try:
                while chunk := link.recv(65536):
                    out += chunk
            except (TimeoutError, ConnectionResetError):
                pass
            return out

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(timeout=60)


def form(files, fields=(), boundary="xYzZY"):
    out = b""
    for name, value in fields:
        out += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    for name, content in files:
        out += (f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
                "Content-Type: image/jpeg\r\n\r\n").encode() + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
