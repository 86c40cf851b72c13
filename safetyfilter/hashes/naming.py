"""The names of lists of hashes: a file, and where that does not tell, the kind of its hashes and the column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from safetyfilter.errors import UsageError
from safetyfilter.hashes.kinds import HashKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFile:
    """A file of hashes, as it is named on the command line.

    Attributes
    ----------
    file : str
        A path or a URL.
    kind : HashKind or None
        The kind of its hashes; None where the file tells.
    column : str or None
        The column of a CSV that holds them, by its name, or by its number from 1 where there is no header.

    Examples
    --------
    >>> ListFile.named("pdq:hash=list.csv")
    ListFile(file='list.csv', kind=<HashKind.PDQ: 'pdq'>, column='hash')
    >>> ListFile.named("s3://bucket/a=b.txt").file
    's3://bucket/a=b.txt'
    """

    file: str
    kind: HashKind | None = None
    column: str | None = None

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the file of FILE, KIND=FILE or KIND:COLUMN=FILE.

        Raises
        ------
        UsageError
            No file is named.
        """
        before, equals, file = name.partition("=")
        kind_name, colon, column = before.partition(":")
        kind = kind_named(kind_name) if equals else None
        if kind is None:
            file, column, colon = name, "", ""
        if not file or (colon and not column):
            raise UsageError(f"{name!r} is not a hash list; give FILE, KIND=FILE or KIND:COLUMN=FILE")
        return cls(file=file, kind=kind, column=column or None)


def kind_named(text: str) -> HashKind | None:
    """Return the kind of this name, however it is spelled; None for another text.

    >>> kind_named("SHA-256"), kind_named("url_md5"), kind_named("photodna")
    (<HashKind.SHA256: 'sha256'>, <HashKind.URL_MD5: 'url-md5'>, None)
    """
    return _SPELLED.get(plain(text))


def plain(text: str) -> str:
    """Return a name in lower case without what may be between its words.

    >>> plain(" SHA-256 Hash")
    'sha256hash'
    """
    return text.strip().lower().translate(str.maketrans("", "", "-_ "))


_SPELLED = {plain(kind.value): kind for kind in HashKind}
