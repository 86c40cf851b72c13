"""Decisions on embeddings that another tool made, which are trusted only once they are seen to be our encoder's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from PIL import Image

from safetyfilter.batches import OK, STATUS_CODES, EmbeddingBatch, Floats, Reason, ReasonBits, StatusCodes, Unreadable
from safetyfilter.decide.fitting import Scoring
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.errors import EncoderMismatchError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.hashes.matching import matched
from safetyfilter.loaders.filter_decider import FilterDecider


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The nearness that embeddings which came with pictures must have to our encoder's of the same pictures.

    Attributes
    ----------
    least_cosine : float
        The least cosine between the two embeddings of a picture, above 0 and at most 1. The same weights differ by less
        than a thousandth through another implementation's resizing, and by some thousandths in half precision.
    compared : int
        Pictures of the first batches that are compared before these are decided on; later, one of each batch that
        comes with pictures.

    Raises
    ------
    UsageError
        A value is out of its range.
    """

    least_cosine: float = 0.99
    compared: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.least_cosine <= 1:
            raise UsageError(f"least_cosine is {self.least_cosine}; give a number above 0 and at most 1, such as 0.99")
        if self.compared < 1:
            raise UsageError(f"compared is {self.compared}; give a whole number from 1: a check can't be left out")


class GivenEmbeddings:
    """Decides on embeddings that came with pictures.

    Probes fit one encoder, and nothing in a vector tells which it came from. So some of the pictures are embedded by
    the filter's own encoder too, through CLIP's centre crop, and where one of the two embeddings of a picture is not
    the other, nothing is decided and an error is raised. An embedding of the centre crop says nothing of what the crop
    leaves out: only pictures that are embedded anew as a whole are seen to their edges.

    Parameters
    ----------
    safety_filter : SafetyFilter
        The filter, whose encoder is loaded.
    agreement : Agreement
        The check.

    Raises
    ------
    UsageError
        The filter's encoder is only named, and can't be compared with; its probes need captions, or its lists of known
        content URLs, which are not passed on here.
    UncertifiedPolicyError
        Its thresholds were calibrated on other views than the centre crop.

    Examples
    --------
    >>> from safetyfilter import ClipEncoder, Policy, zero_shot_probes
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu")
    >>> lenient = Policy(thresholds={"explicit": 1, "minor": 1})
    >>> safe = SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS), lenient)
    >>> pictures = [Image.new("RGB", (64, 64), color) for color in ("teal", "gold")]
    >>> given = GivenEmbeddings(safe)
    >>> given.reasons([*encoder.embed(pictures).vectors, None], [*pictures, None]).tolist()
    [0, 0, 16]
    >>> given.reasons(-encoder.embed(pictures).vectors, pictures)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    safetyfilter.errors.EncoderMismatchError: the embeddings that came are not those of ...: ...
    """

    def __init__(self, safety_filter: SafetyFilter, agreement: Agreement | None = None) -> None:
        if not safety_filter.encoder.loaded:
            raise UsageError(
                f"{safety_filter.encoder.spec} is only named, and embeddings that came can't be compared with its own; "
                "load it with ClipEncoder.load"
            )
        # Of embeddings that came, decoding and precision are another tool's, and not known.
        spec, probes = safety_filter.encoder.spec, safety_filter.probes.digests
        safety_filter.require_certified(Scoring(encoder=spec, probes=probes, views="center"))
        FilterDecider(safety_filter)  # which refuses what needs more than pictures
        self._filter = safety_filter
        self._agreement = agreement or Agreement()
        self._compared = self._batches = 0

    def reasons(self, vectors: Sequence[npt.ArrayLike | None], pictures: Sequence[Image.Image | None]) -> ReasonBits:
        """Return why each picture is excluded.

        Parameters
        ----------
        vectors : sequence of array or None
            (D,) each, of any norm; None for a picture without one, which is `unscored`.
        pictures : sequence of PIL.Image or None
            Those that the vectors came from, or None where they are gone; at least the first have to be there.

        Returns
        -------
        ndarray
            (N,) uint16, a `Reason` set each; 0 means kept.

        Raises
        ------
        EncoderMismatchError
            The embeddings have another width than our encoder's, or are not its embeddings of these pictures.
        UsageError
            There is no embedding at all, or no picture to compare one with.
        """
        if not len(vectors):
            return np.empty(0, np.uint16)
        rows, status = self._rows(vectors)
        self._compare(rows, status, pictures)
        bits = self._filter.decide(
            EmbeddingBatch(vectors=rows, encoder=self._filter.encoder.spec.digest, status=status)
        ).reason_bits
        return bits | self._known(pictures)

    def _rows(self, vectors: Sequence[npt.ArrayLike | None]) -> tuple[Floats, StatusCodes]:
        """(N, D) float32 of unit norm, and a status each: a vector without a direction is left to the probes."""
        width = self._filter.encoder.spec.width
        rows = np.full((len(vectors), width), np.nan, np.float32)
        status = np.full(len(vectors), STATUS_CODES["missing"], np.uint8)
        for number, vector in enumerate(vectors):
            if vector is None:
                continue
            row = np.asarray(vector, np.float32)
            if row.shape != (width,):
                raise EncoderMismatchError(
                    f"an embedding that came has the shape {row.shape}, and those of {self._filter.encoder.spec} have "
                    f"({width},): load the encoder that made them, or have the pictures embedded anew"
                )
            with np.errstate(all="ignore"):
                rows[number] = row / np.linalg.norm(row)
            status[number] = OK if np.isfinite(rows[number]).all() else STATUS_CODES["non_finite"]
        if all(vector is None for vector in vectors):
            raise UsageError(
                f"none of {len(vectors)} pictures has an embedding: put the stage that embeds before this one, or have "
                "the pictures embedded here"
            )
        rows[status != OK] = np.nan
        return rows, status

    def _compare(self, rows: Floats, status: StatusCodes, pictures: Sequence[Image.Image | None]) -> None:
        """Raise `EncoderMismatchError` where an embedding is not our encoder's of its picture."""
        chosen = self._chosen(np.flatnonzero(status == OK), pictures)
        ours = self._filter.encoder.embed(
            [picture for _, picture in chosen], EmbedOptions(views="center", decode="exact")
        )
        readable = ours.status == OK
        cosines = (ours.vectors[readable] * rows[[number for number, _ in chosen]][readable]).sum(axis=1)
        if len(cosines) and not cosines.min() >= self._agreement.least_cosine:
            raise EncoderMismatchError(
                f"the embeddings that came are not those of {self._filter.encoder.spec}: of {len(cosines)} pictures "
                f"the least cosine between the two is {cosines.min():.4f}, and {self._agreement.least_cosine} is "
                "needed; load the encoder that made them (ViT-L-14-quickgelu, openai, for NeMo Curator's), or have the "
                "pictures embedded anew"
            )
        self._compared += len(cosines)
        if not self._compared and (status == OK).any():
            raise UsageError(
                "embeddings came without the pictures that they were made of, so that nothing tells whether they are "
                f"those of {self._filter.encoder.spec}: keep the pictures up to this stage (remove_image_data=False)"
            )

    def _chosen(
        self, numbers: npt.NDArray[np.int64], pictures: Sequence[Image.Image | None]
    ) -> list[tuple[int, Image.Image]]:
        """The pictures of a batch that are compared; none but these is asked for."""
        least = self._agreement.compared
        start = 0 if self._compared < least or not len(numbers) else self._batches % len(numbers)
        self._batches += 1  # the next time at another place, so that none is never looked at
        found = ((number, pictures[number]) for number in np.roll(numbers, -start).tolist())
        there = ((number, picture) for number, picture in found if picture is not None)
        return list(islice(there, max(1, least - self._compared)))

    def _known(self, pictures: Sequence[Image.Image | None]) -> ReasonBits:
        """(N,) uint16: what is on a list of known content, and what could not be looked up."""
        bits = np.zeros(len(pictures), np.uint16)
        lists, limits = self._filter.hash_lists, self._filter.options.limits
        if lists is None:
            return bits
        for number, picture in enumerate(pictures):
            known, found = matched(lists, Unreadable("missing") if picture is None else picture, None, limits)
            bits[number] |= Reason.KNOWN_HASH if known else 0
            bits[number] |= Reason.UNSCORED if isinstance(found, Unreadable) else 0
        return bits
