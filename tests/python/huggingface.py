#!/usr/bin/env python3
"""huggingface.py - FreezerCallback in the real Trainer of transformers, with a tiny model that is made here."""

import torchenv  # noqa: F401 - first: goes on where torch is

import fz
import hftrain
from hftrain import Conductor, Flips, trainer
from training import differing, weights

from pyfreezer.transformers import FreezerCallback


def changed(result):
    """The step from which on a change is in force."""
    fz.equal(result.status, 0, f"exit status: {result!r}")
    fz.check(result.data["applied"], "the change was applied", result.data)
    return result.data["step"]


@fz.test("frozen and unfrozen live, accumulating 2 batches, equal to the run by hand", limit=200)
def test_live(scene):
    scene.daemon()
    model = hftrain.model()
    results, still = [], []

    def story():
        yield from hftrain.steps(10)
        yield from hftrain.command(scene, results, "freeze", "transformer.h.{0..1}")
        frozen = weights(model, "transformer.h.0")
        yield from hftrain.steps(10)
        still.append(differing(frozen, weights(model, "transformer.h.0")))
        yield from hftrain.command(scene, results, "unfreeze", "transformer.h.0")
        yield from hftrain.steps(10)

    callback = FreezerCallback(socket=scene.socket, run="hf")
    conductor = Conductor(story())
    trainer(scene, [callback, conductor], model, gradient_accumulation_steps=2).train()
    frozen_at, thawed_at = (changed(result) for result in results)
    fz.equal(still, [[]], "frozen tensors that moved")

    flips = Flips(
        (frozen_at, "transformer.h.0.", False),
        (frozen_at, "transformer.h.1.", False),
        (thawed_at, "transformer.h.0.", True),
    )
    by_hand = hftrain.model()
    trainer(scene, [flips], by_hand, gradient_accumulation_steps=2, max_steps=conductor.steps).train()
    fz.equal(differing(weights(model), weights(by_hand)), [], "differences from the run by hand")


if __name__ == "__main__":
    fz.main()
