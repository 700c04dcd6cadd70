"""Freezer: the callback of project-lighter, by freezerd's rules."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union

from . import _library, _names
from . import _lightning_common as common
from ._errors import FreezerError
from ._lightning_callback import FreezerCallback

if TYPE_CHECKING:
    from ._session import Session

Names = Union[str, Sequence[str], None]

PROFILES = ("lighter", "owned")
CHECKPOINT_KEY = "pyfreezer.lightning.Freezer"

_NAME_MAX = 4096  # bytes; no parameter has a longer name
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TIME_MAX = 1 << 40


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


class Freezer(common.Callback):
    """
    Freezes parameters until a step or an epoch.

    names                    full names of parameters
    name_starts_with         prefixes of names
    except_names, except_name_starts_with
                             what is left out
    until_step, until_epoch  where it ends; one of them, or neither
    profile                  "lighter": each flag is at each batch what project-lighter's callback makes it (v0.0.2 to
                             v0.0.5), with several Freezers too. "owned": a Freezer changes what it selects and nothing
                             else; what it releases goes back to what it was; with several, the last one that selects a
                             parameter has it; a selector that matches nothing is an error; flags change at the start
                             of an accumulation window and never in validation; both limits may be given
    run, socket, log         as for pyfreezer.attach()

    Where no freezerd is running, a private one is started. Either way freezerctl shows the run, and what it freezes or
    unfreezes there holds above this. A Freezer goes on from fit to fit; with another model it begins anew.
    """

    def __init__(
        self,
        names: Names = None,
        name_starts_with: Names = None,
        except_names: Names = None,
        except_name_starts_with: Names = None,
        until_step: int | None = None,
        until_epoch: int | None = None,
        *,
        profile: str = "lighter",
        run: str | None = None,
        socket: str | None = None,
        log: str | logging.Logger | None = None,
    ) -> None:
        super().__init__()
        if profile not in PROFILES:
            raise ValueError(f"profile must be 'lighter' or 'owned', not {profile!r}")
        if names is None and name_starts_with is None:
            raise ValueError("At least one of `names` or `name_starts_with` must be specified.")
        if profile == "lighter" and until_step is not None and until_epoch is not None:
            raise ValueError("Only one of `until_step` or `until_epoch` can be specified.")
        self.names = _listed(names)
        self.name_starts_with = _listed(name_starts_with)
        self.except_names = _listed(except_names)
        self.except_name_starts_with = _listed(except_name_starts_with)
        self.until_step = until_step
        self.until_epoch = until_epoch
        self.profile = profile
        self._options = {"run": run, "socket": socket, "log": log}
        if profile == "owned":
            _check_owned(self)
        self._leader: _Lighter | FreezerCallback | None = None  # of the first Freezer of a Trainer: it acts for all

    @property
    def session(self) -> Session | None:
        """Of the first Freezer of a Trainer, while it is attached."""
        return None if self._leader is None else self._leader.session

    # --- the first one acts for all ---

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        freezers = [callback for callback in trainer.callbacks if isinstance(callback, Freezer)]
        if freezers[0] is not self:
            self._follow(None)
            return
        if len({freezer.profile for freezer in freezers}) > 1:
            raise ValueError("all Freezers of a Trainer must have the same profile")
        if any(isinstance(callback, FreezerCallback) for callback in trainer.callbacks):
            raise ValueError("give a Trainer Freezers or a FreezerCallback(rules=...), not both")
        if self.profile == "lighter":
            model = common.inner(pl_module)
            if not isinstance(self._leader, _Lighter) or not self._leader.is_for(freezers, model):
                self._follow(_Lighter(freezers, model))
            self._leader.setup(trainer)
            return
        if not isinstance(self._leader, FreezerCallback):
            self._leader = _owned(freezers)
        self._leader.setup(trainer, pl_module, stage)

    def _follow(self, leader: _Lighter | None) -> None:
        """The one before is over, and freezerd is told: to it, two that are attached are two runs."""
        if isinstance(self._leader, _Lighter):
            self._leader.end()
        self._leader = leader

    def _batch(self, trainer: Any) -> None:
        if isinstance(self._leader, _Lighter):
            self._leader.batch(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if isinstance(self._leader, FreezerCallback):
            self._leader.on_train_batch_start(trainer, pl_module, batch, batch_idx)
        else:
            self._batch(trainer)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batch(trainer)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batch(trainer)

    def on_predict_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batch(trainer)

    # --- profile owned ---

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if isinstance(self._leader, FreezerCallback):
            self._leader.on_train_start(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if isinstance(self._leader, FreezerCallback):
            self._leader.teardown(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Not state_dict(): two equal Freezers would be one to Lightning."""
        if isinstance(self._leader, FreezerCallback):
            checkpoint[CHECKPOINT_KEY] = self._leader.state_dict()

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if isinstance(self._leader, FreezerCallback) and checkpoint.get(CHECKPOINT_KEY):
            self._leader.load_state_dict(checkpoint[CHECKPOINT_KEY])

    def __getstate__(self) -> dict[str, Any]:
        """A copy, as for processes that are spawned, is attached to nothing."""
        return {**self.__dict__, "_leader": None}


def _options(freezers: list[Freezer]) -> dict[str, Any]:
    """Of each option, the first that was given."""
    chosen: dict[str, Any] = {"run": None, "socket": None, "log": None}
    for freezer in reversed(freezers):
        chosen.update({name: value for name, value in freezer._options.items() if value is not None})
    chosen["log"] = chosen["log"] or "auto"
    return chosen


# --- profile lighter ---


def _selectors(values: list[Any]) -> list[str]:
    """What can match, once each: what is no text, or none that a parameter can be called, is equal to no name."""
    return list(dict.fromkeys(v for v in values if isinstance(v, str) and _can_be_a_name(v)))


def _can_be_a_name(text: str) -> bool:
    try:
        return len(text.encode()) <= _NAME_MAX and not _CONTROL.search(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _prefixes(values: list[Any]) -> list[str]:
    """Raises TypeError for what no text can start with, as at lighter's first batch. A tuple is each of its members."""
    for value in values:
        "".startswith(value)
    return _selectors([v for value in values for v in (value if isinstance(value, tuple) else (value,))])


def _limit(limit: Any) -> int | None:
    """The first number that is not below it; None: there is none. Raises TypeError, as at lighter's first batch."""
    if limit is None or not limit < _TIME_MAX:  # NaN is above nothing
        return None
    return max(math.ceil(limit), 0)


def _rule(freezer: Freezer) -> dict[str, Any]:
    rule = {
        "names": _selectors(freezer.names),
        "name_starts_with": _prefixes(freezer.name_starts_with),
        "except_names": _selectors(freezer.except_names),
        "except_name_starts_with": _prefixes(freezer.except_name_starts_with),
        "until_step": _limit(freezer.until_step),
        "until_epoch": _limit(freezer.until_epoch),
    }
    return {key: value for key, value in rule.items() if value is not None}


class _Lighter:
    """All Freezers of a Trainer, over one model. It lasts from fit to fit, as their state in lighter does."""

    def __init__(self, freezers: list[Freezer], model: Any) -> None:
        self._freezers = freezers
        self._model = model
        self._place: common.Place | None = None
        self._at = (0, 0)
        self.session: Session | None = None

    def is_for(self, freezers: list[Freezer], model: Any) -> bool:
        return model is self._model and [id(f) for f in freezers] == [id(f) for f in self._freezers]

    def setup(self, trainer: Any) -> None:
        if self._place is None:
            if _library.load() is None:
                raise FreezerError("Freezer needs libfreezer", hint="FREEZER_LIBRARY names one")
            options = _options(self._freezers)
            self._place = common.meet(trainer, options["run"], options["socket"], options["log"], needed=True)

    def batch(self, trainer: Any) -> None:
        at = (trainer.global_step, trainer.current_epoch)
        if self.session is None:
            self.session = self._open(trainer, at)
            self.session.begin_window(*at)
            if self.session.generation == 0:
                raise FreezerError("freezerd gave no plan for the first batch", hint="its log says why")
        elif at[0] < self._at[0] or at[1] < self._at[1]:
            self.session.rewind(*at)
        else:
            self.session.begin_window(*at)
        self._at = at

    def end(self) -> None:
        if self.session is not None:
            self.session.detach()
        if self._place is not None and self._place.daemon is not None:
            self._place.daemon.stop()

    def _open(self, trainer: Any, at: tuple[int, int]) -> Session:
        place = self._place
        assert place is not None
        _names.forget(self._model)
        return place.attach(
            trainer,
            self._model,
            log=_options(self._freezers)["log"],
            step=at[0],
            epoch=at[1],
            rules={"version": 1, "profile": "lighter", "rules": [_rule(freezer) for freezer in self._freezers]},
            on_conflict="ignore",
            allow_empty=True,
            timeout=common.RULES_SECONDS,
        )


# --- profile owned ---


def _check_owned(freezer: Freezer) -> None:
    values = (freezer.names, freezer.name_starts_with, freezer.except_names, freezer.except_name_starts_with)
    for value in [v for listed in values for v in listed]:
        if not isinstance(value, str) or not value:
            raise ValueError(f"names and prefixes must be non-empty strings, not {value!r}")
    if not freezer.names and not freezer.name_starts_with:
        raise ValueError("`names` and `name_starts_with` are both empty")
    for limit in (freezer.until_step, freezer.until_epoch):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ValueError(f"until_step and until_epoch must be integers from 0 on, not {limit!r}")


def _owned_rule(freezer: Freezer) -> dict[str, Any]:
    def patterns(names: list[str], prefixes: list[str]) -> list[str]:
        return [f"name:{name}" for name in names] + [f"prefix:{prefix}" for prefix in prefixes]

    limits = {"step": freezer.until_step, "epoch": freezer.until_epoch}
    rule: dict[str, Any] = {"freeze": patterns(freezer.names, freezer.name_starts_with)}
    if excepted := patterns(freezer.except_names, freezer.except_name_starts_with):
        rule["except"] = excepted
    if until := {key: limit for key, limit in limits.items() if limit is not None}:
        rule["until"] = until
    return rule


def _owned(freezers: list[Freezer]) -> FreezerCallback:
    rules = {"version": 1, "profile": "owned", "rules": [_owned_rule(freezer) for freezer in freezers]}
    return FreezerCallback(rules, **_options(freezers))
