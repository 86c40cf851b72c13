"""Samples that hold several pictures: what no probe has seen never passes, in whichever loader."""

import io
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import Policy, SafetyFilter, open_source, scan
from safetyfilter.errors import UsageError
from safetyfilter.loaders.access import Named
from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.loaders.fields import OtherPictures, fields_of
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from safetyfilter.runs.run import Run
from tests.loaders.training import Pictures

COUNT, LATE = 80, 70
"""Samples, and one that comes after those that are compared in any case."""
Samples = list[dict[str, Any]]
Passed = tuple[list[str], dict[str, int]]


def iterable(samples: Samples, by: Any, **options: Any) -> Passed:
    safe = SafeIterable(samples, by, key="key", image="jpg", **options)
    return [sample["key"] for sample in safe], safe.filter_report()


def iterable_by_a_function(samples: Samples, by: Any, **options: Any) -> Passed:
    safe = SafeIterable(samples, by, key="key", image=lambda sample: sample["jpg"], **options)
    return [sample["key"] for sample in safe], safe.filter_report()


def mapped(samples: Samples, by: Any, **options: Any) -> Passed:
    safe = SafeDataset(samples, by, key="key", image="jpg", **options)
    return [sample["key"] for sample in safe], safe.filter_report()


def mapped_with_keys_beside(samples: Samples, by: Any, **options: Any) -> Passed:
    safe = SafeDataset(samples, by, keys=[sample["key"] for sample in samples], image="jpg", **options)
    passed = {sample["key"] for sample in safe}  # the next stands in for one that is found changed
    return sorted(passed), safe.filter_report()


def rows(samples: Samples, by: Any, **options: Any) -> Passed:
    safe = filter_dataset(data_set(samples), by, key="key", image_column="jpg", **options)
    return list(safe["key"]), safe.filter_report()


def streamed_rows(samples: Samples, by: Any, **options: Any) -> Passed:
    stream = data_set(samples).to_iterable_dataset()
    safe = filter_dataset(stream, by, key="key", image_column="jpg", batch_size=16, **options)
    return [row["key"] for row in safe], safe.filter_report()


def tars(samples: Samples, by: Any, **options: Any) -> Passed:
    stage = safety_filter(by, root="/data", image_field="jpg", **options)
    read = [
        {"__url__": f"/data/{sample['key'].partition('/')[0]}", "__key__": sample["key"].partition("/")[2], **sample}
        for sample in samples
    ]
    return [sample["key"] for sample in stage({**each, "key": each["key"]} for each in read)], stage.filter_report()


LOADERS: list[Callable[..., Passed]] = [
    iterable,
    iterable_by_a_function,
    mapped,
    mapped_with_keys_beside,
    rows,
    streamed_rows,
    tars,
]


def data_set(samples: Samples) -> datasets.Dataset:
    names = sorted({name for sample in samples for name in sample} - {"key"})
    columns = {name: [sample.get(name) for sample in samples] for name in ("key", *names)}
    kinds = {name: datasets.Value("string" if name == "key" else "binary") for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


@pytest.fixture(scope="module")
def good(pictures: Pictures, catching: SafetyFilter) -> list[bytes]:
    """Pictures that the filter keeps, each by itself and all together: one signal is absent in all of them."""
    contents = [pictures.content(int(number)) for number in np.flatnonzero(pictures.keep)]
    decided, (signal, _) = catching(contents), catching.policy.pair.names
    absent = decided.scores[signal] < catching.policy.thresholds[signal]
    found = [contents[number] for number in np.flatnonzero(absent)[:4]]
    assert len(set(found)) == 4
    return found


@pytest.fixture(scope="module")
def pair(pictures: Pictures) -> bytes:
    """A picture that it excludes."""
    return pictures.content(int(np.flatnonzero(pictures.both & ~pictures.damaged)[0]))


@pytest.fixture(scope="module")
def samples(good: list[bytes]) -> Samples:
    return [{"key": f"0.tar/{number:02d}.jpg", "jpg": good[number % 2]} for number in range(COUNT)]


@pytest.fixture(scope="module")
def run_of_one(samples: Samples, catching: SafetyFilter, tmp_path_factory) -> Run:
    """Of these samples, each with one picture."""
    return scan(open_source(data_set(samples)), tmp_path_factory.mktemp("one") / "run", catching)


@pytest.fixture(scope="module")
def with_second(samples: Samples, good: list[bytes], pair: bytes) -> Samples:
    """The same with a second picture, which is excluded in every fourth."""
    return [
        sample | {"png": pair if number % 4 == 0 else good[2 + number % 2]} for number, sample in enumerate(samples)
    ]


@pytest.fixture(scope="module")
def run_of_two(with_second: Samples, catching: SafetyFilter, tmp_path_factory) -> Run:
    source = open_source(data_set(with_second), image_column="jpg")
    return scan(source, tmp_path_factory.mktemp("two") / "run", catching)


@pytest.mark.parametrize("load", LOADERS)
def test_a_second_picture_that_the_run_never_saw_does_not_pass(load, samples, run_of_one, good, pair) -> None:
    for second in (pair, good[3]):
        changed = [*samples[:LATE], samples[LATE] | {"png": second}, *samples[LATE + 1 :]]
        passed, report = load(changed, run_of_one)
        assert passed == [sample["key"] for number, sample in enumerate(samples) if number != LATE]
        assert (report["kept"], report["drifted"]) == (COUNT - 1, 1)


@pytest.mark.parametrize("verify", [True, None])
@pytest.mark.parametrize("load", LOADERS)
def test_pictures_that_were_scanned_together_are_compared_together(load, with_second, run_of_two, good, verify) -> None:
    options = {"verify_content": True} if verify else {}
    keys = [sample["key"] for number, sample in enumerate(with_second) if number % 4]
    passed, report = load(with_second, run_of_two, **options)
    assert passed == keys
    assert (report["kept"], report["co_occurrence"], report["drifted"]) == (COUNT * 3 // 4, COUNT // 4, 0)
    late = LATE + 1  # one that is kept
    changed = [*with_second[:late], with_second[late] | {"png": good[0]}, *with_second[late + 1 :]]
    passed, report = load(changed, run_of_two, **options)
    assert passed == [key for key in keys if key != with_second[late]["key"]]
    assert report["drifted"] == 1


@pytest.mark.parametrize("load", LOADERS)
def test_online_all_pictures_of_a_sample_are_scored(load, with_second, catching: SafetyFilter) -> None:
    passed, report = load(with_second[:9], catching)
    assert passed == [sample["key"] for number, sample in enumerate(with_second[:9]) if number % 4]
    assert (report["seen"], report["co_occurrence"]) == (9, 3)


def test_which_picture_is_the_image_has_to_be_said(with_second, run_of_two, catching, good) -> None:
    keys = [sample["key"] for sample in with_second]
    with pytest.raises(UsageError, match=r"holds 2 pictures.*image="):
        list(SafeIterable(with_second, run_of_two, key="key"))
    with pytest.raises(UsageError, match=r"holds 2 encoded pictures.*image="):
        SafeDataset(with_second, run_of_two, keys=keys)[0]
    lenient = catching.with_policy(Policy(thresholds={"explicit": 1, "minor": 1}))
    with pytest.raises(UsageError, match=r"holds 2 encoded pictures.*image="):  # only those beside them were scored
        SafeDataset(with_second, lenient, images=[good[0]] * COUNT)[0]
    renamed = data_set(with_second).rename_columns({"jpg": "left", "png": "right"})
    for ds in (renamed, renamed.to_iterable_dataset()):
        with pytest.raises(UsageError, match=r"holds 2 pictures.*image_column="):
            list(filter_dataset(ds, run_of_two, key="key"))


@pytest.mark.parametrize("second", [Image.new("RGB", (8, 8)), torch.zeros(3, 8, 8)], ids=["picture", "array"])
def test_a_second_picture_that_is_decoded_is_an_error(samples, run_of_one, second) -> None:
    decoded = [sample | {"png": second} for sample in samples]
    with pytest.raises(UsageError, match="before decoding"):
        next(iter(SafeIterable(decoded, run_of_one, key="key", image="jpg")))
    with pytest.raises(UsageError, match="before decoding"):
        SafeDataset(decoded, run_of_one, key="key", image="jpg")
    with pytest.raises(UsageError, match=r"before \.decode"):
        tars(decoded, run_of_one)


def test_pictures_in_objects_lists_and_tuples(good: list[bytes]) -> None:
    class Sample:
        def __init__(self) -> None:
            self.jpg, self.views, self.label = good[0], [good[1], {"bytes": None, "path": "b.png"}], 3

    assert fields_of(Sample())["label"] == 3
    assert OtherPictures(lambda sample: sample.jpg)(Sample()) == (good[1], "b.png")
    assert OtherPictures(None)((good[0], 3, good[1])) == (good[0], good[1])
    assert OtherPictures(lambda sample: sample[0])((good[0], 3)) == ()
    assert OtherPictures(None)(good[0]) == (good[0],)
    assert OtherPictures(None)({3: good[0], "text": "a.png"}) == (good[0],)
    assert OtherPictures(None)(torch.zeros(3)) == ()


@dataclass
class Holder:
    """An object of the user's own in a field of a sample."""

    content: bytes


@pytest.mark.parametrize(
    "held",
    [
        io.BytesIO,
        lambda b: {b},
        lambda b: deque([b]),
        Holder,
        lambda b: np.frombuffer(b, np.uint8),
        lambda b: np.array([b], object),
    ],
    ids=["file", "set", "deque", "object", "bytes as an array", "array of objects"],
)
@pytest.mark.parametrize("name", ["jpg", None], ids=["image named", "image by a function"])
def test_a_picture_is_found_whatever_holds_it(
    held: Callable[[bytes], Any], name: str | None, good: list[bytes]
) -> None:
    where = Named(name) if name else (lambda sample: sample["jpg"])
    sample = {"jpg": good[0], "more": held(good[1]), "deeper": {"list": [held(good[2])]}, "count": 3}
    assert OtherPictures(where)(sample) == (good[2], good[1])  # in the order of their fields' names
