"""Models that are built without values in their parameters: what a checkpoint holds takes their place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

_RANDOM = {torch.Tensor.normal_, torch.Tensor.uniform_}


def unfilled(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Return a model whose parameters are on torch's meta device, where they have a shape and take no memory.

    Random numbers for hundreds of millions of parameters take longer than reading the weights that replace them.
    Buffers, such as attention masks, are as they were computed: not all of them are in a checkpoint.

    Parameters
    ----------
    build : callable
        Makes the model; it may move it to the meta device itself. Its errors are raised.

    Examples
    --------
    >>> def build():
    ...     return torch.nn.BatchNorm1d(3).to("meta")
    >>> model = unfilled(build)
    >>> model.weight.device.type, model.running_var.tolist()
    ('meta', [1.0, 1.0, 1.0])
    """
    thread = threading.get_ident()  # torch calls the hooks for the modules of every thread
    computed: list[tuple[torch.nn.Module, str, torch.Tensor]] = []

    def to_meta(_: torch.nn.Module, __: str, parameter: torch.nn.Parameter) -> torch.nn.Parameter | None:
        if threading.get_ident() != thread or type(parameter) is not torch.nn.Parameter or parameter.is_meta:
            return None
        return torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    def keep(module: torch.nn.Module, name: str, buffer: torch.Tensor | None) -> None:
        if threading.get_ident() == thread and buffer is not None and not buffer.is_meta:
            computed.append((module, name, buffer))

    hooks = [
        register_module_parameter_registration_hook(to_meta),  # type: ignore[arg-type]  # which may give another one
        register_module_buffer_registration_hook(keep),
    ]
    try:
        with _Unfilled():
            model = build()
    finally:
        for hook in hooks:
            hook.remove()
    for module, name, buffer in computed:  # where one was registered twice, the last is left
        if (now := module._buffers.get(name)) is not None and now.shape == buffer.shape:
            module._buffers[name] = buffer
    return model


class _Unfilled(TorchFunctionMode):
    """Leaves what has no values as it is, where torch would import its compiler to fill it with random ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in _RANDOM or getattr(func, "__module__", "") == torch.nn.init.__name__:
            tensor = args[0] if args else given.get("tensor")
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **given)
