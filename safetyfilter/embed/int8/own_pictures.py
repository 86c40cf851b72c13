"""The image tower of an encoder in int8, quantised on pictures of the user's own: from the cache, or made and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.image_tower import ImageTower, TorchTower
from safetyfilter.embed.int8.cache import keep_tower, require_writable, tower_made_of
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.int8.quantising import PICTURES, made_of, quantise
from safetyfilter.embed.int8.tower import Int8Tower
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.inputs import several
from safetyfilter.embed.pictures.views import Pixels
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import SelfCheckError, UsageError

_log = logging.getLogger(__name__)
_FEW = 100
_COMPARED = 16
"""Pictures on which a new tower is compared with the one that it is made of."""
_LEAST_COSINE = 0.9
"""The least median of their cosines; measured 0.998 and more, on small models."""


def quantised_on(
    tower: ImageTower, spec: EncoderSpec, prepare: ImagePreparer, pictures: Iterable[ImageInput]
) -> QuantisedTower:
    """Return a tower in int8: from the user's cache, where it was made of the same pictures before, or made and kept.

    Parameters
    ----------
    tower : ImageTower
        That of torch, in float32 on the CPU.
    spec : EncoderSpec
        Its encoder.
    prepare : ImagePreparer
        Makes pixels of pictures, as the encoder is to see them.
    pictures : iterable of bytes, path or PIL.Image
        The first `PICTURES` that can be read count, of each its first view; others are not asked for.

    Raises
    ------
    UsageError
        The tower is not in float32 on the CPU; or none of the pictures can be read, or a single one was given.
    SelfCheckError
        It embeds pictures that it was just made of otherwise than the tower does; nothing is kept.
    MissingExtraError, WeightsError
        As of `safetyfilter.embed.int8.quantising.quantise`.
    OutputError
        The cache can't be written.
    StorageError
        A path could not be read though it was tried again.
    """
    if not isinstance(tower, TorchTower) or tower.dtype.itemsize < 4 or tower.mean.device.type != "cpu":
        raise UsageError(
            "int8 is made of float32 weights on the processor; load the encoder with device='cpu', precision='fp32'"
        )
    require_writable()
    prepared = list(_prepared(prepare, several(pictures)))
    if not prepared:
        raise UsageError(
            "there is no picture to quantise on, or none that can be read; give some hundreds of those that are to be "
            "embedded (quantise_on, --quantise-on), or choose another precision"
        )
    key = made_of(spec, prepared)
    if (found := tower_made_of(key)) is not None:
        return found
    if len(prepared) < _FEW:
        many = "picture" if len(prepared) == 1 else "pictures"
        _log.warning("the encoder is quantised on %d %s; a few hundred tell its ranges better", len(prepared), many)
    made = quantise(tower, spec, prepared)
    require_near(Int8Tower(made), tower, spec, prepared[:_COMPARED])
    keep_tower(made, key)
    return made


def require_near(quantised: ImageTower, tower: ImageTower, spec: EncoderSpec, pictures: Sequence[Pixels]) -> None:
    """Raise `SelfCheckError` unless a quantised tower embeds pictures much as the tower that it was made of.

    Parameters
    ----------
    quantised, tower : ImageTower
        The two.
    spec : EncoderSpec
        Their encoder.
    pictures : sequence of ndarray
        (H, W, 3) uint8 each, prepared.

    Examples
    --------
    >>> from safetyfilter import ClipEncoder
    >>> from safetyfilter.standin import ENCODER
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    >>> pictures = [np.zeros((*encoder.spec.image_size, 3), np.uint8)]
    >>> require_near(encoder.forward, encoder.forward, encoder.spec, pictures)
    """
    pixels = torch.from_numpy(np.stack(pictures))
    with torch.inference_mode():
        cosines = (quantised(pixels) * tower(pixels)).sum(dim=1)
    cosine = float(cosines.median())
    if not cosine >= _LEAST_COSINE:
        raise SelfCheckError(
            f"{spec} in int8 gives other embeddings than in float32: their median cosine is {cosine:.4f} on "
            f"{len(pictures)} of the pictures that it was quantised on, and at least {_LEAST_COSINE:g} is asked; "
            "choose another precision, or other versions of OpenVINO and NNCF"
        )


def _prepared(prepare: ImagePreparer, pictures: Iterable[ImageInput]) -> Iterable[Pixels]:
    """Yield (H, W, 3) uint8, of each picture that can be read."""
    count = 0
    for picture in pictures:
        if count == PICTURES:
            return
        try:
            views = next(prepare.pictures(picture))
        except Unreadable:
            continue
        count += 1
        yield views[0]
