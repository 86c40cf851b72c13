"""Opens a source: an image folder, WebDataset tars, Parquet files, a Hugging Face data set or stored embeddings."""

from __future__ import annotations

import os
from typing import Any

from safetyfilter.errors import EmptySourceError, SourceError, UsageError
from safetyfilter.sources.base import PART_SIZE, Part, Sample, SampleBatch, Source
from safetyfilter.sources.datasets import DatasetSource, Rows
from safetyfilter.sources.embedding_layouts import stores_embeddings
from safetyfilter.sources.embeddings import ROWS, EmbeddingSource
from safetyfilter.sources.extents import overlaps
from safetyfilter.sources.files import Listing
from safetyfilter.sources.folder import FolderSource
from safetyfilter.sources.incomplete import require_whole
from safetyfilter.sources.kinds import kind_of, remedy_for_tables
from safetyfilter.sources.parquet import ParquetSource
from safetyfilter.sources.paths import PathRule, checked_root
from safetyfilter.sources.saved import load_saved
from safetyfilter.sources.tars import WebDatasetSource
from safetyfilter.sources.wrapped import JoinedSource, LimitedSource
from safetyfilter.storage import Location, Place

__all__ = ["Part", "PathRule", "Sample", "SampleBatch", "Source", "open_source", "overlaps"]


def open_source(
    source: Any,
    *,
    image_column: str | None = None,
    key_column: str | None = None,
    url_column: str | None = None,
    root: Place | None = None,
    keys: Place | None = None,
    limit: int | None = None,
    part_size: int | None = None,
) -> Source:
    """Open a source by what lies there.

    Parameters
    ----------
    source : str, path, Location, datasets.Dataset, datasets.DatasetDict, or a list of these
        A folder of images, tars or Parquet files; one such file, or a pattern (``shards/{000..099}.tar``,
        ``data/*.parquet``); a folder that ``Dataset.save_to_disk`` wrote; a data set object; or stored embeddings, see
        `EmbeddingSource`. Of several, each sample's key begins with the name of its own source; see `JoinedSource`.
    image_column, key_column : str or None
        The columns of a table, or the extension of the image in a tar; found where None. Of stored embeddings, the
        columns of these and of the keys.
    url_column : str or None
        The column that holds the images' URLs, or the field of the ``.json`` that lies beside an image; found where
        None, see `safetyfilter.sources.urls.URL_NAMES`. No URL is opened.
    root : path or None
        A local folder: rows of tables may name files below it by absolute paths; see `PathRule`.
    keys : path or None
        The file of keys of one array of stored embeddings: Parquet, text with a key a line, or ``.npy``.
    limit : int or None
        Only the first so many samples, for a trial.
    part_size : int or None
        Samples a part, about; a tar is never divided, and small tars and tables are gathered into one part. Where None,
        10,000; of stored embeddings a million.

    Raises
    ------
    SourceNotFoundError
        Nothing is there.
    EmptySourceError
        There is no sample in it.
    SourceError
        It is none of the above, holds more than one kind or a format that is not read, or can't be read.
    UsageError
        `part_size` or `limit` is below 1, `root` is not a folder, columns are named where there are none, or no
        installed package opens such URLs.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (8, 8)).save(folder / "a.png")
    >>> source = open_source(folder)
    >>> source.kind, [sample.key for sample in source.samples(source.parts()[0])]
    ('folder', ['a.png'])
    """
    if part_size is not None and part_size < 1:
        raise UsageError(f"a part has at least one sample, not {part_size}; leave part_size out for the usual")
    top = checked_root(root)
    places = list(source) if isinstance(source, list | tuple) else [source]
    columns = {"image_column": image_column, "key_column": key_column, "url_column": url_column}
    found = [_opened(place, columns, top, part_size, keys) for place in places]
    opened = found[0] if len(found) == 1 and not isinstance(source, list | tuple) else JoinedSource(found)
    opened = opened if limit is None else LimitedSource(opened, limit)
    parts = opened.parts()
    if not any(
        part.count if opened.kind == "embeddings" else any(True for _ in opened.samples(part)) for part in parts
    ):
        raise EmptySourceError(f"no sample in {source}; it must hold images, tars, Parquet files or a saved data set")
    return opened


def _opened(
    source: Any, columns: dict[str, str | None], root: str | None, part_size: int | None, keys: Place | None
) -> Source:
    if not isinstance(source, str | os.PathLike | Location):
        if not hasattr(source, "features") and not hasattr(source, "keys"):
            raise SourceError(f"a {type(source).__name__} is not a source; give a path, a Dataset or a DatasetDict")
        rows = Rows(data=source, location="memory", rule=PathRule(root=root, anywhere=True))
        _refuse_keys(source, keys)
        return DatasetSource(rows, part_size=part_size or PART_SIZE, **columns)
    listing = Listing(source)
    require_whole(listing)
    if stores_embeddings(listing, columns["image_column"]):
        return EmbeddingSource(
            listing,
            column=columns["image_column"],
            key_column=columns["key_column"],
            url_column=columns["url_column"],
            keys=None if keys is None else Location.of(keys),
            part_size=part_size or ROWS,
        )
    _refuse_keys(source, keys)
    part_size = part_size or PART_SIZE
    kind = kind_of(listing)
    if kind == "datasets":
        return DatasetSource(load_saved(listing, root=root), part_size=part_size, **columns)
    if kind == "parquet":
        return ParquetSource(listing, root=root, part_size=part_size, **columns)
    if root is not None:
        tables = remedy_for_tables(listing) if kind == "folder" else ""
        raise UsageError(
            f"{source} has no rows that name files; leave out root (--root), which is for tables"
            + (f", or, {tables}" if tables else "")
        )
    if kind == "webdataset":
        _refuse_columns(source, {"key_column": columns["key_column"]}, "tars have no columns of keys")
        return WebDatasetSource(
            listing, image_field=columns["image_column"], url_field=columns["url_column"], part_size=part_size
        )
    others = {name: column for name, column in columns.items() if name != "url_column"}
    _refuse_columns(source, others, "an image folder has no columns")
    return FolderSource(listing, url_field=columns["url_column"], part_size=part_size)


def _refuse_keys(source: object, keys: Place | None) -> None:
    if keys is not None:
        raise UsageError(
            f"{source} is not an array of stored embeddings, and has its own keys; leave out keys= (--keys)"
        )


def _refuse_columns(source: object, columns: dict[str, str | None], why: str) -> None:
    for name, column in columns.items():
        if column is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{why}, and {source} is read as such; leave out {name}={column!r} ({option})")
