"""Opens a source: an image folder, WebDataset tars, Parquet files or a Hugging Face data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetyfilter.errors import EmptySourceError, SourceError
from safetyfilter.sources.base import IMAGE_EXTENSIONS, PART_SIZE, Part, Sample, Source, TableSource
from safetyfilter.sources.files import Listing
from safetyfilter.sources.folder import FolderSource
from safetyfilter.sources.tables import DatasetSource, ParquetSource
from safetyfilter.sources.tars import WebDatasetSource

__all__ = ["Part", "Sample", "Source", "TableSource", "open_source"]


def open_source(
    source: Any, *, image_column: str | None = None, key_column: str | None = None, part_size: int = PART_SIZE
) -> Source:
    """Open a source by what lies there.

    Parameters
    ----------
    source : str, path, datasets.Dataset or datasets.DatasetDict
        A folder of images, tars or Parquet files; one such file, or a pattern (``shards/{000..099}.tar``,
        ``data/*.parquet``); a folder that ``Dataset.save_to_disk`` wrote; or a data set object.
    image_column, key_column : str or None
        The columns of a table, or the extension of the image in a tar; found where None.
    part_size : int
        Samples a part; a tar is always one part.

    Raises
    ------
    SourceNotFoundError
        Nothing is there.
    EmptySourceError
        There is no sample in it.
    SourceError
        It is none of the above, or holds more than one kind.

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
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "features") and not hasattr(source, "keys"):
            raise SourceError(f"a {type(source).__name__} is no source; give a path, a Dataset or a DatasetDict")
        opened: Source = DatasetSource(
            source, location="memory", image_column=image_column, key_column=key_column, part_size=part_size
        )
    else:
        listing = Listing(os.fspath(source))
        kind = _kind(listing)
        if kind == "datasets":
            opened = DatasetSource(
                _load_from_disk(os.fspath(source)),
                location=listing.location,
                image_column=image_column,
                key_column=key_column,
                part_size=part_size,
            )
        elif kind == "webdataset":
            opened = WebDatasetSource(listing, image_field=image_column)
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
            f"{listing.location} is no source; give a folder of images, .tar or .parquet files, or a "
            "data set saved to disk"
        )
    return "folder"


def _load_from_disk(path: str) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(path)
    except Exception as error:  # datasets raises many kinds for a damaged folder
        raise SourceError(
            f"can't load the data set saved at {path}: {error}; save it again with Dataset.save_to_disk"
        ) from error
