"""LAION's published CLIP-based NSFW detectors, as a probe.

Source: https://github.com/LAION-AI/CLIP-based-NSFW-Detector, MIT licence. AutoKeras took a few columns of the embedding
for categories: it prints their value with ``%f`` and looks the text up in a vocabulary that lies only in
``saved_model.pb``. Ports that read the Keras weights alone leave this out, and score those columns wrongly. The third
detector, for ViT-H-14, was trained with PyTorch and has nothing of the kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import ProbeError
from safetyfilter.score.laion_encoders import require_encoder
from safetyfilter.score.probe import Inputs, bound
from safetyfilter.score.vocabulary import Vocabulary
from safetyfilter.storage import parse_json

Output: TypeAlias = Literal["sigmoid", "clipped"]
"""The step from the last layer to a score: a sigmoid, or the nearer end of [0, 1] for what lies outside."""

_BLOCK_ROWS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorCard:
    """Licence and provenance of a detector; kept in its file.

    Attributes
    ----------
    licence : str
        The licence's text, with its copyright notice.
    source : str
        URL of the published file.
    sha256 : str
        SHA-256 of the published file, in hex.
    converted : str
        ISO 8601 date of the conversion.
    version : str
        The version of this library that converted it.
    git_blob : str
        Git's id of the published file, in hex, where that is what it was known by.
    """

    licence: str = ""
    source: str = ""
    sha256: str = ""
    converted: str = ""
    version: str = ""
    git_blob: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaionDetector:
    """A probe for ``explicit``: a few looked-up columns, normalisation, dense layers with ReLU, and a score's range.

    Loaded by ``ProbeBank.load("laion-l14")`` once ``safetyfilter probes fetch`` has fetched it. The scores are those
    of the original to 1e-5; a vector that is not finite scores NaN here, where the original took NaN for 0.

    Embeddings are rounded to float16 first, since every word of the vocabularies is a float16 value: LAION's own
    embeddings were, and float32 ones would mostly miss the vocabularies that the network was trained with.

    Parameters
    ----------
    mean, scale : ndarray
        (D,) float32 each; the scale is above 0.
    layers : tuple of (ndarray, ndarray)
        Weight (D_in, D_out) and bias (D_out,) of each dense layer, float32; the last has one output.
    vocabularies : tuple of Vocabulary
        The categorical columns. Without them, as in ``replace(detector, vocabularies=())``, it is the common port.
    round_to_float16 : bool
        Off, it is the published network itself, on float32 as it comes.
    output : str
        ``sigmoid`` where the last layer gives a logit, ``clipped`` where it gives a score that may lie outside [0, 1].
    encoder : str
        Digest of the encoder it was bound to, empty before.
    card : DetectorCard or None
        Licence and provenance.

    Raises
    ------
    ProbeError
        The arrays do not fit together, or are not finite float32; or there is no such output.
    """

    kind: ClassVar[str] = "safetyfilter-laion-detector"

    mean: Floats = field(repr=False)
    scale: Floats = field(repr=False)
    layers: tuple[tuple[Floats, Floats], ...] = field(repr=False)
    vocabularies: tuple[Vocabulary, ...] = field(repr=False)
    round_to_float16: bool = True
    output: Output = "sigmoid"
    signal: str = "explicit"
    encoder: str = ""
    inputs: Inputs = field(default="image", init=False)
    card: DetectorCard | None = None

    def __post_init__(self) -> None:
        if self.output not in get_args(Output):
            raise ProbeError(f"a detector's output is {' or '.join(get_args(Output))}, not {self.output!r}")
        widths = [len(self.mean), *(weight.shape[-1] for weight, _ in self.layers)]
        shapes = [self.mean.shape, self.scale.shape, *(array.shape for layer in self.layers for array in layer)]
        chained = [(widths[0],), (widths[0],), *(shape for a, b in pairwise(widths) for shape in ((a, b), (b,)))]
        if shapes != chained or widths[-1] != 1:
            raise ProbeError(
                f"a detector's layers do not fit together, their shapes are {shapes}; give a weight (D_in, D_out) and "
                "a bias (D_out,) for each layer, and one output"
            )
        arrays = (self.mean, self.scale, *(array for layer in self.layers for array in layer))
        if any(a.dtype != np.float32 or not np.isfinite(a).all() for a in arrays) or not (self.scale > 0).all():
            raise ProbeError(
                "a detector has numbers that are not finite float32, or a scale that is not above 0; give finite "
                "float32 arrays"
            )
        if any(vocabulary.column >= self.width for vocabulary in self.vocabularies):
            raise ProbeError(
                f"a detector of {self.width} columns has a vocabulary for a column outside them; give vocabularies for "
                f"columns below {self.width}"
            )

    @property
    def width(self) -> int:
        """D, the length of the embeddings it takes."""
        return len(self.mean)

    @property
    def digest(self) -> str:
        """SHA-256 in hex over everything that it computes with."""
        digest = hashlib.sha256(f"laion-detector\0{self.signal}\0{self.width}\0{self.round_to_float16}\0".encode())
        for array in (self.mean, self.scale, *(array for layer in self.layers for array in layer)):
            digest.update(str(array.shape).encode() + array.tobytes())
        for vocabulary in self.vocabularies:
            digest.update(str(vocabulary.column).encode() + vocabulary.codes.tobytes() + vocabulary.places.tobytes())
        if self.output != "sigmoid":
            digest.update(self.output.encode())
        return digest.hexdigest()

    def bind(self, spec: EncoderSpec) -> Self:
        """Return the detector for the embeddings of this encoder.

        The configuration, the width and the preprocessing are checked. LAION recorded no digest of the encoder's
        weights, so that they are the right ones is for the caller to see to: load the encoder with
        ``pretrained="openai"``, or ViT-H-14 with ``pretrained="laion2b_s32b_b79k"``.

        Raises
        ------
        EncoderMismatchError
            The encoder is not the one of this detector's size.
        """
        require_encoder(self.width, spec)
        return replace(self, encoder=bound(self.signal, self.encoder, spec) if self.encoder else spec.digest)

    def score(self, vectors: Floats) -> Floats:
        """Return (N,) float32 in [0, 1] for (N, D) embeddings.

        NaN where a vector is not finite, in float16 where it is rounded; `ProbeError` for another shape.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise ProbeError(
                f"LAION's detector takes embeddings of shape (N, {self.width}), got {vectors.shape}; use "
                "the encoder it was made for"
            )
        scores = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            block = vectors[rows].astype(np.float32)
            if self.round_to_float16:
                with np.errstate(over="ignore"):  # what float16 can't hold becomes infinite, and so unscored
                    block = block.astype(np.float16).astype(np.float32)
            scores[rows] = np.where(np.isfinite(block).all(axis=1), self._forward(block), np.float32(np.nan))
        return scores

    @classmethod
    def score_all(cls, probes: Sequence[Self], vectors: Floats) -> Floats:
        """Return (N, S) float32, the scores of S detectors, one after the other."""
        return np.stack([probe.score(vectors[:, : probe.width]) for probe in probes], axis=1)

    @classmethod
    def pack(cls, probes: Sequence[Self]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return the tensors and the header of a file with one detector; `ProbeError` for several."""
        if len(probes) != 1:
            raise ProbeError(f"a file holds one of LAION's detectors, not {len(probes)}; write each to its own file")
        one = probes[0]
        tensors = {"mean": one.mean, "scale": one.scale}
        for number, (weight, bias) in enumerate(one.layers):
            tensors |= {f"layer.{number}.weight": np.ascontiguousarray(weight), f"layer.{number}.bias": bias}
        codes = {f"vocabulary.{v.column}.codes": v.codes for v in one.vocabularies}
        places = {f"vocabulary.{v.column}.places": v.places for v in one.vocabularies}
        header = {
            "signal": one.signal,
            "encoder": one.encoder,
            "layers": str(len(one.layers)),
            "columns": json.dumps([vocabulary.column for vocabulary in one.vocabularies]),
            "round_to_float16": json.dumps(one.round_to_float16),
        }
        if one.output != "sigmoid":  # earlier versions know no other output, and refuse a detector of this width
            header["output"] = one.output
        if one.card is not None:
            provenance = {name: text for name, text in asdict(one.card).items() if text or name != "git_blob"}
            header |= {"licence": provenance.pop("licence"), "provenance": json.dumps(provenance)}
        return {**tensors, **codes, **places}, header

    @classmethod
    def unpack(cls, tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, str]) -> list[Self]:
        """Return the detector that `pack` gave; KeyError, TypeError or ValueError where the file is damaged."""
        layers = range(int(header["layers"]))
        card = None
        if "provenance" in header:
            card = DetectorCard(licence=header["licence"], **parse_json(header["provenance"]))
        return [
            cls(
                mean=tensors["mean"],
                scale=tensors["scale"],
                layers=tuple((tensors[f"layer.{n}.weight"], tensors[f"layer.{n}.bias"]) for n in layers),
                vocabularies=tuple(
                    Vocabulary(
                        column=column,
                        codes=tensors[f"vocabulary.{column}.codes"],
                        places=tensors[f"vocabulary.{column}.places"],
                    )
                    for column in parse_json(header["columns"])
                ),
                round_to_float16=bool(parse_json(header["round_to_float16"])),
                output=header.get("output", "sigmoid"),  # type: ignore[arg-type]  # checked on construction
                signal=header["signal"],
                encoder=header["encoder"],
                card=card,
            )
        ]

    def _forward(self, vectors: Floats) -> Floats:
        """Return the published network's output, which takes NaN for 0."""
        x = np.nan_to_num(vectors.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        for vocabulary in self.vocabularies:
            x[:, vocabulary.column] = vocabulary.look_up(vectors[:, vocabulary.column])
        x = (x - self.mean) / self.scale
        for number, (weight, bias) in enumerate(self.layers):
            x = x @ weight.astype(np.float64) + bias
            if number < len(self.layers) - 1:
                np.maximum(x, 0, out=x)
        scores: Floats = (expit(x[:, 0]) if self.output == "sigmoid" else x[:, 0].clip(0, 1)).astype(np.float32)
        return scores
