"""LAION's published test set for its detectors: embeddings by ViT-L/14 in five folders, or a zip file of these.

LAION's notebook ``Traininig_Test.ipynb`` says which folders count as positive. The files come from elsewhere, and are
read as untrusted: no link is followed, no pickle loaded, and no archive unpacked beyond what its arrays may have.
"""

from __future__ import annotations

import io
import stat
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
from real_sets import LabelledSet

from safetyfilter.batches import Floats, Unreadable
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import SourceError, SourceNotFoundError
from safetyfilter.score.convert.network import ZIP_ERRORS
from safetyfilter.score.labels import Labels
from safetyfilter.storage import Location, local_path
from safetyfilter.storage.arrays import ArrayFile

FOLDERS: Mapping[str, bool] = MappingProxyType(
    {"drawings": False, "hentai": True, "neutral": False, "porn": True, "sexy": True}
)
"""The folders of LAION's test set, and whether ``explicit`` is present in theirs."""
WIDTH = 768
"""The columns of a ViT-L/14 embedding."""

MAX_ZIP, MAX_ARRAY, MAX_MEMBERS, MAX_RATIO = 256 << 20, 64 << 20, 10_000, 20
"""The most bytes of the archive and of an array, entries, and times that an array may have been compressed. The real
arrays have 5 MB in all, or twice that in float32, and random digits hardly compress."""
_ARRAY = ("img_emb", "img_emb_0.npy")


def read_laion(path: str | Path) -> LabelledSet:
    """Return LAION's test set from its folder or its zip file.

    Raises
    ------
    SourceError
        A folder or its array is missing, is a link, is not of (rows, 768) float16 or float32, or holds no rows; the
        archive is damaged, or claims sizes beyond reason.
    """
    place = local_path(path, "the test set")
    if place.is_dir():
        arrays = _arrays_in(place)
        rows = {name: _rows(Location.of(array), name) for name, array in arrays.items()}
    elif place.is_file():
        with tempfile.TemporaryDirectory(prefix="safetyfilter-") as folder:
            _unpack(place, Path(folder))
            rows = {name: _rows(Location.of(array), name) for name, array in _arrays_in(Path(folder)).items()}
    else:
        raise SourceNotFoundError(f"there is no folder and no zip file at {path}; give LAION's test set")
    counts = [len(one) for one in rows.values()]
    present = np.repeat([FOLDERS[name] for name in rows], counts)
    return LabelledSet(
        vectors=np.concatenate(list(rows.values())),
        labels=Labels(present=present, known=np.ones(len(present), np.bool_)),
        signal="explicit",
        encoder=NamedEncoder.named("ViT-L-14-quickgelu", "openai").spec,
        folder=np.repeat(list(rows), counts),
    )


def _arrays_in(place: Path) -> dict[str, Path]:
    """The array of each folder, under the names that LAION's archives have for it."""
    base = _base(place)
    found = {}
    for name in FOLDERS:
        there = [each for each in _names_of(name) if (base / each).is_dir()]
        if len(there) != 1:
            raise SourceError(
                f"{base} holds {len(there)} of the folders {' and '.join(_names_of(name))}, and one is read; give the "
                f"test set whole: {', '.join(FOLDERS)}"
            )
        folder = base / there[0]
        array = folder.joinpath(*_ARRAY)
        _require_own(base, folder, array.parent, array)
        if not array.is_file():
            raise SourceError(f"{folder} has no {'/'.join(_ARRAY)}; give the test set as it is published")
        _require_alone(name, [each.name for each in array.parent.iterdir()])
        found[name] = array
    return found


def _base(place: Path) -> Path:
    """The folder that holds those of the set: the one given, or the only one in it that does."""
    wanted = {each for name in FOLDERS for each in _names_of(name)}
    within = [each for each in place.iterdir() if each.is_dir() and any((each / name).is_dir() for name in wanted)]
    return within[0] if len(within) == 1 and not any((place / name).is_dir() for name in wanted) else place


def _names_of(name: str) -> tuple[str, str]:
    return name, f"{name}-test"


def _require_own(*places: Path) -> None:
    for place in places:
        if place.is_symlink():
            raise SourceError(f"{place} is a link, and none is followed; put the files themselves there")


def _require_alone(folder: str, names: Sequence[str]) -> None:
    others = [name for name in names if name.endswith(".npy") and name != _ARRAY[1]]
    if others:
        raise SourceError(
            f"{folder} has {len(others)} arrays besides {_ARRAY[1]}, whose rows would be left out; the published set "
            "has one in each folder"
        )


def _rows(place: Location, folder: str) -> Floats:
    size = Path(place.path).stat().st_size
    try:
        if size > MAX_ARRAY:
            raise ValueError(f"it has {size:,} bytes, and at most {MAX_ARRAY:,} are read")
        array = ArrayFile.open(place, size)
        if array.width != WIDTH:
            raise ValueError(f"its rows have {array.width} columns, and those of ViT-L/14 have {WIDTH}")
        if not array.rows:
            raise ValueError("it has no rows")
        with array.stretch(0, array.rows) as stretch:
            return np.array(stretch.read(0, array.rows), np.float32)
    except (OSError, ValueError) as error:
        raise SourceError(f"can't read the embeddings of {folder}: {error}") from error


def _unpack(place: Path, to: Path) -> None:
    """Write the arrays of an archive below a folder, each in a folder of its own, and nothing else."""
    try:
        data = Location.of(place).read_bytes(MAX_ZIP)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name, info in _members(archive).items():
                array = to.joinpath(name, *_ARRAY)
                array.parent.mkdir(parents=True)
                array.write_bytes(archive.read(info))  # no further than the size it claims, which was checked
    except Unreadable as error:
        raise SourceError(f"{place} has more than {MAX_ZIP:,} bytes; LAION's test set has a few million") from error
    except SourceError:
        raise
    except ZIP_ERRORS as error:
        raise SourceError(f"{place} is not a readable zip file ({error}); fetch it again") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entry of each folder's array; what else the archive holds is never read."""
    if len(archive.infolist()) > MAX_MEMBERS:
        raise SourceError(f"the archive has more than {MAX_MEMBERS:,} entries, which LAION's test set has not")
    folders = {each: name for name in FOLDERS for each in _names_of(name)}
    found: dict[str, zipfile.ZipInfo] = {}
    roots = set()
    for info in archive.infolist():
        *above, folder, inner, last = ("", "", "", *PurePosixPath(info.filename).parts)
        if folder not in folders or inner != _ARRAY[0] or "__MACOSX" in above:
            continue
        name = folders[folder]
        _require_alone(name, [last])
        if last != _ARRAY[1]:
            continue
        root = tuple(part for part in above if part)
        roots.add(root)
        if name in found or len(roots) > 1 or len(root) > 1 or not {"/", ".."}.isdisjoint(root):
            raise SourceError(f"the archive has several arrays of {name}, or one at an odd place; fetch it again")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise SourceError(f"the archive has a link in the place of {name}'s array, and none is followed")
        if info.file_size > min(MAX_ARRAY, MAX_RATIO * max(info.compress_size, 1)):
            raise SourceError(
                f"the array of {name} claims {info.file_size:,} bytes from {info.compress_size:,}; fetch it again"
            )
        found[name] = info
    if missing := [name for name in FOLDERS if name not in found]:
        raise SourceError(
            f"the archive has no {'/'.join(_ARRAY)} of {', '.join(missing)}; give the test set whole, as it is "
            "published"
        )
    return found
