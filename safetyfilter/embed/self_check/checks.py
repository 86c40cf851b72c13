"""The self-check of an encoder: it embeds generated pictures, and what can be told of their embeddings must hold."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, Protocol

import numpy as np
import torch

from safetyfilter.batches import EmbeddingBatch, Floats, ImageInput
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.self_check.embedded import CheckEmbeddings, cosines_of, least_cosine_in
from safetyfilter.embed.self_check.pictures import check_pictures
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import SelfCheckError

_NORM_OFF = 1e-3
"""The most by which the norm of an embedding may differ from 1."""
_ALL_EQUAL = 1e-6
"""The largest of the pictures' differences (1 - cosine), below which the embeddings are all the same but for rounding.

Measured: 0.07 of a small model with random weights, 0.9 of the stand-in encoder; rounding gives 1e-7.
"""
_AS_JPEG = 0.9
"""The least cosine of a picture's embedding and that of the same picture as a JPEG of quality 95; measured 0.9999."""
_REMEDY = (
    "nothing is scored by it. Look at the driver, the memory and the heat of the device, at what was installed last "
    "(torch and other libraries that compute or decode), and try another device or precision"
)


class ImageEncoder(Protocol):
    """An encoder that embeds images: `ClipEncoder`, or one of somebody else's."""

    @property
    def spec(self) -> EncoderSpec:
        """Its identity."""

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""

    def embed(self, images: Iterable[ImageInput], options: EmbedOptions | None = None) -> EmbeddingBatch:
        """Embed images, in order."""


def checked(encoder: ImageEncoder, options: EmbedOptions) -> CheckEmbeddings:
    """Return an encoder's embeddings of the check's pictures, of which all holds that can be told without others.

    The pictures are encoded files, that are decoded and prepared as those of a scan; the first view of each counts.
    Each embedding must be finite and of unit norm, not all may be the same, a picture must have the same embedding
    twice in a batch and in a batch by itself, and nearly the same as a JPEG. On a GPU the batch is as large as those of
    a scan, on a processor no larger than it must be.

    Parameters
    ----------
    encoder : ImageEncoder
        The encoder.
    options : EmbedOptions
        Those of the scan; its limits and its processes for decoding do not count.

    Raises
    ------
    SelfCheckError
        Something does not hold: embeddings of this encoder, here and now, are not to be trusted.
    DeviceError
        There is not enough memory for one image.

    Examples
    --------
    >>> from safetyfilter import ClipEncoder
    >>> from safetyfilter.standin import ENCODER
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    >>> checked(encoder, EmbedOptions()).vectors.shape == (4, encoder.spec.width)
    True
    """
    of_all, of_one = batches_for(encoder, options)
    names, pictures = tuple(check_pictures()), list(check_pictures().values())
    batch = _vectors(encoder, [*pictures, pictures[0]], of_all, (*names, names[0]))
    alone = _vectors(encoder, pictures[2:3], of_one, names[2:3])
    precision = precision_of(encoder)
    least = least_cosine_in(precision)
    one, other = map(list, zip(*combinations(range(3), 2), strict=True))
    if (1 - cosines_of(batch[one], batch[other])).max() < _ALL_EQUAL:
        raise failed(encoder, f"its embeddings of different pictures ({', '.join(names[:3])}) are all the same")
    _require_cosine(encoder, (batch[:1], batch[4:]), f"{names[0]!r} twice in one batch", least)
    _require_cosine(encoder, (batch[2:3], alone), f"{names[2]!r} in a batch and by itself", least)
    _require_cosine(encoder, (batch[2:3], batch[3:4]), f"{names[2]!r} as a PNG and as a JPEG", _AS_JPEG)
    return CheckEmbeddings.of(
        batch[: len(pictures)], precision=precision, view=_first_view(options), device=_device(encoder)
    )


def require_like(encoder: ImageEncoder, now: CheckEmbeddings, before: CheckEmbeddings, where: str, remedy: str) -> None:
    """Raise `SelfCheckError` unless embeddings are nearly what they were; of another set of pictures nothing is asked.

    Parameters
    ----------
    encoder : ImageEncoder
        The encoder.
    now, before : CheckEmbeddings
        Its embeddings, and those that were recorded.
    where : str
        The place of the record, for the error.
    remedy : str
        What to do where the record is wrong, or not of this encoder.
    """
    if not now.comparable(before):
        return
    cosine, least = now.least_cosine(before), now.demanded_cosine(before)
    if cosine >= least:
        return
    widths = tuple(each.vectors.shape[1] for each in (now, before))
    what = (
        f"have the width {widths[0]}, and had {widths[1]}"
        if widths[0] != widths[1]
        else f"have a cosine as low as {cosine:.4f} with those they had, and at least {least:g} is asked"
    )
    recorded = f"{where}: on {before.device}, {before.precision}"
    raise failed(encoder, f"its embeddings of generated pictures {what} ({recorded})", remedy)


def failed(encoder: ImageEncoder, what: str, remedy: str = "") -> SelfCheckError:
    """Return the error that names the encoder, its device and machine, what was found, and what to do."""
    place = f"{_device(encoder)} of {platform.node() or 'this machine'}"
    precision = precision_of(encoder) or "an unknown precision"
    return SelfCheckError(
        f"the encoder {encoder.spec} failed its self-check on {place} in {precision}: {what}; "
        f"{_REMEDY}{'. ' if remedy else ''}{remedy}"
    )


def precision_of(encoder: Any) -> str:
    """Return the precision of an encoder, as ``float32``; empty where it tells none.

    >>> precision_of(object())
    ''
    """
    return str(getattr(encoder, "dtype", "")).removeprefix("torch.")


def batches_for(encoder: ImageEncoder, options: EmbedOptions) -> tuple[EmbedOptions, EmbedOptions]:
    """Return the options for all pictures of the check, and for one of them by itself.

    Pictures are decoded in threads: processes take longer to start than all the rest, and decode by the same code.

    >>> from types import SimpleNamespace
    >>> of_all, of_one = batches_for(SimpleNamespace(device=torch.device("cpu")), EmbedOptions(views="multi"))
    >>> of_all.batch_size, of_one.batch_size, of_one.views
    (5, 1, 'whole')
    """
    as_scanned = replace(options, decoders="threads", workers=1, limits=DecodeLimits(), full_batches=True)
    if options.adaptive:  # its crops go through the model in batches of the same size as whole pictures
        as_scanned = replace(as_scanned, views="whole")
    if getattr(encoder, "full_batches", False):  # compiled for each size of batch, which takes a minute
        return as_scanned, as_scanned
    few = replace(as_scanned, views=_first_view(options), batch_size=len(check_pictures()) + 1, full_batches=False)
    full = encoder.device.type == "cuda" or getattr(encoder, "scans_otherwise", False)
    return as_scanned if full else few, replace(few, batch_size=1)


def _first_view(options: EmbedOptions) -> Literal["center", "whole"]:
    """The first of the views of a picture, which is the one that is compared."""
    return "center" if options.views == "center" else "whole"


def _vectors(encoder: ImageEncoder, pictures: list[bytes], options: EmbedOptions, names: tuple[str, ...]) -> Floats:
    """(N, D) float32, finite and of unit norm."""
    batch = encoder.embed(pictures, options)
    vectors: Floats = batch.vectors if batch.vectors.ndim == 2 else batch.vectors[:, 0]
    if len(vectors) != len(pictures):
        raise failed(encoder, f"of {len(pictures)} pictures it gave {len(vectors)} embeddings")
    for row, failure in batch.failures.items():
        what = "is not finite, or zero" if failure == "non_finite" else f"can't be had ({failure})"
        raise failed(encoder, f"its embedding of the picture {names[row]!r} {what}")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for name, norm in zip(names, norms.tolist(), strict=True):
        if not abs(norm - 1) <= _NORM_OFF:  # NaN is not
            raise failed(encoder, f"its embedding of the picture {name!r} has the norm {norm:.4g}, which is to be 1")
    return vectors


def _require_cosine(encoder: ImageEncoder, pair: tuple[Floats, Floats], of: str, least: float) -> None:
    cosine = cosines_of(*pair).item()
    if not cosine >= least:
        raise failed(encoder, f"its embeddings of {of} have a cosine of {cosine:.4f}, and at least {least:g} is asked")


def _device(encoder: ImageEncoder) -> str:
    device = encoder.device
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
