"""
Where a plain loop's windows begin: an accumulation window ends when the optimizer has stepped, and the next one begins.

A step that the optimizer does not take, as GradScaler leaves it out after an overflow, ends none. With several
optimizers a window ends when each of them has stepped since the last end. One that has not stepped in IDLE windows'
time, while another did, is not waited for until it steps again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable

from ._errors import FreezerError

if TYPE_CHECKING:
    from ._session import Session

IDLE = 64
LOOK_EVERY = 256
"""
At each multiple of it all flags are compared with what they should be. By steps and not by a clock, since what is
enforced or tried again then must be so at the same step on all ranks.
"""


def native(optimizer: Any) -> Any:
    """The optimizer of torch in the wrappers of accelerate, Lightning and others."""
    inner = optimizer
    while not hasattr(inner, "_optimizer_step_post_hooks") and getattr(inner, "optimizer", None) is not None:
        inner = inner.optimizer
    if not hasattr(inner, "register_step_post_hook") or not hasattr(inner, "_optimizer_step_post_hooks"):
        raise FreezerError(
            f"{type(optimizer).__name__} has no hook behind its step (torch 2.0 or newer has one)",
            hint="use hook=False and call session.step() at the start of each accumulation window",
        )
    return inner


def natives(optimizers: Iterable[Any]) -> list[Any]:
    """Those of torch in these, but none for what has no hooks: for who can do without."""
    found = []
    for optimizer in optimizers:
        with contextlib.suppress(FreezerError):
            found.append(native(optimizer))
    return found


def install(session: Session, natives: Sequence[Any]) -> Callable[[], None]:
    """Makes the session go on with each step of these optimizers of torch. Returns what takes the hooks away."""
    hooks = [_one(session)] if len(natives) == 1 else _several(session, len(natives))
    handles = [native.register_step_post_hook(hook) for native, hook in zip(natives, hooks)]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _one(session: Session) -> Callable[..., None]:
    handle = session._handle
    steps: Iterator[int]

    def hook(_optimizer: Any, _args: Any, _keywords: Any) -> None:
        for result in steps:
            if result:
                go_on(result)
            return
        go_on(handle.batch_next())

    def look_ahead() -> None:
        """To where the hook must go on in any case: the step before the one at which all flags are looked at."""
        nonlocal steps
        steps = handle.steps(LOOK_EVERY - handle.step % LOOK_EVERY - 1)

    def go_on(result: int) -> None:
        look_ahead()
        session._at_result(result)

    def attend() -> None:
        nonlocal steps
        steps = iter(())

    look_ahead()
    session._attend = attend
    return hook


class Ends:
    """Tells where windows end, from the steps of `count` optimizers."""

    def __init__(self, count: int) -> None:
        self._steps = [0] * count  # since the last end; -1: not waited for

    def stepped(self, which: int) -> bool:
        """One of them has stepped. Whether the window has ended with that."""
        steps = self._steps
        steps[which] = max(steps[which], 0) + 1
        if steps[which] >= IDLE:
            steps[:] = [n or -1 for n in steps]
        if not all(steps):
            return False
        steps[:] = [min(n, 0) for n in steps]
        return True


def _several(session: Session, count: int) -> list[Callable[..., None]]:
    end_of_window = _one(session)
    ends = Ends(count)

    def make(which: int) -> Callable[..., None]:
        def hook(optimizer: Any, args: Any, keywords: Any) -> None:
            if ends.stepped(which):
                end_of_window(optimizer, args, keywords)

        return hook

    return [make(which) for which in range(count)]
