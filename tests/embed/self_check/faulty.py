"""Encoders that go wrong in one way each, and somebody else's that is sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.batches import EmbeddingBatch, Floats, ImageInput
from safetyfilter.embed.spec import EncoderSpec

Change = Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class OtherEncoder:
    """An encoder that is not of this library's class and tells no precision; its embeddings are changed."""

    encoder: ClipEncoder
    change: Change = np.copy

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def spec(self) -> EncoderSpec:
        return self.encoder.spec

    @property
    def loaded(self) -> bool:
        return True

    def embed(self, images: Iterable[ImageInput], options: EmbedOptions | None = None, **how: Any) -> EmbeddingBatch:
        return self._changed(self.encoder.embed(images, options, **how))

    def embed_stream(self, items: Any, read: Any, options: EmbedOptions | None = None, **how: Any) -> Iterator[Any]:
        for records, batch in self.encoder.embed_stream(items, read, options, **how):
            yield records, self._changed(batch)

    def _changed(self, batch: EmbeddingBatch) -> EmbeddingBatch:
        return replace(batch, vectors=self.change(batch.vectors))


def with_nan(vectors: Floats) -> Floats:
    return np.where(np.arange(len(vectors))[:, None] == 1, np.float32("nan"), vectors)


def all_equal(vectors: Floats) -> Floats:
    return vectors[:1].repeat(len(vectors), axis=0)


def by_row(vectors: Floats) -> Floats:
    """As of the last row of a batch, computed from the row before."""
    return np.where(np.arange(len(vectors))[:, None] == 4, np.roll(vectors, 1, axis=0), vectors)


def by_count(vectors: Floats) -> Floats:
    """As of a library that multiplies a single row wrongly."""
    return vectors[:, ::-1].copy() if len(vectors) == 1 else vectors


def jpeg_broken(vectors: Floats) -> Floats:
    return np.where(np.arange(len(vectors))[:, None] == 3, -vectors, vectors)


def changed(encoder: ClipEncoder, change: Callable[[Any], None]) -> ClipEncoder:
    """The same encoder by its specification, with another image tower: `change` is called with the tower."""
    again = encoder.on("cpu")
    assert again.spec == encoder.spec
    with torch.no_grad():
        change(again._tower)
    return again


def other_weights(tower: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for weight in tower.visual.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)


def slightly_other_weights(tower: Any) -> None:
    """As another device's arithmetic differs, and more."""
    generator = torch.Generator().manual_seed(1)
    for weight in tower.visual.parameters():
        weight.mul_(1 + torch.randn(weight.shape, generator=generator) * 1e-3)


def other_normalisation(tower: Any) -> None:
    """As of pixels whose means and standard deviations are those of another model family."""
    tower.mean.fill_(0.5)
    tower.std.fill_(0.5)


def swapped_colours(tower: Any) -> None:
    inner = tower.forward
    tower.forward = lambda pixels: inner(pixels.flip(-1))
