"""Short lines of advice after a command, by what kept samples from being scored or written."""

from __future__ import annotations

from collections.abc import Mapping

_TABLES = ("parquet", "datasets", "several kinds")
"""Kinds of sources whose samples are, or may be, rows."""
_FILES = ("not_fetched", "unreadable", "missing")
"""Causes that files named by rows can have."""


def advice_on(causes: Mapping[str, int], kind: str) -> list[str]:
    """Return a line for each cause of unscored samples that another option of the scan may mend.

    Parameters
    ----------
    causes : mapping of str to int
        Unscored samples by `safetyfilter.batches.FAILURES`.
    kind : str
        The kind of source that was scanned.

    Examples
    --------
    >>> advice_on({"several_images": 2, "not_an_image": 1}, "webdataset")
    ['several_images: 2 samples hold more than one picture; scan with --image-column and the extension of the image.']
    >>> advice_on({"missing": 1}, "folder")
    []
    """
    lines = []
    if several := causes.get("several_images", 0):
        holds = "sample holds" if several == 1 else "samples hold"
        lines.append(
            f"several_images: {several:,} {holds} more than one picture; scan with --image-column and the extension "
            "of the image."
        )
    if kind in _TABLES and (there := [cause for cause in _FILES if causes.get(cause, 0)]):
        lines.append(
            f"{', '.join(there)}: where rows name files by absolute paths, scan with --root and the folder that holds "
            "them."
        )
    if no_key := causes.get("no_key", 0):
        lines.append(
            f"no_key: {no_key:,} {'row has' if no_key == 1 else 'rows have'} a null in the key column; fill it, or "
            "name another with --key-column."
        )
    return lines


def advice_on_export(counts: Mapping[str, int], unknown: int = 0) -> str | None:
    """Return a line where an export met samples that are not those scanned, else None.

    Parameters
    ----------
    counts : mapping of str to int
        Of the export.
    unknown : int
        The samples that the run itself has as ``unknown``, where it was made by ``apply``.

    >>> advice_on_export({"seen": 4, "drifted": 4})[:57]
    '4 of 4 samples are not those that were scanned: since the'
    >>> advice_on_export({"seen": 4, "drifted": 0, "unscored": 1}) is None
    True
    >>> advice_on_export({"seen": 4, "unknown": 1}, unknown=1) is None
    True
    """
    others = counts.get("drifted", 0) + counts.get("unknown", 0) - unknown
    if others <= 0:
        return None
    return (
        f"{others:,} of {counts['seen']:,} samples are not those that were scanned: since the scan the source has "
        "changed, the scan was of a part of it (--limit), or it is read with another --root, --image-column or "
        "--key-column than by the scan."
    )


def advice_on_decoys(counts: Mapping[str, int]) -> str:
    """Return a line that says how much a list with decoys tells by its gaps.

    >>> advice_on_decoys({"seen": 1_000, "kept": 990, "excluded": 10, "decoys": 90})
    'Of 100 samples that are not listed, 10 were excluded (10 %) and 90 are decoys. Publish one list of a run only.'
    """
    gaps = counts["excluded"] + counts["decoys"]
    share = f"{100 * counts['excluded'] / max(gaps, 1):.2g}"
    return (
        f"Of {gaps:,} samples that are not listed, {counts['excluded']:,} were excluded ({share} %) and "
        f"{counts['decoys']:,} are decoys. Publish one list of a run only."
    )
