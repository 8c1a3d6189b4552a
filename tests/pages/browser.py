"""A headless Chromium that reports what a page did wrong."""
import shutil
import sys

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
    missing = browser.execute_script(
        "return [...document.images].filter(i => !i.alt || !i.naturalWidth).length")
    if missing:
        faults.append(f"{missing} images without text or content")
    return faults
