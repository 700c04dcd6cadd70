"""
libfreezer by ctypes: where it is found, and its functions with their types. client/freezer.h has their contracts.

Functions that may wait (open, rewind) are called without the interpreter's lock. The others take well under a
microsecond, so they keep it: to give it up and take it back costs more than the call, and with busy threads beside it
up to some milliseconds.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from ctypes import POINTER, Structure, c_bool, c_char_p, c_double, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

from ._log import warn_once

SONAME = "libfreezer.so.0"

LOG_FUNCTION = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
BROADCAST_FUNCTION = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
WAIT_FUNCTION = ctypes.CFUNCTYPE(c_int, c_void_p)


class Param(Structure):
    """freezer_param_t"""

    _fields_ = (
        ("name", c_char_p),
        ("elements", c_uint64),
        ("requires_grad", c_bool),
        ("may_freeze", c_char_p),
        ("may_train", c_char_p),
        ("aliases", POINTER(c_char_p)),
        ("n_aliases", c_size_t),
    )


class Options(Structure):
    """freezer_options_t"""

    _fields_ = (
        ("size", c_size_t),
        ("param_size", c_size_t),
        ("socket", c_char_p),
        ("run", c_char_p),
        ("framework", c_char_p),
        ("job", c_char_p),
        ("attempt", c_uint64),
        ("rank", c_uint32),
        ("world", c_uint32),
        ("step", c_uint64),
        ("epoch", c_uint64),
        ("rules", c_char_p),
        ("attach_timeout_ms", c_int),
        ("log", LOG_FUNCTION),
        ("log_user", c_void_p),
        ("broadcast", BROADCAST_FUNCTION),
        ("broadcast_user", c_void_p),
        ("broadcast_root", c_bool),
        ("program", c_char_p),
        ("broadcast_wait", WAIT_FUNCTION),
    )

    def __init__(self) -> None:
        super().__init__(size=ctypes.sizeof(Options), param_size=ctypes.sizeof(Param), world=1, attach_timeout_ms=-1)


class Info(Structure):
    """freezer_info_t"""

    _fields_ = (
        ("size", c_size_t),
        ("attached", c_bool),
        ("run", c_char_p),
        ("socket", c_char_p),
        ("incarnation", c_uint64),
        ("step", c_uint64),
        ("epoch", c_uint64),
    )

    def __init__(self) -> None:
        super().__init__(size=ctypes.sizeof(Info))


class Library:
    """The functions of one loaded libfreezer, without the prefix freezer_."""

    def __init__(self, path: str) -> None:
        self.path = path
        patient, quick = ctypes.CDLL(path), ctypes.PyDLL(path)

        def function(library, name, result, *arguments):
            found = getattr(library, "freezer_" + name)
            found.restype = result
            found.argtypes = arguments
            return found

        self.open = function(patient, "open", c_int, POINTER(c_void_p), POINTER(Options), POINTER(Param), c_size_t)
        self.rewind = function(patient, "rewind", c_int, c_void_p, c_uint64, c_uint64)
        self.close = function(quick, "close", None, c_void_p)
        self.batch_begin = function(quick, "batch_begin", c_int, c_void_p, c_uint64, c_uint64)
        # Called at each step, and in less time without types of arguments: give them pointers of ctypes.
        self.batch_next, self.info = quick.freezer_batch_next, quick.freezer_info
        self.batch_next.restype = self.info.restype = c_int
        self.next_changes = function(
            quick, "next_changes", c_size_t, c_void_p, POINTER(c_size_t), POINTER(c_bool), c_size_t
        )
        self.requires_grad = function(quick, "requires_grad", c_bool, c_void_p, c_size_t)
        self.first_trainable = function(quick, "first_trainable", c_size_t, c_void_p)
        self.generation = function(quick, "generation", c_uint64, c_void_p)
        self.metric = function(quick, "metric", c_int, c_void_p, c_char_p, c_double)
        self._strerror = function(quick, "strerror", c_char_p, c_int)

    def strerror(self, code: int) -> str:
        """A sentence for a negative errno value."""
        return self._strerror(code).decode()


def bundled(name: str) -> Path:
    """Where a wheel has a file that is not Python."""
    return Path(__file__).resolve().parent / "bundled" / name


def _candidates() -> Iterator[str]:
    """Paths to try, in order; the last is left to the system's loader."""
    given = os.environ.get("FREEZER_LIBRARY")
    if given:
        yield given
        return
    package = Path(__file__).resolve().parent
    yield str(bundled(SONAME))
    yield str(package.parents[1] / ".libs" / SONAME)  # a build in the source tree
    yield str(package.parents[2] / SONAME)  # PREFIX/lib/pythonX.Y/site-packages: PREFIX/lib
    yield SONAME


def is_required() -> bool:
    """Whether nothing is to train without Freezer: FREEZER_REQUIRE."""
    return os.environ.get("FREEZER_REQUIRE", "0") not in ("", "0")


@functools.cache
def load() -> Library | None:
    """libfreezer, or None with one warning where it cannot be used."""
    if not sys.platform.startswith("linux"):
        warn_once(f"Freezer runs on Linux only, not on {sys.platform}: training goes on without it")
        return None
    reasons = []
    for path in _candidates():
        if "/" in path and not os.path.exists(path):
            reasons.append(f"{path}: not there")
            continue
        try:
            return Library(path)
        except (OSError, AttributeError) as error:  # AttributeError: a libfreezer that is older than this package
            reasons.append(f"{path}: {error}")
    tried = "".join(f"\n  {reason}" for reason in reasons)
    warn_once(f"there is no libfreezer, so training goes on without Freezer; FREEZER_LIBRARY names one{tried}")
    return None
