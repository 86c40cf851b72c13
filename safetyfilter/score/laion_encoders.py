"""The encoders that LAION's detectors belong to, and the check that embeddings come from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError

_IMAGE_SIZE = (224, 224)
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEncoder:
    """An encoder that one of LAION's detectors was trained on.

    Attributes
    ----------
    architecture : str
        open_clip's name of it; OpenAI's weights need QuickGELU.
    tag : str
        open_clip's name of the weights.
    config_sha256 : str
        The digest of its configuration, the same by whatever name it is loaded.
    """

    architecture: str
    tag: str
    config_sha256: str


ENCODERS: Mapping[int, DetectorEncoder] = MappingProxyType(
    {
        768: DetectorEncoder(
            architecture="ViT-L-14-quickgelu",
            tag="openai",
            config_sha256="4a849602d002529609198b9e3dc42394e862288140f948b8923ab3d7649707d6",
        ),
        512: DetectorEncoder(
            architecture="ViT-B-32-quickgelu",
            tag="openai",
            config_sha256="e573c86d032c98a0dc34f49b8730b8dcb6ee92c2288709442ac117037ce7799d",
        ),
        # The detector's page names no weights. clip-retrieval, for which it was made, loads open_clip's ViT-H-14, and
        # these were then the only ones listed for it.
        1024: DetectorEncoder(
            architecture="ViT-H-14",
            tag="laion2b_s32b_b79k",
            config_sha256="7437beeb31c3d49d9a785790fe52d427537dba9ec487c954579f4de4a16415c3",
        ),
    }
)
"""The encoders, by the width of their embeddings."""


def require_encoder(width: int, spec: EncoderSpec) -> None:
    """Raise unless an encoder can be the one that LAION's detector of this width belongs to.

    The configuration, the width and the preprocessing are checked, and the name of the weights where there is one.

    Raises
    ------
    EncoderMismatchError
        It is another.

    Examples
    --------
    >>> spec = EncoderSpec(architecture="ViT-X", weights_sha256="0", image_size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1),
    ...                    interpolation="bicubic", resize_mode="squash", width=768)
    >>> require_encoder(768, spec)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.EncoderMismatchError: LAION's detector belongs to ViT-L-14-quickgelu with the weights openai \
and their preprocessing, and the embeddings come from ViT-X (117fa727d65e), width 768; load the encoder as \
ViT-L-14-quickgelu, pretrained openai, or use other probes
    """
    wanted = ENCODERS.get(width)
    if wanted is None:
        raise EncoderMismatchError(
            f"LAION's detectors take embeddings of {', '.join(map(str, ENCODERS))} columns, and this one takes "
            f"{width}; fetch a published one with `safetyfilter probes fetch`"
        )
    if spec.config_sha256:
        made_as_wanted = spec.config_sha256 == wanted.config_sha256
    else:  # of version 0.2.0, whose specifications tell no more than the name
        made_as_wanted = spec.architecture == wanted.architecture
    fits = made_as_wanted and spec.width == width and tuple(spec.image_size) == _IMAGE_SIZE
    fits = fits and spec.tag in ("", wanted.tag)
    if not fits or not np.allclose([spec.mean, spec.std], [_MEAN, _STD], atol=1e-6):
        raise EncoderMismatchError(
            f"LAION's detector belongs to {wanted.architecture} with the weights {wanted.tag} and their preprocessing, "
            f"and the embeddings come from {spec}, width {spec.width}; load the encoder as {wanted.architecture}, "
            f"pretrained {wanted.tag}, or use other probes"
        )
