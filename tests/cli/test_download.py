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

    def drip(self, data, count=1, pause=0.1):
        """Some bytes at a time until the other side has had enough."""
        self.close_connection = True
        try:
            for i in range(0, len(data), count):
                self.wfile.write(data[i:i + count])
                self.wfile.flush()
                if self.server.stop_stalling.wait(pause):
                    return
        except OSError:
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
        if mode == "drip-headers":
            self.drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 10_000)
            return
        if mode == "many-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 100_000 + b"\r\n")
            self.close_connection = True
            return
        if self.headers.get("Range") and mode not in ("no-ranges",):
            start = int(self.headers["Range"].split("=")[1].split("-")[0])
            if mode == "no-range":
                self.send_error(416)
                return
            if mode == "other-start":
                start -= 10
            self.send_response(206)
            total = len(body) + (1 if mode == "other-total" else 0)
            if mode != "no-content-range":
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if mode == "truncate" and server.truncate:
            self.wfile.write(body[start:start + 100_000])
            self.close_connection = True
            return
        if mode in ("drip", "bursts"):
            self.drip(body, *((1, 0.1) if mode == "drip" else (50, 0.5)))
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

    def command(self, mode, size=len(BODY), *more):
        url = f"http://127.0.0.1:{self.server.server_port}/{mode}"
        return [str(t.TOOLS / "download_probe"), url, str(self.target), MD5, str(size), *more]

    def fetch(self, mode, *more):
        return subprocess.run(self.command(mode, *more), capture_output=True, text=True, timeout=60)

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

    def test_a_size_that_is_known_to_some_bytes(self):
        """What ends within them is right by its hash, also where an earlier try left it so."""
        for size in (len(BODY) - 900, len(BODY), len(BODY) + 900):
            self.target.unlink(missing_ok=True)
            done = self.fetch("good", size, "1000")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.target.read_bytes(), BODY)
        self.target.rename(self.part)
        requests = len(self.server.requests)
        self.assertEqual(self.fetch("good", len(BODY) + 900, "1000").returncode, 0)
        self.assertEqual(len(self.server.requests), requests)
        self.target.unlink()
        # A part that lacks no more than that is gone on from.
        self.part.write_bytes(BODY[:-500])
        self.assertEqual(self.fetch("good", len(BODY) + 400, "1000").returncode, 0)
        self.assertEqual(self.target.read_bytes(), BODY)
        self.target.unlink()
        for size in (len(BODY) - 1100, len(BODY) + 1100):
            done = self.fetch("good", size, "1000")
            self.assertEqual(done.returncode, 1)
            self.assertFalse(self.target.exists())

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
        for mode, text in (("lie", "is not the file"), ("page", ""), ("missing", "404")):
            self.refuse(mode, text)
            self.assertFalse(self.part.exists(), mode)
        self.refuse("long", "more than")

    def test_stall(self):
        start = time.monotonic()
        self.refuse("stall", "")
        self.assertLess(time.monotonic() - start, 15)

    def test_drip(self):
        """A server that sends a byte now and then is given up like one that sends none."""
        for mode in ("drip", "bursts", "drip-headers"):
            start = time.monotonic()
            self.refuse(mode, "the server sent less than")
            self.assertLess(time.monotonic() - start, 15, mode)
        self.refuse("many-headers", "")

    def test_content_range_is_checked(self):
        """A part that is not the one asked for is not appended: the whole file is fetched."""
        for mode in ("other-start", "other-total", "no-content-range", "no-range"):
            self.target.unlink(missing_ok=True)
            self.part.parent.mkdir(exist_ok=True)
            self.part.write_bytes(BODY[:1000])
            self.server.requests.clear()
            self.assertEqual(self.fetch(mode).returncode, 0, mode)
            self.assertEqual([r[1] for r in self.server.requests], ["bytes=1000-", None], mode)
            self.assertEqual(self.target.read_bytes(), BODY)

    def test_page_leaves_nothing(self):
        """A page in place of the file does not become its beginning."""
        self.refuse("page", "bytes instead of")
        self.assertEqual(self.fetch("good").returncode, 0)
        self.assertEqual(self.server.requests[-1][1], None)

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
