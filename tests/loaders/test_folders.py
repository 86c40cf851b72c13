"""Image folders of torchvision, subsets of them, and keys that are paths below a root."""

import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import DatasetFolder, ImageFolder
from torchvision.transforms import ToTensor

from safetyfilter import SafetyFilter, open_source, scan
from safetyfilter.errors import RunError
from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.runs.run import Run
from tests.loaders.training import FolderPictures, Pictures

NAMES = ("a.jpg", "b#1.jpg", "c?.jpg", "d%20.jpg", "e::a.jpg", "f{1}.jpg", "g[0].jpg")


@pytest.fixture(scope="module")
def chosen(pictures: Pictures, catching: SafetyFilter) -> tuple[bytes, bytes]:
    """A picture that the filter keeps, and one that it excludes."""
    kept = (int(number) for number in np.flatnonzero(pictures.keep))
    good = next(content for content in map(pictures.content, kept) if catching([content]).keep[0])
    return good, pictures.content(int(np.flatnonzero(pictures.both & ~pictures.damaged)[0]))


@pytest.fixture(scope="module")
def classes(chosen: tuple[bytes, bytes], tmp_path_factory) -> Path:
    """Two classes of files with odd names, every other of which is excluded."""
    folder = tmp_path_factory.mktemp("classes") / "all" / "train"
    for kind in ("cats", "dogs"):
        (folder / kind).mkdir(parents=True)
        for number, name in enumerate(NAMES):
            (folder / kind / name).write_bytes(chosen[(number + (kind == "dogs")) % 2] + bytes(number))
    return folder


@pytest.fixture(scope="module")
def run(classes: Path, catching: SafetyFilter) -> Run:
    return scan(open_source(classes), classes.parents[1] / "run", catching)


@pytest.fixture(scope="module")
def run_of_all(classes: Path, catching: SafetyFilter) -> Run:
    """Of the folder above, in which the keys begin with ``train/``."""
    return scan(open_source(classes.parent), classes.parents[1] / "run-of-all", catching)


KEPT = [f"cats/{name}" for name in NAMES[::2]] + [f"dogs/{name}" for name in NAMES[1::2]]


def relative(paths, folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in paths]


@pytest.mark.parametrize("verify", [False, True, "access"])
def test_what_an_image_folder_has_for_each_sample_is_aligned(classes: Path, run: Run, verify) -> None:
    safe = SafeDataset(ImageFolder(classes, ToTensor()), run, verify_content=verify)
    assert relative([path for path, _ in safe.samples], classes) == KEPT
    assert safe.imgs == safe.samples
    assert safe.targets == [label for _, label in safe.samples] == [0] * 4 + [1] * 3
    assert (safe.classes, safe.class_to_idx) == (["cats", "dogs"], {"cats": 0, "dogs": 1})
    assert [label for _, label in safe] == safe.targets
    assert torch.cat(
        [labels for _, labels in DataLoader(safe, batch_size=2, num_workers=2, collate_fn=stacked)]
    ).tolist() == (safe.targets)
    assert [safe.samples[number] for number in Subset(safe, [5, 0]).indices] == [safe.samples[5], safe.samples[0]]


def stacked(batch):
    return None, torch.tensor([label for _, label in batch])


def test_a_folder_of_other_files(classes: Path, run: Run) -> None:
    data = DatasetFolder(str(classes), loader=lambda path: Path(path).stat().st_size, extensions=(".jpg",))
    safe = SafeDataset(data, run)
    assert relative([path for path, _ in safe.samples], classes) == KEPT
    assert [size for size, _ in safe] == [Path(path).stat().st_size for path, _ in safe.samples]


def test_subsets(classes: Path, run: Run) -> None:
    data = ImageFolder(classes, ToTensor())
    some = [*range(3, len(data)), 1]
    paths = relative([data.samples[number][0] for number in some], classes)
    for subset in (Subset(data, some), Subset(Subset(data, [*some, 0]), range(len(some)))):
        safe = SafeDataset(subset, run)
        assert relative([path for path, _ in safe.samples], classes) == [path for path in paths if path in KEPT]
        assert [label for _, label in safe] == safe.targets
        assert safe.classes == ["cats", "dogs"]


@pytest.mark.parametrize("values", [list, np.array, torch.tensor], ids=["list", "array", "tensor"])
def test_labels_of_any_data_set_are_aligned_and_nothing_is_made_up(pictures: Pictures, values) -> None:
    data = FolderPictures(pictures.folder, pictures.keys)
    data.targets = values(list(range(len(data))))
    safe = SafeDataset(data, pictures.folder_run, keys=pictures.keys)
    assert list(map(int, safe.targets)) == np.flatnonzero(pictures.keep).tolist()
    assert type(safe.targets) is type(data.targets)
    assert not hasattr(safe, "samples")
    assert not hasattr(safe, "classes")
    data.targets = data.targets[1:]  # not one for each sample
    assert not hasattr(safe, "targets")


def test_keys_relative_to_a_root(classes: Path, run: Run, run_of_all: Run, monkeypatch) -> None:
    monkeypatch.chdir(classes.parent)
    safe = SafeDataset(ImageFolder("train", ToTensor()), run_of_all, root=".", verify_content=True)
    assert relative([path for path, _ in safe.samples], Path("train")) == KEPT
    with pytest.raises(RunError, match="knows none"):
        SafeDataset(ImageFolder("train", ToTensor()), run_of_all)
    paths = sorted(path for path in classes.rglob("*") if path.is_file())
    safe = SafeDataset(paths, run, images=paths, root=classes, verify_content="access")
    assert relative(safe, classes) == KEPT
    samples = [{"path": str(path)} for path in paths] + [{"path": "/elsewhere/cats/a.jpg"}]
    safe = SafeIterable(samples, run, image="path", root=classes, verify_content=True)
    assert relative([sample["path"] for sample in safe], classes) == KEPT
    assert safe.filter_report()["unknown"] == 1
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [str(path) for path in paths]}, features=features)
    for ds in (rows, rows.to_iterable_dataset()):
        safe = filter_dataset(ds, run, root=classes).cast_column("image", datasets.Image(decode=False))
        assert relative([row["image"]["path"] for row in safe], classes) == KEPT


def test_the_name_that_a_file_had_once_is_not_a_key(classes: Path, run_of_all: Run, chosen) -> None:
    """Rows with bytes keep the last name of their file, which another file may have that lies in the root itself."""
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": [{"bytes": chosen[0], "path": "a.jpg"}]}, features=features)
    with pytest.raises(RunError, match="knows none"):
        filter_dataset(rows, run_of_all, root=classes / "cats")


def test_files_that_changed_among_those_compared_do_not_pass(classes: Path, run: Run, chosen) -> None:
    changed = classes / KEPT[1]
    before = changed.read_bytes()
    try:
        changed.write_bytes(chosen[1])
        safe = SafeDataset(ImageFolder(classes, ToTensor()), run)
        assert relative([path for path, _ in safe.samples], classes) == [key for key in KEPT if key != KEPT[1]]
        assert safe.filter_report()["drifted"] == 1
    finally:
        changed.write_bytes(before)


class Paths(Dataset):
    """Paths, as samples."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> str:
        return self.paths[number]


def test_paths_that_are_no_local_files_are_not_opened(chosen, catching: SafetyFilter, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(chosen[0])
    (tmp_path / "a.jpg::b.jpg").write_bytes(chosen[1])
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "reference.json").write_text('{"version": 1, "refs": {"a.jpg": ["a.jpg"]}}')
    paths = [
        "a.jpg",
        str(tmp_path / "a.jpg"),
        "a.jpg::b.jpg",
        "simplecache::file://a.jpg",
        f"file://{tmp_path}/a.jpg",
        "https://example.org/a.jpg",
        "reference::reference.json",
        "data:image/jpeg;base64,AAAA",
        "pipe.jpg",
        "/dev/zero",
        "a.jpg\0",
        ".",
        "",
    ]
    safe = SafeDataset(Paths(paths), catching, images=paths)
    assert list(safe) == paths[:2]
    report = safe.filter_report()
    assert (report["co_occurrence"], report["unscored"]) == (1, len(paths) - 3)
    streamed = SafeIterable([{"image": {"bytes": None, "path": path}} for path in paths], catching, image="image")
    assert [sample["image"]["path"] for sample in streamed] == paths[:2]
