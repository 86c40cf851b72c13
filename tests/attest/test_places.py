"""Runs on other storage are attested and verified as those on this machine; faults are told from findings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from safetyfilter import Decisions, Run
from safetyfilter.attest.demand import require_attested
from safetyfilter.attest.sign import attest_run
from safetyfilter.attest.verify import verify_run
from safetyfilter.errors import AttestationError, MissingExtraError, StorageError
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.storage import Location, retries
from tests.attest.changing import edit_json
from tests.attest.runs import finished
from tests.sources.flaky import FlakyFileSystem


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """A run on storage that is not this machine's, with an index in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield finished(Location.of("memory://attested/run"))
    fsspec.filesystem("memory").rm("/attested", recursive=True)


def test_a_remote_run_is_attested_and_demanded(remote: Run, keys: PrivateKeys) -> None:
    attest_run(remote, keys)
    assert verify_run(str(remote.path), keys.public).holds
    require_attested(Decisions.of(remote), keys.public)
    (remote.path / "decisions" / "part-00001.parquet").remove()
    done = verify_run(str(remote.path), keys.public)
    assert {claim.what for claim in done.failed} >= {"decisions", "data set"}


def test_a_fault_of_the_storage_is_no_finding(run: Run, keys: PrivateKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0)
    place = Location.of(f"flaky://{run.path}")
    many = 1000
    FlakyFileSystem.fail(many, after=many)
    assert verify_run(place, keys.public).holds
    reads = many - FlakyFileSystem.after
    assert reads > 12
    for after in range(reads):
        FlakyFileSystem.fail(many, after=after)
        with pytest.raises(StorageError):
            verify_run(place, keys.public)
    FlakyFileSystem.fail(0)


def test_a_run_that_is_being_decided_is_told(run: Run, keys: PrivateKeys) -> None:
    edit_json(Path(run.path) / "run.json", lambda record: record.update(complete=False, decisions="", counts={}))
    done = verify_run(run.path, keys.public)
    assert {claim.what for claim in done.failed} == {"run", "decisions", "counts"}
    assert "deciding it anew was begun and is not finished" in str(done.failed)


@pytest.mark.parametrize("module", ["securesystemslib.signer", "cryptography.hazmat.primitives.asymmetric.ed25519"])
def test_the_extra_is_named_where_it_is_missing(
    run: Run, keys: PrivateKeys, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safetyfilter\[attest\]'"):
        verify_run(run, keys.public)


def test_an_attestation_that_may_not_be_read_is_told(run: Run, keys: PrivateKeys) -> None:
    place = Path(run.path) / "attestation.json"
    place.unlink()
    place.mkdir()
    with pytest.raises(AttestationError, match=r"attestation\.json can't be read"):
        verify_run(run, keys.public).require()
