#!/usr/bin/env python3
"""
bench.py - what pyfreezer costs a training loop, and what freezing saves; each against its counterpart in the same run.

With words, only those parts: idle flip saved. --json prints one object, --quick measures shorter.
"""

import torchenv  # noqa: F401 - first: goes on where torch is

import gc
import json
import os
import resource
import sys
import time

import fz
import lightning
import pyfreezer
import torch
from torch import nn
from training import Loop

QUICK = "--quick" in sys.argv


def best(body, count, rounds=200 if QUICK else 2000):
    """Nanoseconds of one body(), of many rounds that which was disturbed least."""
    lowest = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        body(count)
        lowest = min(lowest, (time.perf_counter_ns() - begin) / count)
    return lowest


class Callback:
    """What lighter's Freezer does at each batch when nothing is due: two limits, and whether it froze already."""

    def __init__(self, trainer):
        self.until_step, self.until_epoch, self.frozen = 10**9, None, True
        self.trainer = trainer

    def on_train_batch_start(self):
        step, epoch = self.trainer.global_step, self.trainer.current_epoch
        if self.until_step is not None and step >= self.until_step:
            return
        if self.until_epoch is not None and epoch >= self.until_epoch:
            return
        if not self.frozen:
            raise AssertionError


def idle(scene):
    """A batch at which nothing changes: pyfreezer's hook, lighter's callback, and the read of an attribute."""
    scene.daemon()
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="idle", log="quiet")
    hook = next(iter(loop.optimizer._optimizer_step_post_hooks.values()))
    optimizer, callback, parameter = (
        loop.optimizer,
        Callback(lightning.Trainer(logger=False, enable_checkpointing=False)),
        loop.model.head.bias,
    )

    def hooks(count):
        for _ in range(count):
            hook(optimizer, (), None)

    def callbacks(count):
        for _ in range(count):
            callback.on_train_batch_start()

    def reads(count):
        for _ in range(count):
            parameter.requires_grad  # noqa: B018

    found = {"pyfreezer_ns": best(hooks, 100), "lighter_ns": best(callbacks, 100), "attribute_ns": best(reads, 100)}
    session.detach()
    return found


class Flat(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.all = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(count))


def lighter_pass(model, names, flag):
    """lighter's pass: every parameter compared with every selector, and written."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = flag if name in names else True


def flip_of(scene, count, chosen, rounds):
    """Microseconds of a planned flip of `chosen` among `count` parameters, and of lighter's pass for the same."""
    model = Flat(count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = [f"all.{i}" for i in chosen]
    rules = [{"freeze": [f"name:{n}" for n in names], "from": {"step": 2 * i + 1}, "until": {"step": 2 * i + 2}}
             for i in range(rounds)]  # fmt: skip
    if len(names) == count:
        rules = [{**rule, "freeze": ["**"], "except": ["all.0"]} for rule in rules]
    session = pyfreezer.attach(
        model, optimizer, socket=scene.socket, run=f"flip-{count}", hook=False, log="quiet",
        rules={"version": 1, "rules": rules},
    )  # fmt: skip
    session.step(0)
    lowest = float("inf")
    gc.disable()
    for step in range(1, 2 * rounds + 1):
        begin = time.thread_time_ns()
        change = session.step(step)
        lowest = min(lowest, time.thread_time_ns() - begin)
        fz.check(
            change is not None and len(change.frozen_slots) + len(change.unfrozen_slots) in (len(names), count - 1),
            "the flip",
            change,
        )
    gc.enable()
    session.detach()
    ours = lowest / 1000
    lighter = best(lambda _: lighter_pass(model, set(names), False), 1, rounds=5) / 1000
    return {"parameters": count, "flipped": len(names), "pyfreezer_us": ours, "lighter_us": lighter}


def flip(scene):
    """A planned flip, from the call at the start of the window to the last flag written."""
    scene.daemon()
    few = flip_of(scene, 10_000, range(0, 10_000, 1000), 20)
    every = flip_of(scene, 100_000, range(100_000), 3)
    return {"ten_of_10000": few, "all_of_100000": every}


class Wide(nn.Module):
    """Blocks that are worth computing."""

    def __init__(self, blocks=8, width=256):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(blocks)
        )

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def saved(scene):
    """Step time, and memory of gradients and optimizer, with none to three quarters of the blocks frozen."""
    scene.daemon()
    found = {}
    for percent in (0, 25, 50, 75):
        torch.manual_seed(1)
        model = Wide()
        optimizer = torch.optim.AdamW(model.parameters())
        frozen = [f"layers.{i}" for i in range(8 * percent // 100)]
        rules = {"version": 1, "rules": [{"freeze": frozen}] if frozen else []}
        session = pyfreezer.attach(
            model, optimizer, socket=scene.socket, run=f"saved-{percent}", rules=rules, log="quiet"
        )
        batch = torch.randn(64, 256)

        def step(count, model=model, optimizer=optimizer, batch=batch):
            for _ in range(count):
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()

        step(2)
        ns = best(step, 1, rounds=5 if QUICK else 20)
        held = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        held += sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.dim())
        found[f"frozen_{percent}"] = {"step_ms": ns / 1e6, "gradients_and_optimizer_mib": held / 2**20}
        session.detach()
    whole = found["frozen_0"]
    for part in found.values():
        part["time"] = part["step_ms"] / whole["step_ms"]
        part["memory"] = part["gradients_and_optimizer_mib"] / whole["gradients_and_optimizer_mib"]
    return found


PARTS = {"idle": idle, "flip": flip, "saved": saved}


def show(name, value, indent=""):
    if isinstance(value, dict):
        print(f"{indent}{name}")
        for key, inner in value.items():
            show(key, inner, indent + "  ")
    else:
        print(f"{indent}{name:32} {value:>12,.3f}" if isinstance(value, float) else f"{indent}{name:32} {value:>12,}")


def main():
    torch.set_num_threads(1)
    chosen = [word for word in sys.argv[1:] if not word.startswith("-")] or list(PARTS)
    results = {}
    for name in chosen:
        scene = fz.Scene()
        try:
            results[name] = PARTS[name](scene)
            scene.end()
        finally:
            scene.destroy()
    results["torch"] = torch.__version__
    results["cpus"] = os.cpu_count()
    results["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if "--json" in sys.argv:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name}: {value}") if isinstance(value, str) else show(name, value)


if __name__ == "__main__":
    main()
