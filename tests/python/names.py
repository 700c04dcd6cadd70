#!/usr/bin/env python3
"""names.py - what is registered of a model: names in any wrapper, tied ones, what is pinned or in no optimizer."""

import torchenv  # noqa: F401 - first: goes on where torch is

import os
import socket

import fz
import pyfreezer
import torch
from pyfreezer import _names
from torch import nn
from training import WIDTH, Loop, Model


def names(model):
    return [slot.name for slot in _names.collect(model)]


def bare(model):
    return [name for name, _ in model.named_parameters()]


class HasModule(nn.Module):
    """A model with an attribute that wrappers have, too."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 2)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(10, 4)
        self.body = nn.Linear(4, 4)
        self.lm_head = nn.Linear(4, 10, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x):
        return self.lm_head(self.body(self.wte(x)))


@fz.test("the names are those of the bare model, in its order")
def test_bare(_scene):
    fz.equal(names(Model()), bare(Model()), "names")
    fz.equal(names(HasModule()), ["module.weight", "module.bias"], "names of a model with an attribute module")


@fz.test("and so they are in DDP, DataParallel, torch.compile and checkpoint wrappers")
def test_wrapped(scene):
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper

    model = Model()
    want = bare(model)
    fz.equal(names(nn.DataParallel(model)), want, "names in DataParallel")
    fz.equal(names(torch.compile(model)), want, "names in torch.compile")
    model.layers[1] = checkpoint_wrapper.checkpoint_wrapper(model.layers[1])
    model.layers[2] = torch.compile(model.layers[2])
    fz.check(bare(model) != want, "the wrappers are in the names that torch gives")
    fz.equal(names(model), want, "names with wrapped layers")

    torch.distributed.init_process_group("gloo", init_method=f"file://{scene.path('store')}", rank=0, world_size=1)
    try:
        ddp = nn.parallel.DistributedDataParallel(Model())
        fz.equal(names(ddp), want, "names in DDP")
        fz.equal(names(torch.compile(ddp)), want, "names in torch.compile and DDP")
        fz.equal(names(nn.parallel.DistributedDataParallel(HasModule())), names(HasModule()), "names in DDP")
        fz.check(_names.unwrap(torch.compile(ddp)) is ddp.module, "the bare model is found")
    finally:
        torch.distributed.destroy_process_group()


@fz.test("two parameters that would have one name are an error")
def test_collision(_scene):
    model = nn.Module()
    model.inner = nn.Module()
    model.inner._orig_mod = nn.Linear(2, 2)
    model.inner.weight = nn.Parameter(torch.zeros(1))
    try:
        names(model)
        raise fz.Failure("no error")
    except pyfreezer.LayoutError as error:
        fz.check("'inner.weight'" in str(error), "the error names it", str(error))


@fz.test("a lazy module that has no size yet is an error that names it")
def test_lazy(_scene):
    try:
        names(nn.Sequential(nn.LazyLinear(2)))
        raise fz.Failure("no error")
    except pyfreezer.LayoutError as error:
        fz.check("'0.weight'" in str(error), "the error names it", str(error))


@fz.test("a module's name stands for what is below it, and for no other that begins like it")
def test_below(_scene):
    model = Model(11)
    for parameter in model.layers[1].parameters():
        parameter.requires_grad = False
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pyfreezer.attach(model, optimizer, socket="/nonexistent", log="quiet") as session:
        fz.check(session.is_frozen("layers.1") and not session.is_frozen("layers.10"), "layers.1, not layers.10")
        fz.check(not session.is_frozen("layers") and session.is_frozen("layers.1.norm.bias"), "above and below")


@fz.test("tied parameters are one, with an alias")
def test_tied(_scene):
    model = Tied()
    slots = _names.collect(model)
    fz.equal([s.name for s in slots], bare(model), "names")
    fz.equal(slots[0].aliases, ("lm_head.weight",), "aliases")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pyfreezer.attach(model, optimizer, socket="/nonexistent", log="quiet") as session:
        model.wte.weight.requires_grad = False
        fz.check(session.is_frozen("lm_head.weight") and session.is_frozen("lm_head"), "known by its alias")
        fz.check(not session.is_frozen("body"), "the other trains")


@fz.test("any alias selects a tied parameter, once, also after freezerd was started anew")
def test_tied_live(scene):
    daemon = scene.daemon()
    loop = Loop(model=Model())
    loop.model.tied = nn.Linear(WIDTH, WIDTH, bias=False)
    loop.model.tied.weight = loop.model.embed.weight
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="tied") as session:
        result = loop.while_running(scene, "freeze", "tied")
        fz.equal((result.status, result.data["matched"]), (0, 1), f"the answer: {result!r}")
        fz.equal(session.frozen, ["embed.weight"], "frozen")
        fz.check(session.explain("tied.weight")["state"] == "frozen", "explained under its alias")
        daemon.kill()
        while session.connected:
            loop.step()
        scene.daemon()
        while not session.connected:
            loop.step()
        result = loop.while_running(scene, "unfreeze", "re:^tied")
        fz.equal((result.status, session.frozen), (0, []), f"the answer: {result!r}")


@fz.test("what is not floating point is reported and never touched")
def test_pinned(scene):
    scene.daemon()
    model = Model()
    model.table = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    loop = Loop(model=model)
    with pyfreezer.attach(model, loop.optimizer, socket=scene.socket, run="pinned") as session:
        result = loop.while_running(scene, "unfreeze", "table", "--force", "--include-baseline")
        fz.equal(result.status, 6, f"exit status of thawing it: {result!r}")
        fz.check("NOT_FLOATING_POINT" in result.err, "the code is shown", result.err)
        fz.check("table (NOT_FLOATING_POINT)" in session.summary(), "summary", session.summary())


@fz.test("inference tensors and tensors that are no leaves have codes of their own")
def test_refusals(_scene):
    model = Model()
    with torch.inference_mode():
        model.made = nn.Parameter(torch.zeros(2), requires_grad=False)
    model.register_parameter("scaled", None)
    model._parameters["scaled"] = model.embed.weight * 2
    codes = {slot.name: slot.may_train for slot in _names.collect(model) if not slot.controllable}
    fz.equal(codes, {"made": "INFERENCE", "scaled": "NOT_LEAF"}, "codes")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.is_leaf], lr=0.1)
    with pyfreezer.attach(model, optimizer, socket="/nonexistent", log="quiet") as session:
        fz.check("made (INFERENCE), scaled (NOT_LEAF)" in session.summary(), "summary", session.summary())


@fz.test("a parameter that is replaced while it trains is the one that is flipped from then on")
def test_replaced(scene):
    scene.daemon()
    rules = {"version": 1, "rules": [{"freeze": ["head"], "from": {"step": 4}}]}
    for everything in (False, True):
        loop = Loop()
        if everything:
            rules["rules"][0].update({"freeze": ["**"], "except": ["layers.3"]})
        with pyfreezer.attach(
            loop.model, loop.optimizer, socket=scene.socket, run=f"replaced{everything}", rules=rules, log="quiet"
        ) as session:
            loop.run(2)
            old, new = loop.model.head.weight, nn.Parameter(loop.model.head.weight.detach().clone())
            loop.model.head.weight = new
            group = loop.optimizer.param_groups[0]["params"]
            group[next(i for i, p in enumerate(group) if p is old)] = new
            loop.run(6)
            fz.check(not new.requires_grad and old.requires_grad and new.grad is None, "the new one is frozen")
            fz.check(session.is_frozen("head"), "is_frozen()")


@fz.test("what is in no optimizer is named, pinned, and on request an error")
def test_uncovered(scene):
    scene.daemon()
    model = Model()
    for parameter in model.embed.parameters():
        parameter.requires_grad = False
    loop = Loop(model=model)
    loop.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    try:
        pyfreezer.attach(model, loop.optimizer, socket=scene.socket, uncovered="raise")
        raise fz.Failure("no error")
    except pyfreezer.NotCovered as error:
        fz.equal(error.names, ["embed.weight", "embed.bias"], "names of the error")
        fz.check("embed.weight" in str(error) and "thawed" in str(error), "names and cure are told", str(error))
    with pyfreezer.attach(model, loop.optimizer, socket=scene.socket, run="uncovered"):
        result = loop.while_running(scene, "unfreeze", "embed", "--force", "--include-baseline")
        fz.equal(result.status, 6, f"exit status of thawing it: {result!r}")
        fz.check("NO_OPTIMIZER" in result.err, "the code is shown", result.err)


@fz.test("thawed(): what was frozen when the optimizer was built trains when it is unfrozen")
def test_thawed(scene):
    scene.daemon()
    model = Model()
    for parameter in model.embed.parameters():
        parameter.requires_grad = False
    loop = Loop(model=model)
    with pyfreezer.thawed(model):
        loop.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    fz.check(not model.embed.weight.requires_grad, "frozen again afterwards")
    with pyfreezer.attach(model, loop.optimizer, socket=scene.socket, run="thawed", uncovered="raise"):
        loop.run(5)
        before = model.embed.weight.clone()
        result = loop.while_running(scene, "unfreeze", "embed", "--force", "--include-baseline")
        fz.equal(result.status, 0, f"exit status: {result!r}")
        loop.run(result.data["step"] + 1)
        fz.check(not torch.equal(before, model.embed.weight), "it moves")
        fz.check(model.embed.weight in loop.optimizer.state, "it is in the optimizer's state")


def replace(module):
    """Gives a module another weight, as fully_shard() does; the one that it had."""
    old = module.weight
    module.weight = nn.Parameter(old.detach().clone())
    return old


@fz.test("a parameter that is another one since is the one that is flipped: alone, among most, and put back")
def test_bound_late(scene):
    scene.daemon()
    loop = Loop()
    first, second = loop.model.layers[0].linear, loop.model.layers[1].linear
    rules = [
        {"freeze": ["layers"], "from": {"step": 1}, "until": {"step": 2}},
        {"freeze": ["layers.0.linear.weight"], "from": {"step": 3}, "until": {"step": 4}},
        {"freeze": ["layers"], "from": {"step": 5}},
    ]
    with pyfreezer.attach(
        loop.model, loop.optimizer, socket=scene.socket, hook=False, rules={"version": 1, "rules": rules}
    ) as session:
        session.step(0)
        old = replace(second)
        session.step(1)
        fz.equal((old.requires_grad, second.weight.requires_grad), (True, False), "old and new among most")
        session.step(2)
        fz.check(second.weight.requires_grad, "the new one is thawed")
        old = replace(first)
        session.step(3)
        fz.equal((old.requires_grad, first.weight.requires_grad), (True, False), "old and new alone")
        session.step(4)
        new, first.weight = first.weight, old
        session.step(5)
        fz.equal((new.requires_grad, old.requires_grad), (True, False), "new and old when it is put back")
        first.weight, second.weight = second.weight, first.weight
        first.weight.requires_grad = True
        session.look()
        fz.equal(session.drift, 1, "flags that somebody else set, of two that were exchanged")
        fz.check("layers.0.linear.weight" in session.summary(), "and which", session.summary())


@fz.test("the baseline is that of the first attach, unless the script changed a flag since")
def test_baseline(scene):
    scene.daemon()
    loop = Loop()
    rules = {"version": 1, "rules": [{"freeze": ["embed", "layers.0"]}]}

    def baseline():
        return {s.name for s in _names.collect(loop.model) if not s.baseline}

    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="one", rules=rules) as session:
        fz.check(session.is_frozen("embed") and session.is_frozen("layers.0"), "the rules hold")
        fz.equal(baseline(), set(), "the baseline while the rules hold")
    fz.check(not loop.model.embed.weight.requires_grad, "the flags stay after detach()")
    loop.model.head.bias.requires_grad = False
    fz.equal(baseline(), {"head.bias"}, "the baseline after the script froze one")
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="two") as session:
        fz.check(not session.is_frozen("embed") and session.is_frozen("head.bias"), "the second run starts from it")
        session.detach(restore=True)
    for run in ("two", "three"):
        frozen = [n for n, p in loop.model.named_parameters() if not p.requires_grad]
        fz.equal(frozen, ["head.bias"], f"frozen after run {run}, with restore=True")
        with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run=run, rules=rules) as session:
            fz.check(session.is_frozen("embed"), "the rules hold again")
            session.detach(restore=True)


@fz.test("the run is called after the script")
def test_run_name(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket) as session:
        fz.equal(session.run, f"names.py-{os.getppid()}", "name of the run")
        fz.check(pyfreezer.Client(scene.socket).runs()[0]["framework"] == "pytorch", "framework")
        fz.equal(session.client._by["host"], socket.gethostname(), "host of its changes")


if __name__ == "__main__":
    fz.main()
