"""OpenVINO and NNCF, imported where they are needed: without their logs, and without what they report of their use."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from safetyfilter.errors import MissingExtraError

EXTRA = "openvino"
"""The extra that installs both."""
_REPORTS = "openvino_telemetry"
"""A package by which both tell their makers over the network that they are imported and used, unless it is missing."""

_LOCK = threading.RLock()
_LOGGERS = ("nncf", "torch.utils.cpp_extension")


def is_installed() -> bool:
    """Return True where OpenVINO is installed; nothing is imported.

    >>> is_installed() in (True, False)
    True
    """
    return find_spec("openvino") is not None


def openvino_module() -> Any:
    """Return the module ``openvino``; `MissingExtraError` where it is not installed.

    Imported here for the first time, it reports its use to nobody.
    """
    with _imported_in_silence():
        try:
            import_module("openvino.tools.ovc.convert_impl")
            return import_module("openvino")
        except ImportError as error:
            raise MissingExtraError("openvino", EXTRA) from error


def nncf_module() -> Any:
    """Return the module ``nncf``; `MissingExtraError` where it is not installed."""
    openvino_module()
    with _imported_in_silence():
        try:
            return import_module("nncf")
        except ImportError as error:
            raise MissingExtraError("nncf", EXTRA) from error


@contextmanager
def in_silence() -> Iterator[None]:
    """Have OpenVINO and NNCF print, log and report nothing meanwhile, whoever imported them, or imports them now.

    What is changed for it is the whole process's: one thread at a time has it, and leaves it as it was.
    """
    with _LOCK, _unheard():
        yield


@contextmanager
def _unheard() -> Iterator[None]:
    openvino_module()
    stub = import_module("openvino.tools.ovc.telemetry_stub")
    converting = [module for name, module in sys.modules.items() if name.startswith("openvino.tools.ovc.")]
    patched: list[tuple[Any, str, Any]] = [(module, "tm", stub) for module in converting if hasattr(module, "tm")]
    if "nncf" in sys.modules:
        progress = import_module("nncf.common.logging.track_progress")
        decorator, wrapper = import_module("nncf.telemetry.decorator"), import_module("nncf.telemetry.wrapper")
        patched += [
            (decorator, "telemetry", wrapper.NNCFTelemetryStub()),
            *((progress, name, _hidden(getattr(progress, name))) for name in ("Progress", "WeightedProgress")),
        ]
    before = [getattr(module, name) for module, name, _ in patched]
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels, handlers = [logger.level for logger in loggers], list(logging.root.handlers)
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        for module, name, value in patched:
            setattr(module, name, value)
        with _imported_in_silence():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        logging.root.handlers[:] = handlers  # a word to the root logger gives it one, where it has none
        for (module, name, _), value in zip(patched, before, strict=True):
            setattr(module, name, value)


def _hidden(progress: type[Any]) -> type[Any]:
    """Return a kind of progress bar that is never shown."""

    def initialised(self: Any, *columns: Any, **options: Any) -> None:
        progress.__init__(self, *columns, **options | {"disable": True})

    return type(progress.__name__, (progress,), {"__init__": initialised})


@contextmanager
def _imported_in_silence() -> Iterator[None]:
    """Let nothing be imported that reports; and leave the class of all later loggers as it is, which NNCF sets."""
    with _LOCK:
        kind, absent = logging.getLoggerClass(), _REPORTS not in sys.modules
        if absent:
            sys.modules[_REPORTS] = None  # type: ignore[assignment]  # by which Python takes it for missing
        try:
            yield
        finally:
            if absent:
                del sys.modules[_REPORTS]
            logging.setLoggerClass(kind)
