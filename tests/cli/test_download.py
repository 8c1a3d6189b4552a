"""Downloads from a local server that truncates, stalls, redirects and lies."""
import hashlib
import http.server
import os
import signal
import subprocess
import threading
import time

import graft_testing as t

BODY = os.urandom(300_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        mode = self.path.strip("/")
        if mode == "redirect":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if mode == "loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if mode == "to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if mode == "missing":
            self.send_error(404)
            return
        body = BODY
        if mode == "lie":
            body = BODY[:-1] + bytes([BODY[-1] ^ 1])
        if mode == "long":
            body = BODY + b"more"
        if mode == "page":
            body = b"<html>sign in to the hotel network</html>"
        start = 0
        if self.headers.get("Range") and mode not in ("no-ranges",):
            start = int(self.headers["Range"].split("=")[1].split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if mode == "truncate" and server.truncate:
            self.wfile.write(body[start:start + 100_000])
            self.close_connection = True
            return
        if mode == "stall":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            server.stop_stalling.wait(30)
            self.close_connection = True
            return
        self.wfile.write(body[start:])


class Download(t.TestCase):
    def setUp(self):
        super().setUp()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.requests = []
        self.server.truncate = True
        self.server.stop_stalling = threading.Event()
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.addCleanup(self.server.stop_stalling.set)
        self.target = self.folder / "cache" / "file.h5"
        self.part = self.folder / "cache" / "file.h5.part"

    def command(self, mode):
        url = f"http://127.0.0.1:{self.server.server_port}/{mode}"
        return [str(t.TOOLS / "download_probe"), url, str(self.target), MD5, str(len(BODY))]

    def fetch(self, mode):
        return subprocess.run(self.command(mode), capture_output=True, text=True, timeout=60)

    def refuse(self, mode, text):
        done = self.fetch(mode)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(text, done.stderr)
        self.assertFalse(self.target.exists())
        self.assertIn(MD5, done.stderr)
        self.assertIn(str(self.target), done.stderr)

    def test_good(self):
        self.assertEqual(self.fetch("good").returncode, 0)
        self.assertEqual(self.target.read_bytes(), BODY)
        self.assertFalse(self.part.exists())

    def test_redirect(self):
        self.assertEqual(self.fetch("redirect").returncode, 0)
        self.assertEqual(self.target.read_bytes(), BODY)
        self.refuse_fresh("loop", "redirect")
        self.refuse_fresh("to-file", "")

    def refuse_fresh(self, mode, text):
        self.target.unlink(missing_ok=True)
        self.refuse(mode, text)

    def test_truncated_then_resumed(self):
        self.refuse("truncate", "")
        self.assertEqual(self.part.stat().st_size, 100_000)
        self.server.truncate = False
        self.assertEqual(self.fetch("truncate").returncode, 0)
        self.assertEqual(self.server.requests[-1][1], "bytes=100000-")
        self.assertEqual(self.target.read_bytes(), BODY)

    def test_server_without_ranges_starts_again(self):
        self.refuse("truncate", "")
        self.assertEqual(self.fetch("no-ranges").returncode, 0)
        self.assertEqual(self.target.read_bytes(), BODY)

    def test_wrong_beginning_is_thrown_away(self):
        self.part.parent.mkdir()
        self.part.write_bytes(b"x" * 1000)
        self.refuse("good", "is not the file")
        self.assertEqual(self.fetch("good").returncode, 0)
        self.assertEqual(self.target.read_bytes(), BODY)

    def test_lies(self):
        self.refuse("lie", "is not the file")
        self.refuse("long", "more than")
        self.refuse("page", "")
        self.refuse("missing", "404")

    def test_stall(self):
        start = time.monotonic()
        self.refuse("stall", "")
        self.assertLess(time.monotonic() - start, 15)

    def test_nobody_listens(self):
        self.server.shutdown()
        self.server.server_close()
        self.refuse("good", "connect")

    def test_interrupt(self):
        process = subprocess.Popen(self.command("stall"), stderr=subprocess.PIPE, text=True)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
        self.assertEqual(process.returncode, 130, stderr)
        self.assertFalse(self.target.exists())


if __name__ == "__main__":
    t.main()
