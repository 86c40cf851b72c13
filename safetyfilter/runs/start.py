"""Starts a run directory, or takes up the one that is there."""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OtherRunError, OutputError
from safetyfilter.runs.held import TRIAL, held, holds_no_run, refuse_links
from safetyfilter.runs.place import run_place
from safetyfilter.runs.record import RunRecord, RunSetup, SourceRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.secret import VARIABLE, create_secret, secret_place
from safetyfilter.sources.base import Source
from safetyfilter.sources.extents import overlaps
from safetyfilter.storage import Location, Place


def check_output(path: Place, source: Source | None = None) -> None:
    """Raise `OutputError` unless a run could be written here, and `RunError` for links in it; leaves nothing behind.

    Parameters
    ----------
    path : path or URL
        The run directory.
    source : Source or None
        A source of which neither the run nor its secret may become a part, nor the other way round.
    """
    place = run_place(path)
    there = place.exists()
    if there and place.is_file():
        raise OutputError(f"{place} is a file; give a directory for the run")
    refuse_links(place)
    if source is not None:
        _require_apart(place, source)
    if there and not (place / "run.json").exists() and not holds_no_run(place):
        raise OutputError(f"{place} is not empty and holds no run; give a new or empty directory")
    if place.is_local:
        _try_to_write(Path(place))


def _try_to_write(path: Path) -> None:
    existing = next(p for p in (path, *path.parents) if p.exists())
    try:  # a trial, since permissions alone don't tell on every file system; without a name, so that nothing is left
        with tempfile.TemporaryFile(dir=existing, prefix=TRIAL):
            pass
    except OSError as error:
        raise OutputError(
            f"can't write to {existing}: {error.strerror}; choose a writable place for the run"
        ) from error


def _require_apart(path: Location, source: Source) -> None:
    if overlaps(source, path):
        raise OutputError(
            f"the run {path} and the source {source.location} lie one inside the other, and the next scan would take "
            "the run's own files for samples; choose a place outside the source"
        )
    secret = secret_place(path)
    if not os.environ.get(VARIABLE) and overlaps(source, secret):
        raise OutputError(
            f"the run's secret {secret} would lie among the samples of {source.location}, and go where they go; choose "
            f"a place for the run outside the source, or set {VARIABLE}"
        )


@contextmanager
def started(path: Place, *, source: Source, setup: RunSetup, policy: Policy) -> Iterator[Run]:
    """Start a run, or take up the one that is there, and hold it for writing.

    A run that was stopped before its first record, or while its secret was made, is taken up like any other.

    Raises
    ------
    OtherRunError
        The directory holds a run of another source, or with another encoder, probes or preparation.
    OutputError
        It can't be written, or lies in the source.
    RunError
        Another process is writing it, or there is a link in it; nothing is changed.
    """
    check_output(path, source)
    place = run_place(path)
    place.make_folder()
    with held(place):
        yield _started(place, source, setup, policy)


def _started(path: Location, source: Source, setup: RunSetup, policy: Policy) -> Run:
    before: RunRecord | None = None
    created, run_id = datetime.now(UTC).isoformat(timespec="seconds"), secrets.token_hex(16)
    if (path / "run.json").exists():
        run = Run.open(path)
        before = run.record
        digester, created, run_id = run.digester(), before.created, before.run_id
        if differing := before.setup.differing(setup):
            raise OtherRunError(
                f"{path} holds a run with another {', '.join(differing)}; give another --out, or remove that run"
            )
        if before.source.location != digester.text(source.location):
            raise OtherRunError(f"{path} holds a run of another source; give another --out, or remove that run")
    else:
        digester = create_secret(path)
    parts = source.parts()
    record = RunRecord(
        created=created,
        run_id=run_id,
        setup=setup,
        policy=policy,
        source=SourceRecord(
            kind=source.kind,
            keys=source.keys,
            location=digester.text(source.location),
            fingerprint=digester.text("\n".join(sorted(part.state for part in parts))),
            parts=len(parts),
        ),
        secret_check=digester.text("secret"),
        versions=_versions(),
    )
    run = Run(path, record)
    run.write_record(record)  # first: whatever else is here without it would be no run
    for folder in ("scores", "decisions"):
        (path / folder).make_folder()
    if before is not None:
        run.trust_decisions(before)
    return run


def _versions() -> dict[str, str]:
    names = ("safetyfilter", "torch", "open_clip_torch", "numpy", "pyarrow", "Pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
