"""The program `graft` of this package: what `graft` on the path and `python -m graft` run."""
from __future__ import annotations

import os
import sys

from ._process import PROGRAM


def main() -> None:
    """Becomes the program."""
    if not PROGRAM.exists():
        sys.exit(f"graft: {PROGRAM}: this program is missing; install Graft's Python package again")
    os.execv(PROGRAM, ["graft", *sys.argv[1:]])


if __name__ == "__main__":
    main()
