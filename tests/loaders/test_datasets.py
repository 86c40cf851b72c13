"""Training from Hugging Face data sets: no co-occurring picture ever reaches the model."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from safetyfilter import Policy, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.embed.pipeline import EmbeddingPipeline
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders import datasets_stored
from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.runs.run import Run
from tests.loaders.training import (
    BY_AND_WORKERS,
    Diffusion,
    Pictures,
    check,
    decode_rows,
    decoded,
    only_images,
    pixels,
    seen,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers on a small machine


@pytest.fixture
def saved(pictures: Pictures) -> datasets.Dataset:
    return datasets.load_from_disk(pictures.saved)


def stored(rows) -> list[dict]:
    """The rows with their images as the bytes they are stored as."""
    return list(rows.cast_column("image", datasets.Image(decode=False)))


@pytest.mark.parametrize(
    ("by", "workers"), [("numbers", 0), ("numbers", 4), ("column", 2), ("filter", 0), ("filter", 2)]
)
def test_training_two_epochs_shuffled(pictures: Pictures, saved, catching, workers: int, by: str) -> None:
    if by == "filter":
        safe = filter_dataset(saved, catching, image_column="image")
    elif by == "column":  # the folder's keys are in the column `name`
        safe = filter_dataset(saved, pictures.folder_run, key="name", verify_content=True)
    else:
        safe = filter_dataset(saved, pictures.saved_run)
    loader = DataLoader(
        safe.with_transform(decoded, columns=["image"]),
        batch_size=7,
        shuffle=True,
        num_workers=workers,
        collate_fn=only_images,
        persistent_workers=workers == 2,
    )
    model = Diffusion()
    for _ in range(2):
        train(loader, model)
    report = safe.filter_report()
    assert (report["seen"], report["kept"], report["unscored"]) == (len(saved), len(safe), 2)
    if by == "filter":
        assert not [number for number in seen(model, pictures) if not pictures.keep[number]]
    else:
        check(model, pictures, epochs=2)


@pytest.mark.parametrize(("by", "workers"), BY_AND_WORKERS)
def test_training_from_a_stream(pictures: Pictures, saved, catching, workers: int, by: str) -> None:
    stream = saved.to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=10)
    if by == "filter":
        safe = filter_dataset(stream, catching, batch_size=10)
    else:
        safe = filter_dataset(stream, pictures.folder_run, key="name", verify_content=by == "content", batch_size=10)
    assert safe.features == stream.features
    loader = DataLoader(
        safe.map(decode_rows, batched=True, batch_size=8, remove_columns=["name"]),
        batch_size=7,
        num_workers=workers,
        collate_fn=only_images,
    )
    model = Diffusion()
    for epoch in range(2):
        safe.set_epoch(epoch)
        train(loader, model)
    assert safe.filter_report()["seen"] == 2 * len(saved)
    assert safe.filter_report()["kept"] == len(model.seen)
    if by == "filter":
        assert not [number for number in seen(model, pictures) if not pictures.keep[number]]
    else:
        check(model, pictures, epochs=2)


def test_rows_columns_features_and_bytes_stay(pictures: Pictures, saved) -> None:
    safe = filter_dataset(saved.with_format("torch", columns=["name"]), pictures.saved_run)
    assert safe.features == saved.features
    assert safe.format["type"] == "torch"
    kept = np.flatnonzero(pictures.keep)
    assert stored(safe.with_format(None)) == stored(saved.select(kept))
    stream = filter_dataset(saved.to_iterable_dataset(), pictures.folder_run, key="name")
    assert stored(stream) == stored(saved.select(kept))
    assert next(iter(stream))["image"].size == (64, 64)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_processes(pictures: Pictures, saved, num_proc) -> None:
    safe = filter_dataset(saved, pictures.saved_run, num_proc=num_proc, batch_size=7)
    assert safe["name"][:] == [key for key, keep in zip(pictures.keys, pictures.keep, strict=True) if keep]


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_filter_has_one_pipeline_for_all_rows(pictures: Pictures, saved, catching, monkeypatch, num_proc) -> None:
    opened, run = [], EmbeddingPipeline.run
    monkeypatch.setattr(EmbeddingPipeline, "run", lambda self, *given: opened.append(1) or run(self, *given))
    safe = filter_dataset(saved.select(range(len(saved))), catching, num_proc=num_proc, batch_size=7)
    assert len(opened) == (1 if num_proc is None else 0)  # or those are in other processes
    alone = catching([pictures.content(number) for number in range(len(saved))])
    assert safe["name"][:] == [key for key, keep in zip(pictures.keys, alone.keep.tolist(), strict=True) if keep]
    with pytest.raises(UsageError, match="leave it out"):
        filter_dataset(saved, catching, verify_content=True)


def test_large_rows_are_read_few_at_a_time(pictures: Pictures, saved, monkeypatch) -> None:
    read, columns_of = [], datasets_stored.columns_of

    def watched(table: pa.Table) -> dict[str, list]:
        read.append((len(table), table.nbytes))
        return columns_of(table)

    monkeypatch.setattr(datasets_stored, "columns_of", watched)
    for limit in (64 << 20, 8000):
        monkeypatch.setattr(datasets_stored, "BATCH_BYTES", limit)
        read.clear()
        assert len(filter_dataset(saved, pictures.saved_run)) == pictures.keep.sum()
        assert sum(rows for rows, _ in read) == len(saved)
        assert (max(size for _, size in read) < 3 * 8000) == (limit == 8000)


def test_nothing_is_cached_and_another_policy_is_felt(pictures: Pictures, saved, online, tmp_path) -> None:
    run = scan(open_source(pictures.saved), tmp_path / "run", online)
    lengths, names = [], []
    for threshold in (0, 1, 1):
        apply_policy(run, Policy(thresholds={"explicit": threshold, "minor": threshold}))
        safe = filter_dataset(saved, Run.open(tmp_path / "run"))
        lengths.append((len(safe), safe.filter_report()["kept"]))
        names.append(safe._fingerprint)
    kept = Run.open(tmp_path / "run").counts["kept"]
    assert lengths == [(0, 0), (kept, kept), (kept, kept)]
    assert kept > 0
    assert not list(pictures.saved.glob("cache-*"))
    assert names[0] != names[1] == names[2]  # under which datasets caches what is derived from it


@pytest.fixture
def listed(pictures: Pictures, tmp_path) -> datasets.Dataset:
    """Rows that name files, of a CSV file: what they name may change, and their own fingerprint doesn't."""
    (tmp_path / "images").mkdir()
    for key in pictures.keys:
        (tmp_path / "images" / key).write_bytes((pictures.folder / key).read_bytes())
    paths = "\n".join(str(tmp_path / "images" / key) for key in pictures.keys)
    (tmp_path / "list.csv").write_text(f"image\n{paths}\n")
    rows = datasets.load_dataset("csv", data_files=str(tmp_path / "list.csv"), split="train", cache_dir=tmp_path / "c")
    return rows.cast_column("image", datasets.Image())


@pytest.mark.parametrize("by", ["run", "run, each compared", "filter"])
def test_files_that_changed_are_looked_at_again(pictures: Pictures, listed, catching, tmp_path, by: str) -> None:
    decides = catching if by == "filter" else scan(open_source(listed), tmp_path / "run", catching)
    verify = True if by == "run, each compared" else None
    before = filter_dataset(listed, decides, verify_content=verify)
    pairs = [number for number in range(len(listed)) if pictures.both[number] and not pictures.damaged[number]]
    kept = [row["image"]["path"] for row in stored(before)]
    for path, pair in zip(kept[:3], pairs, strict=False):
        Path(path).write_bytes(pictures.content(pair))
    after = filter_dataset(listed, decides, verify_content=verify)
    assert [row["image"]["path"] for row in stored(after)] == kept[3:]
    assert after.filter_report()["kept"] == before.filter_report()["kept"] - 3
    assert after._fingerprint != before._fingerprint


def test_a_shuffled_data_set_is_not_taken_for_the_scanned_one(pictures: Pictures, saved) -> None:
    shuffled = saved.shuffle(seed=0)
    with pytest.raises(RunError, match="filter the data set before it is shuffled"):
        filter_dataset(shuffled, pictures.saved_run)
    turned = saved.select([*reversed(range(30)), *range(30, len(saved))])
    safe = filter_dataset(turned, pictures.saved_run)
    names = {key for key, keep in zip(pictures.keys, pictures.keep, strict=True) if keep}
    assert set(safe["name"]) <= names
    assert safe.filter_report()["drifted"] == 30
    with pytest.raises(UsageError, match="row numbers are not keys"):
        filter_dataset(shuffled, pictures.saved_run, verify_content=False)


def test_another_source_with_the_same_names_is_an_error(pictures: Pictures, saved) -> None:
    names = [*saved["name"]]
    shifted = saved.remove_columns("name").add_column("name", [*names[7:], *names[:7]])
    for key in ("name", lambda row: row["name"]):
        with pytest.raises(RunError, match="are not those that the run"):
            filter_dataset(shifted, pictures.folder_run, key=key)
    with pytest.raises(RunError, match="are not those that the run"):
        list(filter_dataset(shifted.to_iterable_dataset(), pictures.folder_run, key="name"))
    passed, stream = [], shifted.to_iterable_dataset().cast_column("image", datasets.Image(decode=False))
    with pytest.raises(RunError, match="are not those that the run"):
        passed.extend(filter_dataset(stream, pictures.folder_run, key="name", batch_size=2))
    assert passed == []
    no_images = saved.remove_columns("image")
    assert len(filter_dataset(no_images, pictures.folder_run, key="name")) == pictures.keep.sum()


def test_one_drifted_image_is_no_other_source_however_small_the_batches(pictures: Pictures, saved) -> None:
    rows = stored(saved)
    first = int(np.flatnonzero(pictures.keep)[0])
    rows[first]["image"]["bytes"] += b"\0"
    drifted = datasets.Dataset.from_list(rows[first:], features=saved.features).to_iterable_dataset()
    safe = filter_dataset(drifted, pictures.folder_run, key="name", batch_size=1)
    assert len(list(safe)) == pictures.keep.sum() - 1
    assert safe.filter_report()["drifted"] == 1


def test_splits(pictures: Pictures, saved, online, tmp_path) -> None:
    splits = datasets.DatasetDict({"train": saved.select(range(60)), "test": saved.select(range(60, 96))})
    splits.save_to_disk(tmp_path / "splits")
    run = scan(
        open_source(tmp_path / "splits"),
        tmp_path / "run",
        online.with_policy(Policy(thresholds={"explicit": 1, "minor": 1})),
    )
    safe = filter_dataset(datasets.load_from_disk(tmp_path / "splits"), run)
    assert isinstance(safe, datasets.DatasetDict)
    report, counts = safe.filter_report(), run.counts
    assert all(0 < len(split) < len(splits[name]) for name, split in safe.items())
    assert sum(len(split) for split in safe.values()) == counts["kept"]
    assert (report["seen"], report["unscored"]) == (96, 2)
    assert (report["kept"], report["excluded"]) == (counts["kept"], counts["excluded"])
    streams = datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    safe = filter_dataset(streams, pictures.folder_run, key="name")
    assert isinstance(safe, datasets.IterableDatasetDict)
    names = [row["name"] for split in safe.values() for row in split.cast_column("image", datasets.Image(decode=False))]
    assert names == [key for key, keep in zip(pictures.keys, pictures.keep, strict=True) if keep]
    assert safe.filter_report()["seen"] == 96


@pytest.fixture(scope="module")
def split_run(pictures: Pictures, catching, tmp_path_factory) -> tuple[Path, Run]:
    """A data set saved with two splits that know their names, and a run of both."""
    rows = stored(datasets.load_from_disk(pictures.saved))
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")})
    splits = {
        name: datasets.Dataset.from_list(rows[start:stop], features=features, split=name)
        for name, start, stop in (("train", 0, 60), ("test", 60, 96))
    }
    place = tmp_path_factory.mktemp("splits")
    datasets.DatasetDict(splits).save_to_disk(place / "saved")
    return place / "saved", scan(open_source(place / "saved"), place / "run", catching)


@pytest.mark.parametrize("named", [False, True])
def test_one_split_of_a_data_set_that_was_scanned_as_a_whole(pictures: Pictures, split_run, named: bool) -> None:
    place, run = split_run
    whole = filter_dataset(datasets.load_from_disk(place), run)
    for name, split in datasets.load_from_disk(place).items():
        assert str(split.split) == name
        if named:
            split._split = None  # as of one that was made from others
            with pytest.raises(RunError, match="split="):
                filter_dataset(split, run)
        safe = filter_dataset(split, run, split=name if named else None)
        assert list(safe["name"]) == list(whole[name]["name"])
        assert 0 < len(safe) < len(split)
        assert safe.filter_report()["drifted"] == 0
    half = datasets.load_from_disk(place)["train"]
    half._split = datasets.NamedSplit("train[:50%]")
    assert list(filter_dataset(half, run)["name"]) == list(whole["train"]["name"])


def test_a_split_is_never_matched_by_the_numbers_of_other_rows(pictures: Pictures, split_run, saved) -> None:
    place, run = split_run
    train, test = datasets.load_from_disk(place).values()
    for rows, name in ((test, "train"), (train, "test")):
        with pytest.raises(RunError, match=r"are not those that the run scanned|not one of the first"):
            filter_dataset(rows, run, split=name)
    with pytest.raises(RunError, match=r"knows none.* no row of a split 'trian'; splits there are train, test") as told:
        filter_dataset(train, run, split="trian")
    assert "name it with split=" not in str(told.value)
    with pytest.raises(RunError, match=r"are not those that the run scanned|not one of the first"):
        filter_dataset(test, pictures.saved_run)  # whose numbers are those of all rows
    assert len(filter_dataset(train, pictures.saved_run)) == pictures.keep[:60].sum()  # which begin with these


def test_a_function_of_the_row(pictures: Pictures, saved) -> None:
    renamed = saved.rename_column("name", "file").map(lambda row: {"file": f"dir/{row['file']}"})
    safe = filter_dataset(renamed, pictures.folder_run, key=lambda row: row["file"].removeprefix("dir/"))
    assert len(safe) == pictures.keep.sum()
    broken = filter_dataset(
        renamed,
        pictures.folder_run,
        key=lambda row: row["file"][4:] if row["file"] != "dir/000.jpg" else row["nothing"],
    )
    assert broken.filter_report()["unknown"] == 1


def test_a_stream_can_be_resumed(pictures: Pictures, saved) -> None:
    safe = filter_dataset(saved.to_iterable_dataset(num_shards=2), pictures.folder_run, key="name", batch_size=8)
    raw = safe.cast_column("image", datasets.Image(decode=False))
    names = [row["name"] for row in raw]
    first = []
    for row in raw:
        first.append(row)
        if len(first) == 10:
            state = raw.state_dict()
            break
    raw.load_state_dict(state)
    rest = list(raw)
    assert [row["name"] for row in first + rest] == names
    batches = (torch.stack([pixels(row["image"]["bytes"]) for row in rows]) for rows in (first, rest))
    check(train(batches), pictures)


def test_bad_input(pictures: Pictures, saved, online, tmp_path, catching: SafetyFilter) -> None:
    with pytest.raises(RunError, match="knows none of the first 96 samples"):
        filter_dataset(saved, pictures.tars_run)
    with pytest.raises(UsageError, match="streaming data set has no row numbers"):
        filter_dataset(saved.to_iterable_dataset(), pictures.saved_run)
    with pytest.raises(UsageError, match="a list is not a data set"):
        filter_dataset([], pictures.saved_run)
    stream = datasets.Dataset.from_dict({"name": [str(number) for number in range(1500)]}).to_iterable_dataset()
    with pytest.raises(RunError, match="knows none of the first"):
        list(filter_dataset(stream, pictures.folder_run, key="name"))
    rows = {"image": [None, {"bytes": b"no", "path": None}, {"bytes": pictures.content(0), "path": None}]}
    broken = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))
    lenient = catching.with_policy(Policy(thresholds={"explicit": 1, "minor": 1}))
    assert filter_dataset(broken, lenient).filter_report()["unscored"] == 2
    empty = saved.select([])
    assert len(filter_dataset(empty, pictures.saved_run)) == 0
