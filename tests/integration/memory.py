# memory.py - freezerd while allocations fail at random: it answers, refuses or hangs up, and never dies.
import json
import os
import random
import time

import fz
from fz import check, equal
from rank import WIDE, Rank

LIBRARY = os.path.join(os.environ.get("top_builddir", "."), "tests", ".libs", "libfzfail.so")
RULES = {"version": 1, "rules": [{"freeze": ["re:b|a.b"], "from": {"step": 5}, "until": {"step": 50}}]}
SPARED = "100" # freezerd that cannot start says so and ends: see tests/inject/ for that
PATTERNS = ["a", "b", "**", "re:a", "*.w", "d", "nothing"]
OPS = ["freeze", "unfreeze", "auto", "pin", "unpin", "list", "status", "explain", "is_frozen", "rules_load",
       "rules_unload", "rules_show", "rules_check", "wait", "watch", "runs"]


def request(rng):
    """An operation and its fields."""
    op = rng.choice(OPS)
    fields = {} if op == "runs" else {"run": f"r{rng.randrange(3)}"}
    if op in ("freeze", "unfreeze", "auto", "pin", "unpin", "list", "is_frozen"):
        fields["patterns"] = [rng.choice(PATTERNS)]
    if op in ("freeze", "unfreeze", "pin", "rules_load"):
        fields.update(yes=True, wait_ms=rng.choice((0, 5)))
    if op in ("rules_load", "rules_check"):
        fields["rules"] = RULES
    if op == "explain":
        fields["param"] = "a.w"
    if op == "wait":
        fields.update({"for": "idle", "wait_ms": 5})
    return op, fields


def act(t, rng, ranks):
    """Something that a trainer does."""
    if not ranks or rng.random() < 0.2:
        rank = Rank(t, run=f"r{rng.randrange(3)}", job=f"j{rng.randrange(3)}", params=WIDE,
                    **rng.choice(({}, {"rules": RULES})))
        rank.socket.settimeout(fz.seconds(3))
        if rank.enter()["type"] == "welcome":
            rank.ready(rng.randrange(10))
            ranks.append(rank)
        return
    rank = rng.choice(ranks)
    what = rng.random()
    if what < 0.5:
        rank.send("applied", gen=rng.randrange(20), step=10, epoch=0)
    elif what < 0.7:
        rank.send("step", step=rng.randrange(100), epoch=1)
    elif what < 0.8:
        rank.send("rewind", step=1, epoch=0)
    elif what < 0.9:
        ranks.remove(rank)
        rank.close()


def disturb(t, daemon, seed, duration):
    """Requests and ranks for a while; returns how many requests were answered well."""
    rng, ranks, control, good = random.Random(seed), [], None, 0
    end = time.monotonic() + duration
    while time.monotonic() < end and daemon.alive():
        try:
            act(t, rng, ranks)
            control = control or fz.Control(t.socket, limit=3)
            op, fields = request(rng)
            good += control.ask(op, **fields).get("ok", False)
        except (OSError, KeyError, fz.Failure, json.JSONDecodeError):
            # Hung up on, or told of the lack of memory in a line that names no request: begin again.
            control = None
            ranks = [rank for rank in ranks if rng.random() < 0.8]
    return good


@fz.test("one allocation in 400, 100 and 30 fails: freezerd lives, and ends well")
def failing(t):
    if fz.is_sanitized():
        raise fz.Skip("a sanitizer has an allocator of its own")
    if not os.path.exists(LIBRARY):
        raise fz.Skip(f"there is no {LIBRARY}")
    for seed, rate in enumerate((400, 100, 30)):
        failing = {"LD_PRELOAD": os.path.abspath(LIBRARY), "FZ_FAIL_KIND": "malloc", "FZ_FAIL_RATE": str(rate),
                   "FZ_FAIL_SEED": str(seed), "FZ_FAIL_AT": SPARED}
        daemon = t.daemon("--log-level", "error", env=failing)
        good = disturb(t, daemon, seed, 2)
        fz.note(f"1 in {rate}: {good} requests were answered well")
        check(daemon.alive(), "it died", daemon.popen.poll(), daemon.errors()[-2000:])
        check(good > 10, "nothing worked any more", good)
        for rank in t.__dict__.pop("ranks", []):
            rank.close()
        equal(daemon.terminate(), 0, "exit status")


if __name__ == "__main__":
    fz.main()
