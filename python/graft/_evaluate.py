"""A model on labelled images."""
from __future__ import annotations

import json
import os
from typing import Any, Union

import numpy as np

from ._classifier import Classifier
from ._native import _graft
from ._progress import Progress, ProgressLike
from ._report import Report


class Evaluation:
    """Figures and predictions of a model on labelled images.

    paths, labels, logits: of the images that could be read; labels index ``classes``. ``metrics``
    is what ``graft evaluate --json`` prints. ``str()`` is a table of it.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self.classes: tuple[str, ...] = tuple(native.classes())
        self.split: str = native.split()
        self.metrics: dict[str, Any] = json.loads(native.json())
        self.paths: list[str] = native.paths()
        self.labels = np.array(native.labels(), dtype=np.int64)
        self.logits = np.empty((len(self.paths), len(self.classes)), dtype=np.float32)
        native.logits(self.logits)
        #: How many of the images the model was trained on, as far as its run folder says.
        self.images_trained_on: int = native.trained_on()

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable class is their label."""
        return float(self.metrics["top1"])

    @property
    def confusion(self) -> np.ndarray:
        """Images by class (rows) and predicted class (columns), int64."""
        return np.array(self.metrics["confusion"], dtype=np.int64)

    @property
    def predictions_csv(self) -> str:
        """path, label, predicted class, its probability, and each class's, a line for each image."""
        return str(self._native.csv())

    def write_report(self, file: Union[str, os.PathLike[str]], *, progress: ProgressLike = False) -> Report:
        """Writes a self-contained page: figures, mistakes with Grad-CAM, data, network. Takes seconds."""
        path = os.path.abspath(os.fspath(file))
        with Progress.of(progress) as shown:
            self._native.write_report(path, shown.handle)
        return Report(path)

    def __str__(self) -> str:
        return str(self._native.text())

    def __repr__(self) -> str:
        return f"Evaluation({self.split}, {len(self.paths)} images, accuracy {self.accuracy:.4f})"


def evaluate(model: Union[str, os.PathLike[str], Classifier], data: Union[str, os.PathLike[str]], *,
             split: str = "auto", val: Union[str, os.PathLike[str], None] = None,
             test: Union[str, os.PathLike[str], None] = None, max_skipped: float = 0.01, threads: int = 0,
             views: int = 0, precision: str = "fp32", progress: ProgressLike = False) -> Evaluation:
    """Measures a model on a folder of class folders, one with splits, or a CSV manifest.

    model: a run folder, a model file, a Run, or a Classifier (its path; options are given here).
    split: "test", "val", "train", "all"; "auto": the test images, else the validation images, else all.
    max_skipped: the share of the images that may be unreadable.

    Raises InputError where there is no such split, a class is not the model's, or too many images cannot be read.
    """
    def path(value: Any) -> str:
        return "" if value is None else os.path.abspath(os.fspath(value))

    with Progress.of(progress) as shown:
        return Evaluation(_graft.Evaluation(path(model.path if isinstance(model, Classifier) else model), path(data),
                                            path(val), path(test), split, max_skipped, threads, views, precision,
                                            shown.handle))
