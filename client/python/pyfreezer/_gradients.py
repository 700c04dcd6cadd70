"""
Whether gradients still reach what trains. Behind frozen parameters alone, reentrant checkpointing cuts off all that it
wraps: the loss goes down a little less, and torch says nothing that names a parameter. And GradScaler cannot step an
optimizer that has none at all.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import _hooks, _owners
from ._errors import Refused
from ._extension import Extension
from ._names import parameters_of, shorten

if TYPE_CHECKING:
    from ._flags import Change
    from ._session import Session


class Gradients(Extension):
    """
    Looks once, when an optimizer steps for the first time after something was frozen. Of no interest is what never had
    a gradient, as far as the optimizer's state tells.
    """

    def __init__(self) -> None:
        self._session: Session | None = None
        self._hooks: dict[int, Any] = {}  # by the optimizer's id
        self._told: set[str] = set()
        self._can_starve = False  # an optimizer may be left without anything to train, where the model is not

    def attached(self, session: Session) -> None:
        self._session = session
        trains_apart = any(slot.may_freeze and slot.tensor.requires_grad for slot in session.slots)
        self._can_starve = not session._settings.allow_empty and (len(session.optimizers) > 1 or trains_apart)

    def before_flip(self, change: Change) -> None:
        session = self._session
        if session is None or not self._can_starve:
            return
        for number, optimizer in enumerate(session.optimizers, 1):
            if change.empties(parameters_of(optimizer)) and _is_scaled():
                raise Refused(
                    f"nothing of optimizer {number} of {len(session.optimizers)} would train, and GradScaler fails at "
                    "a step without gradients",
                    code="GRAD_SCALER",
                    hint="leave a parameter of it trainable",
                )

    def after_flip(self, change: Change) -> None:
        if self._session is None or not change.frozen_slots:
            return
        for native in _hooks.natives(self._session.optimizers):
            if id(native) not in self._hooks:
                self._hooks[id(native)] = native.register_step_pre_hook(self._look)

    def detached(self) -> None:
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._session = None

    def _look(self, optimizer: Any, arguments: Any, keywords: Any) -> None:
        """Before a step. With a closure the backward pass is yet to come: then where the next window begins."""
        session = self._session
        closure = arguments[1:] or keywords
        if session is None or id(optimizer) not in self._hooks or not (closure or has_gradients(optimizer)):
            return
        session._soon(self._hooks.pop(id(optimizer)).remove)  # not while torch goes through its hooks
        if closure:
            session._soon(lambda: self._tell(optimizer))
        else:
            self._tell(optimizer)

    def _tell(self, optimizer: Any) -> None:
        session = self._session
        if session is None or not has_gradients(optimizer):
            return
        stepping = set(map(id, parameters_of(optimizer)))
        state = optimizer.state
        blind = [
            slot.name
            for slot in session.slots
            if slot.tensor.requires_grad
            and slot.tensor.grad is None
            and id(slot.tensor) in stepping
            and (not state or slot.tensor in state)
        ]
        if not self._told.issuperset(blind) and session._settings.first:
            self._told.update(blind)
            session._log.warning(
                "step %s: %s should train, but got no gradient since others were frozen; if they are checkpointed, use "
                "torch.utils.checkpoint with use_reentrant=False, or Transformers' enable_input_require_grads()",
                f"{session.position[0]:,}",
                shorten(blind),
            )


def _is_scaled() -> bool:
    """Whether a GradScaler is at work. Before torch 2.3 it was at home in torch.cuda.amp."""
    for home in ("torch.amp.grad_scaler", "torch.cuda.amp.grad_scaler"):
        scaler = getattr(sys.modules.get(home), "GradScaler", None)
        if scaler is not None and any(one.is_enabled() for one in _owners.living(scaler)):
            return True
    return False


def has_gradients(optimizer: Any) -> bool:
    """Whether anything that it steps has a gradient."""
    return any(parameter.grad is not None for parameter in parameters_of(optimizer))
