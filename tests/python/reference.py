# reference.py - what the ranks of the tests train, and the same training without anything distributed, flipped by hand.

import torch
from torch.nn.parallel import DistributedDataParallel

import fz
import pyfreezer
from gloo import check_equal, hash_of
from training import OPTIMIZERS, WIDTH, Model, differing, weights

REDUCED = []
"""In a rank with the hook `counting`: how many elements were reduced in this step, by bucket."""

NAMES = [name for name, _ in Model().named_parameters()]


def batches(rank, seed=7):
    """Each rank's own data."""
    data = torch.Generator().manual_seed(seed + rank)
    while True:
        batch = torch.randn(4, WIDTH, generator=data)
        yield batch, batch.sum(1, keepdim=True)


def make(optimizer="adamw", frozen=()):
    """A model in which what begins with one of `frozen` is, and its optimizer, which has everything."""
    torch.manual_seed(1)
    model = Model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(tuple(frozen))
    return model, OPTIMIZERS[optimizer](model.parameters())


def by_hand(flips, steps, accumulate=1, **options):
    """Hashes of what two ranks must have after each step: the same training without DDP, with these flips."""
    model, optimizer = make(**options)
    data = [batches(0), batches(1)]
    hashes = []
    for step in range(steps):
        for at, prefixes, requires_grad in flips:
            for name, parameter in model.named_parameters():
                if at == step and name.startswith(prefixes):
                    parameter.requires_grad, parameter.grad = requires_grad, None
        gradients = []
        for rank in range(2):
            for _ in range(accumulate):
                batch, target = next(data[rank])
                (model(batch) - target).square().mean().backward()
            gradients.append([p.grad for p in model.parameters()])
            optimizer.zero_grad()
        for parameter, one, other in zip(model.parameters(), *gradients):
            parameter.grad = one / 2 + other / 2 if parameter.requires_grad else None
        optimizer.step()
        optimizer.zero_grad()
        hashes.append(hash_of(model))
    return hashes


def build(optimizer="adamw", frozen=(), thawed=True, hook=None, **ddp):
    """The same, wrapped while it was thawed or as it is."""
    model, optimizer = make(optimizer, frozen)
    if thawed:
        with pyfreezer.thawed(model):
            wrapped = DistributedDataParallel(model, **ddp)
    else:
        wrapped = DistributedDataParallel(model, **ddp)
    if hook:
        hook(wrapped)
    return wrapped, optimizer


def train(rank, run="ddp", accumulate=1, bare=False, **options):
    """One rank: trains until the test says so."""
    rank.init()
    wrapped, optimizer = build(**options)
    session = pyfreezer.attach(wrapped.module if bare else wrapped, optimizer, run=run)
    data = batches(rank.rank)
    step = 0
    while True:
        REDUCED.clear()
        for micro in range(accumulate):
            batch, target = next(data)
            wrapped.require_backward_grad_sync = micro == accumulate - 1
            (wrapped(batch) - target).square().mean().backward()
        frozen, before = session.frozen, weights(session.model)  # of this step: the hook is behind the optimizer's
        optimizer.step()
        optimizer.zero_grad()
        moved = differing(before, weights(session.model))
        rank.note_step(step, session.model, during=frozen, moved=moved, reduced=sum(REDUCED))
        step += 1
        if rank.last_step():
            break
    session.detach()


def finish(ranks):
    """Ends the ranks; checks that they were equal after every step, and that just what was not frozen moved."""
    steps = ranks.stop()
    check_equal(steps, ranks.world)
    for step, notes in steps.items():
        fz.equal(
            sorted(notes[0]["during"] + notes[0]["moved"]), sorted(NAMES), f"what was frozen or moved, step {step}"
        )
    return steps


def attach_other(rank, what):
    """Rank 1 has one block more, or another parameter that is frozen."""
    rank.init()
    model = Model(4 + (rank.rank if what == "layout" else 0))
    if what == "baseline":
        model.head.bias.requires_grad = rank.rank == 0
    try:
        pyfreezer.attach(model, OPTIMIZERS["adamw"](model.parameters()), run=what)
    except pyfreezer.LayoutError as error:
        rank.note(step=0, code=error.code, said=str(error))
