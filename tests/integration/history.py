# history.py - the history of a run: nothing confirmed is lost, whenever freezerd is killed; revert; what cannot be written.
import json
import os
import random
import resource
import subprocess
import sys
import time

import fz
from fz import check, equal
from rank import Rank, settle

FOREVER = 10**9
NAMES = [f"layer.{i}.{part}" for i in range(8) for part in ("weight", "bias")]
PARAMS = [(name, 10, 1) for name in NAMES] + [("head", 10, 1)]
KILLS = int(os.environ.get("FZ_KILLS") or 25)


def folder_of(t):
    return next(e.path for e in os.scandir(t.state_dir) if e.is_dir())


def history_path(t):
    return os.path.join(folder_of(t), "history.ndjson")


def lines(t):
    with open(history_path(t), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def entries(control):
    return control.require("history")["history"]


def frozen(control):
    return {p["name"] for p in control.require("list")["params"] if p["state"] == "frozen"}


def told(entry):
    return (entry["action"], entry["gen"], entry["state"], entry["froze"], entry["unfroze"])


@fz.test("history: each change with who, why, when and what became of it; freezerctl history")
def history(t):
    control = t.daemon().connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    step = control.change("freeze", "layer.3", by={"user": "ana", "host": "gpu07"}, reason="plateau")["step"]
    control.change("pin", "head", value="training")
    control.change("auto", "layer.3")
    fz.wait_until(lambda: entries(control)[0]["state"] == "applied", "the last change is applied")
    got = entries(control)
    equal([told(e) for e in got], [("auto", 4, "applied", 0, 2), ("pin", 3, "applied", 0, 0),
                                   ("freeze", 2, "applied", 2, 0), ("attached", 1, "applied", 0, 0)], "the history")
    entry = got[2]
    equal((entry["by"], entry["uid"], entry["reason"], entry["step"], entry["patterns"]),
          ("ana@gpu07", os.getuid(), "plateau", step, ["layer.3"]), "who, why, when")
    equal((entry["trainable"], entry["elements"]), (150, 170), "the share that trains")
    shown = t.ctl("history").out.splitlines()
    equal(shown[0].split(), ["GEN", "STEP", "TIME", "CHANGE", "TRAINABLE", "BY"], "the head of the table")
    check("froze layer.3 (2)" in shown[3] and 'ana@gpu07 "plateau"' in shown[3], "the row of the freeze", shown)
    plain = t.ctl("history", "--plain", "--limit", "1").out.split("\t")
    equal((plain[0], len(plain)), ("4", 6), "--plain")
    data = t.ctl_json("history", "--limit", "2")
    equal((data["schema"], len(data["history"]), data["more"]), ("freezer.history/1", 2, True), "--json")


@fz.test("history: what a rule does is a row of its own that names the rule")
def flips(t):
    rules = {"version": 1, "rules": [{"name": "warm-up (short)", "freeze": ["layer.1"], "from": {"step": 40},
                                      "until": {"step": 80}}]}
    control = t.daemon("--rules", t.write("rules.json", json.dumps(rules))).connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    fz.wait_until(lambda: len(control.require("history")["history"]) == 3 if control.ask("history")["ok"] else False,
                  "both flips are told")
    rows = [line.split(None, 3) for line in t.ctl("history").out.splitlines()[1:]]
    equal([(row[0], row[1]) for row in rows], [("1", "80"), ("1", "40"), ("1", "0")], "gens and steps")
    check(rows[0][3].startswith("unfroze layer.1 (2)") and rows[0][3].endswith("rule warm-up (short) ends"), "end", rows)
    check(rows[1][3].startswith("froze layer.1 (2)") and rows[1][3].endswith("rule warm-up (short) begins"), "begin", rows)


@fz.test("revert: to a gen, to before the last change, twice, over a restart; -n; what is asked about")
def revert(t):
    daemon = t.daemon()
    control = daemon.connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    control.change("freeze", "layer.1")  # gen 2
    control.change("rules_load", rules={"version": 1, "rules": [{"freeze": ["layer.2"]}]}, source="r.yaml")  # gen 3
    control.change("pin", "layer.3.bias", value="frozen")  # gen 4
    at = {4: frozen(control)}
    control.change("auto", "layer.1")  # gen 5
    control.change("unpin", "layer.3.bias")  # gen 6
    equal(t.ctl("revert", "4").status, 6, "more than one change needs -y")
    dry = t.ctl("revert", "4", "-n")
    check("would freeze 3 of 17 parameters" in dry.out, "-n", dry)
    equal(frozen(control), {"layer.2.weight", "layer.2.bias"}, "what is frozen after -n")
    done = t.ctl("revert", "4", "-y", "--reason", "back")
    check(done.out.startswith("run: froze 3 parameters (30); gen 7 applied by 1/1 ranks"), "revert 4", done)
    equal(frozen(control), at[4], "what is frozen")
    daemon.kill()
    control = t.daemon().connect()
    control.wait_attached()
    equal(frozen(control), at[4], "after the restart")
    equal(t.ctl("revert").status, 0, "revert of the revert")
    equal(frozen(control), {"layer.2.weight", "layer.2.bias"}, "as before the revert")
    equal(t.ctl("revert", "2", "-y").status, 0, "to before the rules")
    equal(frozen(control), {"layer.1.weight", "layer.1.bias"}, "the decisions of gen 2")
    equal(control.ask("rules_show")["error"]["code"], "no_rules", "rules")
    equal(t.ctl("revert", "1", "-y").status, 0, "to the start")
    equal(frozen(control), set(), "the decisions of gen 1")
    check("nothing to do" in t.ctl("revert", "1", "-y").out, "to where it is")
    equal(t.ctl("revert", "99").status, 4, "a gen that is not there")
    equal(t.ctl("revert", "x").status, 2, "no gen")


@fz.test("--state-dir none: history and revert from memory, and status says so")
def memory_only(t):
    control = fz.Daemon(t, "freezerd", "--socket", t.socket, "--state-dir", "none").connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    control.change("freeze", "layer.1")
    equal(told(entries(control)[0])[:2], ("freeze", 2), "history")
    equal(t.ctl("revert").status, 0, "revert")
    equal(frozen(control), set(), "after revert")
    check("in memory only" in t.ctl("status").out, "status")


@fz.test("a torn tail, at each byte of the last line, is cut and said; the rest is there", limit=120)
def torn(t):
    control = t.daemon().connect()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    control.change("freeze", "layer.1")
    equal(rank.terminate(), 0, "exit status of the trainer")
    for process in t.processes:
        process.kill()
    path = history_path(t)
    if os.path.exists(os.path.join(folder_of(t), "state.json")):
        os.unlink(os.path.join(folder_of(t), "state.json"))
    with open(path, "rb") as file:
        whole = file.read()
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    tail = whole[last:]
    for cut in [1, 2, len(tail) // 3, len(tail) // 2, len(tail) - 2, len(tail) - 1]:
        for damage in (tail[:cut], tail[:cut] + b"\n", b"\0" * cut):
            if damage == tail:
                continue
            with open(path, "wb") as file:
                file.write(whole + damage)
            daemon = t.daemon()
            rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
            control = daemon.connect()
            control.wait_attached()
            control.require("wait", **{"for": "in-sync"}, wait_ms=int(fz.seconds(20) * 1000))
            equal(frozen(control), {"layer.1.weight", "layer.1.bias"}, f"decisions after damage {damage[:40]!r}")
            check("half-written" in daemon.errors(), "the log", daemon.errors())
            equal(rank.terminate(), 0, "exit status of the trainer")
            daemon.kill()
            for line in lines(t):
                check(isinstance(line, dict), "a line")


@fz.test("a history that cannot grow: the change is refused with the reason, nothing is half-written, then it goes on")
def full(t):
    daemon = t.daemon()
    control = daemon.connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (os.path.getsize(history_path(t)) + 5000, unlimited[1]))
    refused, i = None, 0
    while not refused:
        before = frozen(control)
        answer = control.ask("freeze", patterns=[NAMES[i % 16]], until_step=10**9 + i, wait_ms=5000, yes=True)
        refused = None if answer["ok"] else answer["error"]
        i += 1
    check("cannot be saved" in refused["message"] and "nothing was changed" in refused["message"], "refusal", refused)
    equal(frozen(control), before, "what is frozen")
    with open(history_path(t), "rb") as file:
        check(file.read().endswith(b"\n"), "the file ends with a whole line")
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    control.change("freeze", "head")
    check("head" in frozen(control), "it goes on")


def refused_for(control, why, want):
    """Changes are refused for this reason, and what is frozen stays."""
    for op, fields in (("freeze", {"patterns": ["layer.0"]}), ("pin", {"patterns": ["layer.7"], "value": "frozen"}),
                       ("rules_load", {"rules": {"version": 1, "rules": [{"freeze": ["layer.6"]}]}}),
                       ("revert", {})):
        error = control.ask(op, yes=True, wait_ms=5000, **fields).get("error")
        check(error and "nothing was changed" in error["message"] and why in error["message"], f"{op} refused", error)
    equal(frozen(control), want, "what is frozen")


@fz.test("the disk is full: changes are refused with the reason, training and restarts go on; with room all goes on")
def disk_full(t):
    t.small_state(256)
    daemon = t.daemon()
    control = daemon.connect()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    control.change("freeze", "layer.1")
    want = {"layer.1.weight", "layer.1.bias"}
    with open(history_path(t), "rb") as file:
        whole = file.read()
    filler = t.fill_state()
    # The file's last block may have room for a line or two: they are taken, as they are on disk.
    while control.ask("pin", patterns=["head"], value="training", yes=True)["ok"]:
        control.change("unpin", "head")
    refused_for(control, "No space left", want)
    rank.wait_step(rank.step() + 100)
    daemon.kill()
    daemon = t.daemon()
    control = daemon.connect()
    control.wait_attached()
    refused_for(control, "No space left", want)
    with open(history_path(t), "rb") as file:
        text = file.read()
    check(text.startswith(whole) and text.endswith(b"\n"), "the history has whole lines only")
    os.unlink(filler)
    control.change("freeze", "layer.0")
    equal(frozen(control), want | {"layer.0.weight", "layer.0.bias"}, "with room again")


@fz.test("the state cannot be written as a rank rewinds: its plan comes when it can, and nothing of the old one counts")
def read_only_at_rewind(t):
    t.small_state(256)
    rules = {"version": 1, "rules": [{"freeze": ["a.w"], "from": {"step": 10 * i}, "until": {"step": 10 * i + 5}}
                                     for i in range(1, 4)]}
    control = t.daemon("--rules", t.write("rules.json", json.dumps(rules))).connect()
    rank = Rank(t)
    rank.attach()
    rank.send("applied", gen=1, step=0, epoch=0)
    for step in (12, 22, 50):
        rank.send("step", step=step, epoch=0)
    settle(control)
    time.sleep(1.2)  # as in the next test
    t.read_only_state(True)
    rank.send("rewind", step=60, epoch=0)
    rank.expect("welcome")
    rank.ready(60)
    settle(control)
    equal(control.require("status")["status"]["gen"], 0, "gen while it cannot")
    t.read_only_state(False)
    fz.wait_until(lambda: control.require("status")["status"]["gen"] == 1, "the first plan")
    rank.send("step", step=61, epoch=0)
    settle(control)
    equal(control.require("status")["status"]["gen"], 1, "gen")


@fz.test("a state directory that turns read-only: changes are refused with the reason; writable again, all goes on")
def read_only(t):
    t.small_state(1024)
    control = t.daemon().connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    control.change("freeze", "layer.1")
    time.sleep(1.2)  # state.json is written: no file is open for writing, or it could not be made read-only
    t.read_only_state(True)
    refused_for(control, "Read-only file system", {"layer.1.weight", "layer.1.bias"})
    t.read_only_state(False)
    control.change("auto", "layer.1")
    equal(frozen(control), set(), "writable again")


def answers(control, requests):
    return [control.answer(number) for number in control.send_at_once(requests)]


def wish(op, *patterns, **fields):
    return op, {"patterns": list(patterns), "yes": True, **fields}


@fz.test("changes of different parameters at once: one plan, each with its line and its answer; a query sees those before")
def at_once(t):
    control = t.daemon().connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    before = len(lines(t))
    got = answers(control, [wish("freeze", "layer.0"), wish("freeze", "layer.1", wait_ms=20000),
                            wish("pin", "head", value="training"), ("list", {})])
    equal([(a["ok"], a["gen"]) for a in got[:3]], [(True, 2)] * 3, "gens of three changes")
    check(got[1]["applied"], "the one that waited", got[1])
    equal({p["name"] for p in got[3]["params"] if p["pending"]},
          {p for p in NAMES if p.startswith(("layer.0", "layer.1"))}, "what a list behind them sees on its way")
    written = [line for line in lines(t)[before:] if line["event"] == "change"]
    equal([(line["action"], line["patterns"], line["gen"], len(line["state"]["overrides"]), len(line["state"]["pins"]))
           for line in written],
          [("freeze", ["layer.0"], 2, 1, 0), ("freeze", ["layer.1"], 2, 2, 0), ("pin", ["head"], 2, 2, 1)], "the lines")
    equal([line["serial"] for line in written], [3, 4, 5], "their serials")


@fz.test("changes of the same parameters at once: one after the other, as if each had come alone")
def at_once_same(t):
    control = t.daemon().connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    got = answers(control, [wish("freeze", "layer.0"), wish("freeze", "layer.0.bias"), wish("pin", "layer.0.bias"),
                            wish("unfreeze", "layer.0"), wish("freeze", "layer.5"), ("rules_unload", {}),
                            ("revert", {}), wish("freeze", "layer.0.bias", dry_run=True)])
    equal([a.get("gen") for a in got], [2, 3, 4, 5, 5, None, 6, None], "gens")
    equal(got[5]["error"]["code"], "no_rules", "rules_unload")
    equal((got[6]["undone"], got[6]["changed"]), (1, 2), "the revert")
    control.require("wait", **{"for": "idle"}, wait_ms=20000)
    equal(frozen(control), {"layer.0.bias"}, "what is frozen: the pin holds one")


@fz.test("changes at once that cannot be kept: each is refused, none is in force, not even after a restart")
def at_once_full(t):
    daemon = t.daemon()
    control = daemon.connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=300)
    control.wait_attached()
    control.change("freeze", "head")
    unlimited = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    with open(history_path(t), "rb") as file:
        whole = file.read()
    # Room for the first of the three lines.
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (len(whole) + 1500, unlimited[1]))
    got = answers(control, [wish("freeze", f"layer.{i}", reason="x" * 400, wait_ms=5000 * i) for i in range(3)])
    for answer in got:
        check(not answer["ok"] and "nothing was changed" in answer["error"]["message"], "an answer", answer)
    with open(history_path(t), "rb") as file:
        check(file.read() == whole, "the history is as it was")
    equal(frozen(control), {"head"}, "what is frozen")
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    got = answers(control, [wish("freeze", f"layer.{i}") for i in range(2)])
    equal([a["gen"] for a in got], [3, 3], "gens when there is room again")
    daemon.kill()
    control = t.daemon().connect()
    control.wait_attached()
    equal(frozen(control), {"head"} | {p for p in NAMES if p.startswith(("layer.0", "layer.1"))}, "after a restart")


def no_flips(batches, unsure, frozen_at_end):
    """In these batches only bits of changes that ranks may not have applied yet change; the last has what is frozen."""
    names = [name for name, _, _ in PARAMS]
    held = {tuple(bit for name, bit in zip(names, mask) if name not in unsure) for _, _, _, mask in batches}
    equal(len(held), 1, f"masks during a restart, without the bits of {unsure}: {held}")
    equal({name for name, bit in zip(names, batches[-1][3]) if bit == "0"}, frozen_at_end, "the mask after the restart")


@fz.test(f"{KILLS} kills of freezerd under changes: every confirmed change is there afterwards, no bit flips", limit=900)
def kills(t):
    rng = random.Random(int(os.environ.get("FZ_SEED") or 7))
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=500)
    control = daemon.connect()
    control.wait_attached()
    wanted = {}
    for kill in range(KILLS):
        victim = subprocess.Popen([sys.executable, "-c", "import os,time,sys;time.sleep(float(sys.argv[1]));"
                                   "os.kill(int(sys.argv[2]),9)", str(rng.random() * 0.05), str(daemon.pid)])
        open_change, unsure = None, set()
        try:
            while True:
                name, op = rng.choice(NAMES), rng.choice(("freeze", "unfreeze"))
                open_change = (name, op)
                answer = control.ask(op, patterns=[f"name:{name}"], yes=True, reason=f"kill {kill}",
                                     wait_ms=rng.choice((0, 5000)))
                check(answer["ok"], "a change was refused", answer)
                wanted[name] = op
                open_change = None
                # A plan has all that came before it.
                unsure = set() if answer["applied"] else unsure | {name}
        except (fz.Failure, OSError):
            pass  # it is dead, as it should be
        victim.wait()
        daemon.popen.wait(fz.seconds(10))
        unsure |= {open_change[0]} if open_change else set()
        seen = len(rank.batches())
        daemon = t.daemon()
        control = daemon.connect()
        control.wait_attached()
        check(control.require("wait", **{"for": "in-sync"}, wait_ms=int(fz.seconds(20) * 1000))["met"], "in sync")
        now = frozen(control)
        rank.wait_step(rank.step() + 2)
        no_flips(rank.batches()[max(0, seen - 1):], unsure, now)
        for name, op in wanted.items():
            if open_change and open_change[0] == name:
                continue
            equal(name in now, op == "freeze", f"kill {kill}: {name} after a confirmed {op}")
        if open_change:  # accepted or not, it is one of the two
            wanted[open_change[0]] = "freeze" if open_change[0] in now else "unfreeze"
    serials = [line["serial"] for line in lines(t) if "serial" in line]
    equal(serials, sorted(set(serials)), "serials of the lines")
    check(rank.alive(), "the trainer lives")


if __name__ == "__main__":
    fz.main()
