#!/usr/bin/env python3
"""unchanged.py - python -m pyfreezer run: a script that knows nothing of Freezer, and everything as python does it."""

import torchenv  # noqa: F401 - first: goes on where torch is

import os
import sys

import fz

# Trains until a file says at which step to end; keeps every step's weights of what the test freezes.
SCRIPT = """
import os, sys
import torch
from torch import nn

torch.manual_seed(1)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
folder, flips = sys.argv[1], [word.split(":") for word in sys.argv[2:]]
model = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3)], nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
kept, step = [], 0
while not os.path.exists(folder + "/end") or step < int(open(folder + "/end").read()):
    for at, prefix, flag in flips:
        if int(at) == step:
            for name, parameter in model.named_parameters():
                if name.startswith(prefix):
                    parameter.requires_grad = flag == "1"
                    parameter.grad = None
    optimizer.zero_grad()
    batch = torch.randn(4, 8)
    (model(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
    optimizer.step()
    step += 1
    kept.append(model[0][0].weight.detach().clone())
    with open(folder + "/step.new", "w") as out:
        out.write(str(step))
    os.replace(folder + "/step.new", folder + "/step")
torch.save({"kept": kept, "model": model.state_dict()}, folder + "/" + ("by-hand" if flips else "live"))
sys.exit(7)
"""


def start(scene, *words, name="script", env=None):
    library = {"FREEZER_LIBRARY": os.environ["FREEZER_LIBRARY"]}  # a scene hides what begins with FREEZER
    return fz.Process(scene, name, [sys.executable, *words], {**library, **(env or {})})


def wait_step(scene, process, step):
    def reached():
        fz.check(process.alive(), "the script trains", process.errors()[-2000:])
        try:
            with open(scene.path("step"), encoding="utf-8") as text:
                return int(text.read()) >= step
        except OSError:
            return False

    fz.wait_until(reached, f"step {step}", 200)


def changed(scene, *words):
    data = scene.ctl_json(*words, "--yes")
    fz.check(data["applied"], "the change was applied", data)
    return data["step"]


@fz.test("an unchanged script is frozen and unfrozen live, equal to the run by hand", limit=400)
def test_live(scene):
    import torch

    scene.daemon()
    script = scene.write("train.py", SCRIPT)
    process = start(scene, "-m", "pyfreezer", "run", "--socket", scene.socket, script, scene.root)
    wait_step(scene, process, 10)
    frozen_at = changed(scene, "freeze", "0", "1")
    wait_step(scene, process, frozen_at + 20)
    thawed_at = changed(scene, "unfreeze", "0")
    scene.write("end", str(thawed_at + 20))
    fz.equal(process.wait(100), 7, "exit status")
    live = torch.load(scene.path("live"))
    still = [torch.equal(live["kept"][frozen_at - 1], weight) for weight in live["kept"][frozen_at:thawed_at]]
    fz.check(still and all(still), "frozen is bit-identical")
    fz.check(not torch.equal(live["kept"][thawed_at - 1], live["kept"][thawed_at]), "what was unfrozen trains")

    flips = [f"{frozen_at}:0.:0", f"{frozen_at}:1.:0", f"{thawed_at}:0.:1"]
    fz.equal(start(scene, script, scene.root, *flips, name="by hand").wait(200), 7, "exit status of the run by hand")
    by_hand = torch.load(scene.path("by-hand"))
    differing = [n for n in live["model"] if not torch.equal(live["model"][n], by_hand["model"][n])]
    fz.equal(differing, [], "differences from the run by hand")


if __name__ == "__main__":
    fz.main()
