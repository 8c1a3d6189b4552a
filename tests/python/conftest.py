"""What the tests of the Python package share: drawn photos, and a run on them.

They test the package that is installed, or that of the build tree (PYTHONPATH=build/python).
"""
import os
import pathlib
import signal
import subprocess
import sys

import pytest

SOURCE = pathlib.Path(os.environ.get("GRAFT_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("GRAFT_BUILD", SOURCE / "build"))

import graft  # noqa: E402

HAS_TRAINING = (pathlib.Path(graft.__file__).parent / "libexec" / "graft" / "graft-train").exists()
SMALL = {"backbone": "vgg-mini", "input_size": 32, "epochs": 3, "threads": 2, "progress": False}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """The user's own cache is not for tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """72 drawn scenes in six class folders."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    subprocess.run([BUILD / "tests" / "tools" / "draw_scenes", folder, "12", "0", "64"], check=True)
    return folder


@pytest.fixture(scope="session")
def files(photos):
    return graft.list_images(photos)


@pytest.fixture(scope="session")
def run(photos, tmp_path_factory):
    """A finished run, or the test is skipped."""
    if not HAS_TRAINING:
        pytest.skip("built without LibTorch")
    return graft.train(photos, tmp_path_factory.mktemp("runs") / "first", **SMALL)


@pytest.fixture(scope="session")
def classifier(run):
    return run.classifier(threads=2)


@pytest.fixture
def python():
    """Runs a script in a Python process of its own; returns what it printed."""
    def go(script, timeout=300, **environment):
        # Shells ignore Ctrl-C for what they start in the background, and so would the script.
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                              env=dict(os.environ, **environment))
        assert done.returncode == 0, done.stderr
        return done.stdout
    return go
