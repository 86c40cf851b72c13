"""LAION's published CLIP-based NSFW detectors, read from their own files without TensorFlow.

Source: https://github.com/LAION-AI/CLIP-based-NSFW-Detector, MIT licence. AutoKeras took a few columns of the embedding
for categories: it prints their value with ``%f`` and looks the text up in a vocabulary that lies only in
``saved_model.pb``. Ports that read the Keras weights alone leave this out, and score those columns wrongly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, ProbeError
from safetyfilter.score.laion_zip import MAX_ZIP, read_network
from safetyfilter.score.probe import Inputs, check_encoder
from safetyfilter.score.tensor_bundle import damaged

KNOWN_SHA256: Mapping[str, str] = MappingProxyType(
    {
        "laion-l14": "905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
        "laion-b32": "78715ab9d64485167e8c9ade3b8e6761a17a16c24d114bd47431ac1dab46462b",
    }
)
"""SHA-256 of the published zip files, by the name this library gives them."""

ARCHITECTURES: Mapping[int, str] = MappingProxyType({768: "ViT-L-14-quickgelu", 512: "ViT-B-32-quickgelu"})
"""open_clip's name of the encoder, by the width of its embeddings; OpenAI's weights need QuickGELU."""

_IMAGE_SIZE = (224, 224)
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_WORD = re.compile(r"-?\d{1,6}\.\d{6}", re.ASCII)
_SMALLEST_SCALE = 1e-7  # Keras's Normalization divides by at least its backend's epsilon
_BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VocabularyTable:
    """What AutoKeras replaces a categorical column's value with.

    Parameters
    ----------
    column : int
        The column of the embedding.
    codes : ndarray
        (K,) float64, ascending: the vocabulary's words as `_codes` gives them.
    places : ndarray
        (K,) float64: each word's place in the vocabulary, from 1.
    """

    column: int
    codes: npt.NDArray[np.float64]
    places: npt.NDArray[np.float64]

    @classmethod
    def of(cls, column: int, vocabulary: Sequence[str]) -> VocabularyTable:
        """The table of a vocabulary of printed numbers; `ProbeError` where a word is no float16 or there twice.

        >>> table = VocabularyTable.of(3, ["0.500000", "-0.250000"])
        >>> table.look_up(np.float32([.5, -.25, .75, np.nan])).tolist()
        [1.0, 2.0, 0.0, 0.0]
        """
        if not all(_WORD.fullmatch(word) for word in vocabulary):
            raise damaged(f"the vocabulary of column {column} has a word that is no printed number")
        codes = np.array([2.0 * int(word.replace(".", "")) - word.startswith("-") for word in vocabulary], np.float64)
        order = np.argsort(codes)
        if not np.isin(codes, _float16_codes()).all() or (np.diff(codes[order]) == 0).any():
            raise damaged(f"the vocabulary of column {column} has a word twice, or one that is no float16")
        return cls(column=column, codes=codes[order], places=(order + 1).astype(np.float64))

    def look_up(self, values: Floats) -> npt.NDArray[np.float64]:
        """(N,) float64, the places of (N,) float32 values; 0 for one that the vocabulary has not."""
        codes = _codes(values)
        if not len(self.codes):
            return np.zeros_like(codes)
        nearest = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        found: npt.NDArray[np.float64] = np.where(self.codes[nearest] == codes, self.places[nearest], 0.0)
        return found


def _codes(values: Floats) -> npt.NDArray[np.float64]:
    """Numbers that are equal where ``%f`` prints float32 values alike, without printing them.

    ``%f`` rounds the exact value to millionths, half to even. A float32 has 24 bits and a million 20, so their product
    is exact in float64, and `rint` rounds it in the same way. Minus zero prints apart from zero, hence the sign.
    """
    with np.errstate(invalid="ignore"):
        millionths = np.rint(values.astype(np.float64) * 1e6)
    codes: npt.NDArray[np.float64] = 2 * millionths - np.signbit(millionths)
    return codes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaionDetector:
    """A probe for ``explicit``: a few looked-up columns, normalisation, dense layers with ReLU, and a sigmoid.

    Made by `load_laion_detector`. The scores are those of the original to 1e-5; a vector that is not finite scores
    NaN here, where the original took NaN for 0.

    Embeddings are rounded to float16 first, since every word of the vocabularies is a float16 value: LAION's own
    embeddings were, and float32 ones would mostly miss the vocabularies that the network was trained with.

    Parameters
    ----------
    mean, scale : ndarray
        (D,) float32 each.
    layers : tuple of (ndarray, ndarray)
        Weight (D_in, D_out) and bias (D_out,) of each dense layer, float32; the last has one output.
    tables : tuple of VocabularyTable
        The categorical columns. Without them, as in ``replace(detector, tables=())``, it is the common port.
    round_to_float16 : bool
        Off, it is the published network itself, on float32 as it comes.
    encoder : str
        Digest of the encoder it was bound to, empty before.
    """

    mean: Floats = field(repr=False)
    scale: Floats = field(repr=False)
    layers: tuple[tuple[Floats, Floats], ...] = field(repr=False)
    tables: tuple[VocabularyTable, ...] = field(repr=False)
    round_to_float16: bool = True
    signal: str = "explicit"
    encoder: str = ""
    inputs: Inputs = field(default="image", init=False)

    def __post_init__(self) -> None:
        widths = [len(self.mean), *(weight.shape[1] for weight, _ in self.layers)]
        shapes = [(weight.shape, bias.shape) for weight, bias in self.layers]
        chained = [((a, b), (b,)) for a, b in pairwise(widths)]
        if shapes != chained or widths[-1] != 1 or self.scale.shape != self.mean.shape:
            raise damaged(f"its layers do not fit together: {len(self.mean)} columns, then {shapes}")
        if any(not 0 <= table.column < len(self.mean) for table in self.tables):
            raise damaged("a categorical column lies outside the embedding")

    @property
    def width(self) -> int:
        """D, the length of the embeddings it takes."""
        return len(self.mean)

    @property
    def digest(self) -> str:
        """SHA-256 in hex over everything that it computes with."""
        digest = hashlib.sha256(f"laion-detector\0{self.signal}\0{self.width}\0{self.round_to_float16}\0".encode())
        for array in (self.mean, self.scale, *(a for layer in self.layers for a in layer)):
            digest.update(str(array.shape).encode() + array.tobytes())
        for table in self.tables:
            digest.update(str(table.column).encode() + table.codes.tobytes() + table.places.tobytes())
        return digest.hexdigest()

    def bind(self, spec: EncoderSpec) -> LaionDetector:
        """Itself for the embeddings of this encoder.

        What is checked is the architecture, the width and the preprocessing. LAION recorded no digest of the encoder's
        weights, so that they are OpenAI's is for the caller to see to: load the encoder with ``pretrained="openai"``.

        Raises
        ------
        EncoderMismatchError
            The encoder is not OpenAI's CLIP of this detector's size.
        """
        wanted = ARCHITECTURES.get(self.width, f"an encoder of width {self.width}")
        fits = spec.architecture == wanted and spec.width == self.width and tuple(spec.image_size) == _IMAGE_SIZE
        if not fits or not np.allclose([spec.mean, spec.std], [_MEAN, _STD], atol=1e-6):
            raise EncoderMismatchError(
                f"LAION's detector belongs to {wanted} with OpenAI's weights and preprocessing, and the embeddings "
                f"come from {spec}, width {spec.width}; load the encoder as {wanted}, pretrained openai, or use other "
                "probes"
            )
        if self.encoder:
            check_encoder(self.signal, self.encoder, spec.digest)
        return replace(self, encoder=spec.digest)

    def score(self, vectors: Floats) -> Floats:
        """(N,) float32 in [0, 1] from (N, D) embeddings; NaN where one isn't finite, in float16 where it's rounded."""
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

    def _forward(self, vectors: Floats) -> Floats:
        """The published network, which takes NaN for 0."""
        x = np.nan_to_num(vectors.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        for table in self.tables:
            x[:, table.column] = table.look_up(vectors[:, table.column])
        x = (x - self.mean) / self.scale
        for i, (weight, bias) in enumerate(self.layers):
            x = x @ weight.astype(np.float64) + bias
            if i < len(self.layers) - 1:
                np.maximum(x, 0, out=x)
        scores: Floats = expit(x[:, 0]).astype(np.float32)
        return scores


def load_laion_detector(path: str | Path, *, verify: bool = True) -> LaionDetector:
    """Read one of LAION's detectors from its zip file, which is treated as untrusted.

    Parameters
    ----------
    path : str or Path
        ``clip_autokeras_binary_nsfw.zip`` (ViT-L/14) or ``clip_autokeras_nsfw_b32.zip`` (ViT-B/32).
    verify : bool
        Check that the file is one of the two published ones. Leave it on unless you made the file yourself.

    Returns
    -------
    LaionDetector
        A probe for ``explicit``; put it into a `ProbeBank` beside a probe for ``minor``.

    Raises
    ------
    ProbeError
        The file is missing, not the published one, damaged, or holds what it should not. Nothing is loaded half.

    Examples
    --------
    >>> load_laion_detector("nowhere.zip")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: no detector at nowhere.zip; fetch it with `safetyfilter probes fetch laion-l14`
    """
    path = Path(path)
    if not path.is_file():
        raise ProbeError(f"no detector at {path}; fetch it with `safetyfilter probes fetch laion-l14`")
    if path.stat().st_size > MAX_ZIP:
        raise damaged(f"it has {path.stat().st_size:,} bytes, and the published ones have about a million")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if verify and found not in KNOWN_SHA256.values():
        raise damaged(
            f"{path.name} has the SHA-256 {found}, which is neither of the published {', '.join(KNOWN_SHA256.values())}"
        )
    network = read_network(data)
    if network.width not in ARCHITECTURES:
        raise damaged(f"it takes {network.width} columns, not {' or '.join(map(str, ARCHITECTURES))}")
    tables = tuple(VocabularyTable.of(c, words) for c, words in network.vocabularies.items())
    scale = np.maximum(np.sqrt(network.variance), np.float32(_SMALLEST_SCALE))
    return LaionDetector(mean=network.mean, scale=scale, layers=network.layers, tables=tables)


@lru_cache(maxsize=1)
def _float16_codes() -> npt.NDArray[np.float64]:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return np.unique(_codes(values[np.isfinite(values)]))
