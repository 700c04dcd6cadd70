# rank.py - a trainer that is none: a connection that speaks the wire as a test tells it to.
"""
It says what it likes, when it likes, holds its segment by its descriptor, and never reads a plan: what it "applies" it
only says.
"""

import fcntl
import json
import os
import socket

import fz
from fz import check, equal

PARAMS = [["a.w", 10, True], ["a.b", 2, True], ["b.w", 30, True], ["c.w", 4, False]]
WIDE = [["a.w", 10, True], ["a.b", 2, True], ["b.w", 30, True], ["c.w", 4, False], ["d.w", 500, True]]
FNV_START, FNV_PRIME, ALL = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def fnv(data):
    value = FNV_START
    for byte in data:
        value = (value ^ byte) * FNV_PRIME & ALL
    return f"{value:016x}"


def full(params):
    """Entries of `params`: [name, elements, flag] with both refusals said to be none, unless given."""
    return [p + [True] * (5 - len(p)) for p in params]


def layout(params):
    return fnv(b"".join(p[0].encode() + b"\0" + p[1].to_bytes(8, "little") for p in params))


def baseline(params):
    codes = [b"".join(b"\0" if c is True else c.encode() + b"\0" for c in p[3:]) for p in full(params)]
    return fnv(b"".join(bytes([p[2]]) + code for p, code in zip(params, codes)))


class Rank:
    """One rank's connection."""

    def __init__(self, t, run="run", rank=0, world=1, job="job", attempt=0, params=None, pid=None, **more):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(fz.seconds(10))
        self.socket.connect(t.socket)
        self.params = params if params is not None else PARAMS
        self.pid = pid or 1000 + rank
        self.rank = rank
        self.fds = []
        self.said = []
        t.__dict__.setdefault("ranks", []).append(self)  # lives as long as the scene, unless it is closed
        self._rest = b""
        hello = dict(protocol=1, run=run, framework="wire", job=job, attempt=attempt, rank=rank, world=world,
                     pid=self.pid, n_params=len(self.params), layout=layout(self.params),
                     baseline=baseline(self.params))
        self.send("hello", **{**hello, **more})

    def send(self, kind, fds=(), **fields):
        line = json.dumps({"type": kind, **fields}).encode() + b"\n"
        if fds:
            socket.send_fds(self.socket, [line], list(fds))
        else:
            self.socket.sendall(line)

    def line(self):
        """The next message, None at the end."""
        while b"\n" not in self._rest:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 1 << 16, 4)
            except ConnectionResetError:
                return None
            self.fds += fds
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def expect(self, *kinds):
        """The next message of one of these kinds; others are kept in `said`."""
        while True:
            message = self.line()
            check(message is not None, f"the connection ended, no {kinds}", self.said)
            if message["type"] in kinds:
                return message
            self.said.append(message)

    def enter(self):
        """To the welcome, with its parameters if they are asked for; or to the error."""
        message = self.expect("need", "welcome", "error")
        if message["type"] == "need":
            self.send("params", first=0, params=full(self.params))
            message = self.expect("welcome", "error")
        if message["type"] == "welcome":
            self.welcome = message
        return message

    def ready(self, step=0, epoch=0):
        self.send("ready", step=step, epoch=epoch)
        return self.expect("subscribe")

    def attach(self, step=0, epoch=0):
        message = self.enter()
        equal(message["type"], "welcome", f"what hello led to ({message})")
        self.ready(step, epoch)
        return message

    def lock(self):
        """Marks this process as alive in the segment that came last."""
        fcntl.lockf(self.fds[-1], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.rank)

    def close(self, keep_fds=False):
        self.socket.close()
        for fd in [] if keep_fds else self.fds:
            os.close(fd)
        if not keep_fds:
            self.fds = []


def run_of(control, name="run"):
    return next((r for r in control.require("runs")["runs"] if r["name"] == name), None)


def applied(rank, gen, step, epoch=0):
    rank.send("applied", gen=gen, step=step, epoch=epoch)


def settle(control):
    """Whatever was sent to freezerd before by others has been read when this returns, on a daemon of one thread."""
    for _ in range(3):
        control.require("ping")
