"""The page of `graft serve` in a real browser: what people do there."""
import csv
import io
import pathlib
import shutil

import serve_page_testing as t
from serve_page_testing import WIDTHS, place, photos, until

t.skip_without_serve()

from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

setUpModule, tearDownModule = t.set_up, t.tear_down


class ServePage(t.PageTestCase):
    def test_one_photo(self):
        (name,) = self.classify(1)
        self.assertEqual(self.page.texts(".card h3"), [name])
        names, values = self.page.texts(".bars .name"), self.page.texts(".bars .value")
        self.assertEqual(len(names), min(5, len(self.labels)))
        self.assertTrue(set(names) <= set(self.labels), names)
        shown = [float(v.strip("< %")) for v in values]
        self.assertEqual(shown, sorted(shown, reverse=True))
        self.assertTrue(until(lambda: self.page.one("#status").text == f"{name}: {names[0]}, {values[0]}."))
        # The bar is as long as the number says.
        width = self.page.script("const t = document.querySelector('.track');"
                                 "return t.firstChild.getBoundingClientRect().width / t.clientWidth")
        self.assertTrue(until(lambda: abs(self.page.script(
            "const t = document.querySelector('.track');"
            "return t.firstChild.getBoundingClientRect().width / t.clientWidth") - shown[0] / 100) < .02),
            width)
        image = self.page.one(".card img")
        self.assertTrue(until(lambda: image.is_displayed()))
        self.assertEqual(image.get_attribute("alt"), name)
        self.assertEqual(self.page.script("return arguments[0].naturalWidth", image), 64)

    def test_answers_are_those_of_predict(self):
        if not place.server.process:
            self.skipTest("the models of GRAFT_SERVE_URL are not at hand")
        names = self.classify(6)
        told = self.succeed_json("predict", place.folder / "runs" / "scenes", *photos(6), "--json")
        data = self.page.download("#csv", "results.csv").decode()
        rows = {row["name"]: row for row in csv.DictReader(io.StringIO(data))}
        for name, expected in zip(names, told["predictions"]):
            self.assertEqual(rows[name]["label"], expected["label"])
            self.assertAlmostEqual(float(rows[name]["probability"]), expected["probability"], 5)

    def test_drop_files_and_folders(self):
        folder = self.folder / "trip"
        (folder / "more").mkdir(parents=True)
        paths = photos(3)
        shutil.copy(paths[0], folder / "a.jpg")
        shutil.copy(paths[1], folder / "more" / "a.jpg")
        (folder / "notes.txt").write_text("left out, as it is no image")
        self.page.drop(paths[2], folder)
        self.page.finished(3)
        self.assertEqual(sorted(self.page.texts(".card h3")),
                         sorted([paths[2].name, "trip/a.jpg", "trip/more/a.jpg"]))
        self.page.drop(paths[2])  # once more: known already
        self.assertTrue(until(lambda: "already here" in self.page.one("#status").text))
        self.page.finished(3)

    def test_paste(self):
        self.page.network("Browser.grantPermissions", {
            "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
        self.page.network("Page.bringToFront", {})
        written = place.browser.execute_async_script("""
            const done = arguments[0], canvas = document.createElement('canvas');
            canvas.width = canvas.height = 64;
            canvas.getContext('2d').fillRect(0, 0, 64, 64);
            canvas.toBlob(blob => navigator.clipboard.write([new ClipboardItem({'image/png': blob})])
              .then(() => done(''), error => done(String(error))));""")
        self.assertEqual(written, "")
        ActionChains(place.browser).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
        self.page.finished(1)
        (name,) = self.page.texts(".card h3")
        self.assertRegex(name, r"^pasted-\d{17}\.png$")
        link = self.page.one(".card a")
        self.assertTrue(link.is_displayed())
        self.assertEqual(link.get_attribute("download"), name)

    def test_explain_on_and_off(self):
        self.classify(3)
        images = "return [...document.querySelectorAll('.card img')].map(i => i.src)"
        self.assertTrue(until(lambda: all(self.page.script(images))))
        plain = self.page.script(images)
        self.page.one("[for=explain]").click()
        self.assertTrue(until(lambda: not set(plain) & set(self.page.script(images))),
                        self.page.texts(".state"))
        maps = self.page.script(images)
        self.assertIn("evidence for", self.page.one(".card img").get_attribute("alt"))
        place.browser.get_log("performance")
        for expected in (plain, maps, plain):
            self.page.one("[for=explain]").click()
            self.assertTrue(until(lambda: self.page.script(images) == expected, 2))
        self.assertFalse([e for e in place.browser.get_log("performance")
                          if "requestWillBeSent" in e["message"] and "predict?" in e["message"]],
                         "toggling asks the server again")

    def test_table_sorts_by_every_column(self):
        self.classify(8)
        self.page.one("[for=view-table]").click()
        original = self.page.table()
        self.assertEqual(len(original), 8)
        value = {"name": 0, "label": 1, "probability": 2}
        for key, column in value.items():
            header = self.page.one(f"[data-key={key}]")
            for direction in ("ascending", "descending"):
                header.find_element("tag name", "button").click()
                self.assertEqual(header.get_attribute("aria-sort"), direction)
                read = ((lambda r: float(r[2].strip("< %"))) if key == "probability"
                        else lambda r: r[column].lower())
                got = [read(row) for row in self.page.table()]
                self.assertEqual(got, sorted(got, reverse=direction == "descending"))
        name, label, _ = self.page.table()[4]
        other = next(l for l in self.labels if l != label)
        self.page.one("[for=view-images]").click()
        self.page.correct(name, other)
        self.page.one("[for=view-table]").click()
        self.page.one("[data-key=right] button").click()
        self.assertEqual(self.page.table()[0][0], name)  # those without come after it
        self.page.one("[data-key=right] button").click()
        self.assertEqual(self.page.table()[0][0], name)
        self.assertEqual(len(self.page.all("thead [aria-sort]")), 1)

    def test_downloads(self):
        names = ["=1+1.jpg", 'a "quoted", name.jpg', "<b>&amp;.jpg", "+49.jpg"]
        for source, name in zip(photos(4), names):
            shutil.copy(source, self.folder / name)
        self.page.choose(*[self.folder / name for name in names])
        self.page.finished(4)
        labels = dict(zip(self.page.texts(".card h3"), self.page.texts(".bars li:first-child .name")))
        right = {name: next(l for l in self.labels if l != labels[name]) for name in names[:3]}
        for name, label in right.items():
            self.page.correct(name, label)
        results = self.page.download("#csv", "results.csv")
        self.assertEqual(results.count(b"\r\n"), results.count(b"\n"))
        rows = list(csv.DictReader(io.StringIO(results.decode(), newline="")))
        self.assertEqual([r["name"] for r in rows], ["'=1+1.jpg", names[1], "<b>&amp;.jpg", "'+49.jpg"])
        self.assertEqual([r["your_label"] for r in rows], [*right.values(), ""])
        self.assertEqual([r["label"] for r in rows], [labels[n] for n in names])
        self.assertEqual({r["version"] for r in rows}, {place.server.models[0]["version"]})
        # A manifest that graft reads, beside the photos.
        self.assertIn("3 corrections", self.page.one("#corrections").text)
        manifest = self.folder / "corrections.csv"
        manifest.write_bytes(self.page.download("#corrections", "corrections.csv"))
        self.assertEqual(self.page.one("#saved").text, "3 corrections saved as corrections.csv.")
        self.assertEqual([(pathlib.Path(r["path"]).name, r["label"]) for r in t.graft.read_csv(manifest)],
                         list(right.items()))
        self.assertNotIn(b"\n=", manifest.read_bytes())
        self.assertEqual(self.succeed_json("check", manifest, "--json")["images"], 3)
        # The label that was given is right after all.
        self.page.correct("<b>&amp;.jpg", labels["<b>&amp;.jpg"])
        self.assertIn("2 corrections", self.page.one("#corrections").text)

    def test_two_models(self):
        self.assertGreater(len(place.server.models), 1)
        self.classify(3)
        first = self.page.texts(".bars .name")
        self.choose_model(1)
        labels = place.server.models[1]["labels"]
        self.assertTrue(until(lambda: len(self.page.texts(".bars .name")) == 3 * min(5, len(labels))
                              and set(self.page.texts(".bars .name")) <= set(labels)))
        self.assertIn(place.server.models[1]["name"], self.page.one("#headline").text)
        self.choose_model(0)
        self.assertTrue(until(lambda: self.page.texts(".bars .name") == first, 3))

    def choose_model(self, i):
        Select(self.page.one("#model")).select_by_value(place.server.models[i]["name"])

    def test_model_replaced_by_one_of_many_labels(self):
        """The page asks for the models again; long lists of labels are filled in when used."""
        more = [f"label {i}" for i in range(300)]
        self.page.script("""
            const real = window.fetch;
            window.fetch = async (path, ...rest) => {
              const response = await real(path, ...rest), text = await response.text();
              if (path === 'models') {
                const body = JSON.parse(text);
                body.models[0].labels.push(...arguments[0]);
                body.models[0].version = 'new';
                return new Response(JSON.stringify(body));
              }
              return new Response(text.replace(/"version": ?"[^"]*"/, '"version":"new"'));
            };""".replace("arguments[0]", repr(more)))
        self.classify(1)
        wanted = f"{len(self.labels) + 300} labels"
        self.assertTrue(until(lambda: wanted in self.page.one("#headline").text))
        select = self.page.one(".card select")
        self.assertTrue(until(lambda: len(select.find_elements("tag name", "option")) == 1))
        select.click()
        self.page.press(Keys.ESCAPE)
        Select(select).select_by_visible_text("label 299")
        self.assertIn("1 correction", self.page.one("#corrections").text)

    def test_model_card(self):
        self.page.one("#about summary").click()
        shown = dict(zip(self.page.texts("#model-card dt"), self.page.texts("#model-card dd")))
        self.assertEqual(shown, {heading: text.strip() for heading, text in place.server.models[0]["card"]})

    def test_widths_light_and_dark(self):
        self.addCleanup(place.browser.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        bad = self.folder / ("a_name_without_any_place_to_break_it_" * 3 + ".jpg")
        bad.write_text("no image")
        self.page.choose(bad, *photos(5))
        self.page.finished(6)
        self.page.script("document.getElementById('about').open = true")
        backgrounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}
        for scheme, background in backgrounds.items():
            place.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
                "features": [{"name": "prefers-color-scheme", "value": scheme}]})
            self.assertEqual(self.page.script(
                "return getComputedStyle(document.body).backgroundColor"), background)
            for width in (320, *WIDTHS):
                place.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                    "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600})
                for view in ("images", "table"):
                    self.page.script(f"document.getElementById('view-{view}').click()")
                    wide = self.page.script("""
                        return [...document.querySelectorAll('body *')].filter(
                          e => e.checkVisibility() && !e.closest('.unseen')
                            && e.getBoundingClientRect().right > innerWidth + 1)
                          .map(e => `${e.tagName} ${e.className}`)""")
                    self.assertEqual(wide, [], f"{view} at {width}")
                    self.assertLessEqual(self.page.script(
                        "return document.documentElement.scrollWidth"), width)
                self.assertEqual(self.page.script(t.CONTRAST), [], f"{scheme} at {width}")

    def test_keyboard_alone(self):
        (path,) = photos(1)
        order = []
        for _ in range(4):
            self.page.press(Keys.TAB)
            order.append(self.page.focused())
            if order[-1] == "files":
                break
        self.assertEqual(order[-1], "files", order)
        ring = self.page.script(
            "return getComputedStyle(document.querySelector('[for=files]')).outlineWidth")
        self.assertEqual(ring, "3px")
        place.browser.switch_to.active_element.send_keys(str(path))
        self.page.finished(1)
        seen = []
        for _ in range(14):
            self.page.press(Keys.TAB)
            seen.append(self.page.focused())
            self.assertNotEqual(self.page.script(
                "const e = document.activeElement, s = e.matches('.unseen') ? "
                "document.querySelector(`[for=${e.id}]`) : e; return getComputedStyle(s).outlineStyle"),
                "none", seen)
            if seen[-1] == "explain":
                self.page.press(Keys.SPACE)
                self.assertTrue(self.page.one("#explain").is_selected())
            if self.page.script("return document.activeElement.matches('.card select')"):
                before = self.page.script("return document.activeElement.value")
                self.page.press(Keys.ARROW_DOWN)
                if self.page.script("return document.activeElement.value") == before:
                    self.page.press(Keys.ARROW_UP)
            if seen[-1] == "corrections":
                break
        self.assertIn("1 correction", self.page.one("#corrections").text)
        for wanted in ("view-images", "explain", "clear", "csv", "corrections"):
            self.assertIn(wanted, seen)
        # Back to the views: arrows change them, Enter sorts.
        while self.page.focused() != "view-images":
            keys = ActionChains(place.browser)
            keys.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        self.page.press(Keys.ARROW_RIGHT)
        self.assertTrue(self.page.one("#table").is_displayed())
        while self.page.focused() != "Probability":
            self.page.press(Keys.TAB)
        self.page.press(Keys.ENTER)
        self.assertEqual(self.page.one("[data-key=probability]").get_attribute("aria-sort"), "ascending")

    def test_names_for_screen_readers(self):
        self.classify(2)
        nameless = [node for node in self.page.network("Accessibility.getFullAXTree", {})["nodes"]
                    if not node.get("ignored") and node.get("role", {}).get("value") in
                    ("button", "combobox", "checkbox", "switch", "radio", "image", "link",
                     "progressbar", "table") and not node.get("name", {}).get("value")]
        self.assertEqual(nameless, [])
        live = self.page.script("return [...document.querySelectorAll('[role=status],[role=alert]')]"
                                ".map(e => e.id)")
        self.assertEqual(sorted(live), ["notice-text", "saved", "status", "token-error"])

    def test_remove(self):
        first, second = self.classify(2)
        self.page.one(".remove").click()
        self.assertEqual(self.page.texts(".card h3"), [second])
        self.assertEqual(self.page.script("return document.activeElement.getAttribute('aria-label')"),
                         f"Remove {second}")
        self.page.one("#clear").click()
        self.assertFalse(self.page.one("#results").is_displayed())
        self.assertEqual(self.page.focused(), "files")
        self.page.choose(*photos(1))  # what was removed may come again
        self.page.finished(1)


if __name__ == "__main__":
    t.graft.main()
