"""Sources made of others: several as one, and the first samples of one."""

import pickle
from pathlib import Path

import pytest

from safetyfilter.errors import SourceNotFoundError, UsageError
from safetyfilter.sources import Source, open_source
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT, keys_of, samples_of, states_of
from tests.writers import WRITERS, data_set_of, write_folder, write_parquet, write_tars


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """One source of each kind, each under another name."""
    return [WRITERS[kind](tmp_path / f"{kind}-source", IMAGES, CAPTIONS) for kind in WRITERS]


def both(source: Source) -> tuple[list[tuple[str, bytes, str | None]], ...]:
    """Samples of a scan, and those of an export."""
    scanned = samples_of(source, captions=True)
    exported = [sample for part in source.parts() for batch in source.batches(part) for sample in batch.samples]
    return tuple([(s.key, s.read(LIMIT), s.caption) for s in samples] for samples in (scanned, exported))


def test_several_sources_are_one(places: list[Path]) -> None:
    source = open_source(places)
    scanned, exported = both(source)
    assert scanned == exported
    expected = [
        (f"{place.name}/{sample.key}", sample.read(LIMIT), sample.caption)
        for place in places
        for sample in samples_of(open_source(place), captions=True)
    ]
    assert scanned == expected
    assert [part.index for part in source.parts()] == list(range(len(source.parts())))
    assert all(part.count in (None, len(list(source.samples(part)))) for part in source.parts())
    assert (source.kind, source.form) == ("several kinds", "parquet")
    assert all(str(place) in source.location for place in places)
    assert [extent.place.path for extent in source.extents] == list(map(str, places))
    sent = pickle.loads(pickle.dumps(source))
    assert both(sent) == (scanned, exported)
    assert states_of(sent) == states_of(source) == states_of(open_source(tuple(places)))


def test_shards_lie_under_the_name_of_their_source(tmp_path: Path) -> None:
    places = [write_tars(tmp_path / name / "shards", IMAGES) for name in ("a", "b")]
    source = open_source(places)
    assert (source.kind, source.form) == ("webdataset", "webdataset")
    assert {sample.shard for sample in samples_of(source)} == {
        f"{s}/{n}.tar" for s in ("shards", "shards-2") for n in (0, 1)
    }
    assert keys_of(source)[0] == "shards/0.tar/000"
    assert all(sample.key.startswith(f"{sample.shard}/") for sample in samples_of(source))


def test_names_are_all_different(tmp_path: Path) -> None:
    for name in ("x/same", "y/same", "z/same-2"):
        write_folder(tmp_path / name, {"a.jpg": b"x"})
    places = [tmp_path / name for name in ("z/same-2", "x/same", "y/same")]
    assert keys_of(open_source(places)) == ["same-2/a.jpg", "same/a.jpg", "same-3/a.jpg"]
    assert keys_of(open_source([f"{tmp_path}/x/*/*.jpg", data_set_of({"a": b"x"})])) == ["x/same/a.jpg", "memory/0"]


def test_one_source_in_a_list_is_named_too(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "pictures", {"a.jpg": b"x"})
    assert keys_of(open_source([place])) == ["pictures/a.jpg"]


def test_what_is_wrong_with_a_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source in the list"):
        open_source([])
    with pytest.raises(SourceNotFoundError, match="no source at"):
        open_source([write_folder(tmp_path / "a", {"a.jpg": b"x"}), tmp_path / "none"])


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("limit", [1, 7, 10, 14, 15, 100])
def test_the_first_samples_of_a_source(tmp_path: Path, kind: str, limit: int) -> None:
    place = WRITERS[kind](tmp_path / "source", IMAGES, CAPTIONS)
    whole, source = open_source(place, part_size=5), open_source(place, part_size=5, limit=limit)
    scanned, exported = both(source)
    assert scanned == exported == both(whole)[0][:limit]
    uncut = [part for part in source.parts() if part in whole.parts()]
    assert len(source.parts()) - len(uncut) == (0 if limit >= 15 else int(uncut[-1:] != source.parts()[-1:]))
    assert both(pickle.loads(pickle.dumps(source)))[0] == scanned
    rows = [batch.rows for part in source.parts() for batch in source.batches(part) if batch.rows is not None]
    assert sum(map(len, rows)) == (min(limit, 15) if kind in ("parquet", "datasets") else 0)


def test_a_part_that_is_cut_says_so(tmp_path: Path) -> None:
    place = write_parquet(tmp_path / "source", IMAGES)
    states = [states_of(open_source(place, limit=limit)) for limit in (3, 4, None)]
    assert len({tuple(state) for state in states}) == 3


def test_a_limit_goes_over_all_sources(tmp_path: Path) -> None:
    places = [write_folder(tmp_path / name, {"1.jpg": b"x", "2.jpg": b"y"}) for name in "ab"]
    assert keys_of(open_source(places, limit=3)) == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]


def test_no_sample_is_no_trial(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one sample, not 0"):
        open_source(write_folder(tmp_path / "a", {"a.jpg": b"x"}), limit=0)
