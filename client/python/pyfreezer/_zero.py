"""DeepSpeed is refused: its partitions are of what trained at first, and a missing gradient becomes zeros."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import _names
from ._errors import Refused

if TYPE_CHECKING:
    import torch

CODE = "ZERO"


def check(model: torch.nn.Module, optimizers: Iterable[Any]) -> None:
    """Raises Refused for a model or an optimizer that is DeepSpeed's."""
    things = [*_names.wrappers(model), *optimizers, *(getattr(o, "optimizer", None) for o in optimizers)]
    if any(_is_deepspeed(thing) for thing in things) or any(hasattr(p, "ds_id") for p in model.parameters()):
        raise Refused(
            "with DeepSpeed ZeRO what is frozen would still be moved by Adam, and what is thawed would never train",
            code=CODE,
            hint="train with DDP or FSDP",
        )


def _is_deepspeed(thing: Any) -> bool:
    return any(cls.__module__.partition(".")[0] == "deepspeed" for cls in type(thing).__mro__)
