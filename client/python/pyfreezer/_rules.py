"""Rules files, YAML or JSON: freezerctl reads them, since there is one reader of rules only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from . import _library
from ._errors import FreezerError, RulesError


def _freezerctl() -> str:
    """freezerctl of the wheel, of the build tree that libfreezer is from, or of the system."""
    library = _library.load()
    beside = [Path(library.path).resolve().parents[1] / "ctl" / "freezerctl"] if library and "/" in library.path else []
    for program in (_library.bundled("freezerctl"), *beside):
        if os.access(program, os.X_OK):
            return str(program)
    found = shutil.which("freezerctl")
    if found is None:
        raise FreezerError("there is no freezerctl, which reads rules files", hint="install it, or put it into $PATH")
    return found


def load(path: str | os.PathLike[str]) -> dict:
    """
    The rules of a file in their canonical form. Raises RulesError, when each mistake was shown on stderr with its line.
    """
    name = os.fspath(path)
    command = [_freezerctl(), "rules", "check", "--json", "--", name]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False, encoding="utf-8", errors="replace")
    try:
        answer = json.loads(run.stdout)
    except ValueError:
        raise FreezerError(f"freezerctl could not check {name} (exit status {run.returncode})") from None
    error = answer.get("error")
    if error:
        raise RulesError(f"{name}: {error['message']}", details=error.get("details") or (), hint=error["hint"] or "")
    return answer["files"][0]["document"]
