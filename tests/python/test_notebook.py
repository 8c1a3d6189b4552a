"""The notebook of examples/: executed by Jupyter where it is installed, else its code as a script."""
import json
import os
import re
import subprocess
import sys

import pytest

import graft
from conftest import HAS_TRAINING, SOURCE

NOTEBOOK = SOURCE / "examples" / "graft.ipynb"
pytestmark = pytest.mark.skipif(not HAS_TRAINING, reason="built without LibTorch")


def code_cells():
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_its_outputs_are_not_committed():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")


def test_as_a_script(photos, tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n\n".join(code_cells())], capture_output=True, text=True, timeout=300,
                          cwd=tmp_path, env=dict(os.environ, PHOTOS=str(photos)))
    assert done.returncode == 0, done.stderr
    assert graft.Run(tmp_path / "runs" / "first").is_finished


def test_in_jupyter(photos, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PHOTOS", str(photos))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pages = ["".join(output.data["text/html"]) for output in shown if "text/html" in output.get("data", {})]
    assert any("<iframe srcdoc=" in page for page in pages)
    assert any("<svg" in page for page in pages)
    assert not any(re.search(r"(src|href)=(&quot;|\")https?:", page) for page in pages)
    assert any(output.output_type == "stream" and "epoch" in output.text for output in shown)
    assert not any(output.output_type == "error" for output in shown)


def test_the_stop_button(photos, tmp_path, monkeypatch):
    """Interrupting the kernel in a training: the state is saved, and the notebook goes on."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PHOTOS", str(photos))
    cells = ["""
import os, signal, threading, graft
def stop(epoch):
    if epoch.epoch == 2: os.killpg(os.getpgid(0), signal.SIGINT)
try:
    graft.train(os.environ["PHOTOS"], "runs/long", backbone="vgg-mini", input_size=32, epochs=400, fine_tune=2,
                no_report=True, on_epoch=stop, threads=2)
except KeyboardInterrupt as error:
    print("saved", error.run)
""", "run = graft.resume('runs/long', epochs=len(graft.Run('runs/long').history) + 1, threads=2)\nprint('finished', run.is_finished)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)
    assert "saved " in text and "finished True" in text
