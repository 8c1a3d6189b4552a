"""A running `graft serve` and what a person does on its page."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import graft_testing as graft
from browser import open_browser, skip_without_browser, visit

WIDTHS = (360, 768, 1280)
LONG = "sea <b>&amp; a_very_long_name_without_any_place_to_break_it"


def skip_without_serve():
    """Ends the script with ctest's code for 'skipped' where there is nothing to visit, or to visit
    it with."""
    skip_without_browser()
    if os.environ.get("GRAFT_SERVE_URL"):
        return
    if graft.run("serve", "--help").returncode != 0:
        print("SKIPPED: this graft has no command 'serve' (GRAFT_SERVE_URL names a running server)")
        sys.exit(77)
    if not graft.HAS_TRAINING:
        print("SKIPPED: built without LibTorch")
        sys.exit(77)


# Texts whose contrast with what is behind them is below WCAG's AA.
CONTRAST = """
const luminance = c => { const [r, g, b] = c.map(v => v / 255).map(
  v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const parts = c => c.match(/[\\d.]+/g).map(Number);
const behind = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.disabled &&
  [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const [a, b] = [luminance(parts(getComputedStyle(e).color).slice(0, 3)), luminance(behind(e))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e]; }).filter(([ratio]) => ratio < 4.5)
  .map(([ratio, e]) => `${ratio.toFixed(2)} ${e.tagName} ${e.textContent.slice(0, 40)}`);
"""


class Server:
    """`graft serve` with two models on a free port; or the one that GRAFT_SERVE_URL names."""

    def __init__(self, folder, *arguments):
        self.url = os.environ.get("GRAFT_SERVE_URL")
        self.process = None
        if not self.url:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            self.url = f"http://127.0.0.1:{port}/"
            with open(folder / "serve.log", "wb") as log:
                self.process = subprocess.Popen(
                    [graft.GRAFT, "serve", *map(str, arguments), "--host", "127.0.0.1",
                     "--port", str(port)], stdout=subprocess.DEVNULL, stderr=log)
            self._wait(folder / "serve.log")
        with urllib.request.urlopen(self.url + "models", timeout=30) as answer:
            self.models = json.load(answer)["models"]

    def _wait(self, log):
        for _ in range(300):
            try:
                with urllib.request.urlopen(self.url + "readyz", timeout=5):
                    return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise AssertionError(f"graft serve is not ready: {log.read_text(errors='replace')}")

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)


def until(condition, seconds=30):
    """What `condition` gives once that is true."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.05)


class Page:
    """What is on the page, and what can be done there, in a person's terms."""

    def __init__(self, browser, url, downloads):
        self.browser, self.url, self.downloads = browser, url, pathlib.Path(downloads)
        self.network = browser.execute_cdp_cmd
        self.network("Browser.setDownloadBehavior",
                     {"behavior": "allow", "downloadPath": str(self.downloads)})

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def texts(self, selector):
        """At once, so that no element goes away meanwhile."""
        return self.browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(e => e.checkVisibility()).map(e => e.textContent.trim())", selector)

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def ready(self):
        assert until(lambda: self.one("#add").is_displayed()), self.texts("body")

    def finished(self, images):
        """Waits until so many images are classified, or were given up."""
        assert until(lambda: self.script(
            "return document.querySelectorAll('.card').length === arguments[0] &&"
            " document.getElementById('working').hidden &&"
            " !/waiting|classified …/.test(document.getElementById('cards').textContent)", images)), \
            self.texts(".card")

    def choose(self, *paths):
        self.one("#files").send_keys("\n".join(map(str, paths)))

    def drop(self, *paths):
        """A drop by the browser itself, of files and folders as they are."""
        data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.network("Input.dispatchDragEvent", {"type": kind, "x": 100, "y": 100, "data": data})

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains
        ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self):
        return self.script("const e = document.activeElement;"
                           "return e.id || e.className || e.textContent || e.tagName")

    def table(self):
        """Rows of the table as shown: name, label, probability."""
        return [tuple(row) for row in self.script(
            "return [...document.querySelectorAll('#rows tr')].map(r => ["
            "r.querySelector('th span').textContent, ...[...r.querySelectorAll('td')].slice(0, 2)"
            ".map(c => c.textContent)])")]

    def correct(self, name, label):
        from selenium.webdriver.support.ui import Select
        cards = [c for c in self.all(".card")
                 if c.find_element("tag name", "h3").get_attribute("textContent") == name]
        Select(cards[0].find_element("tag name", "select")).select_by_visible_text(label)

    def download(self, button, name):
        self.script("arguments[0].scrollIntoView({block: 'center'})", self.one(button))
        self.one(button).click()
        path = self.downloads / name
        # Chromium takes the name with an empty file, which the download then replaces.
        assert until(lambda: path.exists() and path.stat().st_size > 0, 10), list(self.downloads.iterdir())
        data = path.read_bytes()
        path.unlink()
        return data

    def answer_with(self, *answers):
        """The next requests to predict get these instead of the server's answers: [status, body,
        headers], or None for the server's own."""
        self.script("""
            const real = window.fetch, answers = arguments[0];
            window.fetch = (path, ...rest) => {
              const next = String(path).startsWith('predict') && answers.length && answers.shift();
              if (!next) return real(path, ...rest);
              const [status, body, headers] = next;
              return Promise.resolve(new Response(JSON.stringify(body), {status, headers}));
            };""", list(answers))


class Place:
    """What the tests of a script share: a folder, two models behind a server, a browser."""
    folder = server = browser = None


place = Place()


def set_up():
    """Two models of drawn scenes: one with an awkward label, one of two labels."""
    place.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-serve-page-"))
    graft.draw_scenes(place.folder / "photos", 4, first_seed=900)
    (place.folder / "downloads").mkdir()
    runs = []
    for name, labels in (("scenes", None), ("two", ("forest", "street"))):
        data, run = place.folder / "data" / name, place.folder / "runs" / name
        graft.draw_scenes(data, 12)
        for folder in list(data.iterdir()):
            if labels and folder.name not in labels:
                shutil.rmtree(folder)
            elif not labels and folder.name == "sea":
                folder.rename(data / LONG)
        if not os.environ.get("GRAFT_SERVE_URL"):
            done = graft.run("train", data, "--backbone", "vgg-mini", "--input-size", "64", "--epochs", 2,
                             "-o", run, "--quiet")
            assert done.returncode == 0, done.stderr
        runs.append(run)
    place.server = Server(place.folder, *runs)
    place.browser = open_browser()


def tear_down():
    if place.browser:
        place.browser.quit()
    if place.server:
        place.server.close()
    shutil.rmtree(place.folder, ignore_errors=True)


def photos(count):
    """So many photos of several labels, each under a name of its own."""
    found = sorted((place.folder / "photos").glob("*/*.jpg"), key=lambda p: (p.name, p.parent.name))
    copies = place.folder / "copies"
    copies.mkdir(exist_ok=True)
    out = []
    for path in found[:count]:
        out.append(copies / f"{path.parent.name}-{path.name}")
        if not out[-1].exists():
            shutil.copy(path, out[-1])
    return out


class PageTestCase(graft.TestCase):
    """The page, newly opened; at the end the console must hold nothing but the browser's own notes of
    statuses that the page handles."""

    def setUp(self):
        super().setUp()
        self.assertEqual(visit(place.browser, place.server.url, 1280), [])
        self.page = Page(place.browser, place.server.url, place.folder / "downloads")
        self.page.ready()
        self.labels = place.server.models[0]["labels"]

    def tearDown(self):
        self.assertEqual([entry["message"] for entry in place.browser.get_log("browser")
                          if entry.get("source") != "network"
                          or "Failed to load resource" not in entry["message"]], [], "the console")

    def classify(self, count):
        """Chooses so many photos, waits for their labels; returns their names."""
        paths = photos(count)
        self.page.choose(*paths)
        self.page.finished(count)
        return [path.name for path in paths]
