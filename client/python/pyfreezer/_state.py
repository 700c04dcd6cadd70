"""What a session says of itself: sentences for people, and the state that goes into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._errors import FreezerError
from ._names import shorten

if TYPE_CHECKING:
    from ._flags import Change
    from ._session import Session

VERSION = 1


def count(elements: int) -> str:
    """An element count for people: 7.1M."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if elements >= size:
            return f"{elements / size:.1f}{unit}"
    return str(elements)


class State:
    def __init__(self, session: Session) -> None:
        self._session = session

    def sentence(self, change: Change) -> str:
        """gen 4 at step 4,032: froze layers.4.weight and 11 more (7.1M)"""
        parts = [
            f"{verb} {shorten([slot.name for slot in slots], 3)} ({count(sum(slot.elements for slot in slots))})"
            for verb, slots in (("froze", change.frozen_slots), ("unfroze", change.unfrozen_slots))
            if slots
        ]
        return f"gen {change.generation} at step {change.step:,}: {', '.join(parts)}"

    def trainable(self) -> str:
        total = sum(slot.elements for slot in self._session.slots)
        trainable = sum(slot.elements for slot in self._session.slots if slot.tensor.requires_grad)
        percent = f"{self._session.trainable_pct:.4f}"
        return f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {percent}"

    def attached(self) -> str:
        session = self._session
        info = session._handle.info()
        where = (info.socket or b"").decode("utf-8", "replace")
        return f'attached as "{session.run}" to {where} ({len(session.slots)} parameters)'

    def prefix(self) -> str:
        """How much of the backward pass can be left out: nothing below the first parameter that trains."""
        slots = self._session.slots
        first = next((i for i, slot in enumerate(slots) if slot.tensor.requires_grad), len(slots))
        if first == 0:
            return "the first parameter trains: the backward pass goes all the way"
        return f"the first {first} of {len(slots)} parameters are frozen: the backward pass may end there"

    def summary(self) -> str:
        session = self._session
        step, epoch = session.position
        lines = [
            self.attached() if session.connected else f'"{session.run}" is attached to no freezerd',
            f"step {step:,}, epoch {epoch:,}, gen {session.generation}",
            self.trainable(),
            self.prefix(),
        ]
        frozen = session.frozen
        if frozen:
            lines.append(f"frozen: {shorten(frozen, 8)}")
        pinned = [f"{slot.name} ({slot.may_train})" for slot in session.slots if not slot.controllable]
        if pinned:
            lines.append(f"not controllable: {shorten(pinned)}")
        if session.drift:
            lines.append(
                f"set by somebody else: {session.drift} times, now {shorten(session._flags.conflicts()) or 'none'}"
            )
        if session.refusal:
            lines.append(f"not in force: {session.refusal}")
        return "\n".join(lines)

    def save(self) -> dict[str, Any]:
        session = self._session
        step, epoch = session.position
        return {
            "version": VERSION,
            "run": session.run,
            "generation": session.generation,
            "step": step,
            "epoch": epoch,
            "frozen": session.frozen,
            "baseline_frozen": [slot.name for slot in session.slots if not slot.baseline],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        session = self._session
        if state.get("version") != VERSION:
            raise FreezerError(
                f"a state of version {state.get('version')!r} cannot be loaded, only {VERSION}",
                hint="it is what session.state_dict() gave",
            )
        names = {slot.name for slot in session.slots}
        unknown = [name for name in state["frozen"] if name not in names]
        if unknown:
            raise FreezerError(
                f"the checkpoint was made with another model: this one has no parameter {shorten(unknown)}"
            )
        frozen = set(state["frozen"])
        with session._loading():
            self._go(state["step"], state["epoch"])
            if session.generation == 0:
                session._restore(frozen)
        if session.generation == 0:
            session._log.debug(
                "step %s: %d parameters are frozen as in the checkpoint", f"{state['step']:,}", len(frozen)
            )
            return
        differing = sorted(frozen ^ set(session.frozen))
        if differing:
            session._log.warning(
                "step %s: freezerd's rules and commands differ from the checkpoint, and hold, for %s",
                f"{state['step']:,}",
                shorten(differing),
            )

    def _go(self, step: int, epoch: int) -> None:
        if (step, epoch) == self._session.position:
            self._session.begin_window(step, epoch)
        else:
            self._session.rewind(step, epoch)
