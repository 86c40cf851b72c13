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
from importlib.util import find_spec
from pathlib import Path

import safetyfilter
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OtherRunError, OutputError, SafetyFilterError, SecretError
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.held import TRIAL, held, holds_no_run, refuse_links
from safetyfilter.runs.place import require_writable_kind, run_place
from safetyfilter.runs.record import RunRecord, RunSetup, SourceRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.secret import VARIABLE, create_secret, secret_place
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sources.base import Source
from safetyfilter.sources.extents import overlaps
from safetyfilter.storage import Location, Place, replacing


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
    require_writable_kind(place)
    try:
        _check(place, source)
    except PermissionError as error:
        if isinstance(error, SafetyFilterError):
            raise
        raise OutputError(f"can't look into {place}: {error.strerror or error}; choose another place") from error


def _check(place: Location, source: Source | None) -> None:
    there = place.exists()
    if there and place.is_file():
        raise OutputError(f"{place} is a file; give a directory for the run")
    refuse_links(place)
    if source is not None:
        _require_apart(place, source)
    record = place / "run.json"
    if there and not record.exists() and not holds_no_run(place) and not record.exists():  # it may be there by now
        raise OutputError(f"{place} is not empty and holds no run; give a new or empty directory")
    _try_to_write(place)


def _try_to_write(place: Location) -> None:
    """Make sure of it by a trial, since permissions alone don't tell, on any storage."""
    if not place.is_local:
        trial = place / f"{TRIAL}{secrets.token_hex(8)}"
        try:
            with replacing(trial):
                pass
            trial.remove()
        except (OutputError, PermissionError) as error:
            cause = error.__cause__ or error
            raise OutputError(f"can't write to {place}: {cause}; choose a writable place for the run") from error
        return
    path = Path(place)
    existing = next(p for p in (path, *path.parents) if p.exists())
    try:  # without a name, so that nothing is left
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
def started(
    path: Place,
    *,
    source: Source,
    setup: RunSetup,
    policy: Policy,
    secret: Digester | None = None,
    applied_from: str = "",
    officer: OfficerKey | None = None,
) -> Iterator[Run]:
    """Start a run, or take up the one that is there, and hold it for writing.

    A run that was stopped before its first record, or while its secret was made, is taken up like any other.

    Parameters
    ----------
    path : path or URL
        The run directory.
    source, setup, policy
        As of `RunRecord`.
    secret : Digester or None
        The secret that a new run is to have, another run's; a random one where None.
    applied_from : str
        As of `RunRecord`; parts to which other decisions were applied are done again.
    officer : OfficerKey or None
        The key that records of exclusions are sealed to, of which the setup has the fingerprint.

    Raises
    ------
    OtherRunError
        The directory holds a run of another source, or with another encoder, probes or preparation.
    OutputError
        It can't be written, or lies in the source.
    RunError
        Another process is writing it, or there is a link in it; nothing is changed.
    SecretError
        There is another secret than the one given.
    """
    check_output(path, source)
    place = run_place(path)
    place.make_folder()
    with held(place) as hold:
        before = Run.open(place).record if (place / "run.json").exists() else None
        if before is not None and _holds_nothing(place, before):
            before = None
        if before is not None:
            _require_alike(place, before, setup, applied_from)
        digester = _secret_of(place, before, secret)
        record = _record(source, before, digester, setup=setup, policy=policy, applied_from=applied_from)
        if before is not None and before.source.location != record.source.location:
            raise OtherRunError(f"{place} holds a run of another source; give another --out, or remove that run")
        run = Run(place, record, before=before, hold=hold, officer=officer)
        try:
            run.write_record(record)  # first: whatever else is here without it would be no run
            for folder in ("scores", "decisions"):
                (place / folder).make_folder()
            if before is not None:
                run.trust_decisions(before)
            yield run
        finally:
            run.hold = None


def _holds_nothing(place: Location, before: RunRecord) -> bool:
    """True for a run of which nothing is recorded, since its scan was refused say: another may take its place."""
    recorded = before.complete or before.scores or before.decided_with or before.applied_from
    return not recorded and not (place / "scores").names()


def _require_alike(path: Location, before: RunRecord, setup: RunSetup, applied_from: str) -> None:
    """Raise `OtherRunError` for another setup, and for a scan in the place of applied decisions or the reverse."""
    if bool(before.applied_from) != bool(applied_from):
        what = ("a scan", "decisions that are applied")
        there, here = what if applied_from else what[::-1]
        raise OtherRunError(f"{path} holds the run of {there}, and this is one of {here}; give another --out")
    if differing := before.setup.differing(setup):
        raise OtherRunError(
            f"{path} holds a run that differs in {', '.join(differing)}; give another --out, or remove that run"
        )


def _secret_of(path: Location, before: RunRecord | None, given: Digester | None) -> Digester:
    if before is None:
        return create_secret(path, given)
    digester = Run(path, before).digester()
    if given is not None and given != digester:
        raise SecretError(f"{path} holds a run with another secret; give another --out, or remove that run")
    return digester


def _record(
    source: Source,
    before: RunRecord | None,
    digester: Digester,
    *,
    setup: RunSetup,
    policy: Policy,
    applied_from: str,
) -> RunRecord:
    parts, location = source.parts(), digester.text(source.location)
    alike = before is not None and before.applied_from == applied_from  # else no part there is taken for one of these
    return RunRecord(
        created=before.created if before else datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=before.run_id if before and alike else digester.text(f"run\n{location}\n{setup.digest}\n{applied_from}"),
        setup=setup,
        policy=policy,
        source=SourceRecord(
            kind=source.kind,
            keys=source.keys,
            location=location,
            fingerprint=digester.text("\n".join(sorted(part.state for part in parts))),
            parts=len(parts),
        ),
        secret_check=digester.text("secret"),
        versions=_versions(setup),
        decided_with=before.decided_with if before else DecidedWith(),  # what only `decide` makes anew is not forgotten
        applied_from=applied_from,
        self_check=before.self_check if before else None,
    )


def _versions(setup: RunSetup) -> dict[str, str]:
    names = ["torch", "open_clip_torch", "numpy", "pyarrow", "Pillow"]
    if setup.quantised and find_spec("openvino") is not None:  # it may not be, where decisions are only applied
        names.append("openvino")
    own = {"python": platform.python_version(), "safetyfilter": safetyfilter.__version__}  # a checkout has no metadata
    return own | {name: version(name) for name in names}
