"""Loading lists: their names, the pages of one, what is not used, and errors that say what to do."""

from __future__ import annotations

import binascii
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import HashLists
from safetyfilter.errors import HashListError, MissingExtraError, UsageError
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import ListFile
from safetyfilter.storage import Location
from tests.hashes.list_files import deleted, digest, image, page, page_of_updates, put, update

MD5, SHA1, SHA256 = (digest(kind, b"some bytes") for kind in ("md5", "sha1", "sha256"))
OTHER = digest("md5", b"other bytes")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("list.txt", ListFile(file="list.txt")),
        ("md5=list.txt", ListFile(file="list.txt", kind=HashKind.MD5)),
        ("SHA-256=list.txt", ListFile(file="list.txt", kind=HashKind.SHA256)),
        ("url_sha1=a=b.txt", ListFile(file="a=b.txt", kind=HashKind.URL_SHA1)),
        ("pdq:my column=s3://a/b.csv", ListFile(file="s3://a/b.csv", kind=HashKind.PDQ, column="my column")),
        ("pdq:a:b=c.csv", ListFile(file="c.csv", kind=HashKind.PDQ, column="a:b")),
        ("s3://bucket/a=b", ListFile(file="s3://bucket/a=b")),
        ("photodna=list.txt", ListFile(file="photodna=list.txt")),
        ("./md5=list.txt", ListFile(file="./md5=list.txt")),
    ],
)
def test_names_of_lists(name: str, expected: ListFile) -> None:
    assert ListFile.named(name) == expected


@pytest.mark.parametrize("name", ["", "md5=", "md5:=list.txt", "md5:a="])
def test_names_that_are_not_one(name: str) -> None:
    with pytest.raises(UsageError, match="give FILE, KIND=FILE or KIND:COLUMN=FILE"):
        HashLists.load([name])


@pytest.mark.parametrize("names", [[], (), "list.txt"])
def test_one_or_more_lists_are_given_in_a_sequence(names: object) -> None:
    with pytest.raises(UsageError, match="give a sequence of one or more names"):
        HashLists.load(names)


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        ({"a.txt": ""}, "a.txt holds no hash that can be used; give another file"),
        ({"a.txt": "# nothing\n\n"}, "a.txt holds no hash that can be used; give another file"),
        ({"a.txt": MD5, "b.txt": ""}, "b.txt holds no hash that can be used"),
        ({"a.txt": f"{MD5}\n-"}, "line 2 of .*/a.txt is not a hash"),
        (
            {"a.json": page_of_updates(update(1, "HASH_TMK", "x"))},
            "no hash that can be used; it has 1 of the kind HASH",
        ),
        ({"a.xml": page(image("one", {"pdna": "A"}))}, "hold no hash that can be used"),
        ({"a.xml": page()}, "a.xml holds no hash that can be used"),
        ({"a.xml": page(image("one", {"md5": MD5})), "b.xml": page(deleted("one"))}, "hold no hash that can be used"),
    ],
)
def test_what_is_no_list_is_told(files: dict[str, str], finding: str, tmp_path: Path) -> None:
    with pytest.raises(HashListError, match=finding):
        HashLists.load([put(tmp_path, name, text) for name, text in files.items()])


@pytest.mark.parametrize("name", ["a\0.txt", "a" * 300])
def test_a_name_that_no_file_can_have_is_told(name: str) -> None:
    with pytest.raises(HashListError, match="hash list"):
        HashLists.load([name])


@pytest.mark.parametrize("name", ["missing.txt", "a.txt/b.txt"])
def test_a_file_that_is_not_there_is_told(name: str, tmp_path: Path) -> None:
    put(tmp_path, "a.txt", MD5)
    with pytest.raises(HashListError, match=r"there is no hash list .*; give a file of hashes"):
        HashLists.load([str(tmp_path / name)])


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(HashListError, match="can't read the hash list"):
        HashLists.load([str(tmp_path)])


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Location) -> bool:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(Location, "is_file", refused)
    with pytest.raises(HashListError, match=r"can't read the hash list .*/a.txt: Permission denied; give"):
        HashLists.load([put(tmp_path, "a.txt", MD5)])


def test_lists_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    names = [put(tmp_path, name, MD5) for name in ("x/a.txt", "y/a.txt", "y/b.txt")]
    known = HashLists.load(names)
    assert known.names == ("x/a.txt", "y/a.txt", "b.txt")
    assert known.match([b"some bytes"]).lists == known.names


def test_two_columns_of_one_file_are_lists_of_one_name(tmp_path: Path) -> None:
    file = put(tmp_path, "a.csv", f"one,two,three\n{MD5},{SHA1},{digest('md5', b'https://one.example/')}\n")
    known = HashLists.load([f"md5:one={file}", f"sha1:two={file}", f"url-md5:three={file}"])
    assert known.names == ("a.csv",) * 3
    assert known.match([b"some bytes"], "https://one.example/").lists == ("a.csv",)


def test_a_list_in_other_storage() -> None:
    Location.of("memory://lists/a.txt").fs.pipe_file("/lists/a.txt", MD5.encode())
    known = HashLists.load(["memory://lists/a.txt"])
    assert known.names == ("a.txt",)
    assert known.match([b"some bytes"]).lists == ("a.txt",)


PAGES = {
    "page2.xml": page(image("one", {"md5": MD5}), image("two", {"md5": OTHER})),
    "page10.xml": page(deleted("one"), image("three", {"sha1": SHA1})),
}


def test_a_later_page_deletes_what_an_earlier_one_lists(tmp_path: Path) -> None:
    pages = [put(tmp_path, name, text) for name, text in PAGES.items()]
    known = HashLists.load(pages)
    assert [(one.name, len(one)) for one in known.lists] == [("page2.xml", 1), ("page10.xml", 1)]
    assert not known.match([b"some bytes"]).lists[1:]
    assert known.match([b"other bytes"]).lists == ("page2.xml",)
    assert [len(one) for one in HashLists.load(pages[::-1]).lists] == [1, 2]


def test_a_page_of_nothing_but_deletions_is_a_page(tmp_path: Path) -> None:
    names = [put(tmp_path, "1.xml", PAGES["page2.xml"]), put(tmp_path, "2.xml", page(deleted("one")))]
    assert [len(one) for one in HashLists.load(names).lists] == [1, 0]


def test_a_folder_of_pages_is_one_list_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name, text in PAGES.items():
        put(tmp_path / "pages", name, text)
    put(tmp_path / "pages", ".hidden", "none")
    known = HashLists.load([str(tmp_path / "pages")])
    assert (known.names, len(known)) == (("pages",), 2)
    assert known.match([b"other bytes"]).lists == ("pages",)


def test_a_kind_that_is_named_is_the_only_one_that_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = page(image("one", {"md5": MD5, "sha1": SHA1, "pdq": SHA256}))
    known = HashLists.load([f"md5={put(tmp_path, 'a.xml', text)}"])
    assert known.kinds == {HashKind.MD5}
    assert "1 of the kind pdq, 1 of the kind sha1" in caplog.text


def test_what_is_not_used_is_counted_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = [update(number, "HASH_TMK", "x") for number in range(1500)]
    file = put(tmp_path, "a.json", page_of_updates(*entries, update(9999, "HASH_MD5", MD5)))
    with caplog.at_level(logging.WARNING):
        HashLists.load([file])
    (record,) = caplog.records
    assert record.getMessage().endswith("a.json has entries that are not used: 1,500 of the kind HASH_TMK")


def test_a_list_that_is_used_as_a_whole_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    HashLists.load([put(tmp_path, "a.txt", MD5)])
    assert caplog.records == []


def test_perceptual_hashes_ask_for_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pdqhash", None)
    with pytest.raises(MissingExtraError, match="hashes"):
        HashLists.load([f"pdq={put(tmp_path, 'a.txt', SHA256)}"])


COUNT = 1_000_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A list of a million SHA-256 digests."""
    lines = np.full((COUNT, 65), ord("\n"), np.uint8)
    digits = np.random.default_rng(0).integers(0, 16, (COUNT, 64), np.uint8)
    lines[:, :64] = np.frombuffer(b"0123456789abcdef", np.uint8)[digits]
    return f"sha256={put(tmp_path_factory.mktemp('many'), 'a.txt', lines.tobytes())}"


def test_memory_is_little_more_than_what_is_kept(many: str) -> None:
    """Sixteen bytes a digest, an eighth more as they grow, and some blocks of text."""
    blocks = 24 << 20
    tracemalloc.start()
    try:
        known = HashLists.load([many])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(known) == COUNT
    assert peak < 16 * COUNT * 1.25 + blocks


def test_loading_takes_a_few_times_what_decoding_and_sorting_take(many: str) -> None:
    def decoded_and_sorted() -> None:
        content = binascii.unhexlify(Path(many.removeprefix("sha256=")).read_bytes().replace(b"\n", b""))
        np.frombuffer(content, "S32").astype("S16").sort()

    def processor_s(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    assert processor_s(lambda: HashLists.load([many])) < 4 * processor_s(decoded_and_sorted)
