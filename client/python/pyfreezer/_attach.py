"""attach(): from a model and its optimizer to a session."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from . import _adapters, _arguments, _distributed, _hooks, _library, _log, _names
from ._errors import FreezerError, NotCovered
from ._extension import Extension
from ._flags import Change
from ._handle import Handle, NoHandle, Where
from ._session import Session
from ._settings import Settings

if TYPE_CHECKING:
    import torch

_sessions: weakref.WeakKeyDictionary[torch.nn.Module, weakref.ref[Session]] = weakref.WeakKeyDictionary()
"""The last one of each bare model."""


def attach(
    model: torch.nn.Module,
    optimizer: Any = None,
    *,
    run: str | None = None,
    socket: str | None = None,
    hook: bool = True,
    step: int = 0,
    epoch: int = 0,
    rules: _arguments.Rules | None = None,
    norm: str = "leave",
    optimizer_state: str = "keep",
    on_conflict: str = "warn",
    uncovered: str = "pin",
    allow_empty: bool = False,
    rank: int | None = None,
    world: int | None = None,
    job: str | None = None,
    attempt: int = 0,
    framework: str = "pytorch",
    timeout: float | None = None,
    group: Any = None,
    group_timeout: float = _distributed.TIMEOUT,
    extensions: Sequence[Extension] = (),
    rewrap: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
    on_change: Callable[[Change], None] | None = None,
    log: str | logging.Logger = "auto",
) -> Session:
    """
    Lets freezerd freeze and unfreeze the parameters of a model while it trains.

    model            bare, or wrapped in DDP, FSDP, torch.compile or a checkpoint wrapper
    optimizer        one or several, with everything in them that may ever train (see thawed())
    run              its name; without it $FREEZER_RUN, the scheduler's, or the script's
    socket           freezerd's; without it $FREEZER_SOCKET or the usual places
    hook             go on with each step of the optimizer; False: call session.step() at the start of each window
    step, epoch      of the first batch
    rules            in force from the first batch on: a mapping, or the path of a file, YAML or JSON
    norm             "eval": norm layers whose parameters are all frozen stop to gather statistics; "leave": they go on
    optimizer_state  of what is unfrozen: "keep" its moments, or "reset" them
    on_conflict      when somebody else sets a flag: "warn" and leave it so, "enforce" ours, "yield" quietly, or
                     "ignore" it until Freezer's next change of that parameter
    uncovered        what is in no optimizer: "pin" leaves it alone, with a warning; "raise" is a NotCovered
    rank, world      this process and how many attach on this machine; without them from the environment
    job, attempt     which start of the job this is; without them from the scheduler
    timeout          seconds to wait for a freezerd that is there; one that is not there is never waited for
    group            several machines: the process group that trains this model together. Without it, all ranks of
                     torch.distributed, if those of this machine are not all. Its first rank attaches
    group_timeout    seconds after which a rank that does not come to a step is given up: the flags stay as they are
    extensions       see pyfreezer.Extension; those for DDP and the like are found by themselves
    rewrap           wraps the bare model in DDP anew and returns the wrapper, where Freezer cannot correct it in place
    on_change        called with each Change, in the training thread

    Returns at once where there is no freezerd or no libfreezer: training goes on as it is, and the session attaches
    by itself when freezerd appears. Raises ValueError and TypeError for bad arguments, LayoutError, NotCovered, Refused
    for what cannot be controlled at all, RulesError, and with FREEZER_REQUIRE=1 NotConnected. A session that the model
    has already ends: only one can be its rank.
    """
    if uncovered not in ("pin", "raise"):
        raise ValueError(f"uncovered must be 'pin' or 'raise', not {uncovered!r}")
    _arguments.check_model(model)
    _arguments.check_not_negative(step=step, epoch=epoch, attempt=attempt, timeout=timeout)
    optimizers = _arguments.optimizers(optimizer)
    if hook and not optimizers:
        raise ValueError("give the optimizer, or hook=False and call session.step() at the start of each window")
    natives = [_hooks.native(each) for each in optimizers] if hook else []
    plan_group, rank, world = _place(rank, world, group, group_timeout)
    first = rank == 0 if plan_group is None else plan_group.root
    settings = Settings(norm, optimizer_state, on_conflict, allow_empty, first, _log.configure(log))
    text = _arguments.rules_text(rules)
    where = Where(run, socket, framework, job, attempt, rank, world, step, epoch, text, timeout, plan_group)
    _end_session_of(model, settings)
    slots, extensions = _register(model, optimizers, extensions, rewrap, uncovered, settings)
    with contextlib.ExitStack() as undo:
        handle = _open(where, slots, settings)
        undo.callback(handle.close)
        session = Session(_names.unwrap(model), optimizers, slots, handle, settings, extensions)
        undo.callback(session.detach)
        if rules is not None and text is not None:
            _arguments.check_rules(session, text, rules)
        if on_change:
            session.on_change(on_change)
        if natives:
            session._remove_hooks = _hooks.install(session, natives)
        if settings.first and session.connected:
            settings.logger.info("%s", session._state.trainable())
        _names.remember(model, slots, session._flags.live)
        if hook:
            session.begin_window(step, epoch)
        _sessions[session.model] = weakref.ref(session)
        undo.pop_all()
    return session


def _place(
    rank: int | None, world: int | None, group: Any, timeout: float
) -> tuple[_distributed.PlanGroup | None, int, int]:
    """This process to freezerd: a rank of this machine, or, where a group has the rest, the only one."""
    if group is not None or (rank is None and world is None and _adapters.trains_with_others()):
        plan_group = _distributed.plan_group(group, timeout)
        if plan_group is not None:
            return plan_group, 0, 1
    return None, *_arguments.place(rank, world)


def _end_session_of(model: torch.nn.Module, settings: Settings) -> None:
    """As when the cell of a notebook runs again: both would go on for ever to take the rank from each other."""
    known = _sessions.get(_names.unwrap(model))
    session = known() if known else None
    if session is None or not session._finalizer.alive:
        return
    if settings.first:
        settings.logger.info("the model was attached before: that session ends")
    session.detach()


def _register(
    model: torch.nn.Module,
    optimizers: Sequence[Any],
    given: Sequence[Extension],
    rewrap: Callable[[torch.nn.Module], torch.nn.Module] | None,
    uncovered: str,
    settings: Settings,
) -> tuple[list[_names.Slot], list[Extension]]:
    """The parameters, with a code where they cannot be flipped, and all extensions, which have set these."""
    slots = _names.collect(model)
    extensions = _adapters.choose(model, optimizers, slots, given, rewrap)
    for extension in given:
        extension.register(slots)
    if optimizers:
        _check_coverage(slots, optimizers, uncovered, settings)  # not of what the caller pins
    for extension in extensions[len(given) :]:
        extension.register(slots)
    return slots, extensions


def _check_coverage(
    slots: Sequence[_names.Slot], optimizers: Sequence[Any], uncovered: str, settings: Settings
) -> None:
    missing = [slot.name for slot in _names.cover(slots, optimizers)]
    if not missing:
        return
    sentence = f"{len(missing)} of {len(slots)} parameters are in no optimizer: {_names.shorten(missing)}"
    hint = "to control them, build the optimizer within pyfreezer.thawed(model)"
    if uncovered == "raise":
        raise NotCovered(sentence, missing, hint=hint)
    if settings.first:
        settings.logger.warning("%s; Freezer leaves them alone: %s", sentence, hint)


def _open(where: Where, slots: Sequence[_names.Slot], settings: Settings) -> Handle | NoHandle:
    library = _library.load()
    if where.group and not where.group.check(slots, library is not None) and library is not None:
        _log.warn_once(
            "not all ranks have libfreezer, so training goes on without Freezer; FREEZER_LIBRARY names it there"
        )
        return NoHandle(where, slots)
    if library is None:
        if _library.is_required():
            raise FreezerError("FREEZER_REQUIRE is set, and there is no libfreezer", hint="FREEZER_LIBRARY names one")
        return NoHandle(where, slots)

    def log(level: int, message: str) -> None:
        if settings.first or level > logging.INFO:
            settings.logger.log(level, "%s", message)

    return Handle(library, where, slots, log)
