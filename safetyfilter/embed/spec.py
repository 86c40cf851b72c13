"""The identity of an encoder: everything that its embeddings depend on, and a digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """The identity of an encoder: two with equal ones give interchangeable embeddings.

    Attributes
    ----------
    architecture : str
        open_clip's name of the architecture; ``custom-`` and a digest of the configuration where it has none.
    weights_sha256 : str
        SHA-256 in hex over the float32 weights, by parameter name, independent of the file they came in.
    image_size : tuple of int
        Height and width of the model's input in pixels.
    mean, std : tuple of float
        Per channel, on pixel values in [0, 1].
    interpolation, resize_mode : str
        As in open_clip's preprocessing configuration.
    width : int
        D, the embedding's length.
    """

    architecture: str
    weights_sha256: str
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    width: int

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all of the above."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, object]:
        """Plain values, with the digest."""
        return asdict(self) | {"digest": self.digest}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> EncoderSpec:
        """The specification that `as_dict` wrote (JSON's lists become tuples again)."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "digest"}
        return cls(**values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.architecture} ({self.digest[:12]})"
