# torchenv.py - imported first by each test here: goes on in the virtual environment that has torch, or says why not.
"""
`./bootstrap.sh --with-python`, or `make python-env` in a build tree, makes the environment. Without it these tests are
skipped, or fail when $FZ_PYTHON_REQUIRED is set. What the interpreter cannot load, a library with a sanitizer, is
skipped in any case.
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
_top = os.path.dirname(os.path.dirname(_here))
_build = os.path.abspath(os.environ.get("top_builddir") or ("." if os.path.exists("daemon/freezerd") else _top))
_environment = os.environ.get("FZ_PYTHON_ENV", os.path.join(_build, "python-env"))

sys.path[:0] = [os.path.join(_top, "tests", "integration"), os.path.join(_top, "client", "python")]
os.environ["PYTHONPATH"] = os.path.join(_top, "client", "python")
os.environ.setdefault("FREEZER_LIBRARY", os.path.join(_build, "client", ".libs", "libfreezer.so.0"))
for _name, _path in (
    ("FREEZERD", "daemon/freezerd"),
    ("FREEZERCTL", "client/ctl/freezerctl"),
    ("MOCK_TRAINER", "tests/mock_trainer"),
):
    os.environ.setdefault(_name, os.path.join(_build, _path))


def _skip(reason):
    print(f"1..0 # SKIP {reason}")
    sys.exit(0)


def _enter():
    python = os.path.join(_environment, "bin", "python")
    if os.path.realpath(sys.prefix) == os.path.realpath(_environment):
        return
    import fz

    if fz.is_sanitized():
        _skip("this build has a sanitizer, which an interpreter without it cannot load")
    if not os.access(python, os.X_OK):
        if os.environ.get("FZ_PYTHON_REQUIRED"):
            print(f"Bail out! there is no {python}: make python-env")
            sys.exit(1)
        _skip("no virtual environment with torch: ./bootstrap.sh --with-python makes one")
    os.execv(python, [python, "-B", *sys.argv])


_enter()
