"""Graft beside PyTorch, TensorFlow, ONNX Runtime and OpenCV in one process: imported in either
order, computing in turns and at once, with the same results as alone."""
import importlib.util

import numpy as np
import pytest

import graft

PEERS = {
    "torch": "import torch; x = torch.randn(200, 200)\ndef peer(): return float((x @ x).sum())",
    "tensorflow": "import tensorflow as tf; x = tf.random.normal((200, 200))\ndef peer(): return float(tf.reduce_sum(x @ x))",
    "onnxruntime": "import onnxruntime\ndef peer(): return len(onnxruntime.get_available_providers())",
    "cv2": "import cv2, numpy\ndef peer(): return float(cv2.blur(numpy.ones((99, 99)), (3, 3)).sum())",
    "h5py": "import h5py\ndef peer(): return h5py.version.hdf5_version",
    "scipy": "import numpy, scipy.linalg; x = numpy.random.rand(200, 200)\ndef peer(): return float(scipy.linalg.svdvals(x).sum())",
    "curl": "import ssl, urllib.request\ndef peer(): return ssl.OPENSSL_VERSION",
}

WORK = """
import threading
first = graft.features(files, backbone="vgg-mini", input_size=64, threads=2)
value = peer()
classifier = graft.Classifier(run) if run else None
results = []
def ours():
    for _ in range(5):
        results.append(graft.features(files, backbone="vgg-mini", input_size=64, threads=2))
        if classifier: classifier(files)
thread = threading.Thread(target=ours); thread.start()
for _ in range(20): assert peer() == value or value != value or abs(peer() - value) <= 1e-2 * abs(value)
thread.join()
assert len(results) == 5 and all((r == first).all() for r in results)
import numpy
numpy.save(out, first)
print("fine")
"""


@pytest.mark.parametrize("order", ["graft first", "graft last"])
@pytest.mark.parametrize("name", PEERS)
def test_in_one_process(python, files, tmp_path, name, order, request):
    module = "ssl" if name == "curl" else name
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"no {module}")
    run = str(request.getfixturevalue("run").folder)
    out = tmp_path / "features.npy"
    imports = ["import graft", PEERS[name]]
    if order == "graft last":
        imports.reverse()
    script = "\n".join(imports) + f"\nfiles, run, out = {files[:12]!r}, {run!r}, {str(out)!r}\n" + WORK
    assert "fine" in python(script, CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")
    np.testing.assert_array_equal(np.load(out), graft.features(files[:12], backbone="vgg-mini", input_size=64, threads=2))


def test_training_beside_torch(python, photos, tmp_path):
    """The program has a LibTorch of its own."""
    pytest.importorskip("torch")
    if not (graft.__file__ and __import__("conftest").HAS_TRAINING):
        pytest.skip("built without LibTorch")
    assert "2 epochs" in python(f"""
import torch, graft
run = graft.train({str(photos)!r}, {str(tmp_path / 'run')!r}, backbone="vgg-mini", input_size=32, epochs=2, progress=False)
print(len(run.history), "epochs", float(torch.ones(3).sum()))
""")


def test_exported_models_agree(run, files, tmp_path):
    """The classifier, ONNX Runtime and PyTorch's own reader on what graft.export() writes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    image = pytest.importorskip("PIL.Image")
    graft.export(run, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    pixels = np.stack([np.asarray(image.open(file).resize((32, 32), image.BILINEAR)) for file in files[:8]])
    (logits,) = session.run(["logits"], {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(logits, run.classifier()(files[:8]).logits, rtol=1e-4, atol=1e-4)
