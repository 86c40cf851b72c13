"""Exports: what is kept comes out byte for byte, and what is not never does."""

import dataclasses
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import EmbedOptions, Policy, SafetyFilter, scan, storage
from safetyfilter.embed.headers import DecodeLimits
from safetyfilter.errors import OutputError, SourceError, StorageError, UnfinishedRunError, UsageError
from safetyfilter.exports import FORMATS, export
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.sources import Source, open_source
from tests.conftest import bad_images, good_images
from tests.sources.flaky import FlakyFileSystem
from tests.writers import WRITERS, write_data_set, write_files, write_folder, write_parquet, write_tars

IMAGES = dict(sorted((good_images() | bad_images()).items()))
CAPTIONS = {
    name: f"caption {number}\n — 写真" for number, name in enumerate(IMAGES) if not name.endswith(".md")
}  # a text beside a file that is not an image is a sample of its own
LIMIT = 1 << 30


@pytest.fixture
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole", batch_size=8))


@pytest.fixture
def keeps_all(safe: SafetyFilter) -> SafetyFilter:
    """A filter that keeps all that it can score."""
    return SafetyFilter(safe.encoder, safe.probes, Policy(thresholds={"explicit": 1, "minor": 1}), safe.options)


def full(source: Source):
    return [sample for part in source.parts() for batch in source.batches(part) for sample in batch.samples]


def kept_of(source: Source, run: Run) -> list[tuple[bytes, str | None]]:
    """Image and caption of each sample that the run keeps, in order."""
    samples = full(source)
    keep = Decisions.of(run).reasons([sample.key for sample in samples]) == 0
    return [(sample.read(LIMIT), sample.caption) for sample, kept in zip(samples, keep, strict=True) if kept]


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet", None])
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


def test_tars_keep_their_names_and_all_members(tmp_path: Path, safe) -> None:
    place = write_tars(tmp_path / "tars", IMAGES, CAPTIONS, shard_size=4, members={"json": b'{"a":  1}'})
    write_tars(tmp_path / "tars" / "deeper", {"a.jpg": b"not an image"})  # nothing of it is kept
    source = open_source(place)
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "out")
    assert names_below(tmp_path / "out") == names_below(place)
    before = {sample.key: sample for sample in full(source)}
    after = full(open_source(tmp_path / "out"))
    assert len(after) == run.counts["kept"]
    for sample in after:
        assert (
            sample.members
            == before[sample.key].members
            == {
                "txt": (sample.caption or "").encode(),
                "json": b'{"a":  1}',
            }
        )


def test_rows_keep_their_columns_and_each_schema(tmp_path: Path, safe) -> None:
    numbers = pa.table({"n": range(len(IMAGES)), "s": [{"a": [1, 2]}] * len(IMAGES)})
    tables = [write_parquet(tmp_path / "p" / "0.parquet", IMAGES, CAPTIONS, extra=numbers)]
    tables += [write_parquet(tmp_path / "p" / "1.parquet", IMAGES, row_group_size=5)]
    tables += [write_parquet(tmp_path / "p" / "2.parquet", IMAGES, CAPTIONS, extra=numbers)]
    source = open_source(tmp_path / "p")
    assert len(source.parts()) == 1
    run = scan(source, tmp_path / "run", safe)
    assert export(run, source, tmp_path / "out") == run.counts
    assert names_below(tmp_path / "out") == [f"part-0000{number}.parquet" for number in range(3)]
    for number, path in enumerate(tables):
        whole = pq.read_table(path)
        keep = Decisions.of(run).reasons([f"{path.name}#{row}" for row in range(len(whole))]) == 0
        assert keep.any()
        assert not keep.all()
        kept = pq.read_table(tmp_path / "out" / f"part-0000{number}.parquet")
        assert kept.equals(whole.filter(pa.array(keep)), check_metadata=True)


def test_long_tables_are_divided_into_files(tmp_path: Path, keeps_all, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetyfilter.exports.parquet._FILE_ROWS", 300)
    files = dict.fromkeys(map(str, range(700)), IMAGES["china-2.png"])
    source = open_source(write_parquet(tmp_path / "p", files, row_group_size=100))
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out")
    rows = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").iterdir())]
    assert rows == [512, 188]


def test_the_features_of_a_data_set_come_back(tmp_path: Path, safe) -> None:
    place = write_data_set(tmp_path / "saved", IMAGES, CAPTIONS)
    source = open_source(place)
    export(scan(source, tmp_path / "run", safe), source, tmp_path / "out")
    exported = datasets.Dataset.from_parquet(str(tmp_path / "out" / "*.parquet"), cache_dir=tmp_path / "cache")
    assert exported.features == datasets.load_from_disk(place).features


def test_keys(tmp_path: Path, safe) -> None:
    source = open_source(write_folder(tmp_path / "f", IMAGES, CAPTIONS))
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "keys.txt", format="keys")
    listed = (tmp_path / "keys.txt").read_text().splitlines()
    assert len(listed) == run.counts["kept"]
    assert (Decisions.of(run).reasons(listed) == 0).all()


def test_a_key_that_cant_stand_in_a_list(tmp_path: Path, keeps_all) -> None:
    source = open_source(write_folder(tmp_path / "f", {"a\nb.png": IMAGES["china-2.png"]}))
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(OutputError, match="a key holds a line break"):
        export(run, source, tmp_path / "keys.txt", format="keys")
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


@pytest.mark.parametrize("format", FORMATS)
def test_a_fault_of_the_sources_storage_is_told_as_such(
    tmp_path: Path, safe, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    source = open_source(f"flaky://{write_folder(tmp_path / 'f', IMAGES, CAPTIONS)}")
    run = scan(source, tmp_path / "run", safe)
    FlakyFileSystem.fail(1_000, after=3)
    with pytest.raises(StorageError, match="can't reach flaky://"):
        export(run, source, tmp_path / "out", format=format)
    assert not list(tmp_path.glob("*out*"))
    FlakyFileSystem.fail(storage.ATTEMPTS - 1, after=3)
    assert export(run, source, tmp_path / "out", format=format) == run.counts


def test_bad_destinations(tmp_path: Path, safe, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_folder(tmp_path / "f", IMAGES))
    run = scan(source, tmp_path / "run", safe)
    with pytest.raises(OutputError, match="there already"):
        export(run, source, tmp_path / "f")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="can't write"):
        export(run, source, tmp_path / "file" / "out")
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/out", Path("s3://bucket/out")):
        with pytest.raises(OutputError, match="an export can't be at s3:/"):
            export(run, source, url)
    assert not (tmp_path / "s3:").exists()
    with pytest.raises(UsageError, match="no format is called 'zip'"):
        export(run, source, tmp_path / "out", format="zip")
    unfinished = Run(run.path, dataclasses.replace(run.record, complete=False))
    with pytest.raises(UnfinishedRunError):
        export(unfinished, source, tmp_path / "out")


def test_an_empty_folder_is_taken(tmp_path: Path, safe) -> None:
    source = open_source(write_folder(tmp_path / "f", IMAGES))
    (tmp_path / "out").mkdir()
    export(scan(source, tmp_path / "run", safe), source, tmp_path / "out")
    assert names_below(tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["../../escaped", "/absolute", "a/./b"], ["a/b.png", "absolute.png", "escaped.png"]),
        (["x.PNG", "y.jpg", "//z"], ["x.PNG", "y.jpg.png", "z.png"]),
    ],
)
def test_a_key_cannot_lead_out_of_the_destination(tmp_path: Path, keeps_all, keys, expected) -> None:
    files = dict.fromkeys(keys, IMAGES["china-2.png"])
    source = open_source(write_parquet(tmp_path / "p.parquet", files, extra=pa.table({"key": keys})))
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, tmp_path / "out" / "deep", format="folder")
    images = [name for name in names_below(tmp_path / "out") if not name.endswith(".json")]
    assert images == [f"deep/{name}" for name in expected]


def test_two_samples_under_one_name_are_an_error(tmp_path: Path, keeps_all) -> None:
    keys = ["a", "./a"]
    files = dict.fromkeys(keys, IMAGES["china-2.png"])
    source = open_source(write_parquet(tmp_path / "p.parquet", files, extra=pa.table({"key": keys})))
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(OutputError, match=r"can't write .* File exists"):
        export(run, source, tmp_path / "out", format="folder")
    assert not list(tmp_path.glob("*out*"))


def test_names_of_files_are_not_parsed(tmp_path: Path, keeps_all) -> None:
    names = ["a.png", "a.png::b.png", "{c}.png", "noextension"]
    place = write_files(tmp_path / "f", dict.fromkeys(names, IMAGES["china-2.png"]))
    source = open_source(place)
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out")
    assert names_below(tmp_path / "out") == sorted(names)
