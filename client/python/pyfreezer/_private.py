"""A freezerd of one's own, for rules that must hold although nobody started one."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket as sockets
import subprocess
import time
import weakref
from typing import Callable

from . import _places, _programs
from ._client import Client
from ._errors import FreezerError

READY_SECONDS = 20.0
LEAVE_SECONDS = 5.0


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


class PrivateDaemon:
    """
    Serves at `socket`, whose folder it makes, until stop() or until this process ends, however it does.

    That is what `freezerctl run` is for: freezerd ends with the command, here one that reads until the end of a pipe of
    which this process holds the other end.
    """

    def __init__(self, socket: str) -> None:
        self.socket = socket
        freezerd = _programs.find("freezerd")
        freezerctl = _programs.find("freezerctl")
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
        self._end = weakref.finalize(self, _stop, process, socket, os.getpid(), self.before_end)
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


def _stop(process: subprocess.Popen, socket: str, owner: int, before: list[Callable[[], object]]) -> None:
    if os.getpid() != owner:  # a forked child's copy
        return
    for leave in before:
        leave()
    with contextlib.suppress(FreezerError):
        _await_others(socket)
    process.terminate()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(OSError):
        shutil.rmtree(os.path.dirname(socket))


def _await_others(socket: str) -> None:
    """The other ranks leave a moment later. One that died is gone; one that stands still is not waited for long."""
    deadline = time.monotonic() + LEAVE_SECONDS
    with Client(socket) as client:
        for run in client.runs():
            client.run = run["name"]
            client.wait("detached", wait=max(deadline - time.monotonic(), 0))
