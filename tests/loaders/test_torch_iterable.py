"""Training from iterables: no co-occurring picture ever reaches the model."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from safetyfilter import Policy, SafetyFilter
from safetyfilter.errors import DeviceError, RunError, UsageError
from safetyfilter.loaders import kept
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from tests.loaders.training import (
    BY_AND_WORKERS,
    Diffusion,
    Pictures,
    Stream,
    all_of,
    check,
    expected_report,
    holds,
    pixels,
    seen,
    stack,
    train,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four workers on a small machine


@pytest.mark.parametrize(("by", "workers"), BY_AND_WORKERS)
def test_training_two_epochs_shuffled(pictures: Pictures, catching, workers: int, by: str) -> None:
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
def test_order_is_the_streams(pictures: Pictures, catching, by: str) -> None:
    stream = Stream(pictures.folder, pictures.keys)
    safe = SafeIterable(stream, pictures.folder_run if by == "run" else catching, key="key", image="jpg")
    keys = [sample["key"] for sample in safe]
    assert keys == sorted(keys)
    assert keys == [sample["key"] for sample in safe]
    rest = [sample["key"] for sample in itertools.islice(safe, 10, None)]  # a resumed epoch
    assert rest == keys[10:]


def test_a_stream_that_shards_itself_is_not_sharded_again(pictures: Pictures) -> None:
    stream = _Sharded(pictures.folder, pictures.keys)
    safe = SafeIterable(stream, pictures.folder_run, key="key")
    check(train(DataLoader(safe, batch_size=5, num_workers=2, collate_fn=stack)), pictures)
    twice = SafeIterable(Stream(pictures.folder, pictures.keys), pictures.folder_run, key="key", shard=False)
    check(train(DataLoader(twice, batch_size=5, num_workers=2, collate_fn=stack)), pictures, epochs=2)


def test_two_ranks_by_hand(pictures: Pictures) -> None:
    stream, model = Stream(pictures.folder, pictures.keys), Diffusion()
    for rank in range(2):
        safe = SafeIterable(stream, pictures.folder_run, key="key", rank=rank, world_size=2)
        train(DataLoader(safe, batch_size=5, num_workers=2, collate_fn=stack), model)
    check(model, pictures)


def test_broken_samples_are_excluded_with_their_reason(pictures: Pictures) -> None:
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


def test_by_a_filter_broken_samples_are_unscored(pictures: Pictures, catching: SafetyFilter) -> None:
    lenient = catching.with_policy(Policy(thresholds={"explicit": 1, "minor": 1}))
    samples = [{"jpg": b"no picture"}, None, {}, {"jpg": pictures.content(0)}, {"jpg": pictures.folder / "none"}]
    safe = SafeIterable(samples, lenient, image="jpg")
    assert list(safe) == samples[3:4]
    assert holds(safe.filter_report(), {"seen": 5, "kept": 1, "excluded": 4, "unscored": 4})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [20, 3000])
def test_another_source_is_an_error_not_an_empty_epoch(pictures: Pictures, workers: int, count: int) -> None:
    safe = SafeIterable([{"key": str(number)} for number in range(count)], pictures.folder_run, key="key")
    with pytest.raises(RunError, match="knows none of the first"):
        all_of(DataLoader(safe, batch_size=None, num_workers=workers))
    known = int(np.flatnonzero(pictures.keep)[0])
    mixed = SafeIterable(
        [{"key": str(number)} for number in range(count)] + [{"key": pictures.keys[known]}],
        pictures.folder_run,
        key="key",
    )
    if count < 1000:
        assert len(all_of(DataLoader(mixed, batch_size=None, num_workers=workers))) == 1


def test_another_source_with_the_same_names_is_an_error_before_anything_passes(pictures: Pictures) -> None:
    shifted = [{"key": key, "jpg": pictures.content(number - 7)} for number, key in enumerate(pictures.keys)]
    passed = []
    with pytest.raises(RunError, match="are not those that the run"):
        passed.extend(SafeIterable(shifted, pictures.folder_run, key="key", image="jpg"))
    assert passed == []
    with pytest.raises(RunError, match="not one of the first 96 samples"):
        list(SafeIterable(shifted, pictures.folder_run, key="key", image="jpg", verify_content=True))


@pytest.mark.parametrize("picture", [torch.zeros(3), Image.new("RGB", (8, 8)), [b"several"]], ids=type)
def test_decoded_images_can_not_be_compared_and_none_passes_unseen(pictures: Pictures, picture) -> None:
    decoded = [{"key": key, "jpg": picture} for key in pictures.keys]
    with pytest.raises(UsageError, match="check before decoding"):
        next(iter(SafeIterable(decoded, pictures.folder_run, key="key", image="jpg")))
    assert len(list(SafeIterable(decoded, pictures.folder_run, key="key"))) == pictures.keep.sum()  # by keys alone


def test_few_without_an_image_are_an_error_too(pictures: Pictures, catching: SafetyFilter) -> None:
    samples = [{"jpg": pictures.content(0)}] * 20
    with pytest.raises(UsageError, match="not one of the first 20"):
        list(SafeIterable(samples, catching, image="png"))
    with pytest.raises(UsageError, match="not one of the first 20"):
        SafeDataset(samples, catching, image="png")


@pytest.mark.parametrize("count", [3, 96])
@pytest.mark.parametrize("samples", ["without it", "null", "no file"])
def test_by_a_run_too_an_image_has_to_be_where_it_is_said_to_be(pictures: Pictures, samples: str, count: int) -> None:
    held = {"without it": {}, "null": {"png": None}, "no file": {"png": pictures.folder / "nowhere"}}[samples]
    kept = np.flatnonzero(pictures.keep)[:count].tolist()
    read = [{"key": pictures.keys[number], "jpg": pictures.content(number), **held} for number in kept]
    for load in (SafeIterable, SafeDataset):
        with pytest.raises((UsageError, RunError), match="not one of the first"):
            list(load(read, pictures.folder_run, key="key", image="png"))
    some = [*read, {"key": pictures.keys[kept[0]], "png": pictures.content(kept[0])}]
    safe = SafeDataset(some[2:], pictures.folder_run, key="key", image="png") if count == 3 else None
    assert safe is None or ([*safe], safe.filter_report()["drifted"]) == (some[-1:], 1)


def test_a_thousand_without_an_image_are_an_error(catching: SafetyFilter, monkeypatch) -> None:
    monkeypatch.setattr(kept, "FIRST_SAMPLES", 50)
    safe = SafeIterable([{"png": b""}] * 60, catching, image="jpg")
    with pytest.raises(UsageError, match="not one of the first"):
        list(safe)


def test_cuda_in_a_forked_worker_is_an_error(pictures: Pictures, catching, monkeypatch) -> None:
    safe = SafeIterable(Stream(pictures.folder, pictures.keys), catching, image="jpg")
    monkeypatch.setattr(catching.encoder, "device", torch.device("cuda"))
    with pytest.raises(DeviceError, match="multiprocessing_context='spawn'"):
        all_of(DataLoader(safe, batch_size=None, num_workers=1))


def test_what_is_missing_is_said(pictures: Pictures, catching: SafetyFilter) -> None:
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


class _Sharded(Stream, IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        return itertools.islice(super().__iter__(), info.id, None, info.num_workers)
