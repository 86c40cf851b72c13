"""Objects as tables in a notebook: what a person wants to see at once, all text escaped, never an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from safetyfilter import Policy, Run, calibrate_thresholds, evaluate
from safetyfilter.evaluation.as_html import GROUPS_SHOWN
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import html_notes, html_table
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.score.card import ProbeCard
from safetyfilter.signals import SignalPair
from tests.runs.making import run_of
from tests.runs.test_record import SETUP

HOSTILE = "<script>alert(1)</script>\u202e\ud800\0 & \"'"
HARMLESS = "<script>alert(1)</script>\\u202e\\ud800\\u0000 & \"'"
"""The text that a reader of the table sees."""


class Reader(HTMLParser):
    """The rows of tables as texts, the sentences above, and what else a table has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.notes: list[str] = []
        self.captions: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.scopes: list[str | None] = []
        html.encode()  # a lone surrogate could not be sent to a page
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        for kind, texts in (("th", self.rows[-1:]), ("td", self.rows[-1:]), ("p", [self.notes]), ("caption", None)):
            if tag == kind:
                (texts[0] if texts else self.captions).append("")
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = {"th": lambda: self.rows[-1], "td": lambda: self.rows[-1], "p": lambda: self.notes}
        if self.open and (self.open[-1] in where or self.open[-1] == "caption"):
            where.get(self.open[-1], lambda: self.captions)()[-1] += data

    def __getitem__(self, name: str) -> list[str]:
        (found,) = [row[1:] for row in self.rows if row[0] == name]
        return found


def read(shown: object) -> Reader:
    html = shown if isinstance(shown, str) else shown._repr_html_()  # type: ignore[attr-defined]
    found = Reader(html)
    assert set(found.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert len(found.captions) == found.tags.count("table")
    assert set(found.scopes) <= {"row", "col"}
    assert not re.search(r"color|background|#[0-9a-f]{3}", html.replace(HARMLESS, ""))  # the page's own, dark or light
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    rows = [("a", "x", 0.9, "ok"), ("b", "y", 0.1, "ok"), ("c", "z", 0.2, "ok"), ("d", "", np.nan, "truncated")]
    return run_of(tmp_path / "RUN", {"0": rows})


def finished(run: Run, **changes: object) -> Run:
    """The run as if it had been decided; nothing of it is on the disk."""
    from safetyfilter.runs.record import COUNT_NAMES

    counts = {**dict.fromkeys(COUNT_NAMES, 0), "seen": 4, "kept": 2, "excluded": 2, "co_occurrence": 1, "unscored": 1}
    run.record = replace(run.record, complete=True, scores="0", counts=counts, **changes)  # type: ignore[arg-type]
    return run


def test_a_table_is_plain_text_in_cells_with_a_caption_and_heads() -> None:
    found = read(html_notes([HOSTILE]) + html_table(HOSTILE, [(HOSTILE, HOSTILE)], columns=("", HOSTILE)))
    assert (found.captions, found.notes) == ([HARMLESS], [HARMLESS])
    assert found.rows == [["", HARMLESS], [HARMLESS, HARMLESS]]
    assert found.scopes == ["col", "col", "row"]


class TestRun:
    def test_one_that_is_complete_shows_its_counts_and_what_they_rest_on(self, run: Run) -> None:
        found = read(finished(run))
        assert found["where"] == [str(run.path)]
        assert found["state"] == ["complete"]
        assert found["decisions rest on"] == ["its own scores alone"]
        assert found["thresholds"] == ["explicit 0.5, minor 0.5"]
        assert found["seen"] == ["4", "100 %"]
        assert found["kept"] == ["2", "50.0 %"]
        assert found["unscored"] == ["1", "25.0 %"]
        assert "known_hash" not in [row[0] for row in found.rows]

    def test_nothing_is_read_for_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        run = finished(run)
        monkeypatch.setattr("safetyfilter.storage.Location.open", lambda *_: pytest.fail("something was read"))
        assert read(run)["seen"] == ["4", "100 %"]

    @pytest.mark.parametrize(("scores", "remedy"), [("", "safetyfilter scan"), ("0", "safetyfilter decide")])
    def test_one_that_is_not_finished_says_how_to_go_on(self, run: Run, scores: str, remedy: str) -> None:
        run.record = replace(run.record, scores=scores)
        found = read(run)
        assert found["state"][0].startswith("not finished; run ")
        assert remedy in found["state"][0]
        assert found.captions == ["Run"]

    def test_stand_ins_warnings_and_other_grounds_are_told(self, run: Run) -> None:
        pair = SignalPair(explicit=HOSTILE, minor="seven", notice="Scores nothing real.")
        policy = Policy(thresholds={HOSTILE: 1, "seven": 0.5}, pair=pair)
        run = finished(run, setup=replace(SETUP, pair=pair), policy=policy, decided_with=DecidedWith(runs=("a",)))
        found = read(run)
        assert found.notes[0] == "Scores nothing real."
        assert found.notes[1].startswith(f"Hardly any score reaches the threshold of {HARMLESS}")
        assert found["decisions rest on"] == ["its own scores, and 1 other run"]
        run = finished(run, applied_from="a")
        assert found["thresholds"] == [f"{HARMLESS} 1.0, seven 0.5"]
        assert read(run)["decisions rest on"] == ["the decisions of another copy of the data set, by content"]

    def test_one_of_a_billion_samples(self, run: Run) -> None:
        run = finished(run)
        run.record = replace(run.record, counts={**run.record.counts, "seen": 10**9, "kept": 10**9 - 2})
        assert read(run)["kept"] == ["999,999,998", "> 99.9 %"]

    def test_a_summary_shows_the_causes_too(self, run: Run) -> None:
        record = finished(run).record
        summary = SimpleNamespace(record=record, movable=False, failures={"truncated": 1})
        found = read(RunSummary._repr_html_(summary))  # type: ignore[arg-type]
        assert found["truncated"] == ["1", "25.0 %"]
        assert "no other thresholds can be tried" in found.notes[0]


class TestPolicy:
    def test_thresholds_exclusions_and_the_rule(self) -> None:
        found = read(Policy.preset("laion-0.98", thresholds={"explicit": 0.3, "minor": 0.25}))
        assert found["thresholds"] == ["explicit 0.3, minor 0.25"]
        assert found["excluded alone"] == ["explicit at 0.98"]
        assert "explicit and minor are both" in found["rule"][0]
        assert read(Policy())["excluded alone"] == ["none: the rule only"]

    def test_a_calibration_and_a_threshold_that_is_not_its(self, calibrated: Callable[[bool], object]) -> None:
        policy = calibrated(True).policy()  # type: ignore[attr-defined]
        assert "of the rule of 0.1 at the most" in read(policy)["calibrated"][0]
        assert "other thresholds" not in read(policy)["calibrated"][0]
        other = replace(policy, thresholds={**policy.thresholds, "minor": 0.123})
        assert "; other thresholds are in use for minor (calibrated: " in read(other)["calibrated"][0]


@pytest.fixture
def columns() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    labels = {signal: rng.random(2000) < 0.3 for signal in ("explicit", "minor")}
    return {signal: rng.beta(np.where(known, 8, 1), np.where(known, 2, 9)) for signal, known in labels.items()}, labels


@pytest.fixture
def calibrated(columns: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> Callable[[bool], object]:
    def made(rule: bool) -> object:
        return calibrate_thresholds(*columns, max_miss_rate=0.1, signals=None if rule else ["minor"])

    return made


class TestCalibration:
    @pytest.mark.parametrize("rule", [True, False], ids=["rule", "signals"])
    def test_it_shows_what_it_rests_on_and_what_it_costs(
        self, calibrated: Callable[[bool], object], rule: bool
    ) -> None:
        calibration = calibrated(rule)
        found, minor = read(calibration), calibration["minor"]  # type: ignore[index]
        assert found["minor"][0] == repr(minor.threshold)
        assert found["minor"][1:3] == [str(minor.positives), str(minor.misses)]
        assert found["minor"][4:6] == [f"{minor.negatives:,}", f"{minor.excluded_negatives:,}"]
        assert ("rule" in [row[0] for row in found.rows]) is rule
        assert ("of the rule" in found.captions[0]) is rule


class TestEvaluation:
    def test_precision_and_recall_with_intervals_by_signal_and_rule(
        self, columns: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
    ) -> None:
        evaluation = evaluate(*columns)
        found = read(evaluation)
        assert found["minor"][2:4] == [
            str(evaluation.signals["minor"].precision),
            str(evaluation.signals["minor"].recall),
        ]
        assert evaluation.rule is not None
        assert found["co_occurrence"][3] == str(evaluation.rule.recall)
        assert found["kept"][0] == f"{evaluation.kept:,}"

    @pytest.mark.parametrize("count", [2, GROUPS_SHOWN + 3])
    def test_groups_are_escaped_and_not_endless(
        self, columns: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], count: int
    ) -> None:
        evaluation = evaluate(*columns)
        found = read(replace(evaluation, groups={f"{HOSTILE} {index}": evaluation for index in range(count)}))
        shown = {row[0].rpartition(": ")[0] for row in found.rows if row[0].startswith(HARMLESS)}
        assert len(shown) == min(count, GROUPS_SHOWN)
        assert ("3 more are in `groups`" in found.captions[-1]) is (count > GROUPS_SHOWN)

    def test_one_signal_without_the_other_has_no_rule(
        self, columns: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
    ) -> None:
        scores, labels = columns
        found = read(evaluate({"minor": scores["minor"]}, {"minor": labels["minor"]}))
        assert [row[0] for row in found.rows] == ["", "minor"]


class TestProbeCard:
    def test_it_shows_how_the_probe_was_made_and_measured(self) -> None:
        card = ProbeCard(
            method="logistic-regression", positives=800, negatives=1200, folds=5, groups=40, auc=0.98765,
            thresholds={"0.99": 0.123456}, provenance=HOSTILE,
        )  # fmt: skip
        found = read(card)
        assert found["fitted on"] == ["800 positives, 1,200 negatives"]
        assert found["cross-validation"] == ["5 folds, samples in 40 groups"]
        assert found["AUC, held out"] == ["0.9877"]
        assert found["0.99"] == ["0.1235"]
        assert found["provenance"] == [HARMLESS]
        assert "created" not in [row[0] for row in found.rows]

    @pytest.mark.parametrize(
        "anything", [HOSTILE, 10**400, float("nan"), ["x"], {"0.9": HOSTILE}, {"0.9": None}, True, None]
    )
    def test_a_card_of_a_file_may_hold_anything(self, anything: object) -> None:
        fields = ("method", "created", "positives", "negatives", "folds", "groups", "auc", "thresholds", "provenance")
        assert read(ProbeCard(**dict.fromkeys(fields, anything))).captions[0] == "Probe card"  # type: ignore[arg-type]
