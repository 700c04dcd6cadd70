"""What attach() was given: checked, and completed from what launchers say in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Union

from . import _library, _rules
from ._errors import FreezerError, NoMatch, RulesError
from ._session import Session

Rules = Union[Mapping[str, Any], str, "os.PathLike[str]"]


def check_model(model: Any) -> None:
    """Raises TypeError for what is no module."""
    if not hasattr(model, "named_parameters"):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")


def optimizers(given: Any) -> list[Any]:
    """None, one or several, as a list. Raises TypeError for what is no optimizer."""
    if given is None:
        return []
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    for optimizer in several:
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer or a list of them, not {optimizer!r}")
    return several


def check_not_negative(**numbers: float | None) -> None:
    """Raises ValueError."""
    for name, number in numbers.items():
        if number is not None and number < 0:
            raise ValueError(f"{name} must be 0 or more, not {number}")


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else None


def place(rank: int | None, world: int | None) -> tuple[int, int]:
    """This process among those of the machine, as it was given, or as launchers say it. Raises ValueError."""
    if (rank is None) != (world is None):
        raise ValueError("give both rank and world, or neither")
    if rank is None:
        rank, world = _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")
        if rank is None or world is None:
            return 0, 1
    assert world is not None
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to world - 1, not {rank} of {world}")
    return rank, world


def rules_text(rules: Rules | None) -> str | None:
    """The JSON of rules as users give them; None: none, or no library to take them. Raises OSError, RulesError."""
    if rules is None:
        return None
    if isinstance(rules, Mapping):
        return json.dumps(rules)
    if _library.load() is None:
        return None  # nobody is there to evaluate them, nor perhaps to read them
    path = os.fspath(rules)
    if path.endswith((".yaml", ".yml")):
        return json.dumps(_rules.load(path))
    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file))
    except ValueError as error:
        raise RulesError(f"{path} is not JSON: {error}") from error


def check_rules(session: Session, text: str, rules: Rules) -> None:
    """freezerd, if it is there, has told its log alone that it does not take the rules. Raises RulesError."""
    if not session.connected:
        return
    document = json.loads(text)
    try:
        with session.client as client:
            client.rules_check(document)
            status = client.status()
    except (RulesError, NoMatch) as error:
        where = "" if isinstance(rules, Mapping) else f"{os.fspath(rules)}: "
        details = error.details if isinstance(error, RulesError) else ()
        raise RulesError(f"{where}{error.message}", details=details, hint=error.hint) from error
    except FreezerError:
        return  # it went away: training does not depend on it
    if status.get("gen") and status.get("rules") is None and document.get("rules"):
        raise RulesError("; ".join(map(str, status.get("warnings") or ["freezerd did not take the rules"])))
