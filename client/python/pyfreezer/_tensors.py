"""
From indices to tensors. A tensor is looked for anew before it is used, where it belongs: see Slot.bind().

Indices ascend, always; where none is left out they stand for a slice, which takes a fraction of the time.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ._names import Slot


def at(values: Sequence[Any], indices: Sequence[int]) -> Sequence[Any]:
    """The values at these indices."""
    if indices and indices[-1] - indices[0] == len(indices) - 1:
        return values[indices[0] : indices[-1] + 1]
    return [values[index] for index in indices]


def put(flags: bytearray, indices: Sequence[int], values: bytes) -> None:
    """The opposite of at()."""
    if indices and indices[-1] - indices[0] == len(indices) - 1:
        flags[indices[0] : indices[-1] + 1] = values
    else:
        for index, value in zip(indices, values):
            flags[index] = value


class Tensors:
    """The slots' tensors."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._places = [(slot.owner._parameters, slot.attribute) for slot in slots]
        self._owners = list({id(parameters): parameters for parameters, _ in self._places}.values())
        self._known: list[Any] = []
        self._seen: list[Any] = []  # what the owners had when all were bound last; empty: some were bound since
        self._bind_all()

    def known(self, indices: Sequence[int]) -> Sequence[torch.nn.Parameter]:
        """Those that were bound last."""
        return at(self._known, indices)

    def bind(self, indices: Sequence[int]) -> Sequence[torch.nn.Parameter]:
        """Those that are there now."""
        if 2 * len(indices) > len(self._slots):
            self._bind_all()
            return self.known(indices)
        known, places = self._known, self._places
        tensors = [parameters.get(attribute) for parameters, attribute in map(places.__getitem__, indices)]
        if any(map(operator.is_not, tensors, map(known.__getitem__, indices))):
            self._seen = []
            for index in indices:
                known[index] = self._slots[index].bind()
            return self.known(indices)
        return tensors

    def _bind_all(self) -> None:
        """Takes a fraction of the time, since each owner is asked once, and for all that it has."""
        if not self._seen or any(map(operator.is_not, self._now(), self._seen)):
            self._known = [slot.bind() for slot in self._slots]
            self._seen = list(self._now())

    def _now(self) -> Iterator[Any]:
        return chain.from_iterable(map(operator.methodcaller("values"), self._owners))
