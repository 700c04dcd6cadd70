# server.py - freezerd as a server: one per socket, readiness, an orderly end, and whatever comes in over the socket.
import json
import os
import random
import signal
import socket
import stat

import fz
from fz import check, equal

FOREVER = 10**9
PARAMS = [("a.weight", 10, 1), ("a.bias", 1, 1), ("b.weight", 10, 1)]


def segment_of(trainer):
    """The segment that a trainer has mapped; others' segments in /dev/shm are no business of these tests."""
    found = fz.mapped_segments(trainer.pid)
    equal(len(found), 1, "segments that a trainer has mapped")
    return found.pop()


@fz.test("two daemons on one socket: the second says so and ends, the first goes on")
def two_daemons(t):
    first = t.daemon()
    second = t.daemon(wait_ready=False)
    check(second.wait() != 0, "a second daemon ran")
    check(t.socket in second.errors() and str(first.pid) in second.errors(), "its message names socket and pid",
          second.errors())
    equal(first.connect().require("ping")["pid"], first.pid, "who answers")


@fz.test("a stale socket is taken over")
def stale_socket(t):
    t.daemon().kill()
    check(os.path.exists(t.socket), "no stale socket to test with")
    again = t.daemon()
    equal(again.connect().require("ping")["pid"], again.pid, "who answers")


@fz.test("the socket is 0600, its folder below XDG_RUNTIME_DIR 0700; trainers and freezerctl find it there")
def default_socket(t):
    runtime = t.path("run")
    os.mkdir(runtime, 0o700)
    t.env.pop("FREEZER_SOCKET")
    t.env["XDG_RUNTIME_DIR"] = runtime
    t.socket = os.path.join(runtime, "freezer", "freezerd.sock")
    daemon = fz.Daemon(t, "freezerd", "--state-dir", "none")
    equal(stat.S_IMODE(os.stat(t.socket).st_mode), 0o600, "mode of the socket")
    equal(stat.S_IMODE(os.stat(os.path.dirname(t.socket)).st_mode), 0o700, "mode of its folder")
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    daemon.connect().wait_attached()
    equal(t.ctl_json("ping")["socket"], t.socket, "the socket that freezerctl found")


def orderly_end(t, number):
    daemon = t.daemon()
    gone = t.trainer(PARAMS, (0, FOREVER), run="gone", step_us=300)
    stays = t.trainer(PARAMS, (0, FOREVER), run="stays", step_us=300)
    control = daemon.connect()
    for run in ("gone", "stays"):
        control.wait_attached(run)
    left, kept = segment_of(gone), segment_of(stays)
    check(left != kept, "two runs with one segment", left)
    equal(gone.terminate(), 0, "exit status of a trainer")
    control.require("wait", run="gone", **{"for": "detached"}, wait_ms=int(fz.seconds(10) * 1000))
    daemon.signal(number)
    equal(daemon.wait(2), 0, "exit status")
    check(not os.path.exists(t.socket), "the socket is left")
    check(not os.path.exists(left), "the segment of a run that has ended is left")
    check(os.path.exists(kept), "the segment of a rank that lives is gone")
    stays.wait_step(stays.step() + 200)

    daemon = t.daemon()
    daemon.connect().wait_attached("stays")
    equal(stays.terminate(), 0, "exit status of a trainer")
    daemon.connect().require("wait", run="stays", **{"for": "detached"}, wait_ms=int(fz.seconds(10) * 1000))
    equal(daemon.terminate(), 0, "exit status")
    check(not os.path.exists(kept), "a segment is left after the last rank")


@fz.test("SIGTERM: exit 0 within a second, no socket and no segment left, trainers train on")
def sigterm(t):
    orderly_end(t, signal.SIGTERM)


@fz.test("SIGINT: the same")
def sigint(t):
    orderly_end(t, signal.SIGINT)


def rules_file(t, pattern):
    return t.write("rules.yaml", f"version: 1\nrules:\n  - freeze: [{pattern}]\n")


@fz.test("SIGHUP: the rules file is read again, for runs that begin from then on; with an error in it the old rules stay")
def sighup(t):
    daemon = t.daemon("--rules", rules_file(t, "a.weight"))
    control = daemon.connect()

    def again(words):
        before = daemon.errors().count("SIGHUP")
        daemon.signal(signal.SIGHUP)
        fz.wait_until(lambda: daemon.errors().count("SIGHUP") > before, "a word about SIGHUP")
        check(words in daemon.errors(), f"no '{words}' in the log", daemon.errors())

    def mask_of(run, want):
        rank = t.trainer(PARAMS, (0, FOREVER), run=run, step_us=300)
        equal(rank.wait_gen(1)[3], want, f"mask of {run}")
        return rank

    first = mask_of("first", "011")
    rules_file(t, "b")
    again("read " + t.path("rules.yaml"))
    mask_of("second", "110")
    equal(first.wait_step(first.step() + 50)[3], "011", "mask of a run that was there before")
    t.write("rules.yaml", "version: 1\nrules:\n  - frieze: [a]\n")
    again("stay as they were")
    check("rules.yaml:3:5" in daemon.errors(), "the place of the error", daemon.errors())
    mask_of("third", "110")
    os.unlink(t.path("rules.yaml"))
    again("No such file")
    mask_of("fourth", "110")
    equal(first.terminate(), 0, "exit status")
    control.require("wait", run="first", **{"for": "detached"}, wait_ms=int(fz.seconds(10) * 1000))
    mask_of("first", "110")
    daemon.terminate()
    daemon = t.daemon("--state-dir", "none")
    again("no --rules file")
    daemon.connect().require("ping")


@fz.test("readiness: --ready-fd, sd_notify, STOPPING at the end")
def readiness(t):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(t.path("notify"))
        notify.settimeout(fz.seconds(10))
        daemon = t.daemon(env={"NOTIFY_SOCKET": t.path("notify")})
        check(daemon.ready_text.endswith(b"\n"), "what --ready-fd got", daemon.ready_text)
        daemon.connect().require("ping")
        text = notify.recv(4096).decode()
        check("READY=1" in text.splitlines(), "the first message of sd_notify", text)
        daemon.signal(signal.SIGTERM)
        while "STOPPING=1" not in text.splitlines():
            text = notify.recv(4096).decode()
        equal(daemon.wait(), 0, "exit status")


@fz.test("socket activation: the listening socket comes as descriptor 3")
def activation(t):
    t.env.pop("FREEZER_SOCKET")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(t.socket)
        listener.listen(16)
        os.set_inheritable(listener.fileno(), True)
        script = f'unset FREEZER_SOCKET; exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --state-dir none'
        daemon = fz.Process(t, "activated", ["/bin/sh", "-c", script, fz.FREEZERD], pass_fds=(listener.fileno(),))
        equal(fz.Control(t.socket).require("ping")["pid"], daemon.pid, "who answers")
    equal(daemon.terminate(), 0, "exit status")
    check(os.path.exists(t.socket), "it removed a socket that is not its own")


@fz.test("a rules file with an error stops freezerd at start, with file, line and column")
def bad_rules(t):
    rules = t.write("slip.yaml", "version: 1\nrules:\n  - freeze: [a]\n    form: {step: 3}\n")
    daemon = t.daemon("--rules", rules, wait_ready=False)
    check(daemon.wait() != 0, "it started with broken rules")
    check("slip.yaml:4:5" in daemon.errors(), "the place of the error", daemon.errors())
    check(not os.path.exists(t.socket), "a socket is left")


@fz.test("--rules that do not fit a run: no rules for it, said in log, status and the trainer's notice")
def unfit_rules(t):
    daemon = t.daemon("--rules", t.write("rules.yaml", "version: 1\nrules:\n  - freeze: [nowhere]\n"))
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control = daemon.connect()
    control.wait_attached()
    equal(rank.wait_gen(1)[3], "111", "mask")
    status = control.require("status")["status"]
    check(any("nowhere" in text for text in status["warnings"]), "the warning of status", status["warnings"])
    check("nowhere" in daemon.errors(), "freezerd's log", daemon.errors())
    fz.wait_until(lambda: "nowhere" in rank.errors(), "the notice in the trainer's log")


# --- what comes in ---


class Raw:
    """A connection that sends what no client would."""

    def __init__(self, t):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(fz.seconds(20))
        self.socket.connect(t.socket)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # freezerd may have closed it, which is its right

    def to_end(self):
        """Everything until freezerd closes."""
        data = b""
        while True:
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                raise fz.Failure("freezerd kept a connection that it should have closed") from None
            except OSError:
                return data
            if not more:
                return data
            data += more

    def line(self):
        data = b""
        while not data.endswith(b"\n"):
            more = self.socket.recv(1)
            if not more:
                raise fz.Failure(f"freezerd closed instead of answering; it said {data!r}")
            data += more
        return json.loads(data)

    def close(self):
        self.socket.close()


PING = b'{"id":1,"protocol":1,"op":"ping"}\n'
BREAKS = {
    "binary": bytes(range(256)) + b"\n",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an array": b"[1]\n",
    "a string": b'"x"\n',
    "text behind": b'{"id":1,"op":"ping"} x\n',
    "a doubled key": b'{"id":1,"op":"ping","op":"ping"}\n',
    "bad UTF-8": b'{"id":1,"op":"ping","run":"\xff"}\n',
    "a byte order mark": b'\xef\xbb\xbf{"id":1,"op":"ping"}\n',
    "a raw control character": b'{"id":1,"op":"pi\x01ng"}\n',
    "deep nesting": b'{"id":1,"op":"ping","x":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
    "half an object": b'{"id":1,"op"\n',
    "NUL bytes": b"\0" * 100 + b"\n",
}
GOES_ON = {
    "no op": (b'{"id":1}\n', "bad_field"),
    "an unknown op": (b'{"id":1,"op":"explode"}\n', "unknown_op"),
    "id of the wrong type": (b'{"id":"1","op":"ping"}\n', "bad_field"),
    "patterns of the wrong type": (b'{"id":1,"op":"freeze","patterns":"a"}\n', "bad_field"),
    "no pattern": (b'{"id":1,"op":"freeze","patterns":[]}\n', "bad_field"),
    "a step out of range": (b'{"id":1,"op":"freeze","patterns":["a"],"until_step":1e30}\n', "bad_field"),
    "a bad pattern": (b'{"id":1,"op":"freeze","patterns":["re:("]}\n', "bad_pattern"),
}


@fz.test("garbage, half and oversized lines, slow and idle peers: freezerd answers, closes or ignores, and serves others",
         limit=120)
def garbage(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control = daemon.connect()
    control.wait_attached()
    rng = random.Random(13)
    idle = [Raw(t) for _ in range(50)]
    half = Raw(t)
    half.send(PING[:20])

    for name, data in BREAKS.items():
        raw = Raw(t)
        raw.send(data + PING)
        said = raw.to_end().splitlines()
        check(len(said) == 1, f"{name}: one error and the end", said)
        check(json.loads(said[0])["error"]["message"], name)
        control.require("ping")
    for name, (data, code) in GOES_ON.items():
        raw = Raw(t)
        raw.send(PING)
        check(raw.line()["ok"], f"before {name}")
        raw.send(data)
        equal(raw.line()["error"]["code"], code, name)
        raw.send(PING)
        check(raw.line()["ok"], f"after {name}")
        raw.close()

    oversized = Raw(t)
    oversized.send(b'{"id":1,"op":"ping","x":"' + b"y" * (3 << 20) + b'"}\n')
    check(b"error" in oversized.to_end(), "an oversized line")
    slow = Raw(t)
    for byte in PING:
        slow.send(bytes([byte]))
        control.require("ping")
    check(slow.line()["ok"], "a ping byte by byte")
    many = Raw(t)
    many.send(PING * 500)
    for _ in range(500):
        check(many.line()["ok"], "500 pings in one go")
    for _ in range(200):
        raw = Raw(t)
        raw.send(bytes(rng.choice(b'{}[]":,0123456789.eE-\\u\n "abcdefop') for _ in range(rng.randint(1, 400))))
        raw.close()
    half.send(PING[20:])
    check(half.line()["ok"], "the second half of a line after all that")

    step = control.change("freeze", "b")["step"]
    equal(rank.wait_step(step)[3], "110", "mask")
    for raw in idle:
        raw.close()


HELLO = {"type": "hello", "protocol": 1, "run": "bad", "framework": "x", "job": "j", "attempt": 0, "rank": 0, "world": 1,
         "pid": 1, "n_params": 2, "layout": "0" * 16, "baseline": "0" * 16}


@fz.test("trainers that break the protocol: an error, and nothing of them is left")
def bad_trainers(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control = daemon.connect()
    control.wait_attached()
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))

    def talk(*messages):
        raw = Raw(t)
        for message in messages:
            raw.send(json.dumps(message).encode() + b"\n")
        first = raw.line()
        raw.close()
        return first

    for key in sorted(HELLO.keys() - {"type", "protocol"}):
        without = {k: v for k, v in HELLO.items() if k != key}
        answer = talk(without)
        check(answer["type"] == "error" and key in answer["error"]["message"], f"hello without {key}", answer)
    answer = talk({**HELLO, "protocol": 2})
    equal((answer["error"]["code"], answer["protocol"]), ("protocol", 1), "another protocol")
    equal(talk({**HELLO, "rank": 5})["type"], "error", "rank beyond world")
    equal(talk({"type": "step", "step": 1, "epoch": 0})["error"]["code"], "unexpected", "step before hello")
    equal(talk({**HELLO, "n_params": 5 << 20})["type"], "error", "too many parameters")
    equal(talk(HELLO)["type"], "need", "a good hello")
    for params in ([["a", 1, True, True, True], ["a", 1, True, True, True]], [["", 1, True, True, True]] * 2,
                   [["a", -1, True, True, True], ["b", 1, True, True, True]], [["a", 1, True, True, True]] * 3,
                   [["a", 1, True, True, "lower"], ["b", 1, True, True, True]], [[1, 2], 3]):
        raw = Raw(t)
        raw.send(json.dumps(HELLO).encode() + b"\n")
        equal(raw.line()["type"], "need", "the answer to hello")
        raw.send(json.dumps({"type": "params", "first": 0, "params": params}).encode() + b"\n")
        equal(raw.line()["type"], "error", f"params {params}")
        raw.close()
    raw = Raw(t)
    raw.send(json.dumps(HELLO).encode() + b"\n")
    raw.line()
    raw.send(json.dumps({"type": "params", "first": 0, "params": [["a", 1, True, True, True], ["b", 1, True, True, True]]}
                        ).encode() + b"\n")
    check("announced" in raw.line()["error"]["message"], "parameters that do not have the announced hash")
    raw.close()

    fz.wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before, "the descriptors of closed connections")
    equal([r["name"] for r in control.require("runs")["runs"] if r["live"]], ["run"], "runs that live")
    step = control.change("freeze", "b", run="run")["step"]
    equal(rank.wait_step(step)[3], "110", "mask")


@fz.test("a client that does not read its answers is dropped, the others are served")
def does_not_read(t):
    daemon = t.daemon()
    t.trainer([(f"layer.{i}.weight", 1, 1) for i in range(20000)], (0, FOREVER), step_us=5000, run="wide")
    control = daemon.connect()
    control.wait_attached()
    deaf = Raw(t)
    deaf.socket.setblocking(False)
    request = b'{"id":1,"op":"list","patterns":["**"]}\n'
    sent = 0
    while sent < 200:
        try:
            deaf.socket.send(request)
            sent += 1
        except BlockingIOError:
            break
        except OSError:
            break
        control.require("ping")
    control.require("ping")
    with open(f"/proc/{daemon.pid}/status", encoding="utf-8") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    check(rss < 256 * 1024 or fz.is_sanitized(), "freezerd's memory in KiB", rss)


if __name__ == "__main__":
    fz.main()
