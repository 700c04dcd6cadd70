"""Where freezerd's socket may be, for a client. PROTOCOL.md and protocol/sockpath.h have the rules."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator


def _is_private(folder: str) -> bool:
    """A folder of ours that nobody else can enter, and no link to one."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def candidates(given: str | None = None) -> Iterator[str]:
    """Paths to try, in order. One that was given, or is in $FREEZER_SOCKET, is the only one."""
    given = given or os.environ.get("FREEZER_SOCKET")
    if given:
        yield given
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_private(runtime):
        yield os.path.join(runtime, "freezer", "freezerd.sock")
    temporary = f"/tmp/freezer-{os.getuid()}"
    if _is_private(temporary):
        yield os.path.join(temporary, "freezerd.sock")
    yield "/run/freezer/freezerd.sock"
