#!/usr/bin/env python3
"""faults.py - no library, no freezerd, one that comes later, dies or comes back; forks; checkpoints; other layouts."""

import torchenv  # noqa: F401 - first: goes on where torch is

import io
import os
import subprocess
import sys
import threading

import fz
import pyfreezer
import torch
from training import Flip, Lines, Loop, differing, weights

RULES = {"version": 1, "rules": [{"freeze": ["embed", "layers.0"], "from": {"step": 10}, "until": {"step": 30}}]}
FLIPS = [Flip(10, p, False) for p in ("embed", "layers.0.")] + [Flip(30, p, True) for p in ("embed", "layers.0.")]


def same_as_by_hand(loop, flips=FLIPS):
    by_hand = Loop(flips=flips).run(loop.steps)
    fz.equal(differing(weights(loop.model), weights(by_hand.model)), [], "differences from the run by hand")


@fz.test("without a library every call is taken, training goes on, and one warning says so", limit=240)
def test_no_library(scene):
    program = """
import pyfreezer, torch
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    with pyfreezer.attach(model, optimizer, rules={"version": 1, "rules": []}) as session:
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        assert session.freeze("weight") == {} and session.unfreeze("weight") == {}
        session.metric("loss", 1.0)
        assert session.position == (3, 0) and session.frozen == [] and not session.connected
        session.load_state_dict(session.state_dict())
        session.rewind(0)
        session.summary()
"""
    env = dict(scene.env, FREEZER_LIBRARY=scene.path("none.so"))
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    fz.equal(run.returncode, 0, f"exit status\n{run.stderr}\n")
    fz.equal(run.stdout, "", "standard output")
    fz.equal(run.stderr.count("Freezer:"), 1, f"warnings: {run.stderr}")
    fz.check("none.so" in run.stderr, "what was tried is told", run.stderr)
    run = subprocess.run(
        [sys.executable, "-c", program], env=dict(env, FREEZER_REQUIRE="1"), capture_output=True, text=True
    )
    fz.check(run.returncode != 0 and "FREEZER_REQUIRE" in run.stderr, "an error where Freezer is required", run.stderr)


@fz.test("a library that is none, or too old, is taken for none", limit=240)
def test_wrong_library(scene):
    scene.write("old.so", "")
    env = dict(scene.env, FREEZER_LIBRARY=scene.path("old.so"))
    program = "import pyfreezer._library as l; print(l.load())"
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    fz.equal(run.stdout.strip(), "None", f"the library: {run.stderr}")
    env["FREEZER_LIBRARY"] = "libc.so.6"
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    fz.equal(run.stdout.strip(), "None", f"the library: {run.stderr}")


@fz.test("without freezerd training goes on, commands say that there is none; when it comes, its word holds")
def test_later(scene):
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="later") as session:
        loop.run(5)
        try:
            session.freeze("embed")
            raise fz.Failure("no error")
        except pyfreezer.NotConnected:
            pass
        scene.daemon()
        while not session.connected:
            loop.step()
        step = loop.while_running(scene, "freeze", "embed").data["step"]
        loop.run(step + 5)
        fz.check(session.is_frozen("embed"), "frozen")
    same_as_by_hand(loop, [Flip(step, "embed", False)])


@fz.test("freezerd killed and started again: what was planned holds to the step, what was confirmed stays")
def test_killed(scene):
    daemon = scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="killed", rules=RULES) as session:
        loop.run(5)
        daemon.kill()
        loop.run(20)
        fz.check(session.is_frozen("embed") and not session.is_frozen("layers.1"), "the plan goes on without freezerd")
        scene.daemon()
        while not session.connected:
            loop.step()
        loop.run(max(loop.steps, 40))
    same_as_by_hand(loop)


@fz.test("a forked child is inert: what it does with the model reaches nobody")
def test_fork(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="fork") as session:
        loop.run(5)
        child = os.fork()
        if child == 0:
            try:
                loop.run(50)
                os._exit(0 if session.frozen == [] else 2)
            finally:
                os._exit(3)
        fz.equal(os.waitpid(child, 0)[1], 0, "status of the child")
        step = loop.while_running(scene, "freeze", "embed").data["step"]
        fz.check(step < 50, "the parent's steps count", step)


@fz.test("the interpreter ends and training goes on, in an atexit function: the handle is closed, and stays so")
def test_exit(scene):
    scene.daemon()
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="exit")
    loop.run(3)
    session._finalizer()  # as at the end of the interpreter, when the hook is still there
    for _ in range(3):
        loop.step()
        fz.equal(len(session._handle._ahead), 0, "calls with the address of what is freed that lie ahead")
    same_as_by_hand(loop, [])
    session.detach()


class Meddling(torch.utils.data.Dataset):
    """Its workers have the session, too, and use it."""

    def __init__(self, session):
        self.session = session

    def __len__(self):
        return 24

    def __getitem__(self, index):
        self.session.begin_window(1000 + index)
        self.session.look()
        return os.getpid()


@fz.test("workers of a DataLoader: the training process alone counts steps and acknowledges", limit=120)
def test_workers(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="workers") as session:
        workers = torch.utils.data.DataLoader(Meddling(session), num_workers=2, multiprocessing_context="fork")
        pids = set()
        for pid in workers:
            pids.add(int(pid))
            loop.step()
        fz.check(len(pids) == 2 and os.getpid() not in pids, "there were workers", pids)
        step = loop.while_running(scene, "freeze", "embed").data["step"]
        fz.check(24 <= step < 1000, "the step is that of the training process", step)
        (rank,) = session.client.status()["rank_list"]
        fz.equal(rank["pid"], os.getpid(), "the rank's process")


@fz.test("changes without a pause: each mask that is seen is one that was published", limit=120)
def test_storm(scene):
    scene.daemon()
    loop = Loop()
    ends, errors = [], []

    def storm(session):
        try:
            with session.client as client:
                for i in range(300):
                    getattr(client, ("freeze", "unfreeze")[i % 2])(["layers", "embed"], wait=0)
        except Exception as error:
            errors.append(error)
        ends.append(True)

    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="storm", log="quiet") as session:
        seen, generations = set(), set()
        thread = threading.Thread(target=storm, args=(session,))
        thread.start()
        while not ends:
            session.begin_window()
            seen.add(tuple(session.frozen))
            generations.add(session.generation)
        thread.join()
        fz.equal(errors, [], "errors of the one who changes")
        fz.check(len(generations) > 2, "generations seen", generations)
        fz.check({len(mask) for mask in seen} <= {0, 18}, "sizes of the masks seen", seen)


@fz.test("a checkpoint resumed in a new process is equal to the bit with the run that went through")
def test_resume(scene):
    scene.daemon()
    loop = Loop()
    session = pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="resume", rules=RULES)
    changes = []
    session.on_change(changes.append)
    loop.run(7)
    scene.ctl("freeze", "head.bias", "--no-wait")
    loop.run(20)
    step = next(change.step for change in changes if "head.bias" in change.frozen)
    kept = io.BytesIO()
    torch.save(
        (loop.model.state_dict(), loop.optimizer.state_dict(), loop.data.get_state(), session.state_dict()), kept
    )
    state = session.state_dict()
    fz.equal((state["step"], state["epoch"]), (20, 0), "where the state was taken")
    fz.check({"embed.weight", "layers.0.linear.bias", "head.bias"} <= set(state["frozen"]), "frozen names", state)
    loop.run(40)
    session.detach()

    def resumed(**words):
        again = Loop(seed=5)
        kept.seek(0)
        model, optimizer, data, freezer = torch.load(kept, weights_only=True)
        again.model.load_state_dict(model)
        again.optimizer.load_state_dict(optimizer)
        again.data.set_state(data)
        again.steps = freezer["step"]
        with pyfreezer.attach(again.model, again.optimizer, **words) as session:
            session.load_state_dict(freezer)
            fz.equal(session.position, (20, 0), "where it goes on")
            fz.equal(session.frozen, freezer["frozen"], "frozen after loading")
            again.run(29)
            fz.equal(session.frozen, freezer["frozen"], "frozen later")
            return again, session

    again, _ = resumed(socket=scene.socket, run="resume")
    with pyfreezer.attach(again.model, again.optimizer, socket=scene.socket, run="resume", step=29):
        again.run(40)
    fz.equal(differing(weights(again.model), weights(loop.model)), [], "differences from the run that went through")
    same_as_by_hand(loop, [*FLIPS, Flip(step, "head.bias", False)])
    resumed(socket=scene.path("nobody"), log="quiet")


@fz.test("flags of a checkpoint hold without freezerd, until one comes whose word they give way to")
def test_restored(scene):
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="restored") as session:
        state = {**session.state_dict(), "step": 5, "frozen": ["embed.weight", "head.bias"]}
        session.load_state_dict(state)
        loop.steps = 5
        loop.run(8)
        fz.equal(session.frozen, ["embed.weight", "head.bias"], "frozen without freezerd")
        scene.daemon()
        while session.generation == 0:
            loop.step()
        fz.equal(session.frozen, [], "frozen by freezerd's plan")


@fz.test("a loaded state keeps the moments that came with it, also with optimizer_state='reset'")
def test_loaded_moments(scene):
    scene.daemon()
    words = {"socket": scene.socket, "optimizer_state": "reset", "log": "quiet", "rules": {
        "version": 1, "rules": [{"freeze": ["embed"], "until": {"step": 5}}]}}  # fmt: skip
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, run="first", **words) as session:
        loop.run(9)
        kept = io.BytesIO()
        torch.save((loop.model.state_dict(), loop.optimizer.state_dict(), loop.data.get_state()), kept)
        state = session.state_dict()
        loop.run(14)
    again = Loop(seed=5)
    kept.seek(0)
    model, optimizer, data = torch.load(kept, weights_only=True)
    with pyfreezer.attach(again.model, again.optimizer, run="again", **words) as session:
        fz.check(session.is_frozen("embed"), "frozen at step 0")
        again.model.load_state_dict(model)
        again.optimizer.load_state_dict(optimizer)
        again.data.set_state(data)
        again.steps = 9
        session.load_state_dict(state)
        fz.check(not session.is_frozen("embed"), "unfrozen by what was loaded")
        again.run(14)
    fz.equal(differing(weights(again.model), weights(loop.model)), [], "differences from the run that went through")


@fz.test("where freezerd says other than a checkpoint, that is said, and freezerd's word holds")
def test_differs(scene):
    scene.daemon()
    loop = Loop()
    said = Lines()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=RULES, log=said) as session:
        session.load_state_dict(
            {**session.state_dict(), "step": 12, "frozen": ["embed.weight", "embed.bias", "head.bias"]}
        )
        fz.check(session.is_frozen("layers.0") and not session.is_frozen("head"), "frozen by the rules", session.frozen)
    (line,) = [line for line in said.lines if "differ from the checkpoint" in line]
    fz.check("step 12" in line and "head.bias" in line and "layers.0.norm.weight" in line, "what differs", line)
    fz.check("embed.weight" not in line, "what does not", line)


@fz.test("a state of another model, or of a later version, is an error")
def test_wrong_state(_scene):
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket="/nonexistent", log="quiet") as session:
        state = session.state_dict()
        for wrong, word in (
            ({**state, "frozen": ["nose.weight"]}, "nose.weight"),
            ({**state, "version": 2}, "version 2"),
        ):
            try:
                session.load_state_dict(wrong)
                raise fz.Failure(f"no error about {word}")
            except pyfreezer.FreezerError as error:
                fz.check(word in str(error), "the error says what is wrong", str(error))


@fz.test("attach() waits for other ranks as long as it was told, and says so")
def test_timeout(scene):
    scene.daemon()
    loop = Loop()
    said = Lines()
    for timeout in (0, 0.05):
        with pyfreezer.attach(
            loop.model, loop.optimizer, socket=scene.socket, rank=0, world=2, timeout=timeout, log=said
        ) as session:
            loop.step()
            fz.equal(session.generation, 0, "the plan")
    fz.equal([line for line in said.lines if "no plan" in line],
             ["no plan after 50 ms: training begins with the flags as they are"], "what is said")  # fmt: skip


@fz.test("going back in time: rewind() gives the mask of that step")
def test_rewind(scene):
    scene.daemon()
    loop = Loop()
    with pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, run="rewind", rules=RULES) as session:
        loop.run(35)
        fz.equal(session.frozen, [], "frozen behind the window of the rule")
        session.rewind(12)
        fz.check(session.is_frozen("embed"), "frozen within it")
        loop.run(35 + 17)
        fz.check(session.is_frozen("embed"), "frozen at step 29")
        loop.step()
        fz.check(not session.is_frozen("embed"), "trains from step 30 on")
        session.load_state_dict({**session.state_dict(), "step": 12})
        fz.equal(session.position, (12, 0), "where a checkpoint of before leads to")
        fz.check(session.is_frozen("embed"), "frozen there")


@fz.test("rules come from a file, YAML or JSON; one with mistakes is an error that names the file")
def test_rules(scene):
    scene.daemon()
    loop = Loop()
    for name, text, said in (
        ("none.json", "version: 1\n", "is not JSON"),
        ("typo.yaml", "version: 1\nrules:\n  - freze: [embed]\n", "freze"),
    ):
        path = scene.write(name, text)
        try:
            pyfreezer.attach(loop.model, loop.optimizer, socket=scene.socket, rules=path)
            raise fz.Failure("no error")
        except pyfreezer.RulesError as error:
            fz.check(path in str(error) and said in str(error), "file and mistake", str(error))
    for name, text in (
        ("rules.json", '{"version": 1, "rules": [{"freeze": ["embed"]}]}'),
        ("rules.yaml", "version: 1\nrules:\n  - freeze: [embed]\n"),
    ):
        path = scene.write(name, text)
        with pyfreezer.attach(loop.model, loop.optimizer, run=name, socket=scene.socket, rules=path) as session:
            fz.equal(session.frozen, ["embed.weight", "embed.bias"], f"frozen in the first window by {name}")
        session.detach(restore=True)
        for parameter in loop.model.parameters():
            parameter.requires_grad = True


if __name__ == "__main__":
    fz.main()
