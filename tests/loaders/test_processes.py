"""Loaders in several processes: spawned workers, pickles and ranks."""

import pickle
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from safetyfilter import SafetyFilter
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.webdataset import safety_filter
from tests.loaders.ranks import one_rank
from tests.loaders.training import (
    Diffusion,
    OneAfterTheOther,
    Pictures,
    Stream,
    check,
    expected_report,
    holds,
    safe_folder,
    seen,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves tars open


def test_spawned_workers(pictures: Pictures, catching: SafetyFilter) -> None:
    """Each kind, by a run and by a filter, all the way through pickle; reports come back to this process."""
    paths = [pictures.folder / key for key in pictures.keys]
    mapped = safe_folder(pictures, images=paths, verify_content="access")
    iterables = {
        "run": SafeIterable(Stream(pictures.folder, pictures.keys), pictures.folder_run, key="key"),
        "filter": SafeIterable(Stream(pictures.folder, pictures.keys), catching, image="jpg"),
    }
    stage = safety_filter(pictures.tars_run, root=pictures.tars)
    tars = webdataset.WebDataset([str(path) for path in sorted(pictures.tars.rglob("*.tar"))], shardshuffle=False)
    data = OneAfterTheOther(mapped, iterables | {"tars": tars.compose(stage)})
    models = {name: Diffusion() for name in ("map", "tars", *iterables)}
    with torch.no_grad():
        for name, image in DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="spawn"):
            models[name](image[None])
    for name in ("map", "run", "tars"):
        check(models[name], pictures)
    assert not [number for number in seen(models["filter"], pictures) if not pictures.keep[number]]
    assert iterables["filter"].filter_report()["seen"] == len(pictures.keys)
    for report in (mapped.filter_report(), iterables["run"].filter_report(), stage.filter_report()):
        assert holds(report, expected_report(pictures))


def test_pickles_are_small_and_hold_no_secret(pictures: Pictures) -> None:
    safe = SafeIterable(Stream(pictures.folder, pictures.keys), pictures.folder_run, key="key")
    secret = pictures.folder_run.with_name("folder-run.secret").read_text().strip()
    for data in (safe, safe_folder(pictures)):
        pickled = pickle.dumps(data)
        assert len(pickled) < 5000
        assert secret.encode() not in pickled
        assert bytes.fromhex(secret) not in pickled


def test_two_ranks(pictures: Pictures, tmp_path: Path) -> None:
    """Two real processes with gloo: map-style, iterable, webdataset and datasets, each picture once over both."""
    ranks = [get_context("fork").Process(target=one_rank, args=(rank, pictures, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    for kind in ("map", "iterable", "webdataset", "datasets"):
        counts = [Counter(pickle.loads((tmp_path / f"{kind}-{rank}").read_bytes())) for rank in range(2)]
        assert all(counts)
        total = counts[0] + counts[1]
        assert not [number for number in total if pictures.both[number]]
        assert set(total) == set(np.flatnonzero(pictures.keep).tolist())
        if kind == "map":  # DistributedSampler fills up with repeats
            assert counts[0].total() == counts[1].total() == -(-len(total) // 2)
        else:
            assert set(total.values()) == {1}
