"""The options of ``scan`` that choose an engine."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from safetyfilter.cli.importing import large_imports

if TYPE_CHECKING:
    from safetyfilter.engine.base import Engine


class EngineName(StrEnum):
    """The engines that can do the work."""

    local = "local"
    ray = "ray"


def engine_for(
    name: EngineName, *, address: str | None, workers: int | None, gpus_per_worker: float | None, device: str
) -> Engine:
    """Return the engine that was chosen; options that are for another are wrong usage.

    >>> engine_for(EngineName.ray, address=None, workers=2, gpus_per_worker=None, device="cpu").gpus_per_worker
    0
    """
    if name is EngineName.local:
        given = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker}
        if wrong := [option for option, value in given.items() if value is not None]:
            raise typer.BadParameter(
                f"{' and '.join(wrong)} are for --engine ray; with the local engine there is a worker for each GPU, "
                "and --threads sets how many threads decode",
                param_hint=f"'{wrong[0]}'",
            )
        with large_imports():
            from safetyfilter.engine.local import LocalEngine

        return LocalEngine()
    from safetyfilter.engine.ray import RayEngine

    share = 0 if device == "cpu" else 1 if gpus_per_worker is None else gpus_per_worker
    return RayEngine(address=address, workers=workers, gpus_per_worker=share)
