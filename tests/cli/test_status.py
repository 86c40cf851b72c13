"""``status``: how far a run is and what it was made with, without a sample's name."""

import json
import shutil
from pathlib import Path

import pytest

from safetyfilter import Policy, Run, apply_policy
from safetyfilter.runs.failures import StoredCounts, stored_counts
from tests.cli.commands import command
from tests.cli.conftest import PICTURES, POLICY


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run that a test may change."""
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copy(f"{run.path}.secret", tmp_path / "run.secret")
    return Run.open(tmp_path / "run")


def test_a_finished_run(run: Run) -> None:
    found = command("status", run.path, "--json").json
    assert found["complete"] is True
    assert found["parts"] == found["parts_scored"] == run.part_count > 1
    assert found["samples_scored"] == found["counts"]["seen"] == len(PICTURES)
    assert found["counts"] == run.counts
    assert found["unscored_by_cause"] == {"not_an_image": 1}
    assert found["policy"] == POLICY.as_dict()
    assert found["policy_warning"] is found["notice"] is None
    assert found["source"]["kind"] == "folder"
    assert found["encoder_digest"] == run.record.setup.encoder.digest
    shown = command("status", run.path)
    assert shown.status == 0
    for text in ("complete", "explicit 0.25, minor 0.75", "folder", "not_an_image"):
        assert text in shown.stdout
    assert not any(name in shown.stdout + shown.stderr for name in ("broken", ".jpg", "china"))


def test_a_run_that_is_not_finished_says_how_far_it_is(copied: Run) -> None:
    place = Path(copied.path) / "run.json"
    unfinished = {"complete": False, "counts": {}, "scores": ""}
    place.write_text(json.dumps(json.loads(place.read_text()) | unfinished))
    (Path(copied.path) / "scores" / "part-00001.parquet").unlink()
    found = command("status", copied.path, "--json").json
    assert found["complete"] is False
    assert found["counts"] is None
    assert found["parts_scored"] == found["parts"] - 1
    assert 0 < found["samples_scored"] < len(PICTURES)
    text = " ".join(command("status", copied.path).stdout.replace("│", " ").split())
    assert f"not finished: {found['parts_scored']} of {found['parts']} parts scored" in text
    assert "run the same `safetyfilter scan` again" in text


def test_a_part_that_cant_be_read_is_not_counted(copied: Run) -> None:
    whole = stored_counts(copied)
    assert whole == StoredCounts(
        parts=copied.part_count, samples=len(PICTURES), in_progress=0, failures={"not_an_image": 1}
    )
    (Path(copied.path) / "scores" / "part-00000.parquet").write_bytes(b"damaged")
    assert stored_counts(copied).parts == whole.parts - 1
    assert stored_counts(copied).samples < whole.samples


@pytest.mark.parametrize("threshold", [0.98, 0.99, 1.0])
def test_a_policy_whose_rule_can_hardly_exclude_is_named(copied: Run, threshold: float) -> None:
    apply_policy(copied, Policy(thresholds={"explicit": 0.5, "minor": threshold}))
    done = command("status", copied.path, "--json")
    warned = threshold >= 0.99
    assert (done.json["policy_warning"] is not None) is warned
    assert (f"Hardly any score reaches the threshold of minor, {threshold}" in done.message) is warned


def test_there_is_no_run(tmp_path: Path) -> None:
    done = command("status", tmp_path)
    assert (done.status, done.stdout) == (1, "")
    assert "no run at" in done.message


@pytest.mark.parametrize("job", [("status",), ("decide", "--policy", "strict"), ("report",)], ids=lambda job: job[0])
def test_a_path_is_shown_in_one_piece_whatever_it_holds(run: Run, tmp_path: Path, job: tuple[str, ...]) -> None:
    place = tmp_path / ("long " * 30 + "[bold]a[") / "b[/b]"
    shutil.copytree(run.path, place)
    shutil.copy(f"{run.path}.secret", f"{place}.secret")
    done = command(job[0], place, *job[1:])
    assert done.status == 0, done.stderr
    assert str(place) in done.stdout
