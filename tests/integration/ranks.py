# ranks.py - all ranks of a run change at the same step, under many live changes, however they start and whatever dies.
import random

import fz
from fz import check, equal
from oracle import Owned, select

WORLD = 4
FOREVER = 10**9
PARAMS = ([("positions", 512, 0), ("embed.weight", 4096, 1)] +
          [(f"layers.{i}.{part}", 1024, 1) for i in range(6) for part in ("attn.weight", "attn.bias", "mlp.weight")] +
          [("norm.weight", 64, 1), ("head.weight", 4096, 1)])
NAMES = [name for name, _, _ in PARAMS]
BASELINE = "".join(str(flag) for _, _, flag in PARAMS)
TARGETS = ["embed", "layers.0", "layers.{1..2}", "layers.*.attn.bias", "layers.3.mlp", "re:^layers\\.[45]\\.", "norm",
           "prefix:layers.1", "name:layers.5.mlp.weight", "layers.**.weight"]


def random_change(rng):
    """(operation, pattern, fields) of one live change."""
    op = rng.choice(["freeze"] * 4 + ["unfreeze"] * 3 + ["auto"] * 2 + ["pin", "unpin"])
    fields = {}
    if op in ("freeze", "unfreeze"):
        fields = rng.choice([{}, {}, {}, {"for": rng.randint(1, 400)}])
    if op == "pin":
        fields = {"value": rng.choice(["frozen", "training"])}
    return op, rng.choice(TARGETS), fields


def make_change(control, oracle, op, pattern, fields):
    """Makes a change over the wire, checks its answer and tells the oracle; returns (gen, step), or None if refused."""
    number = control.send(op, patterns=[pattern], yes=True, wait_ms=int(fz.seconds(30) * 1000), **fields)
    answer = control.answer(number)
    if not answer["ok"]:
        check(answer["error"]["code"].startswith("refused"), "a change failed", op, pattern, fields, answer)
        return None
    if answer.get("nothing"):
        return None
    check(answer["applied"] and answer["ranks"] == WORLD and not answer["missing"], "not applied by all", answer)
    if "for" in fields:
        equal(answer["until_step"], answer["step"] + fields["for"], "the end of --for")
    value = {"frozen": False, "training": True}.get(fields.get("value"))
    oracle.confirmed(answer, [pattern], value=value)
    return answer["gen"], answer["step"]


def make_change_by_ctl(t, oracle, op, pattern):
    data = t.ctl_json(op, pattern, "-y")
    check(data["applied"] and data["ranks"] == WORLD, "not applied by all", data)
    oracle.confirmed(data, [pattern])
    return data["gen"], data["step"]


def check_confirmed(ranks, confirmed):
    """Each change was confirmed with the step at which every rank took its plan, if it did not begin later itself."""
    for rank in ranks:
        first = rank.batches()[0][0]
        for gen, step in confirmed:
            equal(fz.first_step_of(rank, gen), max(step, first), f"the step at which {rank.name} took gen {gen}")


def check_masks(ranks, oracle):
    """All ranks have printed one mask per batch, and it is the oracle's."""
    seen = fz.by_batch(ranks)
    for key, want in oracle.masks(seen).items():
        check(seen[key][1] == want, f"the mask at step {key[0]}, epoch {key[1]}, gen {seen[key][0]}",
              "got  " + seen[key][1], "want " + want)
    return seen


@fz.test("four ranks, 100 live changes: one mask at every step, each change confirmed with its true step")
def hundred_changes(t):
    daemon = t.daemon()
    ranks = t.trainers(PARAMS, (0, FOREVER), WORLD, step_us=200, jitter=True)
    control, oracle, rng = daemon.connect(), Owned(PARAMS), random.Random(4)
    for rank in ranks:
        rank.wait_gen(1)
    confirmed = []
    made = 0
    while len(confirmed) < 90:
        made += 1
        check(made < 1000, "too many of the changes do nothing")
        done = make_change(control, oracle, *random_change(rng))
        confirmed += [done] if done else []
    make_change(control, oracle, "unpin", "**", {})
    for i in range(10):
        confirmed.append(make_change_by_ctl(t, oracle, ("freeze", "unfreeze")[i % 2], "layers.0.mlp.weight"))
    last = confirmed[-1][1]
    for rank in ranks:
        rank.wait_step(last + 500)
    t.end()
    check_confirmed(ranks, confirmed)
    seen = check_masks(ranks, oracle)
    check(len({mask for _, mask in seen.values()}) > 20, "the masks hardly changed")
    check(all(rank.batches()[0][2] > 0 for rank in ranks), "a rank's first batch was before the first plan")


@fz.test("ranks that start up to 2 s apart: the baseline until the first plan, then one mask at every step")
def staggered(t):
    daemon = t.daemon()
    control, oracle, rng = daemon.connect(), Owned(PARAMS), random.Random(5)
    options = dict(world=WORLD, attach_timeout_ms=0, jitter=True)
    ranks = [t.trainer(PARAMS, (0, FOREVER), rank=0, step_us=200, seed=1, **options)]
    ranks[0].wait_step(10)
    fz.wait_until(lambda: control.ask("status").get("status", {}).get("ranks") == 1, "the first rank has attached")
    first = control.send("freeze", patterns=["layers.0"], wait_ms=int(fz.seconds(40) * 1000))
    control.accepted(first)
    status = control.require("status")["status"]
    equal(status["missing"], [1, 2, 3], "ranks that status misses")
    for rank, moment, begin in ((1, 1000, 0), (2, 4000, 3000), (3, 8000, 8100)):
        ranks[0].wait_step(moment)
        ranks.append(t.trainer(PARAMS, (begin, FOREVER), rank=rank, step_us=200, seed=rank + 1, **options))
    answer = control.answer(first)
    check(answer["ok"] and answer["applied"], "the first change", answer)
    oracle.confirmed(answer, ["layers.0"])
    confirmed = [(answer["gen"], answer["step"])]
    while len(confirmed) < 12:
        done = make_change(control, oracle, *random_change(rng))
        confirmed += [done] if done else []
    t.end()
    check_confirmed(ranks, confirmed)
    check_masks(ranks, oracle)
    for rank in ranks:
        check(all(mask == BASELINE for _, _, gen, mask in rank.batches() if gen == 0), "before the first plan")


def check_effects(ranks, made):
    """
    What holds across restarts of freezerd, whatever it remembers: from the confirmed step of a change to the next
    change, or to the end of that daemon, what it selects has its flag.
    """
    seen = fz.by_batch(ranks)
    for step, end, pattern, flag in made:
        selected = select([pattern], NAMES)
        for (at, epoch), (gen, mask) in seen.items():
            if step <= at < end:
                check(all(mask[i] == flag for i in selected),
                      f"{pattern} is not {flag} at step {at}, gen {gen}, though changed at step {step}", mask)
        before = seen[step - 1, 0][1]
        check(any(before[i] != flag for i in selected), f"the change of {pattern} came before {step}", before)


@fz.test("ranks start apart while freezerd is killed and started again: no two ranks differ at a step", limit=90)
def restarted(t):
    options = dict(world=WORLD, attach_timeout_ms=0, jitter=True)
    ranks, made, rng = [], [], random.Random(6)

    def start_rank(rank):
        """Each lags behind the first by the time that its start takes, or is ahead of it."""
        first = ranks[0].step() + (-500, 300)[rank % 2] if ranks else 0
        ranks.append(t.trainer(PARAMS, (first, FOREVER), rank=rank, step_us=200, seed=rank, **options))
        ranks[-1].wait_step(first + 500)

    def random_flip():
        """A module, and the flag that it does not have."""
        module = rng.randrange(6)
        mask = ranks[0].batches()[-1][3]
        return f"layers.{module}", "10"[int(mask[NAMES.index(f"layers.{module}.mlp.weight")])]

    def live_for(daemon, n):
        """Waits until all ranks have attached, makes n changes, kills the daemon with one more on its way."""
        control, changes = daemon.connect(), []
        control.wait_attached()
        for _ in range(n):
            pattern, flag = random_flip()
            answer = control.change(("freeze", "unfreeze")[int(flag)], pattern)
            check(answer["applied"], "not applied", answer)
            if changes:
                changes[-1][1] = answer["step"]
            changes.append([answer["step"], answer["step"] + 1, pattern, flag])
        made.extend(changes)
        control.send("freeze", patterns=["norm"])
        daemon.kill()

    start_rank(0)
    start_rank(1)
    daemon = t.daemon()
    fz.wait_until(lambda: daemon.connect().ask("status").get("status", {}).get("ranks") == 2, "two ranks attached")
    start_rank(2)
    daemon.kill()
    start_rank(3)
    live_for(t.daemon(), 4)
    ranks[0].wait_step(ranks[0].step() + 300)
    live_for(t.daemon(), 4)
    live_for(t.daemon(), 3)
    last = max(rank.step() for rank in ranks)
    for rank in ranks:
        rank.wait_step(last)
    t.end()
    check_effects(ranks, made)


@fz.test("freezerd killed five times among 50 changes: what was confirmed holds, and no bit flips by a restart", limit=90)
def nothing_lost(t):
    daemon = t.daemon()
    ranks = t.trainers(PARAMS, (0, FOREVER), WORLD, step_us=200, jitter=True)
    for rank in ranks:
        rank.wait_gen(1)
    oracle, rng, confirmed = Owned(PARAMS), random.Random(7), []
    for _ in range(5):
        control = daemon.connect()
        control.wait_attached()
        for _ in range(10):
            done = make_change(control, oracle, *random_change(rng))
            confirmed += [done] if done else []
        daemon.kill()
        ranks[0].wait_step(ranks[0].step() + rng.choice([0, 300]))
        daemon = t.daemon()
    control = daemon.connect()
    control.wait_attached()
    make_change(control, oracle, "unpin", "**", {})
    confirmed.append(make_change(control, oracle, "freeze", "norm", {"for": 50}))
    last = max(rank.step() for rank in ranks)
    for rank in ranks:
        rank.wait_step(last + 500)
    t.end()
    check_confirmed(ranks, confirmed)
    check_masks(ranks, oracle)


@fz.test("a rank that begins many steps while a plan is made: a change for N steps ends N after it began, and is told so",
         limit=300) # of a slow disk
def fast_rank(t):
    daemon = t.daemon()
    rank = t.trainer(PARAMS, (0, 10**12), quiet=True, step_us=0)
    control, steps, ends = daemon.connect(), 10**12, {}
    control.wait_attached()
    for i in range(30):
        answer = control.require("freeze", patterns=[f"layers.{i % 6}"], wait_ms=int(fz.seconds(30) * 1000),
                                 **{"for": steps + i})
        equal(answer["until_step"], answer["step"] + steps + i, "the end of --for")
        ends[i % 6] = answer["until_step"]
        equal(answer["next"], {"step": min(ends.values())}, "the next change")
        layers = control.require("explain", param=f"layers.{i % 6}.attn.bias")["layers"]
        text = next(layer["text"] for layer in layers if layer["decides"])
        check(f"{answer['until_step']:,}" in text, "what explain is answered from", text, answer)
    equal(rank.terminate(), 0, "exit status")


@fz.test("one rank stopped: the others go on, changes queue and coalesce, status and freezerctl name it")
def stopped_rank(t):
    world, stopped = 3, 2
    daemon = t.daemon()
    ranks = t.trainers(PARAMS, (0, FOREVER), world, step_us=200, jitter=True)
    for rank in ranks:
        rank.wait_gen(1)
    control, oracle = daemon.connect(), Owned(PARAMS)
    ranks[stopped].stop()
    stopped_at = ranks[stopped].step()

    sent = []
    for i in range(24):
        op, pattern = ("unfreeze", "freeze")[i % 2 == 0], f"layers.{i // 2 % 6}"
        sent.append((control.send(op, patterns=[pattern], wait_ms=int(fz.seconds(60) * 1000)), pattern))
        control.accepted(sent[-1][0])
    queued = control.require("freeze", patterns=["norm"], wait_ms=1, **{"for": 10**9})
    equal((queued["gen"], queued["until_step"], queued["next"]), (None, None, None), "of --for while it is queued")
    now = ranks[0].step()
    for rank in ranks[:stopped]:
        rank.wait_step(now + 1000)
    status = control.require("status")["status"]
    changes = status["pending_changes"]
    check(changes and all(change["waiting_for"] == [stopped] for change in changes), "pending", status)
    result = t.ctl("freeze", "norm", "--timeout", "0.3")
    equal(result.status, 8, f"exit status while a rank is stopped\n  {result!r}\n ")
    check(f"rank {stopped}" in result.err + result.out, "the stopped rank is not named", result)
    check(all(number not in control.answers or not control.answers[number]["applied"] for number, _ in sent),
          "a change was confirmed without a rank that is stopped")

    ranks[stopped].cont()
    superseded = 0
    for number, pattern in sent:
        answer = control.answer(number)
        if answer["superseded_by"] is not None:
            check(not answer["applied"], "superseded and applied", answer)
            superseded += 1
            continue
        check(answer["ok"] and answer["applied"] and answer["ranks"] == world, "not confirmed after SIGCONT", answer)
        check(answer["step"] > stopped_at, "in effect at a step that the stopped rank had begun", answer)
        oracle.confirmed(answer, [pattern])
    check(superseded > 0, "24 changes of 6 modules, a ring of few slots, and nothing was superseded")
    check(control.require("wait", **{"for": "idle"}, wait_ms=int(fz.seconds(20) * 1000))["met"], "still pending")
    norm_from = next(step for step, _, _, mask in ranks[0].batches() if mask[NAMES.index("norm.weight")] == "0")
    oracle.change(norm_from, "freeze", ["norm"])
    t.end()
    check_masks(ranks, oracle)


@fz.test("ranks whose parameters or baselines differ: neither can open, and each says where they differ")
def at_odds(t):
    t.daemon()
    others = {"layout": PARAMS[:-1] + [("head.bias", 4096, 1)], "baseline": PARAMS[:-1] + [("head.weight", 4096, 0)]}
    for what, other in others.items():
        ranks = [t.trainer(params, (0, FOREVER), rank=rank, world=2, run=what, step_us=500)
                 for rank, params in enumerate((PARAMS, other))]
        for rank in ranks:
            equal(rank.wait(20), 1, f"exit status of rank {rank.rank}")
            check("have different parameters" in rank.errors() and "head.weight" in rank.errors(), what, rank.errors())


@fz.test("a rank whose parameters differ comes to one that trains, which is told and goes on, whatever freezerd does")
def at_odds_later(t):
    daemon = t.daemon()
    other = PARAMS[:-1] + [("head.bias", 4096, 1)]

    def start(params, rank, wait_ms):
        return t.trainer(params, (0, FOREVER), rank=rank, world=2, run="late", step_us=500, attach_timeout_ms=wait_ms)

    def refused():
        equal(start(other, 1, 30000).wait(20), 1, "exit status of the one that differs")
        first.wait_step(first.step() + 500)

    first = start(PARAMS, 0, 50)
    first.wait_step(10)
    refused()
    second = start(PARAMS, 1, 30000)
    first.wait_gen()
    daemon.kill()
    second.kill()
    t.daemon()
    first.wait_step(first.step() + 1000)
    refused()
    check(first.errors().count("is another") == 1, "what it was told before its first plan, and once", first.errors())


if __name__ == "__main__":
    fz.main()
