"""The stage in NeMo Curator's own image pipeline: its tasks, its embedding stage, its writer and its adapter."""

from __future__ import annotations

import copy
import io
import re
import tarfile
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nemo_curator", reason="NeMo Curator is not installed here")

import cloudpickle
from loguru import logger
from nemo_curator.backends.base import BaseStageAdapter
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.image.embedders.clip_embedder import ImageEmbeddingStage
from nemo_curator.stages.image.io.image_reader import ImageReaderStage
from nemo_curator.stages.image.io.image_writer import ImageWriterStage
from nemo_curator.tasks import FileGroupTask, ImageBatch, ImageObject, Task
from nemo_curator.tasks.sentinels import EmptyTask
from nemo_curator.tasks.utils import TaskPerfUtils
from PIL import Image

from safetyfilter import ClipEncoder, Policy, SafetyFilter
from safetyfilter.errors import EncoderMismatchError, UsageError
from safetyfilter.integrations.nemo_curator import SafetyFilterStage, counts_of
from safetyfilter.integrations.recipe import FilterRecipe
from safetyfilter.standin import STANDIN_PAIR
from tests.integrations.curator_weights import write_curator_weights
from tests.integrations.pictures import excluding, pattern, write_encoder

OTHERS = range(1, 10)
PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
ALL = (*OTHERS, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, the same weights as Curator has them, and the probes of two filters that exclude pattern 0."""
    folder = tmp_path_factory.mktemp("curator")
    write_encoder(folder / "encoder")
    write_curator_weights(folder / "models", folder / "encoder")
    encoder = ClipEncoder.load(f"local-dir:{folder / 'encoder'}", device="cpu", precision="fp32")
    for views in ("center", "whole"):
        excluding(encoder, 0, OTHERS, views=views).probes.save(folder / f"{views}.safetensors")
    return folder


def load(place: Path, views: str = "center") -> SafetyFilter:
    recipe = FilterRecipe(
        encoder=f"local-dir:{place / 'encoder'}",
        probes=(str(place / f"{views}.safetensors"),),
        views=views,  # type: ignore[arg-type]
        device="cpu",
        precision="fp32",
    )
    return recipe.load()


@pytest.fixture(scope="module")
def embedding(place: Path) -> ImageEmbeddingStage:
    stage = ImageEmbeddingStage(model_dir=str(place / "models"), model_inference_batch_size=4)
    stage.setup()
    return stage


def batch_of(numbers: tuple[int, ...] | range = ALL) -> ImageBatch:
    images = [
        ImageObject(image_path=f"private/{n}.jpg", image_id=f"secret-{n}", image_data=pattern(n)) for n in numbers
    ]
    return ImageBatch(dataset_name="patterns", data=images)


def write_tar(path: Path) -> None:
    """All patterns, the one that is excluded last."""
    with tarfile.open(path, "w") as tar:
        for place, number in enumerate(ALL):
            content = io.BytesIO()
            Image.fromarray(pattern(number)).save(content, "JPEG", quality=95)
            info = tarfile.TarInfo(f"{place:04d}.jpg")
            info.size = content.tell()
            content.seek(0)
            tar.addfile(info, content)


def numbers_in(batch: ImageBatch) -> list[int]:
    return [int(image.image_id.removeprefix("secret-")) for image in batch.data]


@pytest.fixture
def stage(place: Path) -> SafetyFilterStage:
    stage = SafetyFilterStage(load=partial(load, place))
    stage.setup()
    return stage


def test_embeddings_of_curators_own_stage_are_decided_on(
    stage: SafetyFilterStage, embedding: ImageEmbeddingStage
) -> None:
    (kept,) = BaseStageAdapter(stage).process_batch([embedding.process(batch_of())])
    assert numbers_in(kept) == list(OTHERS)
    counts = counts_of([kept])
    assert (counts["seen"], counts["kept"], counts["excluded"], counts["co_occurrence"]) == (10, 9, 1, 1)
    assert TaskPerfUtils.get_aggregated_stage_stat([kept], "safety_filter", "custom.excluded") == 1


def test_the_pictures_are_embedded_here_where_that_is_asked_for(place: Path) -> None:
    stage = SafetyFilterStage(load=partial(load, place, "whole"), use="pictures")
    batch = batch_of()
    batch.data[1].image_data = None
    batch.data[2].image_data = batch.data[2].image_data.astype(np.float32)  # which is no picture's
    batch.data[3].image_data = np.empty((0, 0, 3), np.uint8)
    (kept,) = BaseStageAdapter(stage).process_batch([batch])
    assert numbers_in(kept) == [1, *range(5, 10)]
    counts = counts_of([kept])
    assert (counts["seen"], counts["co_occurrence"], counts["unscored"]) == (10, 1, 3)


def test_a_picture_without_an_embedding_is_unscored(stage: SafetyFilterStage, embedding: ImageEmbeddingStage) -> None:
    batch = embedding.process(batch_of(OTHERS))
    batch.data[0].embedding, batch.data[8].embedding = None, np.full(32, np.nan, np.float32)
    (kept,) = BaseStageAdapter(stage).process_batch([batch])
    assert numbers_in(kept) == list(OTHERS)[1:-1]
    assert counts_of([kept])["unscored"] == 2


def test_a_batch_without_embeddings_is_an_error(stage: SafetyFilterStage) -> None:
    with pytest.raises(UsageError, match="none of 10 pictures has an embedding: put the stage that embeds before"):
        stage.process(batch_of())


def test_embeddings_whose_pictures_are_gone_are_an_error(stage: SafetyFilterStage, place: Path) -> None:
    without = ImageEmbeddingStage(model_dir=str(place / "models"), remove_image_data=True)
    without.setup()
    with pytest.raises(UsageError, match="remove_image_data=False"):
        stage.process(without.process(batch_of()))


def test_another_clip_is_an_error(stage: SafetyFilterStage, tmp_path: Path) -> None:
    write_curator_weights(tmp_path, write_encoder(tmp_path / "other", seed=1))
    other = ImageEmbeddingStage(model_dir=str(tmp_path))
    other.setup()
    with pytest.raises(EncoderMismatchError, match="the embeddings that came are not those of"):
        stage.process(other.process(batch_of()))


def test_the_same_weights_give_the_same_embeddings(place: Path, embedding: ImageEmbeddingStage) -> None:
    batch = embedding.process(batch_of())
    ours = load(place).encoder.embed([Image.fromarray(pattern(n)) for n in ALL])
    cosines = (ours.vectors * np.stack([image.embedding for image in batch.data])).sum(axis=1)
    assert cosines.min() > 0.9999


def test_counts_of_a_batch_of_which_nothing_is_kept_are_not_lost(
    stage: SafetyFilterStage, embedding: ImageEmbeddingStage, tmp_path: Path
) -> None:
    (kept,) = BaseStageAdapter(stage).process_batch([embedding.process(batch_of((0, 0)))])
    assert kept.data == []
    (written,) = BaseStageAdapter(ImageWriterStage(output_dir=str(tmp_path))).process_batch([kept])
    assert counts_of([written])["co_occurrence"] == 2
    assert written.data == []


def test_tasks_of_one_call_are_added_up(stage: SafetyFilterStage, embedding: ImageEmbeddingStage) -> None:
    tasks = [embedding.process(batch_of()), embedding.process(batch_of((1, 2, 0)))]
    counts = counts_of(BaseStageAdapter(stage).process_batch(tasks))
    assert (counts["seen"], counts["kept"], counts["co_occurrence"]) == (13, 11, 2)


def test_nothing_is_written_to_a_picture_or_told_of_it(
    stage: SafetyFilterStage, embedding: ImageEmbeddingStage, caplog: pytest.LogCaptureFixture
) -> None:
    said = io.StringIO()
    sink = logger.add(said)
    batch = embedding.process(batch_of())
    before = [{f.name: getattr(image, f.name) for f in fields(image)} for image in batch.data]
    with caplog.at_level(0):
        kept = stage.process(batch)
    logger.remove(sink)
    after = [{f.name: getattr(image, f.name) for f in fields(image)} for image in batch.data]
    for old, new in zip(before, after, strict=True):
        assert all(old[name] is new[name] for name in old)
    assert all(image.nsfw_score is None and image.metadata == {} for image in kept.data)
    assert "secret" not in caplog.text + said.getvalue()
    assert "private" not in caplog.text + said.getvalue()
    assert set(kept._metadata) == set(batch._metadata)


def test_an_error_names_no_picture(stage: SafetyFilterStage, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    sink = logger.add(log, diagnose=True)
    batches = iter([batch_of()])  # a line that names a batch would show it in the traceback
    with logger.catch(UsageError):
        stage.process(next(batches))
    logger.remove(sink)
    assert "has an embedding" in log.read_text()
    assert "secret" not in log.read_text()
    assert "private" not in log.read_text()


def test_it_is_sent_to_workers_and_configured(stage: SafetyFilterStage, embedding: ImageEmbeddingStage) -> None:
    sent = cloudpickle.loads(cloudpickle.dumps(stage))
    named = copy.deepcopy(stage).with_(name="first", batch_size=2)
    for other in (sent, named):
        (kept,) = BaseStageAdapter(other).process_batch([embedding.process(batch_of())])
        assert numbers_in(kept) == list(OTHERS)
        assert counts_of([kept], other.name)["excluded"] == 1


def test_behind_curators_own_reader(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader asks DALI for a pipeline on device 0 where there is none, and is given None."""
    dali = pytest.importorskip("nvidia.dali")
    own = dali.pipeline_def
    monkeypatch.setattr(dali, "pipeline_def", lambda **options: own(**(options | {"device_id": None})))
    write_tar(tmp_path / "0.tar")
    reader = ImageReaderStage(dali_batch_size=4, num_threads=1)
    read = reader.process(FileGroupTask(dataset_name="tars", data=[str(tmp_path / "0.tar")]))
    adapter = BaseStageAdapter(SafetyFilterStage(load=partial(load, place, "whole"), use="pictures"))
    kept = [task for batch in read for task in adapter.process_batch([batch])]
    assert [image.image_id for task in kept for image in task.data] == [f"0_{n:06d}" for n in range(9)]
    written = [ImageWriterStage(output_dir=str(tmp_path / "out")).process(task) for task in kept]
    counts = counts_of(written)
    assert (counts["seen"], counts["kept"], counts["co_occurrence"]) == (10, 9, 1)


def test_the_pages_example(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this test's encoder, and stages one after another in the place of Curator's executor."""
    dali = pytest.importorskip("nvidia.dali")
    own = dali.pipeline_def
    monkeypatch.setattr(dali, "pipeline_def", lambda **options: own(**(options | {"device_id": None})))

    def run(pipeline: Pipeline) -> list[Task]:
        tasks: list[Task] = [EmptyTask(dataset_name="", data=None)]
        for stage in pipeline.stages:
            stage.setup()
            adapter = BaseStageAdapter(stage)
            tasks = [made for task in tasks for made in adapter.process_batch([task])]
        return tasks

    monkeypatch.setattr(Pipeline, "run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "0.tar")
    (tmp_path / "models").symlink_to(place / "models")
    (tmp_path / "probes.safetensors").symlink_to(place / "center.safetensors")
    (tmp_path / "policy.toml").write_text(Policy().for_pair(STANDIN_PAIR).to_toml())
    (example,) = re.findall(r"^```py\n(.*?nemo_curator.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[:1]
    example = example.replace("FilterRecipe(", f"FilterRecipe(encoder='local-dir:{place / 'encoder'}', device='cpu', ")
    found: dict[str, Any] = {}
    exec(example, found)
    counts = counts_of(found["tasks"])
    assert (counts["seen"], counts["kept"], counts["co_occurrence"]) == (10, 9, 1)
    with tarfile.open(next((tmp_path / "kept").glob("*.tar"))) as tar:
        assert len(tar.getnames()) == 9


@pytest.mark.parametrize("use", ["both", ""])
def test_what_is_not_a_way_is_refused(use: str) -> None:
    with pytest.raises(UsageError, match="choose embeddings or pictures"):
        SafetyFilterStage(load=FilterRecipe().load, use=use)  # type: ignore[arg-type]
