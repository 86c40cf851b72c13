"""Training from data sets with a length: no co-occurring picture ever reaches the model."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler

from safetyfilter import Policy, SafetyFilter, apply_policy, open_source, scan, storage
from safetyfilter.embed.pipeline import EmbeddingPipeline
from safetyfilter.errors import RunError, StorageError, UsageError
from safetyfilter.loaders.image_check import spread
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.runs.run import Run
from tests.conftest import encoded, photograph
from tests.loaders.training import (
    Diffusion,
    FolderPictures,
    Pictures,
    check,
    expected_report,
    holds,
    safe_folder,
    seen,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers on a small machine


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_training_two_epochs_shuffled(pictures: Pictures, workers: int) -> None:
    loader = DataLoader(
        safe_folder(pictures), batch_size=7, shuffle=True, num_workers=workers, persistent_workers=workers == 2
    )
    model = Diffusion()
    for _ in range(2):
        train(loader, model)
    check(model, pictures, epochs=2)
    assert holds(loader.dataset.filter_report(), expected_report(pictures))


def test_length_positions_and_order(pictures: Pictures) -> None:
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


def test_a_seed_gives_the_order_and_a_resumed_epoch_is_the_rest(pictures: Pictures) -> None:
    def batches(start: int = 0) -> list[torch.Tensor]:
        order = list(RandomSampler(safe, generator=torch.Generator().manual_seed(3)))
        return list(DataLoader(safe, batch_size=4, num_workers=2, sampler=_From(order[start * 4 :])))

    safe = safe_folder(pictures)
    whole, again, rest = batches(), batches(), batches(5)
    assert all(map(torch.equal, whole, again))
    assert len(rest) == len(whole) - 5
    assert all(map(torch.equal, whole[5:], rest))
    check(train(rest, train(whole[:5])), pictures)


def test_the_data_sets_own_way_to_get_several(pictures: Pictures) -> None:
    class Several(FolderPictures):
        asked = 0

        def __getitems__(self, numbers):
            Several.asked += 1
            return [self[number] for number in numbers]

    safe = SafeDataset(Several(pictures.folder, pictures.keys), pictures.folder_run, keys=pictures.keys)
    check(train(DataLoader(safe, batch_size=8)), pictures)
    assert Several.asked == -(-len(safe) // 8)


def test_torchvisions_image_folder_needs_two_lines(pictures: Pictures, online, tmp_path) -> None:
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


def test_keys_from_the_samples(pictures: Pictures) -> None:
    rows = [{"key": key, "jpg": pictures.content(number)} for number, key in enumerate(pictures.keys)]
    rows[5] = {"jpg": b""}
    safe = SafeDataset(rows, pictures.folder_run, key="key", image="jpg", verify_content=True)
    kept = [key for number, key in enumerate(pictures.keys) if pictures.keep[number] and number != 5]
    assert [row["key"] for row in safe] == kept
    assert safe.filter_report()["unknown"] == 1


def test_drifted_samples_before_and_after(pictures: Pictures, tmp_path, capfd) -> None:
    kept = np.flatnonzero(pictures.keep).tolist()
    rows = [{"key": key, "jpg": pictures.content(number)} for number, key in enumerate(pictures.keys)]
    rows[kept[0]]["jpg"] += b"\0"
    unchecked = SafeDataset(rows, pictures.folder_run, key="key")
    safe = SafeDataset(rows, pictures.folder_run, key="key", image="jpg", verify_content=True, progress=True)
    assert "checking" in capfd.readouterr().err
    lazy = SafeDataset(rows, pictures.folder_run, key="key", image="jpg", verify_content="access")
    assert len(unchecked) - 1 == len(lazy) == len(safe)  # of lazy, one of those compared when it is made
    assert safe.filter_report()["drifted"] == lazy.filter_report()["drifted"] == 1
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


def test_by_a_filter(pictures: Pictures, catching: SafetyFilter) -> None:
    images = [pictures.folder / key for key in pictures.keys]
    safe = SafeDataset(FolderPictures(pictures.folder, pictures.keys), catching, images=images)
    counts = seen(train(DataLoader(safe, batch_size=8, num_workers=2)), pictures)
    assert not [number for number in counts if not pictures.keep[number]]
    assert safe.filter_report()["unscored"] == 2
    assert len(pickle.dumps(safe)) < 50_000  # not the model


@pytest.mark.parametrize("held", ["beside", "in the samples"])
def test_a_filter_has_one_pipeline_for_the_whole_data_set(encoder, probes, monkeypatch, held: str) -> None:
    opened = []
    run = EmbeddingPipeline.run
    monkeypatch.setattr(EmbeddingPipeline, "run", lambda self, *given: opened.append(1) or run(self, *given))
    picture = encoded(photograph("coffee.png").resize((32, 32)))
    pictures = [picture, b"no picture"] * 1100
    lenient = SafetyFilter(encoder, probes, Policy(thresholds={"explicit": 1, "minor": 1}))
    options = {"images": pictures} if held == "beside" else {"image": bytes}
    safe = SafeDataset(pictures, lenient, **options)
    assert (len(safe), safe.filter_report()["unscored"]) == (1100, 1100)
    assert len(opened) == 1


def test_a_fault_of_storage_when_a_sample_is_asked_for_is_raised(pictures: Pictures, monkeypatch) -> None:
    paths = [pictures.folder / key for key in pictures.keys]
    safe = safe_folder(pictures, images=paths, verify_content="access")
    reached = safe[0]

    def timing_out(path: str, max_bytes: int | None) -> bytes:
        raise TimeoutError("timed out")

    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    with monkeypatch.context() as context:
        context.setattr(storage.location, "_read_local", timing_out)
        with pytest.raises(StorageError, match="TimeoutError"):
            safe[0]
    assert safe.filter_report()["drifted"] == 0
    assert torch.equal(safe[0], reached)


def test_what_is_missing_is_said(pictures: Pictures, catching: SafetyFilter) -> None:
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


def test_another_source_with_the_same_names_is_an_error(pictures: Pictures, tmp_path) -> None:
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
    compared = [number for number in spread(96) if number % 5 == 0]
    assert 10 < len(compared) == drifted.filter_report()["drifted"]
    assert len(drifted) == pictures.keep.sum() - pictures.keep[compared].sum()


def test_why_no_sample_has_a_key_is_said(pictures: Pictures) -> None:
    class Broken(FolderPictures):
        def __getitem__(self, number: int) -> torch.Tensor:
            raise OSError("the disk is gone")

    with pytest.raises(RunError, match=r"getting a key 'key' failed with OSError\)$"):
        SafeDataset(Broken(pictures.folder, pictures.keys), pictures.folder_run, key="key")
    with pytest.raises(RunError, match="getting a key 'nmae' failed with KeyError"):
        list(SafeIterable([{"name": key} for key in pictures.keys], pictures.folder_run, key="nmae"))
    with pytest.raises(UsageError, match="SafeIterable"):
        SafeDataset(iter([]), pictures.folder_run, keys=[])


def test_empty(pictures: Pictures) -> None:
    safe = SafeDataset([], pictures.folder_run, keys=[])
    assert len(safe) == safe.filter_report()["seen"] == 0


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


class _From(Sampler):
    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self):
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


def _same(sample):
    return sample
