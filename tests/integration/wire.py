# wire.py - freezerd as a trainer sees it on the wire: launches, rewinds, refusals, confirmations, restarts.
import json
import os
import resource

import fz
from fz import check, equal
from rank import PARAMS, WIDE, Rank, applied, baseline, full, layout, run_of, settle

# --- attaching ---


@fz.test("welcome brings the segment's descriptor; the first plan comes when all ranks are ready, not before")
def joining(t):
    control = t.daemon().connect()
    first = Rank(t, world=2)
    welcome = first.attach(step=7)
    equal(len(first.fds), 1, "descriptors")
    equal(os.fstat(first.fds[0]).st_size, welcome["size"], "size")
    check(os.path.exists("/dev/shm" + welcome["segment"]), "the name", welcome)
    equal(run_of(control)["gen"], 0, "gen with one of two ranks")
    number = control.send("freeze", patterns=["a"], wait_ms=20000, run="run")
    control.accepted(number)
    check(control.parts[number]["gen"] is None, "a gen before all are attached")
    equal(control.require("status", run="run")["status"]["missing"], [1], "who is missing")
    second = Rank(t, rank=1, world=2)
    equal(second.enter()["type"], "welcome", "a second rank with the same layout is not asked for its parameters")
    equal(run_of(control)["gen"], 0, "gen before the second rank is ready")
    second.ready(step=9)
    equal(run_of(control)["gen"], 1, "gen")
    applied(first, 1, 12)
    settle(control)
    check(number not in control.answers, "confirmed by one of two ranks")
    applied(second, 1, 12)
    answer = control.answer(number)
    equal((answer["applied"], answer["gen"], answer["step"], answer["ranks"]), (True, 1, 12, 2), "the answer")


@fz.test("another layout or baseline is refused, with both hashes and the first difference")
def mismatch(t):
    control = t.daemon().connect()
    waits = Rank(t, world=3)
    waits.attach()
    for params, word in (([["a.w", 10, True], ["a.x", 2, True]] + PARAMS[2:], "a.x"), (PARAMS[:3], "4 parameters"),
                         ([["a.w", 11, True]] + PARAMS[1:], "11"),
                         ([["a.w", 10, False]] + PARAMS[1:], "'a.w' trains there and is frozen here"),
                         ([["a.w", 10, True, "NO"]] + PARAMS[1:], "may be")):
        other = Rank(t, rank=1, world=3, params=params)
        error = other.enter()
        equal(error["type"], "error", f"the answer to a rank with {params}")
        equal((error["error"]["code"], error["close"]), ("layout_mismatch", True), "code")
        check(word in error["error"]["message"], "the difference", error)
        check((layout(params) if layout(params) != layout(PARAMS) else baseline(params)) in error["error"]["message"],
              "the hash", error)
        check(other.line() is None, "the connection goes on")
        told = waits.expect("error")
        equal((told["error"]["code"], told.get("close", False)), ("layout_mismatch", False), "what the others are told")
        check("rank 1" in told["error"]["message"], "which rank", told)
    equal(Rank(t, rank=1, world=3).attach()["incarnation"], 1, "incarnation")
    error = Rank(t, rank=1, world=2).enter()
    check(error["type"] == "error" and "world" in error["error"]["message"], "another world in the same launch", error)
    equal(run_of(control)["ranks"], 2, "ranks")


@fz.test("a run without parameters, one of many chunks, and a trainer that hangs up in the middle of its list")
def listing(t):
    control = t.daemon().connect()
    Rank(t, run="none", params=[]).attach()
    equal(run_of(control, "none")["n_params"], 0, "parameters")
    broken = Rank(t, run="half")
    equal(broken.expect("need")["what"], "params", "what")
    broken.send("params", first=0, params=full(PARAMS[:2]))
    broken.close()
    many = [[f"p{i}", i, True] for i in range(1000)]
    rank = Rank(t, run="many", params=many)
    rank.expect("need")
    for first in range(0, 1000, 10):
        rank.send("params", first=first, params=full(many[first:first + 10]))
    equal(rank.expect("welcome")["run"], "many", "run")
    rank.ready()
    equal(run_of(control, "many")["elements"], sum(range(1000)), "elements")
    equal(Rank(t, run="half").attach()["run"], "half", "the name that a broken trainer left")


# --- launches ---


@fz.test("a newer attempt takes over at once, an older one is refused, another job gets NAME-2")
def attempts(t):
    control = t.daemon().connect()
    old = Rank(t, attempt=3)
    old.attach()
    error = Rank(t, attempt=2).enter()
    equal(error["error"]["code"], "launch_retired", "an older attempt")
    other = Rank(t, job="other")
    equal(other.attach()["run"], "run-2", "another job")
    check("renamed" in [m.get("code") for m in other.said], "it was not told", other.said)
    new = Rank(t, attempt=4, world=2)
    welcome = new.attach()
    equal((welcome["run"], welcome["incarnation"]), ("run", 2), "the newer attempt")
    equal(old.expect("notice")["code"], "launch_retired", "the old attempt's notice")
    old.send("step", step=5, epoch=0)
    equal((run_of(control)["world"], run_of(control)["step"]), (2, 0), "the run goes by the new attempt")
    twin = Rank(t, attempt=4, world=2, pid=77)
    equal(twin.attach()["run"], "run-3", "a second holder of the same rank is another job")


@fz.test("the same process on a new connection takes its place back")
def again(t):
    control = t.daemon().connect()
    first = Rank(t)
    equal(first.attach()["incarnation"], 1, "incarnation")
    first.lock()
    second = Rank(t)
    equal(second.attach(step=4)["incarnation"], 1, "incarnation")
    check(first.line() is None, "the old connection goes on")
    equal((run_of(control)["name"], run_of(control)["ranks"]), ("run", 1), "run")


@fz.test("when nobody is left the segment goes; overrides, pins and rules are there for the next launch")
def relaunch(t):
    control = t.daemon().connect()
    rank = Rank(t)
    name = rank.attach()["segment"]
    control.require("freeze", patterns=["a"], until_step=900)
    control.require("pin", patterns=["b"])
    rank.send("bye")
    equal(control.require("wait", **{"for": "detached"}, wait_ms=10000)["met"], True, "detached")
    fz.wait_until(lambda: not os.path.exists("/dev/shm" + name), "the segment is removed")
    equal(Rank(t, job="next").attach()["incarnation"], 2, "incarnation")
    rows = {p["name"]: p["layer"] for p in control.require("list", run="run")["params"]}
    equal(rows, {"a.w": "override", "a.b": "override", "b.w": "pin", "c.w": "baseline"}, "layers")


@fz.test("a new launch with other parameters: what still matches is carried over, the rest is dropped with a warning")
def other_params(t):
    control = t.daemon().connect()
    rank = Rank(t, params=PARAMS + [["d", 1, True]])
    rank.attach()
    control.require("freeze", patterns=["a"])
    control.require("freeze", patterns=["b.w"], yes=True)
    rank.send("bye")
    control.require("wait", **{"for": "detached"})
    rank = Rank(t, job="next", params=[["a.w", 10, True], ["z", 1, True]])
    rank.attach()
    applied(rank, 1, 0)
    settle(control)
    status = control.require("status")["status"]
    equal([f["name"] for f in status["frozen"]], ["a"], "frozen")
    check(any("b.w" in w for w in status["warnings"]), "the warning", status["warnings"])


# --- rewinding ---


@fz.test("rewind: a new incarnation, which begins when all ranks have rewound")
def rewind(t):
    control = t.daemon().connect()
    ranks = [Rank(t, rank=i, world=2) for i in range(2)]
    for rank in ranks:
        rank.attach(step=100)
    control.require("freeze", patterns=["a"], until_step=150)
    for rank in ranks:
        applied(rank, 2, 101)
    ranks[0].send("rewind", step=40, epoch=0)
    equal(ranks[0].expect("welcome")["incarnation"], 2, "incarnation")
    ranks[1].send("step", step=120, epoch=0)
    ranks[0].ready(step=40)
    equal(run_of(control)["gen"], 0, "a plan before the other rank has rewound")
    ranks[1].send("rewind", step=40, epoch=0)
    equal(ranks[1].expect("welcome")["incarnation"], 2, "incarnation of the other")
    ranks[1].ready(step=40)
    run = run_of(control)
    equal((run["gen"], run["step"], run["incarnation"]), (1, 40, 2), "gen, step, incarnation")
    equal({p["name"] for p in control.require("list", why="override", run="run")["params"]}, {"a.w", "a.b"}, "overrides")


# --- changes ---


@fz.test("guards: empty mask now and later, baseline, pins, the trainer's refusal, half of what trains")
def guards(t):
    control = t.daemon().connect()
    Rank(t, params=PARAMS + [["q", 1, True, "QUANTISED", True]]).attach()
    for request, code in ((dict(op="freeze", patterns=["b.w"]), "needs_yes"),
                          (dict(op="freeze", patterns=["a", "b"], at_step=50, yes=True), None),
                          (dict(op="unfreeze", patterns=["c"]), "refused_baseline"),
                          (dict(op="unfreeze", patterns=["c"], force=True), "refused_baseline"),
                          (dict(op="unfreeze", patterns=["c"], force=True, include_baseline=True), None),
                          (dict(op="freeze", patterns=["q"]), "refused_trainer"),
                          (dict(op="freeze", patterns=["a.w"], until_step=9, **{"for": 3}), "bad_field"),
                          (dict(op="freeze", patterns=["a.x"]), "no_match"),
                          (dict(op="freeze", patterns=["re:("]), "bad_pattern"),
                          (dict(op="freeze", patterns=["a"], run="nobody"), "no_run"),
                          (dict(op="explain", param="a"), "no_param"),
                          (dict(op="rules_show"), "no_rules")):
        for dry in (True, False):
            if code == "needs_yes" and dry:
                continue
            fields = {**request, "dry_run": dry} if request["op"] not in ("explain", "rules_show") else request
            answer = control.ask(**fields)
            equal(answer.get("error", {}).get("code"), code, f"{fields}: {answer}")
    control.require("pin", patterns=["b"], value="training")
    error = control.ask("freeze", patterns=["b.w"], yes=True)["error"]
    equal((error["code"], "unpin b" in error["hint"]), ("refused_pinned", True), "a pin")
    control.require("auto", patterns=["**"])
    control.require("unpin", patterns=["**"])
    other = control.ask("rules_load", rules={"version": 1, "rules": [{"freeze": ["q", "a"], "from": {"step": 5}}]})
    check(other["ok"], "rules that select what the trainer refuses", other)


@fz.test("an empty mask, now or in a later row, needs --force")
def empty(t):
    control = t.daemon().connect()
    Rank(t, params=PARAMS[:3]).attach()
    equal(control.ask("freeze", patterns=["**"], yes=True)["error"]["code"], "refused_empty", "now")
    equal(control.ask("freeze", patterns=["**"], at_step=1000)["error"]["code"], "refused_empty", "later")
    rules = {"version": 1, "rules": [{"freeze": ["a"], "from": {"step": 10}}, {"freeze": ["b"], "from": {"step": 20}}]}
    equal(control.ask("rules_load", rules=rules)["error"]["code"], "refused_empty", "by rules")
    check(control.ask("freeze", patterns=["**"], force=True)["ok"], "--force")
    check(control.ask("unfreeze", patterns=["a"])["ok"], "out of it again")


@fz.test("nothing to do, notes, undo, `for` as an absolute end, the same path for a dry run")
def answers(t):
    control = t.daemon().connect()
    rank = Rank(t)
    rank.attach(step=10)
    dry = control.require("freeze", patterns=["a"], **{"for": 100}, dry_run=True)
    equal((dry["dry_run"], dry["gen"], dry["until_step"], dry["changed"]), (True, None, 110, 2), "dry run")
    equal(run_of(control)["gen"], 1, "gen after a dry run")
    real = control.require("freeze", patterns=["a"], **{"for": 100})
    equal((real["gen"], real["until_step"], real["changed_elements"]), (2, 110, 12), "the change")
    equal((real["undo"], real["next"]), ("freezerctl revert 1", {"step": 110}), "undo, next")
    equal(real["missing"][0]["rank"], 0, "who has not applied it")
    again = control.require("freeze", patterns=["a"], until_step=110)
    equal(again["nothing"], True, f"the same once more: {again}")
    equal(control.require("auto", patterns=["b"])["nothing"], True, "auto where nothing is")
    more = control.require("freeze", patterns=["a.w"])
    check(any("already frozen" in note for note in more["notes"]), "notes", more)


@fz.test("what is queued is superseded by what replaces it, and answered so")
def superseded(t):
    control = t.daemon().connect()
    first = Rank(t, world=2)
    first.attach()
    one = control.send("freeze", patterns=["a.w"], wait_ms=20000)
    two = control.send("freeze", patterns=["b.w"], until_step=50, yes=True, wait_ms=20000)
    three = control.send("unfreeze", patterns=["a"], wait_ms=20000)
    for number in (one, two, three):
        control.accepted(number)
    second = Rank(t, rank=1, world=2)
    second.attach()
    answer = control.answer(one)
    equal((answer["superseded_by"], answer["applied"]), (1, False), "the replaced one")
    for rank in (first, second):
        applied(rank, 1, 3)
    equal([control.answer(n)["applied"] for n in (two, three)], [True, True], "the others")
    texts = [r["text"] for r in control.require("status")["status"]["recent"]]
    check(any("superseded" in text for text in texts), "recent", texts)


@fz.test("a rank that died is waited for; 8 ranks at different gens; the step is that of the first to apply")
def confirmation(t):
    control = t.daemon().connect()
    ranks = [Rank(t, rank=i, world=8) for i in range(8)]
    for rank in ranks:
        rank.attach()
    number = control.send("freeze", patterns=["a"], wait_ms=1)
    equal(control.answer(number)["applied"], False, "in a millisecond")
    number = control.send("freeze", patterns=["a.w"], until_step=99, wait_ms=20000)
    control.accepted(number)
    for i, rank in enumerate(ranks[:7]):
        applied(rank, 3, 20 + i)
    settle(control)
    status = control.require("status")["status"]
    equal([p["waiting_for"] for p in status["pending_changes"]], [[7], [7]], "who is waited for")
    ranks[7].close()
    equal(Rank(t, rank=7, world=8).attach(step=30)["incarnation"], 1, "it comes back alone")
    settle(control)
    check(number not in control.answers, "confirmed without rank 7")
    back = Rank(t, rank=7, world=8)
    back.attach(step=30)
    applied(back, 3, 30)
    equal(control.answer(number)["step"], 20, "step")
    equal(control.require("wait", **{"for": "idle"}, wait_ms=5000)["met"], True, "idle")


@fz.test("applied gens that were never published, and steps that go back, change nothing")
def lies(t):
    control = t.daemon().connect()
    rank = Rank(t)
    rank.attach(step=5)
    number = control.send("freeze", patterns=["a"], wait_ms=20000)
    control.accepted(number)
    applied(rank, 77, 6)
    settle(control)
    check(number not in control.answers, "confirmed by a gen that does not exist")
    applied(rank, 2, 6)
    check(control.answer(number)["applied"], "not applied")


# --- events and waits ---


@fz.test("watch and wait: attached, accepted, applied, flips, epochs; at_step; runs that do not exist yet")
def events(t):
    daemon = t.daemon()
    watcher, control = daemon.connect(), daemon.connect()
    watcher.require("watch")
    waits = [daemon.connect() for _ in range(2)]
    attached = waits[0].send("wait", **{"for": "attached"}, run="run", wait_ms=20000)
    check(not control.ask("wait", **{"for": "attached"}, run="run", wait_ms=1)["met"], "attached before it is there")
    rank = Rank(t, rules={"version": 1, "rules": [{"freeze": ["a.b"], "from": {"step": 30}}]})
    rank.attach()
    check(waits[0].answer(attached)["met"], "attached")
    step = waits[1].send("wait", **{"for": "step"}, step=31, wait_ms=20000)
    subscription = rank.expect("subscribe")
    equal(subscription["at_step"], 31, "the step that a wait asks for")
    change = control.require("freeze", patterns=["b"], yes=True, reason="plateau", by={"user": "ana", "host": "gpu07"})
    applied(rank, change["gen"], 12)
    rank.send("step", step=31, epoch=1)
    rank.send("epoch", step=31, epoch=1)
    check(waits[1].answer(step)["met"], "step")
    rank.send("metric", step=31, values={"loss": 1.5, "bad": None})
    settle(control)
    equal(control.require("status")["status"]["metrics"], {"loss": 1.5, "bad": None}, "metrics")
    rank.send("bye")
    control.require("wait", **{"for": "detached"}, wait_ms=10000)
    watcher.require("ping")
    names = [e["event"] for e in watcher.events]
    for name in ("run_started", "attached", "accepted", "applied", "flip", "epoch", "detached"):
        check(name in names, f"no event {name}", names)
    event = next(e for e in watcher.events if e["event"] == "applied")
    equal((event["by"], event["reason"], event["step"], event["froze"]), ("ana@gpu07", "plateau", 12, 1), "applied")
    equal(next(e["step"] for e in watcher.events if e["event"] == "flip"), 30, "step of the flip")


# --- restarts ---


@fz.test("freezerd killed, nothing saved: resume with the descriptor, the name is gone; nothing flips, status says so")
def adoption(t):
    daemon = t.daemon("--state-dir", "none")
    rank = Rank(t)
    name = rank.attach(step=10)["segment"]
    rank.lock()
    control = daemon.connect()
    control.require("freeze", patterns=["a"])
    applied(rank, 2, 11)
    settle(control)
    daemon.kill()
    os.unlink("/dev/shm" + name)
    control = t.daemon("--state-dir", "none").connect()
    back = Rank(t, resumes=True)
    back.send("resume", fds=[rank.fds[0]], incarnation=1, gen=2, step=20, epoch=0)
    equal(back.attach(step=20)["incarnation"], 1, "incarnation")
    status = control.require("status")["status"]
    equal((status["gen"], sorted(f["name"] for f in status["frozen"])), (2, ["a", "c"]), "gen and mask")
    check(any("restarted" in w for w in status["warnings"]), "the warning", status["warnings"])
    applied(back, 2, 20)
    change = control.require("freeze", patterns=["b"], yes=True)
    equal(change["gen"], 3, "the next gen")
    rank.close()


def decisions(control):
    """What a restart must not lose."""
    listed = control.require("list", run="run")["params"]
    return {p["name"]: (p["state"], p["layer"], p["why"]) for p in listed}


@fz.test("freezerd killed: rules, overrides and pins go on with their plan; what was saved and not published comes next")
def restart(t):
    daemon = t.daemon()
    ranks = [Rank(t, rank=i, world=2, params=WIDE) for i in range(2)]
    for rank in ranks:
        rank.attach(step=10)
        rank.lock()
    control = daemon.connect()
    control.require("rules_load", source="x.yaml",
                    rules={"version": 1, "rules": [{"name": "late", "freeze": ["b"], "until": {"step": 900}}]})
    control.require("freeze", patterns=["a"], until_step=700, reason="plateau", by={"user": "ana", "host": "h"})
    control.require("auto", patterns=["a.b"])
    control.require("pin", patterns=["c", "d.w"], reason="as they are")
    for rank in ranks:
        applied(rank, 5, 11)
    settle(control)
    before = decisions(control)
    equal(before["a.w"][0], "frozen", "a.w")
    ranks[1].close(keep_fds=True)
    fz.wait_until(lambda: run_of(control)["ranks"] == 1, "freezerd has noticed")
    control.require("freeze", patterns=["a.b"])  # a plan for both ranks cannot be made now
    daemon.kill()

    control = t.daemon().connect()
    back = [Rank(t, rank=i, world=2, params=WIDE, resumes=True) for i in range(2)]
    for i, rank in enumerate(back):
        rank.send("resume", fds=[ranks[i].fds[0]], incarnation=1, gen=5, step=20, epoch=0)
        equal(rank.enter()["type"], "welcome", "resume")
    after = decisions(control)
    equal({**after, "a.b": before["a.b"]}, before, "after the restart")
    equal(after["a.b"][0], "training", "a.b, whose change was not published")
    status = control.require("status")["status"]
    equal((status["gen"], status["warnings"]), (5, []), "gen and warnings")
    equal(control.require("rules_show")["source"], "x.yaml", "rules")
    for rank in back:
        rank.ready(step=20)
    equal(run_of(control)["gen"], 6, "the plan with what was only saved")
    for rank in back:
        applied(rank, 6, 21)
    settle(control)
    after = decisions(control)
    equal((after["a.b"][0], after["a.w"], after["d.w"]), ("frozen", before["a.w"], before["d.w"]), "the last change")
    equal(control.ask("freeze", patterns=["d"], yes=True)["error"]["code"], "refused_pinned", "a pin as it was")
    for rank in ranks + back:
        rank.close()


@fz.test("freezerd and the run end; the next launch, with the next freezerd, has the decisions of the last")
def restart_of_both(t):
    daemon = t.daemon()
    rank = Rank(t, params=WIDE)
    rank.attach()
    control = daemon.connect()
    control.require("freeze", patterns=["a"])
    rank.send("bye")
    control.require("wait", **{"for": "detached"})
    equal(daemon.terminate(), 0, "exit status")
    control = t.daemon().connect()
    equal(Rank(t, job="next", params=WIDE).attach()["incarnation"], 2, "incarnation")
    equal(decisions(control)["a.w"][1], "override", "the override")


@fz.test("a lighter ruleset goes on where it was: released callbacks stay released")
def restart_lighter(t):
    daemon = t.daemon()
    rank = Rank(t, params=WIDE)
    rank.attach(step=10)
    rank.lock()
    control = daemon.connect()
    rules = {"version": 1, "profile": "lighter", "rules": [{"name_starts_with": ["a"], "until_step": 100}]}
    control.require("rules_load", rules=rules)
    applied(rank, 2, 10)
    rank.send("step", step=120, epoch=0)
    settle(control)
    before = {name: state for name, (state, _, _) in decisions(control).items()}
    equal(set(before.values()), {"training"}, "after the release")
    daemon.kill()
    control = t.daemon().connect()
    back = Rank(t, params=WIDE, resumes=True)
    back.send("resume", fds=[rank.fds[0]], incarnation=1, gen=2, step=130, epoch=0)
    back.attach(step=130)
    equal({name: state for name, (state, _, _) in decisions(control).items()}, before, "after the restart")
    change = control.require("freeze", patterns=["b"])
    equal((change["gen"], change["changed"]), (3, 1), "only what was asked for changes")
    rank.close()


@fz.test("a state that cannot be written refuses the change; one that cannot be read is said, and left as it is")
def bad_state(t):
    daemon = t.daemon()
    rank = Rank(t, params=WIDE)
    rank.attach()
    control = daemon.connect()
    settle(control)
    folder = next(e.path for e in os.scandir(t.state_dir) if e.is_dir())
    history = os.path.join(folder, "history.ndjson")
    os.rename(history, history + ".aside")
    os.mkdir(history)
    error = control.ask("freeze", patterns=["a"])["error"]
    check("cannot be saved" in error["message"], "the refusal", error)
    equal(run_of(control)["gen"], 1, "gen")
    os.rmdir(history)
    os.rename(history + ".aside", history)
    control.require("freeze", patterns=["a"])
    rank.send("bye")
    control.require("wait", **{"for": "detached"})
    equal(daemon.terminate(), 0, "exit status")
    for damage in ('{"version":1,"run":"run","incarn', '{"version":9,"run":"run"}\n',
                   '{"version":1,"run":"run","incarnation":4,"gen":2,"rules_origin":"none","overrides":[{"action":3}]}\n'):
        with open(os.path.join(folder, "state.json"), "w", encoding="utf-8") as file:
            file.write(damage)
        os.unlink(history)
        daemon = t.daemon()
        control = daemon.connect()
        rank = Rank(t, job=damage[-20:-1].replace('"', ""), params=WIDE)
        rank.attach()
        warnings = control.require("status")["status"]["warnings"]
        check(any("saved state" in w for w in warnings), "the warning", damage, warnings)
        rank.send("bye")
        equal(daemon.terminate(), 0, "exit status")


@fz.test("freezerd killed: a hello without resume finds the segment by its name, and a stranger's is not taken")
def adoption_by_name(t):
    daemon = t.daemon()
    rank = Rank(t)
    rank.attach(step=10)
    rank.lock()
    daemon.kill()
    control = t.daemon().connect()
    with open(t.path("fake"), "w+b") as fake:
        fake.truncate(100000)
        liar = Rank(t, run="liar", resumes=True)
        liar.send("resume", fds=[fake.fileno()], incarnation=1, gen=2, step=20, epoch=0)
        equal(liar.attach()["run"], "liar", "a descriptor that is no segment")
        equal(liar.welcome["incarnation"], 1, "incarnation")
    equal(Rank(t).attach(step=12)["incarnation"], 1, "incarnation")
    equal(run_of(control)["gen"], 1, "gen")
    rank.close()


@fz.test("two daemons never share a state directory")
def two_states(t):
    t.daemon()
    t.socket = t.path("other")
    second = t.daemon(wait_ready=False)
    equal(second.wait(), 1, "exit status")
    check("--state-dir" in second.errors() and t.state_dir in second.errors(), "the message", second.errors())
    check(not os.path.exists(t.socket), "its socket is left")


# --- limits ---


@fz.test("out of descriptors: peers are turned away with a sentence, and served again when there is room")
def descriptors(t):
    daemon = t.daemon()
    control = daemon.connect()
    control.require("ping")
    used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
    crowd = []
    for _ in range(20):
        one = fz.Control(t.socket)
        crowd.append(one)
    turned_away = [c for c in crowd[12:] if "descriptors" in (c.read_line() or {}).get("error", {}).get("message", "")]
    check(turned_away, "nobody was told")
    control.require("ping")
    for one in crowd:
        one.close()

    def served():
        one = fz.Control(t.socket)
        try:
            one.send("ping")
            line = one.read_line()
            return bool(line and line.get("ok"))
        except OSError:
            return False
        finally:
            one.close()

    fz.wait_until(served, "served again")


@fz.test("a peer of another user is refused with a sentence")
def other_user(t):
    if os.geteuid() != 0:
        raise fz.Skip("only root can become somebody else")
    t.daemon()
    os.chmod(t.root, 0o755)
    os.chmod(t.socket, 0o666)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        line = fz.Control(t.socket).read_line()
        os.write(writer, json.dumps(line).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        line = json.load(pipe)
    equal(line["error"]["code"], "permission", "code")
    check("65534" in line["error"]["message"], "whose uid", line)


if __name__ == "__main__":
    fz.main()
