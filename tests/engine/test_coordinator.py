"""What workers and driver of a Ray scan agree on, without Ray: teams, faults, versions, and what is sent."""

from __future__ import annotations

import pickle
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import SafetyFilter, open_source
from safetyfilter.engine.cluster import Machine, Team, connected, team_for
from safetyfilter.engine.coordinator import MOST_FAULTS, MOST_TRIES, Coordinator, Failure
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.ray import RayEngine
from safetyfilter.engine.ray_worker import require_run
from safetyfilter.engine.scorers import ImageScorer
from safetyfilter.engine.sending import packed, unpacked
from safetyfilter.errors import (
    DeviceError,
    EngineError,
    HeldError,
    MissingExtraError,
    OutputError,
    PolicyError,
    SafetyFilterError,
    StorageError,
    UsageError,
)
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.run import Run
from tests.conftest import good_images

SECRET = b"a secret of 32 bytes, no less...."[:32]


@pytest.mark.parametrize(
    ("machines", "asked", "expected"),
    [
        ([Machine(cpus=2)], {}, Team(workers=1, cpus=2, gpus=0.0)),
        ([Machine(cpus=2)], {"workers": 2}, Team(workers=2, cpus=1, gpus=0.0)),
        ([Machine(cpus=2)], {"workers": 5}, Team(workers=5, cpus=1, gpus=0.0)),
        ([Machine(cpus=16)] * 3, {}, Team(workers=3, cpus=16, gpus=0.0)),
        ([Machine(cpus=16)] * 3, {"cpus_per_worker": 4}, Team(workers=12, cpus=4, gpus=0.0)),
        ([Machine(cpus=0), Machine(cpus=8)], {}, Team(workers=1, cpus=8, gpus=0.0)),
        ([Machine(cpus=64, gpus=8)] * 2, {}, Team(workers=16, cpus=8, gpus=1)),
        ([Machine(cpus=4, gpus=8)], {}, Team(workers=8, cpus=1, gpus=1)),
        ([Machine(cpus=64, gpus=8)], {"gpus_per_worker": 0.3}, Team(workers=24, cpus=2, gpus=0.3)),
        ([Machine(cpus=64, gpus=8)], {"gpus_per_worker": 0.1}, Team(workers=80, cpus=1, gpus=0.1)),
        ([Machine(cpus=64, gpus=8)], {"gpus_per_worker": 0}, Team(workers=1, cpus=64, gpus=0.0)),
        ([Machine(cpus=64, gpus=8), Machine(cpus=96)], {}, Team(workers=8, cpus=8, gpus=1)),
        ([Machine(cpus=64, gpus=8)], {"workers": 3, "cpus_per_worker": 2}, Team(workers=3, cpus=2, gpus=1)),
    ],
)
def test_a_team_fills_the_machines(machines: Sequence[Machine], asked: dict[str, float], expected: Team) -> None:
    asked = {"workers": None, "gpus_per_worker": 1, "cpus_per_worker": None} | asked
    team = team_for(machines, **asked)
    assert team == expected
    assert team.device == ("cuda" if expected.gpus else "cpu")


def test_a_cluster_without_machines_is_told() -> None:
    with pytest.raises(EngineError, match="no machine that is alive"):
        team_for([], workers=None, gpus_per_worker=1, cpus_per_worker=None)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"workers": 0}, "workers is 0; give a whole number from 1"),
        ({"cpus_per_worker": 0.5}, "cpus_per_worker is 0.5; give a whole number from 1"),
        ({"gpus_per_worker": 2}, "gpus_per_worker is 2; give 1, a part of it such as 0.5, or 0"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1"),
        ({"gpus_per_worker": float("nan")}, "gpus_per_worker is nan"),
        ({"address": "ray://head:10001"}, "for clients outside the cluster"),
    ],
)
def test_an_engine_that_can_not_be_is_told(asked: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        RayEngine(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        StorageError("can't reach s3://bucket after 5 tries"),
        DeviceError("no such device: cuda:99; use cpu"),
        MissingExtraError("faiss-cpu", "near"),
        HeldError("another process holds the run"),
        PolicyError("no such signal"),
        OutputError("can't write; make room"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_processes_as_itself(error: SafetyFilterError) -> None:
    again = pickle.loads(pickle.dumps(Failure.of(error))).error
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_status == error.exit_status


def test_a_part_is_finished_once_and_then_not_given_again() -> None:
    coordinator = Coordinator()
    assert coordinator.begin("one", [3, 4]) == [3, 4]
    coordinator.finished(3, {"seen": 2})
    coordinator.finished(3, {"seen": 2})
    assert coordinator.news().finished == [(3, {"seen": 2})]
    assert coordinator.news().finished == []
    assert coordinator.begin("other", [3, 4]) == [4]


def test_counts_add_up_between_two_calls_for_news() -> None:
    coordinator = Coordinator()
    assert coordinator.tell({"seen": 2, "unscored": 1})
    assert coordinator.tell({"seen": 3})
    assert coordinator.news().counts == Counter(seen=5, unscored=1)
    assert not coordinator.news().counts


def test_a_part_at_which_every_worker_ends_ends_the_scan() -> None:
    coordinator = Coordinator()
    for _ in range(MOST_TRIES):
        assert coordinator.begin("worker", [7, 8]) == [7, 8]
    assert coordinator.begin("worker", [7, 8]) == []
    assert not coordinator.tell({})
    (failure,) = coordinator.faults()
    assert f"{MOST_TRIES} workers ended at the same part, of memory perhaps" in str(failure.error)


def test_a_worker_that_ended_among_its_parts_is_told() -> None:
    coordinator = Coordinator()
    coordinator.begin("one", [0, 1, 2])
    coordinator.finished(0, {})
    assert coordinator.news().lines == []
    assert coordinator.begin("other", [0, 1, 2]) == [1, 2]
    assert "a worker ended before its part was finished" in coordinator.news().lines[0][1]


def test_parts_behind_one_that_is_finished_are_other_parts() -> None:
    coordinator = Coordinator()
    for part in range(3 * MOST_TRIES):
        assert coordinator.begin("worker", range(part, 100))
        coordinator.finished(part, {})
    assert coordinator.faults() == []


def test_faults_of_storage_leave_their_parts_and_too_many_end_the_scan() -> None:
    coordinator = Coordinator()
    for _ in range(MOST_FAULTS - 1):
        coordinator.failed(Failure.of(StorageError("gone")), stop=False)
        assert coordinator.tell({})
    coordinator.failed(Failure.of(StorageError("gone")), stop=False)
    assert not coordinator.tell({})
    assert coordinator.begin("worker", [1]) == []


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"safetyfilter": "0.1"}, "a worker has safetyfilter 0.1 and here 0.2; install the same version"),
        ({}, "a worker has safetyfilter that is missing or older and here 0.2; install the same version"),
    ],
)
def test_a_worker_with_another_version_ends_the_scan(own: dict[str, str], told: str) -> None:
    coordinator = Coordinator()
    coordinator.mismatch(own, {"safetyfilter": "0.2"})
    assert told in str(coordinator.faults()[0].error)
    assert not coordinator.tell({})


def test_news_tell_when_a_worker_has_begun() -> None:
    coordinator = Coordinator()
    assert not coordinator.news().begun
    coordinator.begin("one", [1])
    assert coordinator.news().begun
    assert coordinator.news().begun


def test_workers_in_hand_are_known() -> None:
    coordinator = Coordinator()
    coordinator.begin("one", [1])
    coordinator.begin("two", [2])
    coordinator.ended("one")
    assert coordinator.busy() == 1


def test_lines_are_handed_on_but_not_without_end() -> None:
    coordinator = Coordinator()
    for number in range(5000):
        coordinator.log(30, f"line {number}")
    assert len(coordinator.news().lines) == 1000


def test_what_is_sent_holds_the_encoder_and_not_the_secret(safe: SafetyFilter, folder: Path) -> None:
    cloudpickle = pytest.importorskip("ray.cloudpickle", reason="Ray is not installed: pip install 'safetyfilter[ray]'")
    job = PartJob(source=open_source(folder), scorer=ImageScorer(safe), digester=Digester(SECRET))
    sent, digester = packed(job, cloudpickle.CloudPickler)
    assert digester == Digester(SECRET)
    assert len(sent.encoders) == 1
    assert SECRET not in pickle.dumps(sent)
    assert str(SECRET) not in repr(sent)
    again = unpacked(pickle.loads(pickle.dumps(sent)), digester, "cpu")
    assert again.digester == Digester(SECRET)
    images = list(good_images().values())
    np.testing.assert_array_equal(again.scorer.safety_filter(images).scores.values, safe(images).scores.values)


def test_a_run_on_a_disk_that_a_worker_does_not_see_is_refused(scanned: Run, tmp_path: Path) -> None:
    started = scanned.record.started
    require_run(str(scanned.path), started)
    for path, other in [(str(tmp_path / "elsewhere"), started), (str(scanned.path), (started[0], "another time"))]:
        with pytest.raises(EngineError, match=r"not to be seen from the machine of a worker .* all machines .* share"):
            require_run(path, other)


def test_no_cluster_at_an_address_is_told_at_once_with_the_remedy() -> None:
    pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'safetyfilter[ray]'")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        told = f"no Ray cluster at {address}: .*; start one with `ray start --head`, or leave the address out"
        with pytest.raises(EngineError, match=told), connected(address, cpus=1, sent_bytes=0):
            pass


def test_without_ray_the_extra_to_install_is_named(safe: SafetyFilter, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safetyfilter\[ray\]'"):
        RayEngine().prepared(safe)
