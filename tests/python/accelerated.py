#!/usr/bin/env python3
"""accelerated.py - a plain loop of accelerate: windows end with sync_gradients, checkpoints have the session."""

import torchenv  # noqa: F401 - first: goes on where torch is

import hftrain  # noqa: F401 - before accelerate: no network
import torch
from accelerate import Accelerator

import fz
import pyfreezer
from training import WIDTH, Flip, Loop, Model, differing, weights

ACCUMULATE = 3
RULES = {
    "version": 1,
    "rules": [
        {"freeze": ["layers.0", "embed"], "from": {"step": 3}},
        {"freeze": ["layers.1"], "from": {"step": 5}, "until": {"step": 9}},
    ],
}
FLIPS = [
    *(Flip(3, prefix, False) for prefix in ("layers.0.", "embed.")),
    Flip(5, "layers.1.", False),
    Flip(9, "layers.1.", True),
]


class Accelerated:
    """What training.Loop does, as accelerate's users write it. The batches are those of its generator."""

    def __init__(self, wrap=lambda model: model, seed=1, **options):
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
        torch.manual_seed(seed)
        model = Model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        self.model, self.optimizer = self.accelerator.prepare(wrap(model), optimizer)
        self.hook = options.get("hook", True)
        self.session = pyfreezer.attach(self.model, self.optimizer, **options)
        self.accelerator.register_for_checkpointing(self.session)
        self.batches = torch.Generator().manual_seed(2)
        self.steps = 0

    def run(self, steps):
        while self.steps < steps:
            if not self.hook and self.accelerator.sync_gradients:  # of the batch before: a window begins
                self.session.step()
            with self.accelerator.accumulate(self.model):
                batch = torch.randn(4, WIDTH, generator=self.batches)
                loss = (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
                self.accelerator.backward(loss * ACCUMULATE)  # which divides by it
                self.optimizer.step()
                self.optimizer.zero_grad()
            self.steps += self.accelerator.sync_gradients
        return self


def by_hand(steps, flips=FLIPS):
    return Loop(accumulate=ACCUMULATE, flips=flips).run(steps)


@fz.test("accumulating 3 batches, with the hook and without, flips are equal to those by hand", limit=200)
def test_windows(scene):
    scene.daemon()
    for hook in (True, False):
        loop = Accelerated(socket=scene.socket, rules=RULES, hook=hook).run(12)
        loop.session.detach()
        fz.equal(differing(weights(loop.model), weights(by_hand(12).model)), [], f"differences, hook={hook}")


@fz.test("a compiled model: the optimizer within accelerate's wrapper shows that it follows the flags", limit=200)
def test_compiled(scene):
    scene.daemon()
    loop = Accelerated(lambda model: torch.compile(model, backend="eager"), socket=scene.socket, rules=RULES).run(12)
    loop.session.detach()
    fz.equal(differing(weights(loop.model._orig_mod), weights(by_hand(12).model)), [], "differences")
    fz.equal(len(loop.optimizer.optimizer._optimizer_step_pre_hooks), 0, "hooks that are left")


@fz.test("register_for_checkpointing(session): what is restored goes on as if it had not ended", limit=200)
def test_checkpoint(scene):
    daemon = scene.daemon()
    first = Accelerated(socket=scene.socket, rules=RULES).run(7)
    first.accelerator.save_state(scene.path("at7"))
    batches = first.batches.get_state()
    first.session.detach()

    def restored(**options):
        loop = Accelerated(seed=5, socket=scene.socket, **options)
        loop.accelerator.load_state(scene.path("at7"))
        loop.batches.set_state(batches)
        loop.steps = 7
        fz.equal(loop.session.position, (7, 0), "where the session is")
        loop.run(12).session.detach()
        return weights(loop.model)

    fz.equal(differing(restored(rules=RULES), weights(by_hand(12).model)), [], "differences with freezerd")
    daemon.terminate()
    alone = by_hand(12, FLIPS[:-1])  # without rules nothing ends what is frozen
    fz.equal(differing(restored(), weights(alone.model)), [], "differences without freezerd")


if __name__ == "__main__":
    fz.main()
