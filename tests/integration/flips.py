# flips.py - what a plan does by itself is in the history, each flip at its step, whether freezerd looked then or not.
import json

import fz
from fz import check, equal

FOREVER = 10**9
PARAMS = [(f"layer.{i}", 10, 1) for i in range(4)] + [("head", 10, 1)]


def rules(t, *windows):
    """A file with one rule for each of (parameter, from, until)."""
    document = {"version": 1, "rules": [{"name": f"rule {i}", "freeze": [name], "from": begin, "until": end}
                                        for i, (name, begin, end) in enumerate(windows)]}
    return t.write("rules.json", json.dumps(document))


def step(n):
    return {"step": n}


def epoch(n):
    return {"epoch": n}


def flips(control, run):
    """[(gen, step, the first word, parameters, trainable elements)], oldest first."""
    return [(e["gen"], e["step"], e["text"].split()[0], e["froze"] + e["unfroze"], e["trainable"])
            for e in reversed(control.require("history", run=run)["history"]) if e["action"] == "flip"]


def wait_flips(control, expected, run="run"):
    fz.wait_until(lambda: len(flips(control, run)) >= len(expected), f"{len(expected)} flips are told")
    equal(flips(control, run), expected, "flips in the history")


def attached(t, *options, **keywords):
    """freezerd and one rank, which is far before the first boundary yet."""
    daemon = t.daemon(*options)
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=500, **keywords)
    daemon.connect().wait_attached()
    return daemon, rank


def away(rank, first, last):
    """While freezerd cannot look, the rank goes beyond all of its boundaries."""
    check(rank.step() < first, "freezerd did not stand still in time", rank.step())
    rank.wait_step(last)


@fz.test("a rule's window is over before freezerd looks: both its ends are told, and since when")
def short(t):
    file = rules(t, ("layer.1", step(3), step(5)), ("layer.2", step(4), step(FOREVER)))
    control = t.daemon("--rules", file).connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=100)
    control.wait_attached()
    wait_flips(control, [(1, 3, "froze", 1, 40), (1, 4, "froze", 1, 30), (1, 5, "unfroze", 1, 40)])
    since = {p["name"]: p["since_step"] for p in control.require("list")["params"]}
    equal((since["layer.0"], since["layer.1"], since["layer.2"]), (None, 5, 4), "since which step")
    history = control.require("status")["status"]["trainable_history"]
    equal(history[-4:], [50, 40, 30, 40], "what trained")


@fz.test("freezerd stands still: afterwards it tells what steps and epochs did meanwhile, in their order")
def stopped(t):
    windows = (("layer.1", step(2000), step(2010)),  # within epoch 4
               ("layer.2", step(2200), epoch(5)),  # at step 2500: nothing is left of it at the next step event
               ("layer.3", epoch(6), step(3100)),
               ("head", epoch(7), epoch(8)))
    daemon, rank = attached(t, "--rules", rules(t, *windows), epoch_every=500)
    control = daemon.connect()
    daemon.stop()
    away(rank, 2000, 4001)
    daemon.cont()
    told = [(2000, "froze", 40), (2010, "unfroze", 50), (2200, "froze", 40), (2500, "unfroze", 50), (3000, "froze", 40),
            (3100, "unfroze", 50), (3500, "froze", 40), (4000, "unfroze", 50)]
    wait_flips(control, [(1, at, what, 1, trainable) for at, what, trainable in told])


@fz.test("a change is asked of a freezerd that stood still: the flips of the plan before come first")
def replaced(t):
    windows = ("layer.1", step(2000), step(2010)), ("layer.2", step(5000), step(5010))
    daemon, rank = attached(t, "--rules", rules(t, *windows))
    control = daemon.connect()
    daemon.stop()
    number = control.send("freeze", run="run", patterns=["head"], wait_ms=20000)
    away(rank, 2000, 2011)
    daemon.cont()
    check(control.answer(number)["ok"], "the change was refused")
    rank.wait_step(5010)
    equal(flips(control, "run"), [(1, 2000, "froze", 1, 40), (1, 2010, "unfroze", 1, 50), (2, 5000, "froze", 1, 30),
                                  (2, 5010, "unfroze", 1, 40)], "flips in the history, at once")
    actions = [e["action"] for e in reversed(control.require("history")["history"])]
    equal(actions, ["attached", "flip", "flip", "freeze", "flip", "flip"], "the order of the history")


@fz.test("changes all the time, of a rank with very short steps: no flip is lost between two plans")
def between(t):
    bounds = range(4000, 24000, 100)
    windows = [("layer.1", step(begin), step(begin + 100)) for begin in bounds[::2]]
    daemon = t.daemon("--rules", rules(t, *windows))
    control = daemon.connect()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=50, quiet=True)
    control.wait_attached()
    changed = [0]
    while changed[-1] < bounds[-1]:
        changed.append(control.change(("auto", "freeze")[len(changed) % 2], "head")["step"])
    at = [flip[1] for flip in flips(control, "run")]
    equal(len(set(at)), len(at), "flips that were told once")
    check(not set(at) - set(bounds), "flips where there is none", sorted(set(at) - set(bounds)))
    # One at the very step from which a change holds is told as part of that.
    check(not set(bounds) - set(at) - set(changed), "flips that were lost", sorted(set(bounds) - set(at) - set(changed)))
    check(len(at) > len(bounds) / 2, "hardly a flip", at)
    equal((rank.terminate(), daemon.terminate()), (0, 0), "exit statuses")


@fz.test("freezerd is killed: the next one tells what flipped meanwhile, and since when, and nothing twice")
def killed(t):
    file = rules(t, ("layer.1", epoch(1), step(4010)), ("layer.2", epoch(2), epoch(4)))
    daemon, rank = attached(t, "--rules", file, epoch_every=4000)
    told = [(1, 4000, "froze", 1, 40), (1, 4010, "unfroze", 1, 50), (1, 8000, "froze", 1, 40), (1, 16000, "unfroze", 1, 50)]
    for begin, last, n in ((4000, 4011, 2), (8000, 8001, 3), (16000, 16001, 4)):
        if n == 3:
            daemon.stop()  # what the rank says to it is lost
        else:
            daemon.kill()
        away(rank, begin, last)
        if n == 3:
            daemon.kill()
        daemon = t.daemon("--rules", file)
        control = daemon.connect()
        control.wait_attached()
        wait_flips(control, told[:n])
        params = control.require("list")["params"]
        equal({p["name"]: p["since_step"] for p in params}[f"layer.{1 + n // 3}"], told[n - 1][1], "since which step")
    for end in (fz.Daemon.kill, fz.Daemon.terminate):
        end(daemon)
        daemon = t.daemon("--rules", file)
        control = daemon.connect()
        control.wait_attached()
        wait_flips(control, told)


@fz.test("what an override hid is no flip, not even for the freezerd that comes after it is gone")
def hidden(t):
    file = rules(t, ("layer.1", epoch(1), epoch(1000)))
    daemon, rank = attached(t, "--rules", file, epoch_every=1000)
    control = daemon.connect()
    control.change("unfreeze", "layer.1")
    rank.wait_step(1000)
    control.change("auto", "layer.1")
    daemon.kill()
    control = t.daemon("--rules", file).connect()
    control.wait_attached()
    control.require("watch")
    while control.read_line()["event"]["event"] != "epoch":
        pass
    equal(flips(control, "run"), [], "flips in the history")


@fz.test("a rank goes back: what the plan of the new incarnation does at the same steps is told again")
def rewound(t):
    control = t.daemon("--rules", rules(t, ("layer.1", step(20), step(40)))).connect()
    t.trainer(PARAMS, (0, FOREVER), step_us=500, rewind="60:10")
    control.wait_attached()
    wait_flips(control, [(1, 20, "froze", 1, 40), (1, 40, "unfroze", 1, 50)] * 2)


@fz.test("ranks end, or are killed, before freezerd looks: their last flips are told as well")
def ended(t):
    told = [(1, 1000, "froze", 1, 40), (1, 2000, "unfroze", 1, 50)]
    control = t.daemon("--rules", rules(t, ("layer.1", step(1000), step(2000)))).connect()
    equal(t.trainer(PARAMS, (0, 2005), step_us=500, run="ends").wait(), 0, "exit status of the rank")
    wait_flips(control, told, "ends")
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=500, run="killed")
    rank.wait_step(2000)
    rank.kill()
    wait_flips(control, told, "killed")


if __name__ == "__main__":
    fz.main()
