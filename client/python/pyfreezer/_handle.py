"""One rank's handle of libfreezer, in Python's terms; and one that does nothing, where there is no library."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable

from . import _library
from ._errors import FreezerError, LayoutError, NotConnected, RulesError

if TYPE_CHECKING:
    from ._distributed import PlanGroup
    from ._names import Slot

_LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO}
_CHUNK = 4096  # changes fetched with one call


@dataclasses.dataclass
class Where:
    """How to attach, and where training is. What is None is found by libfreezer: see client/freezer.h."""

    run: str | None = None
    socket: str | None = None
    framework: str = "pytorch"
    job: str | None = None
    attempt: int = 0
    rank: int = 0
    world: int = 1
    step: int = 0
    epoch: int = 0
    rules: str | None = None
    timeout: float | None = None
    """Seconds to wait for a freezerd that is there and for the other ranks to give the first plan."""
    group: PlanGroup | None = None
    """Several machines: its root attaches, and the others get from it what they need."""


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "surrogateescape")


def _program() -> str | None:
    """The script's name, by which people know the run; None: libfreezer knows no worse."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return name if name and name not in ("-c", "-m") else None


def _param(slot: Slot) -> _library.Param:
    aliases = (ctypes.c_char_p * len(slot.aliases))(*map(_text, slot.aliases)) if slot.aliases else None
    return _library.Param(
        _text(slot.name),
        slot.elements,
        slot.baseline,
        _text(slot.may_freeze),
        _text(slot.may_train),
        aliases,
        len(slot.aliases),
    )


class Handle:
    """An open freezer_t. Owned by one session; used by one thread at a time."""

    def __init__(
        self, library: _library.Library, where: Where, slots: Sequence[Slot], log: Callable[[int, str], None]
    ) -> None:
        self._library = library
        self._count = len(slots)
        self._indices = (ctypes.c_size_t * _CHUNK)()
        self._flags = (ctypes.c_bool * _CHUNK)()
        self._said: list[str] = []
        self._log_function = _library.LOG_FUNCTION(self._logged(log))
        if where.group:
            self._broadcast_function = _library.BROADCAST_FUNCTION(self._guarded(where.group.begin))
            self._wait_function = _library.WAIT_FUNCTION(self._guarded(where.group.wait))
        self._pointer = ctypes.c_void_p()  # after close() it is NULL, which the library's functions know
        options = self._options(where)
        params = (_library.Param * self._count)(*map(_param, slots))
        code = library.open(ctypes.byref(self._pointer), ctypes.byref(options), params, self._count)
        if code < 0:
            raise self._error(code)
        self._argument = ctypes.c_void_p.from_param(self._pointer.value)  # what a call makes of it, made once
        self._ahead: list[Any] = []
        self._info = _library.Info()
        self._info_argument = ctypes.byref(self._info)

    def _logged(self, log: Callable[[int, str], None]):
        def function(_user, level, message):
            text = message.decode("utf-8", "replace")
            self._said.append(text)
            del self._said[:-4]
            log(_LEVELS.get(level, logging.INFO), text)

        return function

    @staticmethod
    def _guarded(function: Callable[..., int]) -> Callable[..., int]:
        """For libfreezer, which gives its user pointer first. Nothing may be raised into C."""

        def called(_user, *arguments):
            try:
                return function(*arguments)
            except Exception:  # noqa: BLE001 - the flags stay, and the plan is handed out again
                logging.getLogger("pyfreezer").exception("the plan did not reach all machines")
                return -errno.EIO

        return called

    def _options(self, where: Where) -> _library.Options:
        options = _library.Options()
        options.socket, options.run = _text(where.socket), _text(where.run)
        options.framework, options.job, options.attempt = _text(where.framework), _text(where.job), where.attempt
        options.rank, options.world = where.rank, where.world
        options.step, options.epoch = where.step, where.epoch
        options.rules, options.program = _text(where.rules), _text(_program())
        options.attach_timeout_ms = -1 if where.timeout is None else round(where.timeout * 1000)
        options.log = self._log_function
        if where.group:
            options.broadcast, options.broadcast_wait = self._broadcast_function, self._wait_function
            options.broadcast_root = where.group.root
        return options

    def _error(self, code: int) -> FreezerError:
        """What libfreezer said before it gave up is more than its number says."""
        sentence = self._said[-1] if self._said else self.strerror(code)
        if code == -errno.EINVAL and not self._said:  # numbers were looked at before
            sentence = "run, job and framework must have 1 to some hundred characters, none of them a control character"
        if code in (-errno.ENOTCONN, -errno.ECONNREFUSED, -errno.ETIMEDOUT):
            return NotConnected(sentence, code=errno.errorcode[-code])
        if code == -errno.EPROTOTYPE:
            return LayoutError(sentence, code="LAYOUT_MISMATCH")
        if "the rules are" in sentence:
            return RulesError(sentence)
        return FreezerError(sentence, code=errno.errorcode.get(-code, str(code)))

    def batch_next(self) -> int:
        """As begin(), at the step after the last."""
        return self._library.batch_next(self._pointer)

    def steps(self, count: int) -> Iterator[int]:
        """
        The next `count` steps: each item is what batch_next() returns, called when the item is asked for. This is for
        the path that is taken at each step, and costs little more than the call. There are none after close().
        """
        self._ahead = [self._argument] * count if self._pointer else []  # what is closed is freed
        return map(self._library.batch_next, self._ahead)

    def begin(self, step: int, epoch: int) -> int:
        """1: there are changes; 0: none; negative: an errno value, the flags stay."""
        return self._library.batch_begin(self._pointer, step, epoch)

    def changes(self) -> tuple[list[int], bytes]:
        """What is to be written since begin() returned 1: ascending indices, and requires_grad of each."""
        indices: list[int] = []
        flags = b""
        while True:
            n = self._library.next_changes(self._pointer, self._indices, self._flags, _CHUNK)
            indices += memoryview(self._indices).cast("B").cast("N")[:n].tolist()  # a slice of it takes twice as long
            flags += bytes(self._flags)[:n]
            if n < _CHUNK:
                return indices, flags

    def requires_grad(self, index: int) -> bool:
        return self._library.requires_grad(self._pointer, index)

    def first_trainable(self) -> int:
        return self._library.first_trainable(self._pointer)

    @property
    def generation(self) -> int:
        return self._library.generation(self._pointer)

    @property
    def step(self) -> int:
        """info().step, in a fraction of the time."""
        self._library.info(self._pointer, self._info_argument)
        return self._info.step

    def info(self) -> _library.Info:
        info = _library.Info()
        self._library.info(self._pointer, ctypes.byref(info))
        return info

    def metric(self, name: str, value: float) -> int:
        return self._library.metric(self._pointer, name.encode(), value)

    def rewind(self, step: int, epoch: int) -> int:
        return self._library.rewind(self._pointer, step, epoch)

    def strerror(self, code: int) -> str:
        if code == -errno.EINVAL:
            return "a step or epoch is out of range, or went back without rewind()"
        return self._library.strerror(code)

    def close(self) -> None:
        pointer = ctypes.c_void_p(self._pointer.value)
        self._pointer.value = None
        self._ahead.clear()
        self._library.close(pointer)


class NoHandle:
    """Stands where there is no library: the flags stay as they are, and every call is taken and means nothing."""

    generation = 0

    def __init__(self, where: Where, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._info = _library.Info()
        self._begun = False
        self.rewind(where.step, where.epoch)

    def batch_next(self) -> int:
        return self.begin(self._info.step + self._begun, self._info.epoch)

    def steps(self, count: int) -> Iterator[int]:
        return (self.batch_next() for _ in range(count))

    def begin(self, step: int, epoch: int) -> int:
        self._info.step, self._info.epoch, self._begun = step, epoch, True
        return 0

    def changes(self) -> tuple[list[int], bytes]:
        return [], b""

    def requires_grad(self, index: int) -> bool:
        return self._slots[index].baseline

    def first_trainable(self) -> int:
        return next((i for i, slot in enumerate(self._slots) if slot.baseline), len(self._slots))

    @property
    def step(self) -> int:
        return self._info.step

    def info(self) -> _library.Info:
        return self._info

    def metric(self, name: str, value: float) -> int:
        return 0

    def rewind(self, step: int, epoch: int) -> int:
        self._info.step, self._info.epoch, self._begun = step, epoch, False
        return 0

    def strerror(self, code: int) -> str:
        return os.strerror(-code)

    def close(self) -> None:
        pass
