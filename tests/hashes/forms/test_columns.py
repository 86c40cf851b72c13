"""Lists as CSV: the column is told by the header or by the user, and a cell that is not a hash by its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.errors import HashListError
from safetyfilter.hashes.kinds import HashKind
from tests.hashes.list_files import digest, hash_of, kept, read, table

MD5, SHA1, SHA256 = (digest(kind, b"some bytes") for kind in ("md5", "sha1", "sha256"))
ONE_MD5 = {HashKind.MD5: {bytes.fromhex(MD5)}}


@pytest.mark.parametrize("header", ["md5", "MD5", "md5_hash", "Hash MD5", "md5sum", "hash", "Digest", "hash_value"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_header_tells_the_column(header: str, delimiter: str) -> None:
    assert read(table([["id", header, "note"], [1, MD5, "a, b; c\nd"]], delimiter)) == ONE_MD5


@pytest.mark.parametrize("text", [f"md5\n{MD5}\n", f'"md5"\n"{MD5}"\n', f"\ufeff# x\n\nmd5\r\n{MD5}\r\n\r\n"])
def test_a_table_of_one_column(text: str) -> None:
    assert read(text) == ONE_MD5


@pytest.mark.parametrize("note", ["ü", '"ü"'])
def test_other_cells_may_be_in_any_encoding(note: str) -> None:
    assert read(f"note,md5\n{note},{MD5}\n".encode("latin-1")) == ONE_MD5


@pytest.mark.parametrize("quote_at", [None, 0, 1, 3000, 3999])
def test_rows_are_the_same_whether_they_are_read_at_once_or_singly(quote_at: int | None) -> None:
    """A quoted cell may hold delimiters and ends of lines; what is behind it is read singly."""
    values = [hash_of(HashKind.MD5, number) for number in range(4000)]
    filler = "x" * 300  # so that there are several blocks
    rows = [f"{number},{value.hex()},{filler}" for number, value in enumerate(values)]
    if quote_at is not None:
        rows[quote_at] = f'"a,""b""\n{quote_at}",{values[quote_at].hex()},x'
    text = "id,md5,c\r\n" + "\r\n".join(rows)
    assert read(text) == kept((HashKind.MD5, value) for value in values)
    added = 2 if quote_at is None else 3
    with pytest.raises(HashListError, match=f"line {4000 + added:,} of FILE has a cell that is not a hash"):
        read(f"{text}\n1,00,x\n")


def test_all_columns_that_name_a_kind_are_taken() -> None:
    text = table([["md5", "SHA-1", "sha256", "size"], [MD5, SHA1, SHA256, 3], ["", "", SHA256, 3]])
    assert set(read(text)) == {HashKind.MD5, HashKind.SHA1, HashKind.SHA256}
    assert set(read(text, "sha1=FILE")) == {HashKind.SHA1}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("md5:Fingerprint=FILE", table([["a", "fingerprint"], [SHA1, MD5]])),
        ("md5:2=FILE", table([[SHA1, MD5], [SHA1, MD5]])),
        ("url-md5:2=FILE", table([["a", "b"], [SHA1, MD5]])),
        ("md5:a-b=FILE", table([["A b", "a-b"], [SHA1, MD5]])),
        ("md5:2=FILE", table([["2", "1"], [MD5, SHA1]])),
    ],
)
def test_a_column_by_its_name_or_its_number(name: str, text: str) -> None:
    if name.startswith("url"):
        with pytest.raises(HashListError, match="line 1 of FILE has a cell that is not a hash"):
            read(text, name)
    else:
        assert read(text, name) == ONE_MD5


@given(
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=9), notes=st.text(st.characters(codec="utf-8"), max_size=9)
)
def test_what_is_printed_is_read_back(numbers: list[int], notes: str) -> None:
    values = [hash_of(HashKind.SHA1, number) for number in numbers]
    rows = [["note", "sha1"], *([notes.replace("\r", "").replace("\0", ""), value.hex()] for value in values)]
    assert read(table(rows)) == kept((HashKind.SHA1, value) for value in values)


def test_the_tables_of_threatexchange() -> None:
    dataset = table(
        [
            ["collab", "signal_type", "signal_str", "category", "tags"],
            ["A", "pdq", SHA256, "POSITIVE_CLASS", "a b"],
            ["A", "md5", MD5, "INVESTIGATION_SEED", ""],
            ["A", "sha1", SHA1, "NEGATIVE_CLASS", ""],
            ["A", "video_md5", MD5, "POSITIVE_CLASS", ""],
            ["A", "url", "https://one.example/", "POSITIVE_CLASS", ""],
        ]
    )
    assert set(read(dataset)) == {HashKind.PDQ, HashKind.MD5}
    query = table(
        [
            ["id", "indicator", "type", "status"],
            [1, SHA256, "HASH_SHA256", "MALICIOUS"],
            [2, MD5, "HASH_MD5", "NON_MALICIOUS"],
        ]
    )
    assert set(read(query)) == {HashKind.SHA256}


@pytest.mark.parametrize(
    ("text", "name", "finding"),
    [
        (table([["a", "b"], [1, MD5]]), "FILE", "line 1 of FILE is not a header"),
        (table([[1, MD5]]), "FILE", "line 1 of FILE is not a header"),
        (table([["hash", "digest"], [MD5, MD5]]), "FILE", "line 1 of FILE is not a header"),
        (table([["hash", "md5"], [MD5, MD5]]), "FILE", "line 1 of FILE has a column of hashes of which no kind is"),
        (table([["a", "md5"], [1, MD5]]), "sha1=FILE", "line 1 of FILE is not a header"),
        (table([["a", "md5"], [1, MD5]]), "md5:b=FILE", "line 1 of FILE has no such column"),
        (table([["a", "md5"], [1, MD5]]), "md5:3=FILE", "line 1 of FILE has no such column"),
        (table([["a", "md5"], [1, MD5], [1, SHA1]]), "FILE", "line 3 of FILE has a cell that is not a hash: it has 40"),
        (table([["a", "md5"], ["x\ny", MD5], [1, "-"]]), "FILE", "line 4 of FILE has a cell that is not a hash"),
        (table([["a", "hash"], [1, SHA256]]), "FILE", "64 hex digits are of sha256 or pdq"),
        (table([["a", "md5"], [1]]), "FILE", "line 2 of FILE has fewer columns than the header"),
        (table([["type", "indicator", "status"], ["HASH_MD5", MD5]]), "FILE", "line 2 of FILE has fewer columns"),
        (table([["indicator", "type"], [MD5]]), "FILE", "line 2 of FILE has fewer columns"),
        (table([["a", "a"], [1, MD5]]), "md5:a=FILE", "line 1 of FILE has several columns of the name"),
        (table([["A b", "a-b"], [1, MD5]]), "md5:ab=FILE", "line 1 of FILE has several columns of the name"),
        (f'a,md5\n"1,{MD5}\n', "FILE", "of FILE is not a row of a CSV"),
        (f"a,md5\nb,ü{MD5}\n".encode("latin-1"), "FILE", "line 2 of FILE has a cell that is not a hash: it has 33"),
        ("# nothing\n", "md5:a=FILE", "FILE holds no row"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line_and_nothing_of_its_content(text: str, name: str, finding: str) -> None:
    with pytest.raises(HashListError, match=finding) as told:
        read(text, name)
    assert MD5[:5] not in str(told.value)
