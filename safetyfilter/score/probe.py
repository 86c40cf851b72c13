"""Linear probes, and the bank that scores all signals in one matrix product."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self, TypeAlias, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.batches import EmbeddingBatch, Floats, ScoreBatch
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, ProbeError

Inputs: TypeAlias = Literal["image", "image+caption"]
"""What a probe takes: an image's embedding, or that and its caption's, one behind the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCard:
    """How a probe was made and what it was seen to do; kept in the probe's file.

    Attributes
    ----------
    method : str
        ``zero-shot`` or ``logistic-regression``.
    created : str
        ISO 8601 date.
    positives, negatives : int
        Labelled samples it was fitted on; 0 for a zero-shot probe.
    folds, groups : int
        Of the cross-validation; no groups where samples were taken one by one.
    regularisation : float or None
        scikit-learn's C on standardised columns, chosen by cross-validation.
    auc, average_precision, calibration_error : float or None
        Cross-validated, on samples the scoring probe was not fitted on.
    thresholds : mapping of str to float
        Threshold at which the named share of positives is found (``"0.99"``), cross-validated.
    provenance : str
        The user's own note on the training data.
    """

    method: str
    created: str = ""
    positives: int = 0
    negatives: int = 0
    folds: int = 0
    groups: int = 0
    regularisation: float | None = None
    auc: float | None = None
    average_precision: float | None = None
    calibration_error: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    provenance: str = ""


@runtime_checkable
class Probe(Protocol):
    """What scores one signal: the linear probe here, and LAION's detectors."""

    @property
    def signal(self) -> str:
        """The name of the signal it scores."""

    @property
    def width(self) -> int:
        """D, the length of the embeddings it takes."""

    @property
    def inputs(self) -> Inputs:
        """Whether it takes images alone or images and captions."""

    @property
    def encoder(self) -> str:
        """Digest of the encoder it belongs to; empty where that is known only once it's bound."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex over what it computes and for which encoder."""

    def bind(self, spec: EncoderSpec) -> Self:
        """Itself, checked to fit the encoder; `EncoderMismatchError` otherwise."""

    def score(self, vectors: Floats) -> Floats:
        """(N,) float32 in [0, 1] from (N, D) embeddings; NaN where a vector is not finite."""


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
        ``image``, or ``image+caption`` for a probe on `join_captions`' embeddings.
    card : ProbeCard or None
        How it was made.

    Examples
    --------
    >>> probe = LinearProbe(signal="explicit", weight=np.float32([2, 0]), bias=-1.0, encoder="e")
    >>> probe.score(np.float32([[1, 0], [0, 1]])).round(3).tolist()
    [0.7310000061988831, 0.26899999380111694]
    """

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

    def bind(self, spec: EncoderSpec) -> Self:
        """Itself, checked to belong to the encoder; `EncoderMismatchError` otherwise."""
        check_encoder(self.signal, self.encoder, spec.digest)
        if self.width != (needed := spec.width * (2 if self.inputs == "image+caption" else 1)):
            raise EncoderMismatchError(
                f"the probe for {self.signal!r} takes {self.inputs} embeddings of width "
                f"{self.width}, and those of {spec} have {needed}; make the probe anew"
            )
        return self

    def score(self, vectors: Floats) -> Floats:
        """(N,) float32 in [0, 1] from (N, D) embeddings; NaN where a vector is not finite."""
        return linear_scores(vectors, self.weight[:, None], np.array([self.bias]))[:, 0]


def join_captions(images: EmbeddingBatch, captions: Floats) -> EmbeddingBatch:
    """Embeddings of images with those of their captions behind them, for probes on both.

    Parameters
    ----------
    images : EmbeddingBatch
        (N, D) or (N, V, D) vectors.
    captions : ndarray
        (N, D) float32 from the same encoder's text tower, unit L2 norm; a row of NaN where there's no caption, which
        leaves the sample unscored, and so excluded.

    Returns
    -------
    EmbeddingBatch
        (N, 2D) or (N, V, 2D) vectors, in which both halves have unit L2 norm.

    Raises
    ------
    ProbeError
        The two differ in length or width.

    Examples
    --------
    >>> images = EmbeddingBatch(vectors=np.float32([[1, 0]]), failures={}, encoder="e")
    >>> join_captions(images, np.float32([[0, 1]])).vectors.tolist()
    [[1.0, 0.0, 0.0, 1.0]]
    """
    vectors = images.vectors
    if captions.shape != (len(vectors), vectors.shape[-1]):
        raise ProbeError(
            f"images of shape {vectors.shape} need a caption each, an array "
            f"{(len(vectors), vectors.shape[-1])}, not {captions.shape}; embed one text an image with the "
            "same encoder"
        )
    texts = captions if vectors.ndim == 2 else np.repeat(captions[:, None], vectors.shape[1], axis=1)
    joined = np.concatenate([vectors, texts.astype(np.float32)], axis=-1)
    return EmbeddingBatch(vectors=joined, failures=images.failures, encoder=images.encoder)


def check_encoder(signal: str, probe_encoder: str, encoder: str) -> None:
    """Raise `EncoderMismatchError`, naming both, unless the two digests agree."""
    if probe_encoder != encoder:
        raise EncoderMismatchError(
            f"the probe for {signal!r} belongs to encoder {probe_encoder[:12]}, and the embeddings come from encoder "
            f"{encoder[:12]}; load the encoder it was made with, or make the probe anew for this one"
        )


def linear_scores(vectors: Floats, weights: Floats, biases: npt.NDArray[np.float64]) -> Floats:
    """(N, S) float32 scores of (N, D) embeddings under (D, S) weights, in one product.

    The product is taken in float64: a score then does not depend on how many rows were scored along with it, as it
    does in float32, where the BLAS routine is chosen by shape.
    """
    with np.errstate(invalid="ignore"):  # a failed image's row is NaN, and so are its scores
        logits = vectors.astype(np.float64) @ weights.astype(np.float64) + biases
        scores: Floats = expit(logits).astype(np.float32)
    return scores


@dataclass(frozen=True, slots=True)
class ProbeBank:
    """All the probes of a filter: linear ones in one matrix product, the higher score where two serve one signal.

    Probes on images and probes on images with captions may serve together: the bank then takes `join_captions`'
    embeddings, and the former read the image's half.

    Parameters
    ----------
    probes : sequence of Probe
        At least one; those with the same inputs have the same width.

    Examples
    --------
    >>> probes = [LinearProbe(signal=s, weight=np.float32([w, 0]), bias=0, encoder="e")
    ...           for s, w in (("explicit", 1), ("minor", -1), ("explicit", -2))]
    >>> bank = ProbeBank(probes)
    >>> batch = EmbeddingBatch(vectors=np.float32([[1, 0]]), failures={}, encoder="e")
    >>> bank.signals, bank.score(batch).values.round(2).tolist()
    (('explicit', 'minor'), [[0.7300000190734863, 0.27000001072883606]])
    """

    probes: Sequence[Probe]

    def __post_init__(self) -> None:
        probes = tuple(self.probes)
        if not probes:
            raise ProbeError("a bank needs at least one probe; make them with zero_shot_probes or train_probe")
        for inputs in get_args(Inputs):
            if len({probe.width for probe in probes if probe.inputs == inputs}) > 1:
                widths = [(probe.signal, probe.width) for probe in probes if probe.inputs == inputs]
                raise ProbeError(f"the probes take embeddings of different widths, {widths}; use probes of one encoder")
        image_width = max((probe.width for probe in probes if probe.inputs == "image"), default=0)
        if image_width and any(probe.width != 2 * image_width for probe in probes if probe.inputs == "image+caption"):
            raise ProbeError(
                f"a probe on images and captions takes twice the {image_width} columns of the probes on "
                "images; use probes of one encoder"
            )
        encoders = {probe.encoder for probe in probes if probe.encoder}
        if len(encoders) > 1:
            made_for = ", ".join(f"{probe.signal} ({probe.encoder[:12]})" for probe in probes if probe.encoder)
            raise EncoderMismatchError(
                f"the probes belong to different encoders: {made_for}; use probes that were made for one encoder"
            )
        object.__setattr__(self, "probes", probes)

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored, each once, in the probes' order."""
        return tuple(dict.fromkeys(probe.signal for probe in self.probes))

    @property
    def width(self) -> int:
        """D, the length of the embeddings the bank takes."""
        return max(probe.width for probe in self.probes)

    @property
    def inputs(self) -> Inputs:
        """``image+caption`` where any probe takes captions, so that `score` needs `join_captions`' embeddings."""
        return "image+caption" if any(probe.inputs == "image+caption" for probe in self.probes) else "image"

    @property
    def digests(self) -> tuple[str, ...]:
        """The probes' digests."""
        return tuple(probe.digest for probe in self.probes)

    def bind(self, spec: EncoderSpec) -> ProbeBank:
        """The same bank, every probe checked to fit the encoder; `EncoderMismatchError` otherwise."""
        return ProbeBank([probe.bind(spec) for probe in self.probes])

    def score(self, batch: EmbeddingBatch) -> ScoreBatch:
        """Score a batch of embeddings of the probes' own encoder.

        Parameters
        ----------
        batch : EmbeddingBatch
            (N, D) or (N, V, D); with several views, a signal's score is its maximum over them.

        Raises
        ------
        EncoderMismatchError
            The embeddings come from another encoder, or a probe that does not name its encoder is not bound to one.
        """
        for probe in self.probes:
            if not probe.encoder:
                raise EncoderMismatchError(
                    f"the probe for {probe.signal!r} was not checked against an encoder; call "
                    "bank.bind(encoder.spec) first, as SafetyFilter does"
                )
            check_encoder(probe.signal, probe.encoder, batch.encoder)
        values = self.score_vectors(batch.vectors)
        values[list(batch.failures)] = np.nan
        return ScoreBatch(values=values, signals=self.signals, failures=batch.failures)

    def score_vectors(self, vectors: Floats) -> Floats:
        """(N, S) float32 scores of bare (N, D) or (N, V, D) embeddings, whose encoder can't be checked.

        Raises
        ------
        ProbeError
            The vectors have another width.
        """
        if vectors.ndim not in (2, 3) or vectors.shape[-1] != self.width:
            raise ProbeError(
                f"the probes take {self.inputs} embeddings of width {self.width}, got an array "
                f"{vectors.shape}; use the encoder they were made for, and join_captions for captions"
            )
        if vectors.ndim == 3:
            views = self.score_vectors(vectors.reshape(-1, self.width)).reshape(*vectors.shape[:2], -1)
            best: Floats = views.max(axis=1)  # NaN in any view makes the score NaN, and the sample unscored
            return best
        by_probe: dict[int, Floats] = {}
        linear = [(i, probe) for i, probe in enumerate(self.probes) if isinstance(probe, LinearProbe)]
        if linear:
            weights = np.zeros((self.width, len(linear)), np.float32)  # none on captions a probe ignores
            for column, (_, one) in enumerate(linear):
                weights[: one.width, column] = one.weight
            scores = linear_scores(vectors, weights, np.array([probe.bias for _, probe in linear]))
            by_probe = {i: scores[:, column] for column, (i, _) in enumerate(linear)}
        for i, probe in enumerate(self.probes):
            if i not in by_probe:
                by_probe[i] = probe.score(vectors[:, : probe.width])
        columns = [[by_probe[i] for i, p in enumerate(self.probes) if p.signal == signal] for signal in self.signals]
        return np.stack([np.maximum.reduce(column) for column in columns], axis=1)

    @classmethod
    def load(cls, path: str | Path) -> ProbeBank:
        """The bank in a safetensors file or one of LAION's zip files, or of a known name: `load_named_probes`."""
        from safetyfilter.score.named import load_named_probes

        return load_named_probes(path)

    def save(self, path: str | Path) -> None:
        """Write the linear probes to a safetensors file; see `safetyfilter.score.files`."""
        from safetyfilter.score.files import save_probes

        save_probes(self, path)

    def __add__(self, other: ProbeBank) -> ProbeBank:
        """Both banks' probes in one."""
        return ProbeBank([*self.probes, *other.probes])
