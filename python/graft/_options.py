"""Options as keywords, turned into a file of options (TOML) and into flags of the program."""
from __future__ import annotations

import json
import numbers
import os
from collections.abc import Iterable
from typing import Any, Optional, Union

from ._errors import UsageError


def option_name(keyword: str) -> str:
    """batch_size is the program's --batch-size."""
    return keyword.replace("_", "-")


def value_text(keyword: str, value: Any) -> str:
    """A value as a command line has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if keyword == "input_size" and isinstance(value, (tuple, list)) and len(value) == 2:
        return "x".join(str(int(side)) for side in value)
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    raise UsageError(f"{keyword}: expected a number or a text, got {type(value).__name__}")


def class_names(classes: Union[str, Iterable[str], None]) -> Optional[str]:
    """Names of classes as a command line has them: with commas between."""
    if classes is None or isinstance(classes, str):
        return classes
    names = [str(name) for name in classes]
    bad = [name for name in names if "," in name]
    if bad:
        raise UsageError(f"classes: {bad[0]!r} has a comma in it, which stands between names; rename this class")
    return ",".join(names)


def toml_of(options: dict[str, Any]) -> str:
    """Those that are not None, a line each."""
    lines = []
    for keyword, value in options.items():
        if value is None:
            continue
        text = value_text(keyword, value)
        plain = isinstance(value, (bool, numbers.Number)) and keyword != "input_size"
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{keyword}: {text!r} is not UTF-8") from None
        lines.append(f"{option_name(keyword)} = {text if plain else json.dumps(text, ensure_ascii=False)}\n")
    return "".join(lines)


def flags_of(options: dict[str, Any]) -> list[str]:
    """Those that are neither None nor False, as flags; True stands for a flag without a value."""
    flags = []
    for keyword, value in options.items():
        if value is None or value is False:
            continue
        flag = "--" + option_name(keyword)
        flags.append(flag if value is True else f"{flag}={value_text(keyword, value)}")
    return flags
