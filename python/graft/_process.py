"""Graft's programs, run for Python: events in, one signal out, errors as exceptions.

Training and exporting are programs because LibTorch, protobuf and HDF5 would meet other copies of
themselves in this process (docs/decisions/0026).
"""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Union

from ._errors import Error, Interrupted, IoError, UsageError, make_error

Event = dict[str, Any]

PROGRAM = pathlib.Path(__file__).parent / "bin" / "graft"


@contextlib.contextmanager
def _one_signal_each(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Passes Ctrl-C on, once for each. The program is in a session of its own, or a terminal (and
    Jupyter, which signals the whole group) would send it a second one, which ends it unsaved."""
    own = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if own else None
    if before in (None, signal.SIG_IGN):
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: process.send_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _events(fd: int) -> Iterator[Event]:
    with open(fd, "rb") as stream:
        for line in stream:
            with contextlib.suppress(ValueError):  # a line cut off: the program has been killed
                yield json.loads(line)


def _last_words(code: int, errors: BinaryIO) -> Error:
    """Why a program ended that did not say so in an event: words on a command line, or a crash."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    own = [line[len("graft: "):] for line in lines if line.startswith("graft: ")]
    text = re.sub(r"; see 'graft \w+ --help'$", "", (own or lines or [""])[-1])
    if "shared libraries" in text:
        return IoError(f"{text}; training needs LibTorch and exporting ONNX's library, of the Debian release that this "
                       "package was built on: apt-get install libtorch-dev libonnx-dev (docs/python.md)")
    if code < 0:
        return Error(f"the program was ended by {signal.Signals(-code).name}"
                     f"{' (out of memory?)' if code == -signal.SIGKILL else ''}{'; ' if text else ''}{text}")
    return (UsageError if code == 2 else Error)(text or f"the program ended with code {code}")


def run_program(command: Union[str, list[str]], arguments: list[str], on_event: Callable[[Event], None]) -> tuple[int, str]:
    """Runs ``graft COMMAND`` (its words where there are several); returns its exit code and what it printed. Raises what went wrong, and
    what ``on_event`` raises, after the program has saved its state and ended."""
    if not PROGRAM.exists():
        raise IoError(f"{PROGRAM}: this program is missing; install Graft's Python package again")
    read_end, write_end = os.pipe()
    failure: BaseException | None = None
    error: Event | None = None
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            words = [command] if isinstance(command, str) else command
            process = subprocess.Popen([str(PROGRAM), *words, f"--status-fd={write_end}", *arguments],
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=errors, pass_fds=(write_end,),
                                       start_new_session=True)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        try:
            with _one_signal_each(process):
                for event in _events(read_end):
                    if event.get("event") == "error":
                        error = event
                    elif failure is None:
                        try:
                            on_event(event)
                        except BaseException as raised:  # a Ctrl-C in somebody's own handler too
                            failure = raised
                            process.send_signal(signal.SIGINT)
                code = process.wait()
        except BaseException:  # outside of the main thread, or of the loop
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        output.seek(0)
        printed = output.read().decode(errors="replace")
        if failure is not None:
            raise failure
        if error is not None:
            raise make_error(error["kind"], error["text"])
        if code != 0 and not printed:
            if code == 128 + signal.SIGINT:
                raise Interrupted("interrupted")
            raise _last_words(code, errors)
    return code, printed
