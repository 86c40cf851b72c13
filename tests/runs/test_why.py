"""Explanations of decisions: for the keys that are asked for, in their order, with reasons and causes and no score."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Policy, Run, apply_policy, why
from safetyfilter.batches import FAILURES, REASON_NAMES, STATUS_CODES, Reason, ScoreBatch
from safetyfilter.decide.meanings import reason_meanings
from safetyfilter.errors import RunError, SecretError, UnfinishedRunError, UsageError
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.start import started
from safetyfilter.signals import PAIR
from tests.runs.making import Row, run_of, source_of
from tests.runs.test_record import SETUP

ODD = ["写真.jpg", "a\nb", "caf\udce9.jpg", "", " ", "\ud800#3", "-x", "[/b]"]
PARTS: dict[str, list[Row]] = {
    "one": [("kept", "k", 0.1, "ok"), ("both", "b", 0.9, "ok"), *((key, "o", 0.1, "ok") for key in ODD)],
    "two": [("gone", "", math.nan, "missing"), ("not", "n", math.nan, "not_an_image"), ("late", "l", 0.9, "ok")],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("runs") / "run")


def finished(place: Path, parts: dict[str, list[Row]] = PARTS, policy: Policy | None = None) -> Run:
    run = run_of(place, parts)
    run.seal_scores(source_of(list(parts)).parts())
    return apply_policy(run, policy or Policy())


def test_what_was_decided_and_the_reasons_in_the_order_asked(run: Run) -> None:
    asked = ["not", "both", "kept", "nobody", "gone", "both", *ODD]
    found = why(run, asked)
    assert [each.key for each in found] == asked
    assert [str(each) for each in found] == [
        "excluded: unscored: not_an_image (none of JPEG, PNG, WebP, GIF, BMP and TIFF)",
        "excluded: co_occurrence: explicit and minor are both present",
        "kept",
        "excluded: the run does not know this key, and loaders exclude it",
        "excluded: unscored: missing (there is no such file)",
        "excluded: co_occurrence: explicit and minor are both present",
        *["kept"] * len(ODD),
    ]
    assert found.counts == {"asked": 6 + len(ODD), "kept": 1 + len(ODD), "excluded": 5, "not_known": 1}
    assert [each.key for each in found[1:3]] == ["both", "kept"]
    assert (found[-1].key, found[-1].keep) == ("[/b]", True)
    assert found[0].as_dict() == {
        "key": "not",
        "known": True,
        "keep": False,
        "reasons": ["unscored"],
        "causes": ["not_an_image"],
        "words": ["unscored: not_an_image (none of JPEG, PNG, WebP, GIF, BMP and TIFF)"],
    }


def test_it_agrees_with_the_decisions_that_loaders_use(run: Run) -> None:
    from safetyfilter import Decisions

    keys = [key for rows in PARTS.values() for key, *_ in rows] + ["nobody"]
    np.testing.assert_array_equal(why(run, keys).reason_bits, Decisions.of(run).reasons(keys))
    assert list(why(run, [])) == []


def test_no_score_and_no_threshold_is_told(tmp_path: Path) -> None:
    policy = Policy(
        thresholds={"explicit": 0.4375, "minor": 0.5625}, exclude=["minor"], exclude_at={"explicit": 0.6875}
    )
    run = finished(tmp_path / "run", {"s": [("a", "a", 0.8125, "ok"), ("b", "b", 0.59375, "ok")]}, policy)
    told = json.dumps([each.as_dict() for each in why(run, ["a", "b"])]) + "".join(map(str, why(run, ["a", "b"])))
    assert "minor is present, and the policy excludes it by itself" in told
    assert not any(mark.isdigit() for mark in told)


def test_a_sample_that_comes_twice_has_the_causes_of_both(tmp_path: Path) -> None:
    parts: dict[str, list[Row]] = {
        "one": [("a", "", math.nan, "missing"), ("b", "x", 0.1, "ok")],
        "two": [("a", "", math.nan, "unreadable"), ("b", "x", 0.1, "ok")],
    }
    (a, b) = why(finished(tmp_path / "run", parts), ["a", "b"])
    assert (a.causes, b.causes, b.keep) == (("missing", "unreadable"), (), True)


def test_known_content_and_causes_of_another_run_are_told(tmp_path: Path) -> None:
    with started(tmp_path / "run", source=source_of(["s"]), setup=SETUP, policy=Policy()) as run:
        digests = np.frombuffer(run.digester().key("a") + run.digester().content(b"a"), np.uint8).reshape(1, 32)
        scores = ScoreBatch(values=np.float32([[0.1, 0.1]]), signals=SETUP.signals)
        run.write(ScoredPart.in_order(0, "s", digests, scores, np.array([True])))
        run.seal_scores(source_of(["s"]).parts())
    (found,) = why(apply_policy(run, Policy()), ["a"])
    assert str(found) == (
        "excluded: known_hash: the picture's bytes, its looks (PDQ) or its URL are on a list of known content"
    )


def test_every_reason_and_every_cause_has_words() -> None:
    assert set(reason_meanings(PAIR)) == set(REASON_NAMES)
    assert set(FAILURES) < set(STATUS_CODES)
    assert all(Reason.from_names([name]) for name in reason_meanings(PAIR))


def test_it_needs_the_secret_and_a_finished_run(tmp_path: Path) -> None:
    unfinished = run_of(tmp_path / "unfinished", PARTS)
    with pytest.raises(UnfinishedRunError):
        why(unfinished, ["kept"])
    run = finished(tmp_path / "run")
    (tmp_path / "run.secret").unlink()
    with pytest.raises(SecretError):
        why(run, ["kept"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("kept", "give a list of keys"),
        (b"kept", "give a list of keys"),
        ([7], "int is not a type of keys; give each as text"),
        (["kept", b"kept"], "bytes is not a type of keys"),
    ],
)
def test_what_is_not_a_list_of_keys(run: Run, keys: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        why(run, keys)


def test_causes_are_taken_from_the_runs_own_scores_alone(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copy(f"{run.path}.secret", tmp_path / "run.secret")
    other = finished(tmp_path / "other", {"one": PARTS["one"], "two": [("gone", "", math.nan, "unreadable")]})
    for number in range(2):
        part, _ = read_scores(other.file("scores", number), other.record.setup.signals)
        if len(part) == 1:
            foreign = other.file("scores", number)
    for number in range(2):
        shutil.copy(foreign, Run.open(tmp_path / "run").file("scores", number))
    assert why(Run.open(tmp_path / "run"), ["kept"])[0].keep
    with pytest.raises(RunError, match=r"not those that its run\.json speaks of"):
        why(Run.open(tmp_path / "run"), ["gone"])
