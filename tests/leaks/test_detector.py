"""The detector of marks finds what is put before it: else that it finds nothing elsewhere would say nothing."""

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.leaks.decoding import layers
from tests.leaks.needles import Finder, digest_forms, forms_of

TEXT, CONTENT = "kqzvwmxhtrpyklbd", b"the encoded picture" * 9
FINDER = Finder.of({"the key": TEXT}, {"the content": CONTENT})


def parquet(data: bytes, **where: object) -> bytes:
    table = pa.table({"column": pa.array([b"other", data], pa.binary())})
    if where:
        table = table.replace_schema_metadata({"note": data})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def npy(data: bytes) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.frombuffer(data.ljust(80), "<f8"))
    return buffer.getvalue()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", data)
    return buffer.getvalue()


CONTAINERS = {
    "as it is": lambda data: data,
    "in the middle": lambda data: b"xyz" + data + b"...",
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zlib": zlib.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    "zip": zipped,
    "a Parquet column": parquet,
    "Parquet metadata": lambda data: parquet(data, metadata=True),
    "an array": npy,
    "JSON": lambda data: json.dumps({"a": [{data.decode("latin-1"): 1}]}, ensure_ascii=True).encode(),
    "HTML": lambda data: f"<p>{html.escape(data.decode('latin-1'))}</p>".encode(),
    "base64 of a compressed text": lambda data: b'"' + base64.b64encode(b"12345" + data) + b'"',
    "base64 of gzip": lambda data: b'"' + base64.b64encode(gzip.compress(data)) + b'"',
    "hex": lambda data: b"=" + data.hex().encode() + b";",
}


@pytest.mark.parametrize("form", forms_of(TEXT))
def test_each_form_of_a_text_is_found(form: str) -> None:
    assert any(form in name for name in FINDER.found(b"-- " + forms_of(TEXT)[form] + b" --"))


@pytest.mark.parametrize("form", [form for form, _ in digest_forms(CONTENT)])
def test_each_form_of_a_digest_is_found(form: str) -> None:
    assert f"the content ({form})" in FINDER.found(b"-- " + dict(digest_forms(CONTENT))[form] + b" --")


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_text_is_found_in_each_container(name: str) -> None:
    data = CONTAINERS[name](TEXT.encode())
    assert "the key (utf-8)" in FINDER.found_in(layers(data))


def test_upper_and_lower_case_are_one() -> None:
    assert FINDER.found(TEXT.upper().encode())
    assert FINDER.found(TEXT.encode("utf-16-le").hex().upper().encode())


@pytest.mark.parametrize("container", CONTAINERS)
def test_nothing_is_found_where_nothing_is(container: str) -> None:
    assert not FINDER.found_in(layers(CONTAINERS[container](b"some other text")))


def test_a_piece_of_a_mark_is_too_little() -> None:
    assert not FINDER.found(TEXT[:-1].encode())
    assert not FINDER.found(b"")
