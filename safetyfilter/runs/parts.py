"""The Parquet files that a run keeps of its scored parts, whose columns name no sample."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safetyfilter.batches import STATUS_NAMES, ScoreBatch, StatusCodes, Unreadable
from safetyfilter.errors import RunError, SchemaError, StorageError
from safetyfilter.runs.digests import DIGEST_BYTES, Columns, Digests
from safetyfilter.runs.fields import Fields
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.storage import Location, parse_json, parse_parquet, parse_parquet_schema, replacing

SCHEMA_VERSION = 4
READ_SCHEMAS = (3, SCHEMA_VERSION)
"""Of schema 3 the digest of a part's scores is not over their metadata."""
PART_METADATA = b"safetyfilter"
"""The name under which a file of a run holds the schema's version and what else is known of it."""
_DIGEST = pa.binary(DIGEST_BYTES)
_KNOWN_HASH, _SEALED = "known_hash", "sealed"
_REMEDY = "run the same scan again, which does only what is missing"
Flags: TypeAlias = "tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.bool_] | None, npt.NDArray[np.bool_] | None]"
"""(N,) bool of each row: on a list, not to be told, sealed; None where nobody asked."""
_REPEATING = ("status", "reasons.list.element")
"""Columns whose values repeat."""
RESERVED_COLUMNS = ("key_digest", "content_digest", "status", _KNOWN_HASH, _SEALED)
"""Columns of a run's own, which no signal may be called."""


def scores_table(part: ScoredPart) -> pa.Table:
    """Return a part's scores as a table: the columns of a file in ``scores/``."""
    columns = {"key_digest": digest_column(part.keys), "content_digest": digest_column(part.contents)}
    columns |= {signal: pa.array(part.scores[signal], pa.float32()) for signal in part.scores.signals}
    names = pa.DictionaryArray.from_arrays(pa.array(part.scores.status), pa.array(STATUS_NAMES))
    columns["status"] = names.cast(pa.string())
    if part.known_hashes is not None:
        columns[_KNOWN_HASH] = pa.array(part.known_hashes, mask=part.unchecked_hashes)  # null: nobody can tell
    if part.sealed is not None:
        columns[_SEALED] = pa.array(part.sealed)
    return pa.table(columns)


def write_scores(part: ScoredPart, place: Location, meta: Mapping[str, object]) -> str:
    """Write a part's scores, whole or not at all, and return the digest of their content.

    Parameters
    ----------
    part : ScoredPart
        The part.
    place : Location
        The file.
    meta : mapping
        ``fingerprint``: what the scores depend on; ``embeddings``: the digest of the part's embeddings, or None;
        ``repeated``, where samples of the part share a key with others: the fingerprint of the source at that time;
        ``sealed``, where sealed records are made: the digest of their file.
    """
    own: dict[str, object] = {"schema": SCHEMA_VERSION, "signals": list(part.scores.signals), "repeated": None}
    own |= {} if part.known_hashes is None else {"unchecked": part.unchecked}
    told = {**own, **meta}
    content = _content_of(part, told)
    write_table(scores_table(part), place, {**told, "content": content})
    return content


def read_scores(place: Location, expected: Sequence[str], index: int = 0) -> tuple[ScoredPart, dict[str, Any]]:
    """Return a part without its vectors, and its metadata.

    Parameters
    ----------
    place : Location
        The file.
    expected : sequence of str
        The run's signals, in order: under other names, or in another order, scores would be other signals'.
    index : int
        The part's number.

    Raises
    ------
    RunError
        It is missing, damaged, however little, or has scores of other signals.
    SchemaError
        It is of another version.
    """
    dictionaries = ("status",)
    table, meta = read_table(place, lambda s: _fault(s, expected), dictionaries=dictionaries, row_bytes=DIGEST_BYTES)
    fields = Fields(meta, place, remedy=_REMEDY)
    signals, content = fields.texts("signals"), fields.get("content", str)
    for name in ("embeddings", "repeated"):
        fields.get_or_none(name, str)
    if tuple(signals) != tuple(expected):
        raise RunError(
            f"{place} has scores of {', '.join(signals)}, and the run is on {', '.join(expected)}, in this order: it "
            "was altered, or is another run's; scan again"
        )
    try:
        values = np.stack([_floats(table.column(signal)) for signal in signals], axis=1)
        known, unchecked, sealed = _flags(table)
        part = ScoredPart(
            index=index,
            state="",
            keys=digests_of(table.column("key_digest")),
            contents=digests_of(table.column("content_digest")),
            scores=ScoreBatch(values=values, signals=signals, status=_status_codes(table.column("status"))),
            known_hashes=known,
            unchecked_hashes=unchecked,
            sealed=sealed,
        )
        counts = {"unchecked": part.unchecked, "sealed_records": 0 if sealed is None else int(sealed.sum())}
        told = all(meta.get(name, count) == count for name, count in counts.items())
        whole = told and content == _content_of(part, meta)
    except RunError:  # not in the order of the keys, in which it was written
        whole = False
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise RunError(f"{place} does not hold the columns of scores ({error}); scan again") from error
    if not whole:
        raise RunError(f"{place} is damaged: it does not hold what was written; scan again")
    return part, meta


def _fault(schema: pa.Schema, signals: Sequence[str]) -> str:
    """As `read_table` takes it, of a file of scores; what is missing is found when it is read.

    >>> _fault(pa.schema({"minor": pa.float32(), "status": pa.int64()}), ["minor"])
    'the columns of scores (status is int64); scan again'
    """
    for field in schema:
        right = pa.types.is_floating if field.name in signals else _TYPES.get(field.name)
        if right is None or not right(field.type):
            wrong = f"{field.name} is {field.type}" if right else f"there is {field.name} too"
            return f"the columns of scores ({wrong}); scan again"
    return ""


def _is_digest(kind: pa.DataType) -> bool:
    return bool(kind == _DIGEST)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


_TYPES: Mapping[str, Callable[[pa.DataType], bool]] = {
    "key_digest": _is_digest,
    "content_digest": _is_digest,
    "status": _is_text,
    _KNOWN_HASH: pa.types.is_boolean,
    _SEALED: pa.types.is_boolean,
}


def _flags(table: pa.Table) -> Flags:
    """The columns of a part that say yes or no of each row: on a list, not to be told, sealed; None for one it lacks.

    >>> _flags(pa.table({"known_hash": [True, None]}))
    (array([ True, False]), array([False,  True]), None)
    """
    known, unchecked, sealed = None, None, None
    if _KNOWN_HASH in table.column_names:
        column = table.column(_KNOWN_HASH).cast(pa.bool_())
        known, unchecked = pc.fill_null(column, False).to_numpy(), column.is_null().to_numpy()
    if _SEALED in table.column_names:
        sealed = table.column(_SEALED).cast(pa.bool_()).to_numpy()
    return known, unchecked, sealed


def _content_of(part: ScoredPart, meta: Mapping[str, object]) -> str:
    """The digest of a part's columns and metadata, and so of its files beside it, so that none are changed unseen."""
    known, unchecked, sealed = part.known_hashes, part.unchecked_hashes, part.sealed
    sealed_file = meta.get("sealed")
    told: list[Columns] = [] if known is None else [known]
    told += [unchecked] if unchecked is not None and unchecked.any() else []
    told += [] if sealed is None else [sealed.astype(np.uint8)]  # of another type, so that none passes for the other
    told += [] if sealed_file is None else [np.frombuffer(str(sealed_file).encode(), np.uint8)]
    if meta["schema"] != 3:  # a record vouches for this digest, so that nobody makes a part one of schema 3
        rest = {name: value for name, value in meta.items() if name != "content"}
        told.append(np.frombuffer(json.dumps(rest, sort_keys=True).encode(), np.uint8))
    return part.digest_with(part.scores.values, part.scores.status, *told)


def write_table(table: pa.Table, place: Location, meta: Mapping[str, object]) -> None:
    """Write a table with the schema's version and what else is known of it, whole or not at all."""
    stamped = {PART_METADATA: json.dumps({"schema": SCHEMA_VERSION, **meta}).encode()}
    with replacing(place) as file:
        pq.write_table(
            table.replace_schema_metadata(stamped),
            file,
            # Digests and scores hardly repeat and can't be made smaller; to try takes most of the time of a write.
            compression={column: "zstd" if column in _REPEATING else "none" for column in _leaves(table.schema)},
            use_dictionary=[column for column in _leaves(table.schema) if column in _REPEATING],
            write_statistics=False,
            write_page_checksum=True,
        )


def _leaves(schema: pa.Schema) -> list[str]:
    """The columns of a Parquet file, by their paths in it."""
    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]


def read_table(
    place: Location,
    fault: Callable[[pa.Schema], str] | None = None,
    *,
    dictionaries: Sequence[str] = (),
    row_bytes: int = 0,
) -> tuple[pa.Table, dict[str, Any]]:
    """Return a part's table and its metadata.

    Parameters
    ----------
    place : Location
        The file.
    fault : callable or None
        The columns -> what is wrong with them and what to do, empty where nothing is; asked before their values are
        read: a few bytes of columns that nobody wrote can be gigabytes of values.
    dictionaries, row_bytes
        As of `parse_parquet`.

    Raises
    ------
    RunError
        It is missing or damaged.
    SchemaError
        It is of another version, or of other columns.
    """
    try:
        data = place.read_bytes()
        schema = parse_parquet_schema(data)
        meta = _checked(schema.metadata, place)
        if fault and (wrong := fault(schema)):
            raise SchemaError(f"{place} does not hold {wrong}")
        return parse_parquet(data, dictionaries=dictionaries, row_bytes=row_bytes), meta
    except RunError:  # a ValueError too
        raise
    except FileNotFoundError as error:
        raise RunError(f"{place} is missing; run the same scan again, which does only what is missing") from error
    except (PermissionError, IsADirectoryError, NotADirectoryError, Unreadable, ValueError) as error:
        _require_allowed(place, error)
        raise RunError(f"{place} can't be read ({error}); scan again, which redoes only damaged parts") from error


def read_meta(place: Location) -> dict[str, Any] | None:
    """Return a part's metadata, or None where there is no whole part of this version."""
    try:
        with place.open() as file:  # the end of the file is enough
            return _checked(pq.read_schema(file).metadata, place)
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - pyarrow raises nearly every built-in error on damaged files
        _require_allowed(place, error)
        return None


def _require_allowed(place: Location, error: Exception) -> None:
    """Raise `StorageError` for credentials that may not read a part on other storage: they don't make it a bad one."""
    if isinstance(error, PermissionError) and not place.is_local:
        raise StorageError(
            f"{place} may not be read ({error}); run the same command again with credentials that may"
        ) from error


def row_count(place: Location) -> int:
    """Return the number of rows in a part's file; errors as of `read_table`."""
    try:
        with place.open() as file:
            return int(pq.read_metadata(file).num_rows)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise RunError(f"{place} is missing; {_REMEDY}") from error
    except Exception as error:
        _require_allowed(place, error)
        raise RunError(f"{place} can't be read ({error}); {_REMEDY}") from error


def digests_of(column: pa.ChunkedArray) -> Digests:
    """Return (N, 16) uint8, the digests in a column of 16 bytes each; zeros for null."""
    if column.null_count == len(column):  # as of stored embeddings, which have no images
        return np.zeros((len(column), DIGEST_BYTES), np.uint8)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies one too
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    data = array.buffers()[1]
    digests = np.frombuffer(data or b"", np.uint8)[array.offset * DIGEST_BYTES :][: len(array) * DIGEST_BYTES]
    digests = digests.reshape(-1, DIGEST_BYTES)
    if array.null_count:
        digests = np.where(array.is_null().to_numpy(zero_copy_only=False)[:, None], np.uint8(0), digests)
    return digests


def digest_column(digests: Digests) -> pa.Array:
    """A column of 16 bytes each, null where there was no content."""
    digests = np.ascontiguousarray(digests)
    halves = digests.view(np.uint64).reshape(-1, 2)
    there = (halves[:, 0] | halves[:, 1]) != 0
    valid = None if there.all() else pa.array(there).buffers()[1]
    data = pa.py_buffer(digests)
    return pa.FixedSizeBinaryArray.from_buffers(_DIGEST, len(digests), [valid, data])


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """(N,) float32; of numbers that it has no room for, infinities, which the digest tells of."""
    with np.errstate(over="ignore"):
        floats: npt.NDArray[np.float32] = column.to_numpy().astype(np.float32)
    return floats


def _status_codes(column: pa.ChunkedArray) -> StatusCodes:
    """(N,) uint8 of a dictionary's column: each name is looked up once, and not once a row."""
    codes = [np.empty(0, np.uint8)]
    for chunk in column.chunks:
        of_names = pc.index_in(chunk.dictionary, value_set=pa.array(STATUS_NAMES))
        found = of_names.take(chunk.indices)
        if found.null_count:
            raise ValueError("a status that this version does not know")
        codes.append(found.to_numpy().astype(np.uint8))
    status: StatusCodes = np.concatenate(codes)
    return status


def _checked(metadata: Mapping[bytes, bytes] | None, place: Location) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = parse_json((metadata or {})[PART_METADATA])
        schema = meta["schema"]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{place} is not a part of a run; remove it and scan again") from error
    if schema not in READ_SCHEMAS:
        raise SchemaError(
            f"{place} has schema {schema}, this version reads {READ_SCHEMAS[0]} and {SCHEMA_VERSION}; use the version "
            "that wrote it, or scan into a new directory"
        )
    for name in ("fingerprint", "content"):
        Fields(meta, place, remedy=_REMEDY).get(name, str)
    return meta
