"""Trained models as files for other runtimes."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Optional, Union

from ._classifier import Classifier
from ._errors import UsageError
from ._process import run_program
from ._progress import Progress, ProgressLike


def export(model: Union[str, os.PathLike[str], Classifier], format: Optional[str],
           path: Union[str, os.PathLike[str]], *, dtype: str = "fp32", input: str = "uint8",
           classes: Optional[Sequence[str]] = None, preprocessing: Optional[str] = None, head: Optional[str] = None,
           input_size: Union[int, tuple[int, int], None] = None, resampling: Optional[str] = None,
           threads: int = 0, progress: ProgressLike = False) -> dict[str, Any]:
    """Writes a model for another runtime; the file appears complete and checked, or not at all.

    model: a run folder, a model file, a Run or a Classifier; or another program's classifier (docs/from-keras.md).
    format: "onnx", "keras" (.keras or .h5 by the name of the file), "torch" (.pth), "safetensors";
        None: by the name.
    dtype: "fp32", or "fp16" for weights stored in half the size.
    input: of ONNX: "uint8" (pixels, preprocessing in the graph) or "float".
    classes, preprocessing, head, input_size, resampling: what another program's file does not say, as the options of
        `graft export` of these names.

    Returns what was written and checked: output, bytes, images_compared, largest_error, checks.
    """
    arguments = [os.path.abspath(os.fspath(model.path if isinstance(model, Classifier) else model)),
                 f"--output={os.path.abspath(os.fspath(path))}", f"--dtype={dtype}", f"--input={input}", "--json"]
    if format is not None:
        if not isinstance(format, str) or not format:
            raise UsageError(f"format: {format!r} is not onnx, keras, torch or safetensors")
        arguments.append(f"--format={format}")
    if classes is not None:
        if isinstance(classes, str) or any("," in str(name) for name in classes):
            raise UsageError(f"classes: {classes!r} is not a list of names without commas")
        arguments.append("--classes=" + ",".join(map(str, classes)))
    if isinstance(input_size, (tuple, list)):
        input_size = "x".join(map(str, input_size))
    for name, value in (("preprocessing", preprocessing), ("head", head), ("input-size", input_size),
                        ("resampling", resampling)):
        if value is not None:
            arguments.append(f"--{name}={value}")
    if threads:
        arguments.append(f"--threads={threads}")
    with Progress.of(progress) as shown:
        _, printed = run_program("export", arguments, shown.handle or (lambda event: None))
    result: dict[str, Any] = json.loads(printed)
    return result
