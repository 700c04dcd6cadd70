#!/usr/bin/env python3
# charlm.py - the trainer charlm as a program: by itself, with several ranks, resumed, killed, and frozen live.

import json
import os
import signal
import sys

import fz

CHARLM = os.environ.get("CHARLM", "client/examples/charlm")
SMALL = ["--layers", "2", "--width", "16", "--heads", "2", "--context", "16", "--log-every", "1", "--json-log",
         "--dump-hash"]


class Charlm(fz.Process):
    """A charlm whose JSON lines events() gives."""

    def __init__(self, scene, name, *options, env=None):
        super().__init__(scene, name, [CHARLM, *SMALL, *map(str, options)], env)

    def events(self, kind=None):
        with open(self.out_path, encoding="utf-8") as out:
            lines = out.read()
        events = [json.loads(line) for line in lines[:lines.rfind("\n") + 1].splitlines()]
        return [e for e in events if kind in (None, e["event"])]

    def step(self):
        steps = self.events("step")
        return steps[-1]["step"] if steps else -1

    def hashes(self):
        """The hashes after each step."""
        return {e["step"]: e["hashes"] for e in self.events("step")}

    def succeed(self, limit=60):
        fz.equal(self.wait(limit), 0, f"exit status of {self.name}: {self.errors()}")
        return self

    def wait_step(self, step):
        def reached():
            fz.check(self.alive() or self.step() >= step, f"{self.name} ended early", self.errors())
            return self.step() >= step

        fz.wait_until(reached, f"{self.name} at step {step}", 60)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


@fz.test("the loss falls")
def loss_falls(scene):
    charlm = Charlm(scene, "charlm", "--steps", 200).succeed()
    loss = [e["loss"] for e in charlm.events("step")]
    fz.equal(len(loss), 200, "number of steps")
    first, last = sum(loss[:10]) / 10, sum(loss[-10:]) / 10
    fz.check(last < first - 1, "the loss does not fall", first, last)


@fz.test("the seed decides everything")
def seed_decides(scene):
    same = [Charlm(scene, f"same{i}", "--steps", 5).succeed().hashes() for i in range(2)]
    other = Charlm(scene, "other", "--steps", 5, "--seed", 2).succeed().hashes()
    fz.equal(same[0], same[1], "hashes of two runs with the same seed")
    fz.check(same[0][4]["head.weight"] != other[4]["head.weight"], "another seed gives the same weights")


@fz.test("a resumed run continues bit for bit, with one rank and with two")
def resume(scene):
    for ranks in 1, 2:
        file = scene.path(f"ckpt{ranks}")
        whole = Charlm(scene, f"whole{ranks}", "--steps", 30, "--ranks", ranks, "--lr", 0.01).succeed()
        Charlm(scene, f"first{ranks}", "--steps", 13, "--ranks", ranks, "--lr", 0.01, "--checkpoint", file).succeed()
        second = fz.Process(scene, f"second{ranks}", [CHARLM, "--resume", file, "--steps", "30", *SMALL[-4:]])
        second.events = Charlm.events.__get__(second)
        fz.equal(second.wait(60), 0, f"exit status of the resumed run: {second.errors()}")
        fz.equal(second.events("start")[0]["step"], 13, "step at which it goes on")
        fz.equal(second.events("step")[-1]["hashes"], whole.hashes()[29], "weights after the last step")


@fz.test("a signal ends all ranks at one step, with a checkpoint")
def signal_ends(scene):
    for ranks in 1, 3:
        file = scene.path(f"ckpt{ranks}")
        charlm = Charlm(scene, f"charlm{ranks}", "--steps", 0, "--ranks", ranks, "--checkpoint", file)
        charlm.wait_step(5)
        fz.equal(charlm.terminate(), 0, f"exit status after SIGTERM: {charlm.errors()}")
        end = charlm.events("end")
        fz.equal(len(end), 1, "number of end lines")
        fz.equal(end[0]["reason"], "signal", "reason")
        fz.equal(charlm.events("save")[0]["step"], end[0]["step"], "step of the checkpoint")
        fz.check(os.path.exists(file), "no checkpoint")


@fz.test("a killed rank ends the others, with a sentence")
def killed_rank(scene):
    charlm = Charlm(scene, "charlm", "--steps", 0, "--ranks", 3)
    charlm.wait_step(3)
    ranks = children(charlm.pid)
    fz.equal(len(ranks), 3, "number of children")
    os.kill(ranks[1], signal.SIGKILL)
    fz.equal(charlm.wait(), 1, "exit status")
    fz.check("rank 1 (pid" in charlm.errors() and "signal 9" in charlm.errors(), "no word of it", charlm.errors())
    fz.check("--resume" in charlm.errors(), "no word of what to do", charlm.errors())


@fz.test("a killed parent ends the ranks")
def killed_parent(scene):
    charlm = Charlm(scene, "charlm", "--steps", 0, "--ranks", 2)
    charlm.wait_step(3)
    ranks = children(charlm.pid)
    charlm.kill()
    fz.wait_until(lambda: all(fz.process_state(pid) in "XZ" for pid in ranks), "end of the ranks")


@fz.test("errors say what to do, and exit with 1 or 2")
def errors(scene):
    cases = [
        (2, ["--layers", "0"], "'0' is not a whole number from 1 to 64"),
        (2, ["--layers", "-1"], "'-1' is not a whole number from 1 to 64"),
        (2, ["--steps", "1099511627776"], "from 0 to 1099511627775"),
        (2, ["--seed", "99999999999999999999999"], "is not a whole number"),
        (2, ["--lr", "nan"], "is not a number from 0 to 1"),
        (2, ["--frobnicate"], "unknown option '--frobnicate'"),
        (2, ["--steps"], "an argument is missing for '--steps'"),
        (2, ["text.txt"], "--text FILE"),
        (2, ["--checkpoint-every", "5"], "needs --checkpoint FILE"),
        (1, ["--width", "10", "--heads", "4"], "choose a multiple"),
        (1, ["--text", "/no/such/text"], "--text FILE"),
        (1, ["--resume", "/no/such/checkpoint"], "cannot open the checkpoint"),
        (1, ["--resume", CHARLM], "no usable checkpoint"),
    ]
    for number, (status, options, sentence) in enumerate(cases):
        charlm = fz.Process(scene, f"case{number}", [CHARLM, *options])
        fz.equal(charlm.wait(), status, f"exit status of charlm {options}: {charlm.errors()}")
        fz.check(sentence in charlm.errors(), f"charlm {options} does not say {sentence!r}", charlm.errors())
    whole = fz.Process(scene, "help", [CHARLM, "--help"])
    fz.equal(whole.wait(), 0, "exit status of --help")


def moved(hashes, first, last):
    """Names of the tensors that changed from step to step within (first, last], and of those that never did."""
    names = set(hashes[first])
    always = {n for n in names if all(hashes[s][n] != hashes[s - 1][n] for s in range(first + 1, last + 1))}
    never = {n for n in names if all(hashes[s][n] == hashes[first][n] for s in range(first + 1, last + 1))}
    return always, never


@fz.test("frozen live, two ranks: at the confirmed step, bit-identical, and training again after")
def frozen_live(scene):
    scene.daemon()
    charlm = Charlm(scene, "charlm", "--steps", 0, "--ranks", 2, "--run", "live")
    fz.equal(scene.ctl("wait", "--for", "attached", "--timeout", "30").status, 0, "wait --for attached")
    charlm.wait_step(5)
    frozen = scene.ctl_json("freeze", "embed", "blocks.0", "-y")
    fz.equal(frozen["changed"], 14, "tensors frozen")
    charlm.wait_step(frozen["step"] + 10)
    thawed = scene.ctl_json("auto", "embed", "blocks.0")
    charlm.wait_step(thawed["step"] + 10)
    fz.equal(charlm.terminate(), 0, f"exit status: {charlm.errors()}")

    changes = charlm.events("change")
    fz.equal([(e["step"], e["froze"], e["unfroze"]) for e in changes],
             [(frozen["step"], 14, 0), (thawed["step"], 0, 14)], "changes that charlm made")
    fz.equal(changes[0]["first_trainable"], 14, "boundary of the backward pass")
    hashes = charlm.hashes()
    always, never = moved(hashes, frozen["step"] - 1, thawed["step"] - 1)
    fz.equal(len(never), 14, "tensors that kept every bit")
    fz.check(all(n.startswith(("embed.", "blocks.0.")) for n in never), "the wrong ones are frozen", never)
    fz.equal(len(always), len(hashes[0]) - 14, "tensors that moved at each step")
    always, _ = moved(hashes, thawed["step"] - 1, thawed["step"] + 9)
    fz.equal(len(always), len(hashes[0]), "tensors that move after the thaw")


if __name__ == "__main__":
    if not os.access(CHARLM, os.X_OK):
        print(f"Bail out! there is no {CHARLM}: make check builds it and sets CHARLM")
        sys.exit(1)
    fz.main()
