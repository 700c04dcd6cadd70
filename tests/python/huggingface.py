#!/usr/bin/env python3
"""huggingface.py - FreezerCallback in the real Trainer of transformers, with a tiny model that is made here."""

import torchenv  # noqa: F401 - first: goes on where torch is

import os
import sys

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

import fz
import hftrain
import pyfreezer
from hftrain import Conductor, Flips, trainer
from training import Lines, differing, weights

from pyfreezer.transformers import FreezerCallback, _has_adapters


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


@fz.test("epochs that end within a window of accumulation: flips by step and by epoch are those by hand", limit=200)
def test_epochs(scene):
    """16 batches make 5 windows of 3 and one of 1."""
    scene.daemon()
    by_step = {"freeze": ["transformer.h.0"], "from": {"step": 7}, "until": {"step": 13}}
    by_epoch = {"freeze": ["transformer.h.1"], "from": {"epoch": 1}, "until": {"epoch": 2}}
    model, by_hand = hftrain.model(), hftrain.model()
    callback = FreezerCallback(socket=scene.socket, rules={"version": 1, "rules": [by_step, by_epoch]})
    options = {"gradient_accumulation_steps": 3, "max_steps": 16}
    trainer(scene, [callback], model, **options).train()
    flips = Flips(
        (6, "transformer.h.1.", False),
        (7, "transformer.h.0.", False),
        (12, "transformer.h.1.", True),
        (13, "transformer.h.0.", True),
    )
    trainer(scene, [flips], by_hand, **options).train()
    fz.equal(differing(weights(model), weights(by_hand)), [], "differences from the run by hand")


# --- what is in the optimizer ---

TRAIN = {"version": 1, "rules": [{"train": ["transformer.h.0"], "from": {"step": 3}}]}
WEIGHT, BIAS = "transformer.h.0.mlp.c_fc.weight", "transformer.h.0.ln_1.bias"


def frozen_at_start():
    model = hftrain.model()
    model.transformer.h[0].requires_grad_(False)
    return model


def check_thawed(made, model, before):
    """That the block which was frozen trains from step 3 on and is in the group of its like."""
    fz.equal(weights_at(made, 3)[WEIGHT].equal(before[WEIGHT]), True, "frozen before step 3")
    fz.check(not model.get_parameter(WEIGHT).equal(before[WEIGHT]), "thawed, it trains")
    for name, decay in ((WEIGHT, 0.1), (BIAS, 0.0)):
        fz.equal(decays(made, model.get_parameter(name)), [decay], f"weight decay of {name}")


def decays(made, parameter):
    return [g["weight_decay"] for g in made.optimizer.param_groups for p in g["params"] if p is parameter]


class Watch(TrainerCallback):
    """Keeps the weights at the start of each step."""

    def __init__(self):
        self.weights = {}

    def on_step_begin(self, args, state, control, model=None, **_):
        self.weights[state.global_step] = weights(model)


def weights_at(made, step):
    return next(c for c in made.callback_handler.callbacks if isinstance(c, Watch)).weights[step]


@fz.test("what is frozen when the Trainer is made is in its optimizer, and trains when a rule thaws it", limit=300)
def test_thawed(scene):
    scene.daemon()
    model = frozen_at_start()
    before = weights(model)
    callback = FreezerCallback(socket=scene.socket, rules=TRAIN, uncovered="raise")  # nothing is missing
    made = trainer(scene, [callback, Watch()], model, max_steps=6)
    made.train()
    check_thawed(made, model, before)


@fz.test("a callback that comes late adds what is missing to the group of its like, or names it", limit=300)
def test_late(scene):
    scene.daemon()
    model = frozen_at_start()
    before = weights(model)
    made = trainer(scene, [Watch()], model, max_steps=6)
    made.add_callback(FreezerCallback(socket=scene.socket, rules=TRAIN))
    made.train()
    check_thawed(made, model, before)

    made = trainer(scene, [], frozen_at_start(), max_steps=6)
    made.add_callback(FreezerCallback(socket=scene.socket, uncovered="raise"))
    try:
        made.train()
    except pyfreezer.NotCovered as error:
        fz.equal(sorted({name.split(".")[2] for name in error.names}), ["0"], "blocks that are missing")
        fz.check("transformer.h.0.ln_1.weight" in str(error) and "constructor" in str(error), "a sentence", str(error))
    else:
        raise fz.Failure("NotCovered was not raised")

    alone = hftrain.model()  # whose frozen parameters have no like in the optimizer
    norms = [m for m in alone.modules() if isinstance(m, torch.nn.LayerNorm)]
    for module in (alone.transformer.wte, alone.transformer.wpe, *norms):
        module.requires_grad_(False)
    made = trainer(scene, [], alone, max_steps=1)
    made.add_callback(FreezerCallback(socket=scene.socket))
    made.train()
    fz.equal([decays(made, p) for p in (alone.transformer.wpe.weight, norms[0].bias)], [[0.1], [0.0]], "weight decay")

    kept = frozen_at_start()
    made = trainer(scene, [], kept, max_steps=6)
    made.add_callback(FreezerCallback(socket=scene.socket, rules=TRAIN, uncovered="pin"))
    made.train()
    fz.equal(
        differing(weights(frozen_at_start(), "transformer.h.0"), weights(kept, "transformer.h.0")), [], "what moved"
    )


@fz.test("a run with a late callback is the same; its checkpoints are resumed with the callback in time", limit=300)
def test_late_resume(scene):
    scene.daemon()

    def run(folder, late=False, checkpoint=None):
        model, said = frozen_at_start(), Lines()
        callback = FreezerCallback(socket=scene.socket, rules=TRAIN, run=folder, log=said)
        saving = {"save_strategy": "steps", "save_steps": 4}
        made = trainer(scene, [] if late else [callback], model, folder=folder, max_steps=8, **saving)
        if late:
            made.add_callback(callback)
        made.train(resume_from_checkpoint=checkpoint and scene.path(checkpoint))
        return weights(model), [line for line in said.lines if "in no optimizer" in line]

    whole, said = run("in time")
    fz.equal(said, [], "warnings")
    late, said = run("late", late=True)
    fz.equal(differing(whole, late), [], "differences of a run with a late callback")
    fz.check(len(said) == 1 and "to resume" in said[0] and "constructor" in said[0], "it says how to resume", said)
    resumed, _ = run("again", checkpoint="late/checkpoint-4")
    fz.equal(differing(whole, resumed), [], "differences of the resumed run")


@fz.test("the base below an adapter of PEFT is left alone, but for what is listed", limit=300)
def test_peft(scene):
    scene.daemon()
    around = type("PeftModel", (hftrain.GPT2LMHeadModel,), {"__module__": "peft.peft_model"})
    fz.check(_has_adapters(around(hftrain.model().config)), "a model of PEFT's has adapters")
    model = hftrain.model().requires_grad_(False)
    model._hf_peft_config_loaded = True  # as add_adapter() leaves it
    model.transformer.h[2].requires_grad_(True)  # for what an adapter trains
    listed = ["transformer.ln_f", "lm_head.weight"]  # the second is tied to wte
    callback = FreezerCallback(socket=scene.socket, also=listed, run="peft")
    made = trainer(scene, [callback], model, max_steps=4)
    thawed = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    made.train()
    kept = {slot.name for slot in callback.session.slots if slot.may_train == "LEFT_ALONE"}
    fz.equal({name.split(".")[1] for name in kept}, {"wpe", "h"}, "modules that are left alone")
    fz.check(not any("h.2" in name for name in kept), "not what trains", kept)
    fz.equal(thawed, {slot.name for slot in callback.session.slots} - kept, "what was thawed for the optimizer")
    fz.equal(sum(len(g["params"]) for g in made.optimizer.param_groups), len(thawed), "parameters in the optimizer")
    for wrong in ({"also": "nowhere"}, {"control": "some"}, {"uncovered": "x"}, {"hook": True}):
        try:
            trainer(scene, [FreezerCallback(**wrong)], model)
        except (pyfreezer.NoMatch, ValueError, TypeError) as error:
            fz.check(str([*wrong.values()][0]) in str(error) or "hook" in str(error), "a sentence", str(error))
        else:
            raise fz.Failure(f"{wrong} was taken")


# --- checkpoints ---

RULES = {
    "version": 1,
    "rules": [
        {"freeze": ["transformer.h.0"], "from": {"step": 4}},
        {"freeze": ["transformer.h.1"], "from": {"step": 6}, "until": {"step": 14}},
    ],
}


def resumed(scene, folder, options, **arguments):
    """A run in a fresh process's terms: a new model, Trainer and callback, from the checkpoint at step 10."""
    model = hftrain.model(seed=9)
    callback = FreezerCallback(socket=scene.socket, **options)
    made = trainer(scene, [callback], model, folder=folder, max_steps=20, **arguments)
    made.train(resume_from_checkpoint=scene.path("whole/checkpoint-10"))
    return model, made, callback


@fz.test("a resumed run is equal to one without an interruption, with and without freezerd", limit=400)
def test_resume(scene):
    daemon = scene.daemon()
    whole = hftrain.model()
    saving = {"save_strategy": "steps", "save_steps": 10}
    callback = FreezerCallback(socket=scene.socket, rules=RULES, run="whole", norm="eval")
    trainer(scene, [callback], whole, folder="whole", max_steps=20, **saving).train()
    fz.equal(callback.session._settings.norm, "eval", "an option of attach()")

    for restore in (False, True):
        changes = []  # this is no plain argument, but what the Trainer makes anew from a checkpoint has it all the same
        options = {"rules": RULES, "run": "again", "on_change": changes.append}
        model, made, callback = resumed(
            scene, f"again.{restore}", options, restore_callback_states_from_checkpoint=restore, **saving
        )
        fz.equal(differing(weights(whole), weights(model)), [], f"differences, callbacks restored: {restore}")
        fz.equal(
            [change.step for change in changes],
            [10, 14],
            f"steps at which flags changed, callbacks restored: {restore}",
        )
        fz.equal(sum(isinstance(c, FreezerCallback) for c in made.callback_handler.callbacks), 1, "callbacks")

    # h.0 and h.1 are frozen in the checkpoint: without freezerd both stay so
    daemon.terminate()
    flips = [Flips((4, "transformer.h.0.", False), (6, "transformer.h.1.", False))]
    by_hand = hftrain.model()
    trainer(scene, flips, by_hand, max_steps=20).train()
    model, _, callback = resumed(scene, "alone", {})
    fz.equal({name.split(".")[2] for name in callback.session.frozen}, {"0", "1"}, "blocks that are frozen")
    fz.equal(differing(weights(by_hand), weights(model)), [], "differences without freezerd")


@fz.test("a second train() begins anew, and a checkpoint without Freezer's state can be resumed and saved", limit=300)
def test_again(scene):
    plain = {"save_strategy": "steps", "save_steps": 4}
    trainer(scene, [], folder="plain", max_steps=4, **plain).train()
    scene.daemon()
    callback = FreezerCallback(socket=scene.socket, rules=RULES, run="again")
    made = trainer(scene, [callback], folder="later", max_steps=8, **plain)
    made.train(resume_from_checkpoint=scene.path("plain/checkpoint-4"))
    fz.equal({name.split(".")[2] for name in callback.session.frozen}, {"0", "1"}, "blocks frozen at step 8")
    first = callback.session
    made.args.max_steps = 2
    made.train()
    fz.check(callback.session is not first, "another session")
    fz.equal(callback.session.frozen, [], "frozen at step 1, by the rules")


# --- several ranks ---

RANKS = """
import os, sys, types
sys.path[:0] = [{tests!r}, {integration!r}]
import hftrain, torch
from huggingface import Watch, frozen_at_start
from pyfreezer.transformers import FreezerCallback

scene = types.SimpleNamespace(path=lambda name: os.path.join({root!r}, name))
rules = {{"version": 1, "rules": [
    {{"freeze": ["transformer.h.1"], "from": {{"step": 3}}, "until": {{"step": 8}}}},
    {{"train": ["transformer.h.0"], "from": {{"step": 5}}}},
]}}
for find_unused in (True, False):
    watch = Watch()
    callback = FreezerCallback(socket={socket!r}, rules=rules, run=f"ranks-{{find_unused}}")
    options = {{"ddp_find_unused_parameters": find_unused, "ddp_backend": "gloo"}}
    made = hftrain.trainer(scene, [callback, watch], frozen_at_start(), max_steps=11, **options)
    made.train()
    assert type(made.model_wrapped).__name__ == "DistributedDataParallel"
    torch.save(watch.weights, scene.path(f"rank{{os.environ['RANK']}}.{{find_unused}}"))
"""


@fz.test("two ranks under DDP stay equal while blocks are frozen and one is thawed, find_unused both ways", limit=900)
def test_ranks(scene):
    scene.daemon()
    here = os.path.dirname(os.path.abspath(__file__))
    places = {"tests": here, "integration": os.path.dirname(fz.__file__), "root": scene.root, "socket": scene.socket}
    script = scene.write("ranks.py", RANKS.format(**places))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script]
    process = fz.Process(scene, "torchrun", torchrun, {"FREEZER_LIBRARY": os.environ["FREEZER_LIBRARY"]})
    fz.equal(process.wait(800), 0, f"exit status: {process.errors()[-3000:]}")
    for find_unused in (True, False):
        one, other = (torch.load(scene.path(f"rank{rank}.{find_unused}")) for rank in range(2))
        fz.equal([step for step in one if differing(one[step], other[step])], [], "steps at which ranks differ")
        still = {0: range(1, 6), 1: range(4, 9)}
        for block, steps in still.items():
            name = f"transformer.h.{block}.mlp.c_fc.weight"
            unmoved = [step for step in range(1, 11) if one[step][name].equal(one[step - 1][name])]
            fz.equal(unmoved, list(steps), f"steps at whose start block {block} is as before, {find_unused}")


# --- windows and logs ---


class Seen(TrainerCallback):
    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **_):
        self.logs.append(dict(logs))


@fz.test(
    "every logger sees the trainable share, freezerd gets what is logged, evaluation's metrics are left as they are"
)
def test_logs(scene):
    scene.daemon()
    seen = Seen()
    callback = FreezerCallback(socket=scene.socket, rules={"version": 1, "rules": [{"freeze": ["transformer.h.0"]}]})
    made = trainer(scene, [seen, callback], max_steps=4, logging_steps=2)
    reported = {}
    callback_metric = pyfreezer.Session.metric
    pyfreezer.Session.metric = lambda self, name, value: reported.setdefault(name, value)
    try:
        made.train()
        metrics = made.evaluate(hftrain.data(4))
    finally:
        pyfreezer.Session.metric = callback_metric
    share = round(callback.session.trainable_pct, 4)
    fz.check(0 < share < 100, "a share", share)
    of_training = [logs for logs in seen.logs if "loss" in logs]
    fz.equal([logs["freezer/trainable_pct"] for logs in of_training], [share, share], "what a logger before it saw")
    history = [entry for entry in made.state.log_history if "loss" in entry]
    fz.equal([entry["freezer/trainable_pct"] for entry in history], [share, share], "in log_history")
    fz.check(of_training[0]["freezer/generation"] >= 1, "the generation", of_training)
    fz.check({"loss", "learning_rate", "eval_loss"} <= set(reported), "metrics", reported)
    fz.check(not any(name.startswith("freezer") for name in [*metrics, *reported]), "metrics are not ours", metrics)


@fz.test("where on_step_begin comes within windows, or never, flags change where they begin all the same", limit=200)
def test_misaligned(scene):
    """As in transformers 4.28 to 4.45: windows of 4 batches go on over the end of an epoch of 6, unlike its count."""
    scene.daemon()
    # The second window, which on_step_begin misses, tells where windows begin: those behind it are exact.
    fz.equal(misaligned(scene, 4)[2:], [2, 3, 3, 3], "blocks frozen in the third window and later")
    fz.equal(misaligned(scene, 0)[1:], [1, 2, 3, 3, 3], "blocks frozen from the second window on")


def misaligned(scene, comes):
    """How many blocks each window has frozen, where on_step_begin comes each so many batches of an epoch, or never."""
    rules = {"version": 1, "rules": [{"freeze": [f"transformer.h.{n}"], "from": {"step": n + 1}} for n in range(3)]}
    model = hftrain.model()
    optimizer = torch.optim.AdamW(model.parameters())
    callback = FreezerCallback(socket=scene.socket, rules=rules, run=f"every {comes}")
    state, control = TrainerState(), TrainerControl()
    words = {"model": model, "optimizer": optimizer}
    callback.on_init_end(None, state, control, **words)
    callback.on_train_begin(None, state, control, **words)
    batch, flags = 0, []
    for _epoch in range(4):
        callback.on_epoch_begin(None, state, control, **words)
        for step in range(6):
            if comes and step % comes == 0:
                callback.on_step_begin(None, state, control, **words)
            flags.append(sum(not block.ln_1.weight.requires_grad for block in model.transformer.h))
            batch += 1
            if batch % 4 == 0:
                state.global_step += 1
                callback.on_step_end(None, state, control, **words)
    callback.on_train_end(None, state, control, **words)
    windows = [flags[i : i + 4] for i in range(0, 24, 4)]
    fz.check(all(window == [window[0]] * 4 for window in windows), "no flag changes within a window", windows)
    fz.equal(windows[0][0], 0, "in the first window")
    return [window[0] for window in windows]


if __name__ == "__main__":
    fz.main()
