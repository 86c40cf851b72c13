"""Loaders in several processes: spawned workers, pickles and ranks."""

import os
import pickle
import sys
from collections import Counter
from pathlib import Path
from subprocess import run as run_process

import numpy as np
import torch
from torch.utils.data import DataLoader

from safetyfilter import SafetyFilter
from safetyfilter.loaders.torch_iterable import SafeIterable
from tests.loaders.training import Pictures, Stream, check, expected_report, holds, safe_folder, seen, stack, train


def test_spawned_workers(pictures: Pictures, catching: SafetyFilter) -> None:
    """Both kinds, by a run and by a filter, all the way through pickle; reports come back to this process."""
    stream = Stream(pictures.folder, pictures.keys)
    both = [
        safe_folder(pictures, images=[pictures.folder / key for key in pictures.keys], verify_content="access"),
        SafeIterable(stream, catching, image="jpg"),
    ]
    for data, collate in zip(both, (torch.stack, stack), strict=True):
        loader = DataLoader(data, batch_size=8, num_workers=2, multiprocessing_context="spawn", collate_fn=collate)
        model = train(loader)
        if data is both[0]:
            check(model, pictures)
            assert holds(data.filter_report(), expected_report(pictures))
        else:
            assert not [number for number in seen(model, pictures) if not pictures.keep[number]]
            assert data.filter_report()["seen"] == len(pictures.keys)


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
    (tmp_path / "pictures").write_bytes(pickle.dumps(pictures))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run_process(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            "--master-port=29533",
            Path(__file__).with_name("ranks.py"),
            tmp_path,
        ],
        check=True,
        env=environment,
        timeout=400,
    )
    for kind in ("map", "iterable", "webdataset", "datasets"):
        ranks = [Counter(pickle.loads((tmp_path / f"{kind}-{rank}").read_bytes())) for rank in range(2)]
        assert all(ranks)
        total = ranks[0] + ranks[1]
        assert not [number for number in total if pictures.both[number]]
        assert set(total) == set(np.flatnonzero(pictures.keep).tolist())
        if kind == "map":  # DistributedSampler fills up with repeats
            assert ranks[0].total() == ranks[1].total() == -(-len(total) // 2)
        else:
            assert set(total.values()) == {1}
