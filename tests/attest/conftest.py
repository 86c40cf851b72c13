"""An officer's keys, and attested runs that tests copy."""

from __future__ import annotations

import pytest

from safetyfilter import Run
from safetyfilter.attest.sign import attest_run
from safetyfilter.sealed.private_keys import PrivateKeys
from tests.attest.runs import copied, finished


@pytest.fixture(scope="session")
def keys() -> PrivateKeys:
    return PrivateKeys.generate()


@pytest.fixture(scope="session")
def attested(tmp_path_factory: pytest.TempPathFactory, keys: PrivateKeys) -> Run:
    """An attested run with embeddings; tests only copy it."""
    run = finished(tmp_path_factory.mktemp("attested") / "run", vectors=True)
    attest_run(run, keys)
    return run


@pytest.fixture
def run(attested: Run, tmp_path) -> Run:
    """A copy of the attested run, without its secret."""
    return copied(attested, tmp_path / "run")
