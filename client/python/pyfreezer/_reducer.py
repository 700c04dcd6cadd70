"""Building the reducer of a DDP wrapper anew, in place. All that is known here of torch's private parts for it."""

from __future__ import annotations

import gc
import inspect
import weakref
from typing import Any

_NEEDED = ("reducer", "logger", "_build_params_for_reducer", "_build_debug_param_to_name_mapping", "_ddp_init_helper")
_ARGUMENTS = ["parameters", "expect_sparse_gradient", "param_to_name_mapping"]


def count(wrapper: Any) -> int | None:
    """How many parameters the reducer knows; None: it does not say."""
    try:
        return wrapper._get_ddp_logging_data()["num_parameter_tensors"]
    except (AttributeError, KeyError, RuntimeError):
        return None


def obstacle(wrapper: Any) -> str | None:
    """Why its reducer cannot be built anew; None: it can."""
    absent = [name for name in _NEEDED if not hasattr(wrapper, name)]
    if absent:
        return f"this torch's wrapper has no {absent[0]} with which to correct it"
    arguments = list(inspect.signature(wrapper._ddp_init_helper).parameters)
    if arguments not in (_ARGUMENTS, [*_ARGUMENTS, "static_graph"]):
        return f"this torch builds its reducer in another way ({', '.join(arguments)})"
    if getattr(wrapper, "_use_python_reducer", False):
        return "its reducer is the compiler's"
    if getattr(wrapper, "mixed_precision", None) is not None:
        return "it casts parameters by itself (mixed_precision)"
    if getattr(wrapper, "_delay_all_reduce_params", None):
        return "it reduces some of them late (delay_all_reduce_named_params)"
    if any(hasattr(p, "_in_backward_optimizers") for p in wrapper.module.parameters()):
        return "its optimizer steps within backward()"
    return None


def unhook(wrapper: Any) -> None:
    """Takes the reducer's hooks off the parameters, so that another one can have them."""
    remove = getattr(wrapper.reducer, "_remove_autograd_hooks", None)
    if remove is not None:
        remove()


def rebuild(wrapper: Any) -> None:
    """
    The wrapper gets a reducer for what requires a gradient now, with the hooks that it had. Exchanges nothing with
    other ranks, which must do the same before the next forward pass.
    """
    hooks, builtin = list(getattr(wrapper, "_comm_hooks", ())), _builtin_hook(wrapper)
    _drop(wrapper)
    parameters, sparse = wrapper._build_params_for_reducer()
    names = wrapper._build_debug_param_to_name_mapping(parameters)
    static_graph = [False] if "static_graph" in inspect.signature(wrapper._ddp_init_helper).parameters else []
    wrapper._ddp_init_helper(parameters, sparse, names, *static_graph)
    wrapper._has_rebuilt_buckets = False
    if hooks:
        wrapper._comm_hooks.clear()
    for hook, state in hooks:
        _forget_buckets(state)
        wrapper.register_comm_hook(state, hook)
    if builtin is not None:
        wrapper._register_builtin_comm_hook(builtin)


def _drop(wrapper: Any) -> None:
    """Ends the old reducer: alive, it would take the gradients, too."""
    unhook(wrapper)
    old = weakref.ref(wrapper.reducer)
    wrapper.reducer = wrapper.logger = None
    if old() is not None:
        gc.collect()


def _builtin_hook(wrapper: Any) -> Any:
    """The hook of torch's own that the reducer has: only its name is kept."""
    import torch.distributed as dist

    name = wrapper._get_ddp_logging_data().get("comm_hook", "")
    kind, _, member = name.partition(".")
    return dist.BuiltinCommHookType.__members__.get(member) if kind == "BuiltinCommHookType" else None


def _forget_buckets(state: Any) -> None:
    """PowerSGD keeps an error and two matrices for each bucket; the buckets are others now, and change once more."""
    for name in ("error_dict", "p_memory_dict", "q_memory_dict"):
        if isinstance(getattr(state, name, None), dict):
            getattr(state, name).clear()
    start = getattr(state, "start_powerSGD_iter", None)
    if start is not None:
        state.iter = min(state.iter, max(start - 2, 0))
