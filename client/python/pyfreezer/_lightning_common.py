"""What both callbacks for Lightning need: Lightning itself, the model, and where the ranks of a run attach."""

from __future__ import annotations

import dataclasses
import importlib
import os
import secrets
import sys
import tempfile
from typing import Any

from . import _library, _names
from ._errors import FreezerError, RulesError
from ._handle import Handle, Where
from ._log import logger
from ._private import PrivateDaemon, serving

RULES_SECONDS = 60.0
"""The first batch waits so long for the plan of rules that were given, which needs all ranks of the machine."""


def _lightning() -> Any:
    """The Lightning that the script has imported, else one that is installed."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.split(".")[0]):
                raise
    raise ModuleNotFoundError("pyfreezer.lightning needs lightning or pytorch_lightning: pip install lightning")


Callback = _lightning().Callback


def inner(module: Any) -> Any:
    """The model in a System of project-lighter, which is what its users name parameters of; else the module itself."""
    for cls in type(module).__mro__:
        if cls.__name__ == "System" and cls.__module__.split(".")[0] == "lighter":
            return module.model
    return module


def attachable(trainer: Any, model: Any) -> Any:
    """The model as attach() should see it: in its wrapper, if it is what was wrapped."""
    wrapped = trainer.strategy.model
    return wrapped if wrapped is not None and _names.unwrap(wrapped) is model else model


@dataclasses.dataclass
class Place:
    """Where this rank attaches, and as what."""

    socket: str | None
    """None: nowhere yet; libfreezer looks for a freezerd from time to time."""
    rank: int
    world: int
    run: str | None
    job: str
    """Run and job are the same for all ranks, whoever launched them: each would find another name by itself."""
    daemon: PrivateDaemon | None = None
    """Of the first rank of a machine, where a freezerd of its own was started."""


def _run_name() -> str | None:
    """What libfreezer would call a run that was given no name."""
    library = _library.load()
    if library is None:
        return None
    try:
        handle = Handle(library, Where(socket=os.path.join(os.devnull, "none"), timeout=0), (), lambda *_: None)
    except FreezerError:  # FREEZER_REQUIRE
        return None
    name = handle.info().run
    handle.close()
    return name.decode() if name else None


def meet(trainer: Any, run: str | None, socket: str | None, needed: bool) -> Place:
    """
    Agrees with the other ranks on where to attach. With `needed`, a private freezerd is started where there is none.
    Collective: from setup() on every rank. Raises FreezerError on every rank.
    """
    strategy = trainer.strategy
    if trainer.num_nodes > 1 and not needed:
        raise FreezerError("FreezerCallback without rules= works on one machine only")
    found = serving(socket) if trainer.is_global_zero and trainer.num_nodes == 1 else None
    world = max(trainer.num_devices, 1)
    if run is None and world > 1 and trainer.is_global_zero:
        run = _run_name()
    run, job, found = strategy.broadcast((run, secrets.token_hex(8), found))
    place = Place(found or socket, trainer.local_rank, world, run, job)
    if found is None and needed:
        place.socket = os.path.join(_short_folder(), f"freezer-lightning-{job}", "freezerd.sock")
        _start(trainer, place)
    return place


def _short_folder() -> str:
    """A socket's path holds 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) < 60 else "/tmp"


def _start(trainer: Any, place: Place) -> None:
    assert place.socket is not None
    error = None
    if place.rank == 0:
        try:
            place.daemon = PrivateDaemon(place.socket)
        except (FreezerError, OSError) as problem:
            error = problem
    if trainer.strategy.reduce_boolean_decision(error is None, all=True):
        if trainer.is_global_zero:
            logger.info("no freezerd is running: a private one serves at %s", place.socket)
        return
    if error is None:
        raise FreezerError("a private freezerd could not be started on another rank")
    raise FreezerError(f"a private freezerd could not be started: {error}") from error


def check_rules(session: Any) -> None:
    """Raises RulesError if freezerd did not take the rules that this session brought; its log has said why."""
    with session.client as client:
        status = client.status()
    if status.get("rules") is None:
        warnings = [w if isinstance(w, str) else str(w.get("text", w)) for w in status.get("warnings") or ()]
        raise RulesError("; ".join(warnings) or "freezerd did not take the rules")
