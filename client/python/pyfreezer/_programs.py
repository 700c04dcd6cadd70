"""freezerd and freezerctl: those of the wheel, of the build tree that libfreezer is from, or of the system."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from . import _library
from ._errors import FreezerError

_IN_BUILD = {"freezerd": "../daemon/freezerd", "freezerctl": "ctl/freezerctl"}


def find(name: str) -> str:
    """Path of a program. Raises FreezerError where there is none."""
    library = _library.load()
    places = [_library.bundled(name)]
    if library and "/" in library.path:
        places.append(Path(library.path).resolve().parents[1] / _IN_BUILD[name])
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which(name)
    if found is None:
        raise FreezerError(f"there is no {name}", hint="install it, or put it into $PATH")
    return found


def _become(name: str) -> None:
    os.execv(_library.bundled(name), [name, *sys.argv[1:]])


def freezerd() -> None:
    """The command that a wheel installs."""
    _become("freezerd")


def freezerctl() -> None:
    """The command that a wheel installs."""
    _become("freezerctl")
