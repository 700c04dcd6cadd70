"""Which extensions a model needs: looked up in what is loaded, so that a plain model costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from . import _compile, _cudagraphs, _ddp, _fsdp, _zero
from ._extension import Extension
from ._gradients import Gradients

if TYPE_CHECKING:
    import torch

    from ._names import Slot


def choose(
    model: torch.nn.Module,
    optimizers: Sequence[Any],
    slots: Sequence[Slot],
    given: Sequence[Extension],
    rewrap: Callable[[torch.nn.Module], torch.nn.Module] | None,
) -> list[Extension]:
    """The extensions for how this model is trained, behind those that the caller gave. Raises Refused."""
    chosen = list(given)
    _zero.check(model, optimizers)
    if not any(isinstance(extension, _cudagraphs.CudaGraphs) for extension in given):
        _cudagraphs.check(model)
        chosen.append(_cudagraphs.CudaGraphs())
    if trains_with_others():
        sharded = _fsdp.find(model)
        if sharded is not None:
            chosen.append(sharded)
        wrappers: list[Any] = _ddp.in_tree(model) or _ddp.anywhere(slots)
        if wrappers:
            chosen.append(_ddp.Ddp(wrappers, rewrap))
    if _compile.is_compiled(model):
        chosen.append(_compile.Compile())
    chosen.append(Gradients())
    return chosen


def trains_with_others() -> bool:
    """Whether torch.distributed is in use. Imports nothing."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
