"""
DDP: its reducer waits for a gradient of each parameter that it knows, and hands on no other.

It collects the parameters that require a gradient when it is built, and never looks again. So after a flip
  find_unused_parameters=True   nothing need be done, unless something was thawed that the reducer does not know: its
                                gradients would stay those of each rank
  else                          it must know exactly what trains: what is frozen would be waited for, for ever
and then the reducer is built anew, within the wrapper, on all ranks at the same step: no wrapper, optimizer or hook of
the script's has to know. This uses private parts of torch. Where they are missing the script's function wraps the model
anew, and without one what would need it is not controllable: DDP_NOT_COVERED.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable

from . import _reducer
from ._errors import FreezerError, Refused
from ._extension import Extension
from ._log import logger
from ._names import shorten

if TYPE_CHECKING:
    import torch

    from ._flags import Change
    from ._names import Slot
    from ._session import Session

    Rewrap = Callable[[torch.nn.Module], torch.nn.Module]

NOT_COVERED = "DDP_NOT_COVERED"
STATIC_GRAPH = "STATIC_GRAPH"


class Ddp(Extension):
    """Keeps the reducers of a model's DDP wrappers in step with its flags. attach() adds it by itself."""

    def __init__(self, wrappers: Sequence[Any], rewrap: Rewrap | None = None) -> None:
        for wrapper in wrappers:
            if wrapper.static_graph:
                raise Refused(
                    "DistributedDataParallel(static_graph=True) was promised that the same parameters train at each "
                    "step",
                    code=STATIC_GRAPH,
                    hint="wrap the model without static_graph=True, if need be with find_unused_parameters=True",
                )
        self._coverages = [Coverage(wrapper) for wrapper in wrappers]
        self._rewrap = rewrap
        self._session: Session | None = None

    def register(self, slots: Sequence[Slot]) -> None:
        if self._rewrap is None:
            for coverage in self._coverages:
                reason = _reducer.obstacle(coverage.wrapper)
                if reason:
                    _pin(slots, coverage, reason)

    def attached(self, session: Session) -> None:
        self._session = session
        self._follow()

    def before_flip(self, change: Change) -> None:
        for coverage in self._coverages:
            if change.empties(coverage.parameters()):
                name = type(coverage.wrapper.module).__name__
                raise Refused(
                    f"nothing within DistributedDataParallel({name}) would train, and with no gradient to exchange it "
                    "fails",
                    code="REFUSED_EMPTY",
                    hint="leave a parameter trainable there",
                )

    def after_flip(self, change: Change) -> None:
        self._follow()

    def detached(self) -> None:
        self._follow()
        self._session = None

    def _follow(self) -> None:
        """Builds anew what no longer fits the flags. The flags, and so this, are equal on all ranks."""
        stale = [coverage for coverage in self._coverages if coverage.is_stale()]
        if not stale:
            return
        if all(_reducer.obstacle(coverage.wrapper) is None for coverage in stale):
            for coverage in stale:
                coverage.rebuild()
        elif self._rewrap is not None and self._session is not None:
            for coverage in self._coverages:
                _reducer.unhook(coverage.wrapper)
            wrapper = self._rewrap(self._session.model)
            wrappers = in_tree(wrapper)
            if not wrappers:
                raise FreezerError("rewrap did not return a model that is wrapped in DistributedDataParallel")
            self._coverages = [Coverage(w) for w in wrappers]


class Coverage:
    """Which parameters the reducer of one wrapper knows."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        every, training = self.controlled(), self.training()
        count = _reducer.count(wrapper)
        self._known: set[int] | None = None
        """Ids of what it knows; None: not known, since flags were changed after it was built."""
        if count == len(every):
            self._known = every
        elif count == len(training) and not wrapper.find_unused_parameters:
            self._known = training  # anything else would have ended in an error at the first step

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """All that DDP would reduce if it trained."""
        ignored = self.wrapper.parameters_to_ignore
        return (p for name, p in self.wrapper.module.named_parameters() if name not in ignored)

    def controlled(self) -> set[int]:
        """Ids of these."""
        return set(map(id, self.parameters()))

    def training(self) -> set[int]:
        """Ids of what it must reduce now."""
        return {id(p) for p in self.parameters() if p.requires_grad}

    def missing(self) -> set[int]:
        """Ids of what could be thawed and is not known to be reduced."""
        return self.controlled() - (self._known or set())

    def is_stale(self) -> bool:
        training = self.training()
        if self._known is None or not training:
            return bool(training)
        return not training <= self._known if self.wrapper.find_unused_parameters else training != self._known

    def rebuild(self) -> None:
        _reducer.rebuild(self.wrapper)
        self._known = self.training()


def _pin(slots: Sequence[Slot], coverage: Coverage, reason: str) -> None:
    """What needs a new reducer, which cannot be had, is left alone."""
    fixed = coverage.missing() if coverage.wrapper.find_unused_parameters else coverage.controlled()
    pinned = [slot for slot in slots if slot.controllable and id(slot.tensor) in fixed]
    for slot in pinned:
        slot.may_freeze = slot.may_train = NOT_COVERED
    if pinned:
        logger.warning(
            "DistributedDataParallel would not notice a flip of %s, and %s: Freezer leaves them alone; "
            "attach(rewrap=...) takes a function that wraps the model anew, or wrap it with "
            "find_unused_parameters=True within pyfreezer.thawed(model)",
            shorten([slot.name for slot in pinned]),
            reason,
        )


# --- which wrappers there are ---


def in_tree(model: torch.nn.Module) -> list[Any]:
    """The DDP wrappers around a model and within it."""
    from torch.nn.parallel import DistributedDataParallel

    return [module for module in model.modules() if isinstance(module, DistributedDataParallel)]


def anywhere(slots: Sequence[Slot]) -> list[Any]:
    """The DDP wrappers that have any of these parameters: for those who hand over the bare model."""
    from torch.nn.parallel import DistributedDataParallel

    gc.collect()  # one that was given up has no say
    ours = {id(slot.tensor) for slot in slots}
    found = [one for one in gc.get_objects() if issubclass(type(one), DistributedDataParallel)]
    return [wrapper for wrapper in found if any(id(p) in ours for p in wrapper.parameters())]
