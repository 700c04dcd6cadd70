"""
Writing the flags: the one place that sets requires_grad, and with it drops the gradient.

Three flags per parameter are kept apart:
  ours   what Freezer wants, by its last plan
  live   what the tensor's flag was when it was looked at or written last
  theirs what somebody else set it to: a flag that is found to be no longer `live` is in conflict, and on_conflict says
         who wins. The conflict ends when the other one changes the flag again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Callable

from ._names import Slot, shorten

ON_CONFLICT = ("warn", "enforce", "yield", "ignore")


@dataclasses.dataclass(frozen=True)
class Change:
    """A flip: from `step` on, before its forward pass, these train and those do not."""

    step: int
    epoch: int
    generation: int
    frozen_slots: tuple[Slot, ...] = dataclasses.field(repr=False)
    unfrozen_slots: tuple[Slot, ...] = dataclasses.field(repr=False)

    @property
    def frozen(self) -> list[str]:
        """Names of what was frozen."""
        return [slot.name for slot in self.frozen_slots]

    @property
    def unfrozen(self) -> list[str]:
        """Names of what was unfrozen."""
        return [slot.name for slot in self.unfrozen_slots]


class Flags:
    def __init__(self, slots: Sequence[Slot], on_conflict: str, warn: Callable[[str], None]) -> None:
        if on_conflict not in ON_CONFLICT:
            raise ValueError(f"on_conflict must be one of {', '.join(ON_CONFLICT)}, not {on_conflict!r}")
        self._slots = slots
        self._on_conflict = on_conflict
        self._warn = warn
        self.live = bytearray(slot.tensor.requires_grad for slot in slots)
        self._ours = bytearray(slot.baseline for slot in slots)
        self._theirs: dict[int, bool] = {}
        self.drift = 0
        """How often a flag was found changed by somebody else."""
        self.trainable = sum(self.live)
        """How many require a gradient."""
        self._unwritten = {i for i, (live, ours) in enumerate(zip(self.live, self._ours)) if live != ours}

    def want(self, changes: Iterable[tuple[int, bool]]) -> None:
        """Takes what libfreezer says is to be written."""
        for index, flag in changes:
            self._ours[index] = flag
            self._unwritten.add(index)

    def want_all(self, flags: Iterable[bool]) -> None:
        """Takes a whole mask."""
        self.want(enumerate(flags))

    @property
    def waiting(self) -> bool:
        """Whether something is to be written."""
        return bool(self._unwritten)

    def due(self) -> tuple[list[int], list[int]]:
        """What would be frozen and thawed now, in order; nothing is written."""
        self.look(self._unwritten)
        freeze, thaw = [], []
        for index in sorted(self._unwritten):
            if index not in self._theirs and self._ours[index] != self.live[index]:
                (thaw if self._ours[index] else freeze).append(index)
        return freeze, thaw

    def write(self, freeze: Iterable[int], thaw: Iterable[int]) -> None:
        """Writes what due() said: the flag, and for what is frozen, no gradient that an optimizer could still apply."""
        slots, live = self._slots, self.live
        before = after = 0
        for index in freeze:
            tensor = slots[index].tensor
            tensor.requires_grad = False
            tensor.grad = None
            live[index] = False
            before += 1
        for index in thaw:
            slots[index].tensor.requires_grad = True
            live[index] = True
            after += 1
        self.trainable += after - before
        self._unwritten.clear()

    def look_at_all(self) -> None:
        """Compares every flag with what is known of it."""
        self.look(range(len(self._slots)))

    def look(self, indices: Iterable[int]) -> None:
        found = []
        for index in indices:
            live = self._slots[index].bind().requires_grad
            if live != self.live[index]:
                self.trainable += live - self.live[index]
                self.live[index] = live
                found.append(index)
        if found and self._on_conflict != "ignore":
            self._settle(found)

    def _settle(self, found: list[int]) -> None:
        anew = [index for index in found if self._theirs.pop(index, None) is None]
        self._unwritten.update(index for index in found if index not in anew)
        if not anew:
            return
        self.drift += len(anew)
        names = shorten([self._slots[index].name for index in anew])
        if self._on_conflict == "enforce":
            self._warn(f"somebody else set requires_grad of {names}: Freezer sets it again")
            self._unwritten.update(anew)
            return
        self._theirs.update((index, bool(self.live[index])) for index in anew)
        if self._on_conflict == "warn":
            self._warn(f"somebody else set requires_grad of {names}: Freezer leaves it so until it is set back")

    def ours(self) -> list[bool]:
        """The mask that Freezer wants."""
        return [bool(flag) for flag in self._ours]

    def conflicts(self) -> list[str]:
        """Names of what is as somebody else set it."""
        return [self._slots[index].name for index in sorted(self._theirs)]
