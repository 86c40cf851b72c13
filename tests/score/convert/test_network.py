"""The reader of LAION's zip files: damaged, oversized and hostile ones are refused with one kind of error."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetyfilter.errors import ProbeError
from safetyfilter.score.convert import protobuf, tensor_bundle
from safetyfilter.score.convert.detector import read_detector
from tests.score.published_files import DATA, INDEX, MODEL, WEIGHTS, WHY, Network, packed, published_files


@pytest.fixture(scope="module", params=["made here", "laion-b32"])
def files(request: pytest.FixtureRequest) -> dict[str, bytes]:
    """The members of a whole zip file, and under ``other`` the graph of a detector with other columns."""
    if request.param == "made here":
        return Network.random().files() | {"other": Network.random(columns=(3, 92)).files()[MODEL]}
    if not DATA.is_dir():
        pytest.skip(WHY)
    return published_files("laion-b32") | {"other": published_files("laion-l14")[MODEL]}


def whole(files: dict[str, bytes], **changes: bytes) -> dict[str, bytes]:
    """The members without ``other``, some of them changed."""
    members = {"model": MODEL, "index": INDEX, "weights": WEIGHTS}
    return {name: content for name, content in files.items() if name != "other"} | {
        members[name]: content for name, content in changes.items()
    }


def with_bytes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {n: content for n, content in whole(files).items() if n != name}


def compressed_block(index: bytes) -> bytes:
    """The index with its first data block marked as Snappy's, and the checksum made good."""
    size = first_block_size(index)
    marked = index[:size] + b"\x01"
    return marked + struct.pack("<I", tensor_bundle.masked_crc32c(marked)) + index[size + 5 :]


def first_block_size(index: bytes) -> int:
    footer = memoryview(index)[-48:]
    at, handle = 0, []
    for _ in range(4):
        value, at = protobuf.read_varint(footer, at)
        handle.append(value)
    _, value = next(iter(tensor_bundle._block(memoryview(index)[:-48], *handle[2:])))
    _, at = protobuf.read_varint(memoryview(value), 0)
    return protobuf.read_varint(memoryview(value), at)[0]


BAD = {
    "truncated": lambda f: packed(whole(f))[:-1000],
    "empty": lambda f: b"",
    "another member": lambda f: packed(whole(f) | {"evil.py": b"print()"}),
    "outside": lambda f: packed(whole(f) | {"../variables/x": b""}),
    "absolute": lambda f: packed(whole(f), root="/"),
    "missing member": lambda f: packed(without(f, INDEX)),
    "absurd ratio": lambda f: packed(whole(f) | {"keras_metadata.pb": bytes(10_000_000)}),
    "too large": lambda f: b"PK\x03\x04" + bytes(5 << 20),
    "compressed block": lambda f: packed(whole(f, index=compressed_block(f[INDEX]))),
    "no magic": lambda f: packed(whole(f, index=f[INDEX][:-1] + b"\0")),
    "short index": lambda f: packed(whole(f, index=f[INDEX][-20:])),
    "block checksum": lambda f: packed(whole(f, index=with_bytes(f[INDEX], 40, b"\xff"))),
    "tensor checksum": lambda f: packed(whole(f, weights=with_bytes(f[WEIGHTS], 5000, b"\x01\x02"))),
    "short weights": lambda f: packed(whole(f, weights=f[WEIGHTS][:3000])),
    "no vocabulary": lambda f: packed(whole(f, model=b"")),
    "short graph": lambda f: packed(whole(f, model=f[MODEL][: len(f[MODEL]) // 2])),
    "another's graph": lambda f: packed(whole(f, model=f["other"])),
}


def test_whole_files_are_read(files: dict[str, bytes]) -> None:
    assert len(read_detector(packed(whole(files))).vocabularies) == 3


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused(files: dict[str, bytes], what: str) -> None:
    with pytest.raises(ProbeError, match="compressed" if what == "compressed block" else "damaged"):
        read_detector(BAD[what](files))


def test_a_claimed_size_is_not_believed(files: dict[str, bytes]) -> None:
    data = bytearray(packed(whole(files)))
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 3_000_000_000)
    with pytest.raises(ProbeError, match="claims 3,000,000,000 bytes"):
        read_detector(bytes(data))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([INDEX, MODEL]), st.integers(0, 10**7), st.binary(min_size=1, max_size=12), st.data())
def test_no_damage_raises_anything_else(
    files: dict[str, bytes], name: str, at: int, new: bytes, data: st.DataObject
) -> None:
    content = files[name]
    places = [at % len(content), at % min(1200, len(content)), len(content) - 1 - at % 40]
    damaged = with_bytes(content, data.draw(st.sampled_from(places)), new)[: len(content)]
    try:
        detector = read_detector(packed(whole(files) | {name: damaged}))
    except ProbeError:
        return
    assert detector.width == 512
    assert len(detector.vocabularies) == 3


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_damage_to_the_zip_itself_raises_nothing_else(noise: bytes, at: int) -> None:
    whole_zip = packed(Network.random(columns=(3,)).files())
    places = {"start": at, "end": len(whole_zip) - len(noise) - at % 60}
    for place in places.values():
        try:
            read_detector(with_bytes(whole_zip, max(place, 0), noise))
        except ProbeError as error:
            assert "damaged" in str(error)  # noqa: PT017 - most damage is refused, and some changes nothing


@given(st.binary(max_size=200))
def test_any_bytes_are_a_bundle_or_refused(noise: bytes) -> None:
    footer = noise[:40].ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    with pytest.raises(ProbeError):
        tensor_bundle.read_index(noise + footer)


@pytest.mark.parametrize("message", [b"\x80", b"\xff" * 11, b"\x0a\x05ab", b"\x0b", b"\x00\x00", b"\x0d\x00"])
def test_bad_messages(message: bytes) -> None:
    with pytest.raises(ProbeError):
        list(protobuf.fields(memoryview(message)))
