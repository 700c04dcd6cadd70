"""FreezerCallback: the module of a Lightning Trainer, attached."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _lightning_common as common
from . import _names, _windows
from ._arguments import Rules
from ._errors import FreezerError, Refused
from ._extension import Extension
from ._thaw import thawed

if TYPE_CHECKING:
    from ._flags import Change
    from ._session import Session

VERSION = 1


class _EveryOptimizer(Extension):
    """Where there are several optimizers, each backward pass needs something of its own to train."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def attached(self, session: Session) -> None:
        self._session = session

    def before_flip(self, change: Change) -> None:
        assert self._session is not None
        optimizers = self._session.optimizers
        if len(optimizers) < 2:
            return
        for number, optimizer in enumerate(optimizers):
            if change.empties(_names.parameters_of(optimizer)):
                raise Refused(
                    f"optimizer {number} ({type(optimizer).__name__}) would have nothing to train",
                    code="REFUSED_EMPTY",
                    hint="leave a parameter of each optimizer trainable",
                )


class FreezerCallback(common.Callback):
    """
    Lets freezerd freeze and unfreeze the parameters of a LightningModule while the Trainer fits it.

    rules            in force from the first batch on: a mapping, or the path of a file, YAML or JSON. Where no freezerd
                     is running, a private one is started for them
    model            which submodule: a dotted name. Default: the whole module, or the `model` of a System of lighter
    thaw             while optimizers and wrappers are built, everything that can train does, so that what is frozen at
                     the start can train later. False for a base that must stay out of the optimizer (LoRA)
    metrics          names of logged values to report after each batch, for rules that ask for them; all that is
                     logged is reported after validation and at the end of an epoch
    log_share        write the trainable share of the elements to the Trainer's loggers: at the start, at each change
    progress_bar     show it there
    allow_idle       allow a change after which one of several optimizers has nothing to train
    The others are those of pyfreezer.attach().

    Flags change at the start of an accumulation window, never in validation, and never while a module has toggled its
    optimizers. With several optimizers a window is over when each of them has stepped. The state goes into
    checkpoints: a resumed run goes on with the same parameters frozen. On several machines freezerd is needed where
    global rank 0 is, and so are the rules' file and the private freezerd: what that rank knows goes to all others.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        run: str | None = None,
        socket: str | None = None,
        model: str | None = None,
        thaw: bool = True,
        norm: str = "leave",
        optimizer_state: str = "keep",
        on_conflict: str = "warn",
        uncovered: str = "pin",
        metrics: Sequence[str] = (),
        log_share: bool = True,
        progress_bar: bool = False,
        allow_idle: bool = False,
        timeout: float | None = None,
        log: str | logging.Logger = "auto",
    ) -> None:
        super().__init__()
        self._rules = rules
        self._run, self._socket = run, socket
        self._model, self._thaw = model, thaw
        self._metrics = tuple(metrics)
        self._log_share, self._progress_bar, self._allow_idle = log_share, progress_bar, allow_idle
        self._options: dict[str, Any] = {
            "norm": norm,
            "optimizer_state": optimizer_state,
            "on_conflict": on_conflict,
            "uncovered": uncovered,
            "timeout": common.RULES_SECONDS if timeout is None and rules is not None else timeout,
            "log": log,
        }
        self.session: Session | None = None
        """While a fit trains."""
        self._place: common.Place | None = None
        self._windows: _windows.Automatic | _windows.Manual | None = None
        self._state: dict[str, Any] = {}  # of the last session
        self._resumed: dict[str, Any] | None = None  # from a checkpoint, for the next session
        self._share = 0.0

    # --- what there is before the first batch ---

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        self._end()
        self._place = common.meet(trainer, self._run, self._socket, self._options["log"], self._rules)
        if self._thaw:
            self._thaw_around(trainer.strategy, pl_module)

    def _thaw_around(self, strategy: Any, pl_module: Any) -> None:
        """
        Optimizers and wrapper are built in strategy.setup(). No hook of a callback lies between it and those in which
        a module may still make its parameters, so it is wrapped, once.
        """
        setup, shadowed = strategy.setup, strategy.__dict__.get("setup")

        def thawed_setup(*args: Any, **keywords: Any) -> Any:
            if shadowed is None:
                del strategy.setup
            else:
                strategy.setup = shadowed
            with thawed(self._module(pl_module)):
                return setup(*args, **keywords)

        strategy.setup = thawed_setup

    def _module(self, pl_module: Any) -> Any:
        return common.inner(pl_module) if self._model is None else pl_module.get_submodule(self._model)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        place = self._place
        if place is None:
            raise FreezerError("setup() of this callback was not called")
        resumed, self._resumed = self._resumed, None
        self._windows = self._make_windows(trainer, pl_module, resumed)
        state = resumed["session"] if resumed else None  # of the last window before the checkpoint
        step, epoch = (state["step"], state["epoch"]) if state else (self._windows.step, trainer.current_epoch)
        session = self.session = place.attach(
            trainer,
            self._module(pl_module),
            trainer.optimizers,
            step=step,
            epoch=epoch,
            rules=place.rules,
            extensions=() if self._allow_idle else (_EveryOptimizer(),),
            **self._options,
        )
        if self._rules is not None and trainer.is_global_zero and not session.connected:
            session._log.warning("this run is attached to no freezerd: the rules are not in force")
        if state:
            session.load_state_dict(state)
        self._tell(trainer)

    def _make_windows(self, trainer: Any, pl_module: Any, resumed: Mapping[str, Any] | None) -> Any:
        if pl_module.automatic_optimization:
            return _windows.Automatic(trainer)
        before = resumed or (self._state if self._state.get("global_step") == trainer.global_step else None)
        step = before["step"] if before else trainer.global_step // max(len(trainer.optimizers), 1)
        return _windows.Manual(trainer.optimizers, step)

    # --- batches ---

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        session, windows = self.session, self._windows
        if session is None or windows is None:
            return
        if windows.begins() and session.begin_window(windows.step, trainer.current_epoch) is not None:
            self._tell(trainer)
        if self._progress_bar:
            pl_module.log("train%", self._share, prog_bar=True, logger=False, on_step=True, on_epoch=False)

    def _tell(self, trainer: Any) -> None:
        assert self.session is not None
        self._share = self.session.trainable_pct
        if not self._log_share:
            return
        step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)  # as Lightning logs
        values = {"freezer/trainable_pct": self._share, "freezer/frozen": float(len(self.session.frozen))}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._metrics:
            self._report(trainer, self._metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._report(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._report(trainer)

    def _report(self, trainer: Any, names: Sequence[str] | None = None) -> None:
        if self.session is None:
            return
        values = trainer.callback_metrics
        for name in values if names is None else names:
            if name in values:
                self.session.metric(name, float(values[name]))

    # --- checkpoints ---

    @property
    def state_key(self) -> str:
        return self._generate_state_key(model=self._model, run=self._run)

    def state_dict(self) -> dict[str, Any]:
        if self.session is not None:
            self._note_state()
        return dict(self._resumed or self._state)

    def _note_state(self) -> None:
        assert self.session is not None and self._windows is not None
        self._state = {"version": VERSION, "step": self._windows.step, "session": self.session.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("version") != VERSION:
            raise FreezerError(f"a state of version {state_dict.get('version')!r} cannot be loaded, only {VERSION}")
        self._resumed = state_dict

    # --- the end ---

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self._end(trainer)

    def _end(self, trainer: Any = None) -> None:
        if self.session is not None:
            self._note_state()
            if trainer is not None:
                self._state["global_step"] = trainer.global_step
            self.session.detach()
        if self._windows is not None:
            self._windows.close()
        if self._place is not None and self._place.daemon is not None:
            self._place.daemon.stop()
        self.session = self._windows = self._place = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy, as for processes that are spawned, is attached to nothing."""
        return {**self.__dict__, "session": None, "_windows": None, "_place": None}
