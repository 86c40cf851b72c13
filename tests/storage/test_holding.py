"""A folder is held by one process at a time, wherever it is; a hold that lapses is lost, and taken over."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from safetyfilter.errors import HeldError, OutputError
from safetyfilter.storage import Location, exclusive, lease
from safetyfilter.storage.lease import FOLDER, Lease
from tests.object_storage import CUT_AT_ONCE, DENIED, S3, SLOW_DOWN

SPAWN = multiprocessing.get_context("spawn")
LONG_S = 60.0


@pytest.fixture(params=["memory", "other", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "memory":
        return Location.of(f"memory://{tmp_path.name}/run")
    if request.param == "other":
        return Location(DirFileSystem(str(tmp_path), LocalFileSystem()), "run")
    return Location.of(f"{request.getfixturevalue('s3').url}/run")


@pytest.fixture(params=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return Location.of(tmp_path if request.param == "local" else f"memory://{tmp_path.name}/run")


def claims(folder: Location) -> list[str]:
    (folder / FOLDER).forget_listing()
    return (folder / FOLDER).names()


def put_claim(folder: Location, name: str, **content: object) -> Location:
    claim = folder / FOLDER / f"{name}.json"
    claim.folder.make_folder()
    about = {"host": "elsewhere", "pid": 7, "started": "2024-01-01T00:00:00+00:00", "limit_s": LONG_S}
    claim.fs.pipe_file(claim.path, json.dumps(about | content).encode())
    return claim


def test_one_holds_it_and_the_next_is_refused_until_it_is_given_back(folder: Location) -> None:
    with exclusive(folder) as hold:
        hold.require()
        for _ in range(2):
            with (
                pytest.raises(HeldError, match=r"another process holds .*; wait for it|; wait for it"),
                exclusive(folder),
            ):
                pass
        hold.require()
    with exclusive(folder) as hold:
        hold.require()


def test_an_error_gives_it_back_and_is_raised_as_it_is(folder: Location) -> None:
    for error in (KeyError("x"), BlockingIOError("of another thing"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, exclusive(folder):
            raise error
        assert raised.value is error
    with exclusive(folder) as hold:
        hold.require()


def test_a_lease_is_one_claim_without_names_and_leaves_nothing(remote: Location) -> None:
    with exclusive(remote):
        (name,) = claims(remote)
        assert set(json.loads((remote / FOLDER / name).read_bytes())) == {"host", "pid", "started", "limit_s", "holds"}
    assert claims(remote) == []


def test_the_owner_is_told_and_when_its_hold_lapses(remote: Location) -> None:
    with exclusive(remote, limit_s=LONG_S):
        with pytest.raises(HeldError) as raised, exclusive(remote):
            pass
        assert f"another process holds {remote}: process {os.getpid()} on " in str(raised.value)
        assert "its hold lapses in 6" in str(raised.value) or "its hold lapses in 5" in str(raised.value)
        assert len(claims(remote)) == 1


def test_of_many_that_start_together_one_goes_on(remote: Location) -> None:
    barrier, done = threading.Barrier(6), threading.Barrier(6)
    held: list[Lease] = []
    refused: list[HeldError] = []

    def claim() -> None:
        barrier.wait()
        try:
            held.append(Lease(remote, LONG_S))
        except HeldError as error:
            refused.append(error)
        done.wait()

    threads = [threading.Thread(target=claim) for _ in range(5)]
    for thread in threads:
        thread.start()
    claim()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    held[0].require()
    held[0].release()
    assert claims(remote) == []


def test_one_that_only_claims_gives_way_to_a_smaller_name_and_waits_for_a_larger_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Location.of(f"memory://{tmp_path.name}/run")
    other = put_claim(folder, "0", holds=False)
    with pytest.raises(HeldError, match="process 7 on elsewhere, since 2024-01-01"):
        Lease(folder, LONG_S)
    other.remove()
    other = put_claim(folder, "z", holds=False)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            other.remove()

    monkeypatch.setattr(lease.time, "sleep", wait)
    Lease(folder, LONG_S).release()
    assert len(waits) == 3


def test_one_that_gives_way_while_it_is_looked_at_is_no_holder(tmp_path: Path, monkeypatch) -> None:
    folder = Location.of(f"memory://{tmp_path.name}/run")
    other = put_claim(folder, "0", holds=False)
    put_at = Lease._put_at

    def looked_at(held: Lease, claim: Location) -> object:
        at = put_at(held, claim)
        if claim == other:
            other.remove()
        return at

    monkeypatch.setattr(Lease, "_put_at", looked_at)
    Lease(folder, LONG_S).release()


def test_what_can_not_be_read_is_taken_for_a_holder_s(remote: Location) -> None:
    claim = put_claim(remote, "z")
    claim.fs.pipe_file(claim.path, b'{"ho')
    with pytest.raises(HeldError, match="one whose claim can't be read"):
        Lease(remote, LONG_S)


def test_a_listing_without_ones_own_claim_does_not_say_that_nobody_holds_it(remote: Location, monkeypatch) -> None:
    put_claim(remote, "0", holds=True)
    monkeypatch.setattr(Location, "names", lambda folder: [])
    with pytest.raises(HeldError, match="lists no claim that was just put"):
        Lease(remote)


@pytest.mark.parametrize("limit_s", ["abc", None, [], float("nan"), float("inf"), 1e308])
def test_a_claim_of_no_sensible_limit_is_alive_for_as_long_as_ones_own(remote: Location, limit_s: object) -> None:
    put_claim(remote, "0", holds=True, limit_s=limit_s)
    with pytest.raises(HeldError, match=r"until its hold lapses in \d\d s$"):
        Lease(remote)


def test_the_owner_in_a_claim_is_shown_on_one_short_line(remote: Location) -> None:
    put_claim(remote, "0", holds=True, host="\x1b[31m\n" + "x" * 1000)
    with pytest.raises(HeldError) as caught:
        Lease(remote)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_what_is_too_long_for_a_claim_is_not_read(remote: Location) -> None:
    put_claim(remote, "0", holds=True, host="x" * 100_000)
    with pytest.raises(HeldError, match="one whose claim can't be read"):
        Lease(remote)


def test_a_claim_that_lapsed_is_taken_over(remote: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its age is told by the storage's own times, whatever clocks say."""
    put_claim(remote, "0", holds=True, limit_s=-2.0)
    put_claim(remote, "1", holds=True, limit_s=-5.0)
    held = Lease(remote, LONG_S)
    assert len(claims(remote)) == 1
    held.release()


def test_one_that_was_given_up_is_not_renewed_and_lost_for_good(tmp_path: Path, monkeypatch) -> None:
    folder, clock = Location.of(f"memory://{tmp_path.name}/run"), [100.0]
    monkeypatch.setattr(lease, "_clock_s", lambda: clock[0])
    held = Lease(folder, LONG_S)
    clock[0] += LONG_S
    held.require()
    clock[0] += 0.1
    with pytest.raises(HeldError, match=r"was lost: it could not be renewed for 60 s.*run the same command again"):
        held.require()
    clock[0] = 100.0
    with pytest.raises(HeldError, match="was lost"):
        held.require()
    held.release()
    assert claims(folder) == []


def test_it_is_renewed_while_it_is_held(remote: Location) -> None:
    renewed = threading.Event()

    class Counting(Lease):
        puts = 0

        def _put(self, *, holds: bool) -> None:
            super()._put(holds=holds)
            self.puts += 1
            if self.puts == 4:  # the first two make it
                renewed.set()

    held = Counting(remote, 3.0)
    assert renewed.wait(60)
    held.require()
    held.release()
    assert not held._thread.is_alive()


@pytest.mark.parametrize("fault", [SLOW_DOWN, CUT_AT_ONCE, DENIED], ids=str)
def test_a_lease_that_can_not_be_renewed_is_lost(s3: S3, fault) -> None:
    folder = Location.of(f"{s3.url}/run")
    held = Lease(folder, 1.5)
    with s3.spoiling(fault, hits=lambda request: FOLDER in request):
        assert held.lost.wait(120)
    with pytest.raises(HeldError, match="was lost"):
        held.require()
    held.release()
    assert claims(folder) == []


def test_a_lease_that_was_taken_over_is_lost(remote: Location) -> None:
    held = Lease(remote, 3.0)
    (remote / FOLDER / claims(remote)[0]).remove()
    assert held.lost.wait(60)
    with pytest.raises(HeldError, match="was lost"):
        held.require()
    held.release()


def test_a_fault_while_it_is_claimed_is_tried_again(s3: S3) -> None:
    with s3.spoiling(SLOW_DOWN, 2), exclusive(Location.of(f"{s3.url}/run")) as hold:
        hold.require()
    assert s3.server.left == 0


def test_what_can_not_be_written_is_an_error(s3: S3) -> None:
    with (
        pytest.raises(OutputError, match=r"can't write to s3://no-such-bucket/run.*choose a writable place"),
        exclusive(Location.of("s3://no-such-bucket/run")),
    ):
        pass
    with s3.spoiling(DENIED), pytest.raises(OutputError, match="can't write"), exclusive(Location.of(f"{s3.url}/run")):
        pass


def test_storage_that_tells_no_times_is_refused(tmp_path: Path) -> None:
    class Timeless(DirFileSystem):
        def modified(self, path):
            raise NotImplementedError

    folder = Location(Timeless(str(tmp_path), LocalFileSystem()), "run")
    with pytest.raises(OutputError, match="does not tell when a file was written"), exclusive(folder):
        pass
    assert claims(folder) == []


def test_a_repository_is_not_held_by_commits() -> None:
    with (
        pytest.raises(OutputError, match="a commit to the repository"),
        exclusive(Location.of("hf://datasets/a/b/run")),
    ):
        pass


def hold_and_wait(url: str, limit_s: float, held: Connection) -> None:
    with ExitStack() as stack:
        hold = stack.enter_context(exclusive(Location.of(url), limit_s=limit_s))
        held.send("held")
        held.recv()
        try:
            hold.require()
            held.send("still held")
        except HeldError:
            held.send("lost")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_the_hold_of_a_process_that_is_killed_or_stopped_lapses(s3: S3, end: signal.Signals) -> None:
    here, there = SPAWN.Pipe()
    url = f"{s3.url}/run"
    process = SPAWN.Process(target=hold_and_wait, args=(url, 2.0, there))
    process.start()
    try:
        assert here.poll(120)
        assert here.recv() == "held"
        with pytest.raises(HeldError, match=f"process {process.pid} on "), exclusive(Location.of(url)):
            pass
        os.kill(process.pid, end)
        held = taken_over(url)
        if end == signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
            here.send("go on")
            assert here.poll(60)
            assert here.recv() == "lost"
            process.join(60)  # it may have been stopped in the middle of a renewal, and takes back what that put
            assert claims(Location.of(url)) == [held._mine.name]
        held.require()
        held.release()
    finally:
        process.kill()
        process.join()


def taken_over(url: str) -> Lease:
    while True:
        try:
            return Lease(Location.of(url), LONG_S)
        except HeldError:
            time.sleep(0.1)


def test_a_forked_process_gives_nothing_back(tmp_path: Path) -> None:
    folder = Location.of(f"memory://{tmp_path.name}/run")
    held = Lease(folder, LONG_S)
    held._process += 1  # as a child has it
    held.release()
    assert len(claims(folder)) == 1
    held._process -= 1
    held.release()
    assert claims(folder) == []
