"""The identity of an encoder: everything that its embeddings depend on, and a digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

_LABELS = ("architecture", "tag", "known_by")
"""Fields that are no part of the identity."""
_SINCE = {"config_sha256": "", "fill_color": 0}
"""Fields that specifications of version 0.2.0 do not have, and what they are taken for there."""

_TEXTS = ("architecture", "weights_sha256", "config_sha256", "interpolation", "resize_mode", "tag", "known_by")
_NUMBERS = ("image_size", "mean", "std", "fill_color", "width")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """The identity of an encoder: two with equal ones give interchangeable embeddings.

    Attributes
    ----------
    architecture : str
        open_clip's name of the architecture; ``custom-`` and a digest of the configuration where it has none. A label:
        the same weights under another name are the same encoder.
    weights_sha256 : str
        SHA-256 in hex over the float32 weights, by parameter name, independent of the file they came in.
    config_sha256 : str
        SHA-256 in hex over what the model's configuration makes of its input besides the weights: activation, pooling
        and the like; empty in a specification that version 0.2.0 wrote.
    image_size : tuple of int
        Height and width of the model's input in pixels.
    mean, std : tuple of float
        Per channel, on pixel values in [0, 1].
    interpolation, resize_mode : str
        As in open_clip's preprocessing configuration.
    fill_color : int
        From 0 to 255; fills what the resize mode leaves empty.
    width : int
        D, the embedding's length.
    tag : str
        open_clip's name of the weights, where it lists them for the architecture. A label, as the architecture's name.
    known_by : tuple of str
        Digests, or their first 12 digits or more, that are taken for this encoder too, as its user said.

    Examples
    --------
    >>> spec = EncoderSpec(architecture="ViT-X", weights_sha256="0", config_sha256="1", image_size=(8, 8),
    ...                    mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic", resize_mode="squash", width=3)
    >>> from dataclasses import replace
    >>> replace(spec, architecture="a-copy").digest == spec.digest, replace(spec, fill_color=9).digest == spec.digest
    (True, False)
    """

    architecture: str = field(compare=False)
    weights_sha256: str
    config_sha256: str = ""
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    fill_color: int = 0
    width: int
    tag: str = field(default="", compare=False)
    known_by: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """The architecture's name, with that of the weights where open_clip lists them."""
        return f"{self.architecture}/{self.tag}" if self.tag else self.architecture

    @property
    def only_named(self) -> bool:
        """True where the weights were never seen, as of an encoder that stored embeddings are said to come from."""
        return self.weights_sha256.startswith(("named ", "of the encoder "))

    @property
    def named_digest(self) -> str:
        """The digest of the encoder where it is known by open_clip's names alone; empty where these don't tell it."""
        if not self.tag or not self.config_sha256:
            return ""
        return replace(self, weights_sha256=f"named {self.tag}").digest

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all of the above but the architecture's name."""
        if not self.config_sha256:
            return self.former_digest
        return _digest({name: value for name, value in asdict(self).items() if name not in _LABELS})

    @property
    def former_digest(self) -> str:
        """The digest that version 0.2.0 gave: with the architecture's name, without activation and fill colour."""
        left_out = {*_SINCE, *_LABELS} - {"architecture"}
        return _digest({name: value for name, value in asdict(self).items() if name not in left_out})

    def is_named_by(self, digest: str) -> bool:
        """Return True for this encoder's digest, for those it is known by, and for that which version 0.2.0 gave it.

        The latter could not tell fill colours apart, and so counts where nothing is filled but with black.
        """
        if digest in (self.digest, self.named_digest) or any(digest.startswith(known) for known in self.known_by):
            return bool(digest)
        return digest == self.former_digest and self.fill_color == 0

    def identity(self) -> dict[str, object]:
        """Plain values that are the same for each name of the encoder, for the digests of what depends on it."""
        return {"digest": self.digest} if self.config_sha256 else self.as_dict()

    def as_dict(self) -> dict[str, object]:
        """Plain values, with the digest."""
        values = {
            name: value for name, value in asdict(self).items() if name != "known_by" and (name != "tag" or value)
        }
        if not self.config_sha256:  # as they were read
            values = {name: value for name, value in values.items() if value != _SINCE.get(name)}
        return values | {"digest": self.digest}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> EncoderSpec:
        """The specification that `as_dict` wrote (JSON's lists become tuples again); TypeError where it is none."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "digest"}
        spec = cls(**values)  # type: ignore[arg-type]
        for name in (*_TEXTS, *_NUMBERS):
            value, kind = getattr(spec, name), str if name in _TEXTS else int | float
            if not all(isinstance(each, kind) for each in (value if isinstance(value, tuple) else (value,))):
                raise TypeError(f"{name} is {value!r}")
        return spec

    def __str__(self) -> str:
        return f"{self.name} ({self.digest[:12]})"


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
