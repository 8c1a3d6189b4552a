"""What docs/python.md tells people to type, typed, in order."""
import importlib.util
import os
import re
import subprocess
import sys

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


def test_the_module_sees_public_headers_alone():
    own = {file.name for file in (SOURCE / "python" / "src").iterdir()}
    for file in (SOURCE / "python" / "src").iterdir():
        for name in re.findall(r'#include "([^"]+)"', file.read_text()):
            assert name.startswith("graft/") or name in own, f"{file.name}: {name}"


def test_sources_are_short():
    for file in [*(SOURCE / "python").rglob("*.py"), *(SOURCE / "python" / "src").iterdir()]:
        assert len(file.read_text().splitlines()) <= 500, file
