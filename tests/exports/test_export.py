"""Exports: what is kept comes out byte for byte, and what is not never does."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from safetyfilter import EmbedOptions, Policy, SafetyFilter
from safetyfilter.engine.local import scan
from safetyfilter.errors import OutputError, SourceError, UnfinishedRunError, UsageError
from safetyfilter.exports import export
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.sources import open_source
from tests.conftest import bad_images, good_images, write_files

IMAGES = dict(sorted((good_images() | bad_images()).items()))
CAPTIONS = {name: f"caption {number}\n — 写真".encode() for number, name in enumerate(IMAGES)}


@pytest.fixture
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole", batch_size=8))


def folder(place):
    captions = {name.rpartition(".")[0] + ".txt": text for name, text in CAPTIONS.items() if not name.endswith(".md")}
    return write_files(place, IMAGES | captions)


def tars(place):
    place.mkdir()
    for shard, names in enumerate((list(IMAGES)[:9], list(IMAGES)[9:])):
        with webdataset.TarWriter(str(place / f"{shard}.tar"), encoder=False) as tar:
            for number, name in enumerate(names):
                tar.write(
                    {
                        "__key__": f"{number:03d}",
                        name.rpartition(".")[2].replace("md", "jpg"): IMAGES[name],
                        "txt": CAPTIONS[name],
                        "json": b'{"a":  1}',
                    }
                )
    return place


def parquet(place):
    place.mkdir()
    pq.write_table(
        pa.table(
            {
                "caption": [text.decode() for text in CAPTIONS.values()],
                "n": range(len(IMAGES)),
                "image": pa.array(IMAGES.values(), pa.binary()),
            }
        ),
        place / "p.parquet",
        row_group_size=5,
    )
    return place


def saved(place):
    rows = {
        "image": [{"bytes": content, "path": None} for content in IMAGES.values()],
        "text": [text.decode() for text in CAPTIONS.values()],
    }
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(place)
    return place


SOURCES = {"folder": folder, "webdataset": tars, "parquet": parquet, "datasets": saved}


def kept_of(source, run: Run) -> list[tuple[bytes, str | None]]:
    """Image and caption of each sample that the run keeps, in order."""
    decisions = Decisions.of(run)
    samples = [sample for part in source.parts() for sample in source.samples(part, full=True)]
    keep = decisions.reasons([sample.key for sample in samples]) == 0
    return [(sample.read(), sample.caption) for sample, kept in zip(samples, keep, strict=True) if kept]


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
@pytest.mark.parametrize("kind", SOURCES)
def test_kept_samples_come_out_unchanged(tmp_path, safe, kind: str, format: str) -> None:
    source = open_source(SOURCES[kind](tmp_path / "source"))
    run = scan(source, tmp_path / "run", safe)
    counts = export(run, source, tmp_path / "out", format=format)
    assert counts == run.counts
    assert 0 < counts["kept"] < counts["seen"]
    expected = kept_of(source, run)
    exported = open_source(tmp_path / "out")
    assert exported.kind == format
    found = [(s.read(), s.caption) for part in exported.parts() for s in exported.samples(part, full=True)]
    if kind == "datasets" and format == "folder":  # row numbers as file names sort as text
        found, expected = sorted(found), sorted(expected)
    assert found == expected if (kind, format) != ("parquet", "folder") else sorted(found) == sorted(expected)
    assert not list(tmp_path.glob(".out*"))


def test_the_same_kind_keeps_everything(tmp_path, safe) -> None:
    source = open_source(tars(tmp_path / "tars"))
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "out")
    exported = open_source(tmp_path / "out")
    keys = {s.key: s.members for part in source.parts() for s in source.samples(part, full=True)}
    for part in exported.parts():
        for sample in exported.samples(part, full=True):
            assert keys[sample.key] == sample.members == {"txt": sample.members["txt"], "json": b'{"a":  1}'}
    table = open_source(parquet(tmp_path / "p"))
    rows_run = scan(table, tmp_path / "run2", safe)
    export(rows_run, table, tmp_path / "out2")
    whole, kept = pq.read_table(tmp_path / "p"), pq.read_table(tmp_path / "out2")
    keep = Decisions.of(rows_run).reasons([f"p.parquet#{row}" for row in range(len(whole))]) == 0
    assert kept.equals(whole.filter(pa.array(keep)))


def test_keys(tmp_path, safe) -> None:
    source = open_source(folder(tmp_path / "f"))
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "keys.txt", format="keys")
    listed = (tmp_path / "keys.txt").read_text().splitlines()
    assert len(listed) == run.counts["kept"]
    assert (Decisions.of(run).reasons(listed) == 0).all()


def test_drifted_and_unknown_samples_stay_behind(tmp_path, safe) -> None:
    place = folder(tmp_path / "f")
    run = scan(open_source(place), tmp_path / "run", safe)
    source = open_source(place)
    kept = [
        s.key for part in source.parts() for s in source.samples(part) if Decisions.of(run).reasons([s.key])[0] == 0
    ]
    (place / kept[0]).write_bytes(IMAGES[kept[0]] + b"\0")
    (place / "new.jpg").write_bytes(IMAGES["china.jpg"])
    counts = export(run, open_source(place), tmp_path / "out")
    assert (counts["drifted"], counts["unknown"], counts["kept"]) == (1, 1, run.counts["kept"] - 1)
    assert not (tmp_path / "out" / kept[0]).exists()
    assert (tmp_path / "out" / kept[1]).exists()


def test_the_source_is_never_touched(tmp_path, safe) -> None:
    place = folder(tmp_path / "f")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.rglob("*") if path.is_file()}
    source = open_source(place)
    export(scan(source, tmp_path / "run", safe), source, tmp_path / "out")
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.rglob("*") if path.is_file()}


def test_another_source_is_an_error(tmp_path, safe) -> None:
    run = scan(open_source(folder(tmp_path / "f")), tmp_path / "run", safe)
    with pytest.raises(SourceError, match="knows none of the"):
        export(run, open_source(tars(tmp_path / "t")), tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_bad_destinations(tmp_path, safe) -> None:
    source = open_source(folder(tmp_path / "f"))
    run = scan(source, tmp_path / "run", safe)
    with pytest.raises(OutputError, match="there already"):
        export(run, source, tmp_path / "f")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="can't write"):
        export(run, source, tmp_path / "file" / "out")
    with pytest.raises(UsageError, match="no format is called 'zip'"):
        export(run, source, tmp_path / "out", format="zip")
    run.info["complete"] = False
    with pytest.raises(UnfinishedRunError):
        export(run, source, tmp_path / "out")


def test_a_key_cannot_lead_out_of_the_destination(tmp_path, safe, monkeypatch) -> None:
    rows = {"key": ["../../escaped", "/absolute", "a/./b"], "image": pa.array([IMAGES["china.jpg"]] * 3, pa.binary())}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    source = open_source(tmp_path / "p.parquet")
    run = scan(
        source,
        tmp_path / "run",
        SafetyFilter(safe.encoder, safe.probes, Policy(thresholds={"explicit": 1, "minor": 1})),
    )
    export(run, source, tmp_path / "out" / "deep", format="folder")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")) == [
        "deep/a/b.jpg",
        "deep/absolute.jpg",
        "deep/escaped.jpg",
    ]
