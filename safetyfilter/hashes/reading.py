"""Files of hashes, in the forms in which lists of known content come."""

from __future__ import annotations

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, SourceNotFoundError, StorageError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.forms.lines import read_lines
from safetyfilter.hashes.naming import ListFile
from safetyfilter.storage import Location


def read_hashes(file: ListFile, into: Collected) -> None:
    """Add the hashes of a file to those of its list.

    Raises
    ------
    SourceError
        There is no such file, or it is not a list of hashes; the text names the file and the line, and no content.
    StorageError
        The storage failed each time it was asked.
    """
    place = Location.of(file.file)
    try:
        with place.open() as stream:
            read_lines(stream, file, into)
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFoundError(f"there is no hash list {place}; give a file of hashes") from error
    except (OSError, Unreadable) as error:
        raise SourceError(f"can't read the hash list {place}: {error}; give a file of hashes") from error
