"""The page of `graft serve` in a real browser: what goes wrong, and what it says then."""
import shutil
import time

from PIL import Image

import serve_page_testing as t
from serve_page_testing import photos, place, until

t.skip_without_serve()

from selenium.webdriver.common.keys import Keys  # noqa: E402

setUpModule, tearDownModule = t.set_up, t.tear_down


class ServePageTrouble(t.PageTestCase):
    def test_several_with_a_corrupt_one(self):
        good = photos(20)
        bad = self.folder / "corrupt.jpg"
        bad.write_bytes(good[0].read_bytes()[:300])
        self.page.choose(*good, bad)
        self.page.finished(21)
        errors = self.page.texts(".card .state.bad")
        self.assertEqual(len(errors), 1, errors)
        self.assertNotIn("corrupt.jpg", errors[0])  # the card has its name already
        self.assertEqual(len(self.page.texts(".card:not(:has(.state.bad)) .bars:not([hidden])")), 20)
        self.assertIn("20 images classified; 1 image not", self.page.one("#status").text)
        self.page.one("[for=view-table]").click()
        self.assertEqual(self.page.table()[-1][1], errors[0])

    def test_a_corrupt_one_alone(self):
        bad = self.folder / "text.png"
        bad.write_text("no image")
        self.page.choose(bad)
        self.page.finished(1)
        self.assertEqual(len(self.page.texts(".card .state.bad")), 1)
        self.assertTrue(until(lambda: self.page.texts(".card .frame span") == ["no preview"]))

    def test_fifty_megapixels(self):
        path = self.folder / "huge.jpg"
        Image.linear_gradient("L").resize((8660, 5774)).convert("RGB").save(path, quality=90)
        self.page.script("""
            window.longest = 0;
            new PerformanceObserver(list => list.getEntries().forEach(
              entry => window.longest = Math.max(window.longest, entry.duration)))
              .observe({entryTypes: ['longtask']});""")
        self.page.choose(path)
        self.page.finished(1)
        self.assertTrue(until(lambda: self.page.one(".card img").is_displayed()))
        self.assertEqual(self.page.texts(".card .state.bad"), [])
        self.assertEqual(self.page.script("return document.querySelector('.card img').naturalWidth"), 512)
        # Decoding it takes some 300 ms or more, which the page's own thread does not spend.
        self.assertLess(self.page.script("return window.longest"), 200)

    def test_more_than_the_server_takes(self):
        path = self.folder / "large.jpg"
        path.write_bytes(photos(1)[0].read_bytes() + bytes(33 << 20))
        self.page.choose(path, *photos(1))
        self.page.finished(2)
        (error,) = self.page.texts(".card .state.bad")
        self.assertIn("33.0 MB: more than the 32.0 MB", error)

    def test_corrections_of_one_name(self):
        for folder, source in zip(("one", "two"), photos(2)):
            (self.folder / folder).mkdir()
            shutil.copy(source, self.folder / folder / "same.jpg")
        self.page.choose(self.folder / "one" / "same.jpg", self.folder / "two" / "same.jpg")
        self.page.finished(2)
        label = self.page.texts(".bars li:first-child .name")[0]
        self.page.correct("same.jpg", next(l for l in self.labels if l != label))
        self.page.script("document.getElementById('corrections').click()")
        self.assertIn("several images have this name: same.jpg", self.page.one("#saved").text)

    def test_busy_server(self):
        self.page.answer_with([503, {"error": "the queue is full"}, {"Retry-After": "2"}])
        begin = time.monotonic()
        self.page.choose(*photos(2))
        self.assertTrue(until(lambda: "the queue is full; the next try is in 2 s."
                              in self.page.one("#notice-text").text))
        self.page.finished(2)
        self.assertGreater(time.monotonic() - begin, 2)
        self.assertEqual(self.page.texts(".state.bad"), [])
        self.assertFalse(self.page.one("#notice").is_displayed())

    def test_too_large_together(self):
        """Others do not suffer from one that is too large."""
        refused = [413, {"error": "too large: expected at most 7 pixels"}, {}]
        self.page.answer_with(refused, refused, None, refused)
        self.page.choose(*photos(4))
        self.page.finished(4)
        self.assertEqual(self.page.texts(".state.bad"), ["too large: expected at most 7 pixels"])
        self.assertEqual(len(self.page.texts(".bars:not([hidden]) li:first-child")), 3)

    def test_errors_in_words(self):
        for status, body, words in (
                (415, {"error": "text/plain: expected an image"}, "text/plain: expected an image"),
                (403, None, "The server refuses requests from this address"),
                (502, None, "The server is not reached through its proxy"),
                (418, None, "The server answered 418")):
            with self.subTest(status=status):
                self.page.answer_with([status, body, {}])
                self.page.choose(*photos(1))
                self.page.finished(1)
                self.assertIn(words, self.page.texts(".state.bad")[0])
                again = self.page.one("#retry").is_displayed()
                self.assertEqual(again, status >= 500)
                if again:
                    self.page.one("#retry").click()
                    self.page.finished(1)
                    self.assertTrue(until(lambda: not self.page.texts(".state.bad")))
                self.page.one("#clear").click()

    def test_token(self):
        self.page.answer_with([401, {"error": "expected a bearer token"}, {}])
        self.page.choose(*photos(1))
        field = self.page.one("#token")
        self.assertTrue(until(field.is_displayed))
        self.assertEqual(self.page.focused(), "token")
        field.send_keys("two words", Keys.ENTER)
        self.assertIn("no spaces", self.page.one("#token-error").text)
        field.clear()
        field.send_keys("a-token", Keys.ENTER)
        self.page.finished(1)
        self.assertFalse(field.is_displayed())
        self.assertEqual(self.page.focused(), "files")
        stored = self.page.script("return [localStorage.length, sessionStorage.length, document.cookie]")
        self.assertEqual(stored, [0, 0, ""])
        self.assertTrue([e for e in place.browser.get_log("performance")
                         if "Bearer a-token" in e["message"]])

    def test_server_gone_and_back(self):
        self.addCleanup(self.offline, False)
        self.offline(True)
        self.page.choose(*photos(2))
        self.assertTrue(until(lambda: "does not answer" in self.page.one("#notice-text").text))
        self.offline(False)
        self.page.one("#again").click()
        self.page.finished(2)
        self.assertEqual(self.page.texts(".state.bad"), [])
        self.assertFalse(self.page.one("#notice").is_displayed())

    def offline(self, on):
        self.page.network("Network.emulateNetworkConditions", {
            "offline": on, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})

    def test_file_that_went_away(self):
        path = self.folder / "gone.jpg"
        shutil.copy(photos(1)[0], path)
        self.page.answer_with([503, {"error": "busy"}, {"Retry-After": "1"}])
        self.page.choose(path, *photos(1))
        self.assertTrue(until(lambda: self.page.one("#notice").is_displayed()))
        path.unlink()
        self.page.finished(2)
        (error,) = self.page.texts(".state.bad")
        self.assertIn("moved, changed or deleted", error)

    def test_stop_and_try_again(self):
        self.page.answer_with([503, {"error": "busy"}, {"Retry-After": "60"}])
        self.page.choose(*photos(3))
        self.assertTrue(until(lambda: self.page.one("#notice").is_displayed()))
        self.page.one("#stop").click()
        self.page.finished(3)
        self.assertEqual(self.page.texts(".state.bad"), ["stopped"] * 3)
        self.assertEqual(self.page.focused(), "results-heading")  # as the button is gone
        self.page.one("#retry").click()
        self.page.finished(3)
        self.assertTrue(until(lambda: not self.page.texts(".state.bad")))


if __name__ == "__main__":
    t.graft.main()
