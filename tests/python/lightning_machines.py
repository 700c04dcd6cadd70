#!/usr/bin/env python3
"""lightning_machines.py - pyfreezer.lightning on two machines: this one twice, with nothing but a network in common."""

import torchenv  # noqa: F401 - first: goes on where torch is

import json
import os
import socket

import fz
from gloo import Ranks, change, check_equal, hash_of
from lightning_help import Bare, batches, mask, trainer

import pyfreezer
from pyfreezer.lightning import Freezer, FreezerCallback

ALL = "1" * 8


def two(scene, function, **options):
    """Each rank on a machine of its own; nothing of Freezer but the library is on the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def environment(rank):
        here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": str(rank)}
        here |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        return here if rank == 0 else {**here, **dict.fromkeys(("FREEZER_SOCKET", "FREEZERD", "FREEZERCTL"), "/none")}

    return Ranks(scene, 2, function, environment=environment, **options)


class Noted(Bare):
    """Notes flags and a hash of all weights in each batch; `rank` ends it."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def training_step(self, batch, index):
        self.rank.note(step=self.trainer.global_step, frozen=mask(self), hash=hash_of(self))
        self.trainer.should_stop |= self.rank.last_step()
        return super().training_step(batch, index)


def fit(rank, callbacks, count=8, **options):
    model = Noted(rank)
    made = trainer(callbacks, devices=1, num_nodes=2, strategy="ddp", **{"max_epochs": 2, **options})
    made.fit(model, batches(count), batches(1))
    return made, model


def live(rank):
    fit(rank, [FreezerCallback(run="ddp")], count=10_000, max_epochs=-1)


@fz.test("freezerctl freezes and unfreezes on both, in the same batch, where freezerd is on the first", limit=300)
def test_live(scene):
    scene.daemon()
    ranks = two(scene, live)
    ranks.wait_step(3)
    frozen_at = change(scene, "freeze", "layers.{0..1}")
    ranks.wait_step(frozen_at + 3)
    thawed_at = change(scene, "unfreeze", "layers.0")
    ranks.wait_step(thawed_at + 3)
    check(ranks.stop(), {0: ALL, frozen_at: "00001111", thawed_at: "11001111"})


def check(steps, changes):
    """Both have the same weights in every batch, and the flags that hold from these steps on."""
    check_equal(steps, 2)
    want = [changes[max(at for at in changes if at <= step)] for step in sorted(steps)]
    fz.equal([steps[step][0]["frozen"] for step in sorted(steps)], want, "flags by batch")


RULES = {
    "version": 1,
    "rules": [{"freeze": ["layers.0"], "from": {"step": 2}, "until": {"step": 5}}],
}
KINDS = {
    "FreezerCallback": lambda rules: FreezerCallback(rules),
    "Freezer": lambda _: Freezer(name_starts_with="layers.0", until_step=3),
    "owned": lambda _: Freezer(name_starts_with="layers.0", until_epoch=1, profile="owned"),
}


def by_rules(rank, kind):
    if rank.rank == 0:
        del os.environ["FREEZER_SOCKET"]  # and no freezerd is running
    made = KINDS[kind](rank.scene.path("rules.json") if rank.rank == 0 else "on the first machine only")
    trained, model = fit(rank, [made])
    trained.fit_loop.max_epochs = 3
    trained.fit(model, batches(8))
    trained.test(model, batches(1), verbose=False)


for _kind, _want in (
    ("FreezerCallback", {0: ALL, 2: "00" + ALL[2:], 5: ALL}),
    ("Freezer", {0: "00" + ALL[2:], 3: ALL}),
    ("owned", {0: "00" + ALL[2:], 4: ALL}),
):

    @fz.test(f"{_kind}: a private freezerd on the first serves both", limit=300)
    def test_rules(scene, kind=_kind, want=_want):
        scene.write("rules.json", json.dumps(RULES))
        ranks = two(scene, by_rules, kind=kind)
        steps = ranks.join()
        check(steps, want)
        fz.equal(sorted(steps), list(range(12)), "steps")
        said = [rank.errors() for rank in ranks.ranks]
        fz.check("a private one was started on" in said[0] and "private" not in said[1], "who says where", *said)
        for text in said:
            fz.check("Traceback" not in text and "closed" not in text, "nothing went wrong", text)


def refused(rank, rules, kind):
    if rank.rank == 0:
        del os.environ["FREEZER_SOCKET"]
    if kind == "no freezerd":
        os.environ["FREEZERD"] = "/nowhere/freezerd"
    try:
        fit(rank, [FreezerCallback(rules)])
    except (pyfreezer.FreezerError, OSError) as error:
        rank.note(step=0, said=f"{type(error).__name__}: {error}")


for _kind, _rules, _want in (
    ("no match", {"version": 1, "rules": [{"freeze": ["nowhere"]}]}, "RulesError: "),
    ("no rules", {"version": 1, "rules": [{"frieze": ["layers"]}]}, "RulesError: "),
    ("no file", "/nowhere/rules.json", "FileNotFoundError: "),
    ("no freezerd", RULES, "FreezerError: a private freezerd could not be started: "),
):

    @fz.test(f"{_kind}: both say so, and neither waits for the other", limit=120)
    def test_refused(scene, kind=_kind, rules=_rules, want=_want):
        (notes,) = two(scene, refused, kind=kind, rules=rules).join().values()
        fz.equal(notes[0], notes[1], "what they say")
        fz.check(notes[0]["said"].startswith(want), "what it is", notes)


if __name__ == "__main__":
    fz.main()
