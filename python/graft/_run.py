"""A run folder, as train() leaves it."""
from __future__ import annotations

import csv
import html
import json
import os
import pathlib
from typing import Any, NamedTuple, Optional, Union

from ._classifier import Classifier
from ._errors import InputError
from ._report import Report, curves


class Epoch(NamedTuple):
    """One line of a run's history."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


class Run:
    """A run folder: its model, history, metrics and report. Stands for its path wherever one is taken.

    Raises InputError where the folder holds no run.
    """

    def __init__(self, folder: Union[str, os.PathLike[str]]) -> None:
        self.folder = pathlib.Path(os.path.abspath(os.fspath(folder)))
        if not (self.folder / "config.toml").is_file() and not self.model.is_file():
            raise InputError(f"{self.folder}: no run is there; train() makes one")

    @property
    def model(self) -> pathlib.Path:
        """The model file; it is there once the run is finished."""
        return self.folder / "model.safetensors"

    @property
    def is_finished(self) -> bool:
        """Whether there is a whole, calibrated model; else resume() goes on."""
        return self.model.is_file()

    @property
    def history(self) -> list[Epoch]:
        """The epochs so far."""
        file = self.folder / "history.csv"
        if not file.is_file():
            return []
        with open(file, newline="", encoding="utf-8") as stream:
            return [Epoch(int(row["epoch"]), *(float(row[name]) for name in Epoch._fields[1:]))
                    for row in csv.DictReader(stream)]

    @property
    def metrics(self) -> dict[str, Any]:
        """What is in metrics.json: figures on validation and test images, calibration. Empty before the end."""
        file = self.folder / "metrics.json"
        metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return metrics

    @property
    def best_epoch(self) -> Optional[int]:
        """The epoch whose weights the model has; None before the end."""
        return self.metrics.get("best_epoch")

    @property
    def classes(self) -> list[str]:
        """The labels, in the order of the model's outputs; empty before the end."""
        return list(self.metrics.get("validation", {}).get("classes", []))

    def accuracy(self, split: str = "validation") -> Optional[float]:
        """On "validation" or "test" images; None where there are no such figures."""
        value: Optional[float] = self.metrics.get(split, {}).get("top1")
        return value

    def classifier(self, **options: Any) -> Classifier:
        """The trained model, loaded; options as Classifier takes them."""
        return Classifier(self.folder, **options)

    @property
    def report(self) -> Report:
        """The run's page. Raises InputError where it was not written."""
        return Report(self.folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    def _figures(self) -> str:
        done = [f"{split} accuracy {value:.4f}" for split in ("validation", "test")
                if (value := self.accuracy(split)) is not None]
        return ", ".join(done) if done else f"unfinished, {len(self.history)} epochs"

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self._figures()})"

    def _repr_html_(self) -> str:
        history = self.history
        best = self.best_epoch
        words = f"<p><b>{html.escape(str(self.folder))}</b>: {self._figures()}" \
                f"{f', best epoch {best} of {len(history)}' if best else ''}</p>"
        return words + (curves(history) if history else "")
