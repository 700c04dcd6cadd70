# runs.py - several runs on one freezerd, runs that take each other's name, runs that start again.
import shlex

import fz
from fz import check, equal

FOREVER = 10**9
SMALL = [("a.weight", 10, 1), ("a.bias", 1, 1), ("b.weight", 10, 1)]
OTHER = [("x", 10, 1), ("y", 10, 0), ("z", 10, 1)]


def run_names(control):
    return sorted(run["name"] for run in control.require("runs")["runs"])


@fz.test("two runs at once: each has its own mask; which one is meant must be said")
def two_runs(t):
    control = t.daemon().connect()
    one = t.trainer(SMALL, (0, FOREVER), run="gpt2", step_us=300)
    two = t.trainer(OTHER, (0, FOREVER), run="llama", step_us=300)
    for run in ("gpt2", "llama"):
        control.wait_attached(run)
    equal(run_names(control), ["gpt2", "llama"], "runs")

    answer = control.ask("freeze", patterns=["x"])
    equal((answer["ok"], answer["error"]["code"]), (False, "ambiguous_run"), "freeze without a run")
    result = t.ctl("freeze", "x")
    equal(result.status, 4, f"exit status of freeze without a run\n  {result!r}\n ")
    check("gpt2" in result.err and "llama" in result.err, "the runs are not listed", result)

    step = control.change("freeze", "x", run="ll")["step"]
    equal(two.wait_step(step)[3], "001", "mask of llama")
    data = t.ctl_json("freeze", "a", "-y", env={"FREEZER_RUN": "gpt2"})
    equal(one.wait_step(data["step"])[3], "001", "mask of gpt2")
    equal(two.wait_step(two.step() + 10)[3], "001", "mask of llama after a change of gpt2")
    equal(control.ask("freeze", run="nemo", patterns=["x"])["error"]["code"], "no_run", "a run that is not there")


def launch(job, attempt=0):
    return {"TORCHELASTIC_RUN_ID": job, "TORCHELASTIC_RESTART_COUNT": str(attempt)}


@fz.test("another job under a name that is taken becomes NAME-2, said in its log")
def name_taken(t):
    daemon = t.daemon()
    control = daemon.connect()
    one = t.trainer(SMALL, (0, FOREVER), run="gpt2", step_us=300, env=launch("first"))
    control.wait_attached("gpt2")
    two = t.trainer(OTHER, (0, FOREVER), run="gpt2", step_us=300, env=launch("second"))
    control.wait_attached("gpt2-2")
    step = control.change("freeze", "x", run="gpt2-2")["step"]
    equal(two.wait_step(step)[3], "001", "mask of gpt2-2")
    equal(control.require("freeze", run="gpt2", patterns=["b"], wait_ms=10000)["run"], "gpt2", "the run of an exact name")
    check("gpt2-2" in two.errors(), "the trainer was not told its name", two.errors())
    check("gpt2-2" in daemon.errors(), "freezerd did not log the name", daemon.errors())
    check(one.alive() and two.alive(), "a trainer died")


@fz.test("a run of 2 ranks that ends and starts again keeps its overrides, pins and rules")
def started_again(t):
    rules = t.write("rules.yaml", "version: 1\nrules:\n  - freeze: [b]\n    until: {step: 100000}\n")
    control = t.daemon("--rules", rules).connect()
    ranks = t.trainers(SMALL, (0, FOREVER), 2, step_us=300, env=launch("job", 0))
    control.wait_attached()
    control.change("freeze", "a.bias")
    control.change("pin", "a.weight", value="frozen", force=True, yes=True)
    step = control.change("unfreeze", "b.weight")["step"]
    for rank in ranks:
        equal(rank.wait_step(step)[3], "001", f"mask of {rank.name}")
        equal(rank.terminate(), 0, "exit status")
    wait = control.require("wait", **{"for": "detached"}, wait_ms=int(fz.seconds(10) * 1000))
    check(wait["met"], "the run did not detach", wait)
    again = t.trainers(SMALL, (step, FOREVER), 2, step_us=300, env=launch("job", 1))
    for rank in again:
        rank.wait_gen(1)
        first = rank.batches()[0]
        check(first[2] > 0 and first[3] == "001", f"first batch of {rank.name} in the new launch", first)
    control.wait_attached()
    step = control.change("unpin", "a.weight")["step"]
    for rank in again:
        equal(rank.wait_step(step)[3], "101", f"mask of {rank.name} after unpin")
    check(control.require("rules_show")["rules"], "the rules are gone")


@fz.test("a change that waits when its run ends is answered then, and is in the first plan of the next launch")
def ends_meanwhile(t):
    control = t.daemon().connect()
    ranks = t.trainers(SMALL, (0, FOREVER), 2, step_us=300, env=launch("job", 0))
    control.wait_attached()
    ranks[1].stop()
    waits = [control.send("freeze", patterns=["a.bias"], wait_ms=10**7),
             control.send("freeze", patterns=["b"], **{"for": 10**6}, yes=True, wait_ms=10**7)]
    for number in waits:
        control.accepted(number)
    ranks[1].kill()
    equal(ranks[0].terminate(), 0, "exit status")
    for number in waits:
        answer = control.answer(number)
        equal((answer["ok"], answer["applied"], answer["ranks"]), (True, False, 0), "the answer at the end of the run")
        equal([m["rank"] for m in answer["missing"]], [0, 1], "who has not applied it")
        check("next launch" in answer["missing"][0]["reason"], "why", answer["missing"])
    result = t.ctl("freeze", "a.weight", "-y", "--force")
    equal(result.status, 8, f"exit status of a change of a run that has ended {result!r}")
    check("next launch" in result.out + result.err, "what becomes of it", result)
    equal(control.require("status")["status"]["pending"], 3, "changes that wait")
    control.require("auto", patterns=["a.weight"])
    again = t.trainers(SMALL, (50, FOREVER), 2, step_us=300, env=launch("job", 1))
    for rank in again:
        rank.wait_gen(1)
        equal(rank.batches()[0][2:], (1, "100"), f"first batch of {rank.name} in the next launch")
    check(control.require("wait", **{"for": "idle"}, wait_ms=int(fz.seconds(10) * 1000))["met"], "still pending")


@fz.test("an attempt of the same job while the last one still trains: the old ranks keep their mask, the new ones rule")
def attempt(t):
    control = t.daemon().connect()
    old = t.trainer(SMALL, (0, FOREVER), run="job", step_us=300, env=launch("elastic", 0))
    control.wait_attached()
    step = control.change("freeze", "a.bias")["step"]
    old.wait_step(step)
    new = t.trainer(SMALL, (step, FOREVER), run="job", step_us=300, env=launch("elastic", 1))
    new.wait_gen(1)
    control.wait_attached()
    equal(run_names(control), ["job"], "runs")
    step = control.change("freeze", "b")["step"]
    equal(new.wait_step(step)[3], "100", "mask of the new attempt")
    equal(old.wait_step(old.step() + 50)[3], "101", "mask of the old attempt")


@fz.test("ranks that were started from different shells are one run")
def by_hand(t):
    daemon = t.daemon()
    file = t.params_file(SMALL)
    for rank in range(2):
        command = [fz.MOCK_TRAINER, "--run", "hand", "--rank", str(rank), "--world", "2", "--params", file, "--steps",
                   f"0:{FOREVER}", "--step-us", "300"]
        fz.Process(t, f"shell.{rank}", ["sh", "-c", f"{shlex.join(command)} & trap 'kill $!; wait; exit 0' TERM; wait"])
    daemon.connect().wait_attached("hand")


@fz.test("a rank that died and comes back alone to its launch takes the newest plan")
def comes_back(t):
    control = t.daemon().connect()
    ranks = t.trainers(SMALL, (0, FOREVER), 2, step_us=300)
    control.wait_attached()
    step = control.change("freeze", "a.bias")["step"]
    for rank in ranks:
        rank.wait_step(step)
    ranks[1].kill()
    ranks[0].wait_step(ranks[0].step() + 200)
    back = t.trainer(SMALL, (ranks[0].step(), FOREVER), rank=1, world=2, step_us=300)
    back.wait_gen(1)
    equal(back.batches()[0][3], "101", "first mask of the rank that came back")
    control.wait_attached()
    answer = control.change("freeze", "b")
    equal(answer["ranks"], 2, "ranks")
    for rank in (ranks[0], back):
        equal(rank.wait_step(answer["step"])[3], "100", f"mask of {rank.name}")
    fz.by_batch([ranks[0], back])


if __name__ == "__main__":
    fz.main()
