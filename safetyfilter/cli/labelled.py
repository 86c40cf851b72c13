"""Shared by the commands on labelled data: arguments, groups, and the file that they write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetyfilter.errors import OutputError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

LabelsArgument = Annotated[
    str,
    typer.Argument(
        metavar="LABELS",
        help="Parquet or CSV with a column for each signal, named after it: true or false, 1 or 0, yes or no, empty "
        "where not labelled. "
        "Joined with a run by their column key, or key_digest; with a file by that, else row by row. An optional "
        "column holds groups.",
    ),
]
GroupOption = Annotated[
    str | None, typer.Option(help="The labels' column of groups, such as a source or a family of near-duplicates.")
]


def groups_of(labels: pa.Table, column: str | None) -> npt.NDArray[Any] | None:
    """Return the names in the column of groups, where there is one."""
    if column is None:
        return None
    from safetyfilter.score.labels import column_of

    return column_of(labels, column, "labels").astype(str)


def new_file(path: str) -> Path:
    """Return the path of a file that is to be written; OutputError where it is there, or its folder is not."""
    from safetyfilter.storage import local_path

    local = local_path(path, "the file")
    if local.exists():
        raise OutputError(f"{path} exists; choose another name, or remove it first")
    if not local.parent.is_dir():
        raise OutputError(f"{local.parent} is not a folder; make it first")
    return local
