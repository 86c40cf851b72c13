"""An encoder that is only named: embeddings that are stored already came from it, and nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch

from safetyfilter.batches import EmbeddingBatch, Floats, ImageInput
from safetyfilter.embed.clip.configuration import config_digest
from safetyfilter.embed.clip.names import check_activation, default_tag, listed_config, no_such_weights
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.embed.libraries import open_clip
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import QuickGELUMismatchError, UnknownEncoderError, UsageError

_DIGITS = 12
_DIGEST = re.compile(rf"sha256:([0-9a-f]{{{_DIGITS},64}})")


@dataclass(frozen=True, slots=True)
class NamedEncoder:
    """The identity of the encoder that stored embeddings came from; it embeds nothing.

    Parameters
    ----------
    spec : EncoderSpec
        Its identity: of `named`, or of an encoder that was loaded once (``encoder.spec``, or
        ``run.record.setup.encoder``).

    Examples
    --------
    >>> encoder = NamedEncoder.named("ViT-L-14-quickgelu", "openai")
    >>> encoder.spec.width, encoder.spec.name
    (768, 'ViT-L-14-quickgelu/openai')
    >>> encoder.embed_text(["a boat"])
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: ViT-L-14-quickgelu/openai is only named, and embeds nothing: ...
    """

    loaded: ClassVar[bool] = False
    """There is no model."""

    spec: EncoderSpec

    @classmethod
    def named(cls, model: str, pretrained: str | None = None) -> NamedEncoder:
        """Return an encoder by the name that open_clip has for it.

        Parameters
        ----------
        model : str
            An architecture that open_clip lists.
        pretrained : str or None
            A tag of it; ``openai`` or the only one where None. Or ``sha256:`` and at least 12 hex digits of the
            encoder's digest, as a probe file or a run names it: the weights are then those and no others.

        Raises
        ------
        UnknownEncoderError
            open_clip lists no such model or tag.
        QuickGELUMismatchError
            It lists the tag with another activation.
        """
        config = listed_config(model)
        tag = default_tag(model) if pretrained is None else pretrained
        known: tuple[str, ...] = ()
        preprocessing = Preprocessing()
        if digest := _DIGEST.fullmatch(tag):
            for listed_tag in open_clip.list_pretrained_tags_by_model(model):
                with suppress(QuickGELUMismatchError):
                    if (found := cls.named(model, listed_tag)).spec.digest.startswith(digest[1]):
                        return found
            known, tag = (digest[1],), ""
            weights = f"of the encoder {digest[1][:_DIGITS]}"  # the same encoder, however many digits are given
        elif listed := open_clip.get_pretrained_cfg(model, tag):
            check_activation(model, tag, config, needed=True if listed.get("quick_gelu") else None)
            preprocessing, weights = Preprocessing.of(listed), f"named {tag}"
        elif tag.startswith("sha256"):
            raise UnknownEncoderError(f"{tag!r} is not a digest; give sha256: and 12 to 64 hex digits")
        else:
            raise no_such_weights(model, tag)
        size = config["vision_cfg"].get("image_size", 224)
        return cls(
            EncoderSpec(
                architecture=model,
                weights_sha256=weights,
                config_sha256=config_digest(config),
                image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
                mean=preprocessing.mean,
                std=preprocessing.std,
                interpolation=preprocessing.interpolation,
                resize_mode=preprocessing.resize_mode,
                fill_color=preprocessing.fill_color,
                width=int(config["embed_dim"]),
                tag=tag,
                known_by=known,
            )
        )

    @property
    def device(self) -> torch.device:
        """The processor: nothing else is used."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """float32, in which embeddings are scored."""
        return torch.float32

    def on(self, device: str) -> NamedEncoder:
        """Return this encoder: it uses no device."""
        return self

    def text_tower_to_device(self) -> None:
        """Do nothing: captions have stored embeddings too."""

    @property
    def logit_scale(self) -> float:
        """Raise `UsageError`: a temperature is the loaded model's."""
        self._refuse()

    def embed(
        self, images: Iterable[ImageInput], options: EmbedOptions | None = None, *, closer: Any = None
    ) -> EmbeddingBatch:
        """Raise `UsageError`: there is no model."""
        self._refuse()

    def embed_stream(
        self, items: Any, read: Any, options: EmbedOptions | None = None, *, closer: Any = None
    ) -> Iterator[Any]:
        """Raise `UsageError`: there is no model."""
        self._refuse()

    def embed_text(self, texts: Sequence[str], options: EmbedOptions | None = None) -> Floats:
        """Raise `UsageError`: there is no text tower, which zero-shot probes need."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"{self.spec.name} is only named, and embeds nothing: it is for stored embeddings and probes from files "
            "(--probes FILE, of `safetyfilter train` or `safetyfilter probes fetch`). Zero-shot probes are made where "
            "the encoder can be loaded, by zero_shot_probes(ClipEncoder.load(...)).save(FILE), and images are embedded "
            "by ClipEncoder.load(...)"
        )
