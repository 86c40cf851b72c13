"""Stored embeddings: every layout gives its rows in order with their own keys, and what does not fit is told."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.batches import OK, STATUS_CODES
from safetyfilter.errors import SafetyFilterError, SourceError, StorageError, UsageError
from safetyfilter.sources import Source, open_source, vector_files
from safetyfilter.sources.rows import NO_KEY
from safetyfilter.sources.vectors import VectorBlock, blocks_of
from safetyfilter.storage import Location
from safetyfilter.storage.arrays import ArrayFile
from tests.sources.contract import keys_of, states_of
from tests.writers import write_embedding_job

WIDTH = 8


def rows(count: int, seed: int = 0, dtype: type = np.float16) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(dtype)


VECTORS = [rows(20, 1), rows(5, 2)]
KEYS = [[f"{number:03d}.jpg" for number in range(20)], [f"{number:03d}.jpg" for number in range(20, 25)]]
ALL_KEYS = [key for keys in KEYS for key in keys]


def job(place: Path) -> Path:
    return write_embedding_job(place, VECTORS, keys=KEYS)


def list_column(place: Path) -> Path:
    return tables(place, lambda v: pa.array(list(v), pa.list_(pa.float32())))


def fixed_column(place: Path) -> Path:
    kind = pa.list_(pa.float16(), WIDTH)
    return tables(place, lambda v: pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), type=kind))


def tables(place: Path, column: Callable[[np.ndarray], pa.Array]) -> Path:
    place.mkdir()
    for number, (vectors, keys) in enumerate(zip(VECTORS, KEYS, strict=True)):
        table = pa.table({"key": keys, "embedding": column(vectors)})
        pq.write_table(table, place / f"{number}.parquet", row_group_size=6)
    return place


def array_with_table(place: Path) -> Path:
    place.mkdir()
    np.save(place / "a.npy", np.concatenate(VECTORS))
    pq.write_table(pa.table({"key": ALL_KEYS}), place / "a.keys.parquet")
    return place


def array_with_lines(place: Path) -> Path:
    place.mkdir()
    np.save(place / "a.npy", np.concatenate(VECTORS))
    (place / "keys.txt").write_text("\n".join(ALL_KEYS) + "\n")
    return place


def array_with_texts(place: Path) -> Path:
    place.mkdir()
    np.save(place / "a.npy", np.concatenate(VECTORS))
    np.save(place / "keys.npy", np.array(ALL_KEYS))
    return place


LAYOUTS = [job, list_column, fixed_column, array_with_table, array_with_lines, array_with_texts]


def blocks(source: Source, *, captions: bool = False) -> list[VectorBlock]:
    return [block for part in source.parts() for block in blocks_of(source, part, captions=captions)]


def vectors_of(source: Source) -> np.ndarray:
    return np.concatenate([np.array(block.vectors) for block in blocks(source)])


@pytest.mark.parametrize("layout", LAYOUTS)
class TestEveryLayout:
    """What holds for every layout."""

    @pytest.fixture
    def place(self, layout: Callable[[Path], Path], tmp_path: Path) -> Path:
        return layout(tmp_path / "stored")

    @pytest.mark.parametrize("part_size", [1, 4, 10, None])
    def test_every_row_in_order_with_its_key(self, place: Path, part_size: int | None) -> None:
        source = open_source(place, part_size=part_size)
        assert (source.kind, source.form, source.location) == ("embeddings", "parquet", str(place))
        assert keys_of(source) == ALL_KEYS
        np.testing.assert_array_equal(vectors_of(source), np.concatenate(VECTORS))
        assert [part.index for part in source.parts()] == list(range(len(source.parts())))
        assert [part.count for part in source.parts()] == [
            sum(len(block) for block in blocks_of(source, part)) for part in source.parts()
        ]

    def test_small_blocks_are_the_same_rows(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vector_files, "BLOCK_BYTES", 6 * WIDTH)
        source = open_source(place)
        assert len(blocks(source)) > 4
        assert keys_of(source) == ALL_KEYS
        np.testing.assert_array_equal(vectors_of(source), np.concatenate(VECTORS))

    def test_samples_and_batches_are_the_rows_too(self, place: Path) -> None:
        source = open_source(place)
        part = source.parts()[0]
        samples = list(source.samples(part))
        np.testing.assert_array_equal(np.stack([s.vector for s in samples]), np.concatenate(VECTORS))
        full = list(source.batches(part))
        assert [s.key for batch in full for s in batch.samples] == [s.key for s in samples]
        assert sum(len(batch.rows) for batch in full) == 25
        name = "image_path" if "image_path" in full[0].rows.column_names else "key"
        assert [key for batch in full for key in batch.rows[name].to_pylist()] == ALL_KEYS

    def test_states_tell_when_a_file_changes(self, place: Path) -> None:
        before = states_of(open_source(place))
        assert before == states_of(open_source(place))
        for path in [path for path in place.rglob("*") if path.is_file()]:
            content = path.read_bytes()
            is_array = path.suffix == ".npy" and "keys" not in path.name
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if is_array else content)
            assert states_of(open_source(place)) != before
            before = states_of(open_source(place))

    def test_it_can_be_sent_to_another_process(self, place: Path) -> None:
        source = open_source(place)
        keys_of(source)
        sent = pickle.loads(pickle.dumps(source))
        assert keys_of(sent) == keys_of(source)
        assert states_of(sent) == states_of(source)

    def test_a_trial_and_several_sources(self, place: Path) -> None:
        limited = open_source(place, limit=7, part_size=4)
        assert [block_key for block in blocks(limited) for block_key in block.keys.to_pylist()] == KEYS[0][:7]
        joined = open_source([place])
        assert keys_of(joined) == [f"stored/{key}" for key in ALL_KEYS]
        np.testing.assert_array_equal(vectors_of(joined), np.concatenate(VECTORS))

    def test_other_storage_gives_the_same(self, place: Path) -> None:
        away = Location.of(f"memory://{place.name}-{place.parent.name}")
        for path in [path for path in place.rglob("*") if path.is_file()]:
            away.fs.pipe_file(f"{away.path}/{path.relative_to(place).as_posix()}", path.read_bytes())
        source = open_source(str(away), part_size=6)
        assert keys_of(source) == ALL_KEYS
        np.testing.assert_array_equal(vectors_of(source), np.concatenate(VECTORS))


def test_a_key_file_with_a_header_that_no_parser_takes_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS[0])
    (tmp_path / "a.keys.npy").write_bytes(header(shape="(4, ("))
    with pytest.raises(SourceError, match=r"can't read the keys in a\.keys\.npy: its header can't be read"):
        open_source(tmp_path)


def test_an_array_whose_name_ends_as_that_of_keys_is_read(tmp_path: Path) -> None:
    for name, vectors in zip(("dogs", "monkeys"), VECTORS, strict=True):
        np.save(tmp_path / f"{name}.npy", vectors)
    assert sum(map(len, blocks(open_source(tmp_path)))) == 25


def test_views_of_a_local_array_copy_nothing(tmp_path: Path) -> None:
    block = blocks(open_source(job(tmp_path / "stored")))[0]
    assert not block.vectors.flags.owndata
    assert not block.vectors.flags.writeable


def test_numbers_of_rows_are_keys_where_there_are_none(tmp_path: Path) -> None:
    source = open_source(write_embedding_job(tmp_path, VECTORS), part_size=10)
    assert keys_of(source)[:2] == ["img_emb/img_emb_0.npy#0", "img_emb/img_emb_0.npy#1"]
    assert keys_of(source)[-1] == "img_emb/img_emb_1.npy#4"


def test_a_key_file_elsewhere_and_a_column_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS[0])
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "names.parquet"
    pq.write_table(pa.table({"key": range(20), "id": [f"id-{n}" for n in range(20)]}), other)
    assert keys_of(open_source(tmp_path / "a.npy", keys=other))[:2] == ["0", "1"]
    assert keys_of(open_source(tmp_path / "a.npy", keys=other, key_column="id"))[:2] == ["id-0", "id-1"]
    before = states_of(open_source(tmp_path / "a.npy", keys=other))
    pq.write_table(pa.table({"key": range(1, 21)}), other)
    assert states_of(open_source(tmp_path / "a.npy", keys=other)) != before


def test_keys_that_are_null_or_no_text_have_names_of_their_own(tmp_path: Path) -> None:
    keys = pa.array([b"a.jpg", None, b"caf\xe9.jpg"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, keys.buffers())
    np.save(tmp_path / "a.npy", VECTORS[0][:3])
    pq.write_table(pa.table({"key": texts}), tmp_path / "a.keys.parquet")
    (block,) = blocks(open_source(tmp_path))
    assert block.keys.to_pylist() == ["a.jpg", None, None]
    assert block.other_keys == {1: f"{NO_KEY}a.npy#1", 2: "caf\udce9.jpg"}
    assert block.status.tolist() == [OK, STATUS_CODES["no_key"], OK]


@pytest.mark.parametrize(
    "kind", [pa.date32(), pa.date64(), pa.duration("s"), pa.timestamp("us"), pa.timestamp("us", tz="Not/Here")]
)
def test_keys_that_are_times_beyond_pythons_are_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    np.save(tmp_path / "a.npy", VECTORS[0][:2])
    keys = pa.array([2**31 - 1, 5] if kind == pa.date32() else [2**62, 5], kind)
    pq.write_table(pa.table({"key": keys}), tmp_path / "a.keys.parquet")
    (block,) = blocks(open_source(tmp_path))
    assert block.status.tolist() == [OK, OK]
    assert block.keys[0].as_py().isdigit()


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), WIDTH), pa.large_list(pa.float64())])
def test_a_row_of_null_is_missing_and_numbers_of_null_are_not_finite(tmp_path: Path, kind: pa.DataType) -> None:
    values = [VECTORS[0][0].tolist(), None, [None, *[0.0] * (WIDTH - 1)], VECTORS[0][1].tolist()]
    pq.write_table(pa.table({"key": list("abcd"), "v": pa.array(values, kind)}), tmp_path / "a.parquet")
    (block,) = blocks(open_source(tmp_path))
    assert block.status.tolist() == [OK, STATUS_CODES["missing"], OK, OK]
    np.testing.assert_allclose(block.vectors[[0, 3]], VECTORS[0][:2])
    assert np.isnan(block.vectors[2, 0])


def test_a_number_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    values = [VECTORS[0][0].tolist(), [1e300] * WIDTH]
    pq.write_table(pa.table({"v": pa.array(values, pa.list_(pa.float64()))}), tmp_path / "a.parquet")
    (block,) = blocks(open_source(tmp_path))
    assert np.isfinite(block.vectors).all(axis=1).tolist() == [True, False]


def test_embeddings_of_captions_come_where_asked_for(tmp_path: Path) -> None:
    captions = [rows(20, 3), rows(5, 4)]
    source = open_source(write_embedding_job(tmp_path, VECTORS, keys=KEYS, captions=captions))
    assert all(block.captions is None for block in blocks(source))
    found = np.concatenate([block.captions for block in blocks(source, captions=True)])
    np.testing.assert_array_equal(found, np.concatenate(captions))
    without = open_source(write_embedding_job(tmp_path / "other", VECTORS))
    with pytest.raises(SourceError, match="no embeddings of captions"):
        blocks(without, captions=True)


def test_a_table_of_images_stays_one_unless_embeddings_are_named(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x"], "embedding": pa.array([VECTORS[0][0].tolist()], pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert open_source(tmp_path).kind == "parquet"
    assert open_source(tmp_path, image_column="embedding").kind == "embeddings"


def test_images_and_embeddings_are_not_one_source(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="scan each into a run of its own"):
        open_source([job(tmp_path / "stored"), tmp_path / "pictures"])


def header(shape: str = "(4, 8)", descr: str = "'<f2'", order: str = "False") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


BODY = VECTORS[0][:4].tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header() + BODY[:-1], "it ends too early: 4 rows of 8 float16 need 192 bytes, and it has 191"),
        (header()[:60], "its header can't be read; write it anew with numpy.save"),
        (b"", "its header can't be read"),
        (b"\x80\x04\x95 a pickle", "its header can't be read"),
        (header(descr="'|O'") + BODY, "pickled objects, which are never loaded"),
        (header(descr="'>f2'") + BODY, "in the other byte order"),
        (header(descr="'<f8'") + BODY * 4, "it holds float64; write float16 or float32, little-endian"),
        (header(order="True") + BODY, "Fortran order"),
        (header(shape="(32,)") + BODY, re.escape("its shape is (32,), and embeddings are (rows, width)")),
        (header(shape="(4, 0)") + BODY, "its shape is"),
        (header(shape="(4, 8, 1)") + BODY, re.escape("for each image, of several views its first: array[:, 0]")),
        (header(shape="(-4, 8)") + BODY, "its shape is"),
        (header() + BODY + b"\0", "another array say, would be left out"),
        (header(shape="(2, 8)") + BODY, "another array say, would be left out; write one array a file"),
        (header(shape="(4, (") + BODY, "its header can't be read"),
        (
            b"\x93NUMPY\x01\x00" + (3000).to_bytes(2, "little") + b"-" * 2999 + b"1" + BODY,
            "its header can't be read",
        ),
        (header(shape="{[]: 1}") + BODY, "its header can't be read"),
    ],
    ids=[
        "cut",
        "cut header",
        "empty",
        "pickle",
        "objects",
        "big-endian",
        "double",
        "fortran",
        "flat",
        "none",
        "deep",
        "negative",
        "a byte behind",
        "two arrays",
        "open bracket",
        "nested",
        "odd literal",
    ],
)
def test_an_array_that_cannot_be_read_is_told_by_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    job(tmp_path)
    (tmp_path / "img_emb" / "img_emb_1.npy").write_bytes(content)
    with pytest.raises(SourceError, match=message) as told:
        open_source(tmp_path)
    assert "img_emb_1.npy" in str(told.value)


def spoilt(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        change(write_embedding_job(place, VECTORS, keys=KEYS, captions=[rows(20, 3), rows(5, 4)]))
        return place

    return write


def keys_in(place: Path, keys: list[str]) -> None:
    pq.write_table(pa.table({"image_path": keys}), place / "metadata" / "metadata_1.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: keys_in(p, KEYS[1][:-1]), r"img_emb_1.npy has 5 rows and metadata/metadata_1.parquet 4"),
        (lambda p: np.save(p / "text_emb" / "text_emb_0.npy", VECTORS[1]), "has 20 rows and text_emb/text_emb_0.npy 5"),
        (lambda p: np.save(p / "text_emb" / "text_emb_1.npy", np.zeros((5, 9), np.float16)), "8 columns and .* 9"),
        (lambda p: np.save(p / "img_emb" / "img_emb_01.npy", VECTORS[1]), "img_emb_01.npy and .* have one number"),
        (lambda p: (p / "metadata" / "metadata_1.parquet").unlink(), "no metadata file of number 1"),
        (lambda p: np.save(p / "text_emb" / "text_emb_9.npy", VECTORS[1]), "only a text_emb file of number 9"),
        (lambda p: np.save(p / "img_emb" / "whole.npy", VECTORS[1]), "img_emb/whole.npy has no number"),
        (lambda p: (p / "metadata" / "metadata_0.parquet").write_bytes(b"PAR1"), "can't read the Parquet file"),
        (lambda p: np.save(p / "more_0.npy", VECTORS[1]), "1 arrays elsewhere, more_0.npy for example"),
    ],
    ids=["short metadata", "other captions", "wide captions", "one number", "no metadata", "captions alone",
         "no number", "damaged metadata", "arrays elsewhere"],
)  # fmt: skip
def test_files_that_do_not_belong_together_are_told(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(spoilt(change)(tmp_path))


def test_files_of_other_widths_are_not_one_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"img_emb_0\.npy has embeddings of width 8 and img_emb/img_emb_1\.npy of 6"):
        open_source(write_embedding_job(tmp_path, [VECTORS[0], np.zeros((2, 6), np.float16)]))


@pytest.mark.parametrize(("whole", "says"), [(True, "its rows go on to 25"), (False, "it has 20 rows, and .* 25")])
def test_a_table_with_fewer_rows_than_it_says_is_an_error(tmp_path: Path, whole: bool, says: str) -> None:
    table = pa.table({"v": pa.array(list(VECTORS[0]), pa.list_(pa.float16()))})
    pq.write_table(table, tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    twenty = re.escape(bytes([0x16, 2 * 20]))  # as the footer holds it, of the file first and of the row group last
    found = [match.start() for match in re.finditer(twenty, bytes(content))]
    for place in (found[0], found[-1]) if whole else found[-1:]:
        content[place + 1] = 2 * 25
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=says):
        blocks(open_source(tmp_path))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float16())])
def test_a_row_of_another_width_is_an_error_that_names_the_file(tmp_path: Path, kind: pa.DataType) -> None:
    values = [VECTORS[0][0].tolist(), [0.5] * 5]
    pq.write_table(pa.table({"v": pa.array(values, kind)}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet has rows of 5 numbers, and others of 8"):
        blocks(open_source(tmp_path))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keys": "a.txt"}, SafetyFilterError, "for one array"),
        ({"key_column": "id"}, SourceError, "no column 'id' for the keys"),
        ({"image_column": "v"}, SourceError, "leave out --image-column"),
    ],
)
def test_options_that_do_not_fit_are_told(
    tmp_path: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_source(job(tmp_path), **options)


def test_keys_are_for_embeddings_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="has its own keys; leave out"):
        open_source(tmp_path, keys=tmp_path / "keys.txt")


def test_an_array_that_became_shorter_is_a_fault_of_storage(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS[0])
    place = Location.of(tmp_path / "a.npy")
    array = ArrayFile.open(place, (tmp_path / "a.npy").stat().st_size)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-40])
    with (
        array.stretch(0, 20) as stretch,
        pytest.raises(StorageError, match="is shorter than when the source was opened"),
    ):
        stretch.read(0, 20)
