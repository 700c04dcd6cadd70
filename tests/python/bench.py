#!/usr/bin/env python3
"""
bench.py - what pyfreezer costs a training loop, and what freezing saves; each against its counterpart in the same run.

With words, only those parts: idle flip ddp saved. --json prints one object, --quick measures shorter. A row's two sides
take turns, and its ratio is the median of those of the turns; a target is the highest ratio that is good enough.
"""

import torchenv  # noqa: F401 - first: goes on where torch is

import ctypes
import gc
import json
import os
import statistics
import sys
import time

import fz
import lightning
import pyfreezer
import torch
from torch import nn
from training import Loop

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
from run import is_met, row, table  # noqa: E402 - the rows of `make bench`

QUICK = "--quick" in sys.argv
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compare(what, against, unit, ours, theirs, target=None, noise=1.0):
    """A row, from what the two sides took in each turn. `noise` is by how much two equal sides differ."""
    ratio = statistics.median(o / t for o, t in zip(ours, theirs))
    target = None if target is None else round(target * noise, 4)
    return row(what, against, unit, statistics.median(ours), statistics.median(theirs), ratio, target)


def limit(what, unit, ours, most):
    """A row against a figure that must not be exceeded."""
    median = statistics.median(ours)
    return row(what, "the limit", unit, median, most, median / most, 1)


# --- idle ---


class Callback:
    """What lighter's Freezer does at each batch when nothing is due: two limits, and whether it froze already."""

    def __init__(self):
        self.until_step, self.until_epoch, self.frozen = 10**9, None, True

    def on_train_batch_start(self, trainer, module, _batch, _index):
        self.on_any_batch_start(trainer, module)

    def on_any_batch_start(self, trainer, _module):
        step, epoch = trainer.global_step, trainer.current_epoch
        if self.until_step is not None and step >= self.until_step:
            return
        if self.until_epoch is not None and epoch >= self.until_epoch:
            return
        if not self.frozen:
            raise AssertionError


def in_turns(bodies, rounds, count):
    """Nanoseconds that one call of each body took, by rounds. A body gets how often to do its work."""
    took = {name: [] for name in bodies}
    for _ in range(rounds):
        for name, body in bodies.items():
            body(count)  # the processor gets to know it
            begin = time.perf_counter_ns()
            body(count)
            took[name].append((time.perf_counter_ns() - begin) / count)
    return took


def idle(scene):
    """A step at which nothing changes."""
    scene.daemon()
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="idle", log="quiet")
    hook = next(iter(loop.optimizer._optimizer_step_post_hooks.values()))
    optimizer, parameter = loop.optimizer, loop.model.head.bias
    callback, trainer = Callback(), lightning.Trainer(logger=False, enable_checkpointing=False)
    bare, nothing = ctypes.PyDLL(session._handle._library.path).freezer_generation, ctypes.c_void_p.from_param(0)

    def hooks(count):
        for _ in range(count):
            hook(optimizer, (), None)

    def callbacks(count):
        for _ in range(count):
            callback.on_train_batch_start(trainer, parameter, None, 0)

    def calls(count):
        for _ in range(count):
            bare(nothing)

    def reads(count):
        for _ in range(count):
            parameter.requires_grad  # noqa: B018

    def windows(count):
        for _ in range(count):
            session.begin_window(session_step[0], 0)
            session_step[0] += 1

    took = in_turns({"hook": hooks, "lighter": callbacks, "call": calls, "read": reads}, 100 if QUICK else 1000, 100)
    session_step = [session.position[0] + 1]
    windows_took = in_turns({"window": windows, "lighter": callbacks}, 100 if QUICK else 1000, 50)
    session.detach()
    ours, what = took["hook"], "an idle step: the optimizer's hook"
    return [
        limit(what, "ns", ours, 300),
        compare(what, "lighter's callback", "ns", ours, took["lighter"], 0.3),
        compare(what, "a call by ctypes that does nothing", "ns", ours, took["call"]),
        compare(what, "the read of requires_grad", "ns", ours, took["read"]),
        compare(
            "an idle step: begin_window(), as adapters call it", "lighter's callback", "ns",
            windows_took["window"], windows_took["lighter"],
        ),
    ]  # fmt: skip


# --- flips ---


class Flat(nn.Module):
    """Nothing but parameters, all in one list."""

    def __init__(self, count):
        super().__init__()
        self.all = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(count))


class Pairs(nn.Module):
    """As models have them, two to a module."""

    def __init__(self, count):
        super().__init__()
        self.all = nn.ModuleList(nn.Linear(1, 1) for _ in range(count // 2))


def lighter_pass(model, names, prefixes, flag):
    """lighter's pass: every parameter compared with every selector, and written."""
    for name, parameter in model.named_parameters():
        if name in names or any(name.startswith(prefix) for prefix in prefixes):
            parameter.requires_grad = flag
        else:
            parameter.requires_grad = True


def by_hand(parameters, flag):
    """The least that a flip can be."""
    if flag:
        for parameter in parameters:
            parameter.requires_grad = True
    else:
        for parameter in parameters:
            parameter.requires_grad = False
            parameter.grad = None


def clocked(function, *arguments):
    """Nanoseconds of processor time of a call, and what it returned."""
    begin = time.thread_time_ns()
    result = function(*arguments)
    return time.thread_time_ns() - begin, result


def flips(scene, build, count, chosen, rounds, in_turns=True):
    """
    Planned flips, from the call at the start of the window to the last flag written, and what a twin takes by hand and
    by lighter's pass: {False: {side: times}, True: ...}. `chosen` are indices; None: all but the first. In turns each
    side finds what the others have left in the processor's caches, so nothing of its own.
    """
    model, twin = build(count), build(count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = [name for name, _ in model.named_parameters()]
    few = [names[i] for i in chosen] if chosen else []
    selected = {"freeze": [f"name:{n}" for n in few]} if chosen else {"freeze": ["**"], "except": [names[0]]}
    rules = [{**selected, "from": {"step": 2 * i + 1}, "until": {"step": 2 * i + 2}} for i in range(rounds)]
    session = pyfreezer.attach(
        model, optimizer, socket=scene.socket, run=f"flip-{build.__name__}-{count}-{in_turns}", hook=False,
        log="quiet", rules={"version": 1, "rules": rules},
    )  # fmt: skip
    session.step(0)
    others = list(twin.parameters())
    others = [others[i] for i in chosen] if chosen else others[1:]
    took = {flag: {"ours": [], "by hand": [], "lighter": []} for flag in (False, True)}

    def flip_ours(step):
        ns, change = clocked(session.step, step)
        flipped = change.frozen_slots if step % 2 else change.unfrozen_slots
        fz.equal(len(flipped), len(others), "parameters that were flipped")
        took[step % 2 == 0]["ours"].append(ns)

    def flip_twin(step):
        flag = step % 2 == 0
        took[flag]["by hand"].append(clocked(by_hand, others, flag)[0])
        took[flag]["lighter"].append(clocked(lighter_pass, twin, few, [] if chosen else ["all."], flag)[0])

    turns = [(flip_ours, flip_twin)] if in_turns else [(flip_ours,), (flip_twin,)]
    gc.disable()
    for turn in turns:
        for step in range(1, 2 * rounds + 1):
            for body in turn:
                body(step)
    gc.enable()
    session.detach()
    return took


def scaled(values, unit):
    return [value / unit for value in values]


def flip(scene):
    scene.daemon()
    rows = []
    for in_turns, how in ((False, "again and again"), (True, "with cold caches")):
        took = flips(scene, Pairs, 10_000, range(0, 10_000, 1000), 5 if QUICK else 25, in_turns)[False]
        us = {side: scaled(times, 1e3) for side, times in took.items()}
        what = f"10 of 10,000 parameters frozen, {how}"
        rows += [] if in_turns else [limit(what, "us", us["ours"], 100)]
        rows.append(compare(what, "lighter's pass", "us", us["ours"], us["lighter"], 0.02))
    for build, how in ((Flat, "in one list"), (Pairs, "two to a module")):
        took = flips(scene, build, 100_000, None, 2 if QUICK else 7)
        for flag, verb in ((False, "frozen"), (True, "unfrozen")):
            ms = {side: scaled(times, 1e6) for side, times in took[flag].items()}
            what = f"all of 100,000 parameters, {how}, {verb}"
            rows += [
                limit(what, "ms", ms["ours"], 50),
                compare(what, "the flags set by hand", "ms", ms["ours"], ms["by hand"]),
                compare(what, "lighter's pass", "ms", ms["ours"], ms["lighter"]),
            ]
    return rows


# --- a model that computes ---


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


def train_step(model, optimizer, batch):
    """Milliseconds of it."""
    if batch.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter_ns()
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()
    if batch.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter_ns() - begin) / 1e6


# --- DDP ---

SIDES = ("without", "again", "idle")


def train_in_turns(rank, rounds):
    """Three equal models in DDP take turns, of which only "idle" is attached. Rank 0 notes what each step took."""
    rank.init()
    trained = {}
    for side in SIDES:
        torch.manual_seed(1)
        model = nn.parallel.DistributedDataParallel(Wide(blocks=4))
        trained[side] = (model, torch.optim.AdamW(model.parameters()))
    session = pyfreezer.attach(*trained["idle"], run="ddp", log="quiet")
    batch = torch.randn(32, 256)
    for number in range(rounds + 3):
        shift = number % len(SIDES)
        took = {side: train_step(*trained[side], batch) for side in SIDES[shift:] + SIDES[:shift]}
        if rank.rank == 0 and number >= 3:
            rank.note(**took)
    fz.check(session.generation > 0, "the ranks never had a plan")


def ddp(scene):
    """A step of two ranks under DDP, with Freezer idle and without."""
    from gloo import Ranks

    scene.daemon()
    ranks = Ranks(scene, 2, train_in_turns, rounds=30 if QUICK else 450)
    for rank in ranks.ranks:
        fz.equal(rank.wait(300), 0, f"exit status of {rank.name}: {rank.errors()[-3000:]}")
    notes = ranks.notes(0)
    took = {side: [note[side] for note in notes] for side in SIDES}
    what = "a step of 2 ranks under DDP"
    again = compare(f"{what}, once more without Freezer", "without Freezer", "ms", took["again"], took["without"])
    noise = max(again["ratio"], 1 / again["ratio"])
    idle_row = compare(f"{what}, Freezer idle", "without Freezer", "ms", took["idle"], took["without"], 1.01, noise)
    return [again, idle_row]


# --- what freezing saves ---

SHARES = (0, 25, 50, 75)


def attached(scene, percent):
    """(model, optimizer, session) with so many of the blocks frozen, from the input on."""
    torch.manual_seed(1)
    model = Wide().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters())
    frozen = [f"layers.{i}" for i in range(len(model.layers) * percent // 100)]
    rules = {"version": 1, "rules": [{"freeze": frozen}] if frozen else []}
    session = pyfreezer.attach(model, optimizer, socket=scene.socket, run=f"saved-{percent}", rules=rules, log="quiet")
    return model, optimizer, session


def held_mib(model, optimizer):
    """Memory of gradients and optimizer."""
    held = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return (held + sum(t.nbytes for s in optimizer.state.values() for t in s.values() if t.dim())) / 2**20


def saved(scene):
    """Step time, and memory of gradients and optimizer, with a part of the blocks frozen."""
    scene.daemon()
    trained = {percent: attached(scene, percent) for percent in SHARES}
    batch = torch.randn(64, 256, device=DEVICE)
    took = {percent: [] for percent in SHARES}
    for number in range(8 if QUICK else 43):
        for percent in SHARES:
            model, optimizer, _ = trained[percent]
            ms = train_step(model, optimizer, batch)
            if number >= 3:
                took[percent].append(ms)
    mib = {percent: held_mib(*trained[percent][:2]) for percent in SHARES}
    rows = []
    for percent in SHARES[1:]:
        what = f"{percent} % of the blocks frozen"
        rows += [
            compare(f"{what}: a step", "none frozen", "ms", took[percent], took[0]),
            compare(
                f"{what}: gradients and optimizer", "none frozen", "MiB", [mib[percent]], [mib[0]], 1 - percent / 100
            ),
        ]
    for _, _, session in trained.values():
        session.detach()
    return rows


PARTS = {"idle": idle, "flip": flip, "ddp": ddp, "saved": saved}


def main():
    torch.set_num_threads(1)
    rows = []
    for name in [word for word in sys.argv[1:] if not word.startswith("-")] or list(PARTS):
        print(f"bench: {name}", file=sys.stderr, flush=True)
        scene = fz.Scene()
        try:
            rows += [{"bench": name, **r, "met": is_met(r)} for r in PARTS[name](scene)]
            scene.end()
        finally:
            scene.destroy()
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__, "device": str(DEVICE)}
    if "--json" in sys.argv:
        print(json.dumps({"schema": "freezer.bench/1", "machine": machine, "rows": rows}))
    else:
        print(table(rows))
        print("{cores} cores, load {load:.2f}, torch {torch} on {device}".format(**machine))


if __name__ == "__main__":
    main()
