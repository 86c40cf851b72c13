"""The operator in Data-Juicer: its registry, its data sets, its executor and what it writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("data_juicer", reason="Data-Juicer is not installed here")

from data_juicer.config import init_configs
from data_juicer.core import DefaultExecutor
from data_juicer.core.data import NestedDataset
from data_juicer.core.tracer import Tracer
from data_juicer.ops import NON_STATS_FILTERS, OPERATORS, load_ops
from loguru import logger

from safetyfilter import ClipEncoder, Policy
from safetyfilter.errors import UsageError
from safetyfilter.integrations.data_juicer import ImageSafetyFilter
from safetyfilter.standin import STANDIN_PAIR
from tests.integrations.pictures import encoded, excluding, pattern, write_encoder

OTHERS = range(1, 10)
PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, the probes of a filter that excludes pattern 0, and a folder of the patterns."""
    folder = tmp_path_factory.mktemp("juicer")
    encoder = ClipEncoder.load(f"local-dir:{write_encoder(folder / 'encoder')}", device="cpu", precision="fp32")
    excluding(encoder, 0, OTHERS).probes.save(folder / "probes.safetensors")
    (folder / "pictures").mkdir()
    for number in range(10):
        (folder / "pictures" / f"{number}.png").write_bytes(encoded(pattern(number)))
    (folder / "outside.png").write_bytes(encoded(pattern(1)))
    (folder / "pictures" / "broken.png").write_bytes(encoded(pattern(1))[:200])
    return folder


@pytest.fixture
def arguments(place: Path) -> dict[str, Any]:
    return {
        "encoder": f"local-dir:{place / 'encoder'}",
        "probes": [str(place / "probes.safetensors")],
        "image_root": str(place / "pictures"),
        "device": "cpu",
        "precision": "fp32",
    }


@pytest.fixture
def operator(arguments: dict[str, Any]) -> ImageSafetyFilter:
    (made,) = load_ops([{"image_safety_filter": arguments}])
    assert isinstance(made, ImageSafetyFilter)
    return made


def test_it_is_in_the_registry_without_statistics() -> None:
    assert OPERATORS.modules["image_safety_filter"] is ImageSafetyFilter
    assert "image_safety_filter" in NON_STATS_FILTERS.modules


def test_data_juicer_finds_it_by_itself() -> None:
    code = "from data_juicer.ops import OPERATORS; print('image_safety_filter' in OPERATORS.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True", done.stderr


def test_a_sample_is_excluded_if_any_of_its_pictures_is(place: Path, operator: ImageSafetyFilter) -> None:
    inside = place / "pictures"
    rows = [
        ("one", ["1.png"]),
        ("several", ["2.png", str(inside / "3.png"), "4.png"]),
        ("last excluded", ["5.png", "6.png", "0.png"]),
        ("excluded", ["0.png"]),
        ("broken", ["7.png", "broken.png"]),
        ("gone", ["8.png", "no-such.png"]),
        ("outside", [str(place / "outside.png")]),
        ("led outside", ["../outside.png"]),
        ("a link", ["https://host.invalid/1.png"]),
        ("text only", []),
        ("none", None),
        ("empty path", [""]),
    ]
    dataset = NestedDataset.from_dict({"text": [text for text, _ in rows], "images": [paths for _, paths in rows]})
    kept = operator.run(dataset)
    assert kept["text"] == ["one", "several"]
    counts = operator.filter_report()
    assert (counts["seen"], counts["kept"], counts["excluded"]) == (12, 2, 10)
    assert (counts["co_occurrence"], counts["unscored"]) == (2, 8)
    assert kept.column_names == dataset.column_names


def test_pictures_that_samples_hold_as_bytes_are_seen(operator: ImageSafetyFilter) -> None:
    held = [[encoded(pattern(1))], [encoded(pattern(2)), encoded(pattern(0))], [b""], [None], []]
    dataset = NestedDataset.from_dict({"text": list("abcde"), "image_bytes": held})
    assert operator.run(dataset)["text"] == ["a"]


@pytest.mark.parametrize(
    ("paths", "kept"),
    [(["a name that it had"], True), (["0.png"], True), (["a name", "0.png"], False), (["/no/such.png"], False)],
)
def test_paths_beside_bytes(operator: ImageSafetyFilter, paths: list[str], kept: bool) -> None:
    """As Data-Juicer loads them: the bytes for the path of the same number, and the path where there are none."""
    sample = {"images": [paths], "image_bytes": [[encoded(pattern(1))]]}
    assert operator.process_batched(sample) == [kept]


def test_a_sample_with_a_video_is_unscored(operator: ImageSafetyFilter) -> None:
    assert operator.process_batched({"images": [["1.png"], ["1.png"]], "videos": [["a.mp4"], []]}) == [False, True]


def test_a_data_set_without_a_column_of_pictures_is_an_error(operator: ImageSafetyFilter) -> None:
    with pytest.raises(UsageError, match="neither a column 'images' nor 'image_bytes'; name the one"):
        operator.run(NestedDataset.from_dict({"text": ["a", "b"]}))


def test_a_data_set_of_which_no_picture_can_be_read_is_an_error(arguments: dict[str, Any]) -> None:
    operator = ImageSafetyFilter(**(arguments | {"image_root": None}))
    with pytest.raises(UsageError, match="not one of 2 samples has pictures that can be read; name the folder"):
        operator.run(NestedDataset.from_dict({"images": [["1.png"], ["2.png"]]}))


@pytest.mark.parametrize("option", [{"reversed_range": True}, {"stats_export_path": "stats.jsonl"}])
def test_what_would_keep_or_list_the_excluded_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="it would keep, or list, what is to be excluded"):
        ImageSafetyFilter(**option)


def test_an_error_stops_the_run_also_where_data_juicer_would_skip_it(arguments: dict[str, Any]) -> None:
    """With skip_op_error, which recipes have by default, Data-Juicer keeps samples of a batch that failed."""
    operator = ImageSafetyFilter(**(arguments | {"skip_op_error": True, "policy": "no-such-policy"}))
    with pytest.raises(Exception, match="no-such-policy"):
        operator.run(NestedDataset.from_dict({"images": [["1.png"], ["0.png"]]}))


def test_nothing_is_traced(operator: ImageSafetyFilter, tmp_path: Path) -> None:
    tracer = Tracer(str(tmp_path), trace_keys=["images"])
    dataset = NestedDataset.from_dict({"text": ["a", "b"], "images": [["1.png"], ["0.png"]]})
    assert len(operator.run(dataset, tracer=tracer)) == 1
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_results_are_not_taken_from_a_cache(place: Path, arguments: dict[str, Any], tmp_path: Path) -> None:
    changing = place / "pictures" / "changing.png"
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"images": [name]}) + "\n" for name in ("changing.png", "9.png")))
    found = []
    for number in (1, 0):
        changing.write_bytes(encoded(pattern(number)))
        dataset = NestedDataset(NestedDataset.from_json(str(rows), cache_dir=str(tmp_path / "cache")))
        found.append(len(ImageSafetyFilter(**arguments).run(dataset)))
    assert found == [2, 1]


def test_a_recipe_runs_by_data_juicers_own_executor(place: Path, arguments: dict[str, Any], tmp_path: Path) -> None:
    rows = place / "pictures" / "rows.jsonl"  # to whose folder Data-Juicer takes paths to be relative
    samples = [{"text": f"picture {n}", "images": [f"{n}.png"]} for n in range(10)]
    samples.append({"text": "text only", "images": []})
    rows.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(  # which is YAML too
            {
                "project_name": "patterns",
                "dataset_path": str(rows),
                "export_path": str(tmp_path / "out" / "kept.jsonl"),
                "np": 2,
                "open_tracer": True,
                "process": [{"image_safety_filter": arguments}],
            }
        )
    )
    kept = DefaultExecutor(init_configs(["--config", str(recipe)])).run()
    assert sorted(kept["text"]) == [f"picture {n}" for n in range(1, 10)]
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    exported = [json.loads(line) for line in (tmp_path / "out" / "kept.jsonl").read_text().splitlines()]
    assert len(exported) == 9
    assert all(set(sample) == {"text", "images"} for sample in exported)
    for file in written:  # nothing names a sample that is left out
        content = file.read_bytes()
        assert b"picture 0" not in content, file
        assert b"text only" not in content, file


def test_the_pages_example(
    place: Path, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(place / "pictures")
    (tmp_path / "probes.safetensors").symlink_to(place / "probes.safetensors")
    (tmp_path / "policy.toml").write_text(Policy().for_pair(STANDIN_PAIR).to_toml())
    (tmp_path / "pictures" / "samples.jsonl").write_text(
        "".join(json.dumps({"text": str(n), "images": [f"{n}.png"]}) + "\n" for n in range(10))
    )
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    encoder = f"encoder: {arguments['encoder']}\n      device: cpu"
    example = example.replace("encoder: ViT-L-14-quickgelu", encoder).replace("      pretrained: openai\n", "")
    (tmp_path / "recipe.yaml").write_text(example)
    kept = DefaultExecutor(init_configs(["--config", "recipe.yaml"])).run()
    assert sorted(kept["text"]) == [str(n) for n in range(1, 10)]


def test_an_error_names_no_sample(operator: ImageSafetyFilter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data-Juicer logs what each line of a traceback had in its variables."""

    def failing(samples: object) -> None:
        raise OSError(5, "Input/output error")

    operator.process_batched({"images": [["1.png"]]})
    monkeypatch.setattr(operator._decider, "reasons", failing)
    dataset = NestedDataset.from_dict({"images": [["private-1.png"], ["private-0.png"]]})
    log = tmp_path / "log.txt"
    sink = logger.add(log, diagnose=True)
    with logger.catch(OSError):
        operator.run(dataset)
    logger.remove(sink)
    assert "Input/output error" in log.read_text()
    assert "private" not in log.read_text()


def test_no_sample_is_named_in_its_log(operator: ImageSafetyFilter, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(0):
        operator.run(NestedDataset.from_dict({"images": [["1.png"], ["0.png"], ["broken.png"]]}))
    assert "image_safety_filter: seen 3" in caplog.text
    assert "png" not in caplog.text


def test_it_decides_on_more_than_a_batch(place: Path, arguments: dict[str, Any]) -> None:
    operator = ImageSafetyFilter(**(arguments | {"batch_size": 3}))
    numbers = [int(n) for n in np.random.default_rng(0).integers(0, 3, 10)]
    kept = operator.run(NestedDataset.from_dict({"n": numbers, "images": [[f"{n}.png"] for n in numbers]}))
    assert kept["n"] == [n for n in numbers if n]
