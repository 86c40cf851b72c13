"""Exports: what is kept comes out byte for byte, and what is not never does."""

import dataclasses
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Policy, SafetyFilter, apply_policy, scan, storage
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.errors import OutputError, RunError, SourceError, StorageError, UnfinishedRunError, UsageError
from safetyfilter.exports import FORMATS, LEFT_OUT, export
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.sources import open_source
from tests.conftest import good_images
from tests.exports.contents import CAPTIONS, IMAGES, LIMIT, full, kept_of, names_below
from tests.sources.flaky import FlakyFileSystem
from tests.writers import WRITERS, write_files, write_folder, write_parquet, write_tars


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet", "datasets", None])
@pytest.mark.parametrize("kind", WRITERS)
def test_kept_samples_come_out_unchanged(tmp_path: Path, safe, kind: str, format: str | None) -> None:
    files = {name: IMAGES[name] for name in CAPTIONS}
    source = open_source(WRITERS[kind](tmp_path / "source", files, CAPTIONS))
    run = scan(source, tmp_path / "run", safe)
    counts = export(run, source, tmp_path / "out", format=format)
    assert counts == run.counts
    assert 0 < counts["kept"] < counts["seen"]
    exported = open_source(tmp_path / "out")
    assert exported.kind == (format or source.form)
    found = [(sample.read(LIMIT), sample.caption) for sample in full(exported)]
    expected = kept_of(source, run)
    if format == "folder":  # row numbers as file names sort as text
        found, expected = sorted(found), sorted(expected)
    assert found == expected
    assert not list(tmp_path.glob(".out*"))


def test_keys(tmp_path: Path, safe) -> None:
    source = open_source(write_folder(tmp_path / "f", IMAGES, CAPTIONS))
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "keys.txt", format="keys")
    listed = (tmp_path / "keys.txt").read_text().splitlines()
    assert len(listed) == run.counts["kept"]
    assert (Decisions.of(run).reasons(listed) == 0).all()


@pytest.mark.parametrize("key", ["a\nb.png", "a\rb.png", "a\u2028b.png", "a\x1cb.png"])
def test_a_key_that_cant_stand_in_a_list(tmp_path: Path, keeps_all, key: str) -> None:
    source = open_source(write_folder(tmp_path / "f", {key: IMAGES["china-2.png"]}))
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(OutputError, match="a key holds a line break") as caught:
        export(run, source, tmp_path / "keys.txt", format="keys")
    assert key not in str(caught.value)
    assert not list(tmp_path.glob("*keys*"))


def test_drifted_and_unknown_samples_stay_behind(tmp_path: Path, safe) -> None:
    place = write_folder(tmp_path / "f", IMAGES)
    run = scan(open_source(place), tmp_path / "run", safe)
    keep = Decisions.of(run).reasons(list(IMAGES)) == 0
    kept = [name for name, keeps in zip(IMAGES, keep.tolist(), strict=True) if keeps]
    (place / kept[0]).write_bytes(IMAGES[kept[0]] + b"\0")
    (place / "new.jpg").write_bytes(IMAGES["china.jpg"])
    counts = export(run, open_source(place), tmp_path / "out")
    assert (counts["drifted"], counts["unknown"], counts["kept"]) == (1, 1, run.counts["kept"] - 1)
    assert names_below(tmp_path / "out") == sorted(kept[1:])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_sample_without_bytes_is_unscored_and_nothing_else(tmp_path: Path, keeps_all, kind: str) -> None:
    if kind == "folder":
        place = write_folder(tmp_path / "s", {"a.png": IMAGES["china-2.png"]})
        (place / "b.png").symlink_to("nowhere")
    elif kind == "webdataset":
        place = write_tars(tmp_path / "s", {"a.png": IMAGES["china-2.png"], "b.npy": b"\x93NUMPY"})
    elif kind == "parquet":
        place = tmp_path / "s.parquet"
        pq.write_table(pa.table({"image": [IMAGES["china-2.png"], None]}), place)
    else:
        rows = {"image": [{"bytes": IMAGES["china-2.png"], "path": None}, None]}
        place = tmp_path / "s"
        datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).save_to_disk(place)
    source = open_source(place)
    run = scan(source, tmp_path / "run", keeps_all)
    counts = export(run, source, tmp_path / "out")
    assert counts == run.counts
    assert (counts["kept"], counts["unscored"], counts["drifted"]) == (1, 1, 0)


def test_what_lost_its_bytes_has_drifted(tmp_path: Path, keeps_all) -> None:
    source = open_source(write_folder(tmp_path / "f", dict.fromkeys(("a.png", "b.png"), IMAGES["china-2.png"])))
    run = scan(source, tmp_path / "run", keeps_all)
    (tmp_path / "f" / "b.png").unlink()
    counts = export(run, source, tmp_path / "out")
    assert (counts["kept"], counts["drifted"], counts["unscored"]) == (1, 1, 0)


def test_no_more_is_read_than_the_run_allowed(tmp_path: Path, safe, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(np.median([len(content) for content in IMAGES.values()]))
    limits = DecodeLimits(max_bytes=limit)
    options = dataclasses.replace(safe.options, limits=limits)
    source = open_source(write_folder(tmp_path / "f", IMAGES))
    policy = Policy(thresholds={"explicit": 1, "minor": 1})
    run = scan(source, tmp_path / "run", SafetyFilter(safe.encoder, safe.probes, policy, options))
    limits_of_reads = []

    def noted(place, max_bytes: int) -> bytes:
        limits_of_reads.append(max_bytes)
        return storage.read_image(place, max_bytes)

    monkeypatch.setattr("safetyfilter.sources.base.read_image", noted)
    export(run, source, tmp_path / "out")
    assert limits_of_reads == [limit] * len(IMAGES)
    assert names_below(tmp_path / "out") == sorted(
        name for name, content in IMAGES.items() if len(content) <= limit and name in good_images()
    )


@pytest.mark.parametrize("format", ["folder", "datasets"])
@pytest.mark.parametrize("kind", ["folder", "datasets"])
def test_few_bytes_are_held_at_a_time(
    tmp_path: Path, keeps_all, kind: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_files(tmp_path / "f", {f"{n}.png": IMAGES["china-2.png"] + bytes([n]) for n in range(7)})
    rows = {"image": [{"bytes": None, "path": str(path)} for path in sorted(place.iterdir())]}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))
    source = open_source(place if kind == "folder" else data)
    run = scan(source, tmp_path / "run", keeps_all)
    monkeypatch.setattr("safetyfilter.exports.samples._AT_ONCE", 2 * len(IMAGES["china-2.png"]))
    seen: list[int] = []
    assert export(run, source, tmp_path / "out", format=format, progress=lambda c: seen.append(c["seen"])) == run.counts
    assert seen == [2, 2, 2, 1]
    assert len(full(open_source(tmp_path / "out"))) == 7


def test_the_source_is_never_touched(tmp_path: Path, safe) -> None:
    place = write_folder(tmp_path / "f", IMAGES, CAPTIONS)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.rglob("*") if path.is_file()}
    source = open_source(place)
    export(scan(source, tmp_path / "run", safe), source, tmp_path / "out")
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.rglob("*") if path.is_file()}


def test_another_source_is_an_error(tmp_path: Path, safe) -> None:
    run = scan(open_source(write_folder(tmp_path / "f", IMAGES)), tmp_path / "run", safe)
    with pytest.raises(SourceError, match=r"knows none of the .* whose keys are SHARD\.tar/KEY"):
        export(run, open_source(write_tars(tmp_path / "t", IMAGES)), tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "datacomp"])
def test_a_fault_of_the_sources_storage_is_told_as_such(
    tmp_path: Path, safe, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    source = open_source(f"flaky://{write_folder(tmp_path / 'f', IMAGES, CAPTIONS)}")
    run = scan(source, tmp_path / "run", safe)
    FlakyFileSystem.fail(1_000, after=3)
    with pytest.raises(StorageError, match=r"can't reach .*flaky://"):
        export(run, source, tmp_path / "out", format=format)
    assert not list(tmp_path.glob("*out*"))
    FlakyFileSystem.fail(storage.ATTEMPTS - 1, after=3)
    assert export(run, source, tmp_path / "out", format=format) == run.counts


def test_a_run_that_is_decided_anew_meanwhile_is_not_exported(tmp_path: Path, keeps_all) -> None:
    source = open_source(write_folder(tmp_path / "f", good_images()))
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(RunError, match="have changed"):
        export(run, source, tmp_path / "out", progress=lambda counts: apply_policy(Run.open(run.path), Policy()))
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "datacomp"])
def test_a_file_beside_a_picture_that_is_one_itself_is_left_out(
    tmp_path: Path, keeps_all, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    hidden = IMAGES["chelsea-2.png"]
    files = {"a.png": IMAGES["china-2.png"], "a.txt": hidden, "a.json": b'{"n": 1}', "b.png": IMAGES["china-2.png"]}
    files |= {"b.CAPTION": hidden, "b.Json": hidden}
    source = open_source(write_files(tmp_path / "f", files))
    run = scan(source, tmp_path / "run", keeps_all)
    assert run.counts["seen"] == run.counts["kept"] == 2
    counts = export(run, source, tmp_path / "out", format=format)
    assert counts == run.counts | {LEFT_OUT: 3}
    assert [record.message for record in caplog.records if "3 texts beside kept pictures" in record.message]
    written = [tmp_path / "out"] if format == "keys" else [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert written
    assert not any(hidden[:64] in path.read_bytes() for path in written)
    if format == "folder":
        assert names_below(tmp_path / "out") == ["a.json", "a.png", "b.png"]


def test_bad_calls(tmp_path: Path, safe) -> None:
    source = open_source(write_folder(tmp_path / "f", IMAGES))
    run = scan(source, tmp_path / "run", safe)
    with pytest.raises(UsageError, match=r"no format is called 'zip'; there are folder, .*, datasets, keys"):
        export(run, source, tmp_path / "out", format="zip")
    unfinished = Run(run.path, dataclasses.replace(run.record, complete=False))
    with pytest.raises(UnfinishedRunError):
        export(unfinished, source, tmp_path / "out")


def test_repeated_keys_are_the_same_for_a_run_and_its_export(tmp_path: Path, keeps_all) -> None:
    images = [IMAGES[name] for name in ("china-2.png", "chelsea-2.png", "coffee-2.png", "china-2.png", "flower-2.png")]
    rows = pa.table({"image": images, "key": ["a", "b", "b", "a", None]})  # one a, twice; b is two; one has no key
    (tmp_path / "p").mkdir()
    pq.write_table(rows, tmp_path / "p" / "0.parquet")
    source = open_source(tmp_path / "p")
    run = scan(source, tmp_path / "run", keeps_all)
    assert (run.counts["kept"], run.counts["unscored"]) == (2, 3)
    assert export(run, source, tmp_path / "out") == run.counts
    assert [sample.key for sample in full(open_source(tmp_path / "out"))] == ["a", "a"]


def test_several_pictures_are_compared_together(tmp_path: Path, keeps_all) -> None:
    left, right = IMAGES["china-2.png"], IMAGES["chelsea-2.png"]
    place = write_parquet(tmp_path / "p", {"0": left, "1": left}, extra=pa.table({"view": [right, right]}))
    source = open_source(place)
    run = scan(source, tmp_path / "run", keeps_all)
    assert run.counts["kept"] == 2
    write_parquet(place, {"0": left, "1": left}, extra=pa.table({"view": [right, right + b"\0"]}))
    counts = export(run, open_source(place), tmp_path / "out")
    assert (counts["kept"], counts["drifted"]) == (1, 1)
