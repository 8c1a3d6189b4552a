"""Folders of images for tests of how they are understood."""
import os

import graft_testing as t
from PIL import Image


def image(path, number=0, side=40):
    """A small JPEG, another one for each number."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (side, side), (number * 37 % 256, number * 91 % 256, number * 11 % 256)).save(path)


class TestCase(t.TestCase):
    """A folder of data to be filled, and what is said of it."""

    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        self.number = 0

    def fill(self, *folders, count=2, suffix="jpg"):
        for folder in folders:
            for i in range(count):
                self.number += 1
                image(str(self.data / folder / f"{i}.{suffix}"), self.number)

    def check(self, *arguments, data=None):
        return self.succeed_json("check", data or self.data, "--json", "--quiet", *arguments)

    def refuse(self, *texts, data=None, arguments=()):
        done = self.fail_with(1, texts[0], "train", data or self.data, "--backbone", "vgg-mini",
                              "--input-size", "32", "--dry-run", *arguments)
        for text in texts[1:]:
            self.assertIn(text, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done

    def notes(self, document):
        return "\n".join(document["notes"])
