"""Activations of pretrained backbones, as arrays and as a scikit-learn transformer."""
from __future__ import annotations

import inspect
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np

from ._errors import UsageError
from ._inputs import ImageLike, check_on_error, prepare
from ._native import _graft
from ._options import toml_of
from ._progress import Progress, ProgressLike

_MODEL = ("backbone", "weights", "until", "input_size", "preprocessing", "resampling")


class _Loaded:
    """An extractor of the compiled module, in the process that loaded it, for one caller at a time."""

    def __init__(self, options: dict[str, Any], progress: ProgressLike) -> None:
        o = options
        with Progress.of(progress) as shown:
            self.native = _graft.FeatureExtractor(
                toml_of({name: o[name] for name in _MODEL}), o["pool"], bool(o["include_top"]), int(o["batch_size"]),
                int(o["seed"]), "" if o["cache_dir"] is None else os.fspath(o["cache_dir"]), o["precision"],
                int(o["threads"]), shown.handle)
        self.options = options
        self.process = os.getpid()
        self.lock = threading.Lock()

    def run(self, images: Any, on_error: str, progress: ProgressLike) -> np.ndarray:
        skip = check_on_error(on_error)
        items, alone = prepare(images)
        out = np.full((len(items), *self.native.shape()), np.nan, dtype=np.float32)
        errors = {}
        if items:
            with self.lock, Progress.of(progress) as shown:
                errors = self.native.run(items, out, skip, shown.handle)
        for text in errors.values():
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        return out[0] if alone else out


def features(images: Union[ImageLike, Sequence[ImageLike]], *, backbone: str = "vgg16",
             weights: Union[str, os.PathLike[str], None] = None, until: Optional[str] = None,
             input_size: Union[int, tuple[int, int], None] = None, preprocessing: Optional[str] = None,
             resampling: Optional[str] = None, pool: str = "gap", include_top: bool = False, batch_size: int = 16, precision: str = "fp32",
             seed: int = 0, cache_dir: Union[str, os.PathLike[str], None] = None, threads: int = 0,
             on_error: str = "raise", progress: ProgressLike = False) -> np.ndarray:
    """Activations of a pretrained backbone for images, after ReLU: a float32 array.

    images: as Classifier takes them; an image alone gives one without the first dimension.
    backbone: vgg11, vgg13, vgg16, vgg19, each also as in vgg16_bn, or vgg-mini, whose weights need no download.
    weights: "imagenet" (from the cache, or downloaded), "builtin", "none", a file of Keras, PyTorch or
        safetensors, a Graft model or run; None: the backbone's own.
    until: the layer behind which the backbone is cut; None: its last pooling.
    input_size: N or (height, width); None: what the backbone is meant for.
    preprocessing: "keras", "torch", "torch-stretched", "unit", "symmetric", "raw" for weights whose file does not say it.
    resampling: "nearest", "bilinear", "bilinear-noaa" or "bicubic"; None: as the preprocessing has it.
    pool: "gap" (N, C), "flatten" (N, C·H·W) or "none" (N, C, H, W).
    include_top: up to the logits of the weights' own classes.
    on_error: "raise", or "nan": rows of NaN, and a RuntimeWarning, for images that cannot be read.
    progress: True shows a bar.

    Loads the weights at every call: for more calls keep a FeatureExtractor. Raises UsageError,
    InputError, IoError (a download that fails), KeyboardInterrupt on Ctrl-C.
    """
    options = dict(backbone=backbone, weights=weights, until=until, input_size=input_size, preprocessing=preprocessing,
                   resampling=resampling,
                   pool=pool, include_top=include_top, batch_size=batch_size, precision=precision, seed=seed,
                   cache_dir=cache_dir, threads=threads)
    return _Loaded(options, progress).run(images, on_error, progress)


class FeatureExtractor:
    """A pretrained backbone as a scikit-learn transformer: images in, rows of features out.

    >>> make_pipeline(graft.FeatureExtractor("vgg16"), LogisticRegression()).fit(paths, labels)

    The options are those of ``features()``. There is nothing to fit; the weights are loaded by the
    first ``fit`` or ``transform``. It is cloned, pickled and copied as its options alone; a forked
    child loads again. Several threads may call one extractor; they take turns. Neither
    importing nor using it imports scikit-learn, unless scikit-learn itself asks for its tags.
    """

    def __init__(self, backbone: str = "vgg16", *, weights: Union[str, os.PathLike[str], None] = None,
                 until: Optional[str] = None, input_size: Union[int, tuple[int, int], None] = None,
                 preprocessing: Optional[str] = None, resampling: Optional[str] = None, pool: str = "gap",
                 include_top: bool = False,
                 batch_size: int = 16, precision: str = "fp32", seed: int = 0,
                 cache_dir: Union[str, os.PathLike[str], None] = None, threads: int = 0, on_error: str = "raise",
                 progress: ProgressLike = False) -> None:
        # As scikit-learn wants them: kept as they are, checked where they are used.
        self.backbone = backbone
        self.weights = weights
        self.until = until
        self.input_size = input_size
        self.preprocessing = preprocessing
        self.resampling = resampling
        self.pool = pool
        self.include_top = include_top
        self.batch_size = batch_size
        self.precision = precision
        self.seed = seed
        self.cache_dir = cache_dir
        self.threads = threads
        self.on_error = on_error
        self.progress = progress

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn reads them."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> FeatureExtractor:
        """Changes options; weights are loaded anew where that needs it. Raises UsageError for one that there is not."""
        for name, value in params.items():
            if name not in self._names():
                raise UsageError(f"there is no option {name}; there are {', '.join(self._names())}")
            setattr(self, name, value)
        return self

    def _loaded(self) -> _Loaded:
        options = {name: value for name, value in self.get_params().items() if name not in ("on_error", "progress")}
        loaded = self.__dict__.get("_state")
        if loaded is None or loaded.options != options or loaded.process != os.getpid() or not loaded.native.is_usable():
            loaded = self.__dict__["_state"] = _Loaded(options, self.progress)
        return loaded

    def fit(self, X: Any = None, y: Any = None) -> FeatureExtractor:
        """Loads the weights, so that errors come early; images and labels are not looked at."""
        self._loaded()
        return self

    def transform(self, X: Sequence[ImageLike]) -> np.ndarray:
        """Features of each image: (N, C) or (N, C·H·W), with pool="none" (N, C, H, W)."""
        return self._loaded().run(X, self.on_error, self.progress)

    def fit_transform(self, X: Sequence[ImageLike], y: Any = None) -> np.ndarray:
        """fit() and transform()."""
        return self.fit(X, y).transform(X)

    __call__ = transform

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's features: (C,) or (C, H, W). Loads the weights."""
        return self._loaded().native.shape()

    @property
    def layer(self) -> str:
        """The layer that gives the features. Loads the weights."""
        return self._loaded().native.layer()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """A name for each column: the layer's, and a number."""
        return np.array([f"{self.layer}_{i}" for i in range(int(np.prod(self.shape)))], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags  # type: ignore

        return Tags(estimator_type="transformer", target_tags=TargetTags(required=False),
                    transformer_tags=TransformerTags(preserves_dtype=[]), requires_fit=False,
                    input_tags=InputTags(two_d_array=False, three_d_array=True, string=True))

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn before 1.6
        return {"X_types": ["string", "3darray"], "stateless": True, "requires_fit": False, "preserves_dtype": []}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_state"}

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [f"{name}={value!r}" for name, value in self.get_params().items() if value != defaults[name].default]
        return f"FeatureExtractor({', '.join(shown)})"
