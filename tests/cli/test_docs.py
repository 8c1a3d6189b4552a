"""What the documents tell people to type, typed."""
import os
import pathlib
import re
import shutil
import subprocess
import unittest

import graft_testing as t

DOCS = [t.SOURCE / "README.md", *sorted((t.SOURCE / "docs").glob("*.md"))]


def commands(document):
    """Lines of its plain blocks that run graft; continued lines joined."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if not language and line.startswith("graft "):
                yield re.sub(r"\s#.*", "", line)


class Pictures(t.TestCase):
    def test_each_is_shown_described_and_made_by_the_script(self):
        shown = re.findall(r"!\[([^]]*)\]\(([^)]*)\)", (t.SOURCE / "docs" / "tutorial.md").read_text())
        for text, path in shown:
            self.assertGreater(len(text), 40, path)
        folder = t.SOURCE / "docs" / "images"
        self.assertEqual(sorted(path for _, path in shown), sorted(f"images/{p.name}" for p in folder.iterdir()))
        made = re.findall(r'\.(?:save|terminal)\("(\w+)"', (t.SOURCE / "scripts" / "screenshots.py").read_text())
        self.assertEqual(sorted(f"images/{name}.webp" for name in made), sorted(path for _, path in shown))
        for path in folder.iterdir():
            data = path.read_bytes()
            self.assertEqual((data[:4], data[8:12]), (b"RIFF", b"WEBP"), path)
            self.assertLess(len(data), 200_000, path)


@unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
class Documents(t.TestCase):
    def setUp(self):
        super().setUp()
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(self.folder / "cache"),
                                PATH=f"{pathlib.Path(t.GRAFT).parent}:{os.environ['PATH']}")

    def type(self, line):
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True,
                              text=True, timeout=300)
        self.assertEqual(done.returncode, 0, f"{line}\n{done.stderr}")
        return done.stdout

    def serve(self, line):
        """A server runs until it is stopped; that it says where is enough here."""
        process = subprocess.Popen(["bash", "-c", f"exec {line} --port 0"], cwd=self.folder, env=self.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = process.stdout.readline()
        process.terminate()
        stderr = process.communicate(timeout=60)[1]
        self.assertTrue(first.startswith("serving on http://"), f"{line}\n{stderr}")
        self.assertEqual(process.returncode, 0, f"{line}\n{stderr}")

    def watch(self, line):
        """A watched folder likewise."""
        process = subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        lines = []
        for text in process.stderr:
            lines.append(text)
            if text.startswith("watching "):
                process.terminate()
        process.stderr.close()
        self.assertEqual(process.wait(60), 0, f"{line}\n{lines}")

    def test_tutorial(self):
        """Every command, in order, as it stands."""
        lines = list(commands(t.SOURCE / "docs" / "tutorial.md"))
        self.assertGreater(len(lines), 8)
        for line in lines:
            self.type(line)
        for made in ("check.html", "runs/first/report.html", "test.html", "test.csv", "why/000.png", "why/index.csv",
                     "labels.xlsx", "gallery.html", "sorted/sorted.csv",
                     "runs/again/model.safetensors"):
            self.assertTrue((self.folder / made).exists(), made)
        # The same options, images and seed: the same classifier.
        self.assertEqual(*((self.folder / "runs" / run / "predictions.csv").read_text() for run in ("first", "again")))

    def test_commands_of_all_pages(self):
        """Trainings, which need weights from elsewhere, up to their plan; all else for real."""
        t.draw_scenes(self.folder / "photos", 6, size=40)
        for name in ("photos-held-back", "data", "DATA"):
            shutil.copytree(self.folder / "photos", self.folder / name)
        shutil.copytree(self.folder / "photos", self.folder / "photos" / "train")
        for name in (self.folder / "photos").iterdir():
            if name.name != "train":
                shutil.rmtree(name)
        shutil.copytree(self.folder / "photos-held-back", self.folder / "photos" / "test")
        for image in (self.folder / "photos" / "test").rglob("*.jpg"):
            image.write_bytes(image.read_bytes() + b"\0")  # no copies of the training images
        for name in ("new", "inbox"):
            (self.folder / name).mkdir()
        for i, image in enumerate(sorted((self.folder / "data").rglob("*.jpg"))[::9]):
            shutil.copy(image, self.folder / "new" / f"{i}.jpg")
            shutil.copy(image, self.folder / "inbox" / f"{i}.jpg")
        for run in ("pets", "more", "a", "b", "scenes"):
            if run == "pets":
                self.type("graft train data --backbone vgg-mini --input-size 32 --until block2_pool --epochs 1 "
                          "--no-report -o runs/pets")
            else:
                shutil.copytree(self.folder / "runs" / "pets", self.folder / "runs" / run)
        shutil.copytree(self.folder / "runs" / "pets", self.folder / "models" / "pets")
        shutil.copy(self.folder / "runs" / "pets" / "model.safetensors", self.folder / "scenes.safetensors")
        (self.folder / "token.txt").write_text("0123456789abcdef\n")
        seen = 0
        for document in DOCS:
            if document.name == "tutorial.md":
                continue
            for line in commands(document):
                # Placeholders such as RUN and WEIGHTS.h5, and what has no end or needs the network.
                if re.search(r"\b(RUN|WEIGHTS|FILE|COMMAND|PORT)\b|…|intel-scenes|\.h5|graft (demo|bench|weights)", line):
                    continue
                if line.startswith("graft serve"):
                    self.serve(re.sub(r" --port \d+", "", line))
                    seen += 1
                    continue
                if "--watch" in line:
                    self.watch(line)
                    seen += 1
                    continue
                self.type(line + " --dry-run --force" if line.startswith("graft train") else line)
                seen += 1
        self.assertGreater(seen, 20)

    def test_links_lead_somewhere(self):
        for document in [*DOCS, *sorted((t.SOURCE / "docs" / "decisions").glob("*.md")), t.SOURCE / "CONTRIBUTING.md"]:
            for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
                if "://" not in link:
                    self.assertTrue((document.parent / link).exists(), f"{document.name}: {link}")

    def test_readme_is_short(self):
        self.assertLessEqual(len((t.SOURCE / "README.md").read_text().splitlines()), 110)


if __name__ == "__main__":
    t.main()
