"""The image tower of an encoder in int8, quantised on pictures of the user's own: from the cache, or made and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.image_tower import ImageTower, TorchTower
from safetyfilter.embed.int8.cache import keep_tower, tower_made_of
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.int8.quantising import PICTURES, made_of, quantise
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.views import Pixels
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import UsageError

_log = logging.getLogger(__name__)
_FEW = 100


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
        The tower is not in float32 on the CPU; or none of the pictures can be read.
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
    prepared = list(_prepared(prepare, pictures))
    if not prepared:
        raise UsageError(
            "there is no picture to quantise on, or none that can be read; give some hundreds of those that are to be "
            "embedded (quantise_on, --quantise-on), or choose another precision"
        )
    key = made_of(spec, prepared)
    if (found := tower_made_of(key)) is not None:
        return found
    if len(prepared) < _FEW:
        _log.warning("the encoder is quantised on %d pictures; a few hundred tell its ranges better", len(prepared))
    made = quantise(tower, spec, prepared)
    keep_tower(made, key)
    return made


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
