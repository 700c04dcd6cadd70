"""Where messages go: the logger "pyfreezer", never stdout. INFO is said by the first rank alone."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("pyfreezer")
_told: set[str] = set()


def configure(log: str | logging.Logger) -> logging.Logger:
    """
    The logger for a session. "auto": that of the package, and where nobody set up logging, its lines go to stderr;
    "quiet": that of the package, as it is; or a logger of the caller's.
    """
    if isinstance(log, logging.Logger):
        return log
    if log not in ("auto", "quiet"):
        raise ValueError(f"log must be 'auto', 'quiet' or a Logger, not {log!r}")
    if log == "auto" and not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("Freezer: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    return logger


def warn_once(message: str) -> None:
    """A warning of the package that nobody needs twice in one process."""
    if message not in _told:
        _told.add(message)
        logger.warning(message)
