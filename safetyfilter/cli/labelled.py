"""Embeddings, scores and labels as files and run directories give them."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.cli.app import err
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError, ProbeError
from safetyfilter.runs.secret import read_secret


def load_npy(path: Path) -> npt.NDArray[Any]:
    """One array as a memory map; `ProbeError` where the file is none."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ProbeError(f"can't read the embeddings in {path}: {error}; give a .npy of floats") from error
    if not isinstance(array, np.ndarray):
        raise ProbeError(f"{path} holds several arrays; give a .npy of one")
    return array


def read_embeddings(path: Path) -> tuple[npt.NDArray[Any], list[bytes] | None]:
    """The vectors, as a memory map where they are one file, and the key digests where a run gives them."""
    if not path.is_dir():
        beside = path.parent.parent / "scores" / f"{path.stem}.parquet"
        return load_npy(path), _key_digests(read_table(beside, "scores")) if beside.is_file() else None
    path = _run_of(path)
    parts = sorted((path / "embeddings").glob("part-*.npy"))
    if not parts:
        raise ProbeError(f"{path} holds no embeddings; scan with --keep-embeddings, or give a .npy")
    arrays = [load_npy(part) for part in parts]
    keys = _key_digests(read_table(path, "scores"))
    return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)), keys


def _run_of(path: Path) -> Path:
    """The run that a path is, or lies in; the path itself where there is none."""
    return next((place for place in (path, path.parent, path.parent.parent) if (place / "run.json").is_file()), path)


def read_table(path: Path, what: str) -> Any:
    """A Parquet file, or those of a run's scores."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise CalibrationError(f"there are no {what} at {path}; give a {'run or a ' * (what == 'scores')}Parquet file")
    files = sorted((path / "scores" if (path / "scores").is_dir() else path).glob("*.parquet"))
    try:
        if path.is_dir() and files:
            return pa.concat_tables([pq.read_table(file).replace_schema_metadata() for file in files])
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CalibrationError(f"the {what} in {path} are no Parquet ({error}); give a Parquet file") from error


def _key_digests(table: Any) -> list[bytes] | None:
    return table.column("key_digest").to_pylist() if "key_digest" in table.column_names else None


def aligned(labels: Any, keys: list[bytes] | None, count: int, run: Path) -> Any:
    """The labels in the order of the rows they belong to; rows without a label get null."""
    label_keys = _key_digests(labels)
    if keys is not None and label_keys is None and "key" in labels.column_names:
        digester = read_secret(_run_of(run))
        label_keys = [digester.key(str(key)) for key in labels.column("key").to_pylist()]
    if keys is None and {"key", "key_digest"} & set(labels.column_names):
        raise CalibrationError(
            f"the labels name their samples, and nothing in {run} does; give the run directory, or take the labels' "
            "column of keys out where they are in the order of the rows"
        )
    if keys is None or label_keys is None:
        if len(labels) != count:
            raise CalibrationError(
                f"there are {count} rows and {len(labels)} labels; give one a row, or the samples' keys in a column key"
            )
        return labels
    return joined(labels, label_keys, keys)


def joined(labels: Any, label_keys: list[bytes], keys: list[bytes]) -> Any:
    """The labels in the order of the rows' keys."""
    import pyarrow as pa

    place = {key: row for row, key in enumerate(label_keys)}
    if twice := len(label_keys) - len(place):
        raise CalibrationError(f"the labels name samples more than once, in {twice:,} rows; give each sample one row")
    rows = [place.get(key) for key in keys]
    matched = sum(row is not None for row in rows)
    if not matched:
        raise CalibrationError(
            "no label's key is among the rows'; give the keys of the source that was scanned, or the key_digest of "
            "this run's own scores"
        )
    if matched < len(label_keys):
        err.print(f"[yellow]{len(label_keys) - matched:,} of {len(label_keys):,} labels belong to no row: left out")
    return labels.take(pa.array(rows, pa.int64()))


def labels_of(table: Any, signal: str) -> npt.NDArray[Any]:
    """One signal's column of labels."""
    from safetyfilter.score.labels import column_of

    return column_of(table, signal, "labels")


def embedded_only(labels: npt.NDArray[Any], vectors: npt.NDArray[Any], run_keys: list[bytes] | None) -> Any:
    """The labels without those of a run's samples that could not be embedded, which a scan has recorded."""
    if run_keys is None:
        return labels
    missing = ~np.isfinite(vectors.reshape(len(vectors), -1)[:, 0])
    if count := int(missing.sum()):
        err.print(f"[yellow]{count:,} of {len(labels):,} samples have no embedding, as their images could not be read")
    return [None if gone else label for label, gone in zip(labels.tolist(), missing.tolist(), strict=True)]


def groups_of(table: Any, column: str | None) -> npt.NDArray[Any] | None:
    """The names in the column of groups, where there is one."""
    if column is None:
        return None
    from safetyfilter.score.labels import column_of

    return column_of(table, column, "labels").astype(str)


def scores_and_labels(scores: Path, labels: Path, group_column: str | None) -> tuple[Any, Any, Any]:
    """Scores, the labels in their order, and the labels' groups."""
    values, truth = read_table(scores, "scores"), read_table(labels, "labels")
    if "key_digest" not in values.column_names and all("key" in table.column_names for table in (values, truth)):
        # scores of the user's own, with keys in the clear on both sides
        keys, label_keys = ([str(key).encode() for key in table.column("key").to_pylist()] for table in (values, truth))
        truth = joined(truth, label_keys, keys)
    else:
        truth = aligned(truth, _key_digests(values), len(values), scores)
    return values, truth, groups_of(truth, group_column)


def encoder_of(given: str | None, embeddings: Path) -> EncoderSpec | str:
    """The encoder: by its digest as given, or from a JSON file, or from the run that the embeddings lie in."""
    if given is not None and not Path(given).is_file():
        if len(given) == 64 and set(given) <= set("0123456789abcdef"):
            return given
        raise ProbeError(f"{given!r} is neither a digest of 64 hexadecimal digits nor a JSON file")
    source = Path(given) if given else _run_of(embeddings) / "run.json"
    if not source.is_file():
        raise ProbeError(
            f"nothing says which encoder made the embeddings in {embeddings}; give --encoder-digest, with the digest "
            "or with a scan's run.json"
        )
    try:
        found = _find_encoder(jsonlib.loads(source.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ProbeError(f"can't read {source}: {error}; give --encoder-digest") from error
    if found is None:
        raise ProbeError(f"{source} names no encoder; give its digest with --encoder-digest")
    return found


def _find_encoder(data: Any) -> EncoderSpec | str | None:
    """The encoder's specification, or that in a `run.json` that holds one."""
    if not isinstance(data, Mapping):
        return None
    if "architecture" in data and isinstance(data.get("digest"), str):
        try:
            return EncoderSpec.from_dict(data)
        except TypeError:  # a file of the user's own that names no more than the digest
            return str(data["digest"])
    return next((found for name in ("encoder", "setup") if (found := _find_encoder(data.get(name)))), None)
