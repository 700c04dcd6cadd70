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


# --- peers that do not read, or do not end what they say ---


MIB = 1 << 20


def memory(daemon, what="VmRSS"):
    """MiB that freezerd has."""
    with open(f"/proc/{daemon.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith(what))


def watcher(t):
    """A connection that asks for every event 256 times, and has read none of them."""
    one = fz.Control(t.socket)
    for _ in range(OPEN):
        one.require("watch")
    return one


def flip(control, times):
    """So many changes, two events of about 800 bytes each."""
    for i in range(times):
        control.require(("freeze", "unfreeze")[i % 2], patterns=["p0"], reason="x" * 500)


@fz.test("a watch client that does not read is dropped: the log says so, and so does the last line that it gets")
def slow_watcher(t):
    daemon = t.daemon()
    control = daemon.connect()
    t.trainer([(name, 1, 1) for name, _, _ in PARAMS], (0, 10**9), step_us=200, quiet=True)
    control.wait_attached()
    slow, other = watcher(t), daemon.connect()
    other.require("watch")
    while "is dropped" not in daemon.errors():
        flip(control, 4)
        other.require("ping")
    equal(daemon.errors().count("is dropped"), 1, "how often the log says it")
    last, lines = None, 0
    while (line := slow.read_line()) is not None:
        last, lines = line, lines + 1
    check(lines > 10, "nothing came of what it had asked for", lines)
    equal((last["ok"], last["error"]["code"]), (False, "too_many"), f"the last line {last}")
    check("read" in last["error"]["message"], "the reason", last)
    check(other.events and control.require("ping"), "another one is not served any more")


@fz.test("many that do not read take so much memory together and no more, and others are served meanwhile", limit=120)
def slow_watchers(t):
    daemon = t.daemon("--log-level", "warning")
    control = daemon.connect()
    t.trainer([(name, 1, 1) for name, _, _ in PARAMS], (0, 10**9), step_us=200, quiet=True)
    control.wait_attached()
    before = memory(daemon)
    crowd = [watcher(t) for _ in range(48)]
    good = daemon.connect()
    good.require("watch")
    while daemon.errors().count("is dropped") < len(crowd) / 2:
        flip(control, 2)
        equal(good.require("status")["status"]["n_params"], len(PARAMS), "the answer to another one")
    peak = memory(daemon, "VmHWM") - before
    fz.note(f"{len(crowd)} clients that do not read: {peak} MiB at most")
    check(peak < 256 + 64 or fz.is_sanitized(), "they took more than all may", peak)
    check(good.events, "another one is not told any more")
    for one in crowd:
        one.close()


@fz.test("lines that are begun and not ended take so much memory together and no more; when they go, there is room again")
def half_lines(t):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1000:
        raise fz.Skip(f"needs 1000 descriptors, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    daemon = t.daemon("--log-level", "warning")
    control = daemon.connect()
    control.require("ping")
    before, crowd, refused = memory(daemon), [], 0
    part = b'{"id":1,"op":"' + b"x" * (MIB - 1000)
    while not refused and len(crowd) < 600:
        crowd.append(fz.Control(t.socket))
        try:
            crowd[-1].socket.sendall(part)
            control.require("ping")
            crowd[-1].socket.setblocking(False)
            line = crowd[-1].socket.recv(10000)
            check(b"too_many" in line and b"memory" in line, "what it is told", line)
            refused += 1
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            refused += 1
    check(200 < len(crowd) < 300, "lines of a MiB that were kept", len(crowd))
    peak = memory(daemon, "VmHWM") - before
    fz.note(f"{len(crowd)} lines: {peak} MiB at most")
    check(peak < 256 + 64 or fz.is_sanitized(), "they took more than all may", peak)
    for one in crowd:
        one.close()
    extra = fz.Control(t.socket)
    extra.socket.sendall(part + b'"}\n')
    equal(extra.read_line()["error"]["code"], "bad_field", "the answer to such a line when they are gone")


@fz.test("a connection that has sent one long line does not keep the memory for it")
def long_lines(t):
    if fz.is_sanitized():
        raise fz.Skip("a sanitizer keeps what was freed")
    daemon = t.daemon("--log-level", "warning")
    control = daemon.connect()
    control.require("ping")
    before, crowd = memory(daemon), []
    for _ in range(100):
        crowd.append(fz.Control(t.socket))
        crowd[-1].send("x" * (MIB - 1000))
        equal(crowd[-1].read_line()["error"]["code"], "bad_field", "the answer")
    check(memory(daemon) - before < 30, "memory for lines that were answered, in MiB", memory(daemon) - before)


if __name__ == "__main__":
    fz.main()
