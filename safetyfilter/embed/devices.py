"""Devices and precisions: what this machine offers, and what ``auto`` stands for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from safetyfilter.errors import DeviceError, UsageError

Compile: TypeAlias = bool | Literal["auto"]

FLOAT8 = torch.float8_e4m3fn
PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
    "fp8": FLOAT8,
}
_FLOAT8_SINCE = (9, 0)
"""The compute capability of Hopper."""


def resolve_device(device: str) -> torch.device:
    """Return the torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"no CUDA device for {device!r}: torch sees {torch.cuda.device_count()}; use device='cpu', "
            "or install a torch built for this driver"
        )
    return resolved


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the image tower's weights for ``auto``, ``fp32``, ``bf16``, ``fp16``, ``int8`` or ``fp8``.

    Raises
    ------
    UsageError
        There is no such precision.
    DeviceError
        The device does not offer it.

    Examples
    --------
    >>> resolve_dtype("fp32", torch.device("cpu"))
    torch.float32
    """
    if precision in PRECISIONS:
        if precision == "int8":
            require_processor(device)
        if precision == "fp8":
            require_float8(device)
        return PRECISIONS[precision]
    if precision != "auto":
        raise UsageError(f"unknown precision {precision!r}; use auto, {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def require_processor(device: torch.device) -> None:
    """Raise `DeviceError` for a device on which int8 is not offered.

    >>> require_processor(torch.device("cpu"))
    """
    if device.type != "cpu":
        raise DeviceError(
            f"precision int8 is for the processor, not for {device}: give device='cpu' (--device cpu), or another "
            "precision, such as bf16"
        )


def require_float8(device: torch.device) -> None:
    """Raise `DeviceError` for a device on which fp8 is not offered.

    >>> require_float8(torch.device("cpu"))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.DeviceError: precision fp8 is for GPUs of compute capability 9.0 (Hopper) and later, ...
    """
    if device.type != "cuda":
        has = f"{device} is not one"
    elif (capability := torch.cuda.get_device_capability(device)) < _FLOAT8_SINCE:
        has = f"{device} has {capability[0]}.{capability[1]}"
    else:
        return
    raise DeviceError(
        f"precision fp8 is for GPUs of compute capability {_FLOAT8_SINCE[0]}.{_FLOAT8_SINCE[1]} (Hopper) and later, "
        f"and {has}: give another precision, such as bf16 (--precision bf16)"
    )


def resolve_compile(compiled: Compile, dtype: torch.dtype, device: torch.device) -> bool:
    """Return True where the image tower is to be compiled, for True, False or ``auto``, which is True on a GPU.

    Raises
    ------
    UsageError
        It is not one of these; or it is True, and the tower is in int8, which is not torch's to compile.

    Examples
    --------
    >>> resolve_compile("auto", torch.bfloat16, torch.device("cpu"))
    False
    """
    if compiled not in (True, False, "auto"):
        raise UsageError(f"compile is {compiled!r}; give True, False or 'auto'")
    if compiled is True and dtype == torch.int8:
        raise UsageError("an image tower in int8 is OpenVINO's, and not compiled by torch; leave compile out")
    return device.type == "cuda" if compiled == "auto" else compiled


def cpu_has_bfloat16() -> bool:
    """Return True where the processor multiplies bfloat16 natively (AVX-512 BF16 or AMX).

    Emulated, it is slower than float32.
    """
    return bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def cpu_has_amx() -> bool:
    """Return True where the processor multiplies matrices of bfloat16 as a whole (AMX)."""
    return "amx_bf16" in _cpu_flags()


@lru_cache
def _cpu_flags() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return frozenset()
