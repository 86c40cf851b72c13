"""Loaders that hold the decisions of the shards that they are in: the same samples as by the decisions of the whole."""

from __future__ import annotations

import itertools
import logging
import pickle
import shutil
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from torch.utils.data import DataLoader

from safetyfilter import Policy, Run, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.batches import Reason
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access, getter_of
from safetyfilter.loaders.deciders import decider_of
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from safetyfilter.runs import index_place
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.sharded import ShardedDecisions
from tests.forking import forkserver
from tests.loaders.training import Pictures, check, expected_report, holds, stack, train
from tests.writers import table_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # four workers on a small machine
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset leaves its tars to the collector
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


def one_by_one(batch: object) -> object:
    return batch


def encoded(sample) -> bytes:
    return sample.read(1 << 30)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("verify", [False, True])
def test_training_from_tars(pictures: Pictures, workers: int, verify: bool) -> None:
    stage = safety_filter(pictures.tars_run, root=pictures.tars, per_shard=True, verify_content=verify)
    urls = [str(path) for path in sorted(pictures.tars.rglob("*.tar"))]
    data = webdataset.WebDataset(urls, shardshuffle=4, seed=2).compose(stage).shuffle(20)
    batches = DataLoader(data, batch_size=7, num_workers=workers, collate_fn=stack, persistent_workers=workers == 2)
    model = None
    for _ in range(2):
        model = train(batches, model)
    assert model is not None
    check(model, pictures, epochs=2)
    assert holds(stage.filter_report(), expected_report(pictures, 2))


@pytest.mark.parametrize("kind", ["folder", "tars"])
@pytest.mark.parametrize("start", [get_context("fork"), forkserver()], ids=["fork", "pickled"])
def test_training_from_a_source(pictures: Pictures, kind: str, start: BaseContext) -> None:
    source = open_source(getattr(pictures, kind), part_size=24)
    safe = SafeIterable(source, getattr(pictures, f"{kind}_run"), per_shard=True)
    loader = DataLoader(safe, batch_size=None, num_workers=2, multiprocessing_context=start, collate_fn=one_by_one)
    keys = [sample.key for sample in loader]
    whole = SafeIterable(source, getattr(pictures, f"{kind}_run"), key="key", per_shard=False)
    assert sorted(keys) == sorted(sample.key for sample in whole)
    assert len(keys) == pictures.keep.sum()
    assert safe.filter_report() == whole.filter_report()


def test_a_pass_holds_the_part_that_it_is_in(pictures: Pictures) -> None:
    decisions = ShardedDecisions.of(Run.open(pictures.tars_run))
    safe = SafeIterable(open_source(pictures.tars, part_size=24), decisions, key="key")
    whole = Decisions.of(Run.open(pictures.tars_run)).index.nbytes
    for _ in itertools_first(safe, 5):
        pass
    assert 0 < decisions.held_bytes() <= whole
    assert len(decisions._held) == 1


def itertools_first(samples, count: int):
    return zip(samples, range(count), strict=False)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, online: SafetyFilter, pictures: Pictures):
    """Parquet files with a column of keys that do not name the file, and their run."""
    place = tmp_path_factory.mktemp("tables")
    files = {key: pictures.content(number) for number, key in enumerate(pictures.keys)}
    table = table_of(files).append_column("key", pa.array(list(files)))
    (place / "rows" / "deep").mkdir(parents=True)
    for number in range(4):
        pq.write_table(table.slice(24 * number, 24), place / "rows" / "deep" / f"{number}.parquet")
    source = open_source(place / "rows", part_size=24)
    return place / "rows", scan(source, place / "run", online)


class Rows:
    """Rows of Parquet files, each with the path of its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self):
        for path in sorted(self.folder.rglob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                yield {"key": row["key"], "file": str(path)}


@pytest.mark.parametrize("where", ["file", Path, "copied"])
def test_rows_whose_keys_do_not_tell_their_file(tables, tmp_path: Path, where) -> None:
    folder, run = tables
    if where == "copied":  # another root, and the last names are the same
        shutil.copytree(folder, tmp_path / "elsewhere" / "rows")
        folder = tmp_path / "elsewhere" / "rows"
    shard_of = (lambda row: Path(row["file"])) if where is Path else "file"
    safe = SafeIterable(Rows(folder), run, key="key", per_shard=True, shard_of=shard_of)
    whole = SafeIterable(Rows(folder), run, key="key", per_shard=False, shard_of="file")
    assert [row["key"] for row in safe] == [row["key"] for row in whole]
    assert safe.filter_report() == whole.filter_report()
    assert 0 < safe.filter_report()["kept"] < 96


def test_a_row_that_is_said_to_be_of_another_file_is_unknown(tables) -> None:
    folder, run = tables
    rows = [{**row, "file": "deep/0.parquet"} for row in Rows(folder)]
    safe = SafeIterable(rows, run, key="key", per_shard=True, shard_of="file")
    kept = [row["key"] for row in safe]
    assert safe.filter_report()["unknown"] == 72
    assert kept == [row["key"] for row in SafeIterable(rows[:24], run, key="key")]
    nameless = SafeIterable([*rows[:24], {"key": rows[0]["key"]}], run, key="key", per_shard=True, shard_of="file")
    assert [row["key"] for row in nameless] == kept
    assert nameless.filter_report()["unknown"] == 1


def test_keys_that_do_not_tell_the_shard_are_an_error_with_the_remedy(tables) -> None:
    folder, run = tables
    with pytest.raises(UsageError, match="shard_of="):
        SafeIterable(Rows(folder), run, key="key", per_shard=True)
    with pytest.raises(UsageError, match="per_shard is 'always'"):
        SafeIterable(Rows(folder), run, key="key", per_shard="always")


def test_by_itself_where_memory_does_not_hold_the_whole(
    pictures: Pictures, tables, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def made(run, **options) -> object:
        return decider_of(run, per_shard="auto", **options)._decisions

    assert isinstance(made(pictures.tars_run), Decisions)
    monkeypatch.setattr(index_place, "memory_bytes", lambda: 1000)
    assert isinstance(made(pictures.tars_run), ShardedDecisions)
    assert isinstance(made(tables[1], shards_named=True), ShardedDecisions)
    with caplog.at_level(logging.WARNING):
        assert isinstance(made(tables[1]), Decisions)
        assert isinstance(made(pictures.saved_run), Decisions)
    assert [("shard_of=" in text, "does not know from which shards" in text) for text in caplog.messages] == [
        (True, False),
        (False, True),
    ]
    stage = safety_filter(pictures.tars_run, root=pictures.tars)
    urls = [str(path) for path in sorted(pictures.tars.rglob("*.tar"))]
    assert len(list(webdataset.WebDataset(urls, shardshuffle=False) | stage)) == pictures.keep.sum()
    safe = SafeDataset(list(range(96)), ShardedDecisions.of(Run.open(pictures.folder_run)), keys=pictures.keys)
    np.testing.assert_array_equal(list(safe), np.flatnonzero(pictures.keep))


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_both_deciders_give_the_same_reasons_for_all_samples(pictures: Pictures, kind: str) -> None:
    source = open_source(getattr(pictures, kind), part_size=24)
    samples = [sample for part in source.parts() for sample in source.samples(part)]
    samples += [*samples[:3], *(type(samples[0])(key=key, image=b"x") for key in ("", "no", "deep/0.tar", "a/b#1"))]
    samples.append(type(samples[0])(key=samples[5].key, image=b"changed"))
    access = Access(key=getter_of("key"), image=encoded)
    reasons = []
    for per_shard in (True, False):
        for verify in (True, False):
            decider = decider_of(getattr(pictures, f"{kind}_run"), per_shard=per_shard, verify=verify)
            reasons.append([found for _, found in pickle.loads(pickle.dumps(decider)).stream(samples, access)])
            reasons.append(np.concatenate([found.reason_bits for found in decider.decide(samples, access)]).tolist())
    assert reasons[0] == reasons[1] == reasons[4] == reasons[5]
    assert reasons[2] == reasons[6]
    assert reasons[3] == reasons[7]
    assert reasons[0][-1] & Reason.DRIFTED


def test_the_next_epoch_is_an_error_where_the_run_was_decided_anew(pictures: Pictures, tmp_path: Path) -> None:
    shutil.copytree(pictures.tars_run, tmp_path / "run")
    shutil.copy(pictures.tars_run.with_name("tars-run.secret"), tmp_path / "run.secret")
    source = open_source(pictures.tars)
    safe = SafeIterable(source, tmp_path / "run", key="key", per_shard=True)
    loader = DataLoader(safe, batch_size=None, num_workers=2, persistent_workers=True, collate_fn=one_by_one)
    for _ in range(2):
        assert len(list(loader)) == pictures.keep.sum()
    apply_policy(Run.open(tmp_path / "run"), Policy(thresholds={"explicit": 0.5, "minor": 0.25}))
    for samples in (safe, loader):
        with pytest.raises(RunError, match="make the loader again"):
            list(samples)


@pytest.mark.parametrize("shard", [True, False, "auto"])
def test_a_source_is_shared_out_once(pictures: Pictures, shard) -> None:
    source = open_source(pictures.tars, part_size=24)
    passes = [
        [sample.key for sample in SafeIterable(source, pictures.tars_run, shard=shard, rank=rank, world_size=3)]
        for rank in range(3)
    ]
    keys = [sample.key for sample in SafeIterable(source, pictures.tars_run)]
    assert len(keys) == pictures.keep.sum()
    assert list(itertools.chain(*passes)) == keys * 3 if shard is False else sorted(itertools.chain(*passes)) == keys
