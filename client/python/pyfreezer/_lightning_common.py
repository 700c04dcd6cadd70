"""What both callbacks for Lightning need: Lightning itself, the model, and where the ranks of a run attach."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import platform
import secrets
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Callable

from . import _library, _log, _names
from ._arguments import Rules, rules_text
from ._attach import attach
from ._errors import FreezerError
from ._handle import Handle, Where
from ._private import PrivateDaemon, serving

if TYPE_CHECKING:
    from ._session import Session

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


@dataclasses.dataclass
class Place:
    """Where the ranks attach, and as what. All but `daemon` is the same for all of them."""

    socket: str | None
    """None: nowhere yet; libfreezer looks for a freezerd from time to time."""
    run: str | None
    job: str
    """Run and job are agreed on, whoever launched the ranks: each would find another name by itself."""
    rules: dict[str, Any] | None
    """As global rank 0 has read them."""
    daemon: PrivateDaemon | None = None
    """Of global rank 0, where a freezerd of its own was started."""

    def attach(self, trainer: Any, model: Any, optimizers: Any = None, **options: Any) -> Session:
        """attach(). An error of global rank 0 is raised on all ranks, for none must wait for one that has given up."""
        session = error = None
        try:
            session = attach(
                _attachable(trainer, model),
                optimizers,
                run=self.run,
                socket=self.socket,
                hook=False,
                job=self.job,
                framework="lightning",
                **_ranks(trainer),
                **options,
            )
            if self.daemon is not None:
                self.daemon.before_end.append(session._finalizer)
        except FreezerError as problem:
            error = problem
        error = trainer.strategy.broadcast(error) or error
        if session is None or error is not None:
            if session is not None:
                session.detach()
            raise error or FreezerError("this rank did not attach")
        return session


def _attachable(trainer: Any, model: Any) -> Any:
    """The model as attach() should see it: in its wrapper, if it is what was wrapped."""
    wrapped = trainer.strategy.model
    return wrapped if wrapped is not None and _names.unwrap(wrapped) is model else model


def _ranks(trainer: Any) -> dict[str, Any]:
    """On several machines global rank 0 attaches, and the others follow it; on one all attach."""
    if trainer.num_nodes == 1:
        return {"rank": trainer.local_rank, "world": max(trainer.num_devices, 1)}
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        raise FreezerError("on several machines Freezer needs a strategy with torch.distributed, such as ddp")
    return {"group": dist.group.WORLD}


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


def meet(
    trainer: Any,
    run: str | None,
    socket: str | None,
    log: str | logging.Logger,
    rules: Rules | None = None,
    needed: bool = False,
) -> Place:
    """
    Agrees with the other ranks on where to attach, and starts a private freezerd where none is and rules, or whatever
    else, need one. Collective: from setup() on every rank. Raises on all ranks what is raised on one.
    """

    def choose() -> Place:
        name = _run_name() if run is None and trainer.world_size > 1 else run
        text = rules_text(rules)
        return Place(serving(socket), name, secrets.token_hex(8), json.loads(text) if text else None)

    place = _from_first(trainer, choose)
    if place.socket is None and (needed or rules is not None):
        place.socket = os.path.join(_short_folder(), f"freezer-lightning-{place.job}", "freezerd.sock")
        daemons: list[PrivateDaemon] = []
        _from_first(trainer, lambda: _start(trainer, place.socket, daemons, _log.configure(log)))
        place.daemon = daemons[0] if daemons else None
    place.socket = place.socket or socket
    return place


def _from_first(trainer: Any, function: Callable[[], Any]) -> Any:
    """What a function returns on global rank 0, or raises there."""
    value = error = None
    if trainer.is_global_zero:
        try:
            value = function()
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is raised below
            error = problem
    value, error = trainer.strategy.broadcast((value, error))
    if error is not None:
        raise error
    return value


def _short_folder() -> str:
    """A socket's path holds 107 bytes."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) < 60 else "/tmp"


def _start(trainer: Any, socket: str, daemons: list[PrivateDaemon], logger: logging.Logger) -> None:
    try:
        daemons.append(PrivateDaemon(socket))
    except (FreezerError, OSError) as error:
        raise FreezerError(f"a private freezerd could not be started: {error}") from error
    where = f" on {platform.node()}" if trainer.num_nodes > 1 else ""
    logger.info("no freezerd is running: a private one was started%s; freezerctl --socket %s reaches it", where, socket)
