#!/usr/bin/env python3
"""lightning_callback.py - pyfreezer.lightning.FreezerCallback in a real Trainer."""

import torchenv  # noqa: F401 - first: goes on where torch is

import contextlib
import copy
import logging.handlers
import os
import re

import fz
from lightning_help import Bare, Gan, at_batches, batches, trainer
import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyLogger
import torch
from torch import nn

from pyfreezer import FreezerError, NotCovered
from pyfreezer.lightning import Freezer, FreezerCallback
from training import differing, weights

os.environ.pop("FREEZER_SOCKET", None)


class ByHand(pl.Callback):
    """Flips at the start of the window in which a step begins: {step: (prefix, requires_grad)}."""

    def __init__(self, flips):
        self.flips = dict(flips)

    def on_train_batch_start(self, trainer, module, _batch, batch_idx):
        if batch_idx % trainer.accumulate_grad_batches == 0 and trainer.global_step in self.flips:
            prefix, flag = self.flips.pop(trainer.global_step)
            for name, parameter in module.named_parameters():
                if name.startswith(prefix):
                    parameter.requires_grad = flag
                    parameter.grad = None


class At(pl.Callback):
    """Calls a function at the end of the batch with this number, counted over all epochs."""

    def __init__(self, number, function):
        self.left, self.function = number, function

    def on_train_batch_end(self, trainer, *_):
        if self.left == 0:
            self.function(trainer)
        self.left -= 1


def rule(prefix, start, end, action="freeze"):
    return {action: [f"prefix:{prefix}"], "from": {"step": start}, "until": {"step": end}}


def rules(*each):
    return {"version": 1, "rules": list(each)}


def fit(model, callbacks, count=10, ckpt_path=None, validate=0, same=False, **options):
    made = trainer(callbacks, **options)
    made.fit(model, batches(count, same), batches(validate) if validate else None, ckpt_path=ckpt_path)
    return made


@fz.test("rules flip at window starts: equal to the bit with a run flipped by hand, with accumulation and short epochs")
def test_rules(_scene):
    for accumulate in (1, 3):
        model, by_hand = Bare(), Bare()
        options = {"max_epochs": 3, "accumulate_grad_batches": accumulate, "num_sanity_val_steps": 2}
        callback = FreezerCallback(rules(rule("layers.0", 3, 7)))
        fit(model, [callback], validate=2, **options)
        fit(by_hand, [ByHand({3: ("layers.0", False), 7: ("layers.0", True)})], validate=2, **options)
        fz.equal(model.seen, by_hand.seen, "every batch")
        fz.check(any(flags[0] == "0" for *_, flags in model.seen), "something was frozen")
        fz.equal(differing(weights(model), weights(by_hand)), [], "weights")
        fz.equal(callback.session, None, "the session after the fit")


@fz.test("freezerctl freezes and unfreezes a Trainer's module live; a change made in a window waits for its end")
def test_live(scene):
    scene.daemon()
    model, results, at = Bare(), {}, {}

    def ask(verb):
        def function(trainer):
            at[verb] = trainer.global_step
            results[verb] = scene.ctl(verb, "layers.{0..1}", "--no-wait", "--yes", "--json")

        return function

    callback = FreezerCallback(socket=scene.socket, run="live")
    fit(model, [callback, At(5, ask("freeze")), At(29, ask("unfreeze"))], 60, accumulate_grad_batches=4)
    fz.equal([results[verb].status for verb in results], [0, 0], f"exit statuses {results}")
    masks = at_batches(model)
    flags = [masks[step][0] for step in range(15)]
    fz.equal(len({f[3:5] for *_, f in model.seen}), 2, "masks of layers.1")
    fz.equal(flags[: at["freeze"] + 1], ["1"] * (at["freeze"] + 1), "before the freeze")
    fz.equal(flags[at["freeze"] + 1], "0", "the window behind the freeze")
    fz.equal(flags[at["unfreeze"] + 1], "1", "the window behind the unfreeze")
    for step in range(15):
        seen = {f for kind, s, _, f in model.seen if kind == "train" and s == step}
        fz.equal(len(seen), 1, f"masks within the window of step {step}")


@fz.test("what is frozen at the start and filtered by configure_optimizers trains after an unfreeze")
def test_thaw(_scene):
    model = Bare(frozen=["layers.0"], everything=False)
    before = weights(model)
    made = fit(model, [FreezerCallback(rules(rule("layers.0", 4, 100, "train")))], validate=1, num_sanity_val_steps=1)
    fz.check("setup" not in vars(made.strategy), "the strategy is as it was")
    fz.equal(model.seen[0], ("validation", 0, 0, "00111111"), "the sanity check sees the flags as they were")
    fz.equal(at_batches(model)[3], "00111111", "before")
    fz.equal(at_batches(model)[4], "11111111", "after")
    fz.check("layers.0.weight" in differing(before, weights(model)), "what was thawed has moved")

    kept = Bare(frozen=["layers.0"], everything=False)
    fit(kept, [FreezerCallback(rules(rule("layers.0", 4, 100, "train")), thaw=False)])
    fz.equal(at_batches(kept)[9], "00111111", "with thaw=False what is in no optimizer stays as it is")


class Late(Bare):
    """Makes a layer in configure_model(), frozen."""

    def configure_model(self):
        if not hasattr(self, "late"):
            self.late = nn.Linear(1, 1)
            self.late.weight.requires_grad = False

    def forward(self, x):
        return self.late(super().forward(x))


@fz.test("a parameter that configure_model() makes is thawed for the optimizer, too")
def test_late(_scene):
    model = Late(everything=False)
    fit(model, [FreezerCallback(rules(rule("late", 4, 100, "train")))])
    fz.equal([at_batches(model)[step][-2:] for step in (3, 4)], ["01", "11"], "flags of the late layer")


def gan_masks(model):
    """Flags by batch."""
    return [flags for *_, flags in model.seen]


@fz.test("a GAN: a step is a window in which both optimizers step; toggled flags are theirs; nothing drifts")
def test_gan(_scene):
    for every in (1, 2):
        model, drift = Gan(every), []
        callback = FreezerCallback(rules(rule("g.0", 2, 4)))
        look = At(9, lambda _trainer, c=callback, drift=drift: drift.append((c.session.look(), c.session.drift)))
        made = fit(model, [callback, look])
        hooks = [hook for optimizer in made.optimizers for hook in optimizer._optimizer_step_post_hooks.values()]
        fz.equal(hooks, [], "what is left on the optimizers")
        frozen, free = "00111111", "11111111"
        want = [free] * (2 * every) + [frozen] * (2 * every) + [free] * 10
        fz.equal(gan_masks(model), want[:10], f"flags by batch, a step every {every} batches")
        fz.equal(drift, [(None, 0)], "drift")


@fz.test("where a module's own windows go on over the end of an epoch, flags change at the start of the next window")
def test_own_windows(_scene):
    model = Gan(every=3)
    in_second = {"freeze": ["prefix:g.0"], "from": {"epoch": 1}, "until": {"epoch": 2}}
    fit(model, [FreezerCallback(rules(in_second))], 4, max_epochs=3)
    fz.equal(gan_masks(model), ["11111111"] * 6 + ["00111111"] * 3 + ["11111111"] * 3, "flags by batch")


class Idle(Gan):
    """Goes on where an optimizer has nothing to train."""

    def manual_backward(self, loss):
        if loss.requires_grad:
            super().manual_backward(loss)


@fz.test("a change that leaves one of two optimizers nothing to train is refused, and allowed with allow_idle")
def test_idle_optimizer(_scene):
    model, said = Gan(), []
    callback = FreezerCallback(rules(rule("d.", 2, 4)))
    fit(model, [callback, At(3, lambda _trainer: said.append(callback.session.refusal))])
    fz.equal(set(gan_masks(model)), {"11111111"}, "masks")
    fz.check("optimizer 1 (AdamW) would have nothing to train" in said[0], "the sentence", said)
    model = Idle()
    fit(model, [FreezerCallback(rules(rule("d.", 2, 4)), allow_idle=True)])
    fz.equal(set(gan_masks(model)), {"11111111", "11110000"}, "masks with allow_idle")


@fz.test("options are those of attach(); with the fit its session ends, and the private freezerd")
def test_options(_scene):
    seen = []

    def look(_trainer):
        seen.extend((callback.session, os.path.dirname(callback.session._handle.info().socket)))
        fz.equal(copy.deepcopy(callback).session, None, "the session of a copy")

    options = {"norm": "eval", "optimizer_state": "reset", "on_conflict": "yield"}
    callback = FreezerCallback(rules(rule("layers.0", 3, 7)), **options)
    fit(Bare(), [callback, At(2, look)])
    session, folder = seen
    fz.equal({name: getattr(session._settings, name) for name in options}, options, "settings")
    fz.equal((session.connected, os.path.exists(folder)), (False, False), "what is left")
    try:
        fit(Bare(frozen=["layers.0"], everything=False), [FreezerCallback(rules(), uncovered="raise", thaw=False)])
        raise fz.Failure("no error")
    except NotCovered as error:
        fz.equal(error.names, ["layers.0.weight", "layers.0.bias"], "what is in no optimizer")
    callback = FreezerCallback(rules(rule("layers.0", 3, 7)))
    trainer([callback]).validate(Bare(), batches(1), verbose=False)
    fz.equal(callback._place, None, "where it attaches for a validation alone")


class Interrupted(Exception):
    pass


def interrupt(_trainer):
    raise Interrupted


@fz.test("a resumed run is equal to one that was never interrupted, and has the same parameters frozen")
def test_resume(scene):
    for number, (accumulate, stop, state) in enumerate(((1, 4, "keep"), (1, 13, "reset"), (3, 8, "keep"))):
        document = rules(
            rule("layers.0", 2, 5), rule("layers.1", 3, 100), rule("layers.2", 6, 9), rule("head", 3, 100, "train")
        )
        options = {"max_epochs": 2, "accumulate_grad_batches": accumulate, "same": True}
        whole = Bare(frozen=["head"])
        fit(whole, [FreezerCallback(document, optimizer_state=state)], **options)

        path = scene.path(f"{number}.ckpt")
        save = At(stop, lambda made, path=path: (made.save_checkpoint(path), interrupt(made)))
        first = Bare(frozen=["head"])
        try:
            fit(first, [FreezerCallback(document, optimizer_state=state), save], **options)
            raise fz.Failure("not interrupted")
        except Interrupted:
            pass
        saved = torch.load(path, weights_only=True)["callbacks"]
        (noted,) = [s for key, s in saved.items() if "FreezerCallback" in key]
        frozen_then = noted["session"]["frozen"]

        second, callback = Bare(frozen=["head"]), FreezerCallback(document, optimizer_state=state)
        fit(second, [callback], ckpt_path=path, **options)
        fz.equal(second.seen, whole.seen[stop + 1 :], f"every batch behind the checkpoint, which had {frozen_then}")
        fz.equal(differing(weights(second), weights(whole)), [], "weights")
    third = Bare(frozen=["head"])
    fit(third, [callback], **options)
    fz.equal(third.seen, whole.seen, "every batch of another fit, from the start")
    try:
        callback.load_state_dict({"version": 2})
        raise fz.Failure("no error")
    except FreezerError as error:
        fz.check("version 2" in str(error), "the reason", str(error))


@fz.test("a resumed GAN, whose global_step counts the steps of both optimizers, goes on at its step")
def test_resume_gan(scene):
    for make in (
        lambda: FreezerCallback(rules(rule("g.0", 2, 5))),
        lambda: Freezer(name_starts_with="g.0", until_step=5, profile="owned"),
    ):
        path = scene.path("gan.ckpt")
        whole, first, second = (Gan(critics=2) for _ in range(3))
        fit(whole, [make()], max_epochs=2, same=True)
        save = At(2, lambda made, path=path: (made.save_checkpoint(path), interrupt(made)))
        with contextlib.suppress(Interrupted):
            fit(first, [make(), save], same=True)
        fit(second, [make()], ckpt_path=path, max_epochs=2, same=True)
        fz.equal(gan_masks(second), gan_masks(whole)[3:], "flags by batch behind the checkpoint")
        fz.equal(differing(weights(second), weights(whole)), [], "weights")


@fz.test("without freezerd a checkpoint's frozen parameters stay frozen")
def test_resume_alone(scene):
    daemon = scene.daemon()
    path = scene.path("live.ckpt")

    def freeze(_trainer):
        scene.ctl_json("freeze", "layers.0", "--no-wait", "--yes")

    first = Bare()
    fit(
        first,
        [FreezerCallback(socket=scene.socket, run="r"), At(3, freeze), At(8, lambda made: made.save_checkpoint(path))],
    )
    fz.equal(first.seen[-1][3], "00111111", "frozen by freezerctl")
    daemon.terminate()
    second = Bare()
    fit(second, [FreezerCallback(socket=scene.socket, run="r")], ckpt_path=path, max_epochs=2)
    fz.equal({flags for *_, flags in second.seen}, {"00111111"}, "masks after the resume")


@fz.test(
    "a checkpoint made without Freezer, in the middle of a window: what rules freeze is frozen from the first batch on"
)
def test_resume_foreign(scene):
    path, model = scene.path("foreign.ckpt"), Bare()
    options = {"accumulate_grad_batches": 3, "same": True}
    with contextlib.suppress(Interrupted):
        fit(Bare(), [At(3, lambda made: (made.save_checkpoint(path), interrupt(made)))], **options)
    fit(model, [FreezerCallback(rules(rule("layers.0", 0, 100)))], ckpt_path=path, **options)
    fz.equal({flags for *_, flags in model.seen}, {"00111111"}, "masks")


@fz.test("a freezerd that says nothing: training goes on, and it is said that the rules are not in force")
def test_silent(scene):
    daemon, said = scene.daemon(), logging.getLogger("silent")
    said.addHandler(handler := logging.handlers.BufferingHandler(100))
    daemon.stop()
    model = Bare()
    fit(model, [FreezerCallback(rules(rule("layers.0", 0, 100)), socket=scene.socket, timeout=0.1, log=said)])
    daemon.cont()
    fz.equal({flags for *_, flags in model.seen}, {"11111111"}, "masks")
    lines = [record.getMessage() for record in handler.buffer]
    fz.check(any("the rules are not in force" in line for line in lines), "what is said", lines)


class Log(DummyLogger):
    def __init__(self):
        super().__init__()
        self.lines = []

    def log_metrics(self, metrics, step=None):
        self.lines += [(step, key, value) for key, value in metrics.items() if key.startswith("freezer/")]


@fz.test("the trainable share goes to the Trainer's logger, at the start and at each change")
def test_logger(_scene):
    logger, model = Log(), Bare()
    fit(model, [FreezerCallback(rules(rule("layers.0", 3, 7)))], logger=logger)
    total = sum(p.numel() for p in model.parameters())
    part = 100 * (total - sum(p.numel() for p in model.layers[0].parameters())) / total
    fz.equal([(s, v) for s, k, v in logger.lines if "pct" in k], [(0, 100.0), (3, part), (7, 100.0)], "trainable_pct")
    fz.equal([(s, v) for s, k, v in logger.lines if "frozen" in k], [(0, 0.0), (3, 2.0), (7, 0.0)], "frozen")
    silent = Log()
    fit(Bare(), [FreezerCallback(rules(rule("layers.0", 3, 7)), log_share=False)], logger=silent)
    fz.equal(silent.lines, [], "with log_share=False")


@fz.test("logged values are reported; two callbacks have states of their own; a copy is attached to nothing")
def test_rest(scene):
    scene.daemon()
    callbacks = [
        FreezerCallback(socket=scene.socket, run="encoder", model="layers", metrics=["loss"]),
        FreezerCallback(socket=scene.socket, run="head", model="head"),
    ]
    fz.equal(len({callback.state_key for callback in callbacks}), 2, "state keys")
    names, reported, sessions = [], [], []

    def look(_trainer):
        names.extend(slot.name for callback in callbacks for slot in callback.session.slots)
        sessions.extend(callback.session for callback in callbacks)
        for callback in callbacks:
            callback.session.metric = lambda name, _value, run=callback.session.run: reported.append((run, name))

    fit(Bare(), [*callbacks, At(0, look)], validate=1, val_check_interval=4)
    fz.equal(names, [f"{i}.{w}" for i in range(3) for w in ("weight", "bias")] + ["weight", "bias"], "names")
    fz.equal([session.connected for session in sessions], [False] * 2, "sessions after the fit")
    fz.equal(reported.count(("encoder", "loss")) >= 5, True, "loss is reported at each batch")
    fz.equal(reported.count(("head", "val_loss")), 3, "after two validations and at the end of the epoch")
    fz.equal(copy.deepcopy(callbacks[0]).session, None, "the session of a copy")


@fz.test("without freezerd and without rules training is as without the callback")
def test_nothing(scene):
    model, plain = Bare(), Bare()
    made = fit(model, [FreezerCallback(socket=scene.path("nobody"), progress_bar=True)])
    fit(plain, [])
    fz.equal(differing(weights(model), weights(plain)), [], "weights")
    fz.equal(made.progress_bar_metrics, {"train%": 100.0}, "in the progress bar")


@fz.test("README's lines for Lightning work as they are")
def test_readme(scene):
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(top, "README.md"), encoding="utf-8") as readme:
        (block,) = [b for b in re.findall(r"```python\n(.*?)```", readme.read(), re.S) if "pyfreezer.lightning" in b]
    names = {"Trainer": lambda callbacks: trainer(callbacks)}
    os.environ["FREEZER_SOCKET"] = scene.socket
    try:
        scene.daemon()
        exec(block, names)
        made, runs = names["trainer"], []
        (callback,) = [c for c in made.callbacks if isinstance(c, FreezerCallback)]
        made.callbacks.append(At(1, lambda _trainer: runs.append((callback.session.run, callback.session.connected))))
        made.fit(Bare(), batches(3))
        fz.equal(runs, [("gpt2-ft", True)], "the run")
    finally:
        del os.environ["FREEZER_SOCKET"]


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    fz.main()
