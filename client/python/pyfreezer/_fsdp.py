"""
FSDP: each rank has a part of each parameter, and the flag of that part is what counts.

FSDP2 (fully_shard) copies the flag of the sharded parameter when it gathers it; one that is still gathered, as after an
evaluation, would keep its old flag, so it is given back first. FSDP1 works with use_orig_params=True; without, a whole
group of parameters is one tensor with one flag: refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._errors import Refused
from ._extension import Extension

if TYPE_CHECKING:
    import torch

    from ._flags import Change
    from ._names import Slot

FLAT = "FSDP_FLAT"


class Fsdp(Extension):
    """Flips of parameters that are sharded. attach() adds it by itself. Raises Refused for flat parameters."""

    def __init__(self, first: Sequence[Any], second: Sequence[Any]) -> None:
        for module in first:
            if not module._use_orig_params:
                raise Refused(
                    "FullyShardedDataParallel has made one flat parameter of many, which trains or is frozen as a "
                    "whole",
                    code=FLAT,
                    hint="wrap the model with use_orig_params=True, or use fully_shard()",
                )
        self._first = list(first)
        self._second = list(second)

    def register(self, slots: Sequence[Slot]) -> None:
        """A rank's part may be of any size, none at all: registered is the whole, which is the same on all ranks."""
        sizes: dict[int, int] = {}
        for module in self._first:
            flat = module._flat_param
            if flat is not None:
                sizes.update((id(p), n) for p, n in zip(flat._params, flat._numels))
        for slot in slots:
            slot.elements = sizes.get(id(slot.tensor), slot.elements)

    def after_flip(self, change: Change) -> None:
        if not self._second:
            return
        for module in self._second:
            module.reshard()
        for slots, flag in ((change.frozen_slots, False), (change.unfrozen_slots, True)):
            for slot in slots:
                parameter = slot.bind()
                parameter.requires_grad = flag
                if not flag:
                    parameter.grad = None


def find(model: torch.nn.Module) -> Fsdp | None:
    """The extension for a model that is sharded anywhere."""
    first, second = [], []
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls.__module__.startswith("torch.distributed.fsdp"):
                if cls.__name__ == "FullyShardedDataParallel":
                    first.append(module)
                elif cls.__name__ == "FSDPModule":
                    second.append(module)
    return Fsdp(first, second) if first or second else None
