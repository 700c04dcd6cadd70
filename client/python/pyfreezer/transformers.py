"""
Freezer in the Trainer of Hugging Face's transformers:

    from pyfreezer.transformers import FreezerCallback

    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[FreezerCallback()])

Give it to the constructor: the Trainer puts into the optimizer what requires a gradient when train() begins, so until
then everything that Freezer may ever thaw must. One that comes later, by add_callback(), adds to the optimizer what is
missing, with a warning: a checkpoint of such a run is resumed by a Trainer that gets it in its constructor, and by no
other, since the Trainer fills its optimizer from the checkpoint before a callback can add anything.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import transformers
from transformers import trainer_callback

from . import _log, _names, _owners
from ._attach import attach
from ._errors import NoMatch, NotCovered
from ._extension import Extension
from ._session import Session
from ._thaw import Thawed

if TYPE_CHECKING:
    import torch

LEFT_ALONE = "LEFT_ALONE"
"""Code of what the script keeps frozen and nobody listed: the base below an adapter of PEFT."""

_OPTIONS = frozenset(inspect.signature(attach).parameters) - {
    *("model", "optimizer", "hook", "step", "epoch", "uncovered", "framework"),
}

# Before 4.42 no callback had a state.
_Exportable: Any = getattr(trainer_callback, "ExportableState", object)


class _Scope(Extension):
    """What Freezer may touch: everything, or what trains without it and what is listed."""

    def __init__(self, everything: bool, also: Sequence[str]) -> None:
        self._everything = everything
        self._also = also

    def holds(self, slot: _names.Slot) -> bool:
        return self._everything or slot.baseline or any(_is_in(slot, name) for name in self._also)

    def register(self, slots: Sequence[_names.Slot]) -> None:
        unknown = [name for name in self._also if not any(_is_in(slot, name) for slot in slots)]
        if unknown:
            raise NoMatch(f"the model has no parameter or module '{unknown[0]}'", code="no_match")
        for slot in slots:
            if slot.controllable and not self.holds(slot):
                slot.may_freeze = slot.may_train = LEFT_ALONE


def _is_in(slot: _names.Slot, name: str) -> bool:
    return any(each == name or each.startswith(name + ".") for each in (slot.name, *slot.aliases))


def _has_adapters(model: torch.nn.Module) -> bool:
    """Whether PEFT has put adapters into a model, around it or by the model's own add_adapter()."""
    bare = _names.unwrap(model)
    return getattr(bare, "_hf_peft_config_loaded", False) or any(
        cls.__module__.partition(".")[0] == "peft" for cls in type(bare).__mro__
    )


class FreezerCallback(transformers.TrainerCallback, _Exportable):
    """
    Lets freezerd freeze and unfreeze the parameters of the Trainer's model while it trains.

    control    what Freezer may touch: "all" parameters; "trainable", those that require a gradient without it; "auto":
               "trainable" for a model with adapters of PEFT, whose base is frozen on purpose, and "all" for others
    also       names of further parameters or modules for control="trainable"
    uncovered  of what is frozen and in no optimizer: "append" it to the group of its like, "raise" a NotCovered, or
               "pin" it, so that it stays frozen
    options    those of pyfreezer.attach(): run, socket, rules, norm, optimizer_state, on_conflict, ...

    Flags change where an accumulation window begins, at state.global_step. The Trainer's logs get
    freezer/trainable_pct and freezer/generation, and what it logs is reported to freezerd as metrics. Checkpoints have
    what is frozen; a run that is resumed from one goes on with it.

    `session` is the pyfreezer.Session of the training that is under way or was last, None before the first.
    """

    def __init__(
        self, *, control: str = "auto", also: str | Sequence[str] = (), uncovered: str = "append", **options: Any
    ) -> None:
        if control not in ("auto", "all", "trainable"):
            raise ValueError(f"control must be 'auto', 'all' or 'trainable', not {control!r}")
        if uncovered not in ("append", "raise", "pin"):
            raise ValueError(f"uncovered must be 'append', 'raise' or 'pin', not {uncovered!r}")
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise TypeError(f"FreezerCallback has no option {', '.join(unknown)}")
        self.session: Session | None = None
        self._control = control
        self._also = (also,) if isinstance(also, str) else tuple(also)
        self._uncovered = uncovered
        self._options = options
        self._thaw: Thawed | None = None
        self._was_in_time = False  # given to the constructor of the Trainer
        self._epoch = 0
        self._clean = False  # a window ended, and no forward pass has begun
        self._misaligned = False  # on_step_begin does not come where windows begin
        self._restored: dict | None = None

    # --- before and after training ---

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._go_first()
        self._was_in_time = True
        if model is not None:
            scope = self._scope(model)
            scope.register(_names.collect(model))  # to be told of a wrong name now
            self._thaw = Thawed(model, only=scope.holds)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        self._go_first()
        self._end()  # of a training that was left by an exception
        if self._thaw is not None:
            self._thaw.restore()
            self._thaw = None
        scope = self._scope(model)
        self._cover(scope, model, optimizer)
        step, epoch = state.global_step, int(state.epoch or 0)
        options = {**self._options, "extensions": [scope, *self._options.get("extensions", ())]}
        whole = _owners.outermost(model)
        self.session = attach(whole, optimizer, hook=False, step=step, epoch=epoch, framework="transformers", **options)
        self._clean, self._misaligned = True, False
        self._epoch = epoch - 1  # on_epoch_begin comes, whether an epoch begins or goes on
        saved = _saved_in(state.stateful_callbacks, type(self).__name__) if step else None
        if saved:
            self.session.load_state_dict({**saved, "step": step, "epoch": epoch})
        else:
            self.session.begin_window(step, epoch)
        # The Trainer fails to save a callback that the checkpoint it was resumed from did not have.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self.session is not None:
            self._restored = None
            self.session.detach()

    def _scope(self, model: torch.nn.Module) -> _Scope:
        return _Scope(self._control == "all" or self._control == "auto" and not _has_adapters(model), self._also)

    def _cover(self, scope: _Scope, model: torch.nn.Module, optimizer: Any) -> None:
        """Sees to it that what is frozen now can train later. What trains and is in no optimizer is so on purpose."""
        slots = _names.collect(model)
        scope.register(slots)
        missing = [slot for slot in _names.cover(slots, [optimizer]) if not slot.tensor.requires_grad]
        if not missing or self._uncovered == "pin":
            return
        names = [slot.name for slot in missing]
        groups = [_group_for(slot, slots, optimizer.param_groups) for slot in missing]
        if self._uncovered == "raise" or None in groups:
            sentence = f"{len(missing)} of {len(slots)} parameters are in no optimizer: {_names.shorten(names)}"
            raise NotCovered(sentence, names, hint=self._how_to_cover())
        for slot, group in zip(missing, groups):
            _insert(slot, slots, group["params"])
        _log.configure(self._options.get("log", "auto")).warning(
            "%d frozen parameters were in no optimizer and were added to it: %s; to resume from a checkpoint, %s",
            len(missing),
            _names.shorten(names),
            self._how_to_cover(),
        )

    def _how_to_cover(self) -> str:
        if self._was_in_time:
            return "build the optimizer within pyfreezer.thawed(model)"
        return "give the FreezerCallback to the constructor of the Trainer"

    # --- windows ---

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._epoch += 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._clean and not self._misaligned:
            self._begin(state)
        elif not self._clean:
            self._misaligned = True  # in 4.28 to 4.45, from the second epoch on, it may come within a window
        self._clean = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._misaligned |= self._clean  # the window began and on_step_begin did not come
        self._clean = True
        if self._misaligned:
            self._begin(state)

    def _begin(self, state: Any) -> None:
        if self.session is not None:
            self.session.begin_window(state.global_step, max(self._epoch, 0))

    # --- logs ---

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.session is None or not logs:
            return
        for name, value in logs.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.session.metric(name, value)
        if "loss" not in logs:
            return  # evaluation's, which is given to the caller too
        ours = {
            "freezer/trainable_pct": round(self.session.trainable_pct, 4),
            "freezer/generation": self.session.generation,
        }
        logs.update(ours)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(ours)

    def _go_first(self) -> None:
        """
        Callbacks that write logs come before those of the user, and would not see what on_log adds: it goes before
        them. And a Trainer that restores callbacks from a checkpoint makes new ones of them, of plain arguments: such
        a one goes on as the one that it replaces.
        """
        handler = _owners.holder_of(self, trainer_callback.CallbackHandler, "callbacks")
        if handler is None:
            return
        if self._restored is not None and hasattr(handler, "_freezer"):
            self.__dict__ = handler._freezer.__dict__
        handler._freezer = self
        handler.callbacks.remove(self)
        handler.callbacks.insert(0, self)

    # --- checkpoints ---

    def state(self) -> dict:
        """What a checkpoint keeps of it. The Trainer writes JSON."""
        arguments = {"control": self._control, "also": list(self._also), "uncovered": self._uncovered}
        plain = {name: value for name, value in self._options.items() if _is_plain(value)}
        saved = self.session.state_dict() if self.session is not None else None
        return {"args": {**arguments, **plain}, "attributes": {"_restored": {"session": saved}}}


def _saved_in(callbacks: Mapping[str, Any], name: str) -> dict | None:
    """The session's state in a checkpoint of the Trainer, whether or not it restores callbacks."""
    kept = callbacks.get(name)
    if isinstance(kept, list):  # several callbacks, or a Trainer that appends where it should replace
        kept = kept[-1] if kept else None
    return ((kept or {}).get("attributes", {}).get("_restored") or {}).get("session")


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _insert(slot: _names.Slot, slots: Sequence[_names.Slot], parameters: list) -> None:
    """In the model's order, as if it had been there when the optimizer was made: checkpoints know them by number."""
    number = {id(s.tensor): i for i, s in enumerate(slots)}
    at = next((i for i, p in enumerate(parameters) if number.get(id(p), -1) > number[id(slot.tensor)]), None)
    parameters.insert(len(parameters) if at is None else at, slot.tensor)


def _group_for(slot: _names.Slot, slots: Iterable[_names.Slot], groups: Sequence[dict]) -> dict | None:
    """
    The parameter group to which a parameter belongs: the one that has all of its like, as the biases of LayerNorm;
    else, where groups differ in their weight decay alone, by its shape. None: it cannot be told.
    """
    if len(groups) == 1:
        return groups[0]
    like = {id(s.tensor) for s in slots if s.attribute == slot.attribute and type(s.owner) is type(slot.owner)}
    having = [group for group in groups if any(id(parameter) in like for parameter in group["params"])]
    if len(having) == 1:
        return having[0]
    if having or not groups or not _differ_in_decay_alone(groups):
        return None
    return (max if slot.tensor.dim() > 1 else min)(groups, key=lambda group: group["weight_decay"])


def _differ_in_decay_alone(groups: Sequence[dict]) -> bool:
    settings = [{k: v for k, v in group.items() if k not in ("params", "weight_decay")} for group in groups]
    return "weight_decay" in groups[0] and all(each == settings[0] for each in settings)
