"""Storage that fails is no finding about a sample: the part stays undone, and the next scan gets everything."""

from pathlib import Path

import pytest

from safetyfilter import SafetyFilter, open_source, scan, storage
from safetyfilter.engine.local import LocalEngine
from safetyfilter.errors import StorageError
from tests.engine.outage import VARIABLE, faults_left, set_outage
from tests.engine.pictures import ALL, BAD, STATUS, keys_of, parts_in, rows, rows_of
from tests.writers import write_folder, write_tars

# No name that a tar's extension can't tell; the last one is a picture, and lies in the last part.
FILES = {name: content for name, content in ALL.items() if not name.endswith(".md")}
STATUSES = [STATUS.get(name, "ok") for name in FILES]


@pytest.fixture(autouse=True)
def _outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "outage.json"))
    set_outage("nothing", faults=0)


@pytest.mark.parametrize(
    ("kind", "devices"),
    [("folder", ["cpu"]), ("webdataset", ["cpu"]), ("webdataset", ["cpu", "cpu"])],  # a process reads either alike
    ids=["folder-one process", "webdataset-one process", "webdataset-two processes"],
)
def test_a_fault_leaves_its_part_undone_and_the_next_scan_does_it(
    tmp_path: Path, safe: SafetyFilter, kind: str, devices: list[str]
) -> None:
    if kind == "folder":
        place, last, readable = write_folder(tmp_path / "source", FILES), list(FILES)[-1], 0
    else:
        place, last, readable = write_tars(tmp_path / "source", FILES, shard_size=4), "/4.tar", 8192
    part_size = 4 if kind == "folder" else 1
    source = open_source(f"outage://{place}", part_size=part_size)
    assert len(source.parts()) == 5

    set_outage(last, faults=1_000_000, readable=readable)
    with pytest.raises(StorageError, match=r"can't reach (a file in )?outage://.* after 5 tries: TimeoutError"):
        scan(source, tmp_path / "run", safe, engine=LocalEngine(devices=devices))
    assert faults_left() < 1_000_000
    done = parts_in(tmp_path / "run")
    assert done == parts_in(tmp_path / "run", "decisions")
    assert len(done) == 4

    set_outage(last, faults=storage.ATTEMPTS - 1, readable=readable)  # the last try works
    source = open_source(f"outage://{place}", part_size=part_size)
    run = scan(source, tmp_path / "run", safe, engine=LocalEngine(devices=devices))
    assert faults_left() == 0
    fresh = scan(open_source(place, part_size=part_size), tmp_path / "fresh", safe)
    assert run.counts == fresh.counts
    assert run.counts["unscored"] == len(BAD) - 1
    assert rows_of(run, keys_of(source))["status"].to_pylist() == STATUSES
    assert len(rows(run)) == len(FILES)
