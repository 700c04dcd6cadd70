# quotas.py - what a peer can make freezerd keep is limited, and what is over a limit is refused with a sentence.
"""
The numbers are those of protocol/limits.h. Limits of single messages have unit tests; these are the ones that add up.
"""
import resource

import fz
from fz import check, equal
from rank import Rank

CONNECTIONS, PINS, PENDING, OPEN = 4096, 1024, 1024, 256
PARAMS = [[f"p{i}.w", 1, True] for i in range(1100)]


@fz.test("connections: one more than there may be is told so; when one goes, the next is served")
def connections(t):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CONNECTIONS + 100:
        raise fz.Skip(f"needs {CONNECTIONS + 100} descriptors, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (CONNECTIONS + 100, hard))
    control = t.daemon().connect()
    control.require("ping")
    crowd = [fz.Control(t.socket) for _ in range(CONNECTIONS - 1)]
    crowd[-1].require("ping")
    extra = fz.Control(t.socket)
    error = extra.read_line()
    equal((error["error"]["code"], error["type"], error["close"]), ("too_many", "error", True), f"one more {error}")
    check(extra.read_line() is None, "the connection goes on")
    control.require("ping")
    crowd.pop().close()

    def served():
        one = fz.Control(t.socket)
        one.send("ping")
        return (one.read_line() or {}).get("ok")

    fz.wait_until(served, "served again")


@fz.test("changes that wait for a rank: one more than there may be is refused, those before stand")
def pending(t):
    control = t.daemon("--state-dir", "none").connect()
    Rank(t, params=PARAMS).attach()
    for i in range(PENDING):
        control.require("pin" if i % 2 else "freeze", patterns=[f"p{i}"], yes=True)
    error = control.ask("freeze", patterns=["p1050"], yes=True)["error"]
    equal(error["code"], "too_many", f"one more change that waits {error}")
    check(str(PENDING) in error["message"], "the limit", error)
    equal(control.require("status")["status"]["pending"], PENDING, "what waits")


@fz.test("pins: one more than there may be is refused; when one goes, there is room again")
def pins(t):
    control = t.daemon("--state-dir", "none").connect()
    t.trainer([(name, 1, 1) for name, _, _ in PARAMS], (0, 10**9), step_us=200, quiet=True)
    control.wait_attached()
    for i in range(PINS):
        control.change("pin", f"p{i}")
    error = control.ask("pin", patterns=["p1050"], yes=True)["error"]
    equal(error["code"], "too_many", f"one more pin {error}")
    control.change("unpin", "p7")
    control.change("pin", "p1050")


@fz.test("requests of one client that wait: one more than there may be is refused, and the others still answered")
def waits(t):
    control = t.daemon().connect()
    Rank(t, params=PARAMS[:3]).attach()
    numbers = [control.send("wait", **{"for": "step"}, step=50, wait_ms=1000) for _ in range(OPEN)]
    error = control.ask("wait", **{"for": "step"}, step=50, wait_ms=1000)["error"]
    equal(error["code"], "too_many", f"one more {error}")
    for number in numbers:
        equal(control.answer(number)["met"], False, "a wait that ran out")


if __name__ == "__main__":
    fz.main()
