"""A control client, as freezerctl is one, for notebooks and schedulers. PROTOCOL.md section 4 has the answers."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Union

from . import _places
from ._errors import FreezerError, NotConnected, from_answer

Patterns = Union[str, Sequence[str]]

_ANSWER_SECONDS = 5.0  # what freezerd may take for an answer that waits for nobody
_LINE_MAX = 1 << 20

# What a change may be given besides its patterns and `wait`: PROTOCOL.md, section 4.
_ANY = frozenset({"reason", "dry_run", "force", "include_baseline", "yes", "by"})
_UNTIL = _ANY | {"for", "at_step", "until_step", "until_epoch"}
_FIELDS = {
    "freeze": _UNTIL,
    "unfreeze": _UNTIL,
    "auto": _ANY,
    "pin": _ANY | {"value"},
    "unpin": _ANY,
    "revert": _ANY | {"gen"},
    "rules_load": _ANY | {"rules", "source", "allow_missing"},
    "rules_unload": _ANY,
}


def _list(patterns: Patterns) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


class _Connection:
    """One connection, on which one request after another is asked and answered."""

    def __init__(self, path: str | None) -> None:
        reasons = []
        for candidate in _places.candidates(path):
            attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            attempt.settimeout(_ANSWER_SECONDS)
            try:
                attempt.connect(candidate)
            except OSError as error:
                attempt.close()
                reasons.append(f"{candidate}: {error.strerror or error}")
                continue
            self.path = candidate
            self._socket = attempt
            self._rest = b""
            self._id = 0
            return
        raise NotConnected("no freezerd is running: " + ", ".join(reasons), code="no_daemon")

    def close(self) -> None:
        self._socket.close()

    def send(self, op: str, fields: dict) -> int:
        self._id += 1
        request = {"id": self._id, "op": op, "protocol": 1, **{k: v for k, v in fields.items() if v is not None}}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        return self._id

    def line(self, timeout: float | None) -> dict | None:
        """The next object, None when the time is over. Raises NotConnected at the end of the stream."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            self._socket.settimeout(left)
            try:
                received = self._socket.recv(_LINE_MAX)
            except socket.timeout:
                return None
            if not received:
                raise NotConnected("freezerd has ended the connection", code="closing")
            self._rest += received
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line) if line else self.line(timeout)

    def answer(self, number: int, timeout: float) -> dict:
        """The whole answer to a request, with what its parts brought."""
        parts: dict[str, list] = {}
        while True:
            line = self.line(timeout)
            if line is None:
                raise FreezerError(f"freezerd did not answer within {timeout:g} s", code="timeout")
            if line.get("id") not in (number, None):
                continue
            if line.get("part"):
                for name, value in line.items():
                    if isinstance(value, list):
                        parts.setdefault(name, []).extend(value)
                continue
            if not line.get("ok"):
                raise from_answer(line.get("error") or {})
            for name, value in parts.items():
                line[name] = value + line.get(name, [])
            return {name: value for name, value in line.items() if name not in ("id", "ok")}


class Client:
    """
    Talks to freezerd. `run` is a run's name, job or unique prefix; without it, the only run there is.

    Connects at the first request, and again when freezerd was started anew. Usable from several threads. Every
    method raises a FreezerError when freezerd refuses, and NotConnected when there is none.
    """

    def __init__(self, socket: str | None = None, run: str | None = None) -> None:
        self.run = run
        self._path = socket
        self._connection: _Connection | None = None
        self._lock = threading.Lock()
        self._by = {"user": _user(), "host": _host()}

    def request(self, op: str, *, wait: float = 0, **fields: Any) -> dict:
        """Any operation of PROTOCOL.md: its fields, and the fields of its answer."""
        with self._lock:
            for attempt in (1, 2):
                fresh = self._connection is None
                if self._connection is None:
                    self._connection = _Connection(self._path)
                try:
                    number = self._connection.send(op, fields)
                    return self._connection.answer(number, wait + _ANSWER_SECONDS)
                except (OSError, NotConnected) as error:
                    self._drop()
                    if fresh or attempt == 2 or not isinstance(error, BrokenPipeError):
                        if isinstance(error, NotConnected):
                            raise
                        raise NotConnected(f"freezerd is gone: {error}", code="closing") from error
                except FreezerError as error:
                    if error.code == "timeout":
                        self._drop()  # a late answer must not be taken for the next one's
                    raise
        raise AssertionError("unreachable")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Ends the connection; a further request makes another."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # --- looking ---

    def ping(self) -> dict:
        """Which freezerd answers: its version, pid and socket."""
        return self.request("ping")

    def runs(self) -> list[dict]:
        """A summary of each run."""
        return self.request("runs")["runs"]

    def status(self) -> dict:
        """Everything about one run at a glance."""
        return self.request("status", run=self.run)["status"]

    def list(
        self, patterns: Patterns = (), *, state: str | None = None, why: str | None = None, at: int | None = None
    ) -> list[dict]:
        """
        The parameters, or those selected: only what is in a `state` (frozen, training or pending), or so because of
        `why` (baseline, rule, override or pin); as they will be `at` a step.
        """
        fields = {"patterns": _list(patterns) or None, "state": state, "why": why, "at": at}
        return self.request("list", run=self.run, **fields).get("params", [])

    def is_frozen(self, patterns: Patterns) -> bool:
        """Whether all that the patterns select is frozen on every rank."""
        return self.request("is_frozen", run=self.run, patterns=_list(patterns))["all"]

    def explain(self, name: str) -> dict:
        """Every layer that has a say about a parameter, which decides, and what comes next."""
        return self.request("explain", run=self.run, param=name)

    def history(self, limit: int | None = None) -> list[dict]:
        """Changes, newest first."""
        return self.request("history", run=self.run, limit=limit).get("history", [])

    def rules_show(self) -> dict:
        """The rules in force: what each selects, from when until when, and whether another hides it."""
        return self.request("rules_show", run=self.run)

    def rules_check(self, rules: dict, *, allow_missing: bool = False) -> dict:
        """What rules would match. Raises RulesError with all mistakes."""
        return self.request("rules_check", run=self.run, rules=rules, allow_missing=allow_missing)

    # --- changing ---

    def _change(self, op: str, wait: float, fields: dict) -> dict:
        own = {"patterns"} if op in ("freeze", "unfreeze", "auto", "pin", "unpin") else set()
        unknown = sorted(fields.keys() - _FIELDS[op] - own)  # freezerd, which may be older, would pass over it
        if unknown:
            raise TypeError(f"{op}() takes no {unknown[0]!r}, only {', '.join(sorted(_FIELDS[op] - {'by', 'for'}))}")
        fields = {"yes": True, "by": self._by, **fields}
        return self.request(op, wait=wait, run=self.run, wait_ms=round(wait * 1000), **fields)

    def freeze(self, patterns: Patterns, *, wait: float = 30, for_steps: int | None = None, **fields: Any) -> dict:
        """
        Freezes what the patterns select. Waits up to `wait` seconds until every rank has applied it: the answer's
        `applied` and `step` say whether and from which step on. `for_steps`: it ends by itself after so many.
        Fields: at_step, until_step, until_epoch, reason, dry_run, force, include_baseline.
        """
        return self._change("freeze", wait, {"patterns": _list(patterns), "for": for_steps, **fields})

    def unfreeze(self, patterns: Patterns, *, wait: float = 30, for_steps: int | None = None, **fields: Any) -> dict:
        """The opposite of freeze()."""
        return self._change("unfreeze", wait, {"patterns": _list(patterns), "for": for_steps, **fields})

    def auto(self, patterns: Patterns, *, wait: float = 30, **fields: Any) -> dict:
        """Drops the decisions of freeze() and unfreeze(): rules decide again."""
        return self._change("auto", wait, {"patterns": _list(patterns), **fields})

    def pin(self, patterns: Patterns, *, value: str | None = None, wait: float = 30, **fields: Any) -> dict:
        """Nothing may change these: as they are, or value="frozen" or "training"."""
        return self._change("pin", wait, {"patterns": _list(patterns), "value": value, **fields})

    def unpin(self, patterns: Patterns, *, wait: float = 30, **fields: Any) -> dict:
        """Takes pins back."""
        return self._change("unpin", wait, {"patterns": _list(patterns), **fields})

    def revert(self, gen: int | None = None, *, wait: float = 30, **fields: Any) -> dict:
        """Back to the decisions before the last change, or to those of `gen`."""
        return self._change("revert", wait, {"gen": gen, **fields})

    def rules_load(self, rules: dict, *, source: str = "pyfreezer", wait: float = 30, **fields: Any) -> dict:
        """Rules in place of those before; `source` says where from. Fields besides: allow_missing."""
        return self._change("rules_load", wait, {"rules": rules, "source": source, **fields})

    def rules_unload(self, *, wait: float = 30, **fields: Any) -> dict:
        """Takes the rules away; what was decided by freeze() and the like stays."""
        return self._change("rules_unload", wait, fields)

    # --- waiting ---

    def wait(
        self,
        condition: str,
        *,
        wait: float | None = None,
        gen: int | None = None,
        pattern: str | None = None,
        step: int | None = None,
    ) -> dict:
        """
        Waits for attached, applied (`gen`, or the newest), frozen or training (what `pattern` selects), step (`step`),
        idle, detached or in-sync; without a limit if `wait` is None. The answer's `met` says whether it came about.
        """
        limit = None if wait is None else round(wait * 1000)
        forever = 10.0**9
        fields = {"for": condition, "gen": gen, "pattern": pattern, "step": step, "wait_ms": limit}
        return self.request("wait", wait=forever if wait is None else wait, run=self.run, **fields)

    def events(self, timeout: float | None = None) -> Iterator[dict]:
        """What happens from now on, one event after another; ends when nothing came for `timeout` seconds."""
        with contextlib.closing(_Connection(self._path)) as connection:
            connection.answer(connection.send("watch", {"run": self.run}), _ANSWER_SECONDS)
            while (line := connection.line(timeout)) is not None:
                if "event" in line:
                    yield line["event"]


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name, as in containers
        return None


def _host() -> str:
    return socket.gethostname()
