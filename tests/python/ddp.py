#!/usr/bin/env python3
"""ddp.py - DistributedDataParallel under live changes: after every step the ranks are equal to the bit."""

import torchenv  # noqa: F401 - first: goes on where torch is

import os
import re
import time

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import fz
import pyfreezer
from gloo import Ranks, change, check_equal, restart
from reference import REDUCED, attach_other, batches, build, by_hand, finish, make, train
from training import OPTIMIZERS, Loop, Model


def counting(wrapped):
    """A communication hook that notes what is reduced; it keeps nothing else."""

    def hook(_state, bucket):
        REDUCED.append(bucket.buffer().numel())
        dist.all_reduce(bucket.buffer().div_(dist.get_world_size()))
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped.register_comm_hook(None, hook)


def live(scene, world, accumulate=1, optimizer="adamw", frozen=(), **options):
    """
    Freezes, unfreezes and freezes others while it trains. What all ranks noted, and the steps of the changes; two ranks
    must have what the training by hand has.
    """
    ranks = Ranks(scene, world, train, accumulate=accumulate, optimizer=optimizer, frozen=frozen, **options)
    ranks.wait_step(3)
    at = [change(scene, "freeze", "layers.{0..1}", "embed")]
    ranks.wait_step(at[-1] + 3)
    at.append(change(scene, "unfreeze", "layers.0"))
    ranks.wait_step(at[-1] + 3)
    at.append(change(scene, "freeze", "head", "layers.3"))
    ranks.wait_step(at[-1] + 3)
    steps = finish(ranks)
    if world == 2:
        flips = [
            (at[0], ("layers.0.", "layers.1.", "embed."), False),
            (at[1], ("layers.0.",), True),
            (at[2], ("head.", "layers.3."), False),
        ]
        want = by_hand(flips, len(steps), accumulate, optimizer=optimizer, frozen=frozen)
        got = [steps[step][0]["hash"] for step in range(len(steps))]
        fz.equal(
            [i for i, pair in enumerate(zip(got, want)) if pair[0] != pair[1]], [], "steps that differ from by hand"
        )
    return steps, at


for _world in (2, 4):
    for _unused in (False, True):

        @fz.test(f"{_world} ranks, find_unused_parameters={_unused}: equal after every step", limit=300)
        def test_live(scene, world=_world, unused=_unused):
            scene.daemon()
            steps, (freeze, thaw, other) = live(scene, world, find_unused_parameters=unused)
            fz.check("embed.weight" not in steps[freeze - 1][0]["during"], "nothing is frozen before its step")
            fz.check("layers.0.linear.weight" in steps[freeze][0]["during"], "all is frozen from its step on")
            fz.check(
                "layers.0.linear.weight" not in steps[thaw][0]["during"], "what was thawed trains from its step on"
            )
            fz.check("layers.1.linear.weight" in steps[other][0]["during"], "what was not named stays")


for _unused in (False, True):

    @fz.test(f"SGD with momentum in windows of 3 with no_sync, find_unused_parameters={_unused}", limit=300)
    def test_no_sync(scene, unused=_unused):
        scene.daemon()
        live(scene, 2, optimizer="sgd", accumulate=3, find_unused_parameters=unused)

    @fz.test(f"frozen when it was attached and thawed when it was wrapped, find_unused_parameters={_unused}", limit=300)
    def test_thawed_at_wrap(scene, unused=_unused):
        scene.daemon()
        steps, _ = live(scene, 2, frozen=["layers.2"], find_unused_parameters=unused)
        fz.check("layers.2.norm.bias" in steps[0][0]["during"], "the baseline")

    @fz.test(f"frozen when it was wrapped, find_unused_parameters={_unused}: reduced when it is thawed", limit=300)
    def test_frozen_at_wrap(scene, unused=_unused):
        scene.daemon()
        ranks = Ranks(scene, 2, train, frozen=["embed", "layers.0"], thawed=False, find_unused_parameters=unused)
        ranks.wait_step(3)
        at = change(scene, "unfreeze", "embed", "layers.0", "--force", "--include-baseline")
        ranks.wait_step(at + 5)
        steps = finish(ranks)
        fz.check("embed.weight" in steps[at - 1][0]["during"], "frozen at first")
        fz.equal(steps[at][0]["during"], [], "frozen in the end")


@fz.test("gradient_as_bucket_view, and the bare model handed to attach()", limit=300)
def test_bare(scene):
    scene.daemon()
    live(scene, 2, bare=True, gradient_as_bucket_view=True)


@fz.test("a communication hook is kept, and what is frozen is no longer reduced", limit=300)
def test_hook(scene):
    scene.daemon()
    steps, _ = live(scene, 2, hook=counting)
    elements = {name: parameter.numel() for name, parameter in Model().named_parameters()}
    for step, (note, _) in steps.items():
        fz.equal(note["reduced"], sum(elements[name] for name in note["moved"]), f"elements reduced in step {step}")


@fz.test("torch's own hook in C++ is kept", limit=300)
def test_builtin_hook(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train_with_half)
    ranks.wait_step(2)
    at = change(scene, "freeze", "layers.0")
    ranks.wait_step(at + 3)
    for notes in ranks.stop().values():
        fz.equal([note["hook"] for note in notes], ["BuiltinCommHookType.FP16_COMPRESS"] * 2, "the hook")


def train_with_half(rank):
    rank.init()
    wrapped, optimizer = build()
    wrapped._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
    session = pyfreezer.attach(wrapped, optimizer, run="ddp")
    data = batches(rank.rank)
    for step in range(10**9):
        batch, target = next(data)
        (wrapped(batch) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        rank.note_step(step, session.model, hook=wrapped._get_ddp_logging_data()["comm_hook"])
        if rank.last_step():
            return


def power_sgd(wrapped):
    state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=2)
    wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


@fz.test("PowerSGD, which keeps something for each bucket, begins anew", limit=300)
def test_power_sgd(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train, hook=power_sgd)
    ranks.wait_step(6)
    at = change(scene, "freeze", "layers.{0..1}", "embed")
    ranks.wait_step(at + 6)
    at = change(scene, "unfreeze", "layers.0")
    ranks.wait_step(at + 6)
    finish(ranks)


# --- faults ---


@fz.test("freezerd killed and started again: training goes on, and goes on being controlled", limit=300)
def test_restart(scene):
    daemon = scene.daemon()
    ranks = Ranks(scene, 2, train)
    ranks.wait_step(3)
    frozen_at = change(scene, "freeze", "layers.0")
    daemon.kill()
    gone_at = max(note["step"] for note in (ranks.notes(0)[-1], ranks.notes(1)[-1]))
    ranks.wait_step(gone_at + 10)
    restart(scene)
    thawed_at = change(scene, "unfreeze", "layers.0")
    ranks.wait_step(thawed_at + 3)
    steps = finish(ranks)
    frozen = [step for step, notes in steps.items() if "layers.0.linear.weight" in notes[0]["during"]]
    fz.equal(frozen, list(range(frozen_at, thawed_at)), "steps at which it was frozen")


def train_apart(rank, behind):
    """Nothing but Freezer is between these ranks: if they wait, it is for it. Rank 1 stays some steps behind."""
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, run="ddp")
    while not os.path.exists(rank.group.stop_file):
        while rank.rank == 1 and loop.steps == 3 and rank.notes_of(0) < loop.steps + behind:
            time.sleep(0.01)
        frozen = session.frozen
        loop.step()
        rank.note(step=loop.steps - 1, frozen=frozen, hash="")
        time.sleep(0.002)


@fz.test("a rank that is many steps behind, stands still or dies: the same steps on all, nobody waits", limit=300)
def test_apart(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train_apart, behind=60)
    ranks.wait_step(6)
    frozen_at = change(scene, "freeze", "layers.0")
    fz.check(frozen_at > 60, "from a step on that no rank has begun", frozen_at)
    late = ranks.ranks[1]

    def goes_on(steps=50):
        begin = ranks.notes(0)[-1]["step"]
        fz.wait_until(lambda: ranks.notes(0)[-1]["step"] > begin + steps, "the other goes on")

    late.stop()
    goes_on()
    fz.equal(scene.ctl("freeze", "layers.1", "--yes", "--no-wait").status, 0, "a change meanwhile")
    goes_on()
    late.cont()
    ranks.wait_noted(lambda note: len(note["frozen"]) == 8, "it is frozen on both")
    late.kill()
    goes_on()
    fz.equal(scene.ctl("unfreeze", "**", "--yes", "--no-wait").status, 0, "a change that one rank will never take")
    goes_on()
    steps = [{note["step"]: note["frozen"] for note in ranks.notes(rank)} for rank in range(2)]
    fz.equal([s for s in steps[1] if steps[0][s] != steps[1][s]], [], "steps at which the flags differ")
    fz.equal([bool(steps[0][s]) for s in (frozen_at - 1, frozen_at)], [False, True], "frozen at the step that was told")
    fz.equal(len(ranks.notes(0)[-1]["frozen"]), 8, "what stays frozen")
    fz.equal(["froze layers.0" in r.errors() for r in ranks.ranks], [True, False], "ranks that tell people")
    with open(ranks.stop_file, "w", encoding="utf-8"):
        pass
    fz.equal(ranks.ranks[0].wait(60), 0, "exit status of the other")


@fz.test("layouts or baselines that differ: attach fails on all ranks, with both and where they differ", limit=120)
def test_layouts(scene):
    scene.daemon()
    for what, where in (("layout", "layers.4.norm.weight"), ("baseline", "'head.bias' is frozen")):
        ranks = Ranks(scene, 2, attach_other, name=what, what=what)
        for notes in ranks.join().values():
            fz.equal([note["code"] for note in notes], ["LAYOUT_MISMATCH"] * 2, f"the codes, {what}")
            hashes = [set(re.findall(r"\b[0-9a-f]{16}\b", note["said"])) for note in notes]
            fz.check(len(hashes[0]) == 2 and hashes[0] == hashes[1], "both hashes on both ranks", notes)
            fz.check(all(what in note["said"] for note in notes), "which hashes they are", notes)
            fz.check(any(where in note["said"] for note in notes), "where they differ", notes)


# --- what cannot be ---


def attach_static(rank):
    rank.init()
    wrapped, optimizer = build(static_graph=True)
    try:
        pyfreezer.attach(wrapped, optimizer, run="ddp")
    except pyfreezer.Refused as refused:
        rank.note(step=0, code=refused.code, said=str(refused))


@fz.test("static_graph is refused at attach")
def test_static_graph(scene):
    scene.daemon()
    for notes in Ranks(scene, 2, attach_static).join().values():
        fz.equal([note["code"] for note in notes], ["STATIC_GRAPH"] * 2, "the code")
        fz.check("static_graph" in notes[0]["said"], "the sentence", notes[0])


def train_swapped(rank):
    """Other parameters are frozen when it is attached than were when it was wrapped, and as many."""
    rank.init()
    model, optimizer = make(frozen=["embed"])
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    for parameters, flag in ((model.embed.parameters(), True), (model.head.parameters(), False)):
        for parameter in parameters:
            parameter.requires_grad = flag
    session = pyfreezer.attach(wrapped, optimizer, run="ddp")
    go_on(rank, wrapped, optimizer, session, 5)


def train_detached(rank):
    rank.init()
    wrapped, optimizer = build()
    rules = {"version": 1, "rules": [{"freeze": ["embed"], "from": {"step": 2}}]}
    session = pyfreezer.attach(wrapped, optimizer, run="ddp", rules=rules)
    go_on(rank, wrapped, optimizer, session, 4)
    session.detach(restore=True)
    go_on(rank, wrapped, optimizer, session, 8)


def go_on(rank, wrapped, optimizer, session, steps):
    data = batches(rank.rank)
    for step in range(steps):
        batch, target = next(data)
        (wrapped(batch) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        rank.note_step(step + steps, session.model)


@fz.test("flags that were changed between the wrap and attach(), and those that a session gives back at its end")
def test_around(scene):
    scene.daemon()
    for function in (train_swapped, train_detached):
        ranks = Ranks(scene, 2, function, name=function.__name__)
        check_equal(ranks.join(), 2)


@fz.test("wrappers whose reducer cannot be built anew are known, with the reason")
def test_obstacles(scene):
    dist.init_process_group("gloo", init_method=f"file://{scene.path('store')}", rank=0, world_size=1)
    try:
        for attribute, value, word in (
            ("mixed_precision", object(), "mixed_precision"),
            ("_delay_all_reduce_params", [1], "delay_all_reduce_named_params"),
            ("_use_python_reducer", True, "compiler"),
            ("_ddp_init_helper", lambda parameters, more: None, "in another way (parameters, more)"),
        ):
            wrapped = DistributedDataParallel(Model(1))
            fz.equal(pyfreezer._reducer.obstacle(wrapped), None, "a plain wrapper")
            setattr(wrapped, attribute, value)
            fz.check(word in (pyfreezer._reducer.obstacle(wrapped) or ""), f"the reason, with {attribute}")
        wrapped = DistributedDataParallel(Model(1))
        wrapped.module.head.bias._in_backward_optimizers = []
        fz.check("within backward()" in pyfreezer._reducer.obstacle(wrapped), "an optimizer within backward()")
    finally:
        dist.destroy_process_group()


def train_part(rank):
    """DDP is around a part of the model."""
    rank.init()
    torch.manual_seed(1)
    model = torch.nn.Sequential(DistributedDataParallel(Model(1)), torch.nn.Linear(1, 1))
    rules = {"version": 1, "rules": [{"freeze": ["0"], "from": {"step": 2}, "until": {"step": 4}}]}
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    session = pyfreezer.attach(model, optimizer, run="ddp", rules=rules)
    data = batches(rank.rank)
    for step in range(6):
        batch, target = next(data)
        (model(batch) - target).square().mean().backward()
        refusal = session.refusal
        optimizer.step()
        optimizer.zero_grad()
        rank.note_step(step, model[0], refusal=refusal)


@fz.test("a flip after which nothing within a wrapper would train is refused")
def test_part(scene):
    scene.daemon()
    steps = Ranks(scene, 2, train_part).join()
    check_equal(steps, 2)
    refused = [step for step, notes in steps.items() if all(note["refusal"] for note in notes)]
    fz.equal(refused, [2, 3], "steps at which it is refused")
    fz.check("nothing within DistributedDataParallel(Model)" in steps[2][0]["refusal"], "why", steps[2][0]["refusal"])
    fz.equal({len(note["frozen"]) for notes in steps.values() for note in notes}, {0}, "what is frozen")


def train_unknown(rank, rewrap=False, **options):
    """As with a torch whose wrapper lacks the private parts."""
    rank.init()
    pyfreezer._reducer._NEEDED += ("_of_another_torch",)
    wrapped, optimizer = build(**options)

    kept = []

    def again(model):
        nonlocal wrapped
        kept.append(wrapped)  # one that somebody still holds must not go on reducing
        wrapped = DistributedDataParallel(model, **options)
        return wrapped

    session = pyfreezer.attach(wrapped, optimizer, run="ddp", rewrap=again if rewrap else None)
    data = batches(rank.rank)
    for step in range(10**9):
        batch, target = next(data)
        (wrapped(batch) - target).square().mean().backward()
        frozen = session.frozen
        optimizer.step()
        optimizer.zero_grad()
        rank.note_step(step, session.model, during=frozen)
        if rank.last_step():
            return


@fz.test("a reducer that cannot be built anew: nothing is controllable, freezerctl says why", limit=300)
def test_not_covered(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train_unknown)
    ranks.wait_step(2)
    refused = scene.ctl("freeze", "layers.0", "--yes")
    fz.check(refused.status != 0 and "DDP_NOT_COVERED" in refused.err, "freezerctl says why", refused)
    fz.check("find_unused_parameters=True" in ranks.ranks[0].errors(), "what helps", ranks.ranks[0].errors())
    check_equal(ranks.stop(), 2)


@fz.test("the same with find_unused_parameters=True, all of it known: all can be controlled", limit=300)
def test_not_needed(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train_unknown, find_unused_parameters=True)
    ranks.wait_step(2)
    at = change(scene, "freeze", "layers.0")
    ranks.wait_step(at + 3)
    check_equal(ranks.stop(), 2)


@fz.test("the same with a function that wraps the model anew", limit=300)
def test_rewrap(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train_unknown, rewrap=True)
    ranks.wait_step(2)
    at = change(scene, "freeze", "layers.0")
    ranks.wait_step(at + 3)
    at = change(scene, "unfreeze", "layers.0")
    ranks.wait_step(at + 3)
    steps = ranks.stop()
    check_equal(steps, 2)
    fz.equal(steps[at - 1][0]["during"], steps[at - 1][1]["during"], "what was frozen")
    fz.check("layers.0.norm.weight" in steps[at - 1][0]["during"], "it was frozen", steps[at - 1])


if __name__ == "__main__":
    fz.main()
