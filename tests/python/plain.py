#!/usr/bin/env python3
"""plain.py - a plain training loop, frozen and unfrozen live, equal to the bit with one that is flipped by hand."""

import torchenv  # noqa: F401 - first: goes on where torch is

import fz
import pyfreezer
from training import OPTIMIZERS, Flip, Loop, differing, weights


def changed(result):
    """The step from which on a change is in force on every rank."""
    fz.equal(result.status, 0, f"exit status: {result!r}")
    fz.check(result.data["applied"], "the change was applied", result.data)
    return result.data["step"]


def live(scene, optimizer, set_to_none):
    """Freezes and unfreezes with freezerctl while a loop trains; the loop, and the same run by hand."""
    loop = Loop(optimizer, set_to_none)
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="plain")
    loop.run(20)
    frozen_at = changed(loop.while_running(scene, "freeze", "layers.{0..1}", "embed"))
    at_freeze = weights(loop.model)
    while loop.steps < frozen_at + 20:
        loop.step()
        fz.equal(loop.model.layers[0].linear.weight.requires_grad, False, "the flag of what is frozen")
        fz.check(loop.model.layers[0].linear.weight.grad is None, "what is frozen has no gradient")
    still = differing(at_freeze, weights(loop.model))
    fz.equal([n for n in still if n.startswith(("layers.0.", "layers.1.", "embed."))], [], "frozen tensors that moved")
    fz.check({"layers.2.linear.weight", "head.weight"} <= set(still), "the others move", still)
    thawed_at = changed(loop.while_running(scene, "unfreeze", "layers.0"))
    loop.run(thawed_at + 20)
    session.detach()

    flips = [Flip(frozen_at, p, False) for p in ("layers.0.", "layers.1.", "embed.")]
    flips.append(Flip(thawed_at, "layers.0.", True))
    by_hand = Loop(optimizer, set_to_none, flips=flips).run(loop.steps)
    fz.equal(differing(weights(loop.model), weights(by_hand.model)), [], "differences from the run by hand")
    fz.check(
        loop.model.layers[0].linear.weight in loop.optimizer.state, "what was unfrozen is in the optimizer's state"
    )


for _optimizer in OPTIMIZERS:
    for _set_to_none in (True, False):

        @fz.test(f"{_optimizer}, set_to_none={_set_to_none}: frozen and unfrozen live, equal to the run by hand")
        def test_live(scene, optimizer=_optimizer, set_to_none=_set_to_none):
            scene.daemon()
            live(scene, optimizer, set_to_none)


if __name__ == "__main__":
    fz.main()
