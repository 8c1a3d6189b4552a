"""Graft: image classifiers by transfer learning from VGG.

    run = graft.train("photos/", "runs/pets")
    run.classifier()("cat.jpg").top(3)

Classifying and features run in this process, in Graft's own engine, without the GIL; training and
exporting run in Graft's programs, which this package starts. docs/python.md is the guide.
"""
from __future__ import annotations

import os
from typing import Union

from ._classifier import Classifier, Prediction, Predictions
from ._errors import Error, InputError, Interrupted, IoError, OutOfMemoryError, UsageError
from ._evaluate import Evaluation, evaluate
from ._export import convert, export
from ._features import FeatureExtractor, features
from ._inputs import ImageLike
from ._native import _graft
from ._report import Report
from ._run import Epoch, Run
from ._train import resume, train

__version__: str = _graft.version

__all__ = [
    "Classifier", "Epoch", "Error", "Evaluation", "FeatureExtractor", "ImageLike", "InputError", "Interrupted",
    "IoError", "OutOfMemoryError", "Prediction", "Predictions", "Report", "Run", "UsageError", "backbone_names",
    "convert", "evaluate", "export", "features", "list_images", "recipe_names", "resume", "train",
]


def backbone_names() -> list[str]:
    """The networks that there are: "vgg16", "vgg-mini" and so on."""
    return _graft.backbone_names()


def recipe_names() -> list[str]:
    """The recipes that there are, "default" first."""
    return _graft.recipe_names()


def list_images(path: Union[str, os.PathLike[str]]) -> list[str]:
    """The images below a folder, sorted; or a file as it is. Raises InputError where there is nothing."""
    return _graft.list_images(os.fspath(path))
