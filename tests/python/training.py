# training.py - what the tests train: a small model with everything that matters, and the run by hand to compare with.
"""
Everything is seeded, so two loops with the same flips are equal to the last bit. A loop flips nothing by itself: what
flips it is a session, or Flip objects, by hand, at the steps that they name.
"""

import dataclasses
import logging
import threading

import torch
from torch import nn

torch.set_num_threads(1)

WIDTH = 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + torch.tanh(self.linear(self.norm(x)))


class Model(nn.Module):
    """A stack of blocks between an embedding and a head."""

    def __init__(self, blocks=4):
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


OPTIMIZERS = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=0.1),
}


@dataclasses.dataclass
class Flip:
    """By hand: at the start of `step`, the parameters whose name starts with `prefix`."""

    step: int
    prefix: str
    requires_grad: bool
    reset: bool = False


class Loop:
    """A plain loop. step() is one optimizer step, of `accumulate` batches."""

    def __init__(self, optimizer="adamw", set_to_none=True, accumulate=1, flips=(), model=None, seed=1):
        torch.manual_seed(seed)
        self.model = model or Model()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.data = torch.Generator().manual_seed(seed + 1)
        self.set_to_none = set_to_none
        self.accumulate = accumulate
        self.flips = list(flips)
        self.steps = 0
        self.before_batch = lambda micro: None

    def step(self):
        for flip in self.flips:
            if flip.step == self.steps:
                self._flip(flip)
        self.optimizer.zero_grad(set_to_none=self.set_to_none)
        for micro in range(self.accumulate):
            self.before_batch(micro)
            batch = torch.randn(4, WIDTH, generator=self.data)
            loss = (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
            loss.backward()
        self.optimizer.step()
        self.steps += 1
        return loss.item()

    def run(self, steps):
        """On to step number `steps`."""
        while self.steps < steps:
            self.step()
        return self

    def _flip(self, flip):
        for name, parameter in self.model.named_parameters():
            if name.startswith(flip.prefix) and parameter.requires_grad != flip.requires_grad:
                parameter.requires_grad = flip.requires_grad
                parameter.grad = None
                if flip.reset:
                    self.optimizer.state.pop(parameter, None)

    def while_running(self, scene, *words):
        """Trains on until a change by freezerctl is done; its Result, with data."""
        results = []
        thread = threading.Thread(target=lambda: results.append(scene.ctl(*words, "--yes", "--json")))
        thread.start()
        while thread.is_alive():
            self.step()
        thread.join()
        return results[0]


class Lines(logging.Logger):
    """What the package says: messages in `lines`, and in `text` with their levels. Can be another logger's handler."""

    def __init__(self):
        super().__init__("lines")
        self.lines = []
        self.text = ""

    def handle(self, record):
        self.lines.append(record.getMessage())
        self.text += f"{record.levelname} {record.getMessage()}\n"


def weights(model, prefix=""):
    """Copies of the parameters by name."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith(prefix)}


def differing(one, other):
    """Names of what is not equal to the last bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
