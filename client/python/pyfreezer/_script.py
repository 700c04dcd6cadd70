"""A script or a module, run as `python SCRIPT` and `python -m MODULE` do it: what it sees of itself is the same."""

from __future__ import annotations

import functools
import importlib.machinery
import io
import os
import pkgutil
import runpy
import sys
import types
import zipfile
from typing import Any, Callable

_replaced: list[types.ModuleType] = []
"""What was __main__ before. Its globals must stay, since its code is still running."""


def run_module(name: str) -> None:
    """As `python -m`. What runs the module there does it here, too."""
    _new_main()
    _run_by_runpy(name)


def run_file(path: str) -> None:
    """As `python PATH`: a script, or a folder or an archive with a __main__.py in it. sys.argv is set already."""
    absolute = os.path.join(os.getcwd(), path)
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        _new_main()
        _forget_working_directory()
        sys.path.insert(0, absolute)
        _run_by_runpy("__main__", alter_argv=False)
        return
    try:
        code = _compile(absolute)
    except OSError as error:
        print(f"pyfreezer: can't open file {absolute!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except (SyntaxError, ValueError):
        _hide_frames()
        raise
    main = _new_main()
    main.__file__ = absolute
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", absolute)
    main.__dict__["__cached__"] = None
    if _forget_working_directory():
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    try:
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        _hide_frames()
        raise


def _run_by_runpy(name: str, **options: Any) -> None:
    try:
        runpy._run_module_as_main(name, **options)  # type: ignore[attr-defined]
    except SystemExit:
        raise
    except BaseException:
        _hide_frames()
        raise


def _forget_working_directory() -> bool:
    """`python -m pyfreezer` put it where `python SCRIPT` puts the script's folder. False: with -P, neither does so."""
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        return False
    del sys.path[0]
    return True


def _new_main() -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    _replaced.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main


def _compile(path: str) -> types.CodeType:
    with io.open_code(path) as file:
        code = pkgutil.read_code(file)  # type: ignore[attr-defined] # a .pyc
    if code is None:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    return code


def _hide_frames() -> None:
    """An exception is on its way out: its traceback is shown without what is ours."""
    sys.excepthook = functools.partial(_show, sys.excepthook)


def _show(
    hook: Callable[..., object],
    cls: type[BaseException],
    error: BaseException,
    traceback: types.TracebackType | None,
) -> None:
    frame = traceback
    while frame is not None:
        if frame.tb_frame.f_globals is globals():
            traceback = frame.tb_next
        frame = frame.tb_next
    error.__traceback__ = traceback
    hook(cls, error, traceback)
