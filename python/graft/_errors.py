"""Graft's errors as exceptions: one for each kind that the library has, with its own message."""
from __future__ import annotations

import re


class Error(Exception):
    """What goes wrong in Graft. The text names the file or option, what was expected, and what to do."""

    kind = "error"


class UsageError(Error, ValueError):
    """The call asks for something contradictory or unknown."""

    kind = "usage"


class InputError(Error):
    """A file or its content is not what it should be."""

    kind = "input"


class IoError(Error, OSError):
    """Reading or writing failed: permissions, a full disk, the network, a program that is missing."""

    kind = "io"


class OutOfMemoryError(Error, MemoryError):
    """The job would not fit into memory."""

    kind = "memory"


class Interrupted(Error, KeyboardInterrupt):
    """Ctrl-C ended a training, whose state is saved: ``graft.resume(error.run)`` goes on.

    ``run`` is the run folder, or None where there is nothing to go on with. It is a
    KeyboardInterrupt too, and like one it should end a loop of trainings: catch it, if at all, by
    its name.
    """

    kind = "interrupted"
    run: str | None = None


_KINDS = {c.kind: c for c in (UsageError, InputError, IoError, OutOfMemoryError, Interrupted)}


def _keyword(found: re.Match[str]) -> str:
    """`weights X` is weights='X'."""
    name, value = found.group(1).replace("-", "_"), (found.group(2) or "")[1:]
    if name == "graft" or value.startswith("-"):  # a command
        return f"'{found.group(0)[1:-1]}'"
    if not value:
        return name
    return f"{name}={value}" if re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", value) else f"{name}={value!r}"


def in_python(text: str) -> str:
    """A text of the library, which names options `so-called`, with Python's names for them."""
    text = re.sub(r"'graft train DATA (?:`resume`|--resume) (.*?)' goes on", r"graft.resume('\1') goes on", text)
    text = re.sub(r"'graft train DATA (?:`weights`|--weights) (\S+)'", r"graft.train(DATA, weights='\1')", text)
    text = text.replace("`resume` to go on with", "graft.resume() to go on with")
    text = re.sub(r"`classes` A,B,…", "classes=['A', 'B', …]", text)
    text = re.sub(r"'graft weights convert (\S+) MODEL.safetensors'", r"graft.convert('\1', 'MODEL.safetensors')", text)
    # Within a command options are flags.
    text = re.sub(r"'graft [^']*'", lambda command: re.sub(r"`([^`]*)`", r"--\1", command.group(0)), text)
    text = re.sub(r"`([a-z0-9]+(?:-[a-z0-9]+)*)( [^`]*)?`", _keyword, text)
    # Options that were given as keywords stand in no file.
    return re.sub(r"^(train|features)\(\)(:| line )\d+: ", "", text)


def make_error(kind: str, text: str) -> Error:
    """The exception for an error of that kind."""
    return _KINDS.get(kind, Error)(in_python(text))
