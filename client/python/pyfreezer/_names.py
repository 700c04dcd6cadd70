"""
The parameters of a model as Freezer knows them: stable names, element counts, baseline flags, and what may not be
flipped.

Names are those of the bare model's named_parameters(), whatever it is wrapped in. Wrappers are known by their type, not
by their text, since a model may have an attribute `module` of its own; nothing here imports torch to look.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._errors import LayoutError

if TYPE_CHECKING:
    import torch

NOT_FLOATING_POINT = "NOT_FLOATING_POINT"
NOT_LEAF = "NOT_LEAF"
INFERENCE = "INFERENCE"
NO_OPTIMIZER = "NO_OPTIMIZER"

# The attribute that holds what a wrapper wraps, by the wrapper's type.
_WRAPPERS = {
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": "_checkpoint_wrapped_module",
    "deepspeed.runtime.engine.DeepSpeedEngine": "module",
}

# Attributes that only wrappers have, whatever their type.
_INFIXES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclasses.dataclass(eq=False)
class Slot:
    """One parameter: what is registered of it, and where it is."""

    name: str
    owner: torch.nn.Module
    """The module that holds it, under `attribute`."""
    attribute: str
    tensor: torch.nn.Parameter
    elements: int
    baseline: bool
    aliases: tuple[str, ...] = ()
    """Further names of a tied parameter."""
    may_freeze: str | None = None
    """A code, if it must never be frozen: NOT_FLOATING_POINT, NO_OPTIMIZER or an adapter's."""
    may_train: str | None = None

    @property
    def controllable(self) -> bool:
        return self.may_freeze is None and self.may_train is None

    def bind(self) -> torch.nn.Parameter:
        """The parameter as it is now: fully_shard(), to_empty() and others put a new one under the same name."""
        now = self.owner._parameters.get(self.attribute)
        if now is not None and now is not self.tensor:
            self.tensor = now
        return self.tensor


def wrapped_in(module: torch.nn.Module) -> str | None:
    """The attribute that holds what this module wraps, None if it is no wrapper."""
    for cls in type(module).__mro__:
        attribute = _WRAPPERS.get(f"{cls.__module__}.{cls.__qualname__}")
        if attribute:
            return attribute
    return next((name for name in _INFIXES if name in module._modules), None)


def unwrap(module: torch.nn.Module) -> torch.nn.Module:
    """The bare model."""
    while (attribute := wrapped_in(module)) is not None:
        module = getattr(module, attribute)
    return module


def wrappers(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """What is around the bare model, outermost first."""
    while (attribute := wrapped_in(module)) is not None:
        yield module
        module = getattr(module, attribute)


def _walk(module: torch.nn.Module, prefix: str, path: tuple[int, ...]) -> Iterator[tuple[str, torch.nn.Module, str]]:
    """(name, owner, attribute) in the order of named_parameters(), but each tied one under all of its names."""
    holders = [*wrappers(module), module := unwrap(module)]
    for holder in holders:
        for attribute, parameter in holder._parameters.items():
            if parameter is not None:
                yield prefix + attribute, holder, attribute
    for name, child in module._modules.items():
        if child is not None and id(child) not in path:
            yield from _walk(child, f"{prefix}{name}.", (*path, id(child)))


def _refusal(parameter: torch.nn.Parameter) -> str | None:
    """The code of what can neither be frozen nor thawed, whoever asks."""
    if not (parameter.is_floating_point() or parameter.is_complex()):
        return NOT_FLOATING_POINT
    if parameter.is_inference():
        return INFERENCE
    return None if parameter.is_leaf else NOT_LEAF


def _elements(name: str, parameter: torch.nn.Parameter) -> int:
    try:
        return parameter.numel()
    except (ValueError, RuntimeError) as error:
        raise LayoutError(f"parameter '{name}' has no size yet: run the lazy module once before") from error


def collect(model: torch.nn.Module) -> list[Slot]:
    """All parameters, in order. Raises LayoutError."""
    slots: dict[int, Slot] = {}
    by_name: dict[str, Slot] = {}
    for name, owner, attribute in _walk(model, "", ()):
        parameter: Any = owner._parameters[attribute]
        slot = slots.get(id(parameter))
        if slot is None:
            elements = _elements(name, parameter)
            code = _refusal(parameter)
            slot = slots[id(parameter)] = Slot(
                name, owner, attribute, parameter, elements, parameter.requires_grad,
                may_freeze=code, may_train=code,
            )  # fmt: skip
        elif name not in (slot.name, *slot.aliases):
            slot.aliases += (name,)
        if by_name.setdefault(name, slot) is not slot:
            raise LayoutError(f"two parameters would be called '{name}' without their wrappers")
    memory = _memories.get(unwrap(model))
    if memory is not None:
        for slot in slots.values():
            memory.recall(slot)
    return list(slots.values())


# --- the baseline: within a process that of the first attach, for what nobody changed since ---


class _Memory:
    """Of one model: its baseline, and the flags that Freezer left there last, which `live` goes on to tell."""

    def __init__(self, slots: Sequence[Slot], live: bytearray) -> None:
        self._index = {slot.name: i for i, slot in enumerate(slots)}
        self._baseline = [slot.baseline for slot in slots]
        self._live = live

    def recall(self, slot: Slot) -> None:
        """A flag that is another than Freezer's was changed by the script, and begins anew."""
        index = self._index.get(slot.name)
        if index is not None and self._live[index] == slot.tensor.requires_grad:
            slot.baseline = self._baseline[index]


_memories: weakref.WeakKeyDictionary[torch.nn.Module, _Memory] = weakref.WeakKeyDictionary()


def remember(model: torch.nn.Module, slots: Sequence[Slot], live: bytearray) -> None:
    """Notes the baseline of a model; `live`, one flag per slot, is kept up to date by the caller."""
    _memories[unwrap(model)] = _Memory(slots, live)


def is_remembered(model: torch.nn.Module) -> bool:
    """Whether this model was attached before."""
    return unwrap(model) in _memories


def forget(model: torch.nn.Module) -> None:
    """The baseline is what the flags are now."""
    _memories.pop(unwrap(model), None)


# --- the optimizer ---


def parameters_of(optimizer: Any) -> list[torch.nn.Parameter]:
    """All that an optimizer steps, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def cover(slots: Iterable[Slot], optimizers: Iterable[Any]) -> list[Slot]:
    """Pins what is in none of these optimizers, which could not train; returns it."""
    covered = {id(parameter) for optimizer in optimizers for parameter in parameters_of(optimizer)}
    missing = [slot for slot in slots if slot.controllable and id(slot.tensor) not in covered]
    for slot in missing:
        slot.may_freeze = slot.may_train = NO_OPTIMIZER
    return missing


def shorten(names: list[str], most: int = 5) -> str:
    """Some names for a sentence."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
