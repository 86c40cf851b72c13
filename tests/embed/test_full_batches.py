"""With full batches an embedding is the same to the last bit, whatever comes before it in a stream."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.forward import Forward
from safetyfilter.embed.pictures.views import Views

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 40, 3), np.uint8)
IMAGES = [Image.fromarray(pixels) for pixels in PIXELS]


def film(start: int) -> bytes:
    """Four pictures in one file."""
    buffer = io.BytesIO()
    first, *more = IMAGES[start : start + 4]
    first.save(buffer, "WEBP", save_all=True, append_images=more, lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize("views", ["whole", "multi"])
@pytest.mark.parametrize("batch_size", [4, 7, 16])
@pytest.mark.parametrize("start", [1, 3, 18, 29])
def test_what_comes_before_an_image_does_not_matter(
    encoder: ClipEncoder, views: Views, batch_size: int, start: int
) -> None:
    options = EmbedOptions(views=views, batch_size=batch_size, workers=2, full_batches=True)
    whole, rest = (encoder.embed(images, options).vectors for images in (IMAGES, IMAGES[start:]))
    assert whole[start:].tobytes() == rest.tobytes()


@pytest.mark.parametrize("start", [1, 2, 5])
def test_nor_for_further_pictures(encoder: ClipEncoder, start: int) -> None:
    films = [film(number) for number in range(6)]
    options = EmbedOptions(views="whole", batch_size=4, workers=2, full_batches=True)
    whole, rest = (encoder.embed(images, options) for images in (films, films[start:]))
    found = [np.stack([batch.others[batch.owners == row] for row in range(len(batch))]) for batch in (whole, rest)]
    assert found[0].shape == (6, 3, 32)
    assert found[0][start:].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("start", [1, 4, 8])
def test_nor_for_captions(encoder: ClipEncoder, start: int) -> None:
    texts = [f"a picture of {number} boats" for number in range(9)]
    options = EmbedOptions(batch_size=4, full_batches=True)
    whole, rest = (encoder.embed_text(some, options) for some in (texts, texts[start:]))
    assert len(rest) == 9 - start
    assert whole[start:].tobytes() == rest.tobytes()
    np.testing.assert_allclose(whole, encoder.embed_text(texts), atol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 5, 11, 12])
def test_every_pass_has_as_many_images(count: int) -> None:
    sizes: list[int] = []

    def model(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return pixels.float().mean((1, 2))

    pixels = torch.arange(count * 12, dtype=torch.uint8).reshape(count, 2, 2, 3)
    found = Forward(model, torch.device("cpu"), 4, full=True)(pixels)
    assert torch.equal(found, pixels.float().mean((1, 2)))
    assert sizes == [4] * -(-count // 4)
