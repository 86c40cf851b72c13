"""Starts a run directory, or takes up the one that is there."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OtherRunError, OutputError
from safetyfilter.runs.record import RunRecord, RunSetup, SourceRecord
from safetyfilter.runs.run import Run, held, run_path
from safetyfilter.runs.secret import create_secret
from safetyfilter.sources.base import Source
from safetyfilter.storage import Location


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise `OutputError` unless a run could be written here; leaves nothing behind."""
    path = run_path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; give a directory for the run")
    if path.is_dir() and not (path / "run.json").exists() and any(path.iterdir()):
        raise OutputError(f"{path} is not empty and holds no run; give a new or empty directory")
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    try:  # a trial, since permissions alone don't tell on every file system
        with tempfile.TemporaryDirectory(dir=existing, prefix=".safetyfilter-"):
            pass
    except OSError as error:
        raise OutputError(
            f"can't write to {existing}: {error.strerror}; choose a writable place for the run"
        ) from error


@contextmanager
def started(path: str | os.PathLike[str], *, source: Source, setup: RunSetup, policy: Policy) -> Iterator[Run]:
    """Start a run, or take up the one that is there, and hold it for writing.

    Raises
    ------
    OtherRunError
        The directory holds a run of another source, or with another encoder, probes or preparation.
    OutputError
        It can't be written.
    RunError
        Another process is writing it; nothing is changed.
    """
    check_output(path)
    path = run_path(path)
    Location.of(path).make_folder()
    with held(path):
        yield _started(path, source, setup, policy)


def _started(path: Path, source: Source, setup: RunSetup, policy: Policy) -> Run:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if (path / "run.json").exists():
        run = Run.open(path)
        digester, created = run.digester(), run.record.created
        if differing := run.record.setup.differing(setup):
            raise OtherRunError(
                f"{path} holds a run with another {', '.join(differing)}; give another --out, or remove that run"
            )
        if run.record.source.location != digester.text(source.location):
            raise OtherRunError(f"{path} holds a run of another source; give another --out, or remove that run")
    else:
        digester = create_secret(path)
    parts = source.parts()
    record = RunRecord(
        created=created,
        setup=setup,
        policy=policy,
        source=SourceRecord(
            kind=source.kind,
            keys=source.keys,
            location=digester.text(source.location),
            fingerprint=digester.text("\n".join(part.state for part in parts)),
            parts=len(parts),
        ),
        secret_check=digester.text("secret"),
        versions=_versions(),
    )
    run = Run(path, record)
    for folder in ("scores", "decisions"):
        (Location.of(path) / folder).make_folder()
    run.write_record(record)
    return run


def _versions() -> dict[str, str]:
    names = ("safetyfilter", "torch", "open_clip_torch", "numpy", "pyarrow", "Pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
