"""Logs, warnings and errors of loaders: nothing in them tells of a sample."""

import logging
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from safetyfilter import Policy, SafetyFilter
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.errors import SafetyFilterError
from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from tests.loaders.training import Pictures

CANARY = "-".join(["no", "word", "of", "this"])  # not a text that the lines of a traceback hold


def failing(sample: Any) -> Any:
    """A getter whose error quotes the sample, as those of parsers do."""
    raise ValueError(f"invalid literal: {sample!r}")


class Failing:
    """A data set whose error quotes the sample."""

    def __init__(self, samples: list[dict]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Any:
        raise KeyError(f"{self.samples[number]}")


def said(action: Callable[[], object], caplog) -> str:
    """All that an action logs, warns and raises."""
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    error = ""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            action()
        except SafetyFilterError as raised:
            error = "".join(traceback.format_exception(raised))
    logged = [f"{record.getMessage()} {record.exc_info} {record.exc_text}" for record in caplog.records]
    return "\n".join([caplog.text, *logged, error, *(str(warning.message) for warning in found)])


IMAGES = {
    "of a wrong type": 5,
    "decoded": Image.new("RGB", (8, 8)),
    "no picture": CANARY.encode(),
    "no file": f"/{CANARY}/{CANARY}.jpg",
    "a link": f"https://example.org/{CANARY}",
    "a row": {"bytes": None, "path": CANARY},
    "several": [b"GIF89a", CANARY],
    "null": None,
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("by", ["run", "filter"])
def test_an_image(pictures: Pictures, catching: SafetyFilter, caplog, by: str, image: Any) -> None:
    decides = pictures.folder_run if by == "run" else catching
    # its key is one of the run's, so that it is looked at; those of others are the secret that may not be told
    samples = [
        {"key": key, "jpg": image if number else pictures.content(0), "caption": CANARY, "url": CANARY, CANARY: 3}
        for number, key in enumerate(pictures.keys[:20])
    ]
    actions = [
        lambda: list(SafeIterable(samples, decides, key="key", image="jpg")),
        lambda: list(SafeDataset(samples, decides, key="key", image="jpg")),
        lambda: list(safety_filter(decides, root="/")({"__url__": "/0.tar", "__key__": CANARY, **s} for s in samples)),
    ]
    if isinstance(image, bytes):
        rows = datasets.Dataset.from_list([{name: row[name] for name in ("key", "jpg", "caption")} for row in samples])
        actions.append(lambda: filter_dataset(rows, decides, key="key"))
        actions.append(lambda: list(filter_dataset(rows.to_iterable_dataset(), decides, key="key")))
    for action in actions:
        text = said(action, caplog)
        assert CANARY not in text
        assert not [key for key in pictures.keys if key in text]


@pytest.mark.parametrize("by", ["run", "filter"])
def test_getters_and_data_sets_that_quote_their_samples(pictures: Pictures, catching, caplog, by: str) -> None:
    decides = pictures.folder_run if by == "run" else catching
    samples = [{"key": CANARY, "jpg": CANARY.encode(), "caption": CANARY}] * 20
    rows = datasets.Dataset.from_list(samples)
    stream = rows.to_iterable_dataset()
    found = said(lambda: list(filter_dataset(stream, decides, key=failing, image_column="jpg")), caplog)
    assert CANARY not in found
    for action in (
        lambda: list(SafeIterable(samples, decides, key=failing, image="jpg")),
        lambda: list(SafeIterable(samples, decides, key="key", image=failing)),
        lambda: SafeDataset(samples, decides, key=failing, image=failing),
        lambda: SafeDataset(Failing(samples), decides, key="key", image="jpg"),
        lambda: filter_dataset(rows, decides, key=failing, image_column="jpg"),
        lambda: list(safety_filter(decides, root="/")(samples)),
    ):
        text = said(action, caplog)
        assert CANARY not in text
        assert "of the first 20" in text  # it was an error, and that is what it says


def test_a_loader_that_finds_changed_images_says_how_many(pictures: Pictures, caplog) -> None:
    images = [pictures.content(number) + bytes(number % 10 == 0) for number in range(len(pictures.keys))]
    text = said(lambda: SafeDataset(images, pictures.folder_run, keys=pictures.keys, images=images), caplog)
    assert "of 64 images compared are not those that the run scanned, and are excluded" in text
    assert not [key for key in pictures.keys if key in text]


def test_a_fault_of_a_decoder_that_quotes_the_sample(pictures: Pictures, catching, caplog, monkeypatch) -> None:
    def quoting(self: ImagePreparer, *images: object) -> None:
        raise ValueError(f"can't prepare {CANARY}: {images!r}")

    monkeypatch.setattr(ImagePreparer, "pictures", quoting)
    samples = [{"key": CANARY, "jpg": pictures.content(0)}] * 2
    text = said(lambda: list(SafeIterable(samples, catching, key="key", image="jpg")), caplog)
    assert "is unscored" in text
    assert CANARY not in text
    assert str(pictures.content(0)[:16])[2:-1] not in text


def test_a_missing_file_among_others(pictures: Pictures, catching: SafetyFilter, caplog, tmp_path: Path) -> None:
    lenient = catching.with_policy(Policy(thresholds={"explicit": 1, "minor": 1}))
    paths = [pictures.folder / pictures.keys[0], tmp_path / CANARY, "\udce9" + CANARY, "n\0" + CANARY]
    text = said(lambda: SafeDataset(paths, lenient, images=paths), caplog)
    assert CANARY not in text
