#!/usr/bin/env python3
"""ddp.py - DistributedDataParallel under live changes: after every step the ranks are equal to the bit."""

import torchenv  # noqa: F401 - first: goes on where torch is

import torch
from torch.nn.parallel import DistributedDataParallel

import fz
import pyfreezer
from gloo import Ranks, check_equal
from training import OPTIMIZERS, WIDTH, Model, differing, weights

NAMES = [name for name, _ in Model().named_parameters()]


def batches(rank, seed=7):
    """Each rank's own data."""
    data = torch.Generator().manual_seed(seed + rank)
    while True:
        batch = torch.randn(4, WIDTH, generator=data)
        yield batch, batch.sum(1, keepdim=True)


def build(wrap=None, optimizer="adamw", frozen=(), thawed=True, **ddp):
    """A model with `frozen` prefixes frozen before it is wrapped, and its optimizer with everything in it."""
    torch.manual_seed(1)
    model = Model()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(tuple(frozen)) if frozen else True
    if thawed:
        with pyfreezer.thawed(model):
            wrapped = DistributedDataParallel(model, **ddp)
    else:
        wrapped = DistributedDataParallel(model, **ddp)
    return wrap(wrapped) if wrap else wrapped, optimizer


def train(rank, run="ddp", accumulate=1, **options):
    """One rank: trains until the test says so."""
    rank.init()
    wrapped, optimizer = build(**options)
    session = pyfreezer.attach(wrapped, optimizer, run=run)
    data = batches(rank.rank)
    step = 0
    while True:
        for micro in range(accumulate):
            batch, target = next(data)
            wrapped.require_backward_grad_sync = micro == accumulate - 1
            (wrapped(batch) - target).square().mean().backward()
        frozen, before = session.frozen, weights(session.model)  # of this step: the hook is behind the optimizer's
        optimizer.step()
        optimizer.zero_grad()
        rank.note_step(step, session.model, during=frozen, moved=differing(before, weights(session.model)))
        step += 1
        if rank.last_step():
            break
    session.detach()


def change(scene, *words):
    """A change that must be applied on all ranks; the step from which on it is in force."""
    result = scene.ctl(*words, "--yes", "--json")
    fz.equal(result.status, 0, f"{words}: {result!r}")
    fz.check(result.data["applied"], "the change was applied", result.data)
    return result.data["step"]


def live(scene, world, **options):
    """Freezes, unfreezes and freezes others while it trains; what all ranks noted, and the steps of the changes."""
    scene.daemon()
    ranks = Ranks(scene, world, train, **options)
    ranks.wait_step(3)
    at = [change(scene, "freeze", "layers.{0..1}", "embed")]
    ranks.wait_step(at[-1] + 3)
    at.append(change(scene, "unfreeze", "layers.0"))
    ranks.wait_step(at[-1] + 3)
    at.append(change(scene, "freeze", "head", "layers.3"))
    ranks.wait_step(at[-1] + 3)
    return finish(ranks), at


def finish(ranks):
    """Ends the ranks; checks that they were equal after every step, and that just what was not frozen moved."""
    steps = ranks.stop()
    check_equal(steps, ranks.world)
    for step, notes in steps.items():
        fz.equal(
            sorted(notes[0]["during"] + notes[0]["moved"]), sorted(NAMES), f"what was frozen or moved, step {step}"
        )
    return steps


for _world in (2, 4):
    for _unused in (False, True):

        @fz.test(f"{_world} ranks, find_unused_parameters={_unused}: equal after every step", limit=300)
        def test_live(scene, world=_world, unused=_unused):
            steps, (freeze, thaw, other) = live(scene, world, find_unused_parameters=unused)
            fz.check("embed.weight" not in steps[freeze - 1][0]["during"], "nothing is frozen before its step")
            fz.check("layers.0.linear.weight" in steps[freeze][0]["during"], "all is frozen from its step on")
            fz.check(
                "layers.0.linear.weight" not in steps[thaw][0]["during"], "what was thawed trains from its step on"
            )
            fz.check("layers.1.linear.weight" in steps[other][0]["during"], "what was not named stays")


for _unused in (False, True):

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


if __name__ == "__main__":
    fz.main()
