"""Loaders whose run is decided anew while they are open: they say so, and go on with nothing that is out of date."""

import pickle
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import pytest
import webdataset
from torch.utils.data import DataLoader

from safetyfilter import Policy, apply_policy
from safetyfilter.errors import RunError
from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from tests.loaders.training import FolderPictures, Pictures, Stream, all_of

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves tars open


def mapped(pictures: Pictures, run: Path) -> Iterable:
    return SafeDataset(FolderPictures(pictures.folder, pictures.keys), run, keys=pictures.keys)


def mapped_one_by_one(pictures: Pictures, run: Path) -> Iterable:
    paths = [pictures.folder / key for key in pictures.keys]
    data = FolderPictures(pictures.folder, pictures.keys)
    return SafeDataset(data, run, keys=pictures.keys, images=paths, verify_content="access")


def iterable(pictures: Pictures, run: Path) -> Iterable:
    return SafeIterable(Stream(pictures.folder, pictures.keys), run, key="key")


def tars(pictures: Pictures, run: Path) -> Iterable:
    urls = [str(path) for path in sorted(pictures.tars.rglob("*.tar"))]
    return webdataset.WebDataset(urls, shardshuffle=False).compose(safety_filter(run, root=pictures.tars))


def streamed_rows(pictures: Pictures, run: Path) -> Iterable:
    stream = datasets.load_from_disk(pictures.saved).to_iterable_dataset(num_shards=2)
    return filter_dataset(stream, run, key="name").select_columns(["name"])


def stored_rows(pictures: Pictures, run: Path) -> Iterable:
    return filter_dataset(datasets.load_from_disk(pictures.saved), run, key="name").select_columns(["name"])


def shuffled_rows(pictures: Pictures, run: Path) -> Iterable:
    return stored_rows(pictures, run).shuffle(seed=1).with_format("numpy")


def rows_as_a_stream(pictures: Pictures, run: Path) -> Iterable:
    return stored_rows(pictures, run).to_iterable_dataset(num_shards=2)


LOADERS = [mapped, mapped_one_by_one, iterable, tars, streamed_rows, stored_rows, shuffled_rows, rows_as_a_stream]


@pytest.fixture
def run_for(pictures: Pictures, tmp_path: Path) -> Callable[[Callable], Run]:
    """A run of the pictures that may be decided anew, for a kind of loader."""

    def made(load: Callable) -> Run:
        original = pictures.tars_run if load is tars else pictures.folder_run
        shutil.copytree(original, tmp_path / "run")
        shutil.copy(original.with_name(f"{original.name}.secret"), tmp_path / "run.secret")
        return Run.open(tmp_path / "run")

    return made


def decide_anew(run: Run, threshold: float = 0.5) -> None:
    apply_policy(run, Policy(thresholds={"explicit": threshold, "minor": 0.25}))


def itself(batch: object) -> object:
    return batch


@pytest.mark.parametrize("load", LOADERS)
def test_the_next_epoch_is_an_error(pictures: Pictures, run_for, load) -> None:
    run = run_for(load)
    data = load(pictures, run.path)
    assert len(list(data)) == len(list(data)) == pictures.keep.sum()
    apply_policy(run, run.policy)  # the same decisions again
    assert len(list(data)) == pictures.keep.sum()
    decide_anew(run)
    with pytest.raises(RunError, match="make the loader again"):
        list(data)
    assert list(load(pictures, run.path))


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("persistent", [False, True])
def test_the_next_epoch_is_an_error_in_workers_too(pictures: Pictures, run_for, load, persistent: bool) -> None:
    run = run_for(load)
    loader = DataLoader(
        load(pictures, run.path), batch_size=None, num_workers=2, persistent_workers=persistent, collate_fn=itself
    )
    for _ in range(2):
        assert len(list(loader)) == pictures.keep.sum()
    decide_anew(run)
    with pytest.raises(RunError, match="make the loader again"):
        all_of(loader)


def test_a_loader_that_is_being_read(pictures: Pictures, run_for) -> None:
    run = run_for(mapped)
    data = mapped(pictures, run.path)
    samples = iter(SafeIterable(Stream(pictures.folder, pictures.keys * 2), run.path, key="key"))
    assert data[0] is not None
    next(samples)
    decide_anew(run)
    with pytest.raises(RunError, match="make the loader again"):
        data.__getitems__([0, 1])
    with pytest.raises(RunError, match="make the loader again"):
        list(samples)


def test_rows_that_a_run_keeps_are_a_data_set_like_any_other(pictures: Pictures, run_for, tmp_path) -> None:
    run = run_for(stored_rows)
    rows = stored_rows(pictures, run.path)
    assert isinstance(rows, datasets.Dataset)
    mapped = rows.map(lambda row: {"name": row["name"].upper()})
    rows.save_to_disk(tmp_path / "kept")
    copied = pickle.loads(pickle.dumps(rows))
    for kept in (datasets.load_from_disk(tmp_path / "kept"), copied, datasets.concatenate_datasets([rows])):
        assert kept["name"][:] == rows["name"][:]
    decide_anew(run)
    with pytest.raises(RunError, match="make the loader again"):
        rows[0]
    with pytest.raises(RunError, match="make the loader again"):
        copied["name"][:]
    assert mapped[0]["name"].endswith(".JPG")  # a data set of its own


WRITTEN = ("to_parquet", "to_csv", "to_json", "save_to_disk")
MADE = {
    "itself": lambda rows: rows,
    "add_column": lambda rows: rows.add_column("n", list(range(len(rows)))),
    "add_item": lambda rows: rows.add_item({"name": "one more"}),
    "align_labels_with_mapping": lambda rows: rows.class_encode_column("name").align_labels_with_mapping(
        {name: number for number, name in enumerate(rows["name"][:])}, "name"
    ),
    "batch": lambda rows: rows.batch(4),
    "cast": lambda rows: rows.cast(datasets.Features({"name": datasets.Value("large_string")})),
    "cast_column": lambda rows: rows.cast_column("name", datasets.Value("large_string")),
    "class_encode_column": lambda rows: rows.class_encode_column("name"),
    "filter": lambda rows: rows.filter(lambda row: True),
    "flatten": lambda rows: rows.flatten(),
    "flatten_indices": lambda rows: rows.shuffle(seed=1).flatten_indices(),
    "rename_column": lambda rows: rows.rename_column("name", "other"),
    "repeat": lambda rows: rows.repeat(2),
    "shard": lambda rows: rows.shard(2, 0),
    "skip": lambda rows: rows.skip(1),
    "sort": lambda rows: rows.sort("name"),
    "take": lambda rows: rows.take(3),
    "train_test_split": lambda rows: rows.train_test_split(0.3, seed=1)["train"],
    "with_transform": lambda rows: rows.with_transform(itself),
}
"""Views of a data set, by the method that makes them."""


@pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")  # datasets' own call of pyarrow
@pytest.mark.parametrize("made", MADE)
def test_no_view_of_the_rows_is_read(pictures: Pictures, run_for, made: str) -> None:
    run = run_for(stored_rows)
    rows = MADE[made](stored_rows(pictures, run.path))
    column = rows.column_names[0]
    count = len(rows[column][:])
    assert len(rows.to_dict()[column]) == len(list(rows)) == len(rows.to_list()) == len(rows) == count > 0
    decide_anew(run)
    reads = [lambda: rows[0], lambda: rows[column][:], lambda: list(rows), lambda: list(rows.iter(2)), rows.to_dict]
    for read in (*reads, rows.to_list, rows.to_pandas, lambda: rows.data, lambda: rows.unique(column)):
        with pytest.raises(RunError, match="make the loader again"):
            read()
    assert len(rows) == count
    assert repr(rows)


@pytest.mark.parametrize("written", WRITTEN)
def test_rows_are_not_written_either(pictures: Pictures, run_for, tmp_path, written: str) -> None:
    run = run_for(stored_rows)
    rows = stored_rows(pictures, run.path)
    decide_anew(run)
    with pytest.raises(RunError, match="make the loader again"):
        getattr(rows, written)(str(tmp_path / "written"))


@pytest.mark.parametrize("join", [datasets.concatenate_datasets, datasets.interleave_datasets])
def test_rows_are_not_joined_with_others(pictures: Pictures, run_for, join: Callable) -> None:
    run = run_for(stored_rows)
    rows = stored_rows(pictures, run.path)
    assert len(join([rows, rows])) == 2 * len(rows)
    decide_anew(run)
    with pytest.raises(RunError, match="make the loader again"):
        join([rows, rows])


def test_decisions_opened_before_and_copies_made_after(pictures: Pictures, run_for) -> None:
    run = run_for(iterable)
    decisions = Decisions.of(run)
    pickled = pickle.dumps(iterable(pictures, run.path))
    decide_anew(run)
    for make in (lambda: iterable(pictures, decisions), lambda: list(pickle.loads(pickled))):
        with pytest.raises(RunError, match="make the loader again"):
            make()
