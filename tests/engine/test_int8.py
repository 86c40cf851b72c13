"""Scans in int8: one quantised model in all of a run, its record names it, and another model is another run."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import ClipEncoder, RayEngine, Run, SafetyFilter, open_source, scan
from safetyfilter.embed.int8.cache import quantised_folder
from safetyfilter.engine.in_int8 import in_int8
from safetyfilter.errors import UsageError
from tests.cli.commands import command
from tests.engine.pictures import ALL, GOOD, SIGNALS
from tests.writers import write_files

pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None,
    reason="OpenVINO or NNCF is not installed: pip install 'safetyfilter[openvino]'",
)


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("pictures"), ALL)


@pytest.fixture(scope="module")
def words(pictures: Path, tiny_clip: Path, probes, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A scan on the command line."""
    file = tmp_path_factory.mktemp("probes") / "probes.safetensors"
    probes.save(file)
    return ["scan", pictures, "--encoder", f"local-dir:{tiny_clip}", "--probes", file, "--precision", "int8"]


@pytest.fixture(scope="module")
def run(words: list[object], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("scanned") / "run"
    done = command(*words, "--out", out, "--json")
    assert done.json["seen"] == len(ALL)
    return Run.open(out)


@pytest.fixture
def int8(safe: SafetyFilter, pictures: Path, run: Run) -> SafetyFilter:
    return replace(safe, encoder=in_int8(safe.encoder, open_source(pictures)))


def test_the_record_names_the_model_and_no_picture(run: Run, safe: SafetyFilter) -> None:
    record = json.loads((Path(run.path) / "run.json").read_text())
    names = [path.stem for path in quantised_folder().glob("*.safetensors")]
    assert (record["precision"], [record["quantised"]]) == ("int8", names)
    assert record["versions"]["openvino"]
    assert run.record.setup.encoder == safe.encoder.spec
    assert Run.open(run.path).record == run.record
    status = command("status", run.path, "--json").json
    assert status["precision"] == "int8"


def test_the_scores_are_those_of_the_quantised_model(run: Run, words: list[object], tmp_path: Path) -> None:
    full = command(*words[:-1], "fp32", "--out", tmp_path / "run", "--secret-from", run.path, "--json")
    assert full.status == 0, full.stderr
    one, other = (each.read_scores() for each in (run, Run.open(tmp_path / "run")))
    for signal in SIGNALS:
        both = one[signal].to_numpy(), other[signal].to_numpy()
        assert 0 < np.nanmax(np.abs(both[0] - both[1])) < 0.5  # steep probes, on random weights
    assert one["status"] == other["status"]


def test_a_scan_goes_on_with_the_model_of_its_run(
    int8: SafetyFilter, safe: SafetyFilter, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_files(tmp_path / "pictures", ALL)
    run = scan(open_source(folder), tmp_path / "run", int8)
    write_files(folder, {"a/new.jpg": GOOD["china.jpg"][:-2] + b"\xff\xd9"})
    again = in_int8(safe.encoder, open_source(folder), run)
    assert again.quantised_tower == int8.encoder.quantised_tower
    assert scan(open_source(folder), tmp_path / "run", replace(safe, encoder=again)).counts["seen"] == len(ALL) + 1


def test_another_model_is_another_run(run: Run, safe: SafetyFilter, words: list[object], tmp_path: Path) -> None:
    others = write_files(tmp_path / "others", dict(list(GOOD.items())[:3]))
    done = command(*words, "--out", run.path, "--quantise-on", others)
    assert done.status == 1
    assert "differs in quantised model (--precision int8, --quantise-on)" in done.message
    assert Run.open(run.path).record == run.record
    other = command(*words[:-1], "fp32", "--out", run.path)
    assert "differs in precision (int8 there, float32 here), quantised model" in other.message


def test_a_model_that_is_gone_is_told(run: Run, safe, pictures, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ClipEncoder, "quantised", lambda self, on: sum(1 for _ in on))
    assert in_int8(safe.encoder, open_source(pictures), run) == len(ALL)
    assert f"{run.record.setup.quantised[:12]} is not in {tmp_path}" in caplog.text


def test_workers_that_use_gpus_are_refused(int8: SafetyFilter, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'safetyfilter[ray]'")
    with pytest.raises(UsageError, match="gpus_per_worker=0"):
        scan(open_source(pictures), tmp_path / "run", int8, engine=RayEngine())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--device", "cuda:7"], "no CUDA device"),
        (["--device", "meta"], "int8 is for the processor"),
        (["--precision", "fp32", "--quantise-on", "."], "it is for --precision int8"),
        (["--precision", "fp8"], "give another precision, such as bf16 (--precision bf16)"),
    ],
)
def test_wrong_usage(words: list[object], tmp_path: Path, more: list[str], said: str) -> None:
    done = command(*words, "--out", tmp_path / "run", *more)
    assert done.status in (1, 2)
    assert said in done.message
    assert not (tmp_path / "run").exists()
