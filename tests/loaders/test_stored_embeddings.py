"""Loaders on a run of stored embeddings, which saw no picture: samples are told by their keys alone."""

from __future__ import annotations

import logging
from pathlib import Path

import datasets
import numpy as np
import pytest

from safetyfilter import LinearProbe, Policy, ProbeBank, Run, SafetyFilter, open_source, scan
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import UsageError
from safetyfilter.loaders.datasets import filter_dataset
from safetyfilter.loaders.torch_iterable import SafeIterable
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.loaders.webdataset import safety_filter
from tests.conftest import good_images
from tests.writers import write_embedding_job

IMAGES = dict(sorted(good_images().items()))
KEYS = list(IMAGES)
SAMPLES = [{"key": key, "jpg": content} for key, content in IMAGES.items()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every second sample is excluded."""
    place = tmp_path_factory.mktemp("stored")
    encoder = NamedEncoder.named("ViT-B-32-quickgelu", "openai")
    weight = np.eye(512, dtype=np.float32)[0]
    probes = ProbeBank(
        [
            LinearProbe(signal=signal, weight=weight * 10, bias=0.0, encoder=encoder.spec.digest)
            for signal in ("explicit", "minor")
        ]
    )
    rows = np.zeros((len(KEYS), 512), np.float16)
    rows[np.arange(len(KEYS)), 0] = np.where(np.arange(len(KEYS)) % 2, 1, -1)
    job = write_embedding_job(place / "embeddings", [rows], keys=[KEYS])
    safe = SafetyFilter(encoder, probes, Policy())
    return scan(open_source(job), place / "run", safe)


def test_samples_are_told_by_their_keys_and_a_warning_says_so_once(run: Run, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        safe = SafeIterable(SAMPLES, run, key="key", image="jpg")
        assert [sample["key"] for sample in safe] == KEYS[::2]
        assert [sample["key"] for sample in safe] == KEYS[::2]
    assert [text.partition(":")[0] for text in caplog.messages] == [
        f"the run {run.path} was made from stored embeddings and saw no picture"
    ]
    assert safe.filter_report()["drifted"] == 0


@pytest.mark.parametrize("per_shard", [True, False])
def test_by_shard_too(run: Run, per_shard: bool) -> None:
    where = {"shard_of": lambda sample: "img_emb/img_emb_0.npy"} if per_shard else {}
    safe = SafeIterable(SAMPLES, run, key="key", image="jpg", per_shard=per_shard, **where)
    assert [sample["key"] for sample in safe] == KEYS[::2]


def test_a_data_set_with_a_length_and_rows_with_keys(run: Run) -> None:
    safe = SafeDataset(SAMPLES, run, key="key", image="jpg")
    assert [sample["key"] for sample in safe] == KEYS[::2]
    features = datasets.Features({"image": datasets.Image(), "key": datasets.Value("string")})
    rows = {"image": [{"bytes": content, "path": None} for content in IMAGES.values()], "key": KEYS}
    assert filter_dataset(datasets.Dataset.from_dict(rows, features=features), run, key="key")["key"][:] == KEYS[::2]


def test_a_sample_with_another_picture_is_excluded_for_an_embedding_speaks_for_one(run: Run) -> None:
    samples = [{**sample, "png": SAMPLES[1]["jpg"]} if not number else sample for number, sample in enumerate(SAMPLES)]
    for safe in (
        SafeIterable(samples, run, key="key", image="jpg"),
        SafeDataset(samples, run, key="key", image="jpg"),
    ):
        assert [sample["key"] for sample in safe] == KEYS[2::2]
        assert safe.filter_report()["drifted"] >= 1


def test_pictures_can_t_be_compared(run: Run) -> None:
    data = datasets.Dataset.from_dict({"image": [None]}, features=datasets.Features({"image": datasets.Image()}))
    for make in (
        lambda: SafeIterable(SAMPLES, run, key="key", image="jpg", verify_content=True),
        lambda: SafeDataset(SAMPLES, run, key="key", image="jpg", verify_content="access"),
        lambda: safety_filter(run, root="/", verify_content=True),
        lambda: filter_dataset(data, run),
    ):
        with pytest.raises(UsageError, match="made from stored embeddings and saw no picture, so that none can be"):
            make()


def test_shards_of_tars_whose_embeddings_these_are(run: Run, tmp_path: Path) -> None:
    """A run of embeddings knows its own files alone, not the tars that the pictures lie in."""
    samples = [{**sample, "tar": "0.tar"} for sample in SAMPLES]
    safe = SafeIterable(samples, run, key="key", per_shard=True, shard_of="tar")
    with pytest.raises(Exception, match="knows none of the first"):
        list(safe)
