"""The one rule for the paths that a data set's rows hold: files inside the data set, or below a root that a user names.

A path in a row was written by whoever made the data set. It is opened by the operating system as it is, and never
parsed: not as a URL, not as a chain of URLs, not with a home folder in it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from safetyfilter.batches import Unreadable
from safetyfilter.errors import UsageError
from safetyfilter.storage import Location, Place, is_url

_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:|.*::")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """The files that a path in a row may name.

    A relative path is looked for in `folder`, and must stay in `within` or below `root` once its links are resolved. An
    absolute one must be below `root`, or `anywhere` is on. Whether what it names is a regular file is seen where it is
    read.

    Attributes
    ----------
    folder : Location or None
        The folder of the file that holds the row; None for rows in memory, whose relative paths are below `root`.
    within : Location or None
        The data set's own folder.
    root : str or None
        A local folder that the user named.
    anywhere : bool
        On for rows that the user's own code made: they may name any local file by its absolute path.

    Examples
    --------
    >>> rule = PathRule(folder=Location.of("/data/tables"), within=Location.of("/data"))
    >>> rule.place("../pictures/a.jpg").path
    '/data/pictures/a.jpg'
    >>> for path in ("s3://bucket/a.jpg", "data:image/png;base64,", "reference::a.json", "/dev/zero", "../../x"):
    ...     try:
    ...         rule.place(path)
    ...     except Unreadable as refused:
    ...         print(refused.failure)
    not_fetched
    not_fetched
    not_fetched
    unreadable
    unreadable
    """

    folder: Location | None = None
    within: Location | None = None
    root: str | None = None
    anywhere: bool = False
    _real: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def place(self, path: object) -> Location:
        """Return the file that a path in a row names; it need not be there.

        Raises
        ------
        Unreadable
            ``missing`` where there is no path, ``not_fetched`` for a link, ``unreadable`` for what may not be read.
        """
        if not isinstance(path, str) or not path:
            raise Unreadable("missing")
        if "://" in path:
            raise Unreadable("not_fetched")
        refused = Unreadable("not_fetched" if _LINK.match(path) else "unreadable")
        if "\0" in path or not _can_be_a_name(path):
            raise refused
        folder = self.folder or (Location.local(self.root) if self.root else None)
        if path.startswith("/"):
            return self._local(path, refused)
        if folder is None:
            raise refused
        if folder.is_local:
            return self._local(os.path.join(folder.path, path), refused)  # noqa: PTH118 - a tenth of pathlib's time
        if refused.failure == "not_fetched" or any(name in ("", ".", "..") for name in path.split("/")):
            raise refused  # a name on object storage is no path with steps in it
        return folder / path

    def _local(self, path: str, refused: Unreadable) -> Location:
        real = self._resolved(path)
        if refused.failure == "not_fetched" and not os.path.lexists(real):
            raise refused
        own = self.within.path if self.within is not None and self.within.is_local else None
        if not self.anywhere and not any(_is_below(real, self._folder(top)) for top in (own, self.root) if top):
            raise Unreadable("unreadable")
        return Location.local(real if not self.anywhere else path)

    def _resolved(self, path: str) -> str:
        """Return a path without links; the folder's are resolved once for all the files in it."""
        folder, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        inner = f"{self._folder(folder or '/').rstrip('/')}/{name}"
        return os.path.realpath(inner) if os.path.islink(inner) else inner  # noqa: PTH114

    def _folder(self, path: str) -> str:
        if path not in self._real:
            self._real[path] = os.path.realpath(path)
        return self._real[path]

    @property
    def state(self) -> str:
        """The rule as text, for the state of a part."""
        return f"{self.root or ''}:{self.anywhere}"


def checked_root(root: Place | None) -> str | None:
    """Return the path of a folder that a user names as the root of rows' paths.

    Raises
    ------
    UsageError
        It is not a folder of this machine.

    Examples
    --------
    >>> checked_root("no-such-folder")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: the root 'no-such-folder' is not a folder of this machine; name the folder below ...
    """
    if root is None:
        return None
    text = str(root)
    if is_url(root) or not os.path.isdir(text):  # noqa: PTH112
        raise UsageError(
            f"the root {text!r} is not a folder of this machine; name the folder below which the files lie that rows "
            "name by their absolute paths"
        )
    return os.path.abspath(text)  # noqa: PTH100


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _can_be_a_name(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True
