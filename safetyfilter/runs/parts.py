"""The files of a run directory: score and decision parts in Parquet, whose columns name no sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.batches import DIGEST_BYTES, OK, REASON_NAMES, Floats, ScoreBatch
from safetyfilter.errors import RunError, SchemaError
from safetyfilter.storage import replacing

SCHEMA_VERSION = 1
_META = b"safetyfilter"
_DIGEST = pa.binary(DIGEST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePart:
    """Scores of a part's samples, row by row in source order.

    Attributes
    ----------
    key_digests : pyarrow.Array
        (N,) 16 bytes each.
    content_digests : pyarrow.Array
        (N,) 16 bytes each, null where there were no bytes.
    scores : ScoreBatch
        (N, S) float32, NaN where unscored.
    status : sequence of str
        (N,) ``ok``, or the name of the failure.
    fingerprint : str
        What the scores were made from and with.
    """

    key_digests: pa.Array
    content_digests: pa.Array
    scores: ScoreBatch
    status: Sequence[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.key_digests)

    @classmethod
    def of(
        cls,
        *,
        keys: Sequence[bytes],
        contents: Sequence[bytes | None],
        values: Floats,
        signals: tuple[str, ...],
        status: Sequence[str],
        fingerprint: str,
    ) -> ScorePart:
        """A part from plain lists; all must be of the same length."""
        if not len(keys) == len(contents) == len(values) == len(status):
            raise RunError(
                f"a part's columns differ in length: {len(keys)} keys, {len(contents)} contents, "
                f"{len(values)} scores, {len(status)} statuses; this is a fault of the library"
            )
        return cls(
            key_digests=pa.array(keys, _DIGEST),
            content_digests=pa.array(contents, _DIGEST),
            scores=score_batch(values, signals, status),
            status=tuple(status),
            fingerprint=fingerprint,
        )

    def write(self, path: Path) -> None:
        """Write the part, whole or not at all."""
        columns = {"key_digest": self.key_digests, "content_digest": self.content_digests}
        columns |= {signal: pa.array(self.scores[signal], pa.float32()) for signal in self.scores.signals}
        columns["status"] = pa.array(self.status, pa.string())
        write_table(pa.table(columns), path, {"fingerprint": self.fingerprint, "signals": list(self.scores.signals)})

    @classmethod
    def read(cls, path: Path) -> ScorePart:
        """Read a part; `RunError` where it is damaged, `SchemaError` where it is of another version."""
        table, meta = read_table(path)
        signals = tuple(meta["signals"])
        status = table.column("status").to_pylist()
        values = np.stack([table.column(signal).to_numpy() for signal in signals], axis=1).astype(np.float32)
        return cls(
            key_digests=table.column("key_digest").combine_chunks(),
            content_digests=table.column("content_digest").combine_chunks(),
            scores=score_batch(values, signals, status),
            status=status,
            fingerprint=meta["fingerprint"],
        )


def score_batch(values: Floats, signals: tuple[str, ...], status: Sequence[str]) -> ScoreBatch:
    """Scores whose failures are the rows with another status than ``ok``."""
    failures = {row: code for row, code in enumerate(status) if code != OK}
    return ScoreBatch(values=values, signals=signals, failures=failures)


def write_decisions(part: ScorePart, reason_bits: npt.NDArray[np.uint16], path: Path, *, policy: str) -> Counter[str]:
    """Write the decisions on a part, and count them.

    Parameters
    ----------
    part : ScorePart
        What was decided on.
    reason_bits : ndarray
        (N,) uint16, a `Reason` set each.
    path : Path
        The file.
    policy : str
        Digest of the policy that decided.

    Returns
    -------
    Counter
        ``seen``, ``kept``, ``excluded`` and one count a reason; they are checked to add up.
    """
    counts = count_decisions(reason_bits)
    if counts["seen"] != len(part):
        raise RunError(f"{len(part)} scores got {counts['seen']} decisions; this is a fault of the library")
    names = np.array(REASON_NAMES, dtype=object)
    set_bits = (reason_bits[:, None] >> np.arange(len(names), dtype=np.uint16)) & 1 == 1
    offsets = np.concatenate([[0], np.cumsum(set_bits.sum(axis=1))]).astype(np.int32)
    reasons = pa.ListArray.from_arrays(pa.array(offsets), pa.array(names[np.nonzero(set_bits)[1]], pa.string()))
    table = pa.table(
        {
            "key_digest": part.key_digests,
            "content_digest": part.content_digests,
            "keep": pa.array(reason_bits == 0),
            "reasons": reasons,
        }
    )
    write_table(table, path, {"fingerprint": part.fingerprint, "policy": policy, "counts": counts})
    return counts


def count_decisions(reason_bits: npt.NDArray[np.uint16]) -> Counter[str]:
    """``seen``, ``kept``, ``excluded`` and one count a reason, zeros included."""
    kept = int((reason_bits == 0).sum())
    excluded = int((reason_bits != 0).sum())
    counts = Counter({"seen": len(reason_bits), "kept": kept, "excluded": excluded})
    for bit, name in enumerate(REASON_NAMES):
        counts[name] = int((reason_bits >> np.uint16(bit) & 1).sum())
    if counts["seen"] != kept + excluded:
        raise RunError(f"counts don't add up: {dict(counts)}; this is a fault of the library")
    return counts


def write_table(table: pa.Table, path: Path, meta: Mapping[str, object]) -> None:
    """Write a table with the schema's version and what else is known of it."""
    stamped = {_META: json.dumps({"schema": SCHEMA_VERSION, **meta}).encode()}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(stamped), temporary, compression="zstd")


def read_meta(path: Path) -> dict[str, Any] | None:
    """What a part says of itself, or None where there is no whole part of this version."""
    try:
        return _meta(pq.read_schema(path), path)
    except (OSError, pa.ArrowException, RunError):
        return None


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A part's table, and what it says of itself."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"can't read {path}: {error}; scan again, which redoes only missing parts") from error
    return table, _meta(table.schema, path)


def _meta(schema: pa.Schema, path: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((schema.metadata or {})[_META])
    except (KeyError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is no part of a run; remove it and scan again") from error
    if meta.get("schema") != SCHEMA_VERSION:
        raise SchemaError(
            f"{path} has schema {meta.get('schema')}, this version reads {SCHEMA_VERSION}; use the "
            "version that wrote it, or scan into a new directory"
        )
    return meta
