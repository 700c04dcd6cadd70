#!/usr/bin/env python3
"""fsdp.py - sharded parameters, frozen and unfrozen live: to the bit what training by hand gives."""

import torchenv  # noqa: F401 - first: goes on where torch is

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import fz
import pyfreezer
from gloo import Ranks, change, check_equal
from reference import batches, by_hand
from training import OPTIMIZERS, WIDTH, Block, Model


def second(world):
    """fully_shard() of each block, and of the whole."""
    model = Model()
    mesh = init_device_mesh("cpu", (world,))
    for block in model.layers:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def first(_world, use_orig_params=True):
    return FullyShardedDataParallel(
        Model(),
        auto_wrap_policy=ModuleWrapPolicy({Block}),
        use_orig_params=use_orig_params,
        device_id=torch.device("cpu"),
    )


def whole(model, frozen):
    """All parameters, gathered, as a model that is not sharded, with the same flags."""
    gathered = Model()
    with torch.no_grad():
        if isinstance(model, FullyShardedDataParallel):
            with FullyShardedDataParallel.summon_full_params(model, writeback=False):
                for target, source in zip(gathered.parameters(), model.parameters()):
                    target.copy_(source)
        else:
            for target, source in zip(gathered.parameters(), model.parameters()):
                target.copy_(source.full_tensor())
    for name, parameter in gathered.named_parameters():
        parameter.requires_grad = name not in frozen
    return gathered


def train(rank, shard):
    """Evaluates before each step, too: that leaves FSDP2's outermost group gathered, with the flags it had then."""
    rank.init()
    torch.manual_seed(1)
    model = shard(rank.world)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    session = pyfreezer.attach(model, optimizer, run="fsdp", hook=False)
    data = batches(rank.rank)
    for step in range(10**9):
        with torch.no_grad():
            model(torch.zeros(4, WIDTH))
        session.step()
        batch, target = next(data)
        (model(batch) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        rank.note_step(step, whole(model, session.frozen), drift=session.drift)
        if rank.last_step():
            return


def live(scene, shard):
    scene.daemon()
    ranks = Ranks(scene, 2, train, shard=shard)
    ranks.wait_step(3)
    flips = [(change(scene, "freeze", "layers.{0..1}", "embed"), ("layers.0.", "layers.1.", "embed."), False)]
    ranks.wait_step(flips[-1][0] + 3)
    flips.append((change(scene, "unfreeze", "layers.0"), ("layers.0.",), True))
    ranks.wait_step(flips[-1][0] + 3)
    flips.append((change(scene, "freeze", "layers.2.linear.weight", "head"), ("layers.2.linear.weight", "head"), False))
    ranks.wait_step(flips[-1][0] + 3)
    steps = ranks.stop()
    check_equal(steps, 2)
    fz.equal({note["drift"] for notes in steps.values() for note in notes}, {0}, "flags that somebody else changed")
    want = by_hand(flips, len(steps))
    fz.equal([i for i in range(len(want)) if steps[i][0]["hash"] != want[i]], [], "steps that differ from by hand")


@fz.test("FSDP2: fully_shard()", limit=300)
def test_second(scene):
    live(scene, second)


@fz.test("FSDP1 with use_orig_params=True", limit=300)
def test_first(scene):
    live(scene, first)


def attach_flat(rank):
    rank.init()
    model = first(rank.world, use_orig_params=False)
    try:
        pyfreezer.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    except pyfreezer.Refused as refused:
        rank.note(step=0, code=refused.code, said=str(refused))


@fz.test("FSDP1 with flat parameters is refused at attach")
def test_flat(scene):
    for notes in Ranks(scene, 2, attach_flat).join().values():
        fz.equal([note["code"] for note in notes], ["FSDP_FLAT"] * 2, "the code")
        fz.check("use_orig_params=True" in notes[0]["said"], "the sentence", notes[0])


if __name__ == "__main__":
    fz.main()
