"""Drafts of reports to a hotline, for a person to check, fill in and send: nothing is sent or opened here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from safetyfilter.errors import OutputError, SealedError
from safetyfilter.sealed.opened import OpenedRecord
from safetyfilter.sealed.report_fields import file_fields, grouped_by, report_fields, to_fill_in
from safetyfilter.sealed.report_xml import Value, as_xml
from safetyfilter.storage import Place, creating_private, local_path

MOST_RECORDS = 100
"""Records in a draft: as many as a person can check."""
_NOTICE = (
    "This is a draft, and nothing was sent. It is made from the record of a scan, which nobody has confirmed and "
    "nobody is to confirm by looking. Check it, fill in what is missing, take legal advice, and send it to the hotline "
    "yourself."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """A folder of drafts.

    Attributes
    ----------
    folder : str
        It and its files are for their owner alone.
    records : mapping of str to int
        How many records there are of each group: ``known_hash``, ``co_occurrence``, or both, with a plus sign.
    drafts : int
        How many reports were drafted; each is there as JSON and as XML.
    without_url : int
        Records that do not say where the picture was found.
    """

    folder: str
    records: Mapping[str, int]
    drafts: int
    without_url: int


def draft_reports(records: Iterable[OpenedRecord], folder: Place) -> Drafts:
    """Write drafts of reports on opened records, as JSON and as XML, grouped by why they were made.

    Parameters
    ----------
    records : iterable of OpenedRecord
        As `safetyfilter.sealed.opened.read_records` yields them; their order is kept within a group.
    folder : path or Location
        A folder on this machine that is not there yet. It gets mode 0700, and its files 0600.

    Raises
    ------
    OutputError
        The folder is there already, can't be written, or the place is on other storage or in a run. Nothing is left.
    SealedError
        There are no records; or as of `read_records`.

    Examples
    --------
    >>> import tempfile
    >>> from safetyfilter.sealed.evidence import Evidence
    >>> record = OpenedRecord(run="r", evidence=Evidence(source="s", key="k", reasons=("known_hash",)))
    >>> folder = Path(tempfile.mkdtemp()) / "drafts"
    >>> draft_reports([record], folder).drafts, sorted(path.name for path in folder.iterdir())
    (1, ['known_hash-0001.json', 'known_hash-0001.xml'])
    """
    path = local_path(folder, "drafts of reports")
    if inside := [str(above) for above in path.resolve().parents if (above / "run.json").exists()]:
        raise OutputError(f"{path} is in the run {inside[0]}, which names no sample; give a place outside it")
    groups: dict[str, list[OpenedRecord]] = {}
    numbers: dict[str, Iterator[int]] = {}
    counts: dict[str, int] = {}
    drafts = without_url = 0
    with _new_folder(path):
        for record in records:
            name = "+".join(grouped_by(record)) or "other"
            group = groups.setdefault(name, [])
            group.append(record)
            counts[name] = counts.get(name, 0) + 1
            without_url += not record.evidence.url
            if len(group) == MOST_RECORDS:
                drafts += 1
                _write(path, name, next(numbers.setdefault(name, count(1))), groups.pop(name))
        for name, group in groups.items():
            drafts += 1
            _write(path, name, next(numbers.setdefault(name, count(1))), group)
        if not drafts:
            raise SealedError("there are no records to report; nothing was written")
    return Drafts(folder=str(path), records=counts, drafts=drafts, without_url=without_url)


def _write(folder: Path, name: str, number: int, records: list[OpenedRecord]) -> None:
    content: dict[str, Value] = {
        "notice": _NOTICE,
        "toFillIn": to_fill_in(records),
        "report": report_fields(records),
        "fileDetails": [fields for record in records for fields in file_fields(record)],
    }
    text = json.dumps({"draft": "not sent", **content}, indent=2) + "\n"
    fields: list[Value] = [{"@field": field, "#text": hint} for field, hint in to_fill_in(records).items()]
    xml = as_xml("draft", {**content, "toFillIn": fields}, status="not sent")
    for extension, data in (("json", text.encode("ascii")), ("xml", xml)):
        with creating_private(folder / f"{name}-{number:04d}.{extension}") as file:
            file.write(data)


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """Make a folder for its owner alone, and remove it with its files where what is written to it fails."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError as error:
        raise OutputError(f"{path} is there already and is not replaced; give another name") from error
    except OSError as error:
        raise OutputError(f"can't make {path}: {error.strerror or error}; choose a writable place") from error
    try:
        yield
    except BaseException:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
        raise
