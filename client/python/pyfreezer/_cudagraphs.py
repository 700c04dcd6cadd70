"""CUDA graphs: what was captured is replayed as it was, whatever the flags are, with gradients that it owns."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable

from ._errors import Refused
from ._extension import Extension

if TYPE_CHECKING:
    import torch

    from ._flags import Change

CODE = "CUDA_GRAPH"


class CudaGraphs(Extension):
    """
    For a model that is replayed from CUDA graphs: give attach(extensions=[CudaGraphs(recapture)]) a function that
    captures them anew; it is called with each Change, on all ranks, before the next forward pass. Without it such a
    model is refused.
    """

    def __init__(self, recapture: Callable[[Change], Any] | None = None) -> None:
        self._recapture = recapture

    def before_flip(self, change: Change) -> None:
        cuda = sys.modules.get("torch.cuda")
        if cuda is not None and cuda.is_initialized() and cuda.is_current_stream_capturing():
            raise Refused("a CUDA graph is being captured", code=CODE, hint="begin the window before the capture")

    def after_flip(self, change: Change) -> None:
        if self._recapture is not None:
            self._recapture(change)


def check(model: torch.nn.Module) -> None:
    """Raises Refused for a model of which torch.cuda.make_graphed_callables() made graphs."""
    for name, module in model.named_modules():
        forward = vars(module).get("forward")
        if "make_graphed_callables" in getattr(forward, "__qualname__", ""):
            raise Refused(
                f"'{name or type(module).__name__}' is replayed from CUDA graphs, which know no flags",
                code=CODE,
                hint="give extensions=[pyfreezer.CudaGraphs(recapture)] a function that captures them anew",
            )
