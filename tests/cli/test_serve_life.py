"""graft serve from start to end: tokens, models replaced, overload, clients that misbehave, stopping."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import graft_testing as t
from serve_testing import Server, form, make_models

TOKEN = "0123456789abcdef"
BASE = make_models()


@t.unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Life(t.TestCase):
    """Servers of their own."""

    def image(self):
        return sorted((BASE / "data").rglob("*.jpg"))[0].read_bytes()

    def test_token(self):
        token = self.folder / "token"
        token.write_text(TOKEN + "\n")
        for arguments, env in ((("--token-file", token), {}), ((), {"GRAFT_TOKEN": TOKEN})):
            with Server(BASE / "scenes", *arguments, env=env) as server:
                for path in ("/", "/healthz", "/openapi.json", "/v2/health/live"):
                    self.assertEqual(server.ask("GET", path)[0], 200)
                for path in ("/models", "/metrics", "/v2/models/scenes"):
                    status, headers, _ = server.ask("GET", path)
                    self.assertEqual((status, headers["WWW-Authenticate"]), (401, "Bearer"))
                    self.assertEqual(server.ask("GET", path, Authorization=f"Bearer {TOKEN}")[0], 200)
                self.assertEqual(server.ask("POST", "/predict", self.image(), Authorization="Bearer wrong")[0], 401)
                self.assertNotIn(TOKEN, "".join(server.lines))
        token.write_text("short")
        self.fail_with(1, "--token-file", "serve", BASE / "scenes", "--token-file", token, "--port", "0")
        self.fail_with(1, "GRAFT_TOKEN", "serve", BASE / "scenes", "--port", "0", env={**os.environ, "GRAFT_TOKEN": "a b"})

    def test_models_are_replaced_and_added(self):
        folder = self.folder / "models"
        folder.mkdir()
        shutil.copy(BASE / "scenes" / "model.safetensors", folder / "a.safetensors")
        with Server(folder) as server:
            def models():
                return {m["name"]: m["version"] for m in server.ask("GET", "/models")[2]["models"]}

            def wait(condition):
                deadline = time.time() + 30
                while not condition():
                    self.assertLess(time.time(), deadline)
                    time.sleep(0.1)
            before = models()
            self.assertEqual(list(before), ["a"])
            # A file that is no model leaves the old one in its place.
            (folder / "new").write_bytes(b"nonsense")
            os.replace(folder / "new", folder / "a.safetensors")
            wait(lambda: any("not reloaded" in line for line in list(server.lines)))
            self.assertEqual(models(), before)
            self.assertEqual(server.ask("POST", "/predict", self.image())[0], 200)
            shutil.copy(BASE / "others" / "model.safetensors", folder / "new")
            os.replace(folder / "new", folder / "a.safetensors")
            wait(lambda: models() != before)
            shutil.copytree(BASE / "scenes", folder / "b")
            wait(lambda: "b" in models())
            self.assertEqual(models()["b"], before["a"])
            self.assertEqual(server.ask("POST", "/predict?model=b", self.image())[2]["version"], before["a"])

    def test_a_model_that_is_cut_while_it_is_read(self):
        """As cp does it, which truncates first. The model that is there answers, maps and features too."""
        folder = self.folder / "models"
        folder.mkdir()
        model = folder / "a.safetensors"
        content = (BASE / "scenes" / "model.safetensors").read_bytes()
        model.write_bytes(content)
        with Server(folder) as server:
            version = server.ask("GET", "/models")[2]["models"][0]["version"]
            for length in (len(content) // 2, 0, 100, len(content), 0):
                with open(model, "r+b") as file:
                    file.truncate(0)
                    file.write(content[:length])
                for path in ("/predict?explain=true", "/features"):
                    status, _, got = server.ask("POST", path, self.image())
                    self.assertEqual((status, got["version"]), (200, version))
                time.sleep(0.7)
            model.unlink()
            self.assertEqual(server.ask("POST", "/predict?explain=true", self.image())[0], 200)
            self.assertNotIn("/proc/", "".join(server.lines))

    def test_a_log_that_nobody_reads(self):
        """Neither requests nor the end wait for it."""
        read, write = os.pipe()
        process = subprocess.Popen([str(t.GRAFT), "serve", str(BASE / "scenes"), "--port", "0", "--json"],
                                   stdout=subprocess.PIPE, stderr=write, text=True)
        os.close(write)
        address = ""
        while not address.endswith("}\n"):
            address += process.stdout.readline()
        port = json.loads(address)["port"]
        for _ in range(400):
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            link.request("GET", "/nothing" + "x" * 200)
            self.assertEqual(link.getresponse().status, 404)
            link.close()
        process.terminate()
        self.assertEqual(process.wait(timeout=20), 0)
        process.stdout.close()
        os.close(read)

    def test_few_descriptors(self):
        """More connections than a process may have files are turned away, not left waiting."""
        with Server(BASE / "scenes", limit=200) as server:
            links = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(150)]
            for link in links:
                link.sendall(b"GET / HTTP/1.1\r\nX: ")
            time.sleep(0.3)
            self.assertTrue(server.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 503"))
            for link in links:
                link.close()

    def test_stopping_finishes_what_is_in_flight(self):
        for sig in (signal.SIGTERM, signal.SIGINT):
            with Server(BASE / "scenes") as server:
                idle = socket.create_connection(("127.0.0.1", server.port))
                body, kind = form([(f"{i}.jpg", self.image()) for i in range(64)])
                answers = []
                threads = [threading.Thread(target=lambda: answers.append(
                    server.ask("POST", "/predict", body, Content_Type=kind)[0])) for _ in range(3)]
                for thread in threads:
                    thread.start()
                while b'graft_requests_in_flight 0\n' in server.ask("GET", "/metrics")[2] and not answers:
                    pass
                self.assertEqual(server.stop(sig), 0)
                for thread in threads:
                    thread.join()
                self.assertIn(200, answers)
                self.assertTrue(set(answers) <= {200, 503}, answers)
                idle.close()

    def test_too_much_at_once_is_answered_503(self):
        with Server(BASE / "scenes", "--max-images", "4", "--max-queue", "4", "--max-connections", "40") as server:
            body, kind = form([(f"{i}.jpg", self.image()) for i in range(4)])
            got = []

            def ask():
                try:
                    got.append(server.ask("POST", "/predict", body, Content_Type=kind)[:2])
                except (ConnectionError, http.client.HTTPException):
                    pass
            threads = [threading.Thread(target=ask) for _ in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            statuses = [status for status, _ in got]
            self.assertIn(200, statuses)
            self.assertTrue(set(statuses) <= {200, 503}, statuses)
            for status, headers in got:
                if status == 503:
                    self.assertTrue(int(headers["Retry-After"]) > 0)
            self.assertEqual(server.ask("POST", "/predict", body, Content_Type=kind)[0], 200)
            links = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
            time.sleep(0.3)
            turned_away = 0
            for link in links:
                link.setblocking(False)
                try:
                    turned_away += b"503" in link.recv(100)
                except BlockingIOError:
                    pass
                link.close()
            self.assertGreaterEqual(turned_away, 20)
            deadline = time.time() + 20
            while server.ask("GET", "/healthz")[0] != 200:
                self.assertLess(time.time(), deadline)

    def test_clients_that_hang_up_and_dawdle(self):
        with Server(BASE / "scenes", "--timeout", "2") as server:
            image = self.image()
            head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image)
            for _ in range(20):
                link = socket.create_connection(("127.0.0.1", server.port))
                link.sendall(head + image)
                link.close()
            slow = socket.create_connection(("127.0.0.1", server.port))
            slow.sendall(head + image[:10])
            begin = time.time()
            slow.settimeout(30)
            try:
                self.assertEqual(slow.recv(10), b"")
            except ConnectionResetError:
                pass
            self.assertLess(time.time() - begin, 20)
            slow.close()
            self.assertEqual(server.ask("POST", "/predict", image)[0], 200)
            deadline = time.time() + 20
            while b"graft_images_in_flight 0\n" not in server.ask("GET", "/metrics")[2]:
                self.assertLess(time.time(), deadline)

    def test_wrong_starts(self):
        (self.folder / "empty").mkdir()
        self.fail_with(1, "nowhere", "serve", self.folder / "nowhere")
        self.fail_with(1, "neither a run folder", "serve", self.folder / "empty")
        self.fail_with(2, "two models of the name 'scenes'", "serve", BASE / "scenes", BASE / "scenes")
        self.fail_with(2, "MODEL", "serve")
        self.fail_with(2, "--port", "serve", BASE / "scenes", "--port", "70000")
        self.fail_with(1, "not an IP address", "serve", BASE / "scenes", "--host", "example.com")
        with Server(BASE / "scenes") as server:
            self.fail_with(1, f"port {server.port}", "serve", BASE / "scenes", "--port", server.port)


if __name__ == "__main__":
    t.main()
