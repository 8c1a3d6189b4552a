"""Pages and curves of runs, shown where a notebook shows results."""
from __future__ import annotations

import html
import math
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

from ._errors import InputError

if TYPE_CHECKING:
    from ._run import Epoch

_COLOURS = {"val_accuracy": "#1f77b4", "accuracy": "#aec7e8", "val_loss": "#d62728", "loss": "#ff9896"}
_WIDTH, _HEIGHT, _MARGIN = 420, 180, 34


class Report:
    """The page about a run, or any page that Graft wrote, shown inline by Jupyter.

    path: a run folder, a Run, or an .html file. The page is self-contained: nothing is asked of any
    server. It is shown in a frame that runs no scripts.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], *, height: int = 800) -> None:
        given = pathlib.Path(os.fspath(path))
        self.path = given / "report.html" if given.is_dir() else given
        self.height = int(height)
        if not self.path.is_file():
            raise InputError(f"{self.path}: there is no such page; train() writes it at the end unless no_report is "
                             "given, Evaluation.write_report() for a model on any images")

    @property
    def html(self) -> str:
        """The page's text."""
        return self.path.read_text(encoding="utf-8", errors="replace")

    def _repr_html_(self) -> str:
        return (f'<iframe srcdoc="{html.escape(self.html, quote=True)}" sandbox="" width="100%" '
                f'height="{self.height}" style="border:1px solid #ccc"></iframe>')

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"


def _points(values: Sequence[float], low: float, high: float) -> str:
    span = max(len(values) - 1, 1)
    scale = (_HEIGHT - 2 * _MARGIN) / ((high - low) or 1)
    return " ".join(f"{_MARGIN + i * (_WIDTH - 2 * _MARGIN) / span:.1f},{_HEIGHT - _MARGIN - (v - low) * scale:.1f}"
                    for i, v in enumerate(values) if math.isfinite(v))


def _chart(names: Sequence[str], history: Sequence[Epoch]) -> str:
    columns = {name: [getattr(epoch, name) for epoch in history] for name in names}
    finite = [v for values in columns.values() for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
             'font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for value, y in ((high, _MARGIN), (low, _HEIGHT - _MARGIN)):
        parts.append(f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{y}" y2="{y}" stroke="#ddd"/>'
                     f'<text x="2" y="{y + 4}" fill="#555">{value:.3g}</text>')
    for k, (name, values) in enumerate(columns.items()):
        parts.append(f'<polyline fill="none" stroke="{_COLOURS[name]}" stroke-width="2" points="{_points(values, low, high)}"/>'
                     f'<text x="{_MARGIN + 120 * k}" y="16" fill="{_COLOURS[name]}">{name}</text>')
    parts.append(f'<text x="{_WIDTH / 2 - 20}" y="{_HEIGHT - 8}" fill="#555">epoch 1 to {len(history)}</text></svg>')
    return "".join(parts)


def curves(history: Sequence[Epoch]) -> str:
    """Accuracy and loss over the epochs, as two SVG drawings."""
    return _chart(("val_accuracy", "accuracy"), history) + _chart(("val_loss", "loss"), history)
