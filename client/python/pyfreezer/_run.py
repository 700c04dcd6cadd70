"""
python -m pyfreezer run: a script that knows nothing of Freezer is run as `python script.py` runs it, and its model is
attached when an optimizer of it steps for the first time.

The hook is set when the script imports torch, which nothing here does: a script may set what torch reads at its import.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any, Callable

from . import _gradients, _library, _log, _names, _owners, _rules, _script
from ._attach import attach
from ._errors import FreezerError, NotConnected, RulesError
from ._session import Session

HELP = """
Runs a training script that knows nothing of Freezer. Its model is attached to freezerd when an optimizer steps for the
first time, before that step; from then on freezerctl freezes and unfreezes its parameters between two steps.

Everything else is as with `python SCRIPT`: arguments, __main__, exit status and tracebacks. Under torchrun:
  torchrun --nproc-per-node=2 -m pyfreezer run SCRIPT ARGUMENT...

What Freezer cannot know of such a script: parameters that are frozen when the script builds its optimizer and are not
in it stay frozen. Processes that the script itself starts anew (multiprocessing's spawn) are not attached.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    try:
        rules = _rules.load(options.rules) if options.rules else None
    except RulesError:
        sys.exit(2)  # freezerctl has shown the mistakes
    except FreezerError as error:
        sys.exit(f"pyfreezer: {error}")
    keywords = {"run": options.name, "socket": options.socket, "norm": options.norm}
    first_step = _FirstStep({**keywords, "optimizer_state": options.optimizer_state}, rules)
    _after_import("torch.optim.optimizer", lambda module: first_step.wait(module))
    sys.argv[:] = [options.script, *options.arguments]
    if options.module:
        _script.run_module(options.script)
    else:
        _script.run_file(options.script)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pyfreezer", description="PyTorch's side of Freezer.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run a training script that knows nothing of Freezer",
        usage="python -m pyfreezer run [OPTION]... SCRIPT [ARGUMENT]...\n"
        "       python -m pyfreezer run [OPTION]... -m MODULE [ARGUMENT]...",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("--rules", metavar="FILE", help="rules, YAML or JSON, in force from the first step on")
    run.add_argument("--name", metavar="NAME", help="name of the run; without it $FREEZER_RUN or the script's")
    run.add_argument(
        "--socket", metavar="PATH", help="freezerd's socket; without it $FREEZER_SOCKET or the usual places"
    )
    run.add_argument(
        "--norm", choices=("leave", "eval"), default="leave", help="eval: frozen norm layers gather nothing"
    )
    run.add_argument("--optimizer-state", choices=("keep", "reset"), default="keep", help="moments of what is unfrozen")
    run.add_argument("-m", dest="module", action="store_true", help="SCRIPT is a module, as for `python -m`")
    run.add_argument("script", metavar="SCRIPT", help="its name; then its arguments, none of which is read here")
    run.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


# --- when torch comes, and when an optimizer steps ---


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function when a module was imported, once."""

    def __init__(self, name: str, function: Callable[[types.ModuleType], None]) -> None:
        self._name = name
        self._function = function

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_tell(module: types.ModuleType) -> None:
            execute(module)
            self._function(module)

        loader.exec_module = execute_and_tell
        return spec


def _after_import(name: str, function: Callable[[types.ModuleType], None]) -> None:
    module = sys.modules.get(name)
    if module is not None:
        function(module)
    else:
        sys.meta_path.insert(0, _AfterImport(name, function))


class _FirstStep:
    """Attaches the model of the first optimizer that steps and has gradients to apply."""

    def __init__(self, keywords: dict[str, Any], rules: dict | None) -> None:
        self._keywords = keywords
        self._rules = rules
        self._hook: Any = None
        self._done = False
        self.session: Session | None = None

    def wait(self, module: types.ModuleType) -> None:
        register = getattr(module, "register_optimizer_step_pre_hook", None)
        if register is None:
            _log.configure("auto").error("this torch is older than 2.0: Freezer cannot tell when an optimizer steps")
            return
        self._hook = register(self._before_step)

    def _before_step(self, optimizer: Any, args: Any, keywords: Any) -> None:
        if self._done:
            return
        closure = args[1:] or keywords
        if not closure and not _gradients.has_gradients(optimizer):
            return
        self._done = True
        try:
            self._attach(optimizer)
            if self.session is not None:
                self.session._soon(self._hook.remove)  # not while torch goes through its hooks
        except (RulesError, NotConnected):
            raise
        except FreezerError as error:
            if _library.is_required():
                raise
            _log.configure("auto").error("%s: training goes on without Freezer", error)

    def _attach(self, optimizer: Any) -> None:
        names = vars(sys.modules["__main__"])
        model = _owners.model_of(_names.parameters_of(optimizer), names)
        if model is None:
            raise FreezerError(f"no module has the parameters of this {type(optimizer).__name__}")
        if any(_names.is_remembered(module) for module in model.modules()):
            return  # the script does attach by itself
        self.session = attach(
            model,
            _owners.optimizers_of(model, optimizer),
            step=_steps_of(optimizer),
            rules=self._rules,
            **self._keywords,
        )


def _steps_of(optimizer: Any) -> int:
    """How many steps were taken before, as an optimizer that was restored from a checkpoint knows."""
    counts = [state.get("step", 0) for state in optimizer.state.values() if isinstance(state, dict)]
    return int(max(counts, default=0))
