"""Torch's compiler, not imported before something compiles: it takes as long to import as torch itself."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import torch.compiler

_COMPILER = "torch._dynamo"
_WANTED = f"{_COMPILER}.utils"
"""The module of which torchvision wants one function as it is imported, for an operation that no encoder has."""


@contextmanager
def deferred_compiler() -> Iterator[None]:
    """Let packages be imported without the compiler, which torchvision and timm import for what nobody calls here.

    Functions that they exempt from compiling, and what torchvision asks of it, import it when they are called. Where it
    is imported already, nothing is changed.

    >>> with deferred_compiler():
    ...     import torchvision
    """
    if _COMPILER in sys.modules:
        yield
        return
    exempt = torch.compiler.disable
    sys.modules[_WANTED] = _Deferred(_WANTED)
    torch.compiler.disable = functools.partial(_exempted, exempt)
    try:
        yield
    finally:
        torch.compiler.disable = exempt
        if isinstance(sys.modules.get(_WANTED), _Deferred):
            del sys.modules[_WANTED]


class _Deferred(ModuleType):
    """Stands for the module, which is imported when an attribute of it other than that function is asked for."""

    def is_compile_supported(self, *args: Any, **options: Any) -> Any:
        """Ask the module itself."""
        return self._itself().is_compile_supported(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system, of any module
            raise AttributeError(name)
        return getattr(self._itself(), name)

    def _itself(self) -> ModuleType:
        if sys.modules.get(_WANTED) is self:
            del sys.modules[_WANTED]
        return import_module(_WANTED)


def _exempted(exempt: Callable[..., Any], fn: Any = None, *args: Any, **options: Any) -> Any:
    """Return a function that is exempted from compiling when it is called first."""
    if fn is None:
        return lambda given: _exempted(exempt, given, *args, **options)
    if not isinstance(fn, FunctionType):  # a class, say, which stays one
        return exempt(fn, *args, **options)

    made: list[Callable[..., Any]] = []  # and no cached function: the compiler warns of each that it meets

    @functools.wraps(fn)
    def run(*given: Any, **named: Any) -> Any:
        if not made:
            made.append(exempt(fn, *args, **options))
        return made[0](*given, **named)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]  # for a caller that is compiled first
    return run
