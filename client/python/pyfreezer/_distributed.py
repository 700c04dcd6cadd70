"""
Several machines: one rank, the root, is attached to the freezerd of its machine, and what it knows goes to all others.

What libfreezer hands out at each step, some bytes if nothing changed, is exchanged in a process group of its own, by
gloo, so that it meets no collective of the training. It begins at one step and is waited for at the next: no step is
longer for it. It is summed up, with nothing but zeros from all others, rather than broadcast: so where one rank is
missing, nobody gets anything, and all keep the flags that they have.
"""

from __future__ import annotations

import ctypes
import datetime
import errno
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._errors import LayoutError
from ._log import logger

if TYPE_CHECKING:
    from ._names import Slot

TIMEOUT = 600.0
"""Seconds after which a rank that does not come to a step is given up; training itself has waited for it as long."""


class PlanGroup:
    """The way from the root to all others. Made by all ranks of the group together."""

    def __init__(self, group: Any = None, timeout: float = TIMEOUT) -> None:
        import torch
        import torch.distributed as dist

        self._torch, self._dist = torch, dist
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        self._group = dist.new_group(
            ranks,
            timeout=datetime.timedelta(seconds=timeout),
            backend="gloo",
            **({"use_local_synchronization": True} if len(ranks) < dist.get_world_size() else {}),  # not in torch 2.0
        )
        self.root = dist.get_rank() == ranks[0]
        """Whether this rank attaches."""
        self._under_way: tuple[Any, Any, int, int] | None = None
        self._broken = False

    def check(self, slots: Sequence[Slot], available: bool) -> bool:
        """
        All ranks must have the same parameters and flags: raises LayoutError on all of them. Whether libfreezer is
        `available` on all: where it is not, nobody may ask the others for anything.
        """
        layout = [(slot.name, slot.elements, slot.baseline) for slot in slots]
        mine = hashlib.sha256(repr(layout).encode()).hexdigest()[:16]
        hashes = self._gather(mine)
        if len(set(hashes)) == 1:
            return all(self._gather(available))
        layouts = self._gather(layout)
        other = next(i for i, h in enumerate(hashes) if h != hashes[0])
        pairs = [*zip(layouts[0], layouts[other])]
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        found = [_described(each[at]) if at < len(each) else "nothing" for each in (layouts[0], layouts[other])]
        raise LayoutError(
            f"the ranks have different parameters: layout {hashes[0]} on rank 0 and {hashes[other]} on rank {other}, "
            f"first at number {at}: {found[0]} and {found[1]}",
            code="LAYOUT_MISMATCH",
        )

    def _gather(self, value: Any) -> list[Any]:
        values = [None] * self._dist.get_world_size(self._group)
        self._dist.all_gather_object(values, value, group=self._group)
        return values

    def begin(self, address: int, size: int) -> int:
        """Begins to hand the bytes at an address from the root to the same place of all others; as libfreezer asks."""
        if self._broken:
            return -errno.EPIPE
        data = bytearray(ctypes.string_at(address, size)) if self.root else bytearray(size)
        tensor = self._torch.frombuffer(data, dtype=self._torch.uint8)
        try:
            work = self._dist.all_reduce(tensor, group=self._group, async_op=True)
        except RuntimeError as error:
            return self._fail(error)
        self._under_way = (work, data, address, size)
        return 0

    def wait(self) -> int:
        """Ends what was begun last."""
        if self._under_way is None:
            return -errno.EPIPE
        work, data, address, size = self._under_way
        self._under_way = None
        try:
            work.wait()
        except RuntimeError as error:
            return self._fail(error)
        if not self.root:
            ctypes.memmove(address, bytes(data), size)
        return 0

    def _fail(self, error: Exception) -> int:
        """A group of gloo's in which one operation failed is of no more use."""
        self._broken = True
        logger.error(
            "not all ranks come to a step any more, so from now on the flags stay as they are on all of them: %s",
            str(error).splitlines()[0],
        )
        return -errno.EPIPE


def _described(parameter: tuple[str, int, bool]) -> str:
    name, elements, trains = parameter
    return f"'{name}' ({elements} elements, {'trains' if trains else 'frozen'})"


def plan_group(group: Any, timeout: float) -> PlanGroup | None:
    """The group for a session; None: all ranks are on this machine, where they have something better."""
    import torch.distributed as dist

    world = dist.get_world_size()
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    if group is None and world <= (int(here) if here.isdecimal() else 1):
        return None
    return PlanGroup(group, timeout)
