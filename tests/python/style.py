#!/usr/bin/env python3
"""style.py - the package and its tests are formatted and free of what ruff finds; imports the standard library."""

import torchenv  # noqa: F401 - first: goes on where torch is

import os
import re
import subprocess
import sys

import fz

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = os.path.join(TOP, "client", "python")
TESTS = os.path.join(TOP, "tests", "python")
DEMO = os.path.join(TOP, "client", "examples", "demo-torch")


def ruff(*words):
    run = subprocess.run(
        [
            os.path.join(os.path.dirname(sys.executable), "ruff"),
            *words,
            "--no-cache",
            "--config",
            f"{PACKAGE}/pyproject.toml",
        ],
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    fz.equal(run.returncode, 0, f"ruff {words[0]}:\n{run.stdout}{run.stderr}\n")


@fz.test("ruff finds nothing")
def test_check(_scene):
    ruff("check", PACKAGE, TESTS, DEMO)


@fz.test("ruff would format nothing")
def test_format(_scene):
    ruff("format", "--check", PACKAGE, TESTS, DEMO)


@fz.test("importing pyfreezer imports nothing but the standard library")
def test_imports(_scene):
    program = "import sys; before = set(sys.modules); import pyfreezer; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    foreign = [m for m in run.stdout.split() if m.split(".")[0] not in {*sys.stdlib_module_names, "pyfreezer"}]
    fz.equal(foreign, [], "modules")


@fz.test("the version is that of the whole")
def test_version(_scene):
    import pyfreezer

    def read(path, pattern):
        with open(os.path.join(TOP, path), encoding="utf-8") as file:
            return re.search(pattern, file.read()).group(1)

    fz.equal(pyfreezer.__version__, read("configure.ac", r"AC_INIT\(\[freezer\], \[([^]]+)\]"), "__version__")
    fz.equal(pyfreezer.__version__, read("client/python/pyproject.toml", r'version = "([^"]+)"'), "pyproject.toml")


if __name__ == "__main__":
    fz.main()
