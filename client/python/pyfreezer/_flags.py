"""
Writing the flags: the one place that sets requires_grad, and with it drops the gradient.

Three flags per parameter are kept apart:
  ours   what Freezer wants, by its last plan
  live   what the tensor's flag was when it was looked at or written last
  theirs what somebody else set it to: a flag that is found to be no longer `live` is in conflict, and on_conflict says
         who wins. The conflict ends when the other one changes the flag again.

A flip of a hundred thousand parameters takes some tens of milliseconds, most of it in torch and until the tensors are
reached. Hence what else there is to do is done with all of them at once. Indices ascend, always.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Callable

from ._names import Slot, shorten
from ._tensors import Tensors, at, put

if TYPE_CHECKING:
    import torch


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

    def empties(self, parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Asked before it is written: whether some of these train, and none will."""
        if not self.frozen_slots:
            return False
        frozen = {id(slot.tensor) for slot in self.frozen_slots}
        thawed = {id(slot.tensor) for slot in self.unfrozen_slots}
        some = False
        for parameter in parameters:
            some = some or parameter.requires_grad
            if id(parameter) in thawed or (parameter.requires_grad and id(parameter) not in frozen):
                return False
        return some


class Flags:
    def __init__(self, slots: Sequence[Slot], on_conflict: str, warn: Callable[[str], None]) -> None:
        self._slots = slots
        self._on_conflict = on_conflict
        self._warn = warn
        self._tensors = Tensors(slots)
        self.live = bytearray(slot.tensor.requires_grad for slot in slots)
        self._ours = bytearray(slot.baseline for slot in slots)
        self._theirs: dict[int, bool] = {}
        self._unwritten: Sequence[int] = [
            i for i, (live, ours) in enumerate(zip(self.live, self._ours)) if live != ours
        ]
        self.drift = 0
        """How often a flag was found changed by somebody else."""
        self.trainable = sum(self.live)
        """How many require a gradient."""

    def want(self, indices: Sequence[int], flags: Iterable[bool]) -> None:
        """Takes what libfreezer says is to be written. The indices ascend."""
        put(self._ours, indices, bytes(flags))
        self._write_later(indices)

    def want_all(self, flags: Iterable[bool]) -> None:
        """Takes a whole mask."""
        self.want(range(len(self._slots)), flags)

    def _write_later(self, indices: Sequence[int]) -> None:
        self._unwritten = sorted({*self._unwritten, *indices}) if self._unwritten else indices

    @property
    def waiting(self) -> bool:
        """Whether something is to be written."""
        return bool(self._unwritten)

    def due(self) -> tuple[list[int], list[int]]:
        """What would be frozen and thawed now, in order; nothing is written."""
        self.look(self._unwritten)
        indices, theirs = self._unwritten, self._theirs
        size = len(indices)
        ours, live = (int.from_bytes(at(flags, indices), "little") for flags in (self._ours, self.live))
        freeze = list(compress(indices, (live & ~ours).to_bytes(size, "little")))
        thaw = list(compress(indices, (ours & ~live).to_bytes(size, "little")))
        if theirs:
            freeze = [index for index in freeze if index not in theirs]
            thaw = [index for index in thaw if index not in theirs]
        return freeze, thaw

    def write(self, freeze: Sequence[int], thaw: Sequence[int]) -> None:
        """Writes what due() said: the flag, and for what is frozen, no gradient that an optimizer could still apply."""
        for tensor in self._tensors.known(freeze):
            tensor.requires_grad = False
            tensor.grad = None
        for tensor in self._tensors.known(thaw):
            tensor.requires_grad = True
        put(self.live, freeze, b"\0" * len(freeze))
        put(self.live, thaw, b"\1" * len(thaw))
        self.trainable += len(thaw) - len(freeze)
        self._unwritten = []

    def look_at_all(self) -> None:
        """Compares every flag with what is known of it."""
        self.look(range(len(self._slots)))

    def look(self, indices: Sequence[int]) -> None:
        """Binds the tensors of these, and finds out what somebody else has set."""
        live = self.live
        flags = bytes([tensor.requires_grad for tensor in self._tensors.bind(indices)])
        if flags == bytes(at(live, indices)):
            return
        found = [index for index, flag in zip(indices, flags) if flag != live[index]]
        for index in found:
            live[index] = not live[index]
            self.trainable += 1 if live[index] else -1
        if self._on_conflict != "ignore":
            self._settle(found)

    def _settle(self, found: list[int]) -> None:
        ended = [index for index in found if index in self._theirs]
        anew = [index for index in found if index not in self._theirs]
        for index in ended:
            del self._theirs[index]
        if ended:
            self._write_later(ended)
        if not anew:
            return
        self.drift += len(anew)
        names = shorten([self._slots[index].name for index in anew])
        if self._on_conflict == "enforce":
            self._warn(f"somebody else set requires_grad of {names}: Freezer sets it again")
            self._write_later(anew)
            return
        self._theirs.update((index, bool(self.live[index])) for index in anew)
        if self._on_conflict == "warn":
            self._warn(
                f"somebody else set requires_grad of {names}: Freezer leaves it so until it is set back; "
                "on_conflict='enforce' sets it again"
            )

    def conflicts(self) -> list[str]:
        """Names of what is as somebody else set it."""
        return [self._slots[index].name for index in sorted(self._theirs)]
