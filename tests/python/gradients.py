#!/usr/bin/env python3
"""gradients.py - what trains but gets no gradient, in reentrant checkpoints behind a frozen prefix, is named."""

import torchenv  # noqa: F401 - first: goes on where torch is

import sys
from unittest import mock

import fz
import pyfreezer
import torch
from torch.utils.checkpoint import checkpoint
from training import WIDTH, Lines, Loop, Model

FREEZE = {"version": 1, "rules": [{"freeze": ["embed"], "from": {"step": 3}}]}


class Checkpointed(Model):
    """Each block is checkpointed; one parameter is never used."""

    def __init__(self, reentrant):
        super().__init__()
        self.unused = torch.nn.Linear(WIDTH, WIDTH)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.head(x)


def said(scene, reentrant, optimizer="adamw", closure=False, idle=False, steps=8):
    """What is logged while a loop trains with a hook, or with its steps' closures."""
    loop, lines = Loop(optimizer, model=Checkpointed(reentrant)), Lines()
    session = pyfreezer.attach(
        loop.model, loop.optimizer, socket=scene.socket, rules=FREEZE, log=lines, hook=not closure
    )
    with session:
        for _ in range(steps):
            if closure:
                session.step()
                batch = torch.randn(4, WIDTH)

                def closed(batch=batch):
                    loop.optimizer.zero_grad()
                    loss = loop.model(batch).sum()
                    loss.backward()
                    return loss

                loop.optimizer.step(closed)
            else:
                loop.step()
                if idle:
                    loop.optimizer.zero_grad()
                    loop.optimizer.step()
        hooks = loop.optimizer._optimizer_step_pre_hooks
        fz.check(len(hooks) == 0 or steps < 8, "no hooks are left, which cost at each step", hooks)
    fz.equal(len(hooks), 0, "hooks that are left behind the end")
    return lines.text


@fz.test("reentrant checkpoints behind what was frozen: the blind are named, once, with what helps")
def test_reentrant(scene):
    scene.daemon()
    for words in ({}, {"optimizer": "sgd"}, {"closure": True}, {"idle": True}):
        text = said(scene, True, **words)
        fz.equal(text.count("got no gradient"), 1, f"warnings, {words}: {text}\n")
        step = "4" if "closure" in words or "idle" in words else "3"
        fz.check(f"WARNING step {step}: layers.0.norm.weight" in text, "step and names", text)
        fz.check("use_reentrant=False" in text and "enable_input_require_grads()" in text, "what helps", text)
        fz.check("unused" not in text, "what never had a gradient", text)


@fz.test("others, what is not used, and a step without a backward pass are no reason to warn")
def test_quiet(scene):
    scene.daemon()
    for words in ({}, {"optimizer": "sgd"}, {"closure": True}):
        text = said(scene, False, **words)
        fz.check("got no gradient" not in text, f"warnings, {words}", text)
        fz.check("froze embed" in text, "it was frozen", text)
    said(scene, True, closure=True, steps=4)  # ends where it has been looked, and before the next window
    loop, lines = Loop(), Lines()
    rules = {"version": 1, "rules": [{"freeze": ["embed"], "from": {"step": 1}}]}
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=rules, log=lines):
        loop.step()
        loop.optimizer.zero_grad()
        loop.optimizer.step()
        loop.step()
    fz.check(
        "got no gradient" not in lines.text and "froze" in lines.text, "after a step without gradients", lines.text
    )


@fz.test("an optimizer of which nothing would train is refused to a GradScaler, which would end the training")
def test_scaler(scene):
    scene.daemon()
    for enabled in (True, False):
        both = torch.nn.ModuleDict({"g": Model(1), "d": Model(1)})
        optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in both.values()]
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        rules = {"version": 1, "rules": [{"freeze": ["d"], "from": {"step": 2}}]}
        lines = Lines()
        with pyfreezer.attach(both, optimizers, socket=scene.socket, rules=rules, log=lines) as session:
            for _ in range(4):
                batch = torch.randn(4, WIDTH)
                scaler.scale((both["g"](batch) - both["d"](batch)).square().sum()).backward()
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
                for optimizer in optimizers:
                    optimizer.zero_grad()
            fz.equal(bool(session.frozen), not enabled, f"whether it is frozen, enabled={enabled}")
        fz.equal(lines.text.count("nothing of optimizer 2 of 2 would train"), int(enabled), f"said: {lines.text}\n")
        del scaler


NOW, THEN = "torch.amp.grad_scaler", "torch.cuda.amp.grad_scaler"


@fz.test("so is the only optimizer, if what trains besides is in none; also to the GradScaler of torch 2.0")
def test_scaler_of_a_part(scene):
    scene.daemon()
    train_a_part(scene)
    with mock.patch.dict(sys.modules, {NOW: None, THEN: sys.modules[NOW]}):
        train_a_part(scene)


def train_a_part(scene):
    model = Model(1)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    rules = {"version": 1, "rules": [{"freeze": ["head"], "from": {"step": 2}}]}
    lines = Lines()
    with pyfreezer.attach(model, optimizer, socket=scene.socket, rules=rules, log=lines) as session:
        for _ in range(4):
            scaler.scale(model(torch.randn(4, WIDTH)).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        fz.equal(session.frozen, [], "frozen")
    fz.equal(lines.text.count("nothing of optimizer 1 of 1 would train"), 1, f"said: {lines.text}\n")


if __name__ == "__main__":
    fz.main()
