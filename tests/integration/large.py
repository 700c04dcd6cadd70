# large.py - a model of a million parameters attaches, and freezes live.
import json
import os
import time

import fz
from fz import check, equal
from rank import Rank

COUNT = 1_000_000
BLOCKS = 1000
PARAMS_MAX = 4 * 1024 * 1024  # FZ_PARAMS_MAX of protocol/limits.h


def available_mib():
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        values = {line.split(":")[0]: int(line.split()[1]) for line in meminfo}
    return values["MemAvailable"] // 1024


def size_of(process, what="VmHWM"):
    """MiB that a process has had at most."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith(what))


def cpu_of(process):
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@fz.test("a million parameters: attach, freeze by name, by glob and by a list, and train on", limit=90)
def million(t):
    if available_mib() < 3000:
        raise fz.Skip(f"needs 3000 MiB of memory, {available_mib()} are available")
    names = [f"model.blocks.{i // BLOCKS}.experts.{i % BLOCKS}.weight" for i in range(COUNT)]
    daemon = t.daemon()
    control = daemon.connect()
    t.params_file(names)
    began = time.monotonic()
    rank = t.trainer(names, (0, 10**9), run="moe", step_us=2000, attach_timeout_ms=int(fz.seconds(30) * 1000), quiet=True)
    control.wait_attached()
    took = time.monotonic() - began
    fz.note(f"attached after {took:.1f} s; freezerd {cpu_of(daemon):.1f} s of CPU, {size_of(daemon)} MiB; "
            f"trainer {cpu_of(rank):.1f} s of CPU, {size_of(rank)} MiB")
    check(size_of(daemon) < 400 or fz.is_sanitized(), "memory of freezerd for a million parameters", size_of(daemon))
    for patterns, changed in ((["model.blocks.7"], BLOCKS), (["model.blocks.*.experts.13.weight"], BLOCKS - 1),
                              ([f"model.blocks.{i}" for i in range(300, 700)], 400 * (BLOCKS - 1))):
        answer = control.change("freeze", *patterns, yes=True)
        check(answer["applied"], "not applied", answer)
        equal(answer["changed"], changed, f"parameters frozen by {patterns[0]}…")
    equal(control.require("is_frozen", patterns=["model.blocks.{300..699}"])["all"], True, "is_frozen")
    summary = control.require("status")["status"]
    equal(summary["trainable_params"], COUNT - BLOCKS - (BLOCKS - 1) - 400 * (BLOCKS - 1), "trainable parameters")
    explained = control.require("explain", param=names[7 * BLOCKS])
    equal(explained["state"], "frozen", "state")
    check(rank.alive(), "the trainer died")


@fz.test("trainers that stop in the middle of their lists: their memory is counted together, and bounded", limit=120)
def half_registered(t):
    if available_mib() < 4000:
        raise fz.Skip(f"needs 4000 MiB of memory, {available_mib()} are available")
    control = t.daemon().connect()
    chunk, mib = 250, 1 << 20
    entries = json.dumps([["x" * 4090, 1, True, True, True]] * chunk)

    def fill(rank, chunks):
        """Sends so many MiB of names, or fewer if it is refused; returns the refusal."""
        rank.expect("need")
        for first in range(0, chunks * chunk, chunk):
            line = f'{{"type":"params","first":{first},"params":{entries}}}\n'.encode()
            try:
                rank.socket.sendall(line)
            except OSError:
                break
        return rank.line() if chunks > 500 else None

    many = [["x", 1, True]] * (510 * chunk)
    halves = [Rank(t, run=f"half{i}", params=many) for i in range(3)]
    for rank in halves[:2]:
        fill(rank, 500)
    error = fill(halves[2], 501)["error"]
    equal(error["code"], "too_many", "code")
    check("1024 MiB" in error["message"], "the limit", error)
    control.require("ping")
    halves[0].close()
    Rank(t, run="small").attach()
    pid = control.require("ping")["pid"]
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) * 1024 // mib for line in status if line.startswith("VmHWM"))
    fz.note(f"freezerd's largest size: {peak} MiB")
    check(peak < 1500 or fz.is_sanitized(), "freezerd kept more than it counted", peak)


@fz.test("as many parameters as there may be are asked for; one more is refused, and the connection goes on")
def most(t):
    daemon = t.daemon()
    for count, kind in ((PARAMS_MAX, "need"), (PARAMS_MAX + 1, "error")):
        rank = Rank(t, run=f"of{count}", params=[["x", 1, True]], n_params=count)
        message = rank.expect("need", "error")
        equal(message["type"], kind, f"the answer to {count} parameters {message}")
    check("n_params" in message["error"]["message"] and not message["close"], "the field", message)
    daemon.connect().require("ping")


if __name__ == "__main__":
    fz.main()
