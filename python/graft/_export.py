"""Trained models as files for other runtimes."""
from __future__ import annotations

import json
import os
from typing import Any, Optional, Union

from ._classifier import Classifier
from ._errors import UsageError
from ._process import run_program
from ._progress import Progress, ProgressLike


def export(model: Union[str, os.PathLike[str], Classifier], format: Optional[str],
           path: Union[str, os.PathLike[str]], *, dtype: str = "fp32", input: str = "uint8",
           threads: int = 0, progress: ProgressLike = False) -> dict[str, Any]:
    """Writes a model for another runtime; the file appears complete and checked, or not at all.

    model: a run folder, a model file, a Run or a Classifier.
    format: "onnx", "keras" (.keras or .h5 by the name of the file), "torch" (.pth), "safetensors";
        None: by the name.
    dtype: "fp32", or "fp16" for weights stored in half the size.
    input: of ONNX: "uint8" (pixels, preprocessing in the graph) or "float".

    Returns what was written and checked: output, bytes, images_compared, largest_error, checks.
    """
    arguments = [os.path.abspath(os.fspath(model.path if isinstance(model, Classifier) else model)),
                 f"--output={os.path.abspath(os.fspath(path))}", f"--dtype={dtype}", f"--input={input}", "--json"]
    if format is not None:
        if not isinstance(format, str) or not format:
            raise UsageError(f"format: {format!r} is not onnx, keras, torch or safetensors")
        arguments.append(f"--format={format}")
    if threads:
        arguments.append(f"--threads={threads}")
    with Progress.of(progress) as shown:
        _, printed = run_program("export", arguments, shown.handle or (lambda event: None))
    result: dict[str, Any] = json.loads(printed)
    return result
