#!/usr/bin/env python3
"""lightning_freezer.py - pyfreezer.lightning.Freezer in a real Trainer, bit for bit what lighter's callback does."""

import torchenv  # noqa: F401 - first: goes on where torch is

import copy
import gc
import os
import random
import subprocess
import sys
import time

import fz
from gloo import Ranks
from lightning_help import Bare, Flat, at_batches, batches, trainer
import lightning.pytorch as pl
import torch

import pyfreezer
from pyfreezer import _hooks, _lightning_common, _private
from pyfreezer.lightning import Freezer, FreezerCallback
from training import differing, weights

os.environ.pop("FREEZER_SOCKET", None)


class Oracle(pl.Callback):
    """lighter's callback, told again from what is documented of it: one bit, and passes over all parameters."""

    def __init__(self, names=None, name_starts_with=None, except_names=None, except_name_starts_with=None, **limits):
        self.selected = (self.plural(names), self.plural(name_starts_with))
        self.excepted = (self.plural(except_names), self.plural(except_name_starts_with))
        self.limits = limits
        self.holds = False

    @staticmethod
    def plural(value):
        return [] if value is None else [value] if isinstance(value, str) else list(value)

    @staticmethod
    def matches(name, selectors):
        exact, prefixes = selectors
        return name in exact or any(name[: len(p)] == p for p in prefixes)

    def over(self, trainer):
        now = {"until_step": trainer.global_step, "until_epoch": trainer.current_epoch}
        return any(limit is not None and now[which] >= limit for which, limit in self.limits.items())

    def look(self, trainer, module):
        over = self.over(trainer)
        if over != self.holds:
            return
        self.holds = not over
        for name, parameter in getattr(module, "model", module).named_parameters():
            frozen = self.holds and self.matches(name, self.selected) and not self.matches(name, self.excepted)
            parameter.requires_grad = not frozen

    def on_train_batch_start(self, trainer, module, *_):
        self.look(trainer, module)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start


L = {"l1.w": True, "l1.b": True, "l2.w": True, "l2.b": True, "l10.w": True}

# (id, parameters, arguments, how the Trainer makes the trace, {step: mask})
CASES = [
    ("T01", L, {"names": ["l1.w"]}, {}, {0: "01111", 1: "01111"}),
    ("T02", L, {"name_starts_with": "l1"}, {}, {0: "00110"}),
    ("T03", L, {"name_starts_with": ["l1."]}, {}, {0: "00111"}),
    ("T04", L, {"names": "l2.b", "name_starts_with": ("l1.",)}, {}, {0: "00101"}),
    (
        "T05",
        L,
        {"name_starts_with": "l", "except_names": ["l2.b"], "except_name_starts_with": "l1."},
        {},
        {0: "11010"},
    ),
    (
        "T06",
        L,
        {"name_starts_with": "", "until_step": 2},
        {},
        {0: "00000", 1: "00000", 2: "11111", 3: "11111"},
    ),
    ("T07", L, {"names": [], "until_step": 2}, {}, {0: "11111", 2: "11111"}),
    ("T08", {"a": False, "b": False}, {"names": []}, {}, {0: "11"}),
    ("T09", {"a": True, "b": False}, {"names": "a", "until_step": 0}, {}, {0: "10", 5: "10"}),
    ("T10", {"a": True, "b": False}, {"names": "a", "until_step": 1}, {}, {0: "01", 1: "11"}),
    ("T11", {"a": False}, {"names": "a", "until_step": 3}, {"resume_at": 7, "max_epochs": 3}, {7: "0"}),
    ("T12", {"a": True}, {"names": "a", "until_step": 3}, {"accumulate_grad_batches": 3}, {2: "0", 3: "1"}),
    ("T13", {"a": True}, {"names": "a", "until_epoch": 2}, {"batches": 1, "max_epochs": 4}, {0: "0", 1: "0", 2: "1"}),
]


def fit(model, callbacks, batches_=12, ckpt_path=None, **options):
    made = trainer(callbacks, **options)
    made.fit(model, batches(batches_), ckpt_path=ckpt_path)
    return made


def run(scene, flags, callbacks, options):
    """Trains a Flat; from a checkpoint at step `resume_at` on, if that is in the options."""
    options = dict(options)
    count, resume_at = options.pop("batches", 12), options.pop("resume_at", None)
    path = None
    if resume_at is not None:
        made = fit(Flat(flags), [], count, max_steps=resume_at)
        path = scene.path("at.ckpt")
        made.save_checkpoint(path)
        options["max_steps"] = resume_at + 2
    model = Flat(flags)
    fit(model, callbacks, count, path, **options)
    return model


def a_case(case, flags, arguments, options, want):
    @fz.test(f"{case}: Freezer({', '.join(f'{k}={v!r}' for k, v in arguments.items())})")
    def test(scene):
        model = run(scene, flags, [Freezer(**arguments)], options)
        got = at_batches(model)
        fz.equal({step: got.get(step) for step in want}, want, "masks")
        oracle = run(scene, flags, [Oracle(**arguments)], options)
        fz.equal(model.seen, oracle.seen, "every batch")
        fz.equal(differing(weights(model), weights(oracle)), [], "weights")


for _case in CASES:
    a_case(*_case)


@fz.test("T14: a second fit from the start freezes again")
def test_back(_scene):
    for make in (Freezer, Oracle):
        callback, model = make(names="a", until_step=3), Flat({"a": True})
        for steps in (4, 4):
            fit(model, [callback], max_steps=steps)
        fz.equal([flags for _, _, _, flags in model.seen], list("00010001"), make.__name__)


@fz.test("the errors, word for word and in order")
def test_errors(_scene):
    for arguments, text in (
        ({}, "At least one of `names` or `name_starts_with` must be specified."),
        ({"except_names": ["a"]}, "At least one of `names` or `name_starts_with` must be specified."),
        ({"until_step": 1, "until_epoch": 1}, "At least one of `names` or `name_starts_with` must be specified."),
        (
            {"names": [], "until_step": 1, "until_epoch": 1},
            "Only one of `until_step` or `until_epoch` can be specified.",
        ),
    ):
        try:
            Freezer(**arguments)
            raise fz.Failure(f"no error for {arguments}")
        except ValueError as error:
            fz.equal(str(error), text, "the error")
    Freezer(["a"], ["b"], ["c"], ["d"], None, 5)


def everywhere(callbacks, flags, plan):
    """One model through fits, validations, tests and predictions; what each batch saw, and the weights."""
    model = Flat(flags)
    made = None
    for what, options in plan:
        options = dict(options)
        count = options.pop("batches", 6)
        if what == "fit":
            made = trainer(callbacks, **options)
            made.fit(model, batches(count), batches(2))
        else:
            made = made or trainer(callbacks)
            getattr(made, what)(model, batches(2), **({"verbose": False} if what in ("validate", "test") else {}))
    return model.seen, weights(model)


def compare(make, flags, plan):
    """`make` makes the callbacks of a class."""
    seen, trained = everywhere(make(Freezer), flags, plan)
    want, by_oracle = everywhere(make(Oracle), flags, plan)
    for number, (one, other) in enumerate(zip(seen, want)):
        fz.equal(one, other, f"batch {number}")
    fz.equal(len(seen), len(want), "batches")
    fz.equal(differing(trained, by_oracle), [], "weights")
    return seen


@fz.test("a sanity check freezes before training; a test after the last epoch releases")
def test_stages(_scene):
    seen = compare(
        lambda cls: [cls(names=["l1.w"], until_epoch=2)],
        L,
        [("fit", {"max_epochs": 2, "num_sanity_val_steps": 2}), ("test", {}), ("predict", {}), ("validate", {})],
    )
    fz.equal(seen[0], ("validation", 0, 0, "01111"), "the first batch")
    fz.equal([flags for kind, _, _, flags in seen if kind == "test"], ["11111"] * 2, "in test")
    for stage in ("validate", "test", "predict"):
        seen = compare(lambda cls: [cls("l1.w")], L, [(stage, {})])
        fz.equal([flags for *_, flags in seen], ["01111"] * 2, stage)


@fz.test("a Freezer that is given another model begins anew")
def test_other_model(scene):
    scene.daemon()
    for socket in (None, scene.socket):
        freezer = Freezer("l1.w", until_step=2, run="it", socket=socket)
        for _ in range(2):
            model = Flat(L)
            fit(model, [freezer], max_steps=3)
            fz.equal([flags for *_, flags in model.seen], ["01111"] * 2 + ["11111"], "masks")
            fz.equal(freezer.session.run, "it", "the run's name")
        fit(Flat(L), [Freezer("l1.b"), freezer], max_steps=3)
        fz.equal(freezer.session, None, "the session of one that follows another")


@fz.test("another Freezer takes a model over with the flags that it has")
def test_taken_over(_scene):
    for make in (Freezer, Oracle):
        model = Flat(L)
        fit(model, [make("l1.w")], max_steps=2)
        fit(model, [make("l2.w", until_step=0)], max_steps=2)
        fz.equal([flags for *_, flags in model.seen], ["01111"] * 4, make.__name__)


@fz.test("several Freezers, in both orders, and two that are equal")
def test_several(_scene):
    early = {"name_starts_with": "l", "until_epoch": 1}
    late = {"name_starts_with": ["l1", "l2"], "until_epoch": 2}
    for blocks in ((early, late), (late, early), (late, late)):
        compare(lambda cls, blocks=blocks: [cls(**block) for block in blocks], L, [("fit", {"max_epochs": 3})])


@fz.test("a LightningModule without a model in it, whose names are its own")
def test_bare(_scene):
    models = []
    for make in (Freezer, Oracle):
        model = Bare(frozen=["layers.2"])
        fit(model, [make(name_starts_with="layers.0", until_step=5)])
        models.append(model)
    fz.equal(models[0].seen, models[1].seen, "batches")
    fz.equal(models[0].seen[0][3], "00111111", "the first mask")
    fz.equal(differing(weights(models[0]), weights(models[1])), [], "weights")


class Meddler(pl.Callback):
    """Writes a flag of its own at a step."""

    def __init__(self, step, name, flag):
        self.what = (step, name, flag)

    def on_train_batch_end(self, trainer, module, *_):
        step, name, flag = self.what
        if trainer.global_step == step:
            module.model.get_parameter(name).requires_grad = flag


@fz.test("what somebody else sets between two transitions stays until the next one, although flags are looked at")
def test_meddler(_scene):
    every, _hooks.LOOK_EVERY = _hooks.LOOK_EVERY, 2
    try:
        seen = compare(
            lambda cls: [cls(names=["l1.w"], until_step=8), Meddler(3, "l1.w", True), Meddler(3, "l2.b", False)],
            L,
            [("fit", {"batches": 10})],
        )
    finally:
        _hooks.LOOK_EVERY = every
    flags = [flags for kind, *_, flags in seen if kind == "train"]
    fz.equal(flags, ["01111"] * 3 + ["11101"] * 5 + ["11111"] * 2, "masks")


@fz.test("the oddities of Python: a set, True, 2.5, a number as name, a text as limit")
def test_oddities(_scene):
    for arguments in (
        {"names": {"l1.w"}},
        {"names": ["l1.w", 3, "l1.b\n", "\x9f", "\udcff", *["l2.b"] * 5000], "until_step": True},
        {"names": "l1.w", "until_step": 2.5},
        {"names": "l1.w", "until_step": -3},
        {"names": "l1.w", "until_step": float("inf")},
        {"names": "l1.w", "until_step": float("nan")},
        {"names": "l1.w", "until_step": 1 << 50},
        {"name_starts_with": [("l1", "l2.")], "except_names": [None]},
    ):
        seen = everywhere([Freezer(**arguments)], L, [("fit", {"max_steps": 4})])[0]
        limits = {k: v for k, v in arguments.items() if k.startswith("until")}
        names, prefixes = arguments.get("names"), arguments.get("name_starts_with", [])
        names = [names] if isinstance(names, (set, str)) else names or []
        frozen = [n for n in L if n in names or any(n.startswith(p) for p in prefixes)]
        want = everywhere([Oracle(names=frozen, **limits)], L, [("fit", {"max_steps": 4})])[0]
        fz.equal(seen, want, str(arguments))
    for arguments in ({"names": "l1.w", "until_step": "3"}, {"name_starts_with": [3]}, {"name_starts_with": {"l1"}}):
        try:
            everywhere([Freezer(**arguments)], L, [("fit", {"max_steps": 1})])
            raise fz.Failure(f"no error for {arguments}")
        except TypeError:
            pass


@fz.test("rules that freezerd does not take are an error, for then nothing would be frozen")
def test_refused(_scene):
    try:
        fit(Flat(L), [Freezer([f"l{number}.w" for number in range(5000)])], max_steps=1)
        raise fz.Failure("no error")
    except pyfreezer.RulesError as error:
        fz.check("more than 4096 patterns" in str(error), "the reason", str(error))


@fz.test("a freezerd that says nothing is an error, for then nothing would be frozen")
def test_silent(scene):
    daemon = scene.daemon()
    daemon.stop()
    given, _lightning_common.RULES_SECONDS = _lightning_common.RULES_SECONDS, 0.5
    try:
        fit(Flat(L), [Freezer("l1.w", socket=scene.socket)], max_steps=1)
        raise fz.Failure("no error")
    except pyfreezer.FreezerError as error:
        fz.check("no plan" in str(error), "the reason", str(error))
    finally:
        _lightning_common.RULES_SECONDS = given
        daemon.cont()


NAMES = ["l1.w", "l1.b", "l10.w", "l10.b", "l2.w", "l.é", "l2.inner.w", "head"]
PREFIXES = ["", "l", "l1", "l1.", "l2", "l2.inner.", "h", "x", "l.é"]


def random_block(rng):
    block = {}
    while "names" not in block and "name_starts_with" not in block:
        for key, values in (("names", NAMES), ("name_starts_with", PREFIXES)):
            if rng.random() < 0.5:
                block[key] = rng.choices(values, k=rng.randrange(3))
    for key, values in (("except_names", NAMES), ("except_name_starts_with", PREFIXES[1:])):
        if rng.random() < 0.3:
            block[key] = rng.choice(values)
    limit = rng.choice(["until_step", "until_epoch", None])
    if limit:
        block[limit] = rng.randrange(-1, 12 if limit == "until_step" else 4)
    return block


def random_plan(rng):
    plan = []
    for _ in range(rng.randrange(1, 4)):
        what = rng.choice(["fit", "fit", "test", "validate", "predict"])
        options = {}
        if what == "fit":
            options = {
                "max_epochs": rng.randrange(1, 4),
                "batches": rng.randrange(1, 6),
                "accumulate_grad_batches": rng.randrange(1, 4),
                "num_sanity_val_steps": rng.randrange(2),
                "val_check_interval": rng.choice([1.0, 1]),
            }
        plan.append((what, options))
    return plan


@fz.test("random Freezers, models and Trainers", limit=240)
def test_random(_scene):
    seed = int(os.environ.get("FZ_SEED") or time.time_ns() % 1_000_000)
    fz.note(f"FZ_SEED={seed}")
    rng = random.Random(seed)
    for number in range(int(os.environ.get("FZ_CASES") or 8)):
        flags = {name: rng.random() < 0.7 for name in rng.sample(NAMES, rng.randrange(1, len(NAMES)))}
        blocks = [random_block(rng) for _ in range(rng.randrange(1, 5))]
        plan = random_plan(rng)
        try:
            compare(lambda cls, blocks=blocks: [cls(**block) for block in blocks], flags, plan)
        except BaseException:
            fz.note(f"case {number}: {flags} {blocks} {plan}")
            raise


@fz.test("where a freezerd is running, it is used: freezerctl shows the run, and freezes above lighter's mask")
def test_with_daemon(scene):
    scene.daemon()

    class Ctl(pl.Callback):
        answer = None

        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == 3:
                self.answer = scene.ctl_json("freeze", "l2.w", "--no-wait", "--yes")

    ctl, model = Ctl(), Flat(L)
    fit(model, [Freezer("l1.w", until_step=8, socket=scene.socket), Freezer([], until_step=0, run="drop-in"), ctl])
    fz.equal(ctl.answer["run"], "drop-in", "the run")
    masks = at_batches(model)
    fz.equal([masks[step][0] for step in range(12)], ["0"] * 8 + ["1"] * 4, "l1.w")
    l2 = "".join(masks[step][2] for step in range(12))
    fz.check(l2.startswith("111") and l2.endswith("0") and "01" not in l2, "l2.w is frozen from some step on", l2)


@fz.test("a private freezerd ends with the Freezers, and a Freezer can be copied")
def test_private(_scene):
    freezer = Freezer(names="l1.w")
    fit(Flat(L), [freezer], max_steps=2)
    socket = freezer.session._handle.info().socket.decode()
    fz.check(os.path.exists(socket), "a private freezerd serves", socket)
    fz.equal(copy.deepcopy(freezer).session, None, "the session of a copy")
    given, _private.LEAVE_SECONDS = _private.LEAVE_SECONDS, fz.seconds(40)
    began = time.monotonic()
    del freezer
    gc.collect()
    _private.LEAVE_SECONDS = given
    fz.check(time.monotonic() - began < fz.seconds(30), "its own session has left before")
    fz.wait_until(lambda: not os.path.exists(os.path.dirname(socket)), "the private freezerd is gone")


def attached_to(rank, private):
    """Another rank of a run whose first one has a private freezerd; it leaves a moment after the signal to do so."""
    model = Bare()
    session = pyfreezer.attach(model, model.configure_optimizers(), socket=private)
    rank.note(attached=session.connected)
    while not os.path.exists(rank.group.stop_file):
        time.sleep(0.01)
    time.sleep(0.5)
    session.begin_window()
    session.detach()


@fz.test("a private freezerd ends when the other ranks have left, or died, and does not wait long for one that stands")
def test_leave(scene):
    given = _private.LEAVE_SECONDS
    try:
        for how, seconds in (("leaves", 60), ("dies", 60), ("stands", 1)):
            _private.LEAVE_SECONDS = fz.seconds(seconds)
            daemon = _private.PrivateDaemon(os.path.join(scene.path(how + ".d"), "freezerd.sock"))
            ranks = Ranks(scene, 1, attached_to, name=how, private=daemon.socket)
            ranks.wait_noted(lambda note: note["attached"], "attached")
            (rank,) = ranks.ranks
            if how == "leaves":
                scene.write(how + ".stop", "")
            else:
                (rank.kill if how == "dies" else rank.stop)()
            began = time.monotonic()
            daemon.stop()
            fz.check(time.monotonic() - began < fz.seconds(30), f"it waits for one that {how}")
            if how == "leaves":
                ranks.join()
                fz.check("closed" not in rank.errors(), "a rank that leaves misses nothing", rank.errors())
            elif how == "stands":
                rank.kill()
    finally:
        _private.LEAVE_SECONDS = given


@fz.test("without libfreezer or freezerd a Freezer refuses to train", limit=240)
def test_without(_scene):
    program = (
        "import torchenv\nfrom lightning_help import *\nfrom pyfreezer.lightning import Freezer\n"
        "try:\n    trainer([Freezer(names='a')]).fit(Flat({'a': True}), batches(1))\n"
        "except Exception as e:\n    print(type(e).__name__, e)\n"
    )
    changes = {
        "FREEZER_LIBRARY": "/nowhere/libfreezer.so.0",
        "PYTHONPATH": os.pathsep.join((os.path.dirname(os.path.abspath(__file__)), os.environ["PYTHONPATH"])),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **changes}, capture_output=True, text=True
    )
    fz.check(
        done.stdout.startswith("FreezerError Freezer needs libfreezer"), "refused", done.stdout, done.stderr[-800:]
    )

    given = os.environ["FREEZERD"]
    os.environ["FREEZERD"] = "/nowhere/freezerd"
    try:
        fit(Flat(L), [Freezer(names="l1.w")], max_steps=1)
        raise fz.Failure("no error")
    except pyfreezer.FreezerError as error:
        fz.check("/nowhere/freezerd" in str(error), "the program is named", str(error))
    finally:
        os.environ["FREEZERD"] = given


# --- profile owned ---


@fz.test("owned: progressive unfreezing works as lighter's documentation has it; released is what was")
def test_owned(_scene):
    freezers = [
        Freezer(name_starts_with="l", until_epoch=1, profile="owned"),
        Freezer(name_starts_with=["l1.", "l2."], until_epoch=2, profile="owned"),
    ]
    model = Flat({**L, "l1.b": False, "head.w": True})
    fit(model, freezers, 3, max_epochs=3)
    fz.equal([flags for _, _, _, flags in model.seen], ["000001"] * 3 + ["000011"] * 3 + ["101111"] * 3, "masks")
    fz.equal([freezer.session for freezer in freezers], [None] * 2, "sessions after the fit")
    model = Flat({**L, "l1.w2": True})
    fit(model, [Freezer("l1.w", "l2.", "l2.b", "l2.w", profile="owned")], max_steps=1)
    fz.equal(model.seen[0][-1], "011111", "a name is no prefix, and what is excepted is not frozen")


@fz.test("owned: both limits, whichever comes first; a selector that matches nothing is an error")
def test_owned_errors(_scene):
    model = Flat(L)
    fit(model, [Freezer("l1.w", until_step=2, until_epoch=5, profile="owned")], max_steps=4)
    fz.equal([flags for *_, flags in model.seen], ["01111"] * 2 + ["11111"] * 2, "masks")
    try:
        fit(Flat(L), [Freezer("l3.w", profile="owned")], max_steps=1)
        raise fz.Failure("no error")
    except pyfreezer.RulesError as error:
        fz.check("l3.w" in str(error), "the selector is named", str(error))
    for arguments in (
        {"names": []},
        {"names": [3]},
        {"names": "a", "until_step": True},
        {"names": "a", "until_epoch": -1},
    ):
        try:
            Freezer(**arguments, profile="owned")
            raise fz.Failure(f"no error for {arguments}")
        except ValueError:
            pass


@fz.test("Freezers of two profiles, or beside a FreezerCallback, are an error")
def test_mixed(_scene):
    for callbacks in (
        [Freezer("l1.w"), Freezer("l1.w", profile="owned")],
        [Freezer("l1.w"), FreezerCallback()],
    ):
        try:
            fit(Flat(L), callbacks, max_steps=1)
            raise fz.Failure("no error")
        except ValueError:
            pass


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    fz.main()
