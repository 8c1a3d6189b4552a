"""graft.Classifier: every form of an image, the same bits; what is no image, refused in words."""
import io
import multiprocessing
import pickle
import subprocess
import threading
import time

import numpy as np
import pytest

import graft
from conftest import BUILD

PIL = pytest.importorskip("PIL.Image")


def pixels(file):
    return np.asarray(PIL.open(file).convert("RGB"))


def test_agrees_with_the_program(classifier, run, files):
    program = BUILD / "bin" / "graft"
    printed = subprocess.run([program, "predict", run.folder, *files[:9], "--json"], capture_output=True, text=True,
                             check=True).stdout
    import json
    rows = json.loads(printed)
    rows = rows["predictions"] if isinstance(rows, dict) else rows
    found = classifier(files[:9])
    for row, prediction in zip(rows, found):
        top = row["top"][0] if "top" in row else row["predictions"][0]
        assert prediction.label == top["label"]
        assert prediction.probability == pytest.approx(top["probability"], abs=1e-6)


def test_folders_are_no_images(classifier, tmp_path):
    for call in (lambda: classifier(tmp_path), lambda: classifier([tmp_path]),
                 lambda: graft.features(str(tmp_path), backbone="vgg-mini")):
        with pytest.raises(graft.UsageError, match="is a folder; graft.list_images"):
            call()


def test_messages_speak_of_keywords():
    from graft._errors import in_python
    assert in_python("interrupted by SIGINT; 'graft train DATA --resume /tmp/r' goes on") == \
        "interrupted by SIGINT; graft.resume('/tmp/r') goes on"
    assert in_python("train one with 'graft train DATA `weights` m.keras'") == "train one with graft.train(DATA, weights='m.keras')"
    assert in_python("which `classes` A,B,… does") == "which classes=['A', 'B', …] does"


def test_formats_that_a_process_decodes_and_archives(classifier, files, tmp_path):
    """By the package's own graft-read-image, also after fork(); paths that lead into a zip."""
    import zipfile
    some = [tmp_path / f"{k}.{suffix}" for k, suffix in enumerate(("bmp", "tiff", "gif"))]
    for path, file in zip(some, files):
        PIL.open(file).save(path)
    found = classifier(some)
    for row, path in zip(found.logits, some):
        np.testing.assert_array_equal(row, classifier(pixels(path)).logits)
        np.testing.assert_array_equal(row, classifier(path.read_bytes()).logits)
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in files[:5]:
            out.write(file, file.rsplit("/", 1)[1])
    inside = graft.list_images(archive)
    assert inside == sorted(f"{archive}/{file.rsplit('/', 1)[1]}" for file in files[:5])
    order = [f"{archive}/{file.rsplit('/', 1)[1]}" for file in files[:5]]
    np.testing.assert_array_equal(classifier(order).logits, classifier(files[:5]).logits)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sizes = pool.map(_decode_in_a_child, [(str(path), classifier.path) for path in some * 4])
    assert sizes == [prediction.label for prediction in found] * 4
    np.testing.assert_array_equal(classifier(some).logits, found.logits)


def _decode_in_a_child(job):
    path, model = job
    return graft.Classifier(model)(path).label


def test_every_form_of_an_image_gives_the_same(classifier, files):
    import pathlib
    some = files[:20]
    by_path = classifier(some)
    assert by_path.logits.dtype == by_path.probabilities.dtype == np.float32
    assert by_path.logits.shape == (20, 6)
    np.testing.assert_allclose(by_path.probabilities.sum(axis=1), 1, atol=1e-6)
    read = [pathlib.Path(file).read_bytes() for file in some]
    forms = {
        "PathLike": [pathlib.Path(file) for file in some],
        "bytes": read,
        "bytearray": [bytearray(data) for data in read],
        "memoryview": [memoryview(data) for data in read],
        "np.fromfile": [np.fromfile(file, dtype=np.uint8) for file in some],
        "arrays": [pixels(file) for file in some],
        "one array": np.stack([pixels(file) for file in some]),
        "reversed twice": [np.ascontiguousarray(pixels(file)[:, ::-1, ::-1])[:, ::-1, ::-1] for file in some],
        "Fortran order": [np.asfortranarray(pixels(file)) for file in some],
        "read only": [np.frombuffer(pixels(file).tobytes(), np.uint8).reshape(pixels(file).shape) for file in some],
        "open files": [io.BytesIO(data) for data in read],
        "PIL": [PIL.open(file) for file in some],
        "an object array of paths": np.array(some, dtype=object),
        "a generator": (file for file in some),
        "a mixture": [data if i % 2 else file for i, (file, data) in enumerate(zip(some, read))],
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(classifier(form).logits, by_path.logits, err_msg=name)
    for i, file in enumerate(some):
        np.testing.assert_array_equal(classifier(file).logits, by_path.logits[i])


def test_pil_images_are_read_as_files_are(classifier, tmp_path):
    """Orientation, transparency, 16 bits, palettes."""
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    turned = PIL.Exif()
    turned[0x0112] = 6
    PIL.fromarray(colours).save(tmp_path / "turned.png", exif=turned)
    PIL.fromarray(np.dstack([colours, np.repeat([[0], [255]], 20, axis=0) + np.zeros((40, 60))]).astype(np.uint8)).save(
        tmp_path / "clear.png")
    PIL.fromarray(rng.integers(0, 65535, (40, 60), dtype=np.uint16)).save(tmp_path / "deep.png")
    PIL.fromarray(colours).quantize(20).save(tmp_path / "palette.png")
    PIL.fromarray(colours[:, :, 0]).save(tmp_path / "grey.png")
    for file in sorted(tmp_path.glob("*.png")):
        np.testing.assert_array_equal(classifier(PIL.open(file)).logits, classifier(file).logits, err_msg=file.name)


def test_results(classifier, files):
    predictions = classifier(files[:7])
    assert len(predictions) == 7 and [p.label for p in predictions] == predictions.labels
    one = predictions[-1]
    assert one.label == classifier.classes[np.argmax(one.probabilities)]
    assert one.top(2)[0] == (one.label, one.probability)
    assert [p for _, p in one.top(6)] == sorted(one.probabilities.tolist(), reverse=True)
    assert len(one.top(100)) == 6 and one.top(0) == []
    assert predictions.top(1)[6] == one.top(1)
    assert len(predictions[2:4]) == 2 and predictions[2:4].labels == predictions.labels[2:4]
    with pytest.raises(IndexError):
        predictions[7]
    assert len(classifier([])) == 0 and classifier([]).labels == []
    assert one.label in one._repr_html_()


@pytest.mark.parametrize("bad,words", [
    (np.zeros((8, 8, 3), np.float32), "expected uint8 pixels (H, W, 3) in RGB, got float32"),
    (np.zeros((3, 8, 8), np.uint8), "channels come last"),
    (np.zeros((8, 8), np.uint8), "grey"),
    (np.zeros((8, 8, 4), np.uint8), "transparent"),
    (np.zeros((0, 8, 3), np.uint8), "from 1 to 65535"),
    (3, "got int"), ({"a": 1}, "got dict"), ([None], "images[0]"), (b"", "no bytes"),
    (io.StringIO("text"), "mode 'rb'"), (io.BytesIO(), "seek(0)"),
])
def test_what_is_no_image_is_a_usage_error(classifier, bad, words):
    with pytest.raises(graft.UsageError) as caught:
        classifier(bad)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, graft.Error)


def test_images_that_cannot_be_read(classifier, files, tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(open(files[0], "rb").read()[:500])
    mixed = [files[0], str(tmp_path / "damaged.jpg"), files[1], str(tmp_path / "missing.jpg")]
    with pytest.raises(graft.InputError, match="damaged.jpg"):
        classifier(mixed)
    with pytest.raises(graft.IoError, match="missing.jpg"):
        classifier(mixed[3])
    with pytest.raises(graft.InputError, match=r"images\[1\]"):
        classifier([pixels(files[0]), b"no image"])
    whole = classifier(files[:2])
    for form in (mixed, [pixels(files[0]), b"no image", files[1], str(tmp_path / "missing.jpg")]):
        found = classifier(form, on_error="nan")
        assert sorted(found.errors) == [1, 3] and found.labels[1] is None and found.top(1)[1] == []
        assert np.isnan(found.logits[[1, 3]]).all()
        np.testing.assert_array_equal(found.logits[[0, 2]], whole.logits)
        with pytest.raises(graft.InputError):
            found[1]
        assert 0 in found[1:].errors and 1 not in found[1:].errors
    with pytest.raises(graft.UsageError, match="on_error"):
        classifier(files[0], on_error="ignore")


def test_models_that_cannot_be_loaded(run, tmp_path):
    with pytest.raises(graft.Error, match="missing"):
        graft.Classifier(tmp_path / "missing")
    (tmp_path / "cut.safetensors").write_bytes(run.model.read_bytes()[:-100])
    with pytest.raises(graft.InputError, match="cut.safetensors"):
        graft.Classifier(tmp_path / "cut.safetensors")
    with pytest.raises(graft.UsageError, match="precision"):
        graft.Classifier(run, precision="fp8")
    with pytest.raises(graft.UsageError):
        graft.Classifier(run, threads=-1)
    with pytest.raises(graft.UsageError):
        graft.Classifier(run, views=3)


def test_names_that_are_not_utf8(classifier, files, tmp_path):
    import os
    import shutil
    name = os.path.join(os.fsencode(tmp_path), b"\xe9t\xe9.jpg")
    shutil.copy(files[0], name)
    np.testing.assert_array_equal(classifier(os.fsdecode(name)).logits, classifier(files[0]).logits)
    assert os.fsdecode(name) in graft.list_images(tmp_path)


def test_pickled_it_is_its_path(classifier, files):
    again = pickle.loads(pickle.dumps(classifier))
    assert again.path == classifier.path
    np.testing.assert_array_equal(again(files[0]).logits, classifier(files[0]).logits)


def test_threads_share_a_classifier(classifier, files):
    expected = classifier(files).logits
    found, errors = {}, []

    def work(k):
        try:
            found[k] = classifier([pixels(file) for file in files[k::4]]).logits
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for k in range(4):
        np.testing.assert_array_equal(found[k], expected[k::4])


def test_the_gil_is_released(classifier, files):
    """Another thread's Python goes on while a long call computes."""
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    many = [pixels(file) for file in files] * 40
    begin = time.monotonic()
    classifier(many)
    end = time.monotonic()
    done.set()
    thread.join()
    during = [t for t in ticks if begin <= t <= end]
    assert len(during) > 5, (len(during), end - begin)


@pytest.mark.parametrize("call", ["classifier(many)", "classifier([pixels] * 100000)", "extractor.transform(many)",
                                  "graft.evaluate(run, data)"])
def test_ctrl_c_ends_long_work(run, photos, files, python, call):
    """Soon, as a KeyboardInterrupt; what was called can be called again."""
    out = python(f"""
import os, signal, threading, time, numpy, graft
run, data, files = {str(run.folder)!r}, {str(photos)!r}, {files!r}
many, pixels = files * 3000, numpy.zeros((64, 64, 3), numpy.uint8)
classifier = graft.Classifier(run, threads=1)
extractor = graft.FeatureExtractor("vgg-mini", input_size=64, threads=1).fit()
before = classifier(files[0]).logits
threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(10000): {call}
    print("ran to its end")
except KeyboardInterrupt as error:
    print(type(error).__name__)
assert (classifier(files[0]).logits == before).all()
assert numpy.isfinite(extractor.transform(files[:2])).all()
""", timeout=60)
    assert out.strip() == "KeyboardInterrupt"


def _in_child(queue, classifier, files):
    queue.put(classifier(files).logits)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes(classifier, files, method):
    """A forked child has none of the engine's threads: it loads again, and ends."""
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue, classifier, files[:5]))
    child.start()
    found = queue.get(timeout=120)
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, classifier(files[:5]).logits)


def test_a_forked_child_ends_by_itself(run, python):
    """With the interpreter's whole way out, which destroys the parent's classifier."""
    out = python(f"""
import os, sys, graft
c = graft.Classifier({str(run.folder)!r})
sys.stdout.flush()
if os.fork() == 0:
    print("child", flush=True)
    sys.exit(0)
print("parent", os.waitstatus_to_exitcode(os.wait()[1]))
""", timeout=60)
    assert "child" in out and "parent 0" in out
