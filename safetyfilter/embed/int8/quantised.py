"""Image towers in int8 as artefacts: a file of each, and a digest by which runs name it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from safetyfilter.errors import WeightsError
from safetyfilter.storage import parse_json

SCHEMA = 1
_KIND = "image tower in int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedTower:
    """An image tower in int8, as OpenVINO reads it.

    It takes (n, H, W, 3) uint8, prepared pixels, and gives (n, D) float32 of unit L2 norm. Of the pictures that it was
    quantised on it holds the ranges of the activations that they gave, all of them together, and nothing else.

    Attributes
    ----------
    encoder : str
        The digest of the encoder whose tower it is.
    model : bytes
        The graph, OpenVINO's XML.
    weights : bytes
        The weights that the graph names, by their places.
    made_by : mapping of str to str
        Versions of what made it.
    digest : str
        SHA-256 in hex over encoder, graph and weights.

    Examples
    --------
    >>> tower = QuantisedTower(encoder="ab" * 32, model=b"<net/>", weights=b"\\0\\1", made_by={"nncf": "3"})
    >>> QuantisedTower.from_bytes(tower.to_bytes(), "tower.safetensors") == tower
    True
    """

    encoder: str
    model: bytes = field(repr=False)
    weights: bytes = field(repr=False)
    made_by: Mapping[str, str] = field(default_factory=dict, compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(f"{self.encoder}\0{len(self.model)}\0".encode())
        digest.update(self.model)
        digest.update(self.weights)
        object.__setattr__(self, "digest", digest.hexdigest())

    def to_bytes(self) -> bytes:
        """Return the content of a file that `from_bytes` reads back."""
        header = {
            "kind": _KIND,
            "schema": str(SCHEMA),
            "encoder": self.encoder,
            "made_by": json.dumps(dict(self.made_by)),
            "digest": self.digest,
        }
        content: bytes = save(
            {name: np.frombuffer(getattr(self, name), np.uint8) for name in ("model", "weights")}, metadata=header
        )
        return content

    @classmethod
    def from_bytes(cls, content: bytes, place: object) -> QuantisedTower:
        """Return the tower in a file's content; `WeightsError` where it is damaged, or not one that `to_bytes` gave.

        Parameters
        ----------
        content : bytes
            The content.
        place : object
            The file, for the error.
        """
        try:
            header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            if (header["kind"], header["schema"]) != (_KIND, str(SCHEMA)):
                raise ValueError(f"its kind is {header['kind']}, of schema {header['schema']}")
            arrays = load(content)
            tower = cls(
                encoder=header["encoder"],
                model=arrays["model"].tobytes(),
                weights=arrays["weights"].tobytes(),
                made_by=parse_json(header["made_by"]),
            )
            if tower.digest != header["digest"]:
                raise ValueError("its digest is another")
        except (SafetensorError, LookupError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{place} is not a quantised model, or is damaged ({error}); remove it, and quantise again"
            ) from error
        return tower
