#!/usr/bin/env python3
"""run.py - checks the models with spin: the right ones must hold, and each one broken on purpose must be refuted.

Prints TAP, one line per model, with the number of states that spin visited. Needs spin and a C compiler. Everything is
made in a temporary folder, by JOBS at a time (2). With words as arguments, only the models whose name has one of them.
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple

MODELS = os.path.dirname(os.path.realpath(__file__))
MEMORY_MB = 1000  # of one model, at most; the largest takes about 800
DEPTH = 100000
SECONDS = 900  # of one model, at most: far more than it takes, for a machine that has other things to do

HOLDS, ENDS, REFUTED = "holds", "always ends", "is refuted"

Case = namedtuple("Case", "file name expected defines")


def gate(name, expected, defines):
    return Case("gate.pml", name, expected, defines)


def switch(name, expected, defines):
    return Case("switch.pml", "switch: " + name, expected, defines)


# What must hold, and then for each thing that the protocol takes care of, what comes of it when it does not.
CASES = [
    gate("two ranks", HOLDS, "STEPS=3 EXTENDS=2"),
    gate("a ring of four", HOLDS, "SLOTS=4 GENS=5 STEPS=1 MARGIN=0"),
    gate("three ranks", HOLDS, "RANKS=3 GENS=2 STEPS=1 MARGIN=0"),
    gate("freezerd is killed", HOLDS, "CRASHES=1 STEPS=1"),
    gate("freezerd is killed twice", HOLDS, "CRASHES=2 STEPS=1 MARGIN=0"),
    gate("a rank stops", HOLDS, "STOPS=1 STEPS=2"),
    gate("a rank stops, freezerd is killed", HOLDS, "STOPS=1 CRASHES=1 STEPS=1 GENS=2 MARGIN=0"),
    gate("a rank dies and comes back", HOLDS, "DEATHS=1 STEPS=2 MARGIN=0"),
    gate("a rank dies, freezerd is killed", HOLDS, "DEATHS=1 CRASHES=1 STEPS=1 GENS=1 MARGIN=0"),
    gate("a rank that lives is taken for dead", HOLDS, "TAKEN=1 GENS=4 STEPS=1 MARGIN=0"),
    gate("freezerd is killed", ENDS, "CRASHES=1 STEPS=1 GENS=2 MARGIN=0"),
    gate("a rank dies and comes back", ENDS, "DEATHS=1 STEPS=1 GENS=2 MARGIN=0"),
    gate("published before the slot is written", REFUTED, "GATE_BEFORE_SLOT STEPS=2"),
    gate("published without compare-and-swap", REFUTED, "BLIND_PUBLISH STEPS=2"),
    gate("slot reused too early", REFUTED, "REUSE_EARLY GENS=4 STEPS=1"),
    gate("gen read before the step is raised", REFUTED, "GEN_BEFORE_RAISE STEPS=2"),
    gate("no second look at the slot's gen", REFUTED, "NO_SECOND_LOOK TAKEN=1 GENS=4 STEPS=1"),
    gate("a rank writes what it holds into another's line", REFUTED, "HOLD_ANOTHERS_LINE TAKEN=1 GENS=4 STEPS=1"),
    gate("plan published before all have joined", REFUTED, "PLAN_BEFORE_ALL STEPS=2"),
    gate("ready before the gate is raised", REFUTED, "READY_BEFORE_RAISE STEPS=2"),
    gate("a rank that comes back says not what it holds", REFUTED, "KEEP_WITHOUT_HOLD CRASHES=2 STEPS=1 MARGIN=0"),
    switch("two incarnations", HOLDS, "STEPS=2"),
    switch("three incarnations", HOLDS, "INCARNATIONS=3 GENS=1 STEPS=1"),
    switch("freezerd is killed", HOLDS, "CRASHES=1 GENS=1 STEPS=2"),
    switch("freezerd is killed", ENDS, "CRASHES=1 GENS=1 STEPS=1"),
    switch("plan published before all have joined", REFUTED, "PLAN_BEFORE_ALL STEPS=2"),
    switch("ready before the gate is raised", REFUTED, "READY_BEFORE_RAISE STEPS=2"),
    switch("gone over as soon as there is a plan", REFUTED, "SWITCH_AT_ONCE STEPS=2"),
    switch("a segment with a plan is let go", REFUTED, "DROP_PLANNED INCARNATIONS=3 GENS=1 STEPS=1"),
]


def call(command, folder, seconds):
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False
    )
    return done.stdout


def make(case, folder):
    """pan, from the model. An error message or None."""
    defines = ["-D" + define for define in case.defines.split()]
    said = call(["spin", "-a", *defines, os.path.join(MODELS, case.file)], folder, 60)
    if not os.path.exists(os.path.join(folder, "pan.c")):
        return said
    kind = "-DNP" if case.expected == ENDS else "-DSAFETY"
    compiler = os.environ.get("CC", "cc").split()
    said = call(
        [*compiler, "-O2", "-w", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", kind, "-o", "pan", "pan.c"], folder, 120
    )
    return None if os.path.exists(os.path.join(folder, "pan")) else said


def check(case):
    """(good, title, details) of one case."""
    title = f"{case.name} {case.expected}" if case.expected != REFUTED else f"{case.expected}: {case.name}"
    with tempfile.TemporaryDirectory(prefix="fz-model.") as folder:
        try:
            failed = make(case, folder)
            if failed is not None:
                return False, title, failed
            said = call(["./pan", f"-m{DEPTH}", *(["-l"] if case.expected == ENDS else [])], folder, SECONDS)
        except subprocess.TimeoutExpired as late:
            return False, title, f"{late.cmd[0]} took more than {late.timeout:.0f} s"
        errors = re.search(r"errors: (\d+)", said)
        states = re.search(r"(\d+) states, stored", said)
        # A search that ended early (memory, depth) has proved nothing, and one without a counterexample refuted nothing.
        whole = bool(errors and states) and not re.search(
            r"Search not completed|max search depth too small|out of memory|memory limit", said
        )
        trail = os.path.exists(os.path.join(folder, case.file + ".trail"))
        if case.expected == REFUTED:
            why = re.search(r"assertion violated.*|invalid end state.*", said)
            good = bool(errors and errors[1] != "0" and why and trail)
        else:
            good = whole and errors[1] == "0"
        if states:
            title += f", {int(states[1]):,} states ({case.defines})"
        if good:
            return True, title, ""
        if trail:
            steps = call(["spin", "-t", "-p", *(f"-D{d}" for d in case.defines.split()),
                          os.path.join(MODELS, case.file), "-k", case.file + ".trail"], folder, 60)
            said += "\n".join(steps.splitlines()[-400:])
        return False, title, said


def main():
    for tool, package in (("spin", "spin"), (os.environ.get("CC", "cc").split()[0], "gcc")):
        if not shutil.which(tool):
            print(f"make check-model needs {tool} (Debian: apt-get install {package})", file=sys.stderr)
            return 1
    cases = [case for case in CASES if len(sys.argv) < 2 or any(word in case.name for word in sys.argv[1:])]
    failed = 0
    print(f"1..{len(cases)}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        for number, (good, title, details) in enumerate(pool.map(check, cases), 1):
            failed += not good
            print(f"{'ok' if good else 'not ok'} {number} - {title}", flush=True)
            for line in details.splitlines():
                print(f"# {line}", flush=True)
    print(f"# PASS:  {len(cases) - failed}\n# FAIL:  {failed}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
