"""A freezerd of one's own, for rules that must hold although nobody started one."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket as sockets
import subprocess
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from . import _library, _places
from ._errors import FreezerError

READY_SECONDS = 20.0


def serving(given: str | None = None) -> str | None:
    """Path of the first socket at which a freezerd accepts a connection."""
    for path in _places.candidates(given):
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as attempt:
            attempt.settimeout(READY_SECONDS)
            try:
                attempt.connect(path)
            except OSError:
                continue
            return path
    return None


def _candidates(name: str, in_tree: str) -> Iterator[str]:
    """In the wheel; in the build tree or beside the installation that libfreezer is from; in the source tree."""
    yield str(_library.bundled(name))
    library = _library.load()
    if library is not None and "/" in library.path:
        path = Path(library.path).resolve()
        yield str(path.parents[2] / in_tree)
        yield str(path.parents[1] / "bin" / name)
    yield str(Path(__file__).resolve().parents[3] / in_tree)


def find(name: str, variable: str, in_tree: str) -> str:
    """Path of a program of Freezer. Raises FreezerError."""
    given = os.environ.get(variable)
    if given:
        return given
    for path in _candidates(name, in_tree):
        if os.access(path, os.X_OK):
            return path
    found = shutil.which(name)
    if found is None:
        raise FreezerError(f"there is no {name}", hint=f"install Freezer, or set {variable} to its path")
    return found


class PrivateDaemon:
    """
    Serves at `socket`, whose folder it makes, until stop() or until this process ends, however it does.

    That is what `freezerctl run` is for: freezerd ends with the command, here one that reads until the end of a pipe of
    which this process holds the other end.
    """

    def __init__(self, socket: str) -> None:
        self.socket = socket
        freezerd = find("freezerd", "FREEZERD", "daemon/freezerd")
        freezerctl = find("freezerctl", "FREEZERCTL", "client/ctl/freezerctl")
        os.mkdir(os.path.dirname(socket), 0o700)
        process = subprocess.Popen(
            [freezerctl, "run", "--quiet", "--socket", socket, "--", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # the terminal's Ctrl-C is for the trainer
            env={**os.environ, "FREEZERD": freezerd},
        )
        self._process = process
        self.before_end: list[Callable[[], object]] = []
        """Called before freezerd is ended: what attached to it leaves first."""
        self._end = weakref.finalize(self, _stop, process, os.path.dirname(socket), os.getpid(), self.before_end)
        if not self._is_ready():
            self.stop()
            raise FreezerError(f"freezerd ({freezerd}) did not come up at {socket}")

    def _is_ready(self) -> bool:
        """What is written comes back as soon as the command runs, and that is when freezerd serves."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(b"\n")
            stdin.flush()
            return bool(select.select([stdout], [], [], READY_SECONDS)[0]) and stdout.read(1) == b"\n"
        return False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends it. More than once does nothing."""
        self._end()


def _stop(process: subprocess.Popen, folder: str, owner: int, before: list[Callable[[], object]]) -> None:
    if os.getpid() != owner:  # a forked child's copy
        return
    for leave in before:
        leave()
    process.terminate()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
