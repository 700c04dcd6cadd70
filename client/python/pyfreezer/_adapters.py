"""Which extensions a model needs: looked up in what is loaded, so that a plain model costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from . import _ddp
from ._extension import Extension

if TYPE_CHECKING:
    import torch

    from ._names import Slot


def choose(
    model: torch.nn.Module,
    slots: Sequence[Slot],
    given: Sequence[Extension],
    rewrap: Callable[[torch.nn.Module], torch.nn.Module] | None,
) -> list[Extension]:
    """The extensions for how this model is trained, behind those that the caller gave. Raises Refused."""
    chosen = list(given)
    if _trains_with_others():
        wrappers: list[Any] = _ddp.in_tree(model) or _ddp.anywhere(slots)
        if wrappers:
            chosen.append(_ddp.Ddp(wrappers, rewrap))
    return chosen


def _trains_with_others() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
