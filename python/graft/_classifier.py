"""Classifying images with a trained model."""
from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional, Union, overload

import numpy as np

from ._errors import InputError
from ._inputs import ImageLike, check_on_error, prepare
from ._native import _graft


class Prediction:
    """What a classifier says of one image.

    logits, probabilities: float32 arrays, one value for each of ``classes``; the probabilities are
    the softmax of the logits, calibrated by the training run, and sum to 1.
    """

    __slots__ = ("classes", "logits", "probabilities")

    def __init__(self, classes: tuple[str, ...], logits: np.ndarray, probabilities: np.ndarray) -> None:
        self.classes = classes
        self.logits = logits
        self.probabilities = probabilities

    @property
    def index(self) -> int:
        """The number of the most probable class."""
        return int(np.argmax(self.logits))

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[self.index]

    @property
    def probability(self) -> float:
        """Of the most probable class."""
        return float(self.probabilities[self.index])

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, the most probable first; all where there are fewer."""
        order = np.argsort(-self.logits, kind="stable")[:max(int(k), 0)]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def __repr__(self) -> str:
        return "Prediction(" + ", ".join(f"{label} {p:.4f}" for label, p in self.top(3)) + ")"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td style='text-align:left'>{html.escape(label)}</td><td>{p:.4f}</td></tr>"
                       for label, p in self.top())
        return f"<table>{rows}</table>"


class Predictions(Sequence[Prediction]):
    """What a classifier says of several images, in their order.

    logits, probabilities: float32, (images, classes). ``errors`` maps the number of each image that
    could not be read to the reason; its rows are NaN and its label None (``on_error="nan"``).
    """

    __slots__ = ("classes", "errors", "logits", "probabilities")

    def __init__(self, classes: tuple[str, ...], logits: np.ndarray, probabilities: np.ndarray,
                 errors: Optional[dict[int, str]] = None) -> None:
        self.classes = classes
        self.logits = logits
        self.probabilities = probabilities
        self.errors = errors or {}

    @property
    def labels(self) -> list[Optional[str]]:
        """The most probable class of each image; None for one that could not be read."""
        best = np.argmax(self.logits, axis=1) if len(self) else []
        return [None if i in self.errors else self.classes[k] for i, k in enumerate(best)]

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """Of each image, the k most probable classes with their probabilities; [] for one that could not be read."""
        return [[] if i in self.errors else self[i].top(k) for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.logits)

    @overload
    def __getitem__(self, which: int) -> Prediction: ...

    @overload
    def __getitem__(self, which: slice) -> Predictions: ...

    def __getitem__(self, which: Union[int, slice]) -> Union[Prediction, Predictions]:
        if isinstance(which, slice):
            numbers = list(range(len(self)))[which]
            return Predictions(self.classes, self.logits[which], self.probabilities[which],
                               {new: self.errors[i] for new, i in enumerate(numbers) if i in self.errors})
        i = range(len(self))[which]  # IndexError, and numbers from the end
        if i in self.errors:
            raise InputError(self.errors[i])
        return Prediction(self.classes, self.logits[i], self.probabilities[i])

    def __iter__(self) -> Iterator[Prediction]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Predictions({len(self)} images, {len(self.classes)} classes, labels={self.labels[:5]}{'…' if len(self) > 5 else ''})"


class Classifier:
    """A trained model, loaded: call it with images.

    >>> classifier = graft.Classifier("runs/pets")
    >>> classifier("cat.jpg").label
    'cat'
    >>> classifier(["a.jpg", "b.jpg"]).probabilities.shape
    (2, 3)

    path: a run folder, its model.safetensors, or a Run.
    threads: that compute at once; 0: all processors that the process may use.
    max_batch: images computed at once, at most.
    views: 1, or 2 for each image and its mirror image, logits averaged; 0: as the model says.
    low_latency: an image that comes alone takes a plan made for the least time, with other rounding.
    precision: "fp32"; "bf16" on processors with AMX or AVX512_BF16; "auto".

    Any number of threads may call one classifier at once; the GIL is released while it computes. A
    process that is forked (multiprocessing on Linux) loads the model again in the child, at the
    first call. Pickled, it is its path and options.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], *, threads: int = 0, max_batch: int = 16, views: int = 0,
                 low_latency: bool = False, precision: str = "fp32") -> None:
        self.path = os.path.abspath(os.fspath(path))
        self._options = (threads, max_batch, views, low_latency, precision)
        self._native = _graft.Classifier(self.path, *self._options)
        info = self._native.info()
        self.classes: tuple[str, ...] = tuple(info["classes"])
        self.backbone: str = info["backbone"]
        self.input_size: tuple[int, int] = info["input_size"]
        self.info: dict[str, Any] = info
        self.precision: str = self._native.precision()
        self.views: int = self._native.views()

    def _here(self) -> Any:
        # Threads of the engine do not come along with a fork.
        native = self._native
        if not native.is_here():
            native = self._native = _graft.Classifier(self.path, *self._options)
        return native

    @overload
    def __call__(self, images: Union[str, os.PathLike[str], bytes, bytearray, memoryview], *,  # type: ignore[overload-overlap]
                 on_error: str = "raise") -> Prediction: ...

    @overload
    def __call__(self, images: Iterable[Union[str, os.PathLike[str], bytes]], *, on_error: str = "raise") -> Predictions: ...

    @overload
    def __call__(self, images: Any, *, on_error: str = "raise") -> Any: ...

    def __call__(self, images: Union[ImageLike, Iterable[ImageLike]], *, on_error: str = "raise") -> Any:
        """Classifies an image, or each of a list of images.

        images: a path (str, PathLike), the bytes of an image file (JPEG, PNG, WebP, HEIC, …) or a file
        open for reading them, a uint8 array (H, W, 3) in RGB, a PIL image; or several of these in any iterable, or one array (N, H, W, 3).
        An array's pixels are copied once.
        on_error: "raise", or "nan": what cannot be read gets rows of NaN and a line in ``errors``.

        Returns a Prediction for an image, Predictions for a list. An image's result depends neither
        on the images beside it nor on their number. Raises InputError for a file that cannot be
        read, UsageError for what is no image, KeyboardInterrupt on Ctrl-C.
        """
        skip = check_on_error(on_error)
        items, alone = prepare(images)
        shape = (len(items), len(self.classes))
        logits = np.full(shape, np.nan, dtype=np.float32)
        probabilities = np.full(shape, np.nan, dtype=np.float32)
        errors = self._here().classify(items, logits, probabilities, skip, self._options[0]) if items else {}
        if alone and not errors:
            return Prediction(self.classes, logits[0], probabilities[0])
        return Predictions(self.classes, logits, probabilities, errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.path, self._options)

    def __repr__(self) -> str:
        height, width = self.input_size
        return f"Classifier({self.path!r}: {self.backbone}, {height}x{width}, {len(self.classes)} classes)"


def _load(path: str, options: tuple[Any, ...]) -> Classifier:
    threads, max_batch, views, low_latency, precision = options
    return Classifier(path, threads=threads, max_batch=max_batch, views=views, low_latency=low_latency,
                      precision=precision)
