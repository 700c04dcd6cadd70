#!/usr/bin/env python3
# inject.py - each call that can fail fails once, one after the other, in freezerd and in a rank; see story.py for what must hold.
"""
usage: inject.py [ALL=1 | CASE='VICTIM KIND N ERROR'] [VICTIM=NAME] [KIND=NAME] [SEED=N] [JOBS=N]

First the story is told without a failure, and libfzfail.so counts its victim's calls of each kind; then it is told again
for each of them, with that call failing. ALL=1 leaves none out, which takes some minutes; otherwise each way in which a
kind can fail has its turn in each victim, and some more allocations, chosen by the seed, which is printed. A case that
fails is printed with the place of its call, as words for CASE, which repeats it. How processes are scheduled is no part
of a case: its call may be another one the next time, or none.

VICTIM: starting (a freezerd with a rules file that only starts), freezerd, successor (which takes over from it), rank.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import fz  # noqa: E402
from story import FIRST, LIBRARY, RANK, SECOND, STARTING, Fault, Story  # noqa: E402

ERRORS = {
    "malloc": ["ENOMEM"],
    "open": ["EMFILE", "EIO"],
    "shm_open": ["EMFILE", "ENOSPC"],
    "opendir": ["EMFILE"],
    "read": ["EIO", "half"],
    "write": ["ENOSPC", "EIO", "EINTR", "half"],
    "fsync": ["EIO", "ENOSPC"],
    "close": ["EIO"],
    "rename": ["EIO", "ENOSPC"],
    "link": ["EMLINK"],
    "unlink": ["EIO"],
    "mkdir": ["ENOSPC"],
    "stat": ["EIO"],
    "realpath": ["EIO"],
    "truncate": ["EIO"],
    "fallocate": ["ENOSPC", "EINTR"],
    "mmap": ["ENOMEM"],
    "fcntl": ["EMFILE", "ENOLCK"],
    "flock": ["ENOLCK"],
    "socket": ["EMFILE"],
    "connect": ["ECONNREFUSED", "EAGAIN"],
    "bind": ["EADDRINUSE", "ENOSPC"],
    "listen": ["EADDRINUSE"],
    "accept": ["EMFILE", "ECONNABORTED", "ENOMEM", "EINTR"],
    "send": ["EAGAIN", "ENOBUFS", "EPIPE", "EINTR", "half"],
    "recv": ["EAGAIN", "ECONNRESET", "ENOMEM", "EINTR", "half"],
    "getsockopt": ["ENOBUFS"],
}
TWICE = [("fsync", "EIO"), ("rename", "EIO"), ("write", "ENOSPC"), ("accept", "EMFILE")] # and what mends it, too
MORE_ALLOCATIONS = 10 # of each victim, in a sample
LIMIT = 60


def tell(fault):
    """
    Tells one story. Returns the report, None if there is none; what is wrong, or None; and whether the memory that is
    left says something: freezerd that fails in its start ends at once, and libfyaml leaves some when it has too little.
    """
    scene = fz.Scene()
    story = Story(scene, fault)
    wrong = None
    signal.signal(signal.SIGALRM, fz._on_alarm)
    signal.alarm(fz.seconds(LIMIT))
    try:
        story.tell()
    except fz.Failure as failure:
        wrong = str(failure)
    except Exception:
        wrong = traceback.format_exc()
    signal.alarm(0)
    try:
        report = story.report()
    except OSError:
        report, wrong = None, wrong or f"{LIBRARY} was not loaded"
    scene.destroy()
    for name in story.segments():
        os.unlink("/dev/shm/" + name)
    return report, wrong, not story.never_started


def tell_case(work):
    """One case, in a process of the pool: (fault, whether its call failed, what is wrong, how long it took)."""
    fault, live = work
    began = time.monotonic()
    report, wrong, started = tell(fault)
    if report and not wrong and started and report.live is not None and report.live > live:
        wrong = f"{report.live - live} blocks of memory were left"
    if wrong and report and report.trace:
        wrong += "\nthe call that failed:\n" + report.where()
    return fault, bool(report and report.failed), wrong, time.monotonic() - began


def count(victim):
    """Calls of each kind in a story without a failure, and the blocks of memory that it leaves."""
    calls, live = {}, 0
    for at in (1, 2): # with either end of the first freezerd
        report, wrong, _ = tell(Fault(victim, at=at))
        fz.check(not wrong, f"the story of {victim} without a failure\n{wrong}")
        for kind, n in report.calls.items():
            calls[kind] = max(calls.get(kind, 0), n)
        live = live if report.live is None else max(live, report.live)
    fz.note(f"{victim}: " + ", ".join(f"{n} {kind}" for kind, n in calls.items() if n))
    return calls, live


def cases(victim, calls, options, rng):
    """The faults to tell of."""
    found = []
    for kind, n in calls.items():
        if not n or options.get("KIND", kind) != kind or (kind == "malloc" and fz.is_sanitized()):
            continue
        ways = [(error, 1) for error in ERRORS[kind]] + [(error, 2) for of, error in TWICE if of == kind]
        if "ALL" not in options and fz.is_sanitized():
            ways = [rng.choice(ways)] # a story takes several times as long
        for error, times in ways:
            chosen = range(1, n + 1)
            if "ALL" not in options:
                chosen = rng.sample(chosen, min(n, MORE_ALLOCATIONS if kind == "malloc" else 1))
            found += [Fault(victim, kind, at, error, times) for at in chosen]
    return found


def sweep(victim, options, rng):
    calls, live = count(victim)
    work = [(fault, live) for fault in cases(victim, calls, options, rng)]
    rng.shuffle(work)
    began, failed, told, wrong, longest = time.monotonic(), 0, 0, [], (0, None)
    with multiprocessing.Pool(int(options.get("JOBS", 8))) as pool:
        for fault, did_fail, text, took in pool.imap_unordered(tell_case, work):
            failed += did_fail
            told += 1
            longest = max(longest, (took, str(fault)))
            if text:
                wrong.append(fault)
                fz.note(f"CASE='{fault}'\n{text}")
            if told % 500 == 0:
                fz.note(f"{told} of {len(work)}, {time.monotonic() - began:.0f} s")
    fz.note(f"{victim}: {len(work)} stories, in {failed} of them the call was made and failed, "
            f"{time.monotonic() - began:.0f} s; the longest took {longest[0]:.1f} s: {longest[1]}")
    fz.check(not wrong, f"{len(wrong)} of {len(work)} stories ended badly", *map(str, wrong))
    fz.check(failed > len(work) / 2, "hardly a call failed")


def one_case(words):
    victim, kind, at, error, *times = words.split()
    fault = Fault(victim, kind, int(at), error, int(times[0][1:]) if times else 1)
    _, did_fail, wrong, _ = tell_case((fault, count(victim)[1]))
    fz.note("the call failed" if did_fail else "the call was not made")
    fz.check(not wrong, wrong)


def main():
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word and word[-1] != "=")
    seed = int(options.get("SEED", 1))
    del sys.argv[1:]

    if "CASE" in options:
        fz.test(options["CASE"])(lambda scene: one_case(options["CASE"]))
        fz.main()
    fz.note(f"SEED={seed}")
    for victim in (STARTING, FIRST, SECOND, RANK):
        if options.get("VICTIM", victim) == victim:
            title = "all calls" if "ALL" in options else "some calls of each kind"
            fz.test(f"{title} of {victim} fail, once each: no crash, no lie, no harm to training, nothing is left",
                    limit=7200)(lambda scene, victim=victim: sweep(victim, options, random.Random(f"{seed} {victim}")))
    fz.main()


if __name__ == "__main__":
    main()
