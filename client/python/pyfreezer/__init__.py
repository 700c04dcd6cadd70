"""
pyfreezer: freeze and unfreeze parameters of a PyTorch training run while it runs.

    session = pyfreezer.attach(model, optimizer)     # a plain loop needs nothing more
    ...
    freezerctl freeze 'layers.{0..3}'                # in another terminal

Parts, and who owns what
------------------------
    _attach      attach(): makes all that follows; _arguments: what it was given
    _session     Session: the order in which things happen at the start of a window, and what people call
    _flags       the only place that writes requires_grad and drops gradients; conflicts with others who write it
    _names       from a model to Slots: stable names, aliases of tied ones, refusal codes, baseline, optimizer coverage
    _hooks       the hook on the optimizer, and which of several ends a window
    _thaw        thawed(), and its two halves for adapters
    _norms       norm="eval"
    _state       sentences, summary, checkpoints
    _extension   Extension: how an adapter takes part; _adapters: which of those here a model needs
    _ddp         DDP's reducers follow the flags; _reducer: how one is built anew
    _distributed several machines: one rank attaches, and the others get from it what they need
    _gradients   whether gradients still reach what trains
    _fsdp, _compile, _cudagraphs, _zero: what FSDP, torch.compile, CUDA graphs and DeepSpeed need, or cannot do
    _handle      a freezer_t of libfreezer, or what stands for it where there is none
    _library     finding and typing libfreezer
    _client      Client: the control protocol, as freezerctl speaks it; _places: where the socket is
    transformers FreezerCallback for the Trainer of Hugging Face
    _run         python -m pyfreezer run; _script: as python runs a script; _owners: which model an optimizer trains
    _rules       rules files, read by freezerctl
    _log, _errors, _settings

What selects, plans and schedules is freezerd and libfreezer: no rule is evaluated here.

Writing an adapter
------------------
A framework's callback owns a Session and calls it from its own hooks:
    1. before the optimizer and the wrapper are built:   thaw = Thawed(model)
    2. after both were built:                            thaw.restore(); session = attach(model, optimizer, hook=False)
    3. before the forward of a window's first batch:     session.begin_window(optimizer_steps, epochs)
    4. a checkpoint was restored, a second fit begins:   session.load_state_dict(state), or session.rewind(step, epoch)
    5. the end:                                          session.detach()
What must be refused, done before or done after a flip (a reducer rebuilt, a compiler cache reset) is an Extension,
given to attach(extensions=[...]). Parameters are reached by Slot.bind(), never by a reference kept elsewhere.
"""

from __future__ import annotations

from ._attach import attach
from ._client import Client
from ._cudagraphs import CudaGraphs
from ._errors import FreezerError, LayoutError, NoMatch, NotConnected, NotCovered, Refused, RulesError
from ._extension import Extension
from ._flags import Change
from ._session import Session
from ._thaw import Thawed, thawed

__version__ = "0.1.0"

__all__ = [
    "Change",
    "Client",
    "CudaGraphs",
    "Extension",
    "FreezerError",
    "LayoutError",
    "NoMatch",
    "NotConnected",
    "NotCovered",
    "Refused",
    "RulesError",
    "Session",
    "Thawed",
    "attach",
    "thawed",
]
