#!/usr/bin/python3
"""Draws the tutorial's pictures anew: docs/images/*.webp, of the commands that docs/tutorial.md tells to type.

Usage: scripts/screenshots.py [BUILD_FOLDER] [NAME...]
Needs the built program, chromium, chromium-driver, python3-selenium and tmux (scripts/install-deps.sh test).
"""
import base64
import csv
import html
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
os.environ.setdefault("GRAFT_BUILD", str(BUILD))
os.environ.setdefault("GRAFT_SOURCE", str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests" / "pages"))

from browser import open_browser  # noqa: E402

WANTED = set(sys.argv[2:])
OUT = ROOT / "docs" / "images"
WIDTH = 1000
COLOURS = ["#2e3436", "#ef2929", "#8ae234", "#fce94f", "#729fcf", "#ad7fa8", "#34e2e2", "#d3d7cf"]


class Pictures:
    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(folder / "cache"), LC_ALL="C.UTF-8",
                                PATH=f"{BUILD / 'bin'}:{os.environ['PATH']}")
        self.browser = open_browser()

    def type(self, line):
        subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, line, **more):
        return subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment, text=True, **more)

    def open(self, address, height=720, width=WIDTH):
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        self.browser.get(address if "://" in str(address) else (self.folder / address).as_uri())

    def run_script(self, text):
        return self.browser.execute_script(text)

    def until(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not self.run_script(f"return Boolean({condition})"):
            if time.monotonic() > deadline:
                raise SystemExit(f"screenshots.py: not within {seconds} s: {condition}")
            time.sleep(0.1)

    def save(self, name, selector=None, height=None):
        """What the window shows, or the element; `height` pixels of it where that is said."""
        left, top, width, whole = self.run_script(f"""const e = {json.dumps(selector)} && document.querySelector({json.dumps(selector)});
            if (!e) return [0, scrollY, document.documentElement.clientWidth, innerHeight];
            const b = e.getBoundingClientRect();
            return [0, b.top + scrollY - 8, document.documentElement.clientWidth, b.height + 16];""")
        clip = {"x": left, "y": max(0, top), "width": width, "height": height or whole, "scale": 1}
        data = self.browser.execute_cdp_cmd("Page.captureScreenshot", {
            "format": "webp", "quality": 80, "clip": clip, "captureBeyondViewport": True})["data"]
        path = OUT / f"{name}.webp"
        path.write_bytes(base64.b64decode(data))
        print(f"wrote {path.relative_to(ROOT)} ({path.stat().st_size // 1024} kB)")

    def terminal(self, name, line, columns=100, rows=44):
        """What a terminal shows when the command has ended."""
        done = self.folder / "done"
        tmux = ["tmux", "-L", f"graft-{os.getpid()}", "-f", "/dev/null"]
        subprocess.run([*tmux, "new-session", "-d", "-x", str(columns), "-y", str(rows),
                        f"printf '%s\\n' {shell_quoted('$ ' + line)}; {line}; touch {done}; sleep 600"],
                       cwd=self.folder, env=dict(self.environment, TERM="xterm-256color"), check=True)
        try:
            while not done.exists():
                time.sleep(0.1)
            time.sleep(0.5)
            shown = subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True,
                                   text=True).stdout.rstrip("\n")
        finally:
            subprocess.run([*tmux, "kill-server"], capture_output=True)
        done.unlink()
        page = self.folder / "terminal.html"
        page.write_text(f"""<!doctype html><meta charset="utf-8"><style>
            body {{ margin: 0; background: #1d1f21; }}
            pre {{ margin: 0; padding: 16px; color: #d3d7cf; display: inline-block;
                   font: 15px/1.2 'DejaVu Sans Mono', 'DejaVu Sans', monospace; }}
            </style><pre>{coloured(shown)}</pre>""")
        self.open(page, width=1000)
        self.save(name, "pre")


def shell_quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def coloured(text):
    """A terminal's text with its SGR sequences as HTML."""
    out, style = [], {}
    for part in re.split("(\x1b\\[[0-9;]*m)", text):
        found = re.fullmatch("\x1b\\[([0-9;]*)m", part)
        if not found:
            css = ";".join(f"{k}:{v}" for k, v in style.items())
            # Braille has no glyph of the monospaced font's width: a box of that width for each.
            cells = re.sub("[⠀-⣿]", r'<span style="display:inline-block;width:1ch;overflow:hidden">\g<0></span>',
                           html.escape(part))
            out.append(f'<span style="{css}">{cells}</span>' if css else cells)
            continue
        for code in map(int, filter(None, (found[1] or "0").split(";"))):
            if code == 0:
                style.clear()
            elif code == 1:
                style["font-weight"] = "bold"
            elif code == 2:
                style["opacity"] = "0.65"
            elif 30 <= code <= 37:
                style["color"] = COLOURS[code - 30]
            elif 90 <= code <= 97:
                style["color"] = COLOURS[code - 90]
            elif code == 39:
                style.pop("color", None)
    return "".join(out)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check(p):
    """A copy of the photos in which what check finds has been planted."""
    bad = p.folder / "photos"
    shutil.copytree(p.folder / "demo" / "data", bad)
    train = bad / "train"
    shutil.copy(train / "sea" / "000.jpg", train / "glacier" / "seaside.jpg")
    shutil.copy(train / "street" / "003.jpg", bad / "test" / "street" / "copy.jpg")
    whole = (train / "forest" / "004.jpg").read_bytes()
    (train / "forest" / "004.jpg").write_bytes(whole[:len(whole) // 2])
    p.type("graft check photos --html check.html")
    p.open("check.html")
    p.save("check", "body", 960)


def labels(p):
    mixed = p.folder / "mixed"
    shutil.copytree(p.folder / "demo" / "data" / "train", mixed)
    for here, there, name in (("sea", "street", "007.jpg"), ("forest", "glacier", "011.jpg"),
                              ("mountain", "buildings", "005.jpg"), ("street", "forest", "021.jpg")):
        (mixed / here / name).rename(mixed / there / f"from-{here}-{name}")
    p.type("graft check mixed --backbone vgg-mini --review review.csv --html labels.html")
    p.open("labels.html")
    p.save("labels", "#label_errors", 760)


def terminal(p):
    p.terminal("terminal", "graft train demo/data/train --backbone vgg-mini --head 'stats dense:128' --epochs 12 "
                           "-o runs/seen")


def report(p):
    p.open("runs/first/report.html")
    p.save("report", "body", 900)


def confusion(p):
    p.open("runs/first/report.html")
    p.save("matrix", "#classes", 960)
    # The first kind of mistake, and its photos.
    p.run_script("""[...document.querySelectorAll('table.confusion td:not(.hit)')]
        .find(cell => Number(cell.textContent) > 0).click()""")
    time.sleep(1)
    p.save("confusion", height=560)


def dashboard(p):
    port = free_port()
    run = p.start(f"graft train demo/data/train --backbone vgg-mini --fine-tune block4_conv1 --lr 5e-4 "
                  f"--epochs 30 --patience 0 --no-report --dashboard {port} -o runs/live", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        p.open(f"http://127.0.0.1:{port}/", 900)
        p.until("/epoch 1[2-9] of/.test(document.body.textContent)")
        p.save("dashboard")
    finally:
        run.terminate()
        run.wait(60)


def compare(p):
    p.type("graft compare runs/first runs/tuned --html compare.html")
    p.open("compare.html")
    p.save("compare", "body", 760)


def explain(p):
    p.type("graft predict runs/tuned demo/data/test/sea demo/data/test/street --explain why --top 2")
    with open(p.folder / "why" / "index.csv", newline="", encoding="utf-8") as file:
        drawn = [row["overlay"] for row in csv.DictReader(file)]
    shown = [p.folder / "why" / drawn[i] for i in (1, 4, 22, 25)]
    page = p.folder / "why.html"
    page.write_text("<!doctype html><style>body{margin:8px;display:inline-flex;flex-wrap:wrap;gap:8px;width:900px}"
                    "img{width:440px}</style>" + "".join(f'<img src="{path.as_uri()}">' for path in shown))
    p.open(page, width=916)
    p.until("[...document.images].every(i => i.complete)")
    p.save("explain", "body")


def gallery(p):
    p.type("graft predict runs/tuned/model.safetensors demo/data/test -o gallery.html")
    p.open("gallery.html")
    p.save("gallery", "body", 760)


def serve(p):
    server = p.start("graft serve runs/tuned --port 0", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        p.open(address, 900)
        files = [str(p.folder / "demo" / "data" / "test" / name / "002.jpg") for name in ("sea", "forest", "glacier")]
        p.browser.find_element("css selector", "input[type=file]").send_keys("\n".join(files))
        p.until("/3 images classified/.test(document.body.textContent)")
        time.sleep(2)  # thumbnails
        p.save("serve")
    finally:
        server.terminate()
        server.wait(30)


def main():
    if not shutil.which("graft", path=BUILD / "bin"):
        raise SystemExit(f"screenshots.py: {BUILD}/bin/graft is missing; 'make build' builds it")
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="graft-screenshots-") as folder:
        p = Pictures(pathlib.Path(folder))
        try:
            p.type("graft demo --output demo")
            p.type("graft train demo/data/train --backbone vgg-mini -o runs/first")
            p.type("graft train demo/data/train --backbone vgg-mini --head 'stats batchnorm dense:128 dropout:0.5' "
                   "--epochs 16 --freeze-epochs 8 --fine-tune block4_conv1 --lr 5e-4 -o runs/tuned")
            for picture in (check, labels, terminal, report, confusion, dashboard, compare, explain, gallery, serve):
                if not WANTED or picture.__name__ in WANTED:
                    picture(p)
        finally:
            p.browser.quit()


if __name__ == "__main__":
    main()
