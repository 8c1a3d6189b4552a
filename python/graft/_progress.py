"""What long work tells, shown: bars where tqdm is installed, else plain lines on standard error."""
from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Optional, Union

from ._errors import in_python

Event = dict[str, Any]
#: True: bars or lines; False: nothing; a function: called with every event, a dict.
ProgressLike = Union[bool, Callable[[Event], None]]

_BETWEEN_LINES = 5.0  # seconds


def _bar_class() -> Any:
    """tqdm's for notebooks or terminals, or None. Its complaint about missing widgets is of no use here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]
        return tqdm
    except ImportError:
        return None


def epoch_line(event: Event, epochs: int) -> str:
    """One line about an epoch."""
    def number(name: str) -> str:
        value = event.get(name)
        return "nan" if value is None else f"{value:.4f}"

    return (f"epoch {event['epoch']}/{epochs}  loss {number('loss')}  accuracy {number('accuracy')}  "
            f"val_loss {number('val_loss')}  val_accuracy {number('val_accuracy')}{'  best' if event['best'] else ''}")


class Progress:
    """Handles events. A context: what is on the screen is completed at its end."""

    def __init__(self) -> None:
        self._tqdm = _bar_class()
        self._bar: Any = None
        self._task = self._label = ""
        self._began = self._drawn = 0.0
        self._epochs = 0

    @staticmethod
    def of(progress: ProgressLike) -> Any:
        """What handles events as the caller wants."""
        if callable(progress):
            return _Call(progress)
        return Progress() if progress else _Call(None)

    def handle(self, event: Event) -> None:
        """Shows an event."""
        kind = event["event"]
        if kind == "plan":
            self._print(event["text"].rstrip() + f"\nrun        {event['run']}\n")
        elif kind == "message" and event["severity"] != "detail":
            self._print(in_python(event["text"]))
        elif kind == "begin":
            self._epochs = event["epochs"]
        elif kind == "progress":
            self._advance(event["task"], event["task"], event["done"], event["total"], event["unit"], event["extra"])
            if event["ended"]:
                self._end()
        elif kind == "step":
            self._epochs = event["epochs"]
            loss = event["loss"]
            self._advance("training", f"epoch {event['epoch']}/{event['epochs']}", event["done"], event["images"], "images",
                          "" if loss is None else f"loss {loss:.4f}")
        elif kind == "epoch":
            self._print(epoch_line(event, max(self._epochs, event["epoch"])))

    def _print(self, text: str) -> None:
        if self._tqdm is not None:
            self._tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def _advance(self, task: str, label: str, done: int, total: int, unit: str, extra: str) -> None:
        """One bar for a task; where its label changes, as with the epochs of a training, it begins again."""
        now = time.monotonic()
        if task != self._task:
            self._end()
            self._task, self._began, self._drawn = task, now, now
            if self._tqdm is not None:
                self._bar = self._tqdm(total=total or None, desc=label, unit="B" if unit == "B" else f" {unit}",
                                       unit_scale=unit == "B", leave=False, file=sys.stderr,
                                       mininterval=0.1 if sys.stderr.isatty() else 1)
                self._label = label
        if self._bar is not None:
            if label != self._label:
                self._label = label
                self._bar.reset(total=total or None)
                self._bar.set_description(label, refresh=False)
            self._bar.update(done - self._bar.n)
            if extra:
                self._bar.set_postfix_str(extra, refresh=False)
        elif now - self._drawn >= _BETWEEN_LINES:
            self._drawn = now
            self._print(f"{label}  {done}/{total} {unit}  {now - self._began:.0f} s  {extra}".rstrip())

    def _end(self, keep: bool = True) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if keep and self._task not in ("", "training") and time.monotonic() - self._began >= 1:
            self._print(f"{self._task}  in {time.monotonic() - self._began:.0f} s")
        self._task = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self._end(keep=False)


class _Call:
    """Hands events to a function, or to nobody."""

    def __init__(self, function: Optional[Callable[[Event], None]]) -> None:
        self.handle = function

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, *_: Any) -> None:
        return None
