#!/usr/bin/env python3
"""windows.py - when flags change and when not, what goes with a flip, and what is refused."""

import torchenv  # noqa: F401 - first: goes on where torch is

import sys

import fz
import pyfreezer
import torch
from torch import nn
from training import WIDTH, Flip, Lines, Loop, Model, differing, weights


def rules(*some):
    return {"version": 1, "rules": list(some)}


def freeze(prefix, start, end=None):
    rule = {"freeze": [f"prefix:{prefix}"], "from": {"step": start}}
    return rule if end is None else {**rule, "until": {"step": end}}


@fz.test("a flip lands where an accumulation window begins")
def test_accumulation(scene):
    scene.daemon()
    loop = Loop(accumulate=4)
    seen = set()
    loop.before_batch = lambda micro: seen.add((loop.steps, loop.model.embed.weight.requires_grad))
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=rules(freeze("embed", 3, 6))):
        loop.run(9)
    fz.equal(seen, {(s, not 3 <= s < 6) for s in range(9)}, "flags by step, in all micro-batches")
    flips = [Flip(3, "embed", False), Flip(6, "embed", True)]
    by_hand = Loop(accumulate=4, flips=flips).run(9)
    fz.equal(differing(weights(loop.model), weights(by_hand.model)), [], "differences from the run by hand")


@fz.test("a change that comes in the middle of a window waits for the next one")
def test_middle(scene):
    scene.daemon()
    loop = Loop(accumulate=4)
    answers, flags = [], []

    def before_batch(micro):
        if (loop.steps, micro) == (2, 1):
            answers.append(session.freeze("embed", yes=True))
        flags.append((loop.steps, micro, loop.model.embed.weight.requires_grad))

    loop.before_batch = before_batch
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket) as session:
        loop.run(12)
        frozen_at = next(step for step, _, flag in flags if not flag)
        fz.check(frozen_at > 2, "not within the window", frozen_at)
        fz.check(all(flag == (step < frozen_at) for step, _, flag in flags), "whole windows", flags)
        status = session.client.status()
        fz.equal(status["rank_list"][0]["gen"], answers[0]["gen"], "the gen that the rank holds")
    by_hand = Loop(accumulate=4, flips=[Flip(frozen_at, "embed", False)]).run(12)
    fz.equal(differing(weights(loop.model), weights(by_hand.model)), [], "differences from the run by hand")


@fz.test("nothing changes in evaluation, whatever comes meanwhile")
def test_evaluation(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket) as session:
        loop.run(3)
        session.freeze("embed", yes=True)
        loop.model.eval()
        with torch.no_grad():
            for _ in range(50):
                loop.model(torch.randn(4, WIDTH))
                fz.check(loop.model.embed.weight.requires_grad, "the flag in evaluation")
        loop.model.train()
        while loop.steps < 200 and loop.model.embed.weight.requires_grad:
            loop.step()
        fz.check(session.is_frozen("embed"), "frozen when training goes on")


@fz.test("a step that the optimizer did not take ends no window")
def test_skipped(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket) as session:
        loop.run(3)
        fz.equal(session.position, (3, 0), "position")
        loop.model(torch.randn(4, WIDTH)).sum().backward()  # GradScaler found an overflow: no optimizer.step()
        loop.optimizer.zero_grad()
        fz.equal(session.position, (3, 0), "position after a step left out")


@fz.test("epochs are told by set_epoch(), and rules by epoch hold from its first batch")
def test_epochs(scene):
    scene.daemon()
    loop = Loop()
    by_epoch = rules({"freeze": ["embed"], "until": {"epoch": 2}})
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=by_epoch) as session:
        for epoch in range(4):
            session.set_epoch(epoch)
            for _ in range(3):
                fz.equal(loop.model.embed.weight.requires_grad, epoch >= 2, f"flag in epoch {epoch}")
                loop.step()
        fz.equal(session.position, (12, 3), "position")


@fz.test("without the hook: step() at the start of each window")
def test_step(scene):
    scene.daemon()
    loop = Loop()
    changes = []
    session = pyfreezer.attach(
        loop.model, loop.optimizer, hook=False, socket=scene.socket, rules=rules(freeze("embed", 0, 2))
    )
    for _ in range(4):
        changes.append(session.step(metrics={"loss": 0.5}))
        loop.step()
    fz.equal([(c.step, c.frozen, c.unfrozen) for c in changes if c], [
        (0, ["embed.weight", "embed.bias"], []), (2, [], ["embed.weight", "embed.bias"]),
    ], "changes")  # fmt: skip
    fz.equal(session.step(10), None, "a step further on")
    fz.equal(session.position, (10, 0), "position")
    fz.equal(session.step(3), None, "a step back changes nothing")
    fz.equal(session.position, (10, 0), "position after a step back")
    session.detach()
    session.detach()


@fz.test("several optimizers: a window ends when each has stepped; an idle one is not waited for")
def test_several(scene):
    scene.daemon()
    generator, critic = Model(1), Model(1)
    both = nn.ModuleDict({"g": generator, "d": critic})
    opt_g = torch.optim.SGD(generator.parameters(), lr=0.01)
    opt_d = torch.optim.SGD(critic.parameters(), lr=0.01)
    with pyfreezer.attach(both, [opt_g, opt_d], socket=scene.socket, uncovered="raise") as session:
        for _ in range(5):  # five steps of the critic for one of the generator
            for _ in range(5):
                opt_d.step()
            opt_g.step()
        fz.equal(session.position[0], 5, "windows")
        for _ in range(100):
            opt_d.step()
        fz.equal(session.position[0], 5 + 100 - 63, "windows with an optimizer that does not step any more")
        opt_g.step()
        opt_d.step()
        fz.equal(session.position[0], 43, "windows when it steps again")


@fz.test("clipping sees only the gradients of what trains")
def test_clipping(scene):
    scene.daemon()
    loop = Loop(set_to_none=False)
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=rules(freeze("embed", 2))):
        loop.run(3)
        norm = nn.utils.clip_grad_norm_(loop.model.parameters(), 1e9)
        fz.check(all(p.grad is None for p in loop.model.embed.parameters()), "no gradient of what is frozen")
        rest = nn.utils.clip_grad_norm_([p for p in loop.model.parameters() if p.requires_grad], 1e9)
        fz.equal(norm, rest, "norm over all and over what trains")


@fz.test("a mask in which nothing trains is refused by freezerd, and with --force by the session, which says so")
def test_empty(scene):
    scene.daemon()
    loop, lines = Loop(), Lines()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, log=lines) as session:
        loop.run(2)
        result = loop.while_running(scene, "freeze", "**")
        fz.equal(result.status, 6, f"exit status: {result!r}")
        fz.equal(session.frozen, [], "frozen")
        result = loop.while_running(scene, "freeze", "**", "--force")
        loop.run(result.data["step"] + 3)
        fz.equal(session.frozen, [], "frozen after --force")
        fz.check(
            "nothing would train" in lines.text and lines.text.count("nothing would train") == 1, "log", lines.text
        )
        fz.check("nothing would train" in session.summary(), "summary", session.summary())
        result = loop.while_running(scene, "unfreeze", "head")
        loop.run(result.data["step"] + 1)
        fz.equal(session.refusal, None, "refusal")
        fz.equal([n for n, p in loop.model.named_parameters() if p.requires_grad], ["head.weight", "head.bias"], "rest")


@fz.test("an extension that refuses a flip keeps every flag, and it is tried again with the next change")
def test_extension(scene):
    class Picky(pyfreezer.Extension):
        def __init__(self):
            self.calls = []

        def attached(self, session):
            self.calls.append("attached")

        def before_flip(self, change):
            if change.step < 6:
                raise pyfreezer.Refused("not yet", code="NOT_YET")

        def after_flip(self, change):
            self.calls.append((change.step, change.frozen, change.unfrozen))

        def detached(self):
            self.calls.append("detached")

    scene.daemon()
    loop, picky, lines = Loop(), Picky(), Lines()
    plan = rules(freeze("embed.weight", 3), freeze("head.bias", 8))
    pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=plan, extensions=[picky], log=lines)
    session = loop.optimizer and picky  # the session lives as long as its optimizer
    loop.run(7)
    fz.check(loop.model.embed.weight.requires_grad, "not frozen at step 3")
    fz.check("step 3: the flags stay as they are: not yet" in lines.text, "log", lines.text)
    loop.run(9)
    fz.equal(session.calls, ["attached", (8, ["embed.weight", "head.bias"], [])], "calls")


@fz.test("an extension can ask what a flip leaves with nothing to train: only what trained, and is not thawed by it")
def test_empties(scene):
    class Asking(pyfreezer.Extension):
        def __init__(self, *prefixes):
            self.asked = {prefix: [] for prefix in prefixes}

        def before_flip(self, change):
            for prefix, answers in self.asked.items():
                named = loop.model.named_parameters()
                answers.append(change.empties(p for name, p in named if name.startswith(prefix)))

    scene.daemon()
    loop, asking = Loop(), Asking(("embed", "head"), "embed", "head", "layers.0")
    plan = rules(freeze("head", 2, 4), freeze("layers.0", 2), freeze("embed", 4))
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=plan, extensions=[asking]) as session:
        loop.run(6)
        fz.equal((session.is_frozen("embed"), session.is_frozen("head")), (True, False), "frozen at the end")
    answers = {
        ("embed", "head"): [False, False],
        "embed": [False, True],
        "head": [True, False],
        "layers.0": [True, False],
    }
    fz.equal(asking.asked, answers, "what has nothing to train from step 2, and from step 4, though it had before")


@fz.test("an extension's codes are what freezerctl shows")
def test_codes(scene):
    class Static(pyfreezer.Extension):
        def register(self, slots):
            for slot in slots:
                slot.may_freeze = "STATIC_GRAPH"

    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, extensions=[Static()]):
        result = loop.while_running(scene, "freeze", "embed")
        fz.equal(result.status, 6, f"exit status: {result!r}")
        fz.check("STATIC_GRAPH" in result.err, "the code is shown", result.err)


def conflict(scene, policy):
    scene.daemon()
    loop, lines = Loop(), Lines()
    session = pyfreezer.attach(
        loop.model, loop.optimizer, socket=scene.socket, on_conflict=policy, log=lines,
        rules=rules(freeze("embed", 4, 6)),
    )  # fmt: skip
    flags = []
    for step in range(10):
        if step == 2:
            loop.model.embed.bias.requires_grad = False
        if step == 8:
            loop.model.embed.bias.requires_grad = True
        loop.step()
        flags.append(loop.model.embed.bias.requires_grad)
        if step == 7:
            session.look()
    session.detach()
    return flags, session.drift, lines.text


@fz.test("a flag that somebody else sets: warn, and leave it")
def test_warn(scene):
    flags, drift, text = conflict(scene, "warn")
    fz.equal(flags, [True] * 2 + [False] * 6 + [True] * 2, "flags")
    fz.equal(drift, 1, "drift")
    fz.equal(text.count("WARNING somebody else set requires_grad of embed.bias"), 1, f"warnings in {text}")


@fz.test("a flag that somebody else sets: leave it quietly")
def test_yield(scene):
    flags, drift, text = conflict(scene, "yield")
    fz.equal(flags, [True] * 2 + [False] * 6 + [True] * 2, "flags")
    fz.equal(drift, 1, "drift")
    fz.check("somebody else" not in text, "no warning", text)


@fz.test("a flag that somebody else sets: set it again")
def test_enforce(scene):
    flags, drift, text = conflict(scene, "enforce")
    fz.equal(flags, [True] * 2 + [False] * 3 + [True] * 5, "flags")
    fz.equal(drift, 1, "drift")
    fz.check("Freezer sets it again" in text, "warning", text)


@fz.test("what is enforced without a plan's change is so at a certain step, hence at the same one on all ranks")
def test_enforced_by_steps(scene):
    scene.daemon()
    for hook, first in ((True, 0), (True, 100), (False, 0)):
        loop = Loop()
        changes = []
        with pyfreezer.attach(
            loop.model,
            loop.optimizer,
            hook=hook,
            step=first,
            socket=scene.socket,
            on_conflict="enforce",
            log="quiet",
            on_change=changes.append,
        ) as session:
            for step in range(first, 600):
                if not hook:
                    session.step()
                if step in (120, 300):
                    loop.model.embed.weight.requires_grad = False
                loop.step()
        fz.equal([c.step for c in changes], [256, 512], f"steps at which it was enforced, hook={hook}, from {first}")


@fz.test("when the session has ended, a hook that is called all the same no longer reaches libfreezer's handle")
def test_ended(scene):
    scene.daemon()
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, log="quiet")
    hooks = list(loop.optimizer._optimizer_step_post_hooks.values())
    loop.run(3)
    ahead = session._handle.steps(10)
    session.detach()
    fz.equal(list(ahead), [], "what the library returns at further steps")
    for hook in hooks:
        hook(loop.optimizer, (), {})
    fz.equal(session.begin_window(), None, "a window that begins")


@fz.test("a flag that somebody else sets: ignored until Freezer writes it")
def test_ignore(scene):
    flags, drift, text = conflict(scene, "ignore")
    fz.equal(flags, [True] * 2 + [False] * 3 + [True] * 5, "flags")
    fz.equal(drift, 0, "drift")
    fz.check("somebody else" not in text, "no warning", text)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.plain = nn.BatchNorm1d(WIDTH, affine=False)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.head(self.plain(self.norm(self.linear(x))))


def norm(scene, policy):
    """Which running means moved while the norm was frozen, and after it was unfrozen."""
    scene.daemon()
    loop = Loop(model=Normed())
    model = loop.model
    moved = []
    with pyfreezer.attach(model, loop.optimizer, socket=scene.socket, norm=policy, rules=rules(freeze("norm", 2, 5))):
        for _ in range(8):
            model.train()  # as frameworks do, each step
            before = model.norm.running_mean.clone(), model.plain.running_mean.clone()
            loop.step()
            moved.append(tuple(not torch.equal(b, m.running_mean) for b, m in zip(before, (model.norm, model.plain))))
        model.train()
        fz.check(model.norm.training, "the mode in the end")
    return moved


@fz.test("norm='leave': running statistics of a frozen norm layer go on")
def test_norm_leave(scene):
    fz.equal(norm(scene, "leave"), [(True, True)] * 8, "moved")


@fz.test("norm='eval': they stop, whatever train() says, and go on when it is unfrozen")
def test_norm_eval(scene):
    moved = [(not 2 <= step < 5, True) for step in range(8)]
    fz.equal(norm(scene, "eval"), moved, "moved")


@fz.test("norm='eval': modes are as before when the session ends, and what the script stopped stays so")
def test_norm_restored(scene):
    scene.daemon()
    for stopped, until in ((False, None), (True, None), (True, 4)):
        model = Normed()
        model.norm.training = not stopped
        loop = Loop(model=model)
        with pyfreezer.attach(
            model, loop.optimizer, socket=scene.socket, norm="eval", rules=rules(freeze("norm", 2, until)), log="quiet"
        ):
            loop.run(6)
            fz.equal(model.norm.training, False if until is None else not stopped, "the mode while it is frozen")
        fz.equal(model.norm.training, not stopped, f"the mode in the end, stopped by the script: {stopped}")
        fz.equal(len(model.norm._forward_pre_hooks), 0, "hooks that are left")


@fz.test("norm='eval': what is frozen when the session begins stops, too: by the script, and by a session before")
def test_norm_frozen_before(scene):
    scene.daemon()
    model = Normed()
    model.norm.requires_grad_(False)
    loop = Loop(model=model)
    for run, baseline, changes in (("script", True, rules()), ("it", False, rules(freeze("norm", 0, 8)))):
        if not baseline:
            model.norm.requires_grad_(True)
        for first in (0, 4):
            model.eval()  # as some are when they are loaded; train() comes behind attach()
            with pyfreezer.attach(
                model, loop.optimizer, socket=scene.socket, run=run, step=first, norm="eval", rules=changes, log="quiet"
            ):
                model.train()
                before = model.norm.running_mean.clone()
                loop.run(loop.steps + 4)
                fz.check(torch.equal(before, model.norm.running_mean), f"moved, run {run} from step {first} on")
                fz.equal(model.norm.training, first == 4 and not baseline, f"the mode, run {run} from step {first} on")
            fz.check(model.norm.training, f"the mode behind the session, run {run} from step {first} on")


@fz.test("metrics reach freezerd; one that is not finite is no value")
def test_metrics(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, hook=False, socket=scene.socket) as session:
        session.step(metrics={"loss": 0.5, "bad": float("nan")})
        session.metric("accuracy", torch.tensor(0.25))
        want = {"loss": 0.5, "bad": None, "accuracy": 0.25}

        def arrived():
            session.step()
            return session.client.status()["metrics"] == want

        fz.wait_until(arrived, "all of them")


@fz.test("a flip of more parameters than are fetched with one call")
def test_many(scene):
    scene.daemon()
    model = nn.Module()
    model.many = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(9000))
    model.rest = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pyfreezer.attach(
        model, optimizer, hook=False, socket=scene.socket, rules=rules(freeze("many", 1, 2)), log="quiet"
    ) as session:
        fz.equal([len(session.frozen) for _ in range(3) if session.step() or True], [0, 9000, 0], "frozen by step")


def first_step(scene, optimizer, policy):
    """The run by hand and the session's, with `policy` for the state of what is unfrozen."""
    loop = Loop(optimizer)
    with pyfreezer.attach(
        loop.model, loop.optimizer, socket=scene.socket, optimizer_state=policy, rules=rules(freeze("embed", 4, 9))
    ):
        loop.run(14)
    flips = [Flip(4, "embed", False), Flip(9, "embed", True, reset=policy == "reset")]
    by_hand = Loop(optimizer, flips=flips).run(14)
    return loop, by_hand


@fz.test("the optimizer's state of what is unfrozen is kept, or dropped: two different first steps")
def test_optimizer_state(scene):
    scene.daemon()
    for optimizer in ("adamw", "sgd"):
        kept, kept_by_hand = first_step(scene, optimizer, "keep")
        reset, reset_by_hand = first_step(scene, optimizer, "reset")
        fz.equal(differing(weights(kept.model), weights(kept_by_hand.model)), [], f"{optimizer}, keep")
        fz.equal(differing(weights(reset.model), weights(reset_by_hand.model)), [], f"{optimizer}, reset")
        fz.check("embed.weight" in differing(weights(kept.model), weights(reset.model)), f"{optimizer} differs")


@fz.test("the step that freezerd is told is the first whose update left the parameter out")
def test_acknowledged(scene):
    scene.daemon()
    loop = Loop()
    moved = {}
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket) as session:
        before = loop.model.embed.weight.clone()
        session.freeze("embed", yes=True)
        while loop.steps < 100:
            step = loop.steps
            loop.step()
            moved[step] = not torch.equal(before, loop.model.embed.weight)
            before = loop.model.embed.weight.clone()
        changes = [c for c in session.history() if c["action"] == "freeze"]
        step = changes[0]["step"]
        fz.check(moved[step - 1] and not moved[step], "moved around the step", step, moved)


@fz.test("a step at which nothing changes keeps no memory")
def test_idle(scene):
    scene.daemon()
    loop = Loop()
    lines, plan = Lines(), rules(freeze("embed", 5))
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=plan, log=lines):
        (hook,) = loop.optimizer._optimizer_step_post_hooks.values()
        kept = []
        for _ in range(4):
            before = sys.getallocatedblocks()
            for _ in range(5000):
                hook(loop.optimizer, (), {})
            kept.append(sys.getallocatedblocks() - before)
        fz.check(min(kept[1:]) < 20, "blocks kept in 5000 steps each", kept)
    fz.equal(len(loop.optimizer._optimizer_step_post_hooks), 0, "hooks that are left")
    hook(loop.optimizer, (), {})  # as where the session ends while torch goes through its hooks
    fz.check("WARNING" not in lines.text, "what is said of a step behind the end", lines.text)


@fz.test("a model that is attached again, as by a notebook's cell that runs twice, has one session: the new one")
def test_again(scene):
    scene.daemon()
    loop = Loop()
    lines = Lines()
    first = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="again")
    loop.run(3)
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="again", log=lines) as second:
        fz.equal(len(loop.optimizer._optimizer_step_post_hooks), 1, "hooks")
        fz.check("INFO the model was attached before: that session ends" in lines.text, "what is said", lines.text)
        first.detach()
        loop.while_running(scene, "freeze", "embed")
        fz.equal((second.connected, second.is_frozen("embed"), second.run), (True, True, "again"), "the new one")
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="again", log=lines):
        loop.run(loop.steps + 1)
    fz.equal(lines.text.count("attached before"), 1, "what is said where the one before has ended")


if __name__ == "__main__":
    fz.main()
