"""Tables, arrays and runs at a place of the user's, or an error with the remedy."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from safetyfilter.batches import Unreadable
from safetyfilter.errors import CalibrationError, ProbeError, RunError, StorageError
from safetyfilter.runs.run import Run
from safetyfilter.storage import Location, parse_parquet, read_npy, require_names


def run_at(place: str | Path) -> Run | None:
    """Return the run at a place; None where there is no ``run.json``.

    >>> run_at("no-such-run") is None
    True
    """
    with suppress(PermissionError):  # of which `Run.open` tells
        if not (Location.of(place) / "run.json").is_file():
            return None
    return Run.open(place)


def read_table(place: str | Path, what: str) -> pa.Table:
    """Return the table of a Parquet or CSV file of ``scores`` or ``labels``; which of the two, its name says.

    A CSV file's first line names the columns. Its column ``key`` is read as text, so that ``007`` stays what it is.

    Raises
    ------
    CalibrationError
        The file is missing or damaged.
    RunError
        There is a folder in the place of scores, and no run in it.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> read_table("nowhere.parquet", "labels")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.CalibrationError: there are no labels at nowhere.parquet; give a Parquet or CSV file
    """
    return read_table_and_digest(place, what)[0]


def read_table_and_digest(place: str | Path, what: str) -> tuple[pa.Table, str]:
    """Return what `read_table` does, and the SHA-256 of the file in hex; errors as there."""
    kinds = "a run, or a Parquet or CSV file" if what == "scores" else "a Parquet or CSV file"
    is_csv = str(place).lower().endswith(".csv")
    try:
        data = Location.of(place).read_bytes()
        table = _parse_csv(data) if is_csv else parse_parquet(data)
        table.validate(full=True)  # finds texts that are not UTF-8, and places of values that can't be
        return table, hashlib.sha256(data).hexdigest()
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise CalibrationError(f"there are no {what} at {place}; give {kinds}") from error
    except IsADirectoryError as error:
        if what == "scores":
            raise _no_run(place, "a Parquet or CSV file") from error
        raise CalibrationError(f"{place} is a folder; give {kinds} of {what}") from error
    except (OSError, ValueError, Unreadable) as error:
        form = "CSV" if is_csv else "Parquet"
        raise CalibrationError(f"the {what} in {place} are not {form} ({error}); give {kinds}") from error


def _parse_csv(data: bytes) -> pa.Table:
    convert = csv.ConvertOptions(column_types={"key": pa.string(), "key_digest": pa.string()})
    wrong: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    try:
        table = csv.read_csv(
            pa.BufferReader(data), convert_options=convert, parse_options=csv.ParseOptions(invalid_row_handler=note)
        )
    except pa.ArrowInvalid:
        if not wrong:
            raise
        row = wrong[0]  # Arrow's own text quotes it, with the key in it
        where = "a row" if row.number is None else f"row {row.number}"
        raise ValueError(
            f"{where} has {row.actual_columns} columns, and the first line names {row.expected_columns}"
        ) from None
    require_names(table)
    return table


def read_vectors(place: str | Path) -> npt.NDArray[Any]:
    """Return the array of a ``.npy`` file; `ProbeError` or `RunError` where there is none.

    >>> read_vectors("nowhere.npy")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: there are no embeddings at nowhere.npy; give a run or a .npy of floats
    """
    try:
        return read_npy(place)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise ProbeError(f"there are no embeddings at {place}; give a run or a .npy of floats") from error
    except IsADirectoryError as error:
        raise _no_run(place, "a .npy of floats") from error
    except (OSError, ValueError, Unreadable) as error:
        raise ProbeError(f"can't read the embeddings in {place}: {error}; give a .npy of floats") from error


def _no_run(place: str | Path, alternative: str) -> RunError:
    return RunError(
        f"no run at {place}, a folder without run.json; make one with `safetyfilter scan SOURCE --out {place}`, or "
        f"give {alternative}"
    )
