# faults.py - training goes on as planned without freezerd, with a stopped one, with a killed one, with one that comes late.
import statistics
import time

import fz
from fz import check, equal
from oracle import Owned

FOREVER = 10**9
PARAMS = ([("embed", 4096, 1)] + [(f"layers.{i}.{part}", 1024, 1) for i in range(4) for part in ("weight", "bias")] +
          [("teacher", 1024, 0), ("head", 4096, 1)])
BASELINE = "".join(str(flag) for _, _, flag in PARAMS)


def yaml_of(document):
    """JSON is YAML."""
    return fz.json.dumps(document)


def check_against_rules(ranks, document, first_step=0):
    """From its first batch on, every rank has the mask of the rules."""
    oracle = Owned(PARAMS, document)
    seen = fz.by_batch(ranks)
    for (step, epoch), want in oracle.masks(seen).items():
        gen, mask = seen[step, epoch]
        check(step < first_step or mask == want, f"the mask at step {step}, epoch {epoch}, gen {gen}",
              "got  " + mask, "want " + want)
    return {mask for _, mask in seen.values()}


UNTIL_STEP = {"version": 1, "rules": [{"freeze": ["embed"], "until": {"step": 6000}}]}
MIXED = {"version": 1, "pin": ["head"], "rules": [
    {"freeze": ["embed"], "until": {"step": 6000}},
    {"freeze": ["layers.0"], "from": {"step": 5001}, "until": {"epoch": 9}},
    {"freeze": ["layers.1", "layers.2.weight"], "until": {"step": 7003, "epoch": 9}},
    {"freeze": ["layers.2"], "from": {"epoch": 8}, "until": {"step": 7777, "epoch": 11}},
    {"train": ["layers.2.bias"], "from": {"step": 6500, "epoch": 10}},
]}


def flips_without_daemon(t, document, disturb, world=2, **options):
    """Two ranks run past all flips of the rules while `disturb` has been done to freezerd well before the first."""
    daemon = t.daemon("--rules", t.write("rules.yaml", yaml_of(document)))
    ranks = t.trainers(PARAMS, (0, 8500), world, step_us=150, jitter=True, **options)
    for rank in ranks:
        rank.wait_gen(1)
    disturb(daemon)
    check(all(rank.step() < 4000 for rank in ranks), "freezerd was disturbed too late to prove anything")
    for rank in ranks:
        equal(rank.wait(limit=40), 0, f"exit status of {rank.name}")
        equal(rank.step(), 8499, f"last step of {rank.name}")
        check(rank.batches()[0][2] > 0, f"{rank.name} began before its first plan", rank.batches()[0])
    check(len(check_against_rules(ranks, document)) > 1, "nothing flipped")
    daemon.cont()


@fz.test("until {step: N} holds to the step while freezerd is stopped")
def until_stopped(t):
    flips_without_daemon(t, UNTIL_STEP, fz.Daemon.stop)


@fz.test("until {step: N} holds to the step after freezerd was killed")
def until_killed(t):
    flips_without_daemon(t, UNTIL_STEP, fz.Daemon.kill)


@fz.test("windows that mix steps and epochs hold to the batch while freezerd is stopped")
def mixed_stopped(t):
    flips_without_daemon(t, MIXED, fz.Daemon.stop, epoch_every=700)


@fz.test("windows that mix steps and epochs hold to the batch after freezerd was killed")
def mixed_killed(t):
    flips_without_daemon(t, MIXED, fz.Daemon.kill, epoch_every=700, batches_per_step=2)


def rate(trainer):
    """Steps per second: the median of some short spells."""
    found = []
    for _ in range(9):
        began, first = time.monotonic(), trainer.step()
        trainer.wait_step(first + 100)
        found.append((trainer.step() - first) / (time.monotonic() - began))
    return statistics.median(found)


@fz.test("freezerd killed: the same speed with the same plan; started again: attached within a second, changes work")
def killed_and_back(t):
    daemon = t.daemon()
    ranks = t.trainers(PARAMS, (0, FOREVER), 2, step_us=500)
    control = daemon.connect()
    for rank in ranks:
        rank.wait_gen(1)
    control.change("freeze", "layers.0")
    frozen = ranks[0].wait_for(lambda s, e, g, m: m != BASELINE, "a mask with a change")[3]
    ratios = []
    for _ in range(3):
        with_daemon = rate(ranks[0])
        daemon.kill()
        killed_at = [rank.step() for rank in ranks]
        ratios.append(rate(ranks[0]) / with_daemon)
        alone_until = min(rank.step() for rank in ranks)
        for rank, at in zip(ranks, killed_at):
            check(all(m == frozen for s, _, _, m in rank.batches() if at < s <= alone_until), "a plan was lost")

        daemon = t.daemon()
        began = time.monotonic()
        control = daemon.connect()
        control.wait_attached()
        took = time.monotonic() - began
        check(took < fz.seconds(1), f"attached again after {took:.2f} s")
        for op, flag in (("unfreeze", "1"), ("freeze", "0")):
            answer = control.change(op, "layers.0")
            check(answer["nothing"] or answer["applied"], "a change after the restart", answer)
            for rank in ranks:
                got = rank.wait_step((answer["step"] or 0) + 1)
                equal(got[3][1:3], flag * 2, f"layers.0 in {rank.name} after {op}")
        frozen = got[3]
    fz.note(f"speed without freezerd : with it = {statistics.median(ratios):.3f}")
    check(0.8 < statistics.median(ratios) < 1.25, "speed changed", ratios)
    t.end()
    fz.by_batch(ranks)


@fz.test("no freezerd at the start: gen 0 and the baseline, then it attaches by itself")
def no_daemon(t):
    ranks = t.trainers(PARAMS, (0, FOREVER), 2, step_us=200)
    for rank in ranks:
        rank.wait_step(1000)
        check(all(g == 0 and m == BASELINE for _, _, g, m in rank.batches()), "not the baseline without freezerd")
    daemon = t.daemon()
    control = daemon.connect()
    control.wait_attached()
    answer = control.change("freeze", "embed")
    check(answer["applied"], "a change after a late start", answer)
    for rank in ranks:
        rank.wait_step(answer["step"])
    t.end()
    oracle = Owned(PARAMS)
    oracle.confirmed(answer, ["embed"])
    seen = fz.by_batch(ranks)
    for key, want in oracle.masks(seen).items():
        equal(seen[key][1], want, f"mask at {key}")


@fz.test("a run that starts and ends without freezerd ends well, and prints one line per batch")
def never_a_daemon(t):
    rank = t.trainer(PARAMS, (5, 25), epoch_every=10, batches_per_step=2)
    equal(rank.wait(), 0, "exit status")
    steps = [step for step, _, _, _ in rank.batches()]
    equal((min(steps), max(steps), sorted(set(steps))), (5, 24, list(range(5, 25))), "steps")
    check(all(g == 0 and m == BASELINE for _, _, g, m in rank.batches()), "not the baseline")


@fz.test("FREEZER_DISABLE=1: never attaches")
def disabled(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=200, env={"FREEZER_DISABLE": "1"})
    rank.wait_step(1500)
    equal(daemon.connect().require("runs")["runs"], [], "runs")
    check(all(g == 0 and m == BASELINE for _, _, g, m in rank.batches()), "not the baseline")


@fz.test("FREEZER_REQUIRE=1: without freezerd the trainer is told so")
def required(t):
    rank = t.trainer(PARAMS, (0, 10), env={"FREEZER_REQUIRE": "1"})
    check(rank.wait() != 0, "it trained though FREEZER_REQUIRE=1 and there is no freezerd")
    equal(rank.batches(), [], "batches")


@fz.test("freezerd stopped at the start: the trainer waits no longer than its timeout, and trains")
def stopped_at_start(t):
    daemon = t.daemon()
    daemon.stop()
    began = time.monotonic()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=200, attach_timeout_ms=300)
    rank.wait_step(0)
    took = time.monotonic() - began
    check(took < fz.seconds(2), f"the first batch after {took:.1f} s with a timeout of 0.3 s")
    rank.wait_step(1000)
    daemon.cont()
    control = daemon.connect()
    control.wait_attached()
    answer = control.change("freeze", "embed")
    check(answer["applied"], "a change after SIGCONT", answer)


OPEN_MAX = 256  # requests that may wait on one connection


@fz.test("a change that was refused, because too many requests wait, is not in force after a restart either")
def refused_and_restarted(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=1000)
    control = daemon.connect()
    control.wait_attached()
    waits = [control.send("wait", **{"for": "step"}, step=FOREVER - 1, wait_ms=60000) for _ in range(OPEN_MAX)]
    answer = control.ask("freeze", patterns=["embed"], wait_ms=1000)
    equal((answer["ok"], answer.get("error", {}).get("code")), (False, "too_many"), f"a change beside {len(waits)} waits")
    daemon.kill()
    control = t.daemon().connect()
    control.wait_attached()
    check(control.change("freeze", "head")["applied"], "a change after the restart")
    t.end()
    expected = {BASELINE, BASELINE[:-1] + "0"}
    check({mask for _, _, _, mask in rank.batches()} == expected, "the refused change came into force",
          {mask for _, _, _, mask in rank.batches()})


@fz.test("what a rule pins meanwhile is still frozen, or pinned, by hand when freezerd was restarted and the rules go")
def under_pins(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, FOREVER), step_us=1000)
    control = daemon.connect()
    control.wait_attached()
    control.change("freeze", "layers.0")
    control.change("pin", "layers.1.weight", value="frozen")
    control.change("rules_load", rules={"version": 1, "pin": ["layers.{0..1}"], "rules": [{"freeze": ["embed"]}]})
    daemon.kill()
    control = t.daemon().connect()
    control.wait_attached()
    answer = control.change("rules_unload")
    mask = rank.wait_gen(answer["gen"])[3]
    equal(mask, "1000" + BASELINE[4:], "mask without the rules")


if __name__ == "__main__":
    fz.main()
