"""Samples' images on their way to the encoder: what can't be held against lists is told."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from safetyfilter.embed.headers import DEFAULT_LIMITS
from safetyfilter.hashes import matching
from safetyfilter.hashes.lists import HashLists
from tests.conftest import encoded


def test_an_image_without_encoded_bytes_is_on_no_list_and_that_is_told_once(
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
    assert "held against no list of known content; pass encoded bytes or paths" in message
