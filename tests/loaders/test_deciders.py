"""Deciders: what each must do, once for all, and what is a run's or a filter's own."""

import json
import pickle
import shutil
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import UnidentifiedImageError

from safetyfilter import SafetyFilter
from safetyfilter.batches import Reason
from safetyfilter.errors import (
    RunError,
    SafetyFilterError,
    SchemaError,
    SecretError,
    StorageError,
    UnfinishedRunError,
    UsageError,
)
from safetyfilter.loaders.access import Access, Named, encoded_bytes, image_input
from safetyfilter.loaders.deciders import Decider, decider_of
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from tests.loaders.training import FolderPictures, Pictures

ACCESS = Access(key=Named("key"), image=Named("jpg"))


def failing(sample: dict) -> bytes:
    """Storage that fails at the second sample."""
    if sample["number"] == 1:
        raise StorageError("the storage is away")
    return sample["jpg"]


@pytest.fixture(scope="module")
def samples(pictures: Pictures) -> list[dict]:
    return [{"number": number, "key": key, "jpg": pictures.content(number)} for number, key in enumerate(pictures.keys)]


class DeciderContract:
    """Every decider passes these; a subclass makes one, and says what it needs and how far it reads ahead."""

    missing: str
    read_ahead: int

    @pytest.fixture
    def decider(self, pictures: Pictures, catching: SafetyFilter) -> Decider:
        raise NotImplementedError

    def test_both_ways_give_each_sample_in_order_the_same_reasons(self, decider, samples, pictures) -> None:
        streamed = list(decider.stream(samples, ACCESS))
        assert [sample for sample, _ in streamed] == samples
        reasons = np.array([reasons for _, reasons in streamed])
        bits = [decided.reason_bits for decided in decider.decide(iter(samples), ACCESS)]
        assert all(batch.dtype == np.uint16 for batch in bits)
        assert np.concatenate(bits).tolist() == reasons.tolist()
        assert (reasons[pictures.both & ~pictures.damaged] & Reason.CO_OCCURRENCE).all()
        assert (reasons[pictures.damaged] == Reason.UNSCORED).all()
        assert (reasons == 0).any()

    def test_nothing_in_nothing_out(self, decider) -> None:
        assert list(decider.stream([], ACCESS)) == []
        assert sum(len(decided.reason_bits) for decided in decider.decide([], ACCESS)) == 0
        decider.require_used({"seen": 0, "unknown": 0, "drifted": 0, "unscored": 0})

    def test_reads_ahead_no_further_than_its_buffers(self, decider, samples) -> None:
        taken = []
        passing = decider.stream((taken.append(1) or sample for sample in samples), ACCESS)
        next(passing)
        assert 1 <= len(taken) <= self.read_ahead < len(samples)
        passing.close()

    def test_broken_samples_are_excluded_and_the_rest_goes_on(self, decider, samples) -> None:
        good = next(sample for sample, reasons in decider.stream(samples, ACCESS) if not reasons)
        mixed = [None, good, {}, {"key": None, "jpg": None}, {"key": "no such", "jpg": "https://example.org/a"}, good]
        excluded = [True, False, True, True, True, False]
        assert [bool(reasons) for _, reasons in decider.stream(mixed, ACCESS)] == excluded
        bits = np.concatenate([decided.reason_bits for decided in decider.decide(mixed, ACCESS)])
        assert (bits != 0).tolist() == excluded

    def test_what_it_needs_and_does_not_get_is_an_error_with_the_loaders_help(self, decider) -> None:
        decider.require(ACCESS)
        with pytest.raises(UsageError, match=f"turn the {self.missing} knob"):
            decider.require(Access(key_help="turn the key knob", image_help="turn the image knob"))

    def test_its_pickled_copy_decides_the_same(self, decider, samples) -> None:
        copy = pickle.loads(pickle.dumps(decider))
        for one, another in zip(decider.decide(samples, ACCESS), copy.decide(samples, ACCESS), strict=True):
            assert one.reason_bits.tolist() == another.reason_bits.tolist()

    def test_by_row_numbers_images_are_needed(self, decider) -> None:
        assert decider.for_row_numbers().needs_images

    def test_a_fault_of_storage_is_raised(self, decider, samples) -> None:
        decider = decider.for_row_numbers()
        access = Access(key=Named("key"), image=failing)
        with pytest.raises(StorageError, match="can't read a sample: StorageError; "):
            list(decider.stream(samples, access))
        with pytest.raises(StorageError, match="can't read a sample: StorageError; "):
            list(decider.decide(samples, access))

    def test_nothing_decided_on_is_an_error(self, decider) -> None:
        useless = {"seen": 9, "unknown": 9 * decider.needs_keys, "drifted": 0, "unscored": 9 * (not decider.needs_keys)}
        with pytest.raises(SafetyFilterError, match="of the first 9"):
            decider.require_used(useless)
        decider.require_used(useless | {"seen": 10})


class TestRunDecider(DeciderContract):
    """A run's."""

    missing, read_ahead = "key", 1

    @pytest.fixture
    def decider(self, pictures: Pictures) -> Decider:
        return decider_of(pictures.folder_run)

    def test_a_fault_of_storage_while_keys_are_had_is_raised(self, decider, samples) -> None:
        access = Access(key=failing)
        with pytest.raises(StorageError, match="can't read a sample: StorageError; "):
            list(decider.stream(samples, access))
        with pytest.raises(StorageError, match="can't read a sample: StorageError; "):
            list(decider.decide(samples, access))

    def test_rows_are_those_by_which_images_are_compared_again(self, pictures, samples) -> None:
        verifying = decider_of(pictures.folder_run, verify="access")
        (decided,) = verifying.decide([*samples, {"key": None}, {"key": "no such"}], ACCESS)
        assert decided.rows[-2:].tolist() == [-1, -1]
        assert (decided.reason_bits[-2:] == Reason.UNKNOWN).all()
        check = verifying.access_check(ACCESS)
        for row, sample in zip(decided.rows[:5].tolist(), samples, strict=False):
            assert check.reasons(row, sample) == 0
            assert check.reasons(row, samples[9]) == check.reasons(row, {}) == Reason.DRIFTED


class TestRunDeciderThatVerifies(DeciderContract):
    """A run's, with each image compared."""

    missing, read_ahead = "key", 1

    @pytest.fixture
    def decider(self, pictures: Pictures) -> Decider:
        return decider_of(Run.open(pictures.folder_run), verify=True)

    def test_another_image_has_drifted(self, decider, samples) -> None:
        changed = [sample | {"jpg": sample["jpg"] + b"\0"} for sample in samples]
        assert all(reasons & Reason.DRIFTED for _, reasons in decider.stream(changed, ACCESS))
        assert all((decided.reason_bits & Reason.DRIFTED).all() for decided in decider.decide(changed, ACCESS))


class TestFilterDecider(DeciderContract):
    """A filter's; it has batches of 16 and three buffers, one of which is being filled."""

    missing, read_ahead = "image", 5 * 16

    @pytest.fixture
    def decider(self, catching: SafetyFilter) -> Decider:
        return decider_of(catching)

    def test_verifying_is_an_error(self, catching: SafetyFilter) -> None:
        with pytest.raises(UsageError, match="leave it out"):
            decider_of(catching, verify=True)

    def test_an_attestation_is_of_runs_alone(self, catching: SafetyFilter) -> None:
        with pytest.raises(UsageError, match="a SafetyFilter decides by none; leave it out"):
            decider_of(catching, attested="officer.pub")


def test_each_form_of_a_run_is_the_same_decider(pictures: Pictures, samples) -> None:
    run = Run.open(pictures.folder_run)
    deciders = [decider_of(by) for by in (pictures.folder_run, str(pictures.folder_run), run, Decisions.of(run))]
    decided = [[reasons for _, reasons in decider.stream(samples, ACCESS)] for decider in deciders]
    assert decided == [decided[0]] * 4
    assert 0 in decided[0]
    with pytest.raises(UsageError, match="by is a list; give a run"):
        decider_of([])
    with pytest.raises(RunError, match="no run at memory:///bucket/run"):
        decider_of("memory://bucket/run")


def test_a_file_larger_than_any_that_was_scored_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    assert encoded_bytes(tmp_path / "a.jpg", 5) == encoded_bytes(image_input({"path": str(tmp_path / "a.jpg")}), 5)
    assert encoded_bytes(tmp_path / "a.jpg", 4) is None
    assert encoded_bytes(tmp_path, 5) is None


@pytest.fixture
def failing_storage(monkeypatch, pictures: Pictures) -> None:
    """Storage that times out each time the second picture is read."""
    from safetyfilter import storage

    read = storage.location._read_local

    def timing_out(path: str, max_bytes: int | None) -> bytes:
        if path.endswith(pictures.keys[1]):
            raise TimeoutError("timed out")
        return read(path, max_bytes)

    monkeypatch.setattr(storage.location, "_read_local", timing_out)
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)


@pytest.mark.usefixtures("failing_storage")
@pytest.mark.parametrize("by", ["run", "filter"])
def test_storage_that_fails_is_an_error_and_no_reason(pictures: Pictures, catching: SafetyFilter, by: str) -> None:
    verify, decides = (True, pictures.folder_run) if by == "run" else (False, catching)
    paths = [pictures.folder / key for key in pictures.keys]
    with pytest.raises(StorageError, match="TimeoutError"):
        SafeDataset(paths, decides, keys=pictures.keys, images=paths, verify_content=verify)
    samples = [{"key": key, "jpg": path} for key, path in zip(pictures.keys, paths, strict=True)]
    safe = SafeIterable(samples, decides, key="key", image="jpg", verify_content=verify)
    with pytest.raises(StorageError, match="TimeoutError"):
        list(safe)
    assert safe.filter_report()["drifted"] == 0


class FailingAtSecond:
    """A data set, and getters of its samples, of which one fails at the second sample."""

    def __init__(self, samples: list[dict], fails: str, error: Exception) -> None:
        self.samples, self.fails, self.error = samples, fails, error

    def _got(self, what: str, sample: dict, value: object) -> object:
        if what == self.fails and sample["number"] == 1:
            raise self.error
        return value

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> object:
        return self._got("sample", self.samples[number], self.samples[number])

    def key(self, sample: dict) -> object:
        return self._got("key", sample, sample["key"])

    def image(self, sample: dict) -> object:
        return self._got("image", sample, sample["jpg"])


FAULTS = [
    TimeoutError("timed out at CANARY.jpg"),
    ConnectionResetError(104, "reset", "CANARY.jpg"),
    OSError(5, "broken", "CANARY.jpg"),
]
FINDINGS = [
    FileNotFoundError(2, "gone"),
    OSError("image file is truncated"),
    UnidentifiedImageError("no image"),
    KeyError("k"),
]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("fails", "by"),
    [("sample", "run"), ("key", "run"), ("image", "run"), ("sample", "filter"), ("image", "filter")],
)
def test_a_fault_in_the_users_own_code_is_no_reason(samples, pictures, catching, fails: str, by: str, error) -> None:
    data = FailingAtSecond(samples, fails, error)
    verify, decides = (True, pictures.folder_run) if by == "run" else (False, catching)
    with pytest.raises(StorageError, match=rf"can't read a sample: {type(error).__name__}[:;] .*try again") as raised:
        SafeDataset(data, decides, key=data.key, image=data.image, verify_content=verify)
    assert "CANARY" in f"{error} {error.filename}"
    assert "CANARY" not in "".join(traceback.format_exception(raised.value))
    if fails != "sample":
        safe = SafeIterable(samples, decides, key=data.key, image=data.image, verify_content=verify)
        with pytest.raises(StorageError, match="can't read a sample"):
            list(safe)


def test_a_fault_when_a_sample_is_asked_for_does_not_make_it_drifted(samples, pictures) -> None:
    data = FailingAtSecond([sample | {"number": int(sample["number"])} for sample in samples], "", FAULTS[0])
    safe = SafeDataset(data, pictures.folder_run, keys=pictures.keys, image=data.image, verify_content="access")
    first = safe[0]
    data.fails = "image"
    data.samples[first["number"]]["number"] = 1
    with pytest.raises(StorageError, match="can't read a sample"):
        safe[0]
    assert safe.filter_report()["drifted"] == 0


def test_a_fault_while_the_first_images_are_compared_is_raised(samples, pictures) -> None:
    data = FailingAtSecond(samples, "image", FAULTS[2])
    check = decider_of(pictures.folder_run).image_check(Access(key=data.key, image=data.image))
    with pytest.raises(StorageError, match="can't read a sample"):
        check.reasons(0, samples[1])


@pytest.mark.parametrize("error", FINDINGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("fails", ["sample", "key", "image"])
def test_what_a_sample_itself_is_at_fault_for_excludes_it(samples, pictures, fails: str, error) -> None:
    data = FailingAtSecond(samples, fails, error)
    safe = SafeDataset(data, pictures.folder_run, key=data.key, image=data.image, verify_content=True)
    assert 1 not in [sample["number"] for sample in safe]
    assert safe.filter_report()["drifted" if fails == "image" else "unknown"] == 1


@pytest.mark.parametrize("bad", ["no run", "unfinished", "schema", "part", "secret"])
def test_runs_that_cannot_be_used(pictures: Pictures, tmp_path: Path, monkeypatch, bad: str) -> None:
    path = tmp_path / "run"
    expected = {
        "no run": (RunError, "no run at"),
        "unfinished": (UnfinishedRunError, "not finished"),
        "schema": (SchemaError, "schema 99"),
        "part": (RunError, "is missing"),
        "secret": (SecretError, "not the one"),
    }
    if bad != "no run":
        shutil.copytree(pictures.folder_run, path)
        shutil.copy(pictures.folder_run.with_name("folder-run.secret"), tmp_path / "run.secret")
        if bad in ("unfinished", "schema"):
            record = json.loads((path / "run.json").read_text())
            record |= {"complete": False} if bad == "unfinished" else {"schema": 99}
            (path / "run.json").write_text(json.dumps(record))
        elif bad == "part":
            Run.open(path).file("decisions", 0).remove()
        else:
            monkeypatch.setenv("SAFETYFILTER_SECRET", "00" * 32)
    error, message = expected[bad]
    with pytest.raises(error, match=message):
        SafeDataset(FolderPictures(pictures.folder, pictures.keys), path, keys=pictures.keys)
    with pytest.raises(error, match=message):
        SafeIterable([], path, key="key")
