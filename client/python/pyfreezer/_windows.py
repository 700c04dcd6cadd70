"""Where Lightning's accumulation windows begin, and how many optimizer steps came before."""

from __future__ import annotations

from typing import Any

from . import _hooks


class Automatic:
    """Lightning steps the only optimizer itself: its global_step is the number of steps."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._first = True

    @property
    def step(self) -> int:
        return self._trainer.global_step

    def begins(self) -> bool:
        """Whether the batch that starts now is the first of a window. Asked once for each batch."""
        first, self._first = self._first, False
        done = self._trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1  # this one is counted already
        return first or done % self._trainer.accumulate_grad_batches == 0

    def close(self) -> None:
        pass


class Manual:
    """
    The module steps its optimizers, when it likes. global_step counts the steps of all of them, so a GAN's grows by two
    with each batch: what counts here is how often all have stepped.
    """

    def __init__(self, optimizers: list[Any], step: int) -> None:
        self.step = step
        self._begun = -1
        self._ends = _hooks.Ends(len(optimizers))
        natives = [_hooks.native(optimizer) for optimizer in optimizers]
        self._handles = [native.register_step_post_hook(self._hook(i)) for i, native in enumerate(natives)]

    def _hook(self, which: int) -> Any:
        def hook(_optimizer: Any, _args: Any, _keywords: Any) -> None:
            self.step += self._ends.stepped(which)

        return hook

    def begins(self) -> bool:
        begins, self._begun = self._begun != self.step, self.step
        return begins

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
