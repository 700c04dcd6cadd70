# lightning_help.py - what the tests of pyfreezer.lightning train, and with what.
import logging
import warnings

import torch
from torch import nn

import lightning.pytorch as pl

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)


class System(pl.LightningModule):
    """Stands for project-lighter's, which is known by its name and package: parameters are those of its `model`."""


System.__module__ = "lighter.system"

WIDTH = 4


def batches(count, same=False):
    """A loader of `count` batches; `same`: all alike, so that it does not matter where a resumed epoch goes on."""
    data = torch.randn(2 if same else count * 2, WIDTH, generator=torch.Generator().manual_seed(7))
    return torch.utils.data.DataLoader(data.repeat(count, 1) if same else data, batch_size=2)


def trainer(callbacks=(), **options):
    """A Trainer that writes nothing."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**defaults, **options})


def tree(flags):
    """A module with these parameters, {dotted name: requires_grad}, each of its own value."""
    root = nn.Module()
    for number, (name, flag) in enumerate(flags.items()):
        module = root
        *path, attribute = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(attribute, nn.Parameter(torch.full((WIDTH,), 0.1 + number), requires_grad=flag))
    return root


def mask(model):
    """The flags of a model, as the rules' tests write them."""
    return "".join("1" if p.requires_grad else "0" for p in model.parameters())


class Recorder:
    """Mixed into a module: notes (kind, global_step, current_epoch, flags) in each step, where the forward begins."""

    def note(self, kind):
        if not hasattr(self, "seen"):
            self.seen = []
        place = (self.trainer.global_step, self.trainer.current_epoch)
        self.seen.append((kind, *place, mask(getattr(self, "model", self))))


class Flat(Recorder, System):
    """A System over a tree of parameters. One of its own always trains, so that an empty mask does no harm."""

    def __init__(self, flags):
        super().__init__()
        self.model = tree(flags)
        self.own = nn.Parameter(torch.ones(WIDTH))

    def loss(self, batch):
        return sum(((p * batch).sum() - 1) ** 2 for p in self.model.parameters()) + (self.own * batch).sum() ** 2

    def training_step(self, batch, _index):
        self.note("train")
        return self.loss(batch)

    def validation_step(self, batch, _index):
        self.note("validation")

    def test_step(self, batch, _index):
        self.note("test")

    def predict_step(self, batch, _index):
        self.note("predict")
        return batch

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


class Bare(Recorder, pl.LightningModule):
    """A module without a `model` in it: a few layers and a head."""

    def __init__(self, frozen=(), everything=True):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 1)
        self.everything = everything
        for name, parameter in self.named_parameters():
            parameter.requires_grad = not name.startswith(tuple(frozen))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)

    def training_step(self, batch, _index):
        self.note("train")
        loss = (self(batch) - batch.sum(1, keepdim=True)).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _index):
        self.note("validation")
        self.log("val_loss", self(batch).mean())

    def test_step(self, batch, _index):
        self.note("test")

    def configure_optimizers(self):
        chosen = self.parameters() if self.everything else (p for p in self.parameters() if p.requires_grad)
        return torch.optim.AdamW(list(chosen), lr=0.01, weight_decay=0.1)


class Gan(Recorder, pl.LightningModule):
    """Two optimizers, stepped by hand each `every` batches, the second `critics` times, with toggled parameters."""

    def __init__(self, every=1, critics=1):
        super().__init__()
        torch.manual_seed(5)
        self.automatic_optimization = False
        self.every, self.critics, self.batches = every, critics, 0
        self.g = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.d = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def training_step(self, batch, _index):
        self.note("train")
        index, self.batches = self.batches, self.batches + 1
        g, d = zip(self.optimizers(), (self.g_loss, self.d_loss))
        for optimizer, loss in [g] + [d] * self.critics:
            self.toggle_optimizer(optimizer)
            if index % self.every == 0:
                optimizer.zero_grad()
            self.manual_backward(loss(batch))
            if index % self.every == self.every - 1:
                optimizer.step()
            self.untoggle_optimizer(optimizer)

    def g_loss(self, batch):
        return (self.d(self.g(batch)) - 1).square().mean()

    def d_loss(self, batch):
        return (self.d(self.g(batch).detach()) ** 2 + (self.d(batch) - 1) ** 2).mean()

    def configure_optimizers(self):
        return [torch.optim.AdamW(part.parameters(), lr=0.01) for part in (self.g, self.d)]


def at_batches(module, kind="train"):
    """{global_step: flags}, the last of each step."""
    return {step: flags for k, step, _, flags in module.seen if k == kind}
