"""Writes sources for tests, each kind from the same files: image bytes by name, and captions by the same names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

Files = Mapping[str, bytes]
Captions = Mapping[str, str | None]


def write_files(folder: Path, files: Files) -> Path:
    """Write files below a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_folder(folder: Path, files: Files, captions: Captions | None = None) -> Path:
    """Write an image folder, with each caption in a ``.txt`` beside its image."""
    texts = {name: text for name, text in (captions or {}).items() if text is not None}
    beside = {str(Path(name).with_suffix(".txt")): text.encode() for name, text in texts.items()}
    return write_files(folder, {**files, **beside})


def write_tars(
    folder: Path,
    files: Files,
    captions: Captions | None = None,
    *,
    shard_size: int = 10,
    members: Files | None = None,
) -> Path:
    """Write a folder of WebDataset tars, ``0.tar`` and on; samples are numbered within each tar, ``000`` and on.

    `members` are further members of every sample, by extension.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(files)
    for shard, start in enumerate(range(0, len(names), shard_size)):
        with webdataset.TarWriter(str(folder / f"{shard}.tar"), encoder=False) as tar:
            for number, name in enumerate(names[start : start + shard_size]):
                sample = {"__key__": f"{number:03d}", Path(name).suffix[1:]: files[name], **(members or {})}
                caption = (captions or {}).get(name)
                tar.write(sample if caption is None else sample | {"txt": caption.encode()})
    return folder


def table_of(files: Files, captions: Captions | None = None, *, image: str = "image") -> pa.Table:
    """Return a table of images, with a column ``caption`` where there are captions."""
    table = pa.table({image: pa.array(files.values(), pa.binary())})
    if captions is None:
        return table
    return table.append_column("caption", pa.array([captions.get(name) for name in files], pa.string()))


def write_parquet(
    place: Path,
    files: Files,
    captions: Captions | None = None,
    *,
    row_group_size: int = 7,
    extra: pa.Table | None = None,
) -> Path:
    """Write a Parquet file: `place` itself where it is named so, else ``0.parquet`` in that folder.

    `extra` holds further columns, as many rows as files.
    """
    path = place if place.suffix == ".parquet" else place / "0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table_of(files, captions)
    for name in extra.column_names if extra is not None else ():
        table = table.append_column(name, extra.column(name))
    pq.write_table(table, path, row_group_size=row_group_size)
    return place


def data_set_of(files: Files, captions: Captions | None = None) -> datasets.Dataset:
    """Return a data set in memory with a feature ``image``, and ``text`` where there are captions."""
    rows: dict[str, list[object]] = {"image": [{"bytes": content, "path": None} for content in files.values()]}
    features = {"image": datasets.Image()}
    if captions is not None:
        rows["text"], features["text"] = [captions.get(name) for name in files], datasets.Value("string")
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def write_data_set(folder: Path, files: Files, captions: Captions | None = None) -> Path:
    """Save a data set to disk."""
    data_set_of(files, captions).save_to_disk(folder)
    return folder


WRITERS: Mapping[str, Callable[[Path, Files, Captions | None], Path]] = {
    "folder": write_folder,
    "webdataset": write_tars,
    "parquet": write_parquet,
    "datasets": write_data_set,
}
"""The writer of each kind of source: place, files and captions or None."""


def write_with_urls(kind: str, place: Path, files: Files, urls: Mapping[str, str], crawls: Mapping[str, str]) -> Path:
    """Write a source of one of the kinds with the URL and a reference to a crawl, ``warc_filename``, of each sample."""
    described = {name: {"url": urls.get(name), "warc_filename": crawls.get(name)} for name in files}
    texts = {name: json.dumps(fields).encode() for name, fields in described.items()}
    if kind == "folder":
        return write_files(place, {**files, **{str(Path(name).with_suffix(".json")): texts[name] for name in files}})
    if kind == "webdataset":
        place.mkdir(parents=True)
        with webdataset.TarWriter(str(place / "0.tar"), encoder=False) as tar:
            for number, (name, content) in enumerate(files.items()):
                tar.write({"__key__": f"{number:03d}", Path(name).suffix[1:]: content, "json": texts[name]})
        return place
    columns = {
        column: pa.array([described[name][column] for name in files], pa.string())
        for column in ("url", "warc_filename")
    }
    if kind == "parquet":
        return write_parquet(place, files, extra=pa.table(columns))
    rows = data_set_of(files)
    for column, values in columns.items():
        rows = rows.add_column(column, values.to_pylist())
    rows.save_to_disk(place)
    return place


def write_embedding_job(
    folder: Path,
    vectors: Sequence[np.ndarray],
    *,
    keys: Sequence[Sequence[str | None]] | None = None,
    captions: Sequence[np.ndarray] | None = None,
    extra: Mapping[str, Sequence[object]] | None = None,
) -> Path:
    """Write embeddings as clip-retrieval and LAION do: numbered arrays, with metadata and captions' embeddings beside.

    `keys` go into a column ``image_path``, and `extra` holds further columns of the first file's metadata.
    """
    for name, arrays in (("img_emb", vectors), ("text_emb", captions or ())):
        for number, array in enumerate(arrays):
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.save(folder / name / f"{name}_{number}.npy", array)
    for number, of_file in enumerate(keys or ()):
        (folder / "metadata").mkdir(exist_ok=True)
        columns: dict[str, object] = {"image_path": pa.array(of_file, pa.string()), **(extra or {})}
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet", row_group_size=7)
    return folder
