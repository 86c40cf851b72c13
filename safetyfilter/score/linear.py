"""Linear probes: a weight and a bias for each signal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, ProbeError
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.probe import Inputs, bound
from safetyfilter.score.trained_on import TrainedOn
from safetyfilter.storage import parse_json

_LATER = ("ages", "trained_on", "whole_thresholds")
"""Fields of a card that earlier versions would not read: they go into entries of their own in a file's header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """``score = sigmoid(weight · x + bias)``, calibration folded into both.

    Parameters
    ----------
    signal : str
        The signal's name.
    weight : ndarray
        (D,) float32.
    bias : float
        The intercept.
    encoder : str
        Digest of the specification of the encoder it belongs to.
    inputs : str
        ``image``; ``image+caption`` for a probe on `join_captions`' embeddings; or ``image+whole`` for one on a view's
        embedding with that of the whole picture behind it, which `ProbeBank` joins.
    card : ProbeCard or None
        A record of how it was made.

    Examples
    --------
    >>> probe = LinearProbe(signal="explicit", weight=np.float32([2, 0]), bias=-1.0, encoder="e")
    >>> probe.score(np.float32([[1, 0], [0, 1]])).round(3).tolist()
    [0.7310000061988831, 0.26899999380111694]
    """

    kind: ClassVar[str] = "safetyfilter-linear-probes"

    signal: str
    weight: Floats = field(repr=False)
    bias: float
    encoder: str
    inputs: Inputs = "image"
    card: ProbeCard | None = None

    def __post_init__(self) -> None:
        weight = np.array(self.weight, np.float32)
        if not self.signal or weight.ndim != 1 or not len(weight):
            raise ProbeError(f"a probe has a signal and a weight of shape (D,); got {self.signal!r}, {weight.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(self.bias)):
            raise ProbeError(f"the probe for {self.signal!r} has a weight that is not finite; train it again")
        if self.inputs not in get_args(Inputs):
            raise ProbeError(f"a probe takes {' or '.join(get_args(Inputs))}, not {self.inputs!r}")
        if self.inputs != "image" and len(weight) % 2:
            raise ProbeError(
                f"the probe for {self.signal!r} takes {self.inputs} embeddings, which are two of one width, and has "
                f"{len(weight)} weights; train it again"
            )
        weight.setflags(write=False)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", float(self.bias))

    @property
    def width(self) -> int:
        """D, the length of the embeddings it takes."""
        return len(self.weight)

    @property
    def digest(self) -> str:
        """SHA-256 in hex over signal, encoder, inputs, weight and bias."""
        what = f"{self.signal}\0{self.encoder}\0{self.inputs}\0{self.bias!r}\0".encode() + self.weight.tobytes()
        return hashlib.sha256(what).hexdigest()

    @property
    def trained_on(self) -> TrainedOn:
        """The way in which the pictures were prepared and embedded that it was trained on, as far as its card says."""
        return self.card.trained_on if self.card else TrainedOn()

    def bind(self, spec: EncoderSpec) -> Self:
        """Return the probe, checked to belong to the encoder; `EncoderMismatchError` otherwise.

        The encoder of stored embeddings may be known by its name alone, and then is held against that in the card.
        """
        named = self.card.encoder if self.card else ""
        if spec.only_named and spec.tag and named == spec.name:
            digest = spec.digest
        else:
            digest = bound(self.signal, self.encoder, spec, named=named)
        if self.width != (needed := spec.width * (1 if self.inputs == "image" else 2)):
            raise EncoderMismatchError(
                f"the probe for {self.signal!r} takes {self.inputs} embeddings of width "
                f"{self.width}, and those of {spec} have {needed}; make the probe anew"
            )
        return self if digest == self.encoder else replace(self, encoder=digest)

    def score(self, vectors: Floats) -> Floats:
        """Return (N,) float32 in [0, 1] for (N, D) embeddings; NaN where a vector is not finite."""
        return linear_scores(vectors, self.weight[:, None], np.array([self.bias]))[:, 0]

    @classmethod
    def score_all(cls, probes: Sequence[Self], vectors: Floats) -> Floats:
        """Return (N, S) float32, the scores of S probes in one matrix product."""
        weights = np.zeros((vectors.shape[1], len(probes)), np.float32)  # 0 on captions that a probe ignores
        for column, probe in enumerate(probes):
            weights[: probe.width, column] = probe.weight
        return linear_scores(vectors, weights, np.array([probe.bias for probe in probes]))

    @classmethod
    def pack(cls, probes: Sequence[Self]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return the tensors and the header of a file with these probes.

        Raises
        ------
        ProbeError
            Some take images, others images with captions.
        """
        if len({probe.inputs for probe in probes}) > 1:
            raise ProbeError(
                "probes of different inputs (images; images with captions; views beside the whole picture) go into "
                "files of their own; write one file for each, and load both: --probes may be given more than once"
            )
        tensors = {
            "weight": np.stack([probe.weight for probe in probes]),
            "bias": np.array([probe.bias for probe in probes]),
        }
        cards = [asdict(probe.card) if probe.card else None for probe in probes]
        later = {name: [card.pop(name) if card else None for card in cards] for name in _LATER}
        return tensors, {
            "encoder": probes[0].encoder,
            "inputs": probes[0].inputs,
            "signals": json.dumps([probe.signal for probe in probes]),
            "cards": json.dumps(cards),
            **{name: json.dumps(values) for name, values in later.items() if any(map(_told, values))},
        }

    @classmethod
    def unpack(cls, tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, str]) -> list[Self]:
        """Return the probes that `pack` gave; KeyError, TypeError or ValueError where the file is damaged."""
        signals, cards = parse_json(header["signals"]), parse_json(header["cards"])
        for name in _LATER:
            if name in header:
                for card, value in zip(cards, parse_json(header[name]), strict=True):
                    if card and value:
                        card[name] = value
        rows = zip(signals, tensors["weight"], tensors["bias"], cards, strict=True)
        return [
            cls(
                signal=signal,
                weight=weight,
                bias=float(bias),
                encoder=header["encoder"],
                inputs=header.get("inputs", "image"),  # type: ignore[arg-type]  # checked on construction
                card=ProbeCard.from_dict(card) if card else None,
            )
            for signal, weight, bias, card in rows
        ]


def _told(value: Any) -> bool:
    """True for a value of a card that says something."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def linear_scores(vectors: npt.NDArray[np.floating[Any]], weights: Floats, biases: npt.NDArray[np.float64]) -> Floats:
    """Return (N, S) float32 scores of (N, D) embeddings under (D, S) weights, in one product.

    The product is taken in float64: a score then does not depend on how many rows were scored along with it, as it
    does in float32, where the BLAS routine is chosen by shape.
    """
    with np.errstate(invalid="ignore"):  # a failed image's row is NaN, and so are its scores
        logits = vectors.astype(np.float64, copy=False) @ weights.astype(np.float64) + biases
        scores: Floats = expit(logits).astype(np.float32)
    return scores
