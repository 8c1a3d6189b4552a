"""Graft's pages in a real browser, on a phone's and a screen's width: no error, no request to
anywhere, nothing cut off."""
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import graft_testing as t
from browser import open_browser, skip_without_browser, visit

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)
skip_without_browser()

WIDTHS = (360, 768, 1280)
BASE = None
BROWSER = None


def setUpModule():
    """A run with an awkward class name, on data with copies."""
    global BASE, BROWSER
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-pages-"))
    for split, count, seed in (("train", 12, 0), ("test", 5, 500)):
        t.draw_scenes(BASE / "data" / split, count, first_seed=seed)
        (BASE / "data" / split / "sea").rename(
            BASE / "data" / split / "sea <b>&amp; a_very_long_name_without_any_place_to_break_it")
    shutil.copy(BASE / "data" / "train" / "street" / "0.jpg",
                BASE / "data" / "test" / "forest" / "copy.jpg")
    for name, epochs in (("one", 1), ("two", 5)):
        done = t.run("train", BASE / "data", "--backbone", "vgg-mini", "--input-size", "64", "--epochs",
                     epochs, "-o", BASE / name, "--quiet")
        assert done.returncode == 0, done.stderr
    BROWSER = open_browser()


def tearDownModule():
    if BROWSER:
        BROWSER.quit()
    shutil.rmtree(BASE, ignore_errors=True)


class Pages(t.TestCase):
    def sound(self, page):
        for width in WIDTHS:
            self.assertEqual(visit(BROWSER, page.as_uri(), width), [], f"{page.name} at {width}")

    def test_report(self):
        self.sound(BASE / "two" / "report.html")
        text = BROWSER.find_element("tag name", "body").text
        self.assertIn("sea <b>&amp; a_very_long", text)
        # Every chart says what it shows.
        bare = BROWSER.execute_script(
            "return [...document.querySelectorAll('svg')].filter(s => !s.querySelector('title')"
            " || !s.getAttribute('aria-label')).length")
        self.assertEqual(bare, 0)

    def test_one_epoch(self):
        self.sound(BASE / "one" / "report.html")

    def test_dark(self):
        BROWSER.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        self.addCleanup(BROWSER.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        visit(BROWSER, (BASE / "two" / "report.html").as_uri(), 768)
        shade = BROWSER.execute_script("return getComputedStyle(document.body).backgroundColor")
        self.assertEqual(shade, "rgb(22, 24, 27)")

    def test_check(self):
        page = self.folder / "check.html"
        self.succeed("check", BASE / "data", "--html", page)
        self.sound(page)
        self.assertIn("Identical files in training and test data",
                      BROWSER.find_element("tag name", "body").text)

    def test_check_of_labels(self):
        page = self.folder / "labels.html"
        self.succeed("check", BASE / "data", "--backbone", "vgg-mini", "--input-size", "64", "--html", page)
        self.sound(page)
        section = BROWSER.find_element("id", "label_errors")
        self.assertIn("Labels that are probably wrong", section.text)
        images = section.find_elements("tag name", "img")
        self.assertGreater(len(images), 0)
        self.assertEqual([i for i in images if not i.get_attribute("alt").startswith("labelled ")], [])

    def test_compare(self):
        page = self.folder / "compare.html"
        self.succeed("compare", BASE / "one", BASE / "two", "--html", page)
        self.sound(page)

    def test_dashboard(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [t.GRAFT, "train", str(BASE / "data"), "--backbone", "vgg-mini", "--head", "gap",
             "--fine-tune", "all", "--epochs", "400", "-o", str(self.folder / "r"), "--quiet",
             "--dashboard", str(port)], stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for _ in range(1000):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        for width in WIDTHS:
            self.assertEqual(visit(BROWSER, f"http://127.0.0.1:{port}/", width), [])
        for _ in range(1200):  # programs with sanitizers take their time
            if len(BROWSER.find_elements("css selector", "#charts svg polyline")) == 5:
                break
            time.sleep(0.1)
        self.assertIn("of 400", BROWSER.find_element("id", "status").text)
        self.assertEqual(len(BROWSER.find_elements("css selector", "#charts svg polyline")), 5)
        process.kill()
        process.wait()
        for _ in range(50):
            if "ended" in BROWSER.find_element("id", "status").text:
                break
            time.sleep(0.1)
        self.assertIn("ended", BROWSER.find_element("id", "status").text)


if __name__ == "__main__":
    t.main()
