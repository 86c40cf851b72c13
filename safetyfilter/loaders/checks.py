"""Whether what a loader reads is what its run scanned: another source is an error, no empty or wrong epoch."""

from __future__ import annotations

from collections.abc import Mapping

from safetyfilter.errors import RunError, SafetyFilterError, UsageError
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run

LOOKED_AT = 64
"""Images compared with those scanned under their keys where nobody asked for all of them to be."""
_TOLD = 8
"""Images after which another source is told from one that has drifted."""

_KEYS: Mapping[str, str] = {
    "folder": "files' paths relative to the scanned folder",
    "webdataset": "SHARD.tar/KEY, the shard's path relative to what was scanned",
    "parquet": "the key column, else FILE.parquet#ROW",
    "datasets": "the key column, else the row's number in the data set as saved, after SPLIT/ where it has splits",
}


def spread(count: int) -> list[int]:
    """The numbers of a few samples from all over so many.

    >>> spread(3), len(spread(10_000_000)), spread(0)
    ([0, 1, 2], 64, [])
    """
    few = min(count, LOOKED_AT)
    return [number * (count - 1) // max(few - 1, 1) for number in range(few)]


class ImageCheck:
    """Compares the first images that come with those that a run scanned under the same keys.

    Names such as ``000001.jpg`` are in many sources: keys alone would let another source's images pass as decided.

    Parameters
    ----------
    decisions : Decisions
        Of the run.

    Attributes
    ----------
    done : bool
        Whether enough were compared.
    """

    def __init__(self, decisions: Decisions) -> None:
        self.done = False
        self._decisions = decisions
        self._compared = self._other = 0

    def same(self, key: str, content: bytes | None) -> bool:
        """Compare one image; True also where its key is unknown or it can't be had, which counts for nothing.

        Raises
        ------
        RunError
            Most are others, of the first eight or more.
        """
        row = int(self._decisions.find([key])[0])
        if content is None or row < 0:
            return True
        same = self._decisions.unchanged(row, content)
        self._compared += 1
        self._other += not same
        self.done = self._compared >= LOOKED_AT
        if self._compared >= _TOLD:
            self.require_same()
        return same

    def require_same(self) -> None:
        """Raise `RunError` if most are others: a re-downloaded source drifts by a part, another one altogether."""
        if 2 * self._other > self._compared:
            raise RunError(
                f"{self._other} of {self._compared} images are not those that the run {self._decisions.run} scanned "
                "under these keys: it is another source's, or keys and images are not in the same order; scan this "
                "source, or where most of it has changed since, leave out what has with verify_content=True"
            )


def require_used(decisions: Decisions, counts: Mapping[str, int], cause: Exception | None = None) -> None:
    """Raise `RunError` where a run can't keep anything of what was seen, which is never what was meant.

    Parameters
    ----------
    decisions : Decisions
        Of the run.
    counts : mapping of str to int
        ``seen``, ``unknown`` and ``drifted``.
    cause : Exception or None
        What getting a key raised, which may be why.
    """
    seen = counts["seen"]
    if not seen or counts["unknown"] + counts["drifted"] < seen:
        return
    if counts["unknown"] < seen:
        raise RunError(
            f"not one of the first {seen} samples has the image that the run {decisions.run} scanned under its key; "
            "check that keys and images belong together and are read encoded, or scan this source"
        )
    kind = _kind(decisions)
    raise RunError(
        f"the run {decisions.run} knows none of the first {seen} samples: it is another source's, or keys are not "
        f"those of the scan, which for its source ({kind}) are {_KEYS.get(kind, 'those of the scanned source')}; "
        "give such keys, or scan this source"
        + (f" (getting a key failed with {type(cause).__name__}: {cause})" if cause is not None else "")
    ) from cause


def require_readable(counts: Mapping[str, int]) -> None:
    """Raise `UsageError` where a filter could read no image of what was seen."""
    if counts["seen"] and counts["unscored"] == counts["seen"]:
        raise UsageError(
            f"not one of the first {counts['seen']} samples has an image that can be read; say where a sample holds "
            "its encoded bytes or its path (image=, images=, image_field= or image_column=)"
        )


def _kind(decisions: Decisions) -> str:
    try:
        return str(Run.open(decisions.run).info["source"]["kind"])
    except (SafetyFilterError, KeyError):
        return "unknown"
