"""GIFs that Pillow would take for something else, or for which it would make room before a limit is looked at."""

from __future__ import annotations

import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.gif import gif_blocks
from safetyfilter.embed.pictures.headers import DecodeLimits, open_header
from tests.conftest import encoded

_CONTROL = b"!\xf9\x04"


def frame_at(left: int, top: int, width: int, height: int) -> bytes:
    """A frame of which only the place and the size matter here."""
    sides = b"".join(side.to_bytes(2, "little") for side in (left, top, width, height))
    return b"," + sides + b"\0\x02\x02\x4c\x01\0"


def gif(*frames: bytes) -> bytes:
    return b"GIF89a\x02\0\x02\0\0\0\0" + b"".join(_CONTROL + b"\x08\x05\0\0\0" + frame for frame in frames) + b";"


def animation(disposal: int = 2) -> bytes:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    return encoded(first, "GIF", save_all=True, append_images=[second], disposal=disposal, duration=20)


@pytest.mark.parametrize(
    "data",
    [
        gif(frame_at(0, 0, 1000, 1000)),
        gif(frame_at(0, 0, 2, 2), frame_at(0, 0, 1000, 1000)),
        gif(frame_at(0, 0, 2, 2), frame_at(65_000, 65_000, 2, 2)),
        gif(frame_at(0, 0, 65_535, 1), frame_at(0, 0, 1, 65_535)),
    ],
)
def test_pillow_is_not_asked_for_frames_beyond_the_limit(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GifImageFile, "_open", lambda _: pytest.fail("Pillow has begun with it"))
    with pytest.raises(Unreadable, match="too_many_pixels"):
        open_header(data, DecodeLimits(max_pixels=100_000))


def test_a_frame_that_pillow_does_not_see_is_not_passed_over() -> None:
    data = animation()
    second = data.index(_CONTROL, data.index(_CONTROL) + 1)
    hidden = (
        data[:second] + b"!\xfe\0" + b"!\x01\0" + data[second:]
    )  # of the second, Pillow takes the next for its content
    assert gif_blocks(hidden, 1000).frames == gif_blocks(data, 1000).frames == 2
    with pytest.raises(Unreadable, match="undecodable"):
        open_header(hidden, DecodeLimits())


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_whole_animation_passes(disposal: int) -> None:
    assert open_header(animation(disposal), DecodeLimits()).count == 2


def test_blocks_are_counted_up_to_the_limit() -> None:
    data = animation()
    assert not gif_blocks(data, 1000).too_many
    assert gif_blocks(data, 3).too_many
    with pytest.raises(Unreadable, match="too_many_segments"):
        open_header(data, DecodeLimits(max_segments=3))


@pytest.mark.parametrize("data", [b"GIF89a", b"GIF89a\x01", b"GIF89a\x01\0\x01\0\xff", animation()[:-9]])
def test_a_gif_that_ends_early_has_no_more_blocks(data: bytes) -> None:
    assert gif_blocks(data, 100).frames <= 2
