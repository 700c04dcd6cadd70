#!/usr/bin/env python3
"""compiled.py - torch.compile follows the flags; what cannot, CUDA graphs and DeepSpeed, is refused with a sentence."""

import torchenv  # noqa: F401 - first: goes on where torch is

import sys
import types
from unittest import mock

import torch

import fz
import pyfreezer
from training import Lines, Loop, Model, differing, weights

FREEZE = {"version": 1, "rules": [{"name": "a", "freeze": ["layers.0"], "from": {"step": 3}, "until": {"step": 6}}]}


GUARDS = "use_recursive_dict_tags_for_guards"
"""With these, where torch has them, a compiled graph does not see a flag that is set in place."""


def heard():
    """What is said by a session to which it is given, and by the package without one."""
    said = Lines()
    pyfreezer._log.logger.addHandler(said)
    return said


def compiled_loop(backend):
    """A loop whose model is compiled, attached; its session."""
    torch._dynamo.reset()
    loop = Loop()
    bare = loop.model
    loop.model = torch.compile(bare, backend=backend)
    return loop, bare


for _backend in ("eager", "aot_eager"):

    @fz.test(f"torch.compile(backend={_backend}): flips take effect, equal to the run that is not compiled", limit=300)
    def test_compiled(scene, backend=_backend):
        scene.daemon()
        if hasattr(torch._dynamo.config, GUARDS):
            setattr(torch._dynamo.config, GUARDS, True)
        loop, bare = compiled_loop(backend)
        session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="compiled", rules=FREEZE)
        plain = Loop()
        other = pyfreezer.attach(plain.model, plain.optimizer, socket=scene.socket, run="plain", rules=FREEZE)
        for step in range(9):
            frozen = {name.split(".")[1] for name in session.frozen}
            fz.equal(frozen, {"0"} if 3 <= step < 6 else set(), f"frozen at step {step}")
            before = weights(bare)
            loop.step()
            plain.step()
            moved = differing(before, weights(bare))
            fz.equal(any(name.startswith("layers.0.") for name in moved), not frozen, f"layers.0 moved at step {step}")
            fz.equal(differing(weights(bare), weights(plain.model)), [], f"what differs after step {step}")
        guards = (
            "use_recursive_dict_tags_for_guards"  # where torch has them, they do not see a flag that is set in place
        )
        fz.check(not getattr(torch._dynamo.config, guards, False), "guards that see no flag")
        session.detach()
        other.detach()


def step_misled(loop, parameters, gradient_of):
    """A step whose backward pass gives these other gradients; the steps at which the compiler begins anew meanwhile."""
    resets, reset, backward = [], torch._dynamo.reset, torch.Tensor.backward

    def misled(tensor, *words, **more):
        backward(tensor, *words, **more)
        for parameter in parameters:
            parameter.grad = gradient_of(parameter)

    with (
        mock.patch.object(torch.Tensor, "backward", misled),
        mock.patch.object(torch._dynamo, "reset", lambda: resets.append(loop.steps) or reset()),
    ):
        loop.step()
    return resets


@fz.test("a graph that does not follow the flags: the frozen do not move, and the compiler begins anew")
def test_canary(scene):
    scene.daemon()
    loop, bare = compiled_loop("eager")
    said = heard()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="stale", rules=FREEZE, log=said)
    loop.run(3)
    block = list(bare.layers[0].parameters())
    frozen = weights(bare, "layers.0.")
    fz.equal(step_misled(loop, block, torch.ones_like), [3], "steps at which the compiler began anew")
    fz.equal(differing(frozen, weights(bare, "layers.0.")), [], "frozen tensors that moved")
    loop.run(6)
    fz.equal(step_misled(loop, block, lambda _: None), [6], "the same, after what was unfrozen got no gradient")
    fz.check(any("did not follow the flags of layers.0" in line for line in said.lines), "it is said", said.lines)
    session.detach()


@fz.test("without an optimizer nobody sees the gradients: the compiler begins anew with each flip")
def test_no_optimizer(scene):
    scene.daemon()
    loop, bare = compiled_loop("eager")
    said = heard()
    session = pyfreezer.attach(loop.model, hook=False, socket=scene.socket, run="alone", rules=FREEZE, log=said)
    for step in range(8):
        session.step()
        before = weights(bare, "layers.0.")
        loop.step()
        fz.equal(not differing(before, weights(bare, "layers.0.")), 3 <= step < 6, f"layers.0 stood at step {step}")
    fz.equal(sum("no optimizer is known" in line for line in said.lines), 2, f"said in {said.lines}")
    session.detach()


@fz.test("torch 2.0 does not say whether it compiles: flips are made")
def test_old_torch(_scene):
    torch._dynamo.reset()  # imports it
    for compiler in (None, types.ModuleType("compiler")):
        with mock.patch.object(torch, "compiler", compiler):
            pyfreezer._compile.Compile().before_flip(None)


@fz.test("more masks than the compiler keeps: it begins anew before it gives up")
def test_masks(scene):
    scene.daemon()
    loop, _ = compiled_loop("eager")
    said = heard()
    rules = []
    for i in range(12):
        window = {"from": {"step": 2 * i + 1}, "until": {"step": 2 * i + 2 + i // 4}}
        rules.append({"name": f"r{i}", "freeze": [f"layers.{i % 4}"], **window})
    session = pyfreezer.attach(
        loop.model, loop.optimizer, socket=scene.socket, run="masks", rules={"version": 1, "rules": rules}, log=said
    )
    loop.run(30)
    fz.check(any("masks were compiled" in line for line in said.lines), "it is said", said.lines)
    session.detach()


# --- what cannot be, by fakes: there is neither a GPU nor DeepSpeed here ---


def refused(code, word, model, optimizer=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        pyfreezer.attach(model, optimizer)
    except pyfreezer.Refused as refusal:
        fz.equal(refusal.code, code, "the code")
        fz.check(word in str(refusal), "the sentence", str(refusal))
    else:
        raise fz.Failure("it was not refused")


@fz.test("DeepSpeed's engine and its optimizer are refused")
def test_zero(_scene):
    engine = type("DeepSpeedEngine", (torch.nn.Module,), {"__module__": "deepspeed.runtime.engine"})()
    engine.module = Model()
    refused("ZERO", "DeepSpeed", engine)
    optimizer = type("Zero", (torch.optim.SGD,), {"__module__": "deepspeed.runtime.zero.stage_1_and_2"})
    model = Model()
    refused("ZERO", "DeepSpeed", model, optimizer(model.parameters(), lr=0.1))
    model = Model()
    model.head.weight.ds_id = 7  # as ZeRO-3 marks what it has taken apart
    refused("ZERO", "DeepSpeed", model)


@fz.test("a model that is replayed from CUDA graphs is refused, unless they are captured anew")
def test_graphs(scene):
    scene.daemon()

    def make_graphed_callables(module):
        forward = module.forward

        def graphed(*arguments):
            return forward(*arguments)

        graphed.__qualname__ = "make_graphed_callables.<locals>.make_graphed_forward.<locals>.new_fwd"
        module.forward = graphed

    loop = Loop()
    make_graphed_callables(loop.model.layers[1])
    refused("CUDA_GRAPH", "layers.1", loop.model, loop.optimizer)
    captured = []
    session = pyfreezer.attach(
        loop.model,
        loop.optimizer,
        socket=scene.socket,
        run="graphs",
        rules=FREEZE,
        extensions=[pyfreezer.CudaGraphs(captured.append)],
    )
    loop.run(7)
    fz.equal([one.step for one in captured], [3, 6], "steps at which they were captured anew")
    session.detach()


@fz.test("within a capture nothing is flipped")
def test_capture(scene):
    scene.daemon()
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="capture", rules=FREEZE)
    real = sys.modules["torch.cuda"]
    fake = types.SimpleNamespace(is_initialized=lambda: True, is_current_stream_capturing=lambda: True)
    sys.modules["torch.cuda"] = fake
    try:
        loop.run(4)
    finally:
        sys.modules["torch.cuda"] = real
    fz.equal(session.frozen, [], "frozen")
    fz.check("captured" in session.refusal, "why", session.refusal)
    session.detach()


if __name__ == "__main__":
    fz.main()
