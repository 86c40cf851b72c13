"""Places of runs: a local disk, and object storage behind a real S3 API."""

from collections.abc import Callable
from pathlib import Path

import pytest

from safetyfilter.storage import Location


@pytest.fixture(params=["local", "s3"])
def run_place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Location]:
    """Gives the place of a run of a name; indexes of remote runs lie in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SAFETYFILTER_SECRET", raising=False)
    if request.param == "local":
        return lambda name: Location.of(tmp_path / name)
    url = request.getfixturevalue("s3").url
    return lambda name: Location.of(f"{url}/runs/{name}")
