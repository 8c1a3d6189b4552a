"""Training, in a program of its own that this process watches."""
from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

from . import _options
from ._errors import Error, Interrupted
from ._native import _graft
from ._process import Event, run_program
from ._progress import Progress, ProgressLike
from ._run import Epoch, Run

PathLike = Union[str, "os.PathLike[str]"]
OnEpoch = Callable[[Epoch], None]

# Of train()'s keywords, those that are not of a recipe (RunConfig, src/run/run_config.h).
_PATHS = ("val", "test", "corrections", "cache_dir")
_OF_THE_RUN = (*_PATHS, "check_labels", "cache_limit", "no_cache", "no_report", "force", "threads", "workers", "rendezvous",
               "gradient_compression", "dashboard")


def train(data: PathLike, output: Optional[PathLike] = None, *, recipe: str = "default",
          config: Optional[PathLike] = None, from_run: Optional[PathLike] = None, val: Optional[PathLike] = None, test: Optional[PathLike] = None,
          # the model
          backbone: Optional[str] = None, weights: Optional[PathLike] = None, preprocessing: Optional[str] = None,
          resampling: Optional[str] = None, input_size: Union[int, tuple[int, int], None] = None, until: Optional[str] = None,
          head: Optional[str] = None, classes: Union[str, Sequence[str], None] = None, fine_tune: Union[int, str, None] = None, init: Optional[str] = None,
          # training
          epochs: Optional[int] = None, min_steps: Optional[int] = None, batch_size: Optional[int] = None, lr: Optional[float] = None,
          optimizer: Optional[str] = None, schedule: Optional[str] = None, warmup_epochs: Optional[float] = None,
          freeze_epochs: Optional[int] = None, head_lr: Optional[float] = None,
          lr_decay_per_block: Optional[float] = None, ema: Optional[float] = None,
          weight_decay: Optional[float] = None, momentum: Optional[float] = None, beta2: Optional[float] = None,
          label_smoothing: Optional[float] = None, clip_gradients: Optional[float] = None,
          class_weights: Optional[str] = None, patience: Optional[int] = None, seed: Optional[int] = None,
          # data and augmentation
          val_split: Optional[float] = None, test_split: Optional[float] = None,
          split_from: Optional[PathLike] = None, group_near_duplicates: bool = False, exclude: Optional[str] = None,
          max_skipped: Optional[float] = None, augment: Optional[str] = None, views: Optional[int] = None,
          test_views: Optional[int] = None, corrections: Optional[PathLike] = None, check_labels: bool = False,
          # the machine
          device: Optional[str] = None, precision: Optional[str] = None, cache_dtype: Optional[str] = None,
          cache_dir: Optional[PathLike] = None, cache_limit: Optional[float] = None, no_cache: bool = False,
          threads: Optional[int] = None, workers: Optional[int] = None, rendezvous: Optional[str] = None,
          gradient_compression: Optional[str] = None,
          # the run
          no_report: bool = False, force: bool = False, dashboard: Optional[int] = None,
          progress: ProgressLike = True, on_epoch: Optional[OnEpoch] = None) -> Run:
    """Trains a classifier on a folder of labelled images, by transfer learning; returns the finished run.

    data: a folder of class folders; one with train/ (val/, test/); or a CSV manifest.
    output: the run folder to make; None: runs/<data>-<time>. ``force`` replaces a run that is there.
    recipe: settings to start from (``graft.recipe_names()``); config: a TOML file of options above
        them. Keywords win over both. None leaves an option to recipe and defaults.

    from_run: an earlier run to begin from: its options, weights, split and head, with a new output for
        each class that is new.

    Every option of ``graft train`` is a keyword of the same name with underscores, and means the
    same: ``graft train --help`` and docs/training.md describe them. The most used: ``backbone``
    ("vgg16"; "vgg-mini" needs no download), ``epochs``, ``lr``, ``fine_tune`` (0: the head alone;
    N layers, a layer's name, or "all"), ``augment`` ("light"), ``val_split``, ``seed``.

    workers: processes of this machine that train together; rendezvous: see docs/scaling-training.md.
    progress: True shows bars (tqdm where it is installed, in notebooks and terminals, else lines on
        standard error); False nothing; a function is called with every event, a dict (docs/formats.md).
    on_epoch: called with each epoch's figures. What it or ``progress`` raises ends the run, whose
        state is saved, and is raised.

    Ctrl-C, or the stop button of a notebook, saves the state and raises Interrupted, a
    KeyboardInterrupt whose ``run`` is the folder: ``graft.resume(error.run)`` goes on to the same
    weights. Pressed again it ends at once, with what was saved last. Raises UsageError for options,
    InputError for data, OutOfMemoryError, IoError. Warns (RuntimeWarning) where too many test
    images were unreadable for their figures to count.

    Training runs in a program of its own, so that LibTorch is not loaded into this process; the
    GIL is not held. It ends, saved, where this process does.
    """
    given = {name: value for name, value in locals().items()
             if name not in ("data", "output", "recipe", "config", "from_run", "progress", "on_epoch")}
    for name in (*_PATHS, "weights", "split_from"):
        if given[name] is not None and not (name == "weights" and given[name] in ("imagenet", "builtin", "none")):
            given[name] = os.path.abspath(os.fspath(given[name]))
    given["classes"] = _options.class_names(classes)
    options = {name: value for name, value in given.items() if name not in _OF_THE_RUN}
    # In this process first: its errors are about keywords, and come at once.
    config_text = pathlib.Path(config).read_bytes().decode(errors="surrogateescape") if config is not None else ""
    _graft.recipe_toml(recipe, os.fsdecode(config) if config is not None else "", config_text,
                       _options.toml_of(options))
    arguments = [os.path.abspath(os.fspath(data)), *_options.flags_of(given)]
    if from_run is None or recipe != "default":
        arguments.append(f"--recipe={recipe}")
    if from_run is not None:
        arguments.append(f"--from={os.path.abspath(os.fspath(from_run))}")
    if output is not None:
        arguments.append(f"--output={os.path.abspath(os.fspath(output))}")
    if config is not None:
        arguments.append(f"--config={os.path.abspath(os.fspath(config))}")
    return _run(arguments, progress, on_epoch)


def resume(run: PathLike, data: Optional[PathLike] = None, *, epochs: Optional[int] = None,
           patience: Optional[int] = None, threads: Optional[int] = None, progress: ProgressLike = True,
           on_epoch: Optional[OnEpoch] = None) -> Run:
    """Goes on with a run from its last whole epoch, with its own options; returns the finished run.

    run: a run folder or a Run. data: where its images have moved to; None: where they were.
    epochs, patience: may be others than before. The result is that of a run without a break.
    Raises as train() does, and InputError where there is no run.
    """
    folder = os.path.abspath(os.fspath(run))
    if data is None:
        data = _graft.run_settings(folder)["data"]
    arguments = [os.path.abspath(os.fspath(data)), f"--resume={folder}",
                 *_options.flags_of({"epochs": epochs, "patience": patience, "threads": threads})]
    return _run(arguments, progress, on_epoch)


def _run(arguments: list[str], progress: ProgressLike, on_epoch: Optional[OnEpoch]) -> Run:
    folder: Optional[str] = None
    with Progress.of(progress) as shown:

        def handle(event: Event) -> None:
            nonlocal folder
            if event["event"] == "plan":
                folder = os.path.abspath(event["run"])
            if shown.handle is not None:
                shown.handle(event)
            if on_epoch is not None and event["event"] == "epoch" and not event["past"]:
                figures = (float("nan") if event[name] is None else event[name] for name in Epoch._fields[1:])
                on_epoch(Epoch(event["epoch"], *figures))

        try:
            code, _ = run_program("train", [*arguments, "--json", "--quiet"], handle)
        except Interrupted as error:
            if folder is not None and os.path.isfile(os.path.join(folder, "config.toml")):
                error.run = folder
                if "resume" not in str(error):
                    error.args = (f"interrupted; graft.resume({folder!r}) goes on",)
            raise
    if folder is None:  # it has said what it does before it does it
        raise Error("the program ended without a word")
    run = Run(folder)
    if code != 0:
        warnings.warn(f"{run.folder}: too many test images could not be read for the test figures to count; "
                      "skipped.csv lists them", RuntimeWarning, stacklevel=3)
    return run
