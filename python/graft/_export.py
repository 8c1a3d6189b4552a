"""Trained models as files for other runtimes."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Optional, Union

from ._classifier import Classifier
from ._errors import UsageError
from ._options import class_names
from ._process import run_program
from ._progress import Progress, ProgressLike


InputSize = Union[int, tuple[int, int], None]

FORMATS = ("onnx", "keras", "torch", "safetensors")
SUFFIXES = (".onnx", ".keras", ".h5", ".pth", ".pt", ".safetensors")


def export(model: Union[str, os.PathLike[str], Classifier], path: Union[str, os.PathLike[str]],
           format: Optional[str] = None, *, dtype: str = "fp32", input: str = "uint8",
           classes: Union[str, Sequence[str], None] = None, preprocessing: Optional[str] = None, head: Optional[str] = None,
           input_size: InputSize = None, resampling: Optional[str] = None,
           without_head: bool = False, threads: int = 0, progress: ProgressLike = False) -> dict[str, Any]:
    """Writes a model for another runtime; the file appears complete and checked, or not at all.

    model: a run folder, a model file, a Run or a Classifier; or another program's classifier (docs/from-keras.md).
    path: the file to write, whose name says the format: .onnx, .keras or .h5, .pth, .safetensors.
    format: "onnx", "keras", "torch" or "safetensors", for other names.
    dtype: "fp32", or "fp16" for weights stored in half the size.
    input: of ONNX: "uint8" (pixels, preprocessing in the graph) or "float".
    classes, preprocessing, head, input_size, resampling: what another program's file does not say, as the options of
        `graft export` of these names.
    without_head: the backbone alone, as .pth, .safetensors or .h5.

    Returns what was written and checked: output, bytes, images_compared, largest_error, checks.
    """
    if path in FORMATS:
        raise UsageError(f"path: {path!r} is a format; expected a file to write: graft.export(model, 'model.onnx')")
    if format is None and not os.fspath(path).endswith(SUFFIXES):
        raise UsageError(f"path: {os.fspath(path)!r} ends in none of {', '.join(SUFFIXES)}; name the file so, or say format=")
    arguments = [os.path.abspath(os.fspath(model.path if isinstance(model, Classifier) else model)),
                 f"--output={os.path.abspath(os.fspath(path))}", f"--dtype={dtype}", f"--input={input}", "--json"]
    if format is not None:
        if format not in FORMATS:
            raise UsageError(f"format: {format!r} is not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
        arguments.append(f"--format={format}")
    arguments += _import_flags(classes, preprocessing, head, input_size, resampling)
    if without_head:
        arguments.append("--without-head")
    if threads:
        arguments.append(f"--threads={threads}")
    with Progress.of(progress) as shown:
        _, printed = run_program("export", arguments, shown.handle or (lambda event: None))
    result: dict[str, Any] = json.loads(printed)
    return result


def convert(source: Union[str, os.PathLike[str]], path: Union[str, os.PathLike[str]], *, dtype: str = "fp32",
            classes: Union[str, Sequence[str], None] = None, preprocessing: Optional[str] = None,
            head: Optional[str] = None, input_size: InputSize = None, resampling: Optional[str] = None,
            without_head: bool = False, threads: int = 0, progress: ProgressLike = False) -> dict[str, Any]:
    """Takes another program's classifier over, head included, as a model of Graft's, which
    ``graft.Classifier(path)`` and ``graft.train(weights=path, head="keep")`` take.

    source: Keras' .keras, .h5 or .weights.h5, a PyTorch state_dict (.pth), .safetensors or ONNX
        (docs/from-keras.md); or anything of Graft's.
    path: the file to write: .safetensors, a model of Graft's; by its name also what ``export`` writes.
    classes, preprocessing, head, input_size, resampling: what the source does not say, as the
        options of `graft weights convert` of these names; an error asks for what is missing.
    without_head: the backbone alone, to start trainings from.

    Returns what was written: output, bytes and more.
    """
    arguments = [os.path.abspath(os.fspath(source)), os.path.abspath(os.fspath(path)), f"--dtype={dtype}", "--json",
                 *_import_flags(classes, preprocessing, head, input_size, resampling)]
    if without_head:
        arguments.append("--without-head")
    if threads:
        arguments.append(f"--threads={threads}")
    with Progress.of(progress) as shown:
        _, printed = run_program(["weights", "convert"], arguments, shown.handle or (lambda event: None))
    result: dict[str, Any] = json.loads(printed)
    return result


def _import_flags(classes: Union[str, Sequence[str], None], preprocessing: Optional[str], head: Optional[str],
                  input_size: InputSize, resampling: Optional[str]) -> list[str]:
    if isinstance(input_size, (tuple, list)):
        input_size = "x".join(map(str, input_size))  # type: ignore[assignment]
    given = (("classes", class_names(classes)), ("preprocessing", preprocessing), ("head", head),
             ("input-size", input_size), ("resampling", resampling))
    return [f"--{name}={value}" for name, value in given if value is not None]
