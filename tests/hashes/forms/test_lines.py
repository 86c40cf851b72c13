"""Lists with one hash a line: each way of writing them gives the same hashes, and what is none is told by its line."""

from __future__ import annotations

import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.errors import HashListError
from safetyfilter.hashes import reading
from safetyfilter.hashes.forms.blocks import line_blocks
from safetyfilter.hashes.kinds import HASH_BYTES, HashKind
from tests.hashes.list_files import digest, hash_of, kept, read

MD5, SHA1, SHA256, SHA512 = (digest(kind, b"some bytes") for kind in ("md5", "sha1", "sha256", "sha512"))
KINDS = list(HashKind)
TOLD = (HashKind.MD5, HashKind.SHA1, HashKind.SHA512)

hashes = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), st.binary(min_size=HASH_BYTES[kind], max_size=HASH_BYTES[kind]))
)


@pytest.mark.parametrize(
    "text",
    [
        MD5,
        f"{MD5}\n",
        f"{MD5.upper()}\r\n",
        f"\ufeff{MD5}\n",
        f"\ufeff# a list\n\n  \n{MD5}",
        f"  {MD5}\t\n",
        f"MD5:{MD5}\n",
        f"md5: {MD5}\n",
        f"{MD5}  a picture.jpg\n",
        f"{MD5} *a,b.jpg\n",
        f"{MD5}  {SHA1}\n",
        f"{MD5} *{SHA1}\n",
        f"{MD5} of {SHA1}.jpg\n{MD5}  {SHA1}/{SHA256}\n",
        f"{MD5}\n{MD5.upper()}\n{MD5}\n",
        gzip.compress(f"{MD5}\n".encode(), mtime=0),
        gzip.compress(MD5[:9].encode(), mtime=0) + gzip.compress(MD5[9:].encode(), mtime=0),
    ],
)
def test_each_way_of_writing_gives_the_same_hash(text: str | bytes) -> None:
    assert read(text) == {HashKind.MD5: {bytes.fromhex(MD5)}}


def test_the_length_of_a_line_tells_its_kind() -> None:
    found = read("\n".join((MD5, SHA1, SHA512, f"sha256:{SHA256}", f"pdq:{SHA256}")))
    assert found == kept(
        [
            (HashKind.MD5, bytes.fromhex(MD5)),
            (HashKind.SHA1, bytes.fromhex(SHA1)),
            (HashKind.SHA256, bytes.fromhex(SHA256)),
            (HashKind.SHA512, bytes.fromhex(SHA512)),
            (HashKind.PDQ, bytes.fromhex(SHA256)),
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_named_is_that_of_all_lines(kind: HashKind) -> None:
    values = [hash_of(kind, number) for number in range(50)]
    assert read("\n".join(value.hex() for value in values), f"{kind}=FILE") == kept((kind, value) for value in values)


@given(
    found=st.lists(hashes, min_size=1, max_size=30),
    ends=st.sampled_from(["\n", "\r\n", "\n\n", " \n# a remark\n", "  some name.jpg\n"]),
    upper=st.booleans(),
    prefixed=st.booleans(),
)
@settings(max_examples=50)
def test_what_is_printed_is_read_back(
    found: list[tuple[HashKind, bytes]], ends: str, upper: bool, prefixed: bool
) -> None:
    lines = [
        ("" if kind in TOLD and not prefixed else f"{kind}:") + (value.hex().upper() if upper else value.hex())
        for kind, value in found
    ]
    assert read("".join(f"{line}{ends}" for line in lines)) == kept(found)
    assert read(ends.join(lines)) == kept(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["{kind}:", "{KIND}:", "{kind}: "])
def test_lines_that_all_name_their_kind(kind: HashKind, name: str) -> None:
    before = name.format(kind=kind, KIND=kind.upper())
    values = [hash_of(kind, number) for number in range(50)]
    lines = [f"{before}{value.hex()}\n" for value in values]
    assert read("".join(lines)) == read("".join(lines), f"{kind}=FILE") == kept((kind, value) for value in values)
    for wrong in (f"{before}\n", f"{before}{values[0].hex()[:-2]}\n", "nothing\n"):
        with pytest.raises(HashListError, match="line 51 of FILE is not a hash"):
            read("".join([*lines, wrong, *lines]))


@pytest.mark.parametrize("block", [1, 7, 33, 66, 1000])
def test_blocks_are_whole_lines_whatever_their_size(block: int) -> None:
    text = "\n".join([MD5, "", SHA1, "# x", MD5]).encode()
    blocks = list(line_blocks(io.BytesIO(text), block))
    assert b"".join(lines for _, lines in blocks) == text + b"\n"
    for number, lines in blocks:
        assert text.split(b"\n")[number - 1] == lines.split(b"\n")[0]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("nothing of the kind", "it has 7 characters"),
        (MD5[:-1], "it has 31 characters, and a hash has 32 (md5)"),
        (f"{MD5[:-1]}g", "other characters than 0 to 9 and a to f"),
        (f"{MD5[:30]}é", "31 characters"),
        (f"{MD5[:31]}٣", "other characters"),
        (SHA256, "64 hex digits are of sha256 or pdq: name the kind, as in sha256=FILE"),
        (f"sha256:{MD5}", "it has 32 characters, and sha256 has 64 hex digits"),
        ("sha256:", "it has 0 characters"),
        ("\x1f", "it has 0 characters"),
        (f"photodna:{MD5}", "41 characters"),
        (f"{MD5} {SHA1}", "it holds several; give one a line"),
        (f"{MD5}\t{MD5}\t{MD5}", "it holds several"),
        (f"{MD5}\r{MD5}", "it holds several"),
        (f"{MD5}\f{MD5}\r", "it holds several"),
        (f"{MD5}\u2028{MD5}", "it holds several"),
        (f"{MD5}  {MD5}  {MD5}", "it holds several"),
        (f"md5:{MD5} sha1:{SHA1}", "it holds several"),
        (f"{MD5}  sha1:{SHA1} a", "it holds several"),
    ],
)
@pytest.mark.parametrize("before", [1, 3000])
def test_a_line_that_is_not_a_hash_is_told_by_its_number_alone(line: str, finding: str, before: int) -> None:
    with pytest.raises(HashListError) as told:
        read(f"{MD5}\n" * before + f"{line}\n{MD5}\n")
    assert str(told.value).startswith(f"line {before + 1:,} of FILE is not a hash: ")
    assert finding in str(told.value)
    assert line[:9] not in str(told.value).replace("sha256:", "").replace("\n", "")


@pytest.mark.parametrize(
    ("line", "kind"), [(SHA1, "md5"), (f"sha1:{SHA1}", "md5"), (MD5, "sha256"), (SHA256, "sha512")]
)
def test_a_line_of_another_kind_than_the_named_one_is_told(line: str, kind: str) -> None:
    with pytest.raises(HashListError, match=r"line 1 of FILE is not a hash"):
        read(line, f"{kind}=FILE")


def test_a_compressed_text_that_grows_without_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(f"{MD5}\n".encode() + b"# nothing\n" * 200_000)
    assert len(read(content)) == 1
    monkeypatch.setattr(reading, "_INFLATED_FREELY", 1 << 20)
    monkeypatch.setattr(reading, "_INFLATED", 1)
    with pytest.raises(HashListError, match="FILE grows too much as it is decompressed"):
        read(content)


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (MD5.encode("utf-16"), "FILE is UTF-16; save it as UTF-8"),
        (b"0" * (3 << 20), "line 1 of FILE is longer than a million characters"),
        (gzip.compress(MD5.encode(), mtime=0)[:-6], "FILE is not a whole gzip file"),
        (gzip.compress(MD5.encode(), mtime=0)[:12] + b"\xff" * 20, "FILE is not a whole gzip file"),
        (bytes(range(256)), "line 1 of FILE is not a hash"),
    ],
)
def test_other_contents_are_told(content: bytes, finding: str) -> None:
    with pytest.raises(HashListError, match=finding):
        read(content)
