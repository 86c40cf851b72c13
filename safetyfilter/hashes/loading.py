"""Lists of hashes, loaded from the files and folders that a user names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from safetyfilter.errors import HashListError, UsageError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import Entries
from safetyfilter.hashes.known_list import HashList
from safetyfilter.hashes.naming import ListFile
from safetyfilter.hashes.reading import read_hashes
from safetyfilter.storage import Location, shown

_log = logging.getLogger(__name__)


def load_lists(names: Sequence[str]) -> tuple[HashList, ...]:
    """Return the lists of these names, as of `HashLists.load`.

    What is left out of a list is counted in a warning. The pages of a list, in which later ones replace or delete what
    earlier ones have, may be given one by one, in their order, or as a folder, in the order of their names.

    Raises
    ------
    UsageError
        No list is named, or a name is not one.
    HashListError
        A file is not there, is not a list of hashes, or holds none that can be used.
    MissingExtraError
        There are perceptual hashes, and the library that compares them is not installed.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> load_lists(["no-such-file.txt"])
    Traceback (most recent call last):
        ...
    safetyfilter.errors.HashListError: there is no hash list ...no-such-file.txt; give a file of hashes
    """
    if isinstance(names, str) or not names:
        raise UsageError("give a sequence of one or more names of hash lists, such as ['sha256=listed.txt']")
    files = [ListFile.named(name) for name in names]
    places = [Location.of(file.file) for file in files]
    entries, collected = Entries(), [Collected(file.kind) for file in files]
    for file, place, into in zip(files, places, collected, strict=True):
        read_hashes(place, file, entries, into)
    entries.settle()
    lists = []
    for place, called, into in zip(places, _names_of(places), collected, strict=True):
        name = shown(str(place))
        left_out = ", ".join(f"{count:,} {what}" for what, count in sorted(into.left_out.items()))
        loaded = HashList.of(called, into)
        if not len(loaded) and not entries.has_some_of(into):
            reason = f"; it has {left_out}" if left_out else ""
            raise HashListError(f"the hash list {name} holds no hash that can be used{reason}; give another file")
        if left_out:
            _log.warning("the hash list %s has entries that are not used: %s", name, left_out)
        lists.append(loaded)
    if not any(map(len, lists)):
        raise HashListError("the hash lists hold no hash that can be used; give other files")
    return tuple(lists)


def _names_of(places: Sequence[Location]) -> list[str]:
    """Return the last names of files, with that of the folder before it where several files share it."""
    sharing = Counter(place.name for place in set(places))
    return [place.name if sharing[place.name] == 1 else f"{place.folder.name}/{place.name}" for place in places]
