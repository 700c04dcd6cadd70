"""Thawing a model for a while: for what reads requires_grad once, at its construction, and never again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable

from . import _names

if TYPE_CHECKING:
    import torch


class Thawed:
    """
    Everything that can train does, or of that what `only` accepts, until restore(). The two halves of thawed(), for
    adapters whose framework builds the optimizer and the wrapper between two of their hooks. The model's baseline is
    what it was before.
    """

    def __init__(self, model: torch.nn.Module, only: Callable[[_names.Slot], bool] = lambda slot: True) -> None:
        self._model = model
        self._slots = _names.collect(model)
        self._thawed = [s for s in self._slots if s.controllable and not s.tensor.requires_grad and only(s)]
        for slot in self._thawed:
            slot.tensor.requires_grad = True

    def restore(self) -> None:
        """The flags as they were, on the parameters that now have these names. More than once does nothing."""
        for slot in self._thawed:
            slot.bind().requires_grad = False
        self._thawed = []

    @property
    def names(self) -> list[str]:
        """What was frozen and is thawed now."""
        return [slot.name for slot in self._thawed]


@contextlib.contextmanager
def thawed(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """
    Builds an optimizer or a wrapper that looks at requires_grad only once, with every parameter in it:

        with pyfreezer.thawed(model):
            optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
            model = DistributedDataParallel(model)

    Afterwards the flags are what they were. Do not use it around a model whose base must stay out of the optimizer
    (LoRA): what is in no optimizer, Freezer leaves alone.
    """
    state = Thawed(model)
    try:
        yield model
    finally:
        state.restore()
