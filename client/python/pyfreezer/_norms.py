"""Norm layers with running statistics: frozen parameters alone do not keep those from moving while the model trains."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._names import Slot

if TYPE_CHECKING:
    import torch

_would_train: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
"""Of what is stopped, that which would be in training mode without us."""


def _stop(module: torch.nn.Module, _inputs: Any = ()) -> None:
    """A function, and no method: models are copied and saved with their hooks."""
    if module.training:
        _would_train.add(module)
        module.training = False


class Norms:
    """
    With norm="eval": modules with running statistics, all of whose own parameters are frozen, are in eval mode. A hook
    before their forward sees to it, since a parent's train() would undo it at any time.
    """

    def __init__(self, policy: str, slots: Sequence[Slot]) -> None:
        self._slots_of: dict[torch.nn.Module, list[Slot]] = {}
        self._stopped: dict[torch.nn.Module, Any] = {}  # the hook
        if policy == "eval":
            for slot in slots:
                if slot.owner._buffers.get("running_mean") is not None:
                    self._slots_of.setdefault(slot.owner, []).append(slot)

    def follow(self, flipped: Iterable[Slot], training: bool) -> None:
        """After a flip, and first of all slots. `training` is the mode of the model, to which a thawed one returns."""
        if not self._slots_of:
            return
        for module in {slot.owner for slot in flipped if slot.owner in self._slots_of}:
            frozen = not any(slot.tensor.requires_grad for slot in self._slots_of[module])
            if frozen and module not in self._stopped:
                self._stopped[module] = module.register_forward_pre_hook(_stop)
                _stop(module)
            elif not frozen and module in self._stopped:
                self._go_on(module, training)

    def _go_on(self, module: torch.nn.Module, training: bool) -> None:
        self._stopped.pop(module).remove()
        module.training |= training and module in _would_train
        _would_train.discard(module)

    def close(self, training: bool) -> None:
        for module in list(self._stopped):
            self._go_on(module, training)
