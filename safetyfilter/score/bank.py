"""The probes of a filter in one bank, and embeddings of images joined with those of their captions."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, STATUS_CODES, EmbeddingBatch, Floats, ScoreBatch
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, ProbeError
from safetyfilter.score.files import read_probes, write_probes
from safetyfilter.score.named import probe_file
from safetyfilter.score.probe import TWO_ENCODERS, Inputs, Probe, check_encoder
from safetyfilter.signals import PAIR, SignalPair


@dataclass(frozen=True, slots=True)
class ProbeBank:
    """All the probes of a filter, and the pair of signals that must not co-occur.

    Probes of one kind score together, linear ones in one matrix product; where two probes serve one signal, the higher
    score counts. Probes on images and probes on images with captions may serve together: the bank then takes
    `join_captions`' embeddings, and the former read the image's half.

    Parameters
    ----------
    probes : sequence of Probe
        At least one; those with the same inputs have the same width.
    pair : SignalPair
        The names of the two signals whose co-occurrence excludes a sample. It goes into the bank's file.

    Raises
    ------
    ProbeError
        There is no probe, their widths do not fit together, or both signals of the real pair are scored and another
        pair is named: the rule is about these two.
    EncoderMismatchError
        The probes belong to different encoders.

    Examples
    --------
    >>> from safetyfilter.score.linear import LinearProbe
    >>> probes = [LinearProbe(signal=s, weight=np.float32([w, 0]), bias=0, encoder="e")
    ...           for s, w in (("explicit", 1), ("minor", -1), ("explicit", -2))]
    >>> bank = ProbeBank(probes)
    >>> batch = EmbeddingBatch(vectors=np.float32([[1, 0]]), encoder="e")
    >>> bank.signals, bank.score(batch).values.round(2).tolist()
    (('explicit', 'minor'), [[0.7300000190734863, 0.27000001072883606]])
    """

    probes: Sequence[Probe]
    pair: SignalPair = PAIR

    def __post_init__(self) -> None:
        probes = tuple(self.probes)
        if not probes:
            raise ProbeError("a bank needs at least one probe; make them with zero_shot_probes or train_probe")
        _check_pair(self.pair, {probe.signal for probe in probes})
        for inputs in get_args(Inputs):
            if len({probe.width for probe in probes if probe.inputs == inputs}) > 1:
                widths = [(probe.signal, probe.width) for probe in probes if probe.inputs == inputs]
                raise ProbeError(f"the probes take embeddings of different widths, {widths}; {TWO_ENCODERS}")
        image_width = max((probe.width for probe in probes if probe.inputs == "image"), default=0)
        if image_width and any(probe.width != 2 * image_width for probe in probes if probe.inputs != "image"):
            raise ProbeError(
                "a probe on images and captions, or on views beside the whole picture, takes twice the "
                f"{image_width} columns of the probes on images; use probes of one encoder"
            )
        if {"image+caption", "image+whole"} <= {probe.inputs for probe in probes}:
            raise ProbeError(
                "probes on images with captions and probes on views beside the whole picture can't be in one bank; "
                "scan with each into a run of its own, and decide by both"
            )
        encoders = {probe.encoder for probe in probes if probe.encoder}
        if len(encoders) > 1:
            made_for = ", ".join(f"{probe.signal} ({probe.encoder[:12]})" for probe in probes if probe.encoder)
            raise EncoderMismatchError(f"the probes belong to different encoders: {made_for}; {TWO_ENCODERS}")
        object.__setattr__(self, "probes", probes)

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored, each once, in the probes' order."""
        return tuple(dict.fromkeys(probe.signal for probe in self.probes))

    @property
    def width(self) -> int:
        """D, the length of the embeddings the bank takes."""
        return max(probe.width for probe in self.probes) // (2 if self._beside_whole else 1)

    @property
    def _beside_whole(self) -> bool:
        """True where a probe judges each view beside the whole picture."""
        return any(probe.inputs == "image+whole" for probe in self.probes)

    @property
    def inputs(self) -> Inputs:
        """``image+caption`` where any probe takes captions, so that `score` needs `join_captions`' embeddings."""
        return "image+caption" if any(probe.inputs == "image+caption" for probe in self.probes) else "image"

    @property
    def digests(self) -> tuple[str, ...]:
        """The probes' digests."""
        return tuple(probe.digest for probe in self.probes)

    def bind(self, spec: EncoderSpec) -> ProbeBank:
        """Return the bank with every probe checked to fit the encoder; `EncoderMismatchError` where one does not."""
        return replace(self, probes=[probe.bind(spec) for probe in self.probes])

    def score(self, batch: EmbeddingBatch) -> ScoreBatch:
        """Score a batch of embeddings of the probes' own encoder.

        Parameters
        ----------
        batch : EmbeddingBatch
            (N, D) or (N, V, D); a signal's score is its maximum over a sample's views and all of its pictures.

        Returns
        -------
        ScoreBatch
            With the batch's statuses, and ``non_finite`` for a sample that has none but could not be scored.

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
        if len(batch.others):  # NaN for any picture makes the score NaN, and the sample unscored
            np.maximum.at(values, batch.owners, self.score_vectors(batch.others))
        unscored: npt.NDArray[np.bool_] = np.logical_or.reduce(np.isnan(values), axis=1)
        status = _with_status(batch, unscored, "non_finite").status
        values[status != OK] = np.nan
        return ScoreBatch(values=values, signals=self.signals, status=status)

    def score_vectors(self, vectors: Floats) -> Floats:
        """Return (N, S) float32 scores of bare (N, D) or (N, V, D) embeddings, whose encoder can't be checked.

        The scores of an embedding that is not finite or whose norm is zero are NaN: it has no direction.

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
        rows = beside_whole(vectors) if self._beside_whole else vectors
        scores = self._scores(rows.reshape(-1, rows.shape[-1]))
        if vectors.ndim == 2:
            return scores
        best: Floats = scores.reshape(*vectors.shape[:2], scores.shape[1]).max(
            axis=1
        )  # NaN in any view makes the score NaN
        return best

    def _scores(self, rows: Floats) -> Floats:
        """(R, S) float32 scores of rows as the widest probe takes them."""
        kinds: dict[type[Probe], list[int]] = {}
        columns: dict[str, list[int]] = {}
        for number, probe in enumerate(self.probes):
            kinds.setdefault(type(probe), []).append(number)
            columns.setdefault(probe.signal, []).append(number)
        scores = np.empty((len(rows), len(self.probes)), np.float32)
        for kind, numbers in kinds.items():
            scores[:, numbers] = kind.score_all([self.probes[number] for number in numbers], rows)
        scores[~self._have_direction(rows)] = np.nan
        if len(columns) == len(self.probes):
            return scores
        return np.stack([scores[:, numbers].max(axis=1) for numbers in columns.values()], axis=1)

    def _have_direction(self, rows: Floats) -> npt.NDArray[np.bool_]:
        """(R,) bool, True where an embedding, or each half of two in a row, has a norm above zero."""
        count = 1 if all(probe.inputs == "image" for probe in self.probes) else 2
        halves = rows.reshape(len(rows), count, -1) if len(rows) else np.empty((0, count, 1), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(halves, axis=2)
        found: npt.NDArray[np.bool_] = np.logical_and.reduce((norms > 0) & np.isfinite(norms), axis=1)
        return found

    @classmethod
    def load(cls, path_or_name: str | os.PathLike[str]) -> ProbeBank:
        """Return the bank in a probe file, or the published detector of that name in the user's cache.

        Parameters
        ----------
        path_or_name : str or path
            A file that `save` or ``safetyfilter train`` wrote; ``laion-l14``, ``laion-b32`` or ``laion-h14``,
            once ``safetyfilter probes fetch`` has fetched it. A detector serves ``explicit`` alone: add a probe for
            ``minor``.

        Raises
        ------
        ProbeError
            The file is missing, damaged, or not a probe file, or the detector was not fetched yet.
        SchemaError
            The file was written by another version of the schema.

        Examples
        --------
        >>> ProbeBank.load("nowhere.safetensors")
        Traceback (most recent call last):
            ...
        safetyfilter.errors.ProbeError: there is no probe file at nowhere.safetensors, and no published detector of \
that name (laion-l14, laion-b32, laion-h14); make a file with `safetyfilter train` or ProbeBank.save
        """
        probes, pair = read_probes(probe_file(path_or_name))
        return cls(probes, pair)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank to a safetensors file.

        Raises
        ------
        ProbeError
            The probes are of different kinds, or of one that is not written to files.
        OutputError
            The file can't be written.
        """
        write_probes(path, self.probes, self.pair)

    def __add__(self, other: ProbeBank) -> ProbeBank:
        """Return one bank with both banks' probes and notices; `ProbeError` where they name different pairs."""
        if self.pair != other.pair:
            raise ProbeError(
                f"one bank's pair of signals is {' and '.join(self.pair.names)}, the other's is "
                f"{' and '.join(other.pair.names)}; put together banks of one pair"
            )
        notices = dict.fromkeys(bank.pair.notice for bank in (self, other) if bank.pair.notice)
        return ProbeBank([*self.probes, *other.probes], replace(self.pair, notice=" ".join(notices)))


def beside_whole(vectors: Floats) -> Floats:
    """Return each view's embedding with that of the whole picture behind it, for probes on both.

    Parameters
    ----------
    vectors : ndarray
        (N, V, D) floats, the whole picture's first, or (N, D) of whole pictures, each of which is beside itself.

    Returns
    -------
    ndarray
        (N, V, 2D) or (N, 2D).

    Examples
    --------
    >>> beside_whole(np.float32([[[1, 0], [0, 1]]])).tolist()
    [[[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]]
    """
    whole = vectors if vectors.ndim == 2 else np.broadcast_to(vectors[:, :1], vectors.shape)
    return np.concatenate([vectors, whole], axis=-1)


def join_captions(images: EmbeddingBatch, captions: Floats) -> EmbeddingBatch:
    """Return embeddings of images with those of their captions behind them, for probes on both.

    Parameters
    ----------
    images : EmbeddingBatch
        (N, D) or (N, V, D) vectors.
    captions : ndarray
        (N, D) float32 from the same encoder's text tower, unit L2 norm; a row of NaN where there is no caption, which
        leaves the sample unscored, and so excluded.

    Returns
    -------
    EmbeddingBatch
        (N, 2D) or (N, V, 2D) vectors, in which both halves have unit L2 norm; the status ``no_caption`` for an image
        that was embedded and has no caption.

    Raises
    ------
    ProbeError
        The two differ in length or width.

    Examples
    --------
    >>> images = EmbeddingBatch(vectors=np.float32([[1, 0], [1, 0]]), encoder="e")
    >>> joined = join_captions(images, np.float32([[0, 1], [np.nan, np.nan]]))
    >>> joined.vectors[0].tolist(), joined.failures
    ([1.0, 0.0, 0.0, 1.0], {1: 'no_caption'})
    """
    vectors = images.vectors
    if captions.shape != (len(vectors), vectors.shape[-1]):
        raise ProbeError(
            f"images of shape {vectors.shape} need a caption each, an array "
            f"{(len(vectors), vectors.shape[-1])}, not {captions.shape}; embed one text for each image with the "
            "same encoder"
        )
    missing: npt.NDArray[np.bool_] = np.logical_or.reduce(np.isnan(captions), axis=1)
    joined = replace(images, vectors=_beside(vectors, captions), others=_beside(images.others, captions[images.owners]))
    return _with_status(joined, missing, "no_caption")


def _beside(vectors: Floats, captions: Floats) -> Floats:
    """(N, 2D) or (N, V, 2D) float32, each view with its caption behind it."""
    texts = captions if vectors.ndim == 2 else np.repeat(captions[:, None], vectors.shape[1], axis=1)
    return np.concatenate([vectors, texts.astype(np.float32)], axis=-1)


def _check_pair(pair: object, signals: Set[str]) -> None:
    if not isinstance(pair, SignalPair):
        raise ProbeError(f"the pair is {pair!r}; give a SignalPair(explicit=..., minor=...), or leave it out")
    if pair != PAIR and signals >= set(PAIR.names):
        raise ProbeError(
            f"the probes score {' and '.join(PAIR.names)}, and the pair is {' and '.join(pair.names)}; the rule is "
            "about the former: leave the pair out, or put the probes of the other pair into a bank of their own"
        )


def _with_status(batch: EmbeddingBatch, rows: npt.NDArray[np.bool_], name: str) -> EmbeddingBatch:
    """Return the batch with this status for those of the rows, a mask, that have no failure yet."""
    if not rows.any():
        return batch
    return replace(batch, status=np.where(rows & (batch.status == OK), np.uint8(STATUS_CODES[name]), batch.status))
