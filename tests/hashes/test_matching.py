"""Samples' images on their way to the encoder: what can't be held against lists is told."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
from safetyfilter.hashes import matching
from safetyfilter.hashes.lists import HashLists
from safetyfilter.hashes.pdq import pdq_of
from tests.conftest import encoded, photograph


def test_an_image_without_encoded_bytes_has_no_digest_and_that_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = encoded(Image.new("RGB", (8, 8)), "PNG")
    (tmp_path / "listed.txt").write_text(hashlib.md5(content, usedforsecurity=False).hexdigest())
    known = HashLists.load([str(tmp_path / "listed.txt")])
    matching._warn_of_decoded.cache_clear()
    assert matching.matched(known, content, None, DEFAULT_LIMITS) == (True, content)
    assert not caplog.messages
    opened = Image.open(io.BytesIO(content))
    for images in (opened, (opened, opened)):
        assert matching.matched(known, images, None, DEFAULT_LIMITS) == (False, images)
    (message,) = caplog.messages
    assert "against no digest on a list; pass encoded bytes or paths" in message


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_an_image_without_encoded_bytes_is_held_against_perceptual_hashes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    pytest.importorskip("pdqhash")
    picture = photograph("coffee.png").resize((300, 200)).convert(mode)
    (first, *_) = pdq_of(encoded(picture, "PNG"))
    (tmp_path / "listed.txt").write_text(first.hash.hex())
    known = HashLists.load([f"pdq={tmp_path / 'listed.txt'}"])
    matching._warn_of_decoded.cache_clear()
    assert matching.matched(known, picture, None, DEFAULT_LIMITS) == (True, picture)
    other = photograph("chelsea.png")
    assert matching.matched(known, (other, picture), None, DEFAULT_LIMITS)[0]
    assert not matching.matched(known, other, None, DEFAULT_LIMITS)[0]
    assert not caplog.messages
