"""Loaders on runs and sources on object storage: a real S3 API on loopback."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from safetyfilter import Policy, Run, apply_policy, open_source
from safetyfilter.errors import RunError, StorageError
from safetyfilter.loaders.access import Access, getter_of
from safetyfilter.loaders.deciders import decider_of
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from safetyfilter.runs import watch
from safetyfilter.storage import retries
from tests.loaders.training import Pictures
from tests.object_storage import SLOW_DOWN


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def remote(s3, pictures: Pictures) -> str:
    """The run of the tars, and its secret beside it."""
    url = s3.put(pictures.tars_run, "runs/tars-run")
    s3.put(pictures.tars_run.with_name("tars-run.secret"), "runs/tars-run.secret")
    return url


def read(s3) -> list[str]:
    """The objects read since last asked."""
    seen = [request for request in s3.server.seen if request.startswith("GET") and "list-type" not in request]
    s3.server.seen.clear()
    return seen


def same(batch):
    return batch


@pytest.mark.parametrize("per_shard", [True, False])
def test_the_same_reasons_as_on_this_machine(s3, remote: str, pictures: Pictures, per_shard: bool) -> None:
    samples = [
        {"__url__": f"s3://bucket/data/deep/{number // 24}.tar", "__key__": f"{number:03d}", "jpg": b"x"}
        for number in range(100)
    ]
    here, there = (
        safety_filter(run, root="s3://bucket/data", per_shard=per_shard) for run in (pictures.tars_run, remote)
    )
    access = Access(key=getter_of(lambda sample: f"deep/{sample['__url__'][-5:]}/{sample['__key__']}"))
    found = [
        [reasons for _, reasons in decider_of(run, per_shard=per_shard).stream(samples, access)]
        for run in (pictures.tars_run, remote)
    ]
    assert found[0] == found[1]
    assert found[0].count(0) == pictures.keep.sum()
    del here, there


def test_only_the_parts_of_the_shards_that_are_read_come_from_storage(s3, remote: str, pictures: Pictures) -> None:
    decider = decider_of(remote, per_shard=True)
    access = Access(key=getter_of("key"))
    samples = [{"key": f"deep/2.tar/{number:03d}"} for number in range(48, 72)]
    read(s3)
    assert [reasons == 0 for _, reasons in decider.stream(samples, access)] == pictures.keep[48:72].tolist()
    assert len({request for request in read(s3) if "/decisions/" in request}) == 1
    list(decider.stream(samples, access))
    assert not [request for request in read(s3) if "/decisions/" in request]


def test_an_index_of_a_run_on_storage_lies_in_the_cache(s3, remote: str, pictures: Pictures, tmp_path) -> None:
    assert decider_of(remote).knows(["deep/0.tar/000"])
    assert list((tmp_path / "cache").rglob("decisions.bin"))
    read(s3)
    assert decider_of(remote).knows(["deep/0.tar/000"])
    assert not [request for request in read(s3) if "/decisions/" in request]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_training_from_a_source_and_by_a_run_on_storage(s3, remote: str, pictures: Pictures, start: str) -> None:
    source = open_source(s3.put(pictures.tars, "data"), part_size=24)
    safe = SafeIterable(source, remote, per_shard=True)
    loader = DataLoader(safe, batch_size=None, num_workers=2, multiprocessing_context=start, collate_fn=same)
    assert len(list(safe)) == pictures.keep.sum()  # here too, so that this process has clients of its own
    assert len([sample.key for sample in loader]) == pictures.keep.sum()


def test_images_in_a_folder_on_storage_are_compared(s3, pictures: Pictures) -> None:
    run = s3.put(pictures.folder_run, "runs/folder-run")
    s3.put(pictures.folder_run.with_name("folder-run.secret"), "runs/folder-run.secret")
    s3.put(pictures.folder, "pictures")
    kept = [int(number) for number in np.flatnonzero(pictures.keep)]
    s3.fs.pipe_file(f"{s3.bucket}/pictures/{pictures.keys[kept[3]]}", b"changed")
    for per_shard in (True, False):
        safe = SafeIterable(open_source(f"{s3.url}/pictures"), run, per_shard=per_shard, verify_content=True)
        assert [sample.key for sample in safe] == [pictures.keys[n] for n in kept if n != kept[3]]
        assert safe.filter_report()["drifted"] == 1


def test_a_run_that_was_decided_anew_there_is_told_at_the_next_pass(s3, remote: str, pictures: Pictures) -> None:
    samples = [{"key": f"deep/{number // 24}.tar/{number:03d}"} for number in range(96)]
    loaders = [SafeIterable(samples, remote, key="key", per_shard=per_shard) for per_shard in (True, False)]
    loaders.append(SafeDataset(samples, remote, key="key"))
    loaders.append(pickle.loads(pickle.dumps(loaders[0])))
    for loader in loaders:
        assert len(list(loader)) == pictures.keep.sum()
    apply_policy(Run.open(remote), Policy(thresholds={"explicit": 0.5, "minor": 0.25}))
    for loader in (loaders[0], loaders[1], loaders[3]):
        with pytest.raises(RunError, match="make the loader again"):
            list(loader)
    loaders[2]._asked._decider._decisions._watch._looked -= watch.PAUSE_S  # as if the pause were over
    with pytest.raises(RunError, match="make the loader again"):
        loaders[2][0]


def test_a_look_at_the_run_is_one_request_in_a_while(s3, remote: str) -> None:
    decisions = decider_of(remote)
    s3.server.seen.clear()
    for _ in range(1000):
        decisions.require_current()
    assert len(s3.server.seen) <= 2
    decisions.require_current(now=True)
    assert 1 <= len(s3.server.seen) <= 5


def test_a_fault_of_storage_is_raised_and_excludes_nothing(s3, remote: str, monkeypatch) -> None:
    monkeypatch.setattr(retries, "LONGEST_WAIT_S", 0.0)
    decider = decider_of(remote, per_shard=True)
    samples = [{"key": f"deep/2.tar/{number:03d}"} for number in range(48, 72)]
    with s3.spoiling(SLOW_DOWN), pytest.raises(StorageError):
        list(decider.stream(samples, Access(key=getter_of("key"))))
    assert len(list(decider.stream(samples, Access(key=getter_of("key"))))) == 24
