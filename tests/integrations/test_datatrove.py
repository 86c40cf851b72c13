"""The step in datatrove's pipelines: its documents and media, its statistics, its executor and its writer."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="datatrove is not installed here")

from datatrove.data import Document, Media, MediaType
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger

from safetyfilter import ClipEncoder, Policy, SafetyFilter
from safetyfilter.errors import UsageError
from safetyfilter.integrations.datatrove import SafetyFilterStep
from safetyfilter.integrations.deciding import SampleDecider
from safetyfilter.integrations.recipe import FilterRecipe
from safetyfilter.standin import STANDIN_PAIR
from tests.integrations.pictures import encoded, excluding, pattern, write_encoder

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, and the probes of a filter that excludes pattern 0."""
    folder = tmp_path_factory.mktemp("datatrove")
    encoder = ClipEncoder.load(f"local-dir:{write_encoder(folder / 'encoder')}", device="cpu", precision="fp32")
    excluding(encoder, 0, range(1, 10)).probes.save(folder / "probes.safetensors")
    return folder


def load(place: Path) -> SafetyFilter:
    return FilterRecipe(
        encoder=f"local-dir:{place / 'encoder'}",
        probes=(str(place / "probes.safetensors"),),
        device="cpu",
        precision="fp32",
    ).load()


def document(name: str, *media: bytes | None, kind: int = MediaType.IMAGE) -> Document:
    found = [
        Media(id=f"{name}-{n}", type=kind, url=f"https://host.invalid/{name}", path="/dev/zero", media_bytes=content)
        for n, content in enumerate(media)
    ]
    return Document(text=name, id=name, media=found)


def documents() -> list[Document]:
    good = [encoded(pattern(number)) for number in range(5)]
    return [
        document("one", good[1]),
        document("several", good[2], good[3], good[4]),
        document("last excluded", good[1], good[0]),
        document("excluded", good[0]),
        document("not fetched", good[1], None),
        document("broken", good[1][:200]),
        document("a video", b"\0\0\0\x18ftypmp42" + bytes(99), kind=MediaType.VIDEO),
        document("text only"),
    ]


def reading(data: object = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
    """A reader, as far as datatrove asks for one."""
    yield from documents()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_document_is_left_out_if_any_of_its_media_is_excluded(place: Path, batch_size: int) -> None:
    step = SafetyFilterStep(partial(load, place), batch_size)
    given = documents()
    kept = list(step.run(iter(given)))
    assert [each.id for each in kept] == ["one", "several"]
    assert all(medium.media_bytes for each in kept for medium in each.media)
    assert all(medium.metadata == {} for each in given for medium in each.media)  # and nothing is written to them
    counts = {name: step.stats[name].total for name in ("total", "forwarded", "dropped", "dropped_co_occurrence")}
    assert counts == {"total": 8, "forwarded": 2, "dropped": 6, "dropped_co_occurrence": 2}
    assert step.stats["dropped_unscored"].total == 4


def test_a_pipeline_of_datatroves_own(place: Path, tmp_path: Path) -> None:
    executor = LocalPipelineExecutor(
        pipeline=[
            reading,
            SafetyFilterStep(partial(load, place)),
            JsonlWriter(str(tmp_path / "out"), compression=None),
        ],
        logging_dir=str(tmp_path / "logs"),
    )
    executor.run()
    (written,) = (tmp_path / "out").iterdir()
    assert [json.loads(line)["id"] for line in written.read_text().splitlines()] == ["one", "several"]
    logged = [file for file in (tmp_path / "logs").rglob("*") if file.is_file()]
    assert logged
    for file in logged:
        assert "last excluded" not in file.read_text()
        assert "host.invalid" not in file.read_text()
    statistics = {step["name"]: step["stats"] for step in json.loads((tmp_path / "logs" / "stats.json").read_text())}
    assert statistics["MEDIA FILTER: safety filter"] == {
        "total": 8,
        "forwarded": 2,
        "dropped": 6,
        "dropped_co_occurrence": 2,
        "dropped_unscored": 4,
    }


def test_the_pages_example(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probes.safetensors").symlink_to(place / "probes.safetensors")
    (tmp_path / "policy.toml").write_text(Policy().for_pair(STANDIN_PAIR).to_toml())
    (example,) = re.findall(r"^```py\n(from datatrove.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    example = example.replace("FilterRecipe(", f"FilterRecipe(encoder='local-dir:{place / 'encoder'}', device='cpu', ")
    exec(example, {"reader": reading})
    (written,) = (tmp_path / "kept").iterdir()
    assert len(gzip.decompress(written.read_bytes()).splitlines()) == 2


def test_an_error_names_no_document(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """datatrove logs what each line of a traceback had in its variables."""

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(SampleDecider, "reasons", failing)
    log = tmp_path / "log.txt"
    sink = logger.add(log, diagnose=True)
    documents = iter([document("private", b"")])
    with logger.catch(OSError):
        list(SafetyFilterStep(partial(load, place)).run(documents))
    logger.remove(sink)
    assert "Input/output error" in log.read_text()
    assert "private" not in log.read_text()


def test_nothing_comes_of_nothing(place: Path) -> None:
    assert list(SafetyFilterStep(partial(load, place)).run(None)) == []


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 0; give a whole number from 1"):
        SafetyFilterStep(FilterRecipe().load, 0)
