"""The Parquet files of a run's decisions: a part's rows, each with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safetyfilter.batches import REASON_NAMES, Reason, ReasonBits, count_decisions
from safetyfilter.errors import RunError, SchemaError
from safetyfilter.runs.digests import DIGEST_BYTES, Digests, hash_of_columns
from safetyfilter.runs.fields import Fields
from safetyfilter.runs.parts import (
    digest_column,
    digests_of,
    read_table,
    write_table,
)
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.shards import carried_meta
from safetyfilter.storage import Location

_COLUMNS = {
    "key_digest": pa.binary(DIGEST_BYTES),
    "content_digest": pa.binary(DIGEST_BYTES),
    "keep": pa.bool_(),
    "reasons": pa.list_(pa.string()),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecidedPart:
    """The decisions on a part, as they are stored.

    Attributes
    ----------
    keys, contents : ndarray
        (N, 16) uint8, as in `ScoredPart`.
    reason_bits : ndarray
        (N,) uint16, a `Reason` set each.
    fingerprint, scores : str
        Those of the scores that were decided on: their fingerprint, and the digest of their content.
    policy : str
        Digest of the policy that decided.
    content : str
        Digest of these decisions.
    counts : mapping of str to int
        ``seen``, ``kept``, ``excluded`` and one a reason.
    shards : mapping
        What the part's metadata says of its shards, as `shard_meta` has it.
    unsealed : int
        Exclusions that there would be a sealed record of, had the scan excluded them; 0 in a run without such records.
    """

    keys: Digests
    contents: Digests
    reason_bits: ReasonBits
    fingerprint: str
    scores: str
    policy: str
    content: str
    counts: Mapping[str, int]
    shards: Mapping[str, object]
    unsealed: int = 0


def write_decisions(part: ScoredPart, reason_bits: ReasonBits, place: Location, meta: Mapping[str, Any]) -> DecidedPart:
    """Write the decisions on a part, and count them.

    Parameters
    ----------
    part : ScoredPart
        The part that was decided on.
    reason_bits : ndarray
        (N,) uint16, a `Reason` set each.
    place : Location
        The file.
    meta : mapping
        ``fingerprint``, ``scores`` and maybe ``unsealed``, as in `DecidedPart`, the ``policy``'s digest, and what
        `shard_meta` gives.

    Returns
    -------
    DecidedPart
        The decisions, whose counts are checked to add up.
    """
    counts = count_decisions(reason_bits)
    if not counts["seen"] == len(part) == counts["kept"] + counts["excluded"]:
        raise RunError(f"{len(part)} scores got the decisions {dict(counts)}: a fault of the library, report it")
    excluded = np.flatnonzero(reason_bits)
    set_bits = (reason_bits[excluded][:, None] >> np.arange(len(REASON_NAMES), dtype=np.uint16)) & 1 == 1
    offsets = np.zeros(len(part) + 1, np.int32)
    offsets[excluded + 1] = set_bits.sum(axis=1)
    np.cumsum(offsets, out=offsets)
    codes = pa.array(np.nonzero(set_bits)[1].astype(np.int8))
    names = pa.DictionaryArray.from_arrays(codes, pa.array(REASON_NAMES)).cast(pa.string())
    table = pa.table(
        {
            "key_digest": digest_column(part.keys),
            "content_digest": digest_column(part.contents),
            "keep": pa.array(reason_bits == 0),
            "reasons": pa.ListArray.from_arrays(pa.array(offsets), names),
        }
    )
    bits = reason_bits.astype(np.uint16)
    content = part.digest_with(bits)
    write_table(table, place, {**meta, "counts": counts, "content": content})
    return DecidedPart(
        keys=part.keys,
        contents=part.contents,
        reason_bits=bits,
        fingerprint=meta["fingerprint"],
        scores=meta["scores"],
        policy=meta["policy"],
        content=content,
        counts=counts,
        shards=carried_meta(meta),
        unsealed=meta.get("unsealed", 0),
    )


def read_decisions(place: Location) -> DecidedPart:
    """Return the decisions on a part.

    Raises
    ------
    RunError
        They are missing, or damaged, however little.
    SchemaError
        They are of another version.
    """
    table, meta = read_table(place, _fault, row_bytes=DIGEST_BYTES)
    if table.column("key_digest").null_count:
        raise SchemaError(f"{place} does not hold the columns of decisions; run `safetyfilter decide` again")
    keys, contents = (digests_of(table.column(name)) for name in ("key_digest", "content_digest"))
    bits = _reasons(table, place)
    fields = Fields(meta, place, remedy="run `safetyfilter decide` again")
    content, counts = fields.get("content", str), fields.get("counts", dict)
    if content != hash_of_columns(keys, contents, bits).hexdigest():
        raise RunError(f"{place} is damaged: it does not hold what was written; run `safetyfilter decide` again")
    if {"near_excluded": 0, **counts} != dict(count_decisions(bits)):
        raise RunError(f"{place} is damaged: its counts are not those of its rows; run `safetyfilter decide` again")
    return DecidedPart(
        keys=keys,
        contents=contents,
        reason_bits=bits,
        fingerprint=fields.get("fingerprint", str),
        scores=fields.get("scores", str),
        policy=fields.get("policy", str),
        content=content,
        counts=counts,
        shards=carried_meta(meta),
        unsealed=fields.get("unsealed", int) if "unsealed" in meta else 0,
    )


def _fault(schema: pa.Schema) -> str:
    found = {field.name: field.type for field in schema}
    others = found != _COLUMNS or len(schema) != len(_COLUMNS)  # what no digest covers may say anything
    return "the columns of decisions; run `safetyfilter decide` again" if others else ""


def _reasons(table: pa.Table, place: Location) -> ReasonBits:
    """Reason sets from the column of names; a row that says neither keep nor why is excluded as unknown."""
    lists = table.column("reasons").combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    positions = pc.index_in(pc.list_flatten(lists), value_set=pa.array(REASON_NAMES))
    if positions.null_count:
        raise SchemaError(f"{place} gives reasons that this version does not know; use the version that wrote it")
    bits = np.zeros(len(table), np.uint16)
    owners = np.repeat(np.arange(len(table)), lengths)
    found = np.left_shift(1, positions.to_numpy(zero_copy_only=False)).astype(np.uint16)
    if len(found):  # each row's reasons lie together
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        bits[owners[first]] = np.bitwise_or.reduceat(found, first)
    keep = pc.fill_null(table.column("keep"), False).to_numpy()
    if (keep & (bits != 0)).any():  # by its reasons alone it is excluded here; another reader may go by keep alone
        raise RunError(f"{place} is damaged: a row is kept and has reasons not to be; run `safetyfilter decide` again")
    bits[~keep & (bits == 0)] = np.uint16(Reason.UNKNOWN)
    return bits
