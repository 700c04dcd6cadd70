#!/usr/bin/env python3
"""machines.py - ranks of which only the first reaches freezerd, as on several machines: the others follow it."""

import torchenv  # noqa: F401 - first: goes on where torch is

import time
from unittest import mock

import torch.distributed as dist

import fz
import pyfreezer
from gloo import Ranks, change, restart
from reference import attach_other, by_hand, finish, train
from training import Loop


def alone(rank):
    """Each rank on a machine of its own, and none but the first with a freezerd."""
    place = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return place if rank == 0 else {**place, "FREEZER_SOCKET": "/nowhere"}


for _world in (2, 4):

    @fz.test(f"{_world} machines: equal after every step", limit=300)
    def test_live(scene, world=_world):
        scene.daemon()
        ranks = Ranks(scene, world, train, environment=alone)
        ranks.wait_step(3)
        flips = [(change(scene, "freeze", "layers.{0..1}", "embed"), ("layers.0.", "layers.1.", "embed."), False)]
        ranks.wait_step(flips[-1][0] + 3)
        flips.append((change(scene, "unfreeze", "layers.0"), ("layers.0.",), True))
        ranks.wait_step(flips[-1][0] + 3)
        steps = finish(ranks)
        if world == 2:
            want = by_hand(flips, len(steps))
            fz.equal([i for i in range(len(want)) if steps[i][0]["hash"] != want[i]], [], "steps unlike by hand")


@fz.test("freezerd killed and started again", limit=300)
def test_restart(scene):
    daemon = scene.daemon()
    ranks = Ranks(scene, 2, train, environment=alone)
    ranks.wait_step(3)
    frozen_at = change(scene, "freeze", "layers.0")
    daemon.kill()
    ranks.wait_step(max(ranks.notes(rank)[-1]["step"] for rank in range(2)) + 10)
    restart(scene)
    thawed_at = change(scene, "unfreeze", "layers.0")
    ranks.wait_step(thawed_at + 3)
    steps = finish(ranks)
    frozen = [step for step, notes in steps.items() if "layers.0.linear.weight" in notes[0]["during"]]
    fz.equal(frozen, list(range(frozen_at, thawed_at)), "steps at which it was frozen")


# --- without collectives of the training's own, so that what a missing rank does is Freezer's doing alone ---


def train_alone(rank, grouped=False):
    rank.init()
    loop = Loop()
    more = {"group": dist.group.WORLD} if grouped else {}
    session = pyfreezer.attach(loop.model, loop.optimizer, run="alone", group_timeout=fz.seconds(3), **more)
    while True:
        frozen = session.frozen
        loop.step()
        rank.note(step=loop.steps, frozen=frozen, hash="")
        time.sleep(0.002)


@fz.test("a rank dies: the other goes on, with the flags as they are", limit=120)
def test_death(scene):
    scene.daemon()
    ranks = Ranks(scene, 2, train_alone, environment=alone)
    ranks.wait_step(3)
    change(scene, "freeze", "layers.0")
    ranks.wait_noted(lambda note: note["frozen"], "it is frozen everywhere")
    ranks.ranks[1].kill()
    survivor = ranks.ranks[0]
    scene.ctl("unfreeze", "layers.0", "--yes", "--no-wait")
    before = ranks.notes(0)[-1]["step"]
    fz.wait_until(lambda: ranks.notes(0)[-1]["step"] > before + 50, "the survivor trains on", 30)
    fz.equal(len(ranks.notes(0)[-1]["frozen"]), 4, "what the survivor has frozen")
    fz.equal(survivor.errors().count("not all ranks come to a step any more"), 1, f"said: {survivor.errors()}\n")
    survivor.kill()


@fz.test("a rank stands still: the others wait for it no longer than they should, and all keep their flags", limit=120)
def test_stopped(scene):
    scene.daemon()
    ranks = Ranks(scene, 3, train_alone, grouped=True)
    ranks.wait_step(3)
    ranks.ranks[2].stop()
    before = [ranks.notes(rank)[-1]["step"] for rank in range(3)]
    scene.ctl("freeze", "layers.0", "--yes", "--no-wait")
    fz.wait_until(
        lambda: all(ranks.notes(rank)[-1]["step"] > before[rank] + 50 for rank in range(2)), "the others go on", 40
    )
    ranks.ranks[2].cont()
    fz.wait_until(lambda: ranks.notes(2)[-1]["step"] > before[2] + 50, "and so does it", 40)
    fz.equal([ranks.notes(rank)[-1]["frozen"] for rank in range(3)], [[]] * 3, "what they have frozen")
    for rank in ranks.ranks:
        rank.kill()


def train_without(rank):
    rank.init()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, run="without") as session:
        loop.run(5)
        rank.note(step=session.position[0], frozen=session.frozen, hash="", connected=session.connected)


@fz.test("a rank without libfreezer: none is controlled, nobody waits, and it is said", limit=120)
def test_without(scene):
    scene.daemon()

    def environment(rank):
        return {**alone(rank), **({"FREEZER_LIBRARY": scene.path("none.so")} if rank == 1 else {})}

    ranks = Ranks(scene, 2, train_without, environment=environment)
    fz.equal([note["connected"] for note in ranks.join()[5]], [False, False], "who is attached")
    fz.check("not all ranks have libfreezer" in ranks.ranks[0].errors(), "what the one says", ranks.ranks[0].errors())
    fz.check("there is no libfreezer" in ranks.ranks[1].errors(), "what the other says", ranks.ranks[1].errors())


@fz.test("layouts or baselines that differ: attach fails on all ranks, with both and where they differ", limit=120)
def test_layouts(scene):
    scene.daemon()
    for what, where in (
        ("layout", "'layers.4.norm.weight' (8 elements,"),
        ("baseline", "'head.bias' (1 elements, frozen)"),
    ):
        for notes in Ranks(scene, 2, attach_other, environment=alone, name=what, what=what).join().values():
            fz.equal([note["code"] for note in notes], ["LAYOUT_MISMATCH"] * 2, "the codes")
            fz.equal(notes[0]["said"], notes[1]["said"], "what is said")
            fz.check(where in notes[0]["said"], "where", notes[0])


@fz.test("a group of all ranks is asked for with what torch 2.0 takes, too")
def test_old_torch(_scene):
    taken = []

    def new_group(ranks, timeout, backend):
        taken.append(ranks)

    with (
        mock.patch.multiple(
            dist, get_process_group_ranks=lambda _group: [0, 1], get_world_size=lambda: 2, get_rank=lambda: 0
        ),
        mock.patch.object(dist, "new_group", new_group),
    ):
        pyfreezer._distributed.PlanGroup(object())
    fz.equal(taken, [[0, 1]], "the ranks of the group")


if __name__ == "__main__":
    fz.main()
