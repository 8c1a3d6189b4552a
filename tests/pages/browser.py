"""A headless Chromium that reports what a page did wrong."""
import importlib.util
import os
import pathlib
import shutil
import sys

import graft_testing as t

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def skip_without_browser():
    """Ends the script with ctest's code for 'skipped' where there is no browser to drive."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        selenium = None
    if not (CHROMIUM and DRIVER and selenium):
        print("SKIPPED: needs chromium, chromium-driver and python3-selenium")
        sys.exit(77)


def make_runs(base, epochs, **renamed):
    """base/data, with copies in it, and a run of so many epochs for each name; `renamed` classes."""
    for split, count, seed in (("train", 12, 0), ("test", 5, 500)):
        t.draw_scenes(base / "data" / split, count, first_seed=seed)
        for name, other in renamed.items():
            (base / "data" / split / name).rename(base / "data" / split / other)
    shutil.copy(base / "data" / "train" / "street" / "0.jpg", base / "data" / "test" / "forest" / "copy.jpg")
    for name, count in epochs.items():
        done = t.run("train", base / "data", "--backbone", "vgg-mini", "--input-size", "64", "--epochs", count,
                     "-o", base / name, "--quiet")
        assert done.returncode == 0, done.stderr


def open_browser(dark=False):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                     "--disable-dev-shm-usage", "--force-device-scale-factor=1",
                     *(["--force-dark-mode"] if dark else [])):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(service=Service(DRIVER), options=options)


def axe_script():
    """axe-core's text, from the file that GRAFT_AXE names or the package axe-playwright-python; None
    where there is neither."""
    named = os.environ.get("GRAFT_AXE")
    if named:
        return pathlib.Path(named).read_text(encoding="utf-8")
    found = importlib.util.find_spec("axe_playwright_python")
    return found and (pathlib.Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def axe_faults(browser, script):
    """What axe-core finds on the page that is open, a line each."""
    browser.execute_script(script)
    result = browser.execute_async_script("""
        const done = arguments[arguments.length - 1];
        axe.run(document, {resultTypes: ['violations']}).then(
          r => done(r.violations), e => done([{id: String(e), help: '', nodes: []}]));""")
    return [f"{v['id']}: {v['help']}: {[n['html'][:160] for n in v['nodes'][:3]]}" for v in result]


def scheme(browser, name):
    """'light' or 'dark'; '' for the browser's own."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": name}] if name else []})


def visit(browser, url, width, height=900):
    """Opens a page in a window of that size and returns its faults as text, none if it is sound."""
    import json
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": height, "deviceScaleFactor": 1,
                             "mobile": width < 600})
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(url)
    faults = [entry["message"] for entry in browser.get_log("browser")]
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked = message["params"]["request"]["url"]
            if not asked.startswith(("data:", url.rsplit("/", 1)[0])):
                faults.append(f"asks for {asked}")
    wide = browser.execute_script("""
        const limit = document.documentElement.clientWidth + 1;
        const inside = e => { for (let p = e.parentElement; p; p = p.parentElement)
            if (getComputedStyle(p).overflowX === 'auto') return true; return false; };
        return [...document.querySelectorAll('body *')].filter(
            e => e.getBoundingClientRect().right > limit && !inside(e)
                && !(e instanceof SVGElement && e.tagName !== 'svg')).map(
            e => e.tagName + ' ' + e.className).slice(0, 5)""")
    faults += [f"too wide at {width}: {what}" for what in wide]
    if browser.execute_script("return document.documentElement.scrollWidth > innerWidth"):
        faults.append(f"scrolls sideways at {width}")
    # Those far below are loaded when they come into view.
    missing = browser.execute_async_script("""
        const done = arguments[arguments.length - 1], images = [...document.images];
        for (const i of images) i.loading = 'eager';
        Promise.allSettled(images.map(i => i.decode())).then(
            () => done(images.filter(i => !i.alt || !i.naturalWidth).length))""")
    if missing:
        faults.append(f"{missing} images without text or content")
    return faults
