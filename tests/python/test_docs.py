"""What the documents tell people to type in Python, typed, in order."""
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import graft
import pytest

from conftest import HAS_TRAINING, SOURCE


@pytest.mark.skipif(not HAS_TRAINING, reason="built without LibTorch")
def test_python_of_the_guide(photos, tmp_path):
    text = (SOURCE / "docs" / "python.md").read_text()
    blocks = re.findall(r"(<!-- needs scikit-learn -->\n)?```python\n(.*?)```", text, re.S)
    assert len(blocks) > 5
    if importlib.util.find_spec("sklearn") is None:
        blocks = [block for block in blocks if not block[0]]
    os.symlink(photos, tmp_path / "photos")
    done = subprocess.run([sys.executable, "-c", "\n".join(code for _, code in blocks)], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists() and (tmp_path / "pets.onnx").exists()


def test_the_server_in_ten_lines(run, photos):
    code, = re.findall(r"```python\n(.*?)```", (SOURCE / "docs" / "from-keras.md").read_text(), re.S)
    assert len(code.splitlines()) <= 14
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = code.replace("8000", str(port)).replace('"runs/more"', repr(os.fspath(run)))
    image = sorted(photos.rglob("*.jpg"))[0]
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", image.read_bytes(), timeout=30) as answer:
                said = json.load(answer)
        finally:
            server.terminate()
    one = graft.Classifier(run)(image)
    assert said == {"label": one.label, "probability": one.probability}


def test_the_module_sees_public_headers_alone():
    own = {file.name for file in (SOURCE / "python" / "src").iterdir()}
    for file in (SOURCE / "python" / "src").iterdir():
        for name in re.findall(r'#include "([^"]+)"', file.read_text()):
            assert name.startswith("graft/") or name in own, f"{file.name}: {name}"


def test_sources_are_short():
    for file in [*(SOURCE / "python").rglob("*.py"), *(SOURCE / "python" / "src").iterdir()]:
        assert len(file.read_text().splitlines()) <= 500, file
