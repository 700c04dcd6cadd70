"""Rules files, YAML or JSON: freezerctl reads them, since there is one reader of rules only."""

from __future__ import annotations

import json
import os
import subprocess

from . import _programs
from ._errors import FreezerError, RulesError


def load(path: str | os.PathLike[str]) -> dict:
    """
    The rules of a file in their canonical form. Raises RulesError, when each mistake was shown on stderr with its line.
    """
    name = os.fspath(path)
    command = [_programs.find("freezerctl"), "rules", "check", "--json", "--", name]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False, encoding="utf-8", errors="replace")
    try:
        answer = json.loads(run.stdout)
    except ValueError:
        raise FreezerError(f"freezerctl could not check {name} (exit status {run.returncode})") from None
    error = answer.get("error")
    if error:
        raise RulesError(f"{name}: {error['message']}", details=error.get("details") or (), hint=error["hint"] or "")
    return answer["files"][0]["document"]
