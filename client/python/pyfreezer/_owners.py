"""From parameters to the model that owns them, and from a model to its wrapper, where nobody gives us either."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import _names

if TYPE_CHECKING:
    import torch


def living(cls: type) -> Iterator[Any]:
    """Every instance of a class. By type(), since a proxy may do anything when it is asked for its class."""
    return (found for found in gc.get_objects() if issubclass(type(found), cls))


def holder_of(item: Any, cls: type, attribute: str) -> Any:
    """The instance of a class that has `item` in the list `attribute`, None if there is none."""
    return next((each for each in living(cls) if any(one is item for one in getattr(each, attribute, ()))), None)


def outermost(model: torch.nn.Module) -> torch.nn.Module:
    """The DDP, compiled or other wrapper of a model that lives somewhere, else the model itself."""
    import torch

    bare = _names.unwrap(model)
    around = [m for m in living(torch.nn.Module) if _names.wrapped_in(m) and _names.unwrap(m) is bare]
    return max(around, key=lambda wrapper: len(list(_names.wrappers(wrapper))), default=model)


def model_of(parameters: Iterable[torch.Tensor], names: dict[str, Any]) -> torch.nn.Module | None:
    """
    The module that has these parameters and is within no other. Where it takes several, such as an encoder and a
    decoder with one optimizer, a module that holds them, under the names that they have among `names`.
    """
    import torch

    missing = {id(parameter) for parameter in parameters}
    found: list[torch.nn.Module] = []
    roots = [(root, {id(p) for p in root.parameters()}) for root in _roots(list(living(torch.nn.Module)))]
    while missing and roots:
        root, owned = max(roots, key=lambda each: (len(each[1] & missing), _names.wrapped_in(each[0]) is not None))
        if not owned & missing:
            break
        found.append(root)
        missing -= owned
    if len(found) < 2:
        return found[0] if found else None
    together = torch.nn.Module()
    for root in found:
        together.add_module(_unused(_called(root, names), together), root)
    return together


def _roots(modules: list[torch.nn.Module]) -> list[torch.nn.Module]:
    inside = {id(child) for module in modules for child in module._modules.values()}
    return [module for module in modules if id(module) not in inside]


def _called(module: torch.nn.Module, names: dict[str, Any]) -> str:
    for name, value in names.items():
        if isinstance(name, str) and (value is module or value is _names.unwrap(module)):
            return name
    return type(_names.unwrap(module)).__name__.lower()


def _unused(name: str, module: torch.nn.Module) -> str:
    number = 1
    unused = name
    while hasattr(module, unused):
        number += 1
        unused = f"{name}{number}"
    return unused


def optimizers_of(model: torch.nn.Module, first: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """`first`, and the others that train this model. What wraps one of them, and shares its groups, is none."""
    import torch

    owned = {id(parameter) for parameter in model.parameters()}
    found = [first]
    for optimizer in living(torch.optim.Optimizer):
        groups = vars(optimizer).get("param_groups")
        if groups is None or any(groups is other.param_groups for other in found):
            continue
        if any(id(parameter) in owned for group in groups for parameter in group["params"]):
            found.append(optimizer)
    return found
