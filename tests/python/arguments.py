#!/usr/bin/env python3
"""arguments.py - what people get wrong: an error at once, that says what is wrong and what would be right."""

import torchenv  # noqa: F401 - first: goes on where torch is

import inspect

import fz
import pyfreezer
from training import Loop, Model

NOWHERE = "/nonexistent"


def error_of(cls, function, *words):
    """The sentence of the error that a call ends in, which has these words."""
    try:
        function()
    except cls as error:
        fz.equal(type(error), cls, f"the kind of {error!r}")
        fz.check(all(word in str(error) for word in words), f"words of {words}", str(error))
        return str(error)
    raise fz.Failure(f"no {cls.__name__}")


@fz.test("arguments of attach() that cannot be")
def test_attach(_scene):
    loop = Loop()

    def attach(*things, **words):
        return lambda: pyfreezer.attach(*(things or (loop.model, loop.optimizer)), socket=NOWHERE, **words)

    for name in ("norm", "optimizer_state", "on_conflict", "uncovered", "log"):
        error_of(ValueError, attach(**{name: "x"}), "'x'")
    for name in ("step", "epoch", "attempt", "timeout"):
        error_of(ValueError, attach(**{name: -1}), name, "0 or more", "-1")
    error_of(ValueError, attach(rank=1), "rank and world")
    error_of(ValueError, attach(world=2), "rank and world")
    error_of(ValueError, attach(rank=2, world=2), "2 of 2")
    error_of(ValueError, attach(loop.model), "hook=False", "session.step()")
    error_of(TypeError, attach(loop.optimizer, loop.model), "model", "AdamW")
    error_of(TypeError, attach([loop.model], loop.optimizer), "model", "list")
    error_of(TypeError, attach(loop.model, loop.model.parameters()), "optimizer")
    error_of(FileNotFoundError, attach(rules="none.json"), "none.json")
    error_of(pyfreezer.FreezerError, attach(run=""), "run", "characters")
    error_of(pyfreezer.FreezerError, attach(run="two\nlines"), "run", "characters")
    fz.equal(sum(p.requires_grad for p in loop.model.parameters()), 20, "parameters that train after all that")


class Old:
    """An optimizer of before torch 2, or of another library."""

    def __init__(self, parameters):
        self.param_groups = [{"params": list(parameters)}]
        self.state = {}

    def step(self):
        pass


@fz.test("an optimizer without a hook is refused, with what to do instead, which works")
def test_no_hook(_scene):
    model = Model()
    error_of(pyfreezer.FreezerError, lambda: pyfreezer.attach(model, Old(model.parameters()), socket=NOWHERE),
             "Old", "hook=False", "session.step()")  # fmt: skip
    with pyfreezer.attach(model, Old(model.parameters()), hook=False, socket=NOWHERE) as session:
        session.step()
        session.step()
        fz.equal(session.position, (1, 0), "position")


class Unwilling(pyfreezer.Extension):
    def attached(self, session):
        raise pyfreezer.Refused("this one is not to be attached")


def fail(_change):
    raise KeyError("of the script's own")


@fz.test("an attach() that fails leaves no rank behind, and no hook")
def test_nothing_left(scene):
    scene.daemon()
    loop = Loop()
    rules = {"version": 1, "rules": [{"freeze": ["embed"]}]}
    kept = []  # as a notebook keeps the last exception, with all that its frames refer to
    for optimizer, words in (
        (loop.optimizer, {"norm": "x"}),
        (loop.optimizer, {"on_conflict": "x"}),
        (loop.optimizer, {"extensions": [Unwilling()]}),
        (loop.optimizer, {"on_change": fail, "rules": rules}),
        (Old(loop.model.parameters()), {}),
    ):
        try:
            pyfreezer.attach(loop.model, optimizer, socket=scene.socket, run="it", log="quiet", **words)
            raise fz.Failure(f"no error with {words}")
        except (ValueError, KeyError, pyfreezer.FreezerError) as error:
            kept.append(error)
        runs = scene.ctl_json("runs")["runs"]
        fz.check(all(run["ranks"] == 0 for run in runs), f"ranks left with {words}", runs)
        hooks = [*loop.optimizer._optimizer_step_post_hooks, *loop.optimizer._optimizer_step_pre_hooks]
        fz.equal(hooks, [], f"hooks left with {words}")


@fz.test("rules that freezerd does not take end attach(), with what is wrong, whatever they come in")
def test_rules(scene):
    scene.daemon()
    loop = Loop()

    def attach(rules):
        return lambda: pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=rules, log="quiet")

    def rule(*patterns):
        return {"version": 1, "rules": [{"freeze": list(patterns)}]}

    for rules, words in (
        ({"version": 1, "rules": [{"freze": ["embed"]}]}, ("'freze'", "did you mean 'freeze'")),
        (rule("nose"), ("'nose' matches nothing",)),
        (rule("**"), ("freeze everything",)),
        ({"rules": 3}, ("'rules' is a list",)),
    ):
        error_of(pyfreezer.RulesError, attach(rules), *words)
    fz.check(not scene.ctl_json("runs")["runs"] or not scene.ctl_json("runs")["runs"][0]["ranks"], "ranks are left")
    path = scene.write("rules.json", '{"version": 1, "rules": [{"freeze": ["nose"]}]}')
    error_of(pyfreezer.RulesError, attach(path), path, "'nose'")
    fz.check(all(p.requires_grad for p in loop.model.parameters()), "nothing was frozen")
    with attach(rule("embed"))() as session:
        fz.equal(session.frozen, ["embed.weight", "embed.bias"], "frozen by rules without a mistake")
    with pyfreezer.attach(
        loop.model, loop.optimizer, run="none", socket=scene.socket, rules={"version": 1, "rules": []}
    ):
        pass


@fz.test("what is asked of a session or a client, and cannot be had")
def test_session(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="it") as session:
        with session.client as client:
            for cls, function, words in (
                (pyfreezer.NoMatch, lambda: session.freeze("emb"), ("'emb'", "did you mean 'embed'")),
                (pyfreezer.NoMatch, lambda: session.explain("embed"), ("'embed.weight'",)),
                (pyfreezer.NoMatch, lambda: session.is_frozen("layers.1.lin"), ("'layers.1.lin'",)),
                (pyfreezer.NoMatch, lambda: client.list("nose"), ("'nose'",)),
                (pyfreezer.NoMatch, lambda: pyfreezer.Client(scene.socket, run="that").status(), ("that",)),
                (pyfreezer.FreezerError, lambda: session.unfreeze("["), ("not closed",)),
                (pyfreezer.FreezerError, lambda: session.freeze([]), ("'patterns'",)),
                (pyfreezer.FreezerError, lambda: session.pin("embed", value="x"), ("frozen or training",)),
                (pyfreezer.FreezerError, lambda: session.freeze("embed", for_steps=0), ("'for'", "from 1")),
                (pyfreezer.FreezerError, lambda: client.wait("lunch"), ("in-sync",)),
                (pyfreezer.Refused, lambda: session.freeze("**"), ("every",)),
                (pyfreezer.RulesError, lambda: client.rules_load({"rules": 3}), ("'rules'",)),
                (TypeError, lambda: session.freeze("embed", until=3), ("freeze() takes no 'until'", "until_step")),
                (TypeError, lambda: client.rules_unload(rules={}), ("'rules'",)),
                (pyfreezer.FreezerError, lambda: session.load_state_dict({}), ("version",)),
            ):
                error_of(cls, function, *words)
        fz.equal(session.frozen, [], "frozen after all that")
    error_of(pyfreezer.NotConnected, lambda: pyfreezer.Client(NOWHERE).runs(), "no freezerd", NOWHERE)


@fz.test("a client outlives freezerd, and does not wait for ever for one that stands still")
def test_client(scene):
    daemon = scene.daemon()
    loop = Loop()
    seconds, pyfreezer._client._ANSWER_SECONDS = pyfreezer._client._ANSWER_SECONDS, 0.3
    try:
        pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="it")
        with pyfreezer.Client(scene.socket) as client:
            pid = client.ping()["pid"]
            daemon.stop()
            error_of(pyfreezer.FreezerError, client.ping, "did not answer within 0.3 s")
            daemon.cont()
            pyfreezer._client._ANSWER_SECONDS = seconds
            fz.equal([run["name"] for run in client.runs()], ["it"], "runs, when it goes on")
            daemon.terminate()
            scene.daemon()
            fz.check(client.ping()["pid"] != pid, "another one answers")
    finally:
        pyfreezer._client._ANSWER_SECONDS = seconds


@fz.test("what training reports wrongly is a warning: it goes on")
def test_training(scene):
    scene.daemon()
    loop = Loop()
    said = []
    log = pyfreezer._log.logger
    log.addFilter(lambda record: said.append(record.getMessage()) or False)
    try:
        with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, hook=False, log=log) as session:
            session.step(5)
            for call in (lambda: session.step(3), lambda: session.begin_window(-1), lambda: session.set_epoch(1 << 50)):
                fz.equal(call(), None, "the change")
            fz.equal(session.position, (5, 0), "position")
            session.metric("", 1.0)
            session.metric("loss", float("nan"))
    finally:
        log.filters.clear()
    fz.equal(sum("went back without rewind()" in line for line in said), 1, f"warnings about steps in {said}")
    fz.equal(sum("metric ''" in line for line in said), 1, f"warnings about the metric in {said}")


@fz.test("all that is public is described")
def test_documented(_scene):
    silent = []
    for name in pyfreezer.__all__:
        thing = getattr(pyfreezer, name)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        public = [(n, m) for n, m in members if not n.startswith("_") and (callable(m) or isinstance(m, property))]
        silent += [n for n, one in [(name, thing), *((f"{name}.{n}", m) for n, m in public)] if not inspect.getdoc(one)]
    fz.equal(silent, [], "without a sentence")


if __name__ == "__main__":
    fz.main()
