"""What a session was asked for."""

from __future__ import annotations

import dataclasses
import logging

NORM = ("leave", "eval")
OPTIMIZER_STATE = ("keep", "reset")
ON_CONFLICT = ("warn", "enforce", "yield", "ignore")


@dataclasses.dataclass
class Settings:
    norm: str = "leave"
    optimizer_state: str = "keep"
    on_conflict: str = "warn"
    allow_empty: bool = False
    """Whether a mask in which nothing trains is written: lighter's Freezer does so."""
    first: bool = True
    """Whether this is the rank that tells people."""
    logger: logging.Logger = dataclasses.field(default_factory=lambda: logging.getLogger("pyfreezer"))

    def __post_init__(self) -> None:
        for name, choices in (("norm", NORM), ("optimizer_state", OPTIMIZER_STATE), ("on_conflict", ON_CONFLICT)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
