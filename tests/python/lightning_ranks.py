#!/usr/bin/env python3
"""lightning_ranks.py - the callbacks of pyfreezer.lightning on two ranks under DDP, each started by Lightning."""

import torchenv  # noqa: F401 - first: goes on where torch is

import hashlib
import json
import os
import subprocess
import sys

import fz
from lightning_help import Bare, batches, trainer

from pyfreezer.lightning import Freezer, FreezerCallback

os.environ.pop("FREEZER_SOCKET", None)

RULES = {"version": 1, "rules": [{"freeze": ["layers.0"], "from": {"step": 2}, "until": {"step": 5}}]}
CALLBACKS = {
    "callback": lambda: [FreezerCallback(RULES)],
    "freezer": lambda: [Freezer(name_starts_with="layers.0", until_step=3), Freezer(names="head.bias", until_epoch=1)],
}


class Noted(Bare):
    """Notes a digest of all weights in each batch."""

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        text = b"".join(p.detach().numpy().tobytes() for p in self.parameters())
        self.seen[-1] += (hashlib.sha256(text).hexdigest()[:12],)
        return loss


def rank(kind, strategy, folder):
    """What each of the two processes does."""
    model = Noted()
    made = trainer(CALLBACKS[kind](), devices=2, strategy=strategy, max_epochs=2, use_distributed_sampler=False)
    made.fit(model, batches(4), batches(1))
    with open(os.path.join(folder, str(made.global_rank)), "w", encoding="utf-8") as file:
        json.dump(model.seen, file)


def on_two(scene, kind, strategy):
    os.mkdir(scene.path(kind + strategy))
    done = subprocess.run(
        [sys.executable, "-B", os.path.abspath(__file__), "--rank", kind, strategy, scene.path(kind + strategy)],
        capture_output=True,
        text=True,
    )
    fz.equal(done.returncode, 0, f"exit status\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    seen = []
    for number in ("0", "1"):
        with open(os.path.join(scene.path(kind + strategy), number), encoding="utf-8") as file:
            seen.append(json.load(file))
    fz.equal(seen[0], seen[1], "what the ranks saw, and their weights")
    return [flags for what, _, _, flags, *_ in seen[0] if what == "train"]


for _kind, _want in (
    ("callback", ["1" * 8] * 2 + ["00111111"] * 3 + ["1" * 8] * 3),
    ("freezer", ["1" * 7 + "0"] * 3 + ["1" * 8] * 5),
):
    for _strategy in ("ddp", "ddp_find_unused_parameters_true"):

        @fz.test(f"{_kind} under {_strategy}: both ranks have the same flags and weights in each batch", limit=240)
        def test_ranks(scene, kind=_kind, strategy=_strategy, want=_want):
            fz.equal(on_two(scene, kind, strategy), want, "flags by batch")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        rank(*sys.argv[2:])
    else:
        fz.main()
