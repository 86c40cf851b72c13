"""The demo, whole, as a new user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safetyfilter.errors import OutputError
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.sources import open_source
from safetyfilter.standin.demo import run_demo
from tests.cli.commands import command


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "safetyfilter", "demo", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(finished: subprocess.CompletedProcess[str]) -> dict[str, object]:
    result = json.loads(finished.stdout)
    assert isinstance(result, dict)
    return result


def test_each_step_tells_how_far_it_is(finished: subprocess.CompletedProcess[str]) -> None:
    ended = [line for line in finished.stderr.splitlines() if ", took " in line or ": took " in line]
    assert [line.partition(":")[0] for line in ended] == [
        "rendering pictures to learn from",
        "rendering pictures to clean, as WebDataset tars",
        "embedding pictures to learn from",
        "training probes and choosing thresholds",
        "scanning",
        "exporting what is kept",
        "measuring",
    ]
    assert ": 8,000 images, " in ended[0]
    assert ": 2,000 images, " in ended[4]


def test_the_figures_hold(demo) -> None:
    assert min(demo["auc"].values()) >= 0.98
    assert min(demo["zero_shot_auc"].values()) >= 0.90
    assert demo["pairs"] > 100
    assert demo["rule_recall"] >= 0.97
    assert demo["rule_wrongly_excluded"] <= 0.10


def test_the_counts_add_up_and_are_those_on_disk(demo) -> None:
    assert demo["seen"] == demo["kept"] + demo["excluded"]
    assert demo["reasons"]["unscored"] == 10
    counts = Run.open(demo["paths"]["run"]).counts
    assert {name: counts[name] for name in ("seen", "kept", "excluded")} == {
        name: demo[name] for name in ("seen", "kept", "excluded")
    }
    cleaned = open_source(demo["paths"]["cleaned"])
    assert sum(1 for part in cleaned.parts() for _ in cleaned.samples(part)) == demo["kept"] == demo["exported"]


def test_the_figures_are_the_decisions_own(demo) -> None:
    pictures = Path(demo["paths"]["pictures"])
    truth = pq.read_table(pictures.with_name("truth.parquet")).to_pydict()
    excluded = Decisions.of(Run.open(demo["paths"]["run"])).reasons(truth["key"]) != 0
    caught = [gone for gone, *both in zip(excluded, truth["three"], truth["seven"], strict=True) if all(both)]
    # the truth beside the tars still counts the pictures that were damaged on purpose, all of which are excluded
    assert demo["pairs"] <= len(caught) <= demo["pairs"] + 10
    assert 0 <= sum(caught) - demo["pairs_excluded"] <= 10


def test_no_training_picture_holds_both(demo) -> None:
    for split in ("train", "validation"):
        for caption in Path(demo["paths"][split]).glob("*.txt"):
            words = re.findall(r"\w+", caption.read_text())
            assert not {"three", "seven"} <= set(words)


def test_an_output_that_is_there_is_left_alone(demo) -> None:
    out = Path(demo["paths"]["run"]).parent
    done = command("demo", "--out", out)
    assert (done.status, done.stdout) == (1, "")
    assert "new or empty directory" in done.message


@pytest.mark.parametrize("out", ["s3://bucket/demo", Path("s3://bucket/demo")])
def test_an_output_on_other_storage_is_refused(
    out: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"the demo can't be at s3:/.*bucket/demo yet; give a path on this machine"):
        run_demo(out)
    assert list(tmp_path.iterdir()) == []
