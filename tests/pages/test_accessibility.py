"""Every page of Graft under axe-core: on a phone's and a screen's width, light and dark."""
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import graft_testing as t
from browser import axe_faults, axe_script, make_runs, open_browser, scheme, skip_without_browser, visit

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)
skip_without_browser()
AXE = axe_script()
if not AXE:
    print("SKIPPED: needs axe-core: GRAFT_AXE=.../axe.min.js, or the Python package axe-playwright-python "
          "(make interop runs this with it)")
    sys.exit(77)

BASE = None
BROWSER = None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def setUpModule():
    """Two runs on data with copies."""
    global BASE, BROWSER
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-accessible-"))
    make_runs(BASE, {"one": 1, "two": 3})
    BROWSER = open_browser()


def tearDownModule():
    if BROWSER:
        BROWSER.quit()
    shutil.rmtree(BASE, ignore_errors=True)


class Accessible(t.TestCase):
    def check(self, url, ready=lambda: None):
        self.addCleanup(scheme, BROWSER, "")
        for name in ("light", "dark"):
            scheme(BROWSER, name)
            for width in (390, 1440):
                with self.subTest(url=url, scheme=name, width=width):
                    self.assertEqual(visit(BROWSER, url, width), [])
                    ready()
                    self.assertEqual(axe_faults(BROWSER, AXE), [])

    def started(self, *arguments):
        process = subprocess.Popen([t.GRAFT, *map(str, arguments)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def wait(self, port):
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.fail("no server")

    def test_report(self):
        self.check((BASE / "one" / "report.html").as_uri(), lambda: BROWSER.execute_script(
            "for (const d of document.querySelectorAll('details')) d.open = true"))

    def test_enlarged_photo(self):
        self.check((BASE / "one" / "report.html").as_uri(), lambda: BROWSER.execute_script(
            "document.querySelector('button.frame').click()"))

    def test_check(self):
        self.succeed("check", BASE / "data", "--html", self.folder / "check.html")
        self.check((self.folder / "check.html").as_uri())

    def test_doubtful_labels(self):
        page = self.folder / "labels.html"
        mixed = self.folder / "data"
        shutil.copytree(BASE / "data" / "train", mixed)
        for i, photo in enumerate(sorted((mixed / "sea").iterdir())[:4]):
            photo.rename(mixed / "street" / f"wet-{i}.jpg")
        self.succeed("check", mixed, "--backbone", "vgg-mini", "--html", page, "--no-cache")
        self.check(page.as_uri())

    def test_gallery(self):
        page = self.folder / "gallery.html"
        self.succeed("predict", BASE / "one", BASE / "data" / "test", "--unsure", "0.6", "-o", page)
        self.check(page.as_uri())

    def test_compare(self):
        self.succeed("compare", BASE / "one", BASE / "two", "--html", self.folder / "compare.html")
        self.check((self.folder / "compare.html").as_uri())

    def test_dashboard(self):
        port = free_port()
        self.started("train", BASE / "data", "--backbone", "vgg-mini", "--head", "gap", "--fine-tune", "all",
                     "--epochs", 2000, "-o", self.folder / "r", "--quiet", "--dashboard", port)
        self.wait(port)

        def ready():
            for _ in range(600):
                if BROWSER.find_elements("css selector", "#mistakes img"):
                    return
                time.sleep(0.1)
            self.fail("no mistakes")
        self.check(f"http://127.0.0.1:{port}/", ready)

    def test_serve(self):
        port = free_port()
        self.started("serve", BASE / "two", "--host", "127.0.0.1", "--port", port)
        self.wait(port)
        photo = next((BASE / "data" / "test" / "sea").iterdir())

        def ready():
            BROWSER.find_element("id", "files").send_keys(str(photo))
            for _ in range(100):
                if BROWSER.find_elements("css selector", ".bars:not([hidden]) li"):
                    return
                time.sleep(0.1)
            self.fail("not classified")
        self.check(f"http://127.0.0.1:{port}/", ready)


if __name__ == "__main__":
    t.main()
