"""Opens a source: an image folder, WebDataset tars, Parquet files or a Hugging Face data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetyfilter.errors import EmptySourceError, SourceError, UsageError
from safetyfilter.sources.base import IMAGE_EXTENSIONS, PART_SIZE, Part, Sample, SampleBatch, Source
from safetyfilter.sources.datasets import DatasetSource, load_saved
from safetyfilter.sources.files import Listing
from safetyfilter.sources.folder import FolderSource
from safetyfilter.sources.parquet import ParquetSource
from safetyfilter.sources.tars import WebDatasetSource
from safetyfilter.storage import Location

__all__ = ["Part", "Sample", "SampleBatch", "Source", "open_source"]


def open_source(
    source: Any, *, image_column: str | None = None, key_column: str | None = None, part_size: int = PART_SIZE
) -> Source:
    """Open a source by what lies there.

    Parameters
    ----------
    source : str, path, Location, datasets.Dataset or datasets.DatasetDict
        A folder of images, tars or Parquet files; one such file, or a pattern (``shards/{000..099}.tar``,
        ``data/*.parquet``); a folder that ``Dataset.save_to_disk`` wrote; or a data set object.
    image_column, key_column : str or None
        The columns of a table, or the extension of the image in a tar; found where None.
    part_size : int
        Samples a part, about; a tar is never divided, and small tars and tables are gathered into one part.

    Raises
    ------
    SourceNotFoundError
        Nothing is there.
    EmptySourceError
        There is no sample in it.
    SourceError
        It is none of the above, holds more than one kind, or can't be read.
    UsageError
        `part_size` is below 1, or no installed package opens such URLs.
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
    if part_size < 1:
        raise UsageError(f"a part has at least one sample, not {part_size}; leave part_size out for {PART_SIZE}")
    opened: Source
    if not isinstance(source, str | os.PathLike | Location):
        if not hasattr(source, "features") and not hasattr(source, "keys"):
            raise SourceError(f"a {type(source).__name__} is not a source; give a path, a Dataset or a DatasetDict")
        opened = DatasetSource(
            source, location="memory", image_column=image_column, key_column=key_column, part_size=part_size
        )
    else:
        listing = Listing(source)
        kind = _kind(listing)
        if kind == "datasets":
            data = load_saved(listing.location)
            opened = DatasetSource(
                data,
                location=listing.location,
                image_column=image_column,
                key_column=key_column,
                part_size=part_size,
            )
        elif kind == "webdataset":
            opened = WebDatasetSource(listing, image_field=image_column, part_size=part_size)
        elif kind == "parquet":
            opened = ParquetSource(listing, image_column=image_column, key_column=key_column, part_size=part_size)
        else:
            opened = FolderSource(listing, part_size=part_size)
    parts = opened.parts()
    if not parts or not any(True for part in parts for _ in opened.samples(part)):
        raise EmptySourceError(f"no sample in {source}; it must hold images, tars, Parquet files or a saved data set")
    return opened


def _kind(listing: Listing) -> str:
    names = listing.names
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names):
        return "datasets"
    suffixes = [Path(name).suffix.lower().lstrip(".") for name in names]
    tars, tables = suffixes.count("tar"), suffixes.count("parquet")
    images = sum(suffix in IMAGE_EXTENSIONS for suffix in suffixes)
    if tars and images:
        raise SourceError(
            f"{listing.location} holds {tars} tars and {images} images; pass one kind, for example "
            "a pattern like '*.tar'"
        )
    if tars:
        return "webdataset"  # img2dataset lays a Parquet file of metadata beside each tar
    if tables and not images:
        return "parquet"
    if not listing.is_folder and not images:
        raise SourceError(
            f"{listing.location} is not a source; give a folder of images, .tar or .parquet files, or a "
            "data set saved to disk"
        )
    return "folder"
