"""What a session was asked for."""

from __future__ import annotations

import dataclasses
import logging

OPTIMIZER_STATE = ("keep", "reset")


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
        if self.optimizer_state not in OPTIMIZER_STATE:
            raise ValueError(f"optimizer_state must be 'keep' or 'reset', not {self.optimizer_state!r}")
