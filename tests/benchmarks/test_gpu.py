"""The benchmark of a CUDA device from end to end on a processor, with a tiny model, and what it makes of figures."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts import each other by name

import gpu  # noqa: E402
import gpu_fp8  # noqa: E402

from safetyfilter.score.training import train_probe  # noqa: E402
from safetyfilter.standin import probes  # noqa: E402

needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: pip install 'safetyfilter[fp8]'"
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_fp8, "renderers", lambda: ThreadPoolExecutor(1))  # processes take longer to start
        patch.setattr(probes, "train_probe", partial(train_probe, regularisation=(1.0,)))
        gpu.main(["--device", "cpu", "--model", "tiny", "--json", str(path)])
    return json.loads(path.read_text())


@needs_torchao
def test_every_section_that_needs_no_gpu_is_measured(result: dict) -> None:
    assert (result["skipped"], result["sections"]["towers"]["skipped"]) == ({}, {})
    assert set(result["sections"]) == {"towers", "pipeline_384", "fp8_flips"}
    ways = {"open_clip", "contiguous", "eager", "graph", "compiled", "fp8", "fp8_compiled"}
    assert set(result["sections"]["towers"]["images_per_second"]) == ways
    assert {f"{way}_over_eager" for way in ways - {"eager"}} | {"fp8_over_bf16", "pipeline_over_bare"} <= set(
        result["ratios"]
    )
    assert all(value > 0 for value in result["ratios"].values())


@needs_torchao
def test_float8_is_rounded_and_nothing_else_is(result: dict) -> None:
    far = {name: each["error_over_spread"] for name, each in result["sections"]["towers"]["beside_fp32"].items()}
    assert far["contiguous"] == far["eager"]
    assert far["open_clip"] == pytest.approx(far["eager"], rel=0.2)
    assert far["graph"] == far["compiled"] < 2 * far["eager"] < far["fp8"] == far["fp8_compiled"] < 0.3
    flips = result["sections"]["fp8_flips"]
    assert flips["decisions"] == 8
    assert 0.9 < flips["cosine_min"] < 1
    assert 0 < flips["error_over_spread"]["bf16"] < flips["error_over_spread"]["fp8"] < 0.5


def test_a_processor_speaks_for_no_choice(result: dict) -> None:
    assert "choices" not in result
    assert "matrix_rate_flops" not in result


@pytest.mark.parametrize(
    ("compiled", "contiguous", "same", "nvjpeg", "said"),
    [
        (1.2, 0.9, 0.999, 2.0, ("be on", "stay", "are within", "is worth")),
        (1.2, 0.7, 0.999, 2.0, ("be on", "stay", "says little, since 60% of all", "is worth")),
        (1.01, 1.1, 0.99, 0.8, ("stay off", "not be", "are NOT within", "is not worth")),
    ],
)
def test_figures_speak_for_choices(compiled, contiguous, same, nvjpeg, said) -> None:
    found = {
        "towers": {"over_eager": {"eager": 1.0, "graph": 1.0, "compiled": compiled, "contiguous": contiguous}},
        "fp8_flips": {"decisions_same": same, "pairs_kept_share": 0.0, "excluded_share": 2 * (1 - contiguous)},
        "jpegs_384": {"nvjpeg_over_cores": nvjpeg},
    }
    choices = gpu.choices(found)
    for name, words in zip(("compile", "channels_last", "fp8", "nvjpeg"), said, strict=True):
        assert words in choices[name]


def test_a_plan_measures_nothing(capsys) -> None:
    gpu.main(["--dry-run"])
    printed = capsys.readouterr().out
    assert "would measure towers, pipeline_384, pipeline_384_compiled, fp8_flips, jpegs_384" in printed


def test_without_a_device_it_says_how_to_try_it() -> None:
    if gpu.torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main([])


def test_what_is_missing_is_named() -> None:
    assert gpu.missing({"json": "x", "no_such_module": "Wheel"}) == ["Wheel"]


def test_no_time_is_left_for_what_is_behind_the_limit(capsys, tmp_path: Path) -> None:
    gpu.main(["--device", "cpu", "--model", "tiny", "--minutes", "-1", "--json", str(tmp_path / "gpu.json")])
    assert "fp8_flips was not measured: no time was left" in capsys.readouterr().out
