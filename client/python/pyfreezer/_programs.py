"""freezerd and freezerctl: of the wheel, of the build or installation that libfreezer is from, or of the system."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from . import _library
from ._errors import FreezerError

_IN_BUILD = {"freezerd": "../daemon/freezerd", "freezerctl": "ctl/freezerctl"}


def find(name: str) -> str:
    """Path of a program; $FREEZERD and $FREEZERCTL name one. Raises FreezerError where there is none."""
    given = os.environ.get(name.upper())
    if given:
        return given
    library = _library.load()
    places = [_library.bundled(name)]
    if library and "/" in library.path:
        beside = Path(library.path).resolve().parents[1]
        places += [beside / _IN_BUILD[name], beside / "bin" / name]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which(name)
    if found is None:
        raise FreezerError(f"there is no {name}", hint=f"install it, or set {name.upper()} to its path")
    return found


def _become(name: str) -> None:
    os.execv(_library.bundled(name), [name, *sys.argv[1:]])


def freezerd() -> None:
    """The command that a wheel installs."""
    _become("freezerd")


def freezerctl() -> None:
    """The command that a wheel installs."""
    _become("freezerctl")
