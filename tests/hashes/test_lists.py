"""Lists of known content: a picture or a URL that is on one is found, by its bytes, its looks or its URL's bytes."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

import safetyfilter
from safetyfilter import HashLists
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.lists import HashFindings
from safetyfilter.hashes.pdq import pdq_of
from tests.conftest import encoded, photograph
from tests.hashes.list_files import digest, put

URL = "https://one.example/ä?b=c#d"
CRYPTOGRAPHIC = [kind for kind in HashKind if kind.of_bytes]
OF_URLS = [kind for kind in HashKind if kind.of_url]


@pytest.fixture(scope="module")
def picture() -> bytes:
    return encoded(photograph("coffee.png").resize((256, 192)), quality=90)


@pytest.fixture(scope="module")
def other() -> bytes:
    return encoded(photograph("rocket.jpg").resize((256, 192)), quality=90)


@pytest.mark.parametrize("kind", CRYPTOGRAPHIC)
def test_a_picture_is_found_by_its_bytes(kind: HashKind, picture: bytes, other: bytes, tmp_path: Path) -> None:
    known = HashLists.load([f"{kind}={put(tmp_path, 'a.txt', digest(kind, picture))}"])
    assert known.kinds == {kind}
    assert known.match([picture]) == known.match([other, picture]) == HashFindings(lists=("a.txt",))
    assert known.match([other]) == known.match([picture + b"\0"]) == HashFindings()
    assert known.match([]) == HashFindings(unchecked=True)


@pytest.mark.parametrize("kind", OF_URLS)
def test_a_url_is_found_by_its_bytes_to_the_letter(kind: HashKind, picture: bytes, tmp_path: Path) -> None:
    known = HashLists.load([f"{kind}={put(tmp_path, 'a.txt', digest(kind, URL.encode()))}"])
    assert known.needs_urls
    assert known.match([picture], URL) == known.match([], URL) == HashFindings(lists=("a.txt",))
    assert known.match([URL.encode()], URL.upper()) == HashFindings()
    assert known.match([picture]) == HashFindings(unchecked=True)
    urls = ["x", None, URL, ""]
    expected = tuple(known.match((), url) for url in urls)
    assert known.match_urls(urls) == known.match_urls(pa.array(urls)) == known.match_urls(pa.chunked_array([urls]))
    assert known.match_urls(urls) == expected
    assert known.match_urls([]) == ()


def test_several_lists_are_told_in_their_order(picture: bytes, tmp_path: Path) -> None:
    known = HashLists.load(
        [
            put(tmp_path, "b.txt", digest("sha1", picture)),
            put(tmp_path, "c.txt", digest("sha1", b"another")),
            put(tmp_path, "a.txt", f"sha256:{digest('sha256', picture)}\nurl-md5:{digest('md5', URL.encode())}"),
        ]
    )
    assert known.names == ("b.txt", "c.txt", "a.txt")
    assert len(known) == 4
    assert known.match([picture], URL).lists == ("b.txt", "a.txt")
    assert known.match([picture]) == HashFindings(lists=("b.txt", "a.txt"), unchecked=True)
    assert known.match([b"none"], URL).lists == ("a.txt",)
    assert known.match_urls([URL, "x"]) == (HashFindings(lists=("a.txt",)), HashFindings())


def test_a_picture_is_found_by_its_looks(picture: bytes, other: bytes, tmp_path: Path) -> None:
    pytest.importorskip("pdqhash")
    hashes = b"".join(found.hash for found in pdq_of(picture))
    known = HashLists.load([f"pdq={put(tmp_path, 'a.txt', hashes.hex())}"])
    assert known.needs_pdq
    with Image.open(io.BytesIO(picture)) as opened:
        smaller, mirrored = opened.resize((128, 96)), opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for copy in (picture, encoded(smaller, quality=60), encoded(mirrored, "PNG")):
        assert known.match([copy]) == HashFindings(lists=("a.txt",))
    assert known.match([other]) == HashFindings()
    assert known.match([encoded(Image.new("RGB", (64, 64)))]) == HashFindings(unchecked=True)
    assert known.match([b"no picture", picture]) == HashFindings(lists=("a.txt",), unchecked=True)


def test_lists_go_to_other_processes(picture: bytes, tmp_path: Path) -> None:
    known = HashLists.load([put(tmp_path, "a.txt", f"{digest('md5', picture)}\n{digest('sha1', picture)}")])
    sent = pickle.loads(pickle.dumps(known))
    assert (sent.names, sent.digests, sent.kinds, len(sent)) == (known.names, known.digests, known.kinds, 2)
    assert sent.match([picture]) == known.match([picture])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("{two}\n{one}\n{one}\n", True),
        ("# a remark\n{one}\n{two}  with a name\n", True),
        ("{one}\n", False),
        ("{one}\n{two}\n{three}\n", False),
        ("url-md5:{one}\nurl-md5:{two}\n", False),
    ],
)
def test_the_digest_of_a_list_is_that_of_its_hashes(text: str, same: bool, tmp_path: Path) -> None:
    named = {name: digest("md5", name.encode()) for name in ("one", "two", "three")}
    first = put(tmp_path, "a.txt", "{one}\n{two}\n".format(**named))
    second = put(tmp_path, "b.txt", text.format(**named))
    known = HashLists.load([first, second])
    assert (known.digests[0] == known.digests[1]) == same


def test_the_digest_of_a_list_is_as_described(tmp_path: Path) -> None:
    import hashlib

    value = hashlib.sha256(b"x").digest()
    known = HashLists.load([f"sha256={put(tmp_path, 'a.txt', value.hex())}"])
    described = hashlib.sha256(b"sha256\0" + (1).to_bytes(8, "big") + value[:16]).hexdigest()
    assert known.digests == (described,)


def test_what_is_printed_of_lists_holds_none_of_their_hashes(tmp_path: Path) -> None:
    known = HashLists.load([put(tmp_path, "a.txt", "00" * 16)])
    assert repr(known).startswith("HashLists(lists=(HashList(name='a.txt', digest='")
    assert "rows" not in repr(known)
    assert repr(known.lists[0].indexes[HashKind.MD5]) == "DigestIndex()"


def test_the_public_name() -> None:
    assert safetyfilter.HashLists is HashLists
