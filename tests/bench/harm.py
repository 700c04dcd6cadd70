# harm.py - what freezerd, in whatever trouble, does to a training run that is attached to it: to its steps and its weights.
"""
charlm trains the same steps again and again, in turns: without Freezer (twice, which shows what the machine alone does),
with freezerd idle, stopped, and killed and started again in a loop. Each side's steps are compared with those without
Freezer of the same round, since a machine is faster now and slower then; a target is what may be added to the noise,
by which the two sides without Freezer differ. Weights must be the same, to the bit.
"""

import json
import os
import statistics
import threading

import fz

CHARLM = os.environ.get("CHARLM", "client/examples/charlm")
SIZES = ["--layers", "2", "--width", "32", "--heads", "2", "--context", "32", "--batch", "2"]
WARM_UP = 20
KILL_EVERY_S = 0.1
SIDES = ["without", "again", "idle", "stopped", "killed"]


def kill_in_a_loop(scene, daemon, ended):
    """Kills freezerd and starts it again until told to end; returns how often."""
    kills = 0
    while not ended.wait(KILL_EVERY_S):
        daemon.kill()
        daemon = scene.daemon()
        kills += 1
    daemon.terminate()
    return kills


def train(scene, side, steps):
    """One training run. Returns (ms of each step, hashes of the weights, kills of freezerd)."""
    with_freezer = side in ("idle", "stopped", "killed")
    daemon = scene.daemon() if with_freezer else None
    argv = [CHARLM, *SIZES, "--steps", str(steps + WARM_UP), "--log-every", "1", "--json-log", "--dump-hash"]
    charlm = fz.Process(scene, scene.unique("charlm"), argv, {} if with_freezer else {"FREEZER_DISABLE": "1"})
    kills = 0
    if with_freezer:
        fz.wait_until(lambda: "attached" in charlm.errors() or not charlm.alive(), "charlm attached")
    if side == "stopped":
        daemon.stop()
    if side == "killed":
        ended = threading.Event()
        watcher = threading.Thread(target=lambda: (charlm.popen.wait(), ended.set()))
        watcher.start()
        kills = kill_in_a_loop(scene, daemon, ended)
        watcher.join()
    fz.equal(charlm.wait(120), 0, f"exit status of charlm, {side}: {charlm.errors()}")
    if side in ("idle", "stopped"):
        daemon.cont()
        daemon.terminate()
    with open(charlm.out_path, encoding="utf-8") as out:
        said = [line for line in map(json.loads, out) if line["event"] == "step"]
    fz.equal(len(said), steps + WARM_UP, "steps of charlm")
    fz.check(not with_freezer or said[-1]["gen"] > 0, f"charlm never had a plan, {side}")
    return [line["ms"] for line in said[WARM_UP:]], said[-1]["hashes"], kills


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def harm(scene, row, rounds, steps):
    """The rows of this benchmark."""
    took = {side: [] for side in SIDES}
    weights, kills = {}, 0
    for number in range(rounds):
        shift = number % len(SIDES)
        for side in SIDES[shift:] + SIDES[:shift]:
            spell, weights[side, number], killed = train(scene, side, steps)
            took[side].append(spell)
            kills += killed
    different = [f"{side}, round {number}" for (side, number), found in weights.items() if found != weights["without", 0]]
    fz.check(not different, "the weights are not those of a run without Freezer", different)
    fz.check(kills > 0, "freezerd was never killed")
    words = {"again": "once more without Freezer", "idle": "freezerd idle", "stopped": "freezerd stopped",
             "killed": f"freezerd killed {kills} times"}
    rows = []
    for what, share, target in (("median", 0.5, 1.05), ("99th percentile", 0.99, 1.15)):
        base = [percentile(spell, share) for spell in took["without"]]
        noise = 1
        for side, word in words.items():
            ours = [percentile(spell, share) for spell in took[side]]
            ratio = statistics.median(o / b for o, b in zip(ours, base))
            if side == "again":
                noise = max(ratio, 1 / ratio)
            rows.append(row(f"charlm's step, {word}: {what}", "without Freezer", "ms", statistics.median(ours),
                            statistics.median(base), ratio, None if side == "again" else round(target * noise, 2)))
    return rows + [row("weights that differ from those without Freezer", f"{len(weights)} trainings", "", 0,
                       len(weights), 0, 0)]
