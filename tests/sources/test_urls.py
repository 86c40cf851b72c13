"""URLs of samples and references to a crawl: which fields hold them, their bounds, and layouts of stored embeddings."""

from __future__ import annotations

import datetime
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.errors import SourceError, UsageError
from safetyfilter.sources import Source, open_source
from safetyfilter.sources.base import Sample
from safetyfilter.sources.urls import JSON_BYTES, MAX_REFERENCES, MAX_TEXT_BYTES, UrlFields, described
from safetyfilter.sources.vectors import VectorBlock, blocks_of
from tests.sources.contract import IMAGES, keys_of, samples_of, states_of
from tests.writers import data_set_of, write_embedding_job, write_files, write_folder, write_with_urls

URL = "https://example.org/a.jpg"
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
VALUES = [
    *(URL, "", " ", None, "é" * (MAX_TEXT_BYTES // 2), "é" * (MAX_TEXT_BYTES // 2) + "x", "x" * (MAX_TEXT_BYTES + 1)),
    *(" with blanks ", "not an address", "\0", "\u00a0"),
]


@pytest.mark.parametrize(
    ("fields", "url", "crawl"),
    [
        ({"url": URL, "caption": "a boat", "width": 3, "key": "000"}, URL, {}),
        ({"URL": URL, "TEXT": "a boat", "SAMPLE_ID": 2**60}, URL, {"SAMPLE_ID": str(2**60)}),
        ({"uid": "0a1b", "url": URL, "sha256": "ab", "md5": None}, URL, {"uid": "0a1b", "sha256": "ab"}),
        ({"url": "https://example.org/page", "image_url": URL}, URL, {"url": "https://example.org/page"}),
        ({"url": URL, "image_url": None}, URL, {}),
        ({"url": URL, "page_url": "p", "WARC-Record-ID": "r", "warc_record_offset": 7.0}, URL, None),
        ({"url": [URL], "uid": {"a": 1}, "crawl": True, "dump": float("nan")}, None, {}),
        ({"url": 7, "img_url": {"url": URL}}, None, {}),
        ({"url": "a\ud800b"}, "a\\ud800b", {}),
        ({"warc_\n": "x", "warc_" + "a" * 100: "x", "caption": "c", "thumbnail": "t"}, None, {}),
        ({}, None, {}),
    ],
)
def test_the_fields_of_usual_data_sets(
    fields: dict[str, object], url: str | None, crawl: dict[str, str] | None
) -> None:
    expected = {"page_url": "p", "WARC-Record-ID": "r", "warc_record_offset": "7"} if crawl is None else crawl
    assert UrlFields.of(fields).read(fields) == (url, expected)
    assert described(json.dumps(fields).encode()) == (url, expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b'"url"',
        b'{"url": ',
        b"\xff\xfe",
        b'{"url": ' + b"[" * 100_000,
        b'{"url": 1' + b"0" * 9_000 + b"}",
    ],
)
def test_a_description_that_is_none_has_no_url(content: bytes) -> None:
    assert described(content) == (None, {})


def test_references_are_few_and_short() -> None:
    many = {f"warc_{number}": "x" * (MAX_TEXT_BYTES + number % 2) for number in range(100)}
    found = UrlFields.of(many).read(many)[1]
    assert len(found) == MAX_REFERENCES / 2
    assert {len(text) for text in found.values()} == {MAX_TEXT_BYTES}


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_column_of_urls_is_what_its_rows_are_one_by_one(kind: pa.DataType) -> None:
    first = pa.chunked_array([pa.array(VALUES[:5], pa.string()), pa.array(VALUES[5:], pa.string())])
    table = pa.table({"url": first.cast(kind), "image_url": pa.array([None, URL] * 5 + [None])})
    fields = UrlFields.of_schema(table.schema)
    assert fields.column(table).to_pylist() == [fields.read(row)[0] for row in table.to_pylist()]


def test_text_that_is_not_utf8_is_escaped_alike_in_rows_and_blocks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1, 4), np.float16))
    pq.write_table(pa.table({"url": NOT_UTF8, "crawl": NOT_UTF8}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [b"x"], "url": NOT_UTF8, "crawl": NOT_UTF8}), tmp_path / "b.parquet")
    stored, rows = open_source(tmp_path / "a.npy"), open_source(tmp_path / "b.parquet")
    (one,), (other,) = samples_of(stored, urls=True), samples_of(rows, urls=True)
    assert one.url == other.url == "caf\\udce9"
    assert one.crawl == other.crawl == {"crawl": "caf\\udce9"}
    one.url.encode()


def test_a_row_that_names_a_link_was_found_there(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": URL}, {"bytes": b"x", "path": URL}, {"bytes": b"x", "path": "a.jpg"}]
    images += [{"bytes": None, "path": "data:image/png;base64,AAAA"}, None]
    table = pa.table({"image": pa.array(images, STRUCT)})
    pq.write_table(table, tmp_path / "a.parquet")
    for source in (open_source(tmp_path / "a.parquet"), open_source(datasets.Dataset(table))):
        samples = samples_of(source, urls=True)
        assert [sample.url for sample in samples] == [URL, URL, None, None, None]
        assert samples[0].failure == "not_fetched"
    both = table.append_column("url", pa.array(["https://example.org/b.jpg", *[None] * 4]))
    pq.write_table(both, tmp_path / "a.parquet")
    found = [sample.url for sample in samples_of(open_source(tmp_path / "a.parquet"), urls=True)]
    assert found[:2] == ["https://example.org/b.jpg", URL]


@pytest.mark.parametrize("column", ["none", "number", "image"])
def test_a_column_of_urls_that_is_not_one_is_told(tmp_path: Path, column: str) -> None:
    pq.write_table(pa.table({"image": [b"x"], "number": [1], "text": ["t"]}), tmp_path / "a.parquet")
    refused = r"a\.parquet: .*(no column 'none' for the URLs; there are|holds .* and not text; name another)"
    with pytest.raises(SourceError, match=refused):
        open_source(tmp_path, url_column=column)
    assert samples_of(open_source(tmp_path, url_column="text"), urls=True)[0].url == "t"


def test_descriptions_are_read_where_asked_for_and_bounded(tmp_path: Path) -> None:
    large = b'{"url": "a", "more": "' + b"x" * JSON_BYTES + b'"}'
    files = {"a.jpg": b"x", "a.json": large, "b.jpg": b"x", "b.JSON": b'{"url": "b"}', "c.jpg": b"x", "d.jpg": b"x"}
    write_files(tmp_path, {**files, "d.json": b'{"url": "d"}'})
    (tmp_path / "c.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d.json").chmod(0)
    source = open_source(tmp_path)
    assert [sample.url for sample in samples_of(source, urls=True)][:3] == [None, "b", None]
    assert [sample.url for sample in samples_of(source)] == [None] * 4


def test_a_description_beside_an_image_counts_only_where_urls_do(tmp_path: Path) -> None:
    place = write_files(tmp_path, {"a.jpg": b"x", "a.json": b'{"url": "a"}'})
    before = states_of(open_source(place))
    write_files(place, {"a.json": b'{"url": "another"}'})
    assert states_of(open_source(place)) == before


def test_a_tars_description_is_read_only_where_asked_for(tmp_path: Path) -> None:
    urls = {name: URL if number else "u" * JSON_BYTES for number, name in enumerate(IMAGES)}
    source = open_source(write_with_urls("webdataset", tmp_path / "tars", IMAGES, urls, {}))
    assert [sample.url for sample in samples_of(source, urls=True)] == [None, *[URL] * (len(IMAGES) - 1)]
    assert not any(sample.members for sample in samples_of(source, urls=True))


@pytest.mark.parametrize("limit", [3, None])
def test_several_sources_and_a_trial_pass_urls_on(tmp_path: Path, limit: int | None) -> None:
    places = [
        write_with_urls(kind, tmp_path / kind, IMAGES, dict.fromkeys(IMAGES, URL), {}) for kind in ("folder", "parquet")
    ]
    found = samples_of(open_source(places, limit=limit), urls=True)
    assert [sample.url for sample in found] == [URL] * (limit or 2 * len(IMAGES))
    write_embedding_job(tmp_path / "job", [np.eye(4, dtype=np.float16)], keys=[list("abcd")], extra={"url": [URL] * 4})
    (block, *_) = blocks(open_source([tmp_path / "job"], limit=limit))
    assert block.urls.to_pylist() == [URL] * (limit or 4)


def blocks(source: Source, *, urls: bool = True) -> list[VectorBlock]:
    return [block for part in source.parts() for block in blocks_of(source, part, urls=urls)]


def job(place: Path, table: pa.Table) -> Path:
    columns = {name: table.column(name) for name in table.column_names}
    vectors = np.eye(len(table), 4, dtype=np.float16)
    return write_embedding_job(place, [vectors], keys=[[f"{row}.jpg" for row in range(len(table))]], extra=columns)


def column(place: Path, table: pa.Table) -> Path:
    place.mkdir()
    vectors = pa.array(list(np.eye(len(table), 4, dtype=np.float32)), pa.list_(pa.float32()))
    keyed = table.append_column("embedding", vectors).append_column(
        "key", pa.array([f"{row}.jpg" for row in range(len(table))])
    )
    pq.write_table(keyed, place / "a.parquet", row_group_size=2)
    return place


@pytest.mark.parametrize("layout", [job, column])
def test_stored_embeddings_have_urls_in_their_blocks(tmp_path: Path, layout: Callable[[Path, pa.Table], Path]) -> None:
    when = datetime.datetime(2023, 5, 1, 12)
    table = pa.table(
        {"url": [URL, None, "x" * 9000], "crawl_date": [when, None, when], "uid": [7, 8, 9], "similarity": [0.5] * 3}
    )
    source = open_source(layout(tmp_path / "stored", table), part_size=2)
    found = blocks(source)
    assert [url for block in found for url in block.urls.to_pylist()] == [URL, None, None]
    references = [block.references(row) for block in found for row in range(len(block))]
    assert references == [{"crawl_date": str(when), "uid": "7"}, {"uid": "8"}, {"crawl_date": str(when), "uid": "9"}]
    assert [(sample.url, sample.crawl) for sample in samples_of(source, urls=True)] == [
        (URL, references[0]),
        (None, references[1]),
        (None, references[2]),
    ]
    assert found[0][1:].references(0) == references[1]
    assert [(block.urls, block.crawl) for block in blocks(source, urls=False)] == [(None, None)] * len(found)
    assert keys_of(source) == ["0.jpg", "1.jpg", "2.jpg"]
    named = open_source(tmp_path / "stored", url_column="url")
    assert states_of(named) != states_of(open_source(tmp_path / "stored"))


def test_stored_embeddings_that_say_nothing_have_no_urls(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3, 4, dtype=np.float16))
    (bare,) = blocks(open_source(tmp_path))
    assert (bare.urls.to_pylist(), bare.references(0)) == ([None] * 3, {})
    with pytest.raises(SourceError, match=r"no file of keys beside it, and so no column 'url'; leave out --url-column"):
        open_source(tmp_path, url_column="url")
    (tmp_path / "keys.txt").write_text("a\nb\nc\n")
    (block,) = blocks(open_source(tmp_path))
    assert block.urls.to_pylist() == [None] * 3
    with pytest.raises(SourceError, match=r"has no columns, and 'url' was named for the URLs; leave out --url-column"):
        open_source(tmp_path, url_column="url")


def test_a_key_column_may_be_that_of_the_urls(tmp_path: Path) -> None:
    place = column(tmp_path / "stored", pa.table({"url": ["a", "b"], "uid": ["x", "y"]}))
    source = open_source(place, key_column="url", url_column="uid")
    (block,) = blocks(source)
    assert (block.keys.to_pylist(), block.urls.to_pylist(), block.references(0)) == (
        ["a", "b"],
        ["x", "y"],
        {"url": "a"},
    )


def test_no_address_is_opened_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("an address was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    caplog.set_level(logging.DEBUG)
    for kind in ("folder", "webdataset", "parquet", "datasets"):
        place = write_with_urls(kind, tmp_path / kind, IMAGES, dict.fromkeys(IMAGES, URL), {})
        assert {sample.url for sample in samples_of(open_source(place), urls=True)} == {URL}
    assert "example.org" not in caplog.text


def test_what_has_no_columns_takes_the_field_of_its_descriptions(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "a", IMAGES)
    assert {sample.url for sample in samples_of(open_source(place, url_column="link"), urls=True)} == {None}
    with pytest.raises(UsageError, match="key_column"):
        open_source(place, key_column="key", url_column="link")
    rows = data_set_of({"a.jpg": b"x"}).add_column("link", [URL])
    (sample,) = samples_of(open_source(rows, url_column="link"), urls=True)
    assert isinstance(sample, Sample)
    assert sample.url == URL
