#!/usr/bin/env python3
"""package.py - pip installs the package from the source tree, and the wheel of `make wheel` needs nothing else."""

import torchenv  # noqa: F401 - first: goes on where torch is

import glob
import os
import shutil
import subprocess
import sys
import venv

import fz

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def output(*argv, **words):
    done = subprocess.run(argv, capture_output=True, text=True, **words)
    fz.equal(done.returncode, 0, f"exit status of {argv}\n{done.stdout}{done.stderr}\n")
    return done.stdout


@fz.test("pip install client/python", limit=240)
def test_source(scene):
    source = shutil.copytree(os.path.join(TOP, "client", "python"), scene.path("source"))
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation")
    output(*pip, "--target", scene.path("there"), source)
    names = {name for name in os.listdir(os.path.join(source, "pyfreezer")) if name.endswith((".py", ".typed"))}
    installed = set(os.listdir(scene.path("there/pyfreezer")))
    fz.equal(names - installed, set(), "files that were not installed")
    env = dict(scene.env, PYTHONPATH=scene.path("there"))
    program = "import pyfreezer, pyfreezer._library as l; print(pyfreezer.__file__); print(l.load() is not None)"
    where, loaded = output(sys.executable, "-c", program, env={**env, "FREEZER_LIBRARY": os.environ["FREEZER_LIBRARY"]},
                           cwd="/").split()  # fmt: skip
    fz.check(where.startswith(scene.root) and loaded == "True", "imported from there, with a library", where, loaded)


@fz.test("a wheel brings library, freezerd and freezerctl into an environment that has nothing", limit=240)
def test_wheel(scene):
    wheels = glob.glob(os.path.join(torchenv._build, "wheel", "*.whl"))
    if not wheels and not os.environ.get("FZ_PYTHON_REQUIRED"):
        raise fz.Skip("there is no wheel: make wheel")
    fz.equal(len(wheels), 1, "wheels")
    fz.check("linux" in wheels[0] and "-py3-none-" in wheels[0], "its tags", wheels[0])
    venv.create(scene.path("env"), with_pip=True)
    env = {"PATH": "/usr/bin:/bin", "HOME": scene.root, "FREEZER_SOCKET": scene.socket}
    output(scene.path("env/bin/python"), "-m", "pip", "install", "-q", "--no-index", wheels[0], env=env)
    program = "import pyfreezer._library as l, pyfreezer._programs as p; print(l.load().path, p.find('freezerctl'))"
    for path in output(scene.path("env/bin/python"), "-c", program, env=env, cwd="/").split():
        fz.check(path.startswith(scene.path("env")), "found in the environment", path)
    linked = output("ldd", glob.glob(scene.path("env/lib/python3*/site-packages/pyfreezer/bundled/freezerctl"))[0])
    fz.check("libfyaml.so.0 => " + scene.root in linked, "with what it is linked with", linked)
    fz.check("freezerctl " in output(scene.path("env/bin/freezerctl"), "version", env=env), "freezerctl runs")
    fz.check("freezerd " in output(scene.path("env/bin/freezerd"), "--version", env=env), "freezerd runs")


if __name__ == "__main__":
    fz.main()
