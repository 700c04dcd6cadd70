"""
torch.compile: a compiled graph has the flags built in, and guards so that another one is compiled when they change. In
some versions of torch the guards do not see a flag that was changed in place. So after each flip it is looked whether
gradients are where they should be, and if not, the compiler forgets what it compiled.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import _hooks
from ._errors import Refused
from ._extension import Extension
from ._log import logger
from ._names import shorten

if TYPE_CHECKING:
    import torch

    from ._flags import Change
    from ._session import Session


class Compile(Extension):
    """Sees to it that a compiled model follows the flags. attach() adds it by itself."""

    def __init__(self) -> None:
        dynamo = sys.modules["torch._dynamo"]
        if hasattr(dynamo.config, "use_recursive_dict_tags_for_guards"):
            dynamo.config.use_recursive_dict_tags_for_guards = False  # these do not see a flag that changes in place
        self._session: Session | None = None
        self._masks: set[tuple[bool, ...]] = set()
        self._hooks: list[Any] = []
        self._unproven: Change | None = None
        """A flip of which no optimizer has seen the gradients yet."""

    def attached(self, session: Session) -> None:
        self._session = session
        self._note_mask()
        for native in _hooks.natives(session.optimizers):
            self._hooks.append(native.register_step_pre_hook(self._look))

    def before_flip(self, change: Change) -> None:
        compiler = getattr(sys.modules["torch"], "compiler", None)  # torch 2.0 has none, and not all have the function
        if hasattr(compiler, "is_compiling") and compiler.is_compiling():
            raise Refused(
                "torch.compile is at work, and would miss the flip",
                code="COMPILING",
                hint="call session.step() outside of what is compiled",
            )

    def after_flip(self, change: Change) -> None:
        self._note_mask()
        if self._hooks:
            self._unproven = change
        else:
            _reset("no optimizer is known whose gradients would show whether the flip took effect")

    def detached(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._session = None

    def _look(self, *_arguments: Any) -> None:
        """Before the optimizer's first step after a flip: gradients are where the flags say."""
        change, self._unproven = self._unproven, None
        if change is None:
            return
        stale = [slot for slot in change.frozen_slots if slot.tensor.grad is not None]
        for slot in stale:
            slot.tensor.grad = None
        blind = change.unfrozen_slots and all(slot.tensor.grad is None for slot in change.unfrozen_slots)
        if stale or blind:
            names = shorten([slot.name for slot in stale or change.unfrozen_slots])
            _reset(f"the compiled model did not follow the flags of {names}")

    def _note_mask(self) -> None:
        """Each mask is compiled once. Before the compiler gives up for having compiled too often, it begins anew."""
        if self._session is None:
            return
        mask = tuple(slot.tensor.requires_grad for slot in self._session.slots)
        self._masks.add(mask)
        config = sys.modules["torch._dynamo"].config
        limit = getattr(config, "recompile_limit", None) or getattr(config, "cache_size_limit", 8)
        if len(self._masks) >= limit:
            _reset(f"{len(self._masks)} masks were compiled, and of more it would compile none")
            self._masks = {mask}


def _reset(why: str) -> None:
    logger.warning("torch.compile begins anew: %s", why)
    sys.modules["torch._dynamo"].reset()


def is_compiled(model: torch.nn.Module) -> bool:
    """Whether a model, or a part of it, was given to torch.compile()."""
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            return "torch._dynamo" in sys.modules
    return False
