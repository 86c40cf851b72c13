"""Layouts of stored embeddings: clip-retrieval's folders, arrays with files of keys, and columns of Parquet files."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources.files import Listing
from safetyfilter.sources.kinds import is_hidden, is_table, is_tar, tables_of
from safetyfilter.sources.pictures import PICTURE_EXTENSIONS
from safetyfilter.sources.tables import image_column_of
from safetyfilter.sources.vector_columns import ColumnVectors, embedding_column_of
from safetyfilter.sources.vector_files import ArrayVectors, VectorFile
from safetyfilter.sources.vector_keys import KeyList, key_list, opened_parquet
from safetyfilter.storage import Location
from safetyfilter.storage.arrays import ArrayFile

_IMAGES, _TEXTS, _METADATA = "img_emb", "text_emb", "metadata"
"""clip-retrieval's folders."""
_NUMBER = re.compile(r"(\d+)\.[^.]+$")
_BESIDE = (".keys.parquet", ".keys.txt", ".keys.npy", ".parquet", ".txt")
"""Endings of a file of keys that has the array's own name."""
_ALONE = ("keys.parquet", "keys.txt", "keys.npy")
"""Names of a file of keys beside the only array of a folder."""
_MAY_BE_KEYS = (".parquet", ".parq", ".pq", ".csv", ".tsv", ".txt", ".json", ".jsonl", "keys.npy")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedColumns:
    """The columns of stored embeddings that the user named; each is found by name and type where it is None.

    Attributes
    ----------
    vectors : str or None
        The embeddings, in Parquet files.
    key, url : str or None
        The keys and the images' URLs, in the metadata or in the files themselves.
    """

    vectors: str | None = None
    key: str | None = None
    url: str | None = None

    def refuse(self, why: str) -> None:
        """Raise `SourceError`, which begins with `why`, where a column of metadata was named and there is none."""
        for column, option in ((self.key, "--key-column"), (self.url, "--url-column")):
            if column is not None:
                raise SourceError(f"{why}, and so no column {column!r}; leave out {option}")


def stores_embeddings(listing: Listing, column: str | None = None) -> bool:
    """Return True where the files of a listing are stored embeddings, by their names, and of tables by their columns.

    A table with a column of images is a table of images, unless `column` names one of embeddings.
    """
    names = [name for name in listing.names if not is_hidden(name)]
    if any(is_tar(name) or name.rpartition(".")[2].lower() in PICTURE_EXTENSIONS for name in names):
        return False
    if any(_is_array(name) for name in names):
        return True
    tables = tables_of(listing)
    if not tables or len(tables) < sum(is_table(name) for name in names) or _is_saved(listing):
        return False
    with opened_parquet(listing.place(tables[0]), tables[0]) as file:
        schema = file.schema_arrow
    if embedding_column_of(schema, column) is None:
        return False
    if column is not None:
        return True
    try:
        image_column_of(schema)
    except SourceError:
        return True
    return False


def embeddings_in(listing: Listing, named: NamedColumns, *, keys: Location | None) -> list[VectorFile]:
    """Return the files of embeddings of a listing, in order.

    Parameters
    ----------
    listing : Listing
        Files of which `stores_embeddings` is true.
    named : NamedColumns
        The columns that the user named.
    keys : Location or None
        A file of keys for the one array there is.

    Raises
    ------
    SourceError
        Files of one number, or a number without its other files; arrays that can't be read; widths that differ.
    """
    arrays = [name for name in listing.names if _is_array(name) and not is_hidden(name)]
    found: list[VectorFile]
    if arrays:
        if named.vectors is not None:
            raise SourceError(f"{listing.location} holds arrays, which have no columns; leave out --image-column")
        job = any(_folder_of(name) == _IMAGES for name in arrays)
        found = [
            *(_of_job(listing, arrays, named) if job and keys is None else _of_arrays(listing, arrays, named, keys))
        ]
        used = {name for file in found for name in file.files}
        beside = [name for name in listing.names if name not in used and not is_hidden(name)]
        _refuse_left_out(listing, beside)
        _tell_of_no_keys(listing, found, beside)
    else:
        if keys is not None:
            raise SourceError("the keys of Parquet files are in a column of theirs; name it with --key-column")
        found = [
            ColumnVectors.of(listing.place(name), name, named.vectors, named.key, named.url)
            for name in tables_of(listing)
        ]
    first = found[0]
    for other in found:
        if other.width != first.width:
            raise SourceError(
                f"{first.name} has embeddings of width {first.width} and {other.name} of {other.width}; scan those of "
                "each encoder by themselves"
            )
    return found


def _refuse_left_out(listing: Listing, beside: Sequence[str]) -> None:
    """Raise `SourceError` for embeddings beside arrays that are in files of another kind."""
    for name in beside:
        holds = name.lower().endswith(".npz")
        if is_table(name):
            with opened_parquet(listing.place(name), name) as file:
                holds = embedding_column_of(file.schema_arrow) is not None
        if holds:
            raise SourceError(
                f"{listing.location} holds arrays, and embeddings in {name} that would be left out; scan these by "
                "themselves, an .npz file written anew as .npy"
            )


def _tell_of_no_keys(listing: Listing, found: Sequence[VectorFile], beside: Sequence[str]) -> None:
    """Warn where samples are called by the numbers of rows, and a file that may hold their keys is there."""
    without = [file for file in found if isinstance(file, ArrayVectors) and not file.has_keys]
    may_be = any(name.lower().endswith(_MAY_BE_KEYS) for name in beside)
    if without and (may_be or any(file.keys for file in without)):
        _log.warning(
            "samples of %d of %d arrays in %s, %s for example, are called by file and row, FILE#ROW: what lies beside "
            "is not taken for their keys; name a column (--key-column) or a file (--keys), or name files as the "
            "documentation of stored embeddings has them",
            *(len(without), len(found), listing.location, without[0].name),
        )


def _of_job(listing: Listing, arrays: Sequence[str], named: NamedColumns) -> list[VectorFile]:
    """The layout of an embedding job: files of each kind in a folder of its own, matched by their numbers."""
    if elsewhere := [name for name in arrays if _folder_of(name) not in (_IMAGES, _TEXTS)]:
        raise SourceError(
            f"{listing.location} holds {_IMAGES}/ and {len(elsewhere)} arrays elsewhere, {elsewhere[0]} for example, "
            "that would be left out; scan these by themselves"
        )
    images = _numbered(name for name in arrays if _folder_of(name) == _IMAGES)
    texts = _numbered(name for name in arrays if _folder_of(name) == _TEXTS)
    metadata = _numbered(name for name in listing.names if is_table(name) and _folder_of(name) == _METADATA)
    for kind, others in ((_TEXTS, texts), (_METADATA, metadata)):
        if others and (alone := sorted(set(others) ^ set(images))):
            where = f"no {kind} file" if alone[0] in images else f"only a {kind} file"
            raise SourceError(
                f"{listing.location} has {where} of number {alone[0]} ({len(alone)} such numbers in all); complete it, "
                f"or leave {kind}/ out by scanning a copy without it"
            )
    found: list[VectorFile] = []
    for number, name in sorted(images.items()):
        files = [name, *(group[number] for group in (metadata, texts) if number in group)]
        keys = _keys_of(named, listing.place(metadata[number]), metadata[number]) if metadata else None
        if keys is None:
            named.refuse(f"{listing.location} has no {_METADATA}/")
        found.append(
            ArrayVectors(
                name=name,
                images=_array(listing, name),
                files=tuple(files),
                keys=keys,
                keys_name=metadata.get(number, ""),
                texts=_array(listing, texts[number]) if texts else None,
                texts_name=texts.get(number, ""),
            )
        )
    return found


def _of_arrays(
    listing: Listing, arrays: Sequence[str], named: NamedColumns, given: Location | None
) -> list[VectorFile]:
    """Arrays by themselves, each with a file of keys of its own name, or the only one with a file called so."""
    arrays = [name for name in arrays if not _holds_keys(name)]
    if not arrays:
        raise SourceError(f"{listing.location} holds keys and no embeddings; give the array too")
    if given is not None and len(arrays) > 1:
        raise SourceError(
            f"one file of keys is for one array, and {listing.location} holds {len(arrays)}; put keys beside each: "
            "NAME.keys.parquet, NAME.keys.txt or NAME.keys.npy"
        )
    found: list[VectorFile] = []
    for name in arrays:
        alone = len(arrays) == 1 and (listing.is_folder or _is_only_array(listing.base, name))
        keys, files = _keys_beside(listing, name, alone=alone, named=named, given=given)
        if keys is None:
            named.refuse(f"{name} has no file of keys beside it")
        found.append(
            ArrayVectors(
                name=name,
                images=_array(listing, name),
                files=(name, *files),
                keys=keys,
                keys_name=str(given) if given is not None else "".join(files),
            )
        )
    return found


def _is_only_array(base: Location, name: str) -> bool:
    """True where no other array lies in the folder of one that was named by itself: a file of keys may be another's."""
    folder, _, own = name.rpartition("/")
    names = (base / folder if folder else base).names()
    return not any(_is_array(each) and not _holds_keys(each) and each != own for each in names if not is_hidden(each))


def _keys_beside(
    listing: Listing, name: str, *, alone: bool, named: NamedColumns, given: Location | None
) -> tuple[KeyList | None, tuple[str, ...]]:
    if given is not None:
        return _keys_of(named, given, given.name), ()
    stem, folder = name.removesuffix(name[-4:]), name.rpartition("/")[0]
    names = [f"{stem}{ending}" for ending in _BESIDE]
    names += [f"{folder}/{each}".lstrip("/") for each in _ALONE] if alone else []
    places = {each: listing.base / each for each in names}
    there = [each for each, place in places.items() if each in listing or (not listing.is_folder and place.is_file())]
    if len(there) > 1:
        raise SourceError(f"{name} has several files of keys beside it, {', '.join(there)}; keep one, or name it")
    return (_keys_of(named, places[there[0]], there[0]), (there[0],)) if there else (None, ())


def _keys_of(named: NamedColumns, place: Location, name: str) -> KeyList:
    return key_list(place, name, named.key, named.url)


def _array(listing: Listing, name: str) -> ArrayFile:
    try:
        return ArrayFile.open(listing.place(name), listing.size(name))
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise SourceError(f"can't read the embeddings in {name}: {error}") from error


def _numbered(names: Iterable[str]) -> dict[int, str]:
    """The names of one folder's files by their numbers."""
    found: dict[int, str] = {}
    for name in names:
        match = _NUMBER.search(name)
        if match is None:
            raise SourceError(
                f"{name} has no number, by which the files of an embedding job belong together; rename it"
            )
        if (number := int(match[1])) in found:
            raise SourceError(f"{found[number]} and {name} have one number; leave one of them out")
        found[number] = name
    return found


def _is_array(name: str) -> bool:
    return name.lower().endswith(".npy")


def _holds_keys(name: str) -> bool:
    """True for ``keys.npy`` and ``NAME.keys.npy``, and not for ``monkeys.npy``."""
    last = name.rpartition("/")[2].lower()
    return last == "keys.npy" or last.endswith(".keys.npy")


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _is_saved(listing: Listing) -> bool:
    return "dataset_dict.json" in listing or "state.json" in listing
