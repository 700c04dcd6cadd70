"""A session: one model, attached. What it does is in the parts that it is made of; here is the order in which."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Union

from . import _hooks, _names
from ._client import Client
from ._errors import NoMatch, NotConnected, Refused
from ._extension import Extension
from ._flags import Change, Flags
from ._handle import Handle, NoHandle
from ._log import warn_once
from ._norms import Norms
from ._settings import Settings
from ._state import State
from ._tensors import at

if TYPE_CHECKING:
    import torch

Patterns = Union[str, Sequence[str]]


class Session:
    """
    A model whose parameters freezerd freezes and unfreezes. Made by pyfreezer.attach(); used by the training thread.

    Flags change only within begin_window(), which the hook on the optimizer, step() or an adapter calls, and which
    belongs before the first forward pass of an accumulation window.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[Any],
        slots: Sequence[_names.Slot],
        handle: Handle | NoHandle,
        settings: Settings,
        extensions: Sequence[Extension],
    ) -> None:
        self.model = model
        self.optimizers = list(optimizers)
        self.slots = slots
        self.extensions = list(extensions)
        self._settings = settings
        self._handle = handle
        self._log = settings.logger
        self._flags = Flags(slots, settings.on_conflict, self._log.warning)
        self._norms = Norms(settings.norm, slots)
        self._norms.follow(slots, model.training)  # what is frozen already
        self._callbacks: list[Callable[[Change], None]] = []
        self._remove_hooks: Callable[[], None] = lambda: None
        self._stepped = False  # step() has been called
        self._looked = handle.info().step // _hooks.LOOK_EVERY  # the block of steps in which flags were looked at last
        self._attend: Callable[[], None] = lambda: None  # the hook calls _at_result() at the next step in any case
        self._chores: list[Callable[[], None]] = []
        self._is_loading = False
        self._restored = False  # the flags are a checkpoint's, until there is a plan
        self._refusal: str | None = None  # why the mask that Freezer wants is not in force
        self._trouble = 0  # the last error of libfreezer
        self._change: Change | None = None
        self._state = State(self)
        self._finalizer = weakref.finalize(self, handle.close)
        for extension in self.extensions:
            extension.attached(self)

    # --- windows ---

    def begin_window(self, step: int | None = None, epoch: int | None = None) -> Change | None:
        """
        An accumulation window begins, its forward pass has not: applies what is due at (step, epoch).

        Without a step it is the one after the last; without an epoch, the last one. Both must not go back: that is
        what rewind() is for. Returns the change, None where nothing changed, as almost always. Never raises because
        of Freezer. May be called several times at a step.
        """
        if step is None and epoch is None:
            return self._at_result(self._handle.batch_next())
        if step is None or epoch is None:
            info = self._handle.info()
            step, epoch = info.step + 1 if step is None else step, info.epoch if epoch is None else epoch
        return self._at_result(self._handle.begin(step, epoch))

    def step(
        self,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Change | None:
        """
        For a loop without the hook: call it at the start of each accumulation window. The first call without a number
        is the step that attach() was given, each further one the next. `metrics` are of the step before.
        """
        for name, value in (metrics or {}).items():
            self.metric(name, value)
        if step is None and not self._stepped:
            step = self._handle.step
        self._stepped = True
        return self.begin_window(step, epoch)

    def set_epoch(self, epoch: int) -> Change | None:
        """The epoch that begins now, counted from 0. Call it between two windows, where the epoch begins."""
        return self.begin_window(self._handle.step, epoch)

    def rewind(self, step: int, epoch: int = 0) -> Change | None:
        """Training goes on at an earlier or another step, as after a checkpoint was restored."""
        self._at_result(self._handle.rewind(step, epoch))
        return self.begin_window(step, epoch)

    def metric(self, name: str, value: float) -> None:
        """Reports a value that rules may ask for. One that is not finite is no value."""
        code = self._handle.metric(name, float(value))
        if code < 0:
            why = (
                "its name is empty, too long or not printable" if code == -errno.EINVAL else self._handle.strerror(code)
            )
            warn_once(f"metric '{name}' is not reported: {why}")

    def _at_result(self, result: int) -> Change | None:
        """Behind freezer_batch_begin(): `result` is what it returned."""
        self._change = None
        if not self._finalizer.alive:
            return None
        self._do_chores()
        if result < 0 and result != self._trouble:
            self._log.warning("%s: the flags stay as they are", self._handle.strerror(result))
        self._trouble = min(result, 0)
        if self._restored:
            self._attend()
            self._end_restored()
        if result == 1:
            self._flags.want(*self._handle.changes())
        if result == 1 or (self._flags.waiting and self._refusal is None):
            self._flip()
        elif self._handle.step // _hooks.LOOK_EVERY != self._looked:
            self.look()
        return self._change

    def _soon(self, chore: Callable[[], None]) -> None:
        """Has this done where the next window begins."""
        self._chores.append(chore)
        self._attend()

    def _do_chores(self) -> None:
        while self._chores:
            self._chores.pop()()

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """The flags become those of a checkpoint, to which the optimizers' state belongs: nothing of it is reset."""
        self._is_loading = True
        try:
            yield
        finally:
            self._is_loading = False

    def _restore(self, frozen: Iterable[str]) -> None:
        """Writes a checkpoint's flags, which hold until freezerd has a plan."""
        names = set(frozen)
        self._restored = True
        self._flags.want_all(slot.name not in names for slot in self.slots)
        self._at_result(0)
        self._flip()

    def _end_restored(self) -> None:
        """libfreezer tells what differs from the baseline, which was not in force: with the first plan, all counts."""
        if self._handle.generation > 0:
            self._restored = False
            self._handle.changes()
            self._flags.want_all(self._handle.requires_grad(index) for index in range(len(self.slots)))
            self._flip()

    def look(self) -> Change | None:
        """Looks for flags that somebody else has set, and does what on_conflict says. Call it between two windows."""
        self._change = None
        self._looked = self._handle.step // _hooks.LOOK_EVERY
        self._flags.look_at_all()
        if self._flags.waiting:
            self._flip()
        return self._change

    # --- a flip ---

    def _flip(self) -> None:
        """Writes what differs from what Freezer wants, all of it or nothing."""
        freeze, thaw = self._flags.due()
        if not freeze and not thaw:
            self._flags.write((), ())
            self._refusal = None
            return
        info = self._handle.info()
        change = Change(
            info.step,
            info.epoch,
            self._handle.generation,
            tuple(at(self.slots, freeze)),
            tuple(at(self.slots, thaw)),
        )
        try:
            self._guard(change)
        except Refused as refusal:
            if self._refusal != str(refusal):
                self._log.error("step %s: the flags stay as they are: %s", f"{change.step:,}", refusal)
            self._refusal = str(refusal)
            return
        self._refusal = None
        self._flags.write(freeze, thaw)
        self._after(change)

    def _guard(self, change: Change) -> None:
        left = self._flags.trainable + len(change.unfrozen_slots) - len(change.frozen_slots)
        if left == 0 and not self._settings.allow_empty:
            raise Refused(
                "nothing would train, and backward() would fail",
                code="REFUSED_EMPTY",
                hint="leave a parameter trainable",
            )
        for extension in self.extensions:
            extension.before_flip(change)

    def _after(self, change: Change) -> None:
        if self._settings.optimizer_state == "reset" and not self._is_loading:
            for optimizer in self.optimizers:
                for slot in change.unfrozen_slots:
                    optimizer.state.pop(slot.tensor, None)
        self._norms.follow(itertools.chain(change.frozen_slots, change.unfrozen_slots), self.model.training)
        for extension in self.extensions:
            extension.after_flip(change)
        self._change = change
        if self._settings.first and self._log.isEnabledFor(logging.INFO):
            self._log.info("%s", self._state.sentence(change))
        for callback in self._callbacks:
            callback(change)

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[Change], None]:
        """Calls `callback(change)` after each flip, in the training thread. Usable as a decorator."""
        self._callbacks.append(callback)
        return callback

    # --- what is ---

    @property
    def connected(self) -> bool:
        """Whether freezerd is there and knows this rank."""
        return bool(self._handle.info().attached)

    @property
    def run(self) -> str:
        """The run's name: freezerd's, if it gave it another."""
        return (self._handle.info().run or b"").decode()

    @property
    def generation(self) -> int:
        """Number of the plan in force; 0 before the first."""
        return self._handle.generation

    @property
    def position(self) -> tuple[int, int]:
        """(step, epoch) of the window that is under way."""
        info = self._handle.info()
        return info.step, info.epoch

    @property
    def drift(self) -> int:
        """How often a flag was found changed by somebody else."""
        return self._flags.drift

    @property
    def refusal(self) -> str | None:
        """Why the mask that Freezer wants is not in force; None: it is."""
        return self._refusal

    @property
    def frozen(self) -> list[str]:
        """Names of all parameters that do not require a gradient now."""
        return [slot.name for slot in self.slots if not slot.tensor.requires_grad]

    @property
    def trainable_pct(self) -> float:
        """Share of the elements that train, in percent."""
        total = sum(slot.elements for slot in self.slots)
        trainable = sum(slot.elements for slot in self.slots if slot.tensor.requires_grad)
        return 100.0 * trainable / total if total else 0.0

    def is_frozen(self, name: str) -> bool:
        """Whether a parameter, or every parameter of a module, is frozen now. Answered here, without freezerd."""
        below = name + "."
        found = [s for s in self.slots if any(n == name or n.startswith(below) for n in (s.name, *s.aliases))]
        if not found:
            raise NoMatch(f"the model has no parameter or module '{name}'", code="no_match")
        return not any(slot.tensor.requires_grad for slot in found)

    def summary(self) -> str:
        """A few lines for people: where it is attached, what trains, what is frozen."""
        return self._state.summary()

    # --- freezerd's word ---

    @property
    def client(self) -> Client:
        """A client of the freezerd that this session is attached to. Raises NotConnected."""
        info = self._handle.info()
        if not info.socket or not info.attached:
            raise NotConnected("this run is attached to no freezerd", hint="start freezerd: the run attaches by itself")
        return Client((info.socket or b"").decode("utf-8", "surrogateescape"), run=self.run)

    def freeze(self, patterns: Patterns, **options: Any) -> dict:
        """
        Freezes what the patterns select, as freezerctl does; in force from one of the next windows. Options and answer:
        Client.freeze(). Does not wait, since it is this thread that would have to go on.
        """
        return self._ask("freeze", patterns, options)

    def unfreeze(self, patterns: Patterns, **options: Any) -> dict:
        """The opposite of freeze()."""
        return self._ask("unfreeze", patterns, options)

    def auto(self, patterns: Patterns, **options: Any) -> dict:
        """Drops the decisions of freeze() and unfreeze() about these: rules decide again."""
        return self._ask("auto", patterns, options)

    def pin(self, patterns: Patterns, **options: Any) -> dict:
        """Keeps these as they are, whoever asks; value="frozen" or "training": so."""
        return self._ask("pin", patterns, options)

    def unpin(self, patterns: Patterns, **options: Any) -> dict:
        """Takes pins back."""
        return self._ask("unpin", patterns, options)

    def explain(self, name: str) -> dict:
        """Every layer that has a say about a parameter, which decides, and what comes next."""
        with self.client as client:
            return client.explain(name)

    def history(self, limit: int | None = None) -> list[dict]:
        """What was changed, by whom and when, newest first."""
        with self.client as client:
            return client.history(limit=limit)

    def _ask(self, verb: str, patterns: Patterns, options: Mapping[str, Any]) -> dict:
        if isinstance(self._handle, NoHandle):
            return {}  # the one warning was given when it was looked for
        with self.client as client:
            return getattr(client, verb)(patterns, **{"wait": 0, **options})

    # --- checkpoints ---

    def state_dict(self) -> dict:
        """What a checkpoint needs so that training goes on with the same parameters frozen. Plain types only."""
        return self._state.save()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where state_dict() was called. Call it before the first window, with the model's weights loaded."""
        self._state.load(state)

    # --- the end ---

    def detach(self, restore: bool = False) -> None:
        """
        Ends the session: the hooks are gone, freezerd is told. Flags stay as they are, or with `restore` are those
        that the model had when it was attached first. More than once does nothing.
        """
        if not self._finalizer.alive:
            return
        self._do_chores()
        self._remove_hooks()
        self._norms.close(self.model.training)
        if restore:
            self._flags.want_all(slot.baseline for slot in self.slots)
            self._flags.write(*self._flags.due())
        self._finalizer()
        for extension in self.extensions:
            extension.detached()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"<pyfreezer.Session {self.run!r}, {len(self.slots)} parameters, generation {self.generation}>"
