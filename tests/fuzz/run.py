#!/usr/bin/env python3
"""run.py - runs the fuzz targets one after the other, in the build folder, and says what came of it.

New inputs that reach new code are kept in tests/fuzz/work/TARGET, those that break something in tests/fuzz/found.
"""

import argparse
import os
import re
import resource
import subprocess
import sys

SOURCE = os.path.dirname(os.path.realpath(__file__))
TARGETS = sorted(name[5:-2] for name in os.listdir(SOURCE) if re.fullmatch(r"fuzz_\w+\.c", name))
LONGEST_INPUT = 4096
SLOWEST_SECONDS = 20
REPORT_LINES = 30


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def last(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def found_of(target):
    return {name for name in os.listdir("tests/fuzz/found") if name.startswith(target + "-")}


def why(text):
    """What libFuzzer and the sanitizers say of what broke, with the input in Base64 where it is short."""
    begin = re.search(r"^(==[0-9]+==|.*: runtime error|.*broken)", text, re.MULTILINE)
    lines = text[begin.start() if begin else 0 :].splitlines()
    return lines[:REPORT_LINES] + [line for line in lines[REPORT_LINES:] if line.startswith("Base64:")]


def run(target, seconds):
    """Runs one target, prints its line, and returns the inputs that broke it."""
    work, log = os.path.join("tests/fuzz/work", target), os.path.join("tests/fuzz", f"fuzz_{target}.log")
    os.makedirs(work, exist_ok=True)
    before = found_of(target)
    command = [
        os.path.join("tests/fuzz", "fuzz_" + target),
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={SLOWEST_SECONDS}",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix=tests/fuzz/found/{target}-",
    ]
    dictionary = os.path.join(SOURCE, target + ".dict")
    if os.path.exists(dictionary):
        command.append("-dict=" + dictionary)
    start = cpu_seconds()
    with open(log, "w", encoding="utf-8") as output:
        status = subprocess.run(
            command + [work, os.path.join(SOURCE, "corpus", target)], stdout=output, stderr=output, check=False
        ).returncode
    with open(log, encoding="utf-8", errors="replace") as output:
        text = output.read()
    new = sorted(found_of(target) - before)
    print(
        f"{target:<12} {cpu_seconds() - start:7.0f} s CPU {last(r'number_of_executed_units: *([0-9]+)', text):12,} runs"
        f" {last(r' cov: ([0-9]+)', text):6,} edges {len(os.listdir(work)):6,} kept"
        f"   {'ok' if status == 0 else 'BROKEN'}",
        flush=True,
    )
    for name in new:
        print(f"  kept as tests/fuzz/found/{name}; to see it again: tests/fuzz/fuzz_{target} tests/fuzz/found/{name}")
    if status and not new:
        print(f"  no input was kept: see {log}")
    if status:
        print("".join(f"    {line}\n" for line in why(text)), end="", flush=True)
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", help=f"some of: {' '.join(TARGETS)}")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {' '.join(sorted(unknown))}; there are {' '.join(TARGETS)}")
    os.makedirs("tests/fuzz/found", exist_ok=True)
    statuses = [run(target, options.seconds) for target in options.targets or TARGETS]
    return 1 if any(statuses) else 0


if __name__ == "__main__":
    sys.exit(main())
