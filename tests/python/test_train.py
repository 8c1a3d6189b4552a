"""graft.train() and what follows from it: options, events, Ctrl-C, resuming, reports, exports."""
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import graft
from conftest import BUILD, HAS_TRAINING, SMALL

pytestmark = pytest.mark.skipif(not HAS_TRAINING, reason="built without LibTorch")


def test_every_option_of_the_program_is_a_keyword():
    """And no other: the table of options is the program's."""
    text = subprocess.run([BUILD / "bin" / "graft", "train", "--help"], capture_output=True, text=True, check=True).stdout
    flags = {flag.replace("-", "_") for flag in re.findall(r"^  (?:-\w,)?--([a-z0-9-]+)", text, re.M)}
    # What is Python's own affair (progress, resume()), or has no result to return.
    flags -= {"help", "json", "quiet", "verbose", "status_fd", "resume", "dry_run", "find_lr"}
    keywords = set(inspect.signature(graft.train).parameters) - {"data", "progress", "on_epoch"}
    # A word of Python's own.
    flags = {"from_run" if flag == "from" else flag for flag in flags}
    assert flags == keywords


def test_begins_from_a_run(run, photos, tmp_path):
    more = graft.train(photos, tmp_path / "more", from_run=run, epochs=1, no_report=True, progress=False)
    config = (more.folder / "config.toml").read_text()
    assert more.classes == run.classes and len(more.history) == 1
    assert "head = 'keep'" in config and f"split-from = '{run.folder}'" in config


def test_run(run, photos, files):
    assert run.is_finished and run.model.is_file() and os.fspath(run) == str(run.folder)
    assert [epoch.epoch for epoch in run.history] == [1, 2, 3]
    assert run.best_epoch in (1, 2, 3) and 0 <= run.accuracy() <= 1 and run.accuracy("test") is None
    assert run.classes == sorted(set(run.classes)) and len(run.classes) == 6
    assert "<svg" in run._repr_html_() and f"{run.accuracy():.4f}" in repr(run)
    assert run.classifier()(files[0]).label in run.classes
    again = graft.Run(run.folder)
    assert again.history == run.history
    with pytest.raises(graft.InputError, match="no run"):
        graft.Run(photos)


def test_the_same_as_the_program_makes(run, photos, tmp_path):
    done = subprocess.run([BUILD / "bin" / "graft", "train", photos, "-o", tmp_path / "run", "--backbone", "vgg-mini",
                           "--input-size", "32", "--epochs", "3", "--threads", "2", "--quiet"], capture_output=True)
    assert done.returncode == 0, done.stderr
    files = graft.list_images(photos)
    np.testing.assert_array_equal(graft.Classifier(tmp_path / "run")(files).logits, run.classifier()(files).logits)


def test_events_and_epochs(photos, tmp_path):
    events, epochs = [], []
    run = graft.train(photos, tmp_path / "run", **{**SMALL, "progress": events.append}, on_epoch=epochs.append,
                      no_report=True, lr=1e-3, augment="light", views=1, test_split=0.1, seed=2**40)
    kinds = [event["event"] for event in events]
    assert {"plan", "progress", "begin", "step", "epoch"} <= set(kinds)
    assert "72" in next(event for event in events if event["event"] == "plan")["text"] or "vgg-mini" in str(events)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    for epoch, line in zip(epochs, run.history):
        assert epoch.val_loss == pytest.approx(line.val_loss, abs=1e-5)
    assert run.accuracy("test") is not None
    config = (run.folder / "config.toml").read_text()
    assert "lr = 0.001" in config and f"seed = {2**40}" in config and "augment = 'light'" in config
    with pytest.raises(graft.InputError, match="no such page"):
        run.report  # noqa: B018


def test_lines_where_there_are_no_bars(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    graft.train(photos, tmp_path / "run", **{**SMALL, "progress": True}, no_report=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "vgg-mini at 32x32" in shown.err and "epoch 3/3  loss" in shown.err


def test_bars(photos, tmp_path, capsys):
    pytest.importorskip("tqdm")
    graft.train(photos, tmp_path / "run", **{**SMALL, "progress": True}, no_report=True)
    assert "epoch 3/3  loss" in capsys.readouterr().err


@pytest.mark.parametrize("options,words", [
    ({"lr": -1}, "lr: '-1.0' is not|lr: '-1' is not"), ({"batch_size": 0}, "batch_size"), ({"backbone": "resnet"}, "vgg16"),
    ({"recipe": "fast"}, "recipe"), ({"head": "gap foo"}, "head"), ({"optimizer": "lion"}, "optimizer"),
    ({"input_size": "x"}, "input_size"), ({"lr": float("nan")}, "lr"), ({"lr": []}, "lr: expected a number"),
    ({"threads": 0}, "threads"), ({"weights": "\udc80"}, "weights"),
])
def test_options_that_mean_nothing(photos, tmp_path, options, words):
    with pytest.raises(graft.UsageError, match=words) as caught:
        graft.train(photos, tmp_path / "run", **{**SMALL, **options})
    assert isinstance(caught.value, ValueError) and not (tmp_path / "run").exists()
    assert "`" not in str(caught.value) and "--" not in str(caught.value).replace("--threads", "")


def test_data_that_cannot_be_used(photos, tmp_path, run):
    with pytest.raises(graft.InputError, match="missing"):
        graft.train(tmp_path / "missing", tmp_path / "run", **SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(graft.InputError, match="empty"):
        graft.train(tmp_path / "empty", tmp_path / "run", **SMALL)
    with pytest.raises(graft.UsageError, match="force"):
        graft.train(photos, run.folder, **SMALL)
    with pytest.raises(graft.InputError, match="no run"):
        graft.resume(tmp_path)


def test_a_callback_that_raises_ends_the_run_saved(run, photos, tmp_path):
    class Enough(Exception):
        pass

    def stop(epoch):
        raise Enough

    with pytest.raises(Enough):
        graft.train(photos, tmp_path / "run", **{**SMALL, "epochs": 400}, no_report=True, on_epoch=stop)
    unfinished = graft.Run(tmp_path / "run")
    assert not unfinished.is_finished and unfinished.metrics == {} and "unfinished" in repr(unfinished)


SCRIPT = textwrap.dedent("""
    import os, signal, sys, threading, graft

    def later(event):
        if event["event"] == "epoch" and event["epoch"] == 2:
            {send}

    try:
        graft.train({photos!r}, {run!r}, backbone="vgg-mini", input_size=32, epochs=400, threads=2, no_report=True,
                    fine_tune=2, progress=later)
    except KeyboardInterrupt as error:
        assert isinstance(error, graft.Interrupted), type(error)
        print("run", error.run)
        print("text", error)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
""")


@pytest.mark.parametrize("send", ["os.kill(os.getpid(), signal.SIGINT)", "os.killpg(0, signal.SIGINT)"])
def test_ctrl_c_saves(photos, tmp_path, send):
    """To this process alone, and to the whole group, as terminals and Jupyter send it."""
    folder = str(tmp_path / "run")
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(photos=str(photos), run=folder, send=send)],
                          capture_output=True, text=True, timeout=120, start_new_session=True)
    assert done.returncode == 0, done.stderr
    assert f"run {folder}" in done.stdout and f"graft.resume('{folder}') goes on" in done.stdout
    assert not graft.Run(folder).is_finished
    before = len(graft.Run(folder).history)
    finished = graft.resume(folder, epochs=before + 1, progress=False, threads=2)
    assert finished.is_finished and len(finished.history) == before + 1


def test_the_program_ends_with_the_process_that_started_it(photos, tmp_path):
    folder = str(tmp_path / "run")
    script = SCRIPT.format(photos=str(photos), run=folder, send="os.kill(os.getpid(), signal.SIGKILL)")
    subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True).stdout.split()
        if not found:
            break
        time.sleep(0.2)
    assert not found, found
    finished = graft.resume(folder, epochs=len(graft.Run(folder).history) + 1, progress=False, threads=2)
    assert finished.is_finished


def test_figures_that_do_not_count_are_warned_of(photos, tmp_path):
    """Where test images turn out to be damaged once the model is there."""
    import shutil
    shutil.copytree(photos, tmp_path / "test")
    for file in graft.list_images(tmp_path / "test")[::3]:
        data = open(file, "rb").read()
        open(file, "wb").write(data[:len(data) // 2])
    with pytest.warns(RuntimeWarning, match="skipped.csv"):
        run = graft.train(photos, tmp_path / "run", **SMALL, test=tmp_path / "test", no_report=True)
    assert run.is_finished


def test_from_a_thread(photos, tmp_path):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(graft.train(photos, tmp_path / "run", **SMALL, no_report=True)))
    thread.start()
    thread.join()
    assert runs[0].is_finished


def test_report(run):
    report = graft.Report(run)
    page = report._repr_html_()
    assert page.startswith("<iframe srcdoc=") and "&lt;html" in page
    assert not re.search(r"(src|href)=&quot;https?:", page)
    assert run.report.path == report.path == run.folder / "report.html"
    with pytest.raises(graft.InputError, match="page"):
        graft.Report("/nonexistent")


def test_evaluate(run, photos, tmp_path):
    result = graft.evaluate(run, photos, split="all")
    assert len(result.paths) == len(result.labels) == len(result.logits) == 72
    assert result.accuracy == pytest.approx(np.mean(result.logits.argmax(axis=1) == result.labels))
    assert result.confusion.sum() == 72 and result.images_trained_on > 0
    files = graft.list_images(photos)
    assert result.paths == files
    np.testing.assert_array_equal(result.logits, run.classifier()(files).logits)
    assert "macro avg" in str(result) and result.predictions_csv.startswith("path,label")
    assert "<iframe" in result.write_report(tmp_path / "page.html")._repr_html_()
    assert graft.evaluate(run.classifier(), photos).accuracy == result.accuracy
    with pytest.raises(graft.InputError):
        graft.evaluate(run, photos, split="test")
    with pytest.raises(graft.UsageError):
        graft.evaluate(run, photos, split="nonsense")


@pytest.mark.parametrize("format,name", [("onnx", "m.onnx"), ("keras", "m.keras"), ("keras", "m.h5"), ("torch", "m.pth"),
                                         ("safetensors", "m.safetensors"), (None, "n.onnx")])
def test_export(run, tmp_path, format, name):
    result = graft.export(run, tmp_path / name, format)
    assert (tmp_path / name).stat().st_size == result["bytes"] > 100_000
    assert result["images_compared"] > 0 and bool(result["checks"]) == name.endswith(".onnx")


def test_export_of_an_export(run, tmp_path):
    graft.export(run, tmp_path / "m.keras")
    graft.export(tmp_path / "m.keras", tmp_path / "m.pth")
    with pytest.raises(graft.UsageError, match="says its classes"):
        graft.export(tmp_path / "m.keras", tmp_path / "m.onnx", classes=["a", "b", "c", "d", "e", "f"])
    with pytest.raises(graft.UsageError, match="preprocessing"):
        graft.export(tmp_path / "m.keras", tmp_path / "m.onnx", preprocessing="guess")
    with pytest.raises(graft.UsageError, match="comma"):
        graft.export(run, tmp_path / "m.onnx", classes=["a,b", "c"])


def test_convert(photos, tmp_path):
    """Another program's classifier, here one that Graft wrote without saying so."""
    h5py = pytest.importorskip("h5py")
    run = graft.train(photos, tmp_path / "first", **{**SMALL, "head": "gap dense:16", "epochs": 1})
    graft.export(run, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        for name in [name for name in file.attrs if name.startswith("graft")]:
            del file.attrs[name]
    with pytest.raises(graft.UsageError, match="classes"):
        graft.convert(tmp_path / "m.h5", tmp_path / "m.safetensors")
    with pytest.raises(graft.InputError, match=r"graft.convert\('.*m.h5', 'MODEL.safetensors'\)"):
        graft.Classifier(tmp_path / "m.h5")
    names = run.classes
    result = graft.convert(tmp_path / "m.h5", tmp_path / "m.safetensors", classes=names)
    assert result["with_head"] and result["bytes"] == (tmp_path / "m.safetensors").stat().st_size
    files = graft.list_images(photos)[:5]
    np.testing.assert_allclose(graft.Classifier(tmp_path / "m.safetensors")(files).logits,
                               run.classifier()(files).logits, atol=1e-3)
    graft.convert(run, tmp_path / "back.safetensors", without_head=True)
    again = graft.train(photos, tmp_path / "again", weights=tmp_path / "m.safetensors", head="keep",
                        epochs=1, no_report=True, progress=False, threads=2)
    assert again.classes == names
    assert graft.export(run, tmp_path / "b.pth", without_head=True)["bytes"] > 10_000


def test_export_errors(run, tmp_path):
    with pytest.raises(graft.UsageError, match="onnx"):
        graft.export(run, tmp_path / "m.keras", "onnx")
    with pytest.raises(graft.UsageError, match="is a format"):
        graft.export(run, "onnx", tmp_path / "m.onnx")
    with pytest.raises(graft.UsageError, match="tflite"):
        graft.export(run, tmp_path / "m.onnx", "tflite")
    with pytest.raises(graft.UsageError, match="tflite"):
        graft.export(run, tmp_path / "m.tflite")
    with pytest.raises(graft.InputError, match="missing"):
        graft.export(tmp_path / "missing", tmp_path / "m.onnx")
    with pytest.raises(graft.Error, match="m.onnx"):
        graft.export(run, tmp_path / "no" / "such" / "m.onnx")


def test_a_program_that_is_killed(photos, tmp_path):
    """As by the kernel, where memory is short."""
    def kill(event):
        if event["event"] == "epoch":
            pids = subprocess.run(["pgrep", "-f", f"graft-train|--output={tmp_path}/run"], capture_output=True, text=True)
            for pid in pids.stdout.split():
                if f"--output={tmp_path}/run".encode() in open(f"/proc/{pid}/cmdline", "rb").read():
                    os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(graft.Error, match="SIGKILL"):
        graft.train(photos, tmp_path / "run", **{**SMALL, "epochs": 400, "progress": kill}, no_report=True)


def test_last_words():
    """Of programs that end without an event."""
    import io

    from graft._process import _last_words
    missing = _last_words(127, io.BytesIO(b"/x/graft-train: error while loading shared libraries: libtorch.so.1.13: cannot "
                                          b"open shared object file: No such file or directory\n"))
    assert isinstance(missing, graft.IoError) and "libtorch-dev" in str(missing)
    usage = _last_words(2, io.BytesIO(b"noise\ngraft: --threads: '0' is small; see 'graft train --help'\n"))
    assert isinstance(usage, graft.UsageError) and str(usage) == "--threads: '0' is small"
    assert "SIGSEGV" in str(_last_words(-signal.SIGSEGV, io.BytesIO(b"")))


def test_numbers_that_are_not_finite_are_nan(photos, tmp_path):
    from graft._progress import epoch_line
    event = {"epoch": 1, "loss": None, "accuracy": 0.5, "val_loss": None, "val_accuracy": 0.1, "best": False}
    assert "loss nan" in epoch_line(event, 2) and "val_accuracy 0.1000" in epoch_line(event, 2)


def test_the_installed_program_is_there():
    done = subprocess.run([sys.executable, "-m", "graft", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and graft.__version__ in done.stdout


def test_everything_has_a_docstring():
    for name in graft.__all__:
        thing = getattr(graft, name)
        if name == "ImageLike":
            continue
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_options_in_messages_are_keywords():
    from graft._errors import in_python
    assert in_python("leave `pool` out, or `weights none`") == "leave pool out, or weights='none'"
    assert in_python("more than `max-skipped 0.01` allows") == "more than max_skipped=0.01 allows"
    assert in_python("take `weights X`, or 'graft train DATA `weights` X'") == \
        "take weights='X', or graft.train(DATA, weights='X')"
    assert in_python("`graft export` writes it") == "'graft export' writes it"
