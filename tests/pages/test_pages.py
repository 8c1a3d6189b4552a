"""Graft's pages in a real browser, on a phone's and a screen's width: no error, no request to
anywhere, nothing cut off."""
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import graft_testing as t
from browser import make_runs, open_browser, skip_without_browser, visit

if not t.HAS_TRAINING:
    print("SKIPPED: built without LibTorch")
    sys.exit(77)
skip_without_browser()

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

WIDTHS = (360, 768, 1280)
BASE = None
BROWSER = None


def setUpModule():
    """A run with an awkward class name, on data with copies."""
    global BASE, BROWSER
    BASE = pathlib.Path(tempfile.mkdtemp(prefix="graft-pages-"))
    make_runs(BASE, {"one": 1, "two": 5}, sea="sea <b>&amp; a_very_long_name_without_any_place_to_break_it")
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

    def open_report(self):
        self.assertEqual(visit(BROWSER, (BASE / "one" / "report.html").as_uri(), 1280), [])

    def visible(self, selector):
        return [e for e in BROWSER.find_elements("css selector", selector) if e.is_displayed()]

    def test_a_cell_of_the_confusion_matrix_shows_its_photos(self):
        self.open_report()
        cells = BROWSER.find_elements("css selector", ".confusion tbody td:not(.hit):not(:empty)")
        cell = max(cells, key=lambda c: int(c.text))
        label = cell.find_element("xpath", "..").get_attribute("data-class")
        column = BROWSER.execute_script("return arguments[0].cellIndex", cell)
        predicted = BROWSER.find_elements("css selector", ".confusion thead > tr > *")[column] \
            .get_attribute("data-class")
        before = len(self.visible("#mistakes [data-label]"))
        count = int(cell.text)
        BROWSER.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
        cell.click()
        shown = self.visible("#mistakes [data-label]")
        self.assertLess(len(shown), before)
        self.assertTrue(shown)
        for element in shown:
            self.assertEqual((element.get_attribute("data-label"), element.get_attribute("data-predicted")),
                             (label, predicted))
        rows = [e for e in shown if e.tag_name == "tr"]
        self.assertEqual(len(rows), count)
        self.assertEqual(len(shown) - len(rows), min(count, 8 + 12))
        self.assertIn(f"{count} in the table", BROWSER.find_element("css selector", "#filter output").text)
        BROWSER.find_element("css selector", "#filter [type=reset]").click()
        time.sleep(0.1)
        self.assertGreater(len(self.visible("#mistakes [data-label]")), len(shown))
        # One class alone, and the arrows and Enter in the matrix.
        Select(BROWSER.find_element("name", "label")).select_by_value(label)
        self.assertEqual({e.get_attribute("data-label") for e in self.visible("#mistakes [data-label]")}, {label})
        first = BROWSER.find_element("css selector", ".confusion td[tabindex='0']")
        self.assertEqual(len(BROWSER.find_elements("css selector", ".confusion td[tabindex='0']")), 1)
        first.send_keys(Keys.ARROW_RIGHT)
        where = BROWSER.switch_to.active_element
        self.assertEqual(where.tag_name, "td")
        self.assertNotEqual(where, first)
        where.send_keys(Keys.ARROW_LEFT)
        self.assertEqual(BROWSER.switch_to.active_element, first)

    def test_the_most_frequent_mistakes_have_photos_too(self):
        self.open_report()
        row = BROWSER.find_element("css selector", "tr[data-shows]")
        label, predicted = row.get_attribute("data-shows").split()
        BROWSER.execute_script("arguments[0].click()", row.find_element("tag name", "button"))
        self.assertEqual({(e.get_attribute("data-label"), e.get_attribute("data-predicted"))
                          for e in self.visible("#mistakes [data-label]")}, {(label, predicted)})
        self.assertEqual(BROWSER.switch_to.active_element.get_attribute("name"), "label")

    def test_tables_are_sorted_worst_first(self):
        self.open_report()
        table = BROWSER.find_element("css selector", "#classes table.sorts")
        def column(k):
            return [c.text for c in table.find_elements("css selector", f"tbody td:nth-child({k})")]
        f1 = list(map(float, column(4)))
        self.assertEqual(f1, sorted(f1), "as it stands")
        recall = table.find_elements("css selector", "thead th")[2]
        recall.find_element("tag name", "button").click()
        self.assertEqual(recall.get_attribute("aria-sort"), "ascending")
        values = list(map(float, column(3)))
        self.assertEqual(values, sorted(values))
        recall.find_element("tag name", "button").click()
        self.assertEqual(list(map(float, column(3))), values[::-1])
        table.find_element("css selector", "thead button").click()
        self.assertEqual(column(1), sorted(column(1), key=str.lower))
        self.assertIsNone(recall.get_attribute("aria-sort"))

    def test_photos_are_enlarged_and_paths_copied(self):
        self.open_report()
        BROWSER.execute_script("""
            window.copied = null;
            navigator.clipboard.writeText = async text => { window.copied = text; };""")
        figure = BROWSER.find_element("css selector", "#mistakes figure")
        path = figure.find_element("css selector", "code.path").get_attribute("data-path")
        copy = figure.find_element("css selector", "button[data-path]")
        BROWSER.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
        copy.click()
        self.assertEqual(BROWSER.execute_script("return window.copied"), path)
        self.assertTrue(pathlib.Path(path).exists())
        figure.find_element("css selector", "button.frame").click()
        dialog = BROWSER.find_element("css selector", "dialog[open]")
        self.assertEqual(len(dialog.find_elements("tag name", "img")), 2)
        caption = dialog.find_element("tag name", "figcaption").text
        self.assertIn("classified as", caption)
        dialog.send_keys(Keys.ARROW_RIGHT)
        self.assertNotEqual(dialog.find_element("tag name", "figcaption").text, caption)
        BROWSER.execute_script("document.activeElement.blur()")
        webdriver.ActionChains(BROWSER).send_keys(Keys.ESCAPE).perform()
        self.assertFalse(BROWSER.find_elements("css selector", "dialog[open]"))

    def test_without_scripts(self):
        """All of it is there: photos, matrix, tables; nothing waits for a script."""
        BROWSER.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        self.addCleanup(BROWSER.execute_cdp_cmd, "Emulation.setScriptExecutionDisabled", {"value": False})
        BROWSER.get((BASE / "one" / "report.html").as_uri())
        self.assertFalse(self.visible("#filter"))
        self.assertFalse(self.visible("table.sorts button"))
        self.assertTrue(self.visible(".confusion td"))
        self.assertEqual(len(self.visible("#mistakes .pairs figure")), 24)
        self.assertTrue(self.visible("#mistakes table.sorts tbody tr"))

    def test_many_classes(self):
        """60 classes with long names: headers that stay in sight, nothing beside the page."""
        names = [f"mountain-species-{i:02}-with-a-rather-long-latin-name-here" for i in range(60)]
        t.draw_noise(self.folder / "data", names, train=4, test=3)
        self.succeed("train", self.folder / "data", "--backbone", "vgg-mini", "--input-size", "32", "--head",
                     "gap", "--augment", "none", "--epochs", "1", "--no-cache", "-o", self.folder / "run")
        self.sound(self.folder / "run" / "report.html")
        box = BROWSER.find_element("css selector", ".matrix")
        BROWSER.execute_script("arguments[0].scrollTo(300, 300)", box)
        top, left = BROWSER.execute_script("""
            const box = arguments[0].getBoundingClientRect();
            const column = arguments[0].querySelector('thead th').getBoundingClientRect();
            const row = arguments[0].querySelector('tbody th').getBoundingClientRect();
            return [column.top - box.top, row.left - box.left];""", box)
        self.assertAlmostEqual(top, 0, delta=3)
        self.assertAlmostEqual(left, 0, delta=3)

        self.narrow_filter()
        self.printed()

    def narrow_filter(self):
        """The photos' filter of classes with long names: words whole, selects within the box."""
        page = (self.folder / "run" / "report.html").as_uri()
        for width in (390, 500, 1440):
            self.assertEqual(visit(BROWSER, page, width), [])
            box, parts, texts = BROWSER.execute_script("""
                const filter = document.getElementById('filter');
                const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.top, r.height]; };
                const words = l => { const r = document.createRange(); r.selectNode(l.firstChild);
                                     return r.getBoundingClientRect().height; };
                return [box(filter), [...filter.querySelectorAll('select, button')].map(box),
                        [...filter.querySelectorAll('label')].map(words)];""")
            for left, right, _, height in parts:
                self.assertGreaterEqual(left, box[0])
                self.assertLessEqual(right, box[1])
                self.assertLess(height, 60)
            self.assertLess(max(texts), 40, f"one line at {width}")
            if width == 1440:
                self.assertLess(max(p[2] for p in parts) - min(p[2] for p in parts), 5, "all on a line")
            # All figures of a class are seen without scrolling.
            last, area = BROWSER.execute_script("""
                const table = document.querySelector('#classes table.sorts');
                return [table.querySelector('tbody td:last-child').getBoundingClientRect().right,
                        table.closest('.scroll').getBoundingClientRect().right];""")
            self.assertLessEqual(last, area + 1, width)

    def printed(self):
        """A matrix of many classes has all its columns on paper, and nothing stands still there."""
        BROWSER.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        self.addCleanup(BROWSER.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"media": ""})
        BROWSER.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False})
        right, sticky, closed, headers, photos = BROWSER.execute_script("""
            dispatchEvent(new Event('beforeprint'));
            const cells = [...document.querySelectorAll('.confusion tbody tr:first-child td')];
            return [Math.max(...cells.map(c => c.getBoundingClientRect().right)),
                    [...document.querySelectorAll('th, .confusion thead td')].filter(
                        e => getComputedStyle(e).position === 'sticky').length,
                    document.querySelectorAll('details:not([open])').length,
                    document.querySelector('table.sorts thead').innerText,
                    Math.min(...[...document.querySelectorAll('.pairs img')].map(i => i.clientWidth))];""")
        self.assertLessEqual(right, 719)
        self.assertIn("precision", headers)
        self.assertGreater(photos, 20)
        self.assertEqual(sticky, 0)
        self.assertEqual(closed, 0)
        closed = BROWSER.execute_script("""
            dispatchEvent(new Event('afterprint'));
            return document.querySelectorAll('details:not([open])').length;""")
        self.assertGreater(closed, 0, "as they were")
        BROWSER.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    def test_facts_have_room_on_a_phone(self):
        self.assertEqual(visit(BROWSER, (BASE / "two" / "report.html").as_uri(), 390), [])
        widths = BROWSER.execute_script(
            "return [...document.querySelectorAll('table.facts td')].map(e => e.getBoundingClientRect().width)")
        self.assertGreater(len(widths), 10)
        self.assertGreater(min(widths), 250)

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
        figures = section.find_elements("tag name", "figure")
        self.assertRegex(figures[0].text, r"labelled .+ \((< )?[\d.]+.%\), probably .+ \([\d.]+.%\)")
        self.assertEqual(len(section.find_elements("css selector", "figure button[data-path]")), len(figures))
        self.assertIn("review.csv", section.text)
        self.assertIn("by the odds", section.text)

    def test_compare(self):
        page = self.folder / "compare.html"
        self.succeed("compare", BASE / "one", BASE / "two", "--html", page)
        self.sound(page)
        self.assertIn("one and two", [h.text for h in BROWSER.find_elements("css selector", "h3")])

    def start_dashboard(self, epochs):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [t.GRAFT, "train", str(BASE / "data"), "--backbone", "vgg-mini", "--head", "gap",
             "--fine-tune", "all", "--epochs", str(epochs), "-o", str(self.folder / "r"), "--quiet",
             "--dashboard", str(port)], stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for _ in range(1000):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        return process, f"http://127.0.0.1:{port}/"

    def until(self, condition, seconds=120):  # programs with sanitizers take their time
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.1)
        self.assertTrue(condition())

    def test_dashboard(self):
        process, url = self.start_dashboard(400)
        for width in WIDTHS:
            self.assertEqual(visit(BROWSER, url, width), [])
        def lines():
            return len(BROWSER.find_elements("css selector", "#charts svg path.line[d*='L']"))
        self.until(lambda: lines() == 5)
        self.until(lambda: "of 400" in BROWSER.find_element("id", "status").text)
        self.assertRegex(BROWSER.find_element("id", "whole-text").text,
                         r"^\d+ %, \d+:\d\d so far(, (about|at most) [\d:]+ left)?$")
        self.assertEqual(len(BROWSER.find_elements("css selector", "#stages li")), 4)
        # Mistakes with words, and the evidence while somebody looks.
        seen = []

        def evidence():
            """What the pictures say, at once: the page draws them anew with each epoch."""
            if not any(alt.startswith("evidence for") for alt in seen):
                seen[:] = BROWSER.execute_script(
                    "return [...document.querySelectorAll('#mistakes img')].map(image => image.alt)")
            return any(alt.startswith("evidence for") for alt in seen)
        self.until(evidence)
        self.assertTrue(any(re.fullmatch(r".+, classified as .+, \d+ %", alt) for alt in seen), seen)
        self.assertFalse(BROWSER.find_element("id", "report").is_displayed())
        process.kill()
        process.wait()
        self.until(lambda: "ended" in BROWSER.find_element("id", "status").text)

    def test_the_dashboard_keeps_the_report(self):
        process, url = self.start_dashboard(6)
        self.assertEqual(visit(BROWSER, url, 768), [])
        self.until(lambda: BROWSER.find_element("id", "report").is_displayed())
        self.assertEqual(process.wait(30), 0)
        self.assertIn("report.html", BROWSER.find_element("id", "path").text)
        self.assertIn("Done: best epoch", BROWSER.find_element("id", "stage").text)
        self.assertRegex(BROWSER.find_element("id", "whole-text").text, r"^\d+:\d\d in all$")
        before = BROWSER.window_handles
        BROWSER.find_element("id", "report").click()
        self.until(lambda: len(BROWSER.window_handles) > len(before), 10)
        BROWSER.switch_to.window(BROWSER.window_handles[-1])
        try:
            self.until(lambda: BROWSER.find_elements("css selector", "table.sorts thead button"), 10)
            self.assertIn("vgg-mini on data", BROWSER.title)
        finally:
            BROWSER.close()
            BROWSER.switch_to.window(before[0])


if __name__ == "__main__":
    t.main()
