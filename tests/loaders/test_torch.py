"""Training with PyTorch loaders: no co-occurring picture ever reaches the model."""

import itertools
import os
import pickle
import shutil
import sys
from collections import Counter
from pathlib import Path
from subprocess import run as run_process

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler

from safetyfilter import Policy, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.errors import DeviceError, RunError, SchemaError, SecretError, UnfinishedRunError, UsageError
from safetyfilter.loaders import gate
from safetyfilter.loaders.torch import SafeDataset, SafeIterable
from safetyfilter.runs.run import Run
from tests.loaders.training import (
    Diffusion,
    FolderPictures,
    Pictures,
    Stream,
    check,
    pixels,
    seen,
    stack,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers on a small machine


def safe_folder(pictures: Pictures, **options) -> SafeDataset:
    data = FolderPictures(pictures.folder, pictures.keys)
    return SafeDataset(data, pictures.folder_run, keys=pictures.keys, **options)


def expected_report(pictures: Pictures, times: int = 1) -> dict[str, int]:
    both, damaged = pictures.both & ~pictures.damaged, pictures.damaged
    return {
        "seen": len(pictures.keys) * times,
        "kept": int(pictures.keep.sum()) * times,
        "excluded": int((~pictures.keep).sum()) * times,
        "co_occurrence": int(both.sum()) * times,
        "unscored": int(damaged.sum()) * times,
    }


def holds(report: dict[str, int], expected: dict[str, int]) -> bool:
    return {name: count for name, count in report.items() if count} == {n: c for n, c in expected.items() if c}


class TestSafeDataset:
    """Map-style."""

    @pytest.mark.parametrize("workers", [0, 2, 4])
    def test_training_two_epochs_shuffled(self, pictures: Pictures, workers: int) -> None:
        loader = DataLoader(
            safe_folder(pictures), batch_size=7, shuffle=True, num_workers=workers, persistent_workers=workers == 2
        )
        model = Diffusion()
        for _ in range(2):
            train(loader, model)
        check(model, pictures, epochs=2)
        assert holds(loader.dataset.filter_report(), expected_report(pictures))

    def test_length_positions_and_order(self, pictures: Pictures) -> None:
        data = FolderPictures(pictures.folder, pictures.keys)
        safe = safe_folder(pictures)
        kept = np.flatnonzero(pictures.keep)
        assert len(safe) == len(kept)
        for at in (0, 1, len(kept) - 1, -1, -len(kept)):
            assert torch.equal(safe[at], data[int(kept[at])])
        for at in (len(kept), -len(kept) - 1):
            with pytest.raises(IndexError, match="none at"):
                safe[at]
        assert len(list(safe)) == len(kept)

    def test_a_seed_gives_the_order_and_a_resumed_epoch_is_the_rest(self, pictures: Pictures) -> None:
        def batches(start: int = 0) -> list[torch.Tensor]:
            order = list(RandomSampler(safe, generator=torch.Generator().manual_seed(3)))
            return list(DataLoader(safe, batch_size=4, num_workers=2, sampler=_From(order[start * 4 :])))

        safe = safe_folder(pictures)
        whole, again, rest = batches(), batches(), batches(5)
        assert all(map(torch.equal, whole, again))
        assert len(rest) == len(whole) - 5
        assert all(map(torch.equal, whole[5:], rest))
        check(train(rest, train(whole[:5])), pictures)

    def test_the_data_sets_own_way_to_get_several(self, pictures: Pictures) -> None:
        class Several(FolderPictures):
            asked = 0

            def __getitems__(self, numbers):
                Several.asked += 1
                return [self[number] for number in numbers]

        safe = SafeDataset(Several(pictures.folder, pictures.keys), pictures.folder_run, keys=pictures.keys)
        check(train(DataLoader(safe, batch_size=8)), pictures)
        assert Several.asked == -(-len(safe) // 8)

    def test_torchvisions_image_folder_needs_two_lines(self, pictures: Pictures, online, tmp_path) -> None:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import ToTensor

        for number, kind in ((0, "a"), (1, "b"), (2, "a")):
            (tmp_path / "classes" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "classes" / kind / f"{number}.jpg").write_bytes(pictures.content(number))
        run = scan(
            open_source(tmp_path / "classes"),
            tmp_path / "run",
            online.with_policy(Policy(thresholds={"explicit": 1, "minor": 1})),
        )
        safe = SafeDataset(ImageFolder(tmp_path / "classes", ToTensor()), run, verify_content=True)
        assert [label for _, label in safe] == [0, 0, 1]

    def test_keys_from_the_samples(self, pictures: Pictures) -> None:
        rows = [{"key": key, "jpg": pictures.content(number)} for number, key in enumerate(pictures.keys)]
        rows[5] = {"jpg": b""}
        safe = SafeDataset(rows, pictures.folder_run, key="key", image="jpg", verify_content=True)
        kept = [key for number, key in enumerate(pictures.keys) if pictures.keep[number] and number != 5]
        assert [row["key"] for row in safe] == kept
        assert safe.filter_report()["unknown"] == 1

    def test_drifted_samples_before_and_after(self, pictures: Pictures, tmp_path, capfd) -> None:
        kept = np.flatnonzero(pictures.keep).tolist()
        rows = [{"key": key, "jpg": pictures.content(number)} for number, key in enumerate(pictures.keys)]
        rows[kept[0]]["jpg"] += b"\0"
        unchecked = SafeDataset(rows, pictures.folder_run, key="key")
        safe = SafeDataset(rows, pictures.folder_run, key="key", image="jpg", verify_content=True, progress=True)
        assert "checking" in capfd.readouterr().err
        lazy = SafeDataset(rows, pictures.folder_run, key="key", image="jpg", verify_content="access")
        assert len(unchecked) == len(lazy) == len(safe) + 1
        assert safe.filter_report()["drifted"] == 1
        assert lazy.filter_report()["drifted"] == 0
        rows[kept[2]]["jpg"] += b"\0"  # after they were made
        for data, drifted in ((safe, 2), (lazy, 2)):
            for _ in range(2):
                loaded = list(DataLoader(data, batch_size=None, num_workers=2, collate_fn=_same))
                assert len(loaded) == len(data)
                assert all(row["jpg"] == pictures.content(pictures.keys.index(row["key"])) for row in loaded)
            report = data.filter_report()
            assert report["drifted"] == drifted
            assert report["seen"] == report["kept"] + report["excluded"] == len(rows)
        for row in rows:
            row["jpg"] += b"\0"
        with pytest.raises(RunError, match="has changed"):
            safe[0]

    def test_by_a_filter(self, pictures: Pictures, catching: SafetyFilter) -> None:
        images = [pictures.folder / key for key in pictures.keys]
        safe = SafeDataset(FolderPictures(pictures.folder, pictures.keys), catching, images=images)
        counts = seen(train(DataLoader(safe, batch_size=8, num_workers=2)), pictures)
        assert not [number for number in counts if not pictures.keep[number]]
        assert safe.filter_report()["unscored"] == 2
        assert len(pickle.dumps(safe)) < 50_000  # not the model

    def test_what_is_missing_is_said(self, pictures: Pictures, catching: SafetyFilter) -> None:
        data = FolderPictures(pictures.folder, pictures.keys)
        with pytest.raises(UsageError, match="give keys="):
            SafeDataset(data, pictures.folder_run)
        with pytest.raises(UsageError, match="give images="):
            SafeDataset(data, catching)
        with pytest.raises(UsageError, match="give images="):
            SafeDataset(data, pictures.folder_run, keys=pictures.keys, verify_content=True)
        with pytest.raises(UsageError, match="2 keys for 96 samples"):
            SafeDataset(data, pictures.folder_run, keys=["a", "b"])
        with pytest.raises(UsageError, match="leave it out"):
            SafeDataset(data, catching, images=list(pictures.keys), verify_content=True)
        with pytest.raises(UsageError, match="'access'"):
            SafeDataset(data, pictures.folder_run, keys=pictures.keys, verify_content="yes")
        with pytest.raises(UsageError, match="by is a int"):
            SafeDataset(data, 7, keys=pictures.keys)
        with pytest.raises(RunError, match="knows none of the first 96 samples"):
            SafeDataset(data, pictures.tars_run, keys=pictures.keys)

    def test_another_source_with_the_same_names_is_an_error(self, pictures: Pictures, tmp_path) -> None:
        for number, key in enumerate(pictures.keys):
            (tmp_path / key).write_bytes(pictures.content(number - 7))
        data, paths = FolderPictures(tmp_path, pictures.keys), [tmp_path / key for key in pictures.keys]
        with pytest.raises(RunError, match="images are not those that the run"):
            SafeDataset(data, pictures.folder_run, keys=pictures.keys, images=paths)
        for verify in (True, "access"):
            with pytest.raises(RunError, match=r"not one of the first 96|images are not those"):
                SafeDataset(data, pictures.folder_run, keys=pictures.keys, images=paths, verify_content=verify)
        turned = [pictures.folder / key for key in reversed(pictures.keys)]
        with pytest.raises(RunError, match="not in the same order"):
            SafeDataset(data, pictures.folder_run, keys=pictures.keys, images=turned)
        few = [pictures.content(number) + b"\0" * (number % 5 == 0) for number in range(len(pictures.keys))]
        drifted = SafeDataset(few, pictures.folder_run, keys=pictures.keys, images=few)
        assert len(drifted) == pictures.keep.sum()

    def test_why_no_sample_has_a_key_is_said(self, pictures: Pictures) -> None:
        class Broken(FolderPictures):
            def __getitem__(self, number: int) -> torch.Tensor:
                raise OSError("the disk is gone")

        with pytest.raises(RunError, match="OSError: the disk is gone"):
            SafeDataset(Broken(pictures.folder, pictures.keys), pictures.folder_run, key="key")
        with pytest.raises(RunError, match="KeyError: 'nmae'"):
            list(SafeIterable([{"name": key} for key in pictures.keys], pictures.folder_run, key="nmae"))
        with pytest.raises(UsageError, match="SafeIterable"):
            SafeDataset(iter([]), pictures.folder_run, keys=[])

    def test_empty(self, pictures: Pictures) -> None:
        safe = SafeDataset([], pictures.folder_run, keys=[])
        assert len(safe) == safe.filter_report()["seen"] == 0


class TestSafeIterable:
    """Iterable."""

    @pytest.mark.parametrize("workers", [0, 2, 4])
    @pytest.mark.parametrize("by", ["run", "content", "filter"])
    def test_training_two_epochs_shuffled(self, pictures: Pictures, catching, workers: int, by: str) -> None:
        stream = Stream(pictures.folder, pictures.keys, seed=1)
        if by == "filter":
            safe = SafeIterable(stream, catching, image="jpg")
        else:
            safe = SafeIterable(stream, pictures.folder_run, key="key", image="jpg", verify_content=by == "content")
        loader = DataLoader(safe, batch_size=7, num_workers=workers, collate_fn=stack, persistent_workers=workers == 2)
        model, orders = Diffusion(), []
        for epoch in range(2):
            safe.set_epoch(epoch)
            before = len(model.seen)
            train(loader, model)
            orders.append(model.seen[before:])
        assert sorted(orders[0]) == sorted(orders[1])
        assert orders[0] != orders[1]  # the epoch reaches persistent workers too
        if by == "filter":
            assert not [number for number in seen(model, pictures) if not pictures.keep[number]]
            assert safe.filter_report()["seen"] == 2 * len(pictures.keys)
            assert safe.filter_report()["unscored"] == 4
        else:
            check(model, pictures, epochs=2)
            assert holds(safe.filter_report(), expected_report(pictures, 2))

    @pytest.mark.parametrize("by", ["run", "filter"])
    def test_order_is_the_streams(self, pictures: Pictures, catching, by: str) -> None:
        stream = Stream(pictures.folder, pictures.keys)
        safe = SafeIterable(stream, pictures.folder_run if by == "run" else catching, key="key", image="jpg")
        keys = [sample["key"] for sample in safe]
        assert keys == sorted(keys)
        assert keys == [sample["key"] for sample in safe]
        rest = [sample["key"] for sample in itertools.islice(safe, 10, None)]  # a resumed epoch
        assert rest == keys[10:]

    def test_a_stream_that_shards_itself_is_not_sharded_again(self, pictures: Pictures) -> None:
        stream = _Sharded(pictures.folder, pictures.keys)
        safe = SafeIterable(stream, pictures.folder_run, key="key")
        check(train(DataLoader(safe, batch_size=5, num_workers=2, collate_fn=stack)), pictures)
        twice = SafeIterable(Stream(pictures.folder, pictures.keys), pictures.folder_run, key="key", shard=False)
        check(train(DataLoader(twice, batch_size=5, num_workers=2, collate_fn=stack)), pictures, epochs=2)

    def test_two_ranks_by_hand(self, pictures: Pictures) -> None:
        stream, model = Stream(pictures.folder, pictures.keys), Diffusion()
        for rank in range(2):
            safe = SafeIterable(stream, pictures.folder_run, key="key", rank=rank, world_size=2)
            train(DataLoader(safe, batch_size=5, num_workers=2, collate_fn=stack), model)
        check(model, pictures)

    def test_broken_samples_are_excluded_with_their_reason(self, pictures: Pictures) -> None:
        good = int(np.flatnonzero(pictures.keep)[0])
        samples = [
            {"key": pictures.keys[good], "jpg": pictures.content(good)},
            {"jpg": b""},
            {"key": None},
            None,
            {"key": pictures.keys[good]},
            {"key": pictures.keys[good], "jpg": pictures.folder / "nowhere"},
            {"key": pictures.keys[good], "jpg": "https://example.org/a.jpg"},
        ]
        safe = SafeIterable(samples, pictures.folder_run, key="key", image="jpg", verify_content=True)
        assert list(safe) == samples[:1]
        assert holds(safe.filter_report(), {"seen": 7, "kept": 1, "excluded": 6, "unknown": 3, "drifted": 3})
        decoded = [{"key": pictures.keys[good], "jpg": pixels(pictures.content(good))}]
        with pytest.raises(UsageError, match="check before decoding"):
            list(SafeIterable(decoded, pictures.folder_run, key="key", image="jpg", verify_content=True))

    def test_by_a_filter_broken_samples_are_unscored(self, pictures: Pictures, catching: SafetyFilter) -> None:
        lenient = catching.with_policy(Policy(thresholds={"explicit": 1, "minor": 1}))
        samples = [{"jpg": b"no picture"}, None, {}, {"jpg": pictures.content(0)}, {"jpg": pictures.folder / "none"}]
        safe = SafeIterable(samples, lenient, image="jpg")
        assert list(safe) == samples[3:4]
        assert holds(safe.filter_report(), {"seen": 5, "kept": 1, "excluded": 4, "unscored": 4})

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("count", [20, 3000])
    def test_another_source_is_an_error_not_an_empty_epoch(self, pictures: Pictures, workers: int, count: int) -> None:
        safe = SafeIterable([{"key": str(number)} for number in range(count)], pictures.folder_run, key="key")
        with pytest.raises(RunError, match="knows none of the first"):
            list(DataLoader(safe, batch_size=None, num_workers=workers))
        known = int(np.flatnonzero(pictures.keep)[0])
        mixed = SafeIterable(
            [{"key": str(number)} for number in range(count)] + [{"key": pictures.keys[known]}],
            pictures.folder_run,
            key="key",
        )
        if count < 1000:
            assert len(list(DataLoader(mixed, batch_size=None, num_workers=workers))) == 1

    def test_another_source_with_the_same_names_is_an_error_before_anything_passes(self, pictures: Pictures) -> None:
        shifted = [{"key": key, "jpg": pictures.content(number - 7)} for number, key in enumerate(pictures.keys)]
        passed = []
        with pytest.raises(RunError, match="are not those that the run"):
            passed.extend(SafeIterable(shifted, pictures.folder_run, key="key", image="jpg"))
        assert passed == []
        with pytest.raises(RunError, match="not one of the first 96 samples"):
            list(SafeIterable(shifted, pictures.folder_run, key="key", image="jpg", verify_content=True))

    def test_decoded_images_are_left_unchecked_unless_checks_are_asked_for(self, pictures: Pictures) -> None:
        decoded = [{"key": key, "jpg": torch.zeros(3)} for key in pictures.keys]
        assert len(list(SafeIterable(decoded, pictures.folder_run, key="key", image="jpg"))) == pictures.keep.sum()

    def test_few_without_an_image_are_an_error_too(self, pictures: Pictures, catching: SafetyFilter) -> None:
        samples = [{"jpg": pictures.content(0)}] * 20
        with pytest.raises(UsageError, match="not one of the first 20"):
            list(SafeIterable(samples, catching, image="png"))
        with pytest.raises(UsageError, match="not one of the first 20"):
            SafeDataset(samples, catching, image="png")

    def test_a_thousand_without_an_image_are_an_error(self, catching: SafetyFilter, monkeypatch) -> None:
        monkeypatch.setattr(gate, "SOON", 50)
        safe = SafeIterable([{"png": b""}] * 60, catching, image="jpg")
        with pytest.raises(UsageError, match="not one of the first"):
            list(safe)

    def test_cuda_in_a_forked_worker_is_an_error(self, pictures: Pictures, catching, monkeypatch) -> None:
        safe = SafeIterable(Stream(pictures.folder, pictures.keys), catching, image="jpg")
        monkeypatch.setattr(catching.encoder, "device", torch.device("cuda"))
        with pytest.raises(DeviceError, match="multiprocessing_context='spawn'"):
            list(DataLoader(safe, batch_size=None, num_workers=1))

    def test_what_is_missing_is_said(self, pictures: Pictures, catching: SafetyFilter) -> None:
        with pytest.raises(UsageError, match="key="):
            SafeIterable([], pictures.folder_run)
        with pytest.raises(UsageError, match="image="):
            SafeIterable([], catching)
        with pytest.raises(UsageError, match="leave it out"):
            SafeIterable([], catching, image="jpg", verify_content=True)
        with pytest.raises(UsageError, match="iterator"):
            SafeIterable(iter([]), pictures.folder_run, key="key")
        with pytest.raises(UsageError, match="shard is 'yes'"):
            SafeIterable([], pictures.folder_run, key="key", shard="yes")
        with pytest.raises(UsageError, match="rank 2 of 2"):
            SafeIterable([], pictures.folder_run, key="key", rank=2, world_size=2)


@pytest.mark.parametrize("bad", ["no run", "unfinished", "schema", "part", "secret"])
def test_runs_that_cannot_be_used(pictures: Pictures, tmp_path: Path, monkeypatch, bad: str) -> None:
    path = tmp_path / "run"
    expected = {
        "no run": (RunError, "no run at"),
        "unfinished": (UnfinishedRunError, "not finished"),
        "schema": (SchemaError, "schema 99"),
        "part": (RunError, "can't read"),
        "secret": (SecretError, "not the one"),
    }
    if bad != "no run":
        shutil.copytree(pictures.folder_run, path)
        shutil.copy(pictures.folder_run.with_name("folder-run.secret"), tmp_path / "run.secret")
        run = Run.open(path)
        if bad in ("unfinished", "schema"):
            run.info |= {"complete": False} if bad == "unfinished" else {"schema": 99}
            run.write_info()
        elif bad == "part":
            run.file("decisions", 0).unlink()
        else:
            monkeypatch.setenv("SAFETYFILTER_SECRET", "00" * 32)
    error, message = expected[bad]
    with pytest.raises(error, match=message):
        SafeDataset(FolderPictures(pictures.folder, pictures.keys), path, keys=pictures.keys)
    with pytest.raises(error, match=message):
        SafeIterable([], path, key="key")


def test_another_policy_is_felt(pictures: Pictures, tmp_path: Path) -> None:
    shutil.copytree(pictures.folder_run, tmp_path / "run")
    shutil.copy(pictures.folder_run.with_name("folder-run.secret"), tmp_path / "run.secret")
    run = Run.open(tmp_path / "run")
    data = FolderPictures(pictures.folder, pictures.keys)
    lengths = []
    for threshold in (0, 1):
        apply_policy(run, Policy(thresholds={"explicit": threshold, "minor": threshold}))
        lengths.append(len(SafeDataset(data, Run.open(tmp_path / "run"), keys=pictures.keys)))
    assert lengths == [0, pictures.keep.sum()]


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


class _From(Sampler):
    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self):
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class _Sharded(Stream, IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        return itertools.islice(super().__iter__(), info.id, None, info.num_workers)


def _same(sample):
    return sample
