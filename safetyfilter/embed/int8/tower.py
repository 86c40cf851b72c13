"""Image towers in int8 on this machine's processor."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from safetyfilter.embed.clip.towers import first_line
from safetyfilter.embed.devices import require_processor
from safetyfilter.embed.image_tower import Run
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.openvino.model import OpenvinoModel
from safetyfilter.errors import WeightsError


class Int8Tower:
    """A quantised image tower, as OpenVINO runs it.

    Parameters
    ----------
    quantised : QuantisedTower
        The tower.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    WeightsError
        It can't read the tower, as one of a later version of its own.
    """

    full_batches: ClassVar[bool] = False

    def __init__(self, quantised: QuantisedTower) -> None:
        self.quantised = quantised
        try:
            self._run = OpenvinoModel(quantised.model, quantised.weights)
        except RuntimeError as error:
            made_by = ", ".join(f"{name} {version}" for name, version in quantised.made_by.items())
            raise WeightsError(
                f"OpenVINO can't read the quantised model {quantised.digest[:12]}: {first_line(error)}; quantise "
                f"again, or install what made it ({made_by or 'unknown'})"
            ) from error

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings, as `ImageTower` says."""
        return self._run(pixels)

    def run_for(self, size: int, *, full: bool) -> Run:
        """Return the tower itself."""
        return self

    def on(self, device: torch.device) -> Int8Tower:
        """Return the tower itself, for the processor; `DeviceError` for another device."""
        require_processor(device)
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # compiled anew where it arrives
        return (Int8Tower, (self.quantised,))
