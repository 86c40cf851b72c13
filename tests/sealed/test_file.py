"""Files of sealed chunks: read one chunk at a time, and told where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetyfilter.errors import SealedError
from safetyfilter.sealed.file import MARK, read_chunks, write_chunks
from safetyfilter.sealed.opening import open_part
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.storage import Location
from tests.sealed.conftest import PART, RUN


@pytest.fixture
def place(tmp_path: Path, sealed: tuple[bytes, ...]) -> Location:
    write_chunks(Location.of(tmp_path / "part-00000.bin"), sealed)
    return Location.of(tmp_path / "part-00000.bin")


def test_chunks_come_back(place: Location, sealed: tuple[bytes, ...]) -> None:
    assert tuple(read_chunks(place)) == sealed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_a_file_that_is_cut_off_is_told_wherever(place: Location, keys: PrivateKeys, data: st.DataObject) -> None:
    whole = Path(place).read_bytes()
    ends = [len(MARK) + n * (4 + 4144) + more for n in range(5) for more in (0, 1, 3, 4, 5)]
    end = data.draw(st.sampled_from(ends) | st.integers(0, len(whole) - 1))
    cut = place.folder / "cut.bin"
    Path(cut).write_bytes(whole[:end])
    part = open_part(read_chunks(cut), keys, run=RUN, part=PART)
    assert "the last chunk is missing, and nothing tells how many were there" in part.faults


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_changed_bit_is_told_wherever(place: Location, keys: PrivateKeys, at: int, bit: int) -> None:
    content = bytearray(Path(place).read_bytes())
    content[at % len(content)] ^= 1 << bit
    altered = place.folder / "altered.bin"
    Path(altered).write_bytes(content)
    assert open_part(read_chunks(altered), keys, run=RUN, part=PART).faults


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a file of sealed records of this version"),
        (b"sealed records of safetyfilter 2\n", "is not a file of sealed records of this version"),
        (MARK + b"\xff\xff\xff\xff", "no length of the next follows"),
        (MARK + b"\x00\x00", "no length of the next follows"),
        (MARK + b"\x00\x00\x00\x04abc", "1 of 4 bytes are missing"),
    ],
)
def test_what_is_not_such_a_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(SealedError, match=message):
        list(read_chunks(Location.of(tmp_path / "a.bin")))
