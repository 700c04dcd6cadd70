#!/usr/bin/env python3
"""style.py - the package and its tests are formatted and free of what ruff finds; imports the standard library."""

import torchenv  # noqa: F401 - first: goes on where torch is

import ast
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


@fz.test("Python 3.9 can read it, and what it looks up at run time is there")
def test_oldest(_scene):
    newer = re.compile(r"\b(zip|map)\(.*strict=|slots=True|kw_only=True|except\*|itertools\.pairwise|tomllib")
    for name in sorted(os.listdir(os.path.join(PACKAGE, "pyfreezer"))):
        if name.endswith(".py"):
            with open(os.path.join(PACKAGE, "pyfreezer", name), encoding="utf-8") as file:
                text = file.read()
            tree = ast.parse(text, name, feature_version=(3, 9))
            fz.check(not newer.search(text), f"{name} has what came later", newer.search(text))
            if any(isinstance(node, (ast.FunctionDef, ast.AnnAssign)) for node in ast.walk(tree)):
                fz.check("from __future__ import annotations" in text, f"{name} evaluates its annotations")


@fz.test("what make install puts there is the whole package, and each test is run")
def test_listed(_scene):
    for fragment, folder in (
        ("client/python/Makefile.inc", "client/python/pyfreezer"),
        ("tests/python.inc", "tests/python"),
    ):
        with open(os.path.join(TOP, fragment), encoding="utf-8") as file:
            listed = set(re.findall(rf"{folder}/(\w+\.py)", file.read()))
        there = {name for name in os.listdir(os.path.join(TOP, folder)) if name.endswith(".py")}
        fz.equal(there ^ listed, set(), f"files that are there or in {fragment}, and not in both")


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
