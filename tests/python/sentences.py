#!/usr/bin/env python3
"""sentences.py - all that pyfreezer refuses and warns of, word for word: what, why, and what to do instead."""

import torchenv  # noqa: F401 - first: goes on where torch is

import re
import sys
from types import SimpleNamespace
from unittest import mock

import fz
import pyfreezer
import torch
import torch._dynamo  # noqa: F401 - as where a model is compiled
from pyfreezer import _compile, _cudagraphs, _ddp, _fsdp, _names, _zero
from training import Lines, Loop, Model

REFUSED = {
    "STATIC_GRAPH": "DistributedDataParallel(static_graph=True) was promised that the same parameters train at each "
    "step; wrap the model without static_graph=True, if need be with find_unused_parameters=True",
    "FSDP_FLAT": "FullyShardedDataParallel has made one flat parameter of many, which trains or is frozen as a whole; "
    "wrap the model with use_orig_params=True, or use fully_shard()",
    "ZERO": "with DeepSpeed ZeRO what is frozen would still be moved by Adam, and what is thawed would never train; "
    "train with DDP or FSDP",
    "CUDA_GRAPH": "'layers.1' is replayed from CUDA graphs, which know no flags; "
    "give extensions=[pyfreezer.CudaGraphs(recapture)] a function that captures them anew",
    "CUDA_GRAPH, while it is captured": "a CUDA graph is being captured; begin the window before the capture",
    "COMPILING": "torch.compile is at work, and would miss the flip; call session.step() outside of what is compiled",
    "REFUSED_EMPTY": "nothing would train, and backward() would fail; leave a parameter trainable",
    "REFUSED_EMPTY, of a wrapper": "nothing within DistributedDataParallel(Model) would train, and with no gradient to "
    "exchange it fails; leave a parameter trainable there",
    "GRAD_SCALER": "nothing of optimizer 2 of 2 would train, and GradScaler fails at a step without gradients; "
    "leave a parameter of it trainable",
    "NO_OPTIMIZER": "2 of 20 parameters are in no optimizer: embed.weight, embed.bias; "
    "to control them, build the optimizer within pyfreezer.thawed(model)",
    "of one name": "two parameters would be called 'inner.weight' without their wrappers",
    "of no size": "parameter '0.weight' has no size yet: run the lazy module once before",
}

# What a parameter's code is answered with when somebody asks for its change with freezerctl.
SHOWN = {
    "NO_OPTIMIZER": "it is in no optimizer: build that within 'with pyfreezer.thawed(model):', so that it gets all",
    "LEFT_ALONE": "the script froze it, and Freezer was to leave that alone: name it in FreezerCallback(also=[...])",
    "DDP_NOT_COVERED": "wrap the model with find_unused_parameters=True, or give attach() a function as 'rewrap'",
    "NOT_FLOATING_POINT": "it is not of floating point and has no gradient: it can never train",
    "NOT_LEAF": "it is computed from other parameters: freeze or unfreeze those",
    "INFERENCE": "it was made under torch.inference_mode(): make it outside",
    "OF_AN_ADAPTER": "change it in the training script; no flag helps here",
}

WARNED = [
    "2 of 20 parameters are in no optimizer: embed.weight, embed.bias; Freezer leaves them alone: "
    "to control them, build the optimizer within pyfreezer.thawed(model)",
    "somebody else set requires_grad of head.bias: Freezer leaves it so until it is set back; "
    "on_conflict='enforce' sets it again",
    "step N: the flags stay as they are: nothing would train, and backward() would fail; leave a parameter trainable",
]


def said_by(function, *words):
    """The sentence of what it raises, and the code."""
    try:
        function(*words)
    except pyfreezer.FreezerError as error:
        return str(error), error.code
    raise fz.Failure(f"{function} raised nothing")


def flip(frozen=()):
    return pyfreezer.Change(1, 0, 1, tuple(frozen), ())


def refusals():
    """(key of REFUSED, what raises it)"""
    model, loop = Model(), Loop()
    engine = type("DeepSpeedEngine", (torch.nn.Module,), {"__module__": "deepspeed.runtime.engine"})()
    engine.module = model
    yield "STATIC_GRAPH", lambda: _ddp.Ddp([SimpleNamespace(static_graph=True)])
    yield "FSDP_FLAT", lambda: _fsdp.Fsdp([SimpleNamespace(_use_orig_params=False)], [])
    yield "ZERO", lambda: _zero.check(engine, [])

    def graphed():
        pass

    graphed.__qualname__ = "make_graphed_callables.<locals>.new_fwd"
    model.layers[1].forward = graphed
    yield "CUDA_GRAPH", lambda: _cudagraphs.check(model)
    capturing = SimpleNamespace(is_initialized=lambda: True, is_current_stream_capturing=lambda: True)

    def capture():
        with mock.patch.dict(sys.modules, {"torch.cuda": capturing}):
            pyfreezer.CudaGraphs().before_flip(flip())

    yield "CUDA_GRAPH, while it is captured", capture

    def compiling():
        with mock.patch("torch.compiler.is_compiling", lambda: True):
            _compile.Compile().before_flip(flip())

    yield "COMPILING", compiling
    session = pyfreezer.attach(loop.model, loop.optimizer, socket="/nonexistent", log="quiet")
    yield "REFUSED_EMPTY", lambda: session._guard(flip(session.slots))
    wrapper = SimpleNamespace(
        static_graph=False, module=Model(), parameters_to_ignore=(), find_unused_parameters=True, logger=None
    )
    yield "REFUSED_EMPTY, of a wrapper", lambda: _ddp.Ddp([wrapper]).before_flip(flip(_names.collect(wrapper.module)))
    optimizers = [torch.optim.SGD(part.parameters()) for part in (loop.model.embed, loop.model.head)]
    scaler = torch.amp.GradScaler("cpu")
    pair = pyfreezer.attach(loop.model, optimizers, socket="/nonexistent", log="quiet")
    head = [slot for slot in pair.slots if slot.name.startswith("head")]
    yield "GRAD_SCALER", lambda: scaler and pair._guard(flip(head))
    rest = [p for n, p in loop.model.named_parameters() if not n.startswith("embed")]
    optimizer = torch.optim.SGD(rest, lr=0.1)
    yield "NO_OPTIMIZER", lambda: pyfreezer.attach(loop.model, optimizer, socket="/nonexistent", uncovered="raise")
    twice = torch.nn.Module()
    twice.inner = torch.nn.Module()
    twice.inner._orig_mod = torch.nn.Linear(2, 2)
    twice.inner.weight = torch.nn.Parameter(torch.zeros(1))
    yield "of one name", lambda: _names.collect(twice)
    yield "of no size", lambda: _names.collect(torch.nn.Sequential(torch.nn.LazyLinear(2)))


@fz.test("what is refused, by its code")
def test_refused(_scene):
    seen = set()
    for key, function in refusals():
        sentence, code = said_by(function)
        fz.equal(sentence, REFUSED[key], f"the sentence of {key}")
        fz.check(code == key.partition(",")[0] or not key[0].isupper(), "its code", key, code)
        seen.add(key)
    fz.equal(set(REFUSED) - seen, set(), "sentences that nothing says")


class Codes(pyfreezer.Extension):
    """Gives each parameter a code."""

    def register(self, slots):
        for slot, code in zip(slots, SHOWN):
            slot.may_train = slot.may_freeze = code


@fz.test("what freezerctl says of a parameter that the trainer lets nobody change")
def test_shown(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, extensions=[Codes()]) as session:
        for slot, (code, hint) in zip(session.slots, SHOWN.items()):
            result = scene.ctl("freeze", slot.name, "--no-wait")
            fz.equal(result.status, 6, f"exit status: {result!r}")
            fz.check(code in result.err and f"hint: {hint}\n" in result.err, f"what is said of {code}", result.err)


@fz.test("what is warned of in the log")
def test_warned(scene):
    scene.daemon()
    said = Lines()
    loop = Loop()
    optimizer = torch.optim.SGD([p for n, p in loop.model.named_parameters() if not n.startswith("embed")], lr=0.1)
    with pyfreezer.attach(loop.model, optimizer, socket=scene.socket, hook=False, log=said) as session:
        loop.model.head.bias.requires_grad = False
        session.step(3)
        session.look()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, hook=False, log=said) as session:
        session.freeze("**", force=True)
        fz.wait_until(lambda: session.step() or session.refusal, "the refusal")
    said = [re.sub(r"^step \d+", "step N", line) for line in said.lines]
    fz.equal([line for line in said if line in WARNED], WARNED, f"warnings in {said}")


if __name__ == "__main__":
    fz.main()
