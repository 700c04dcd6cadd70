"""Norm layers with running statistics: frozen parameters alone do not keep those from moving while the model trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ._names import Slot

if TYPE_CHECKING:
    import torch


def _stop(module: torch.nn.Module, _inputs: Any) -> None:
    module.training = False


class Norms:
    """
    With norm="eval": modules with running statistics, all of whose own parameters are frozen, are in eval mode. A hook
    before their forward sees to it, since a parent's train() would undo it at any time.
    """

    def __init__(self, policy: str, slots: Sequence[Slot]) -> None:
        self._slots_of: dict[torch.nn.Module, list[Slot]] = {}
        self._stopped: dict[torch.nn.Module, tuple[Any, bool]] = {}
        if policy == "eval":
            for slot in slots:
                if slot.owner._buffers.get("running_mean") is not None:
                    self._slots_of.setdefault(slot.owner, []).append(slot)

    def follow(self, flipped: Iterable[Slot], training: bool) -> None:
        """After a flip. `training` is the mode of the model, into which a thawed module goes back."""
        if not self._slots_of:
            return
        for module in {slot.owner for slot in flipped if slot.owner in self._slots_of}:
            frozen = not any(slot.tensor.requires_grad for slot in self._slots_of[module])
            if frozen and module not in self._stopped:
                self._stopped[module] = (module.register_forward_pre_hook(_stop), module.training)
                module.training = False
            elif not frozen and module in self._stopped:
                hook, was_training = self._stopped.pop(module)
                hook.remove()
                module.training = training and was_training

    def close(self, training: bool) -> None:
        for module, (hook, was_training) in self._stopped.items():
            hook.remove()
            module.training = training and was_training
        self._stopped.clear()
