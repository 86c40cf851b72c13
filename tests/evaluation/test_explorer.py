"""The explorer without a page: its counts are those of `apply_policy`, and it names no sample."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import (
    LinearProbe,
    Policy,
    ProbeBank,
    Run,
    SignalPair,
    ThresholdExplorer,
    apply_policy,
    calibrate_thresholds,
    evaluate,
)
from safetyfilter.decide.presets import PRESETS
from safetyfilter.errors import CalibrationError, MissingExtraError, OutputError, UnfinishedRunError, UsageError
from safetyfilter.evaluation.figures_plotly import DARK, LIGHT, plane_figure
from safetyfilter.evaluation.joint_scores import JointScoreDisplay
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.plane_labels import PlaneLabels
from safetyfilter.evaluation.trade_off import TradeOffDisplay
from safetyfilter.filter import policy_for
from safetyfilter.runs.record import COUNT_NAMES
from tests.runs.joining import NARROW, Row, scanned
from tests.runs.making import run_of
from tests.runs.test_record import SETUP

HTML = "<b onclick=alert(1)>&\"'"


def rows_of(count: int) -> list[Row]:
    """Samples of all kinds: scores at thresholds and between, failures, matches on hash lists."""
    rng = np.random.default_rng(3)
    pool = [0, 1, 0.1, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.98, *rng.beta(0.5, 0.5, 30)]
    return [
        Row(
            f"sample-{number}.jpg",
            tuple(rng.choice(pool, 2).tolist()),
            str(rng.choice(["ok"] * 9 + ["truncated"])),
            content=str(number),
            known=number % 25 == 0,
        )
        for number in range(count)
    ]


ROWS = rows_of(300)
LABELS = {
    "key": [row.key for row in ROWS],
    "explicit": [row.scores[SETUP.signals.index("explicit")] > 0.4 for row in ROWS],
    "minor": [None if number % 3 else row.scores[0] > 0.6 for number, row in enumerate(ROWS)],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return scanned(tmp_path_factory.mktemp("explored") / "run", [ROWS[:200], ROWS[200:]])


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, to be decided again."""
    return scanned(tmp_path_factory.mktemp("decided") / "run", [ROWS[:200], ROWS[200:]])


@pytest.fixture(scope="module")
def table(run: Run) -> pa.Table:
    return run.read_scores().select(["explicit", "minor"])


def parts_of(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts_of(child)


def part(explorer: ThresholdExplorer, kind: type, **traits: object) -> Any:
    """The one widget in an explorer that is of a kind, by its traits."""
    (found,) = (
        each
        for each in parts_of(explorer.widget)
        if isinstance(each, kind) and all(getattr(each, name, None) == value for name, value in traits.items())
    )
    return found


def control(explorer: ThresholdExplorer, signal: str) -> Any:
    return part(explorer, ipywidgets.DOMWidget, name=signal)


def press(explorer: ThresholdExplorer) -> str:
    """Press the button, and return what the explorer says then."""
    part(explorer, ipywidgets.Button).click()
    return str(explorer.widget.children[-1].value)


def shown(explorer: ThresholdExplorer) -> str:
    return "".join(each.value for each in parts_of(explorer.widget) if isinstance(each, ipywidgets.HTML))


def state(explorer: ThresholdExplorer) -> str:
    """Everything that an explorer sends to a page, but for scripts."""
    sent = [each.get_state() for each in parts_of(explorer.widget)]
    return json.dumps([{k: v for k, v in one.items() if k not in ("_esm", "_css")} for one in sent], default=str)


class TestCounts:
    @pytest.mark.parametrize("preset", PRESETS)
    def test_they_are_those_of_apply_policy(self, run: Run, decided: Run, preset: str) -> None:
        explorer = ThresholdExplorer(run)
        part(explorer, ipywidgets.Dropdown).value = preset
        for place, other in ((0, 40), (70, 1), (38, 73)):
            control(explorer, "explicit").place, control(explorer, "minor").place = place, other
            counts = apply_policy(decided, explorer.policy).counts
            assert explorer.outcome.to_dict() == counts
            assert all(f"<td>{counts[name]:,}</td>" in shown(explorer) for name in ("seen", "kept", "excluded"))
        assert explorer.policy.exclude == Policy.preset(preset).exclude

    def test_it_starts_from_the_runs_policy(self, tmp_path: Path) -> None:
        policy = Policy(thresholds={"explicit": 0.12345, "minor": 0.99999976}, exclude_at={"minor": 0.77777})
        run = scanned(tmp_path / "run", [ROWS], policy=policy)
        explorer = ThresholdExplorer(run)
        assert explorer.policy == policy
        assert explorer.outcome.to_dict() == run.counts
        assert part(explorer, ipywidgets.Dropdown).value == "as given"
        assert "Hardly any score reaches" in shown(explorer)

    def test_further_signals_stay(self) -> None:
        policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.25}, exclude=["other"])
        scores = {"explicit": [0.1, 0.9, 0.1], "minor": [0.1, 0.9, 0.1], "other": [0.3, 0.1, 0.1]}
        explorer = ThresholdExplorer(scores, policy=policy)
        part(explorer, ipywidgets.Dropdown).value = "strict"
        assert explorer.policy.exclude == {"explicit", "minor", "other"}
        assert (explorer.outcome.kept, explorer.outcome.reasons["other_signal"]) == (1, 1)

    @pytest.mark.parametrize("scores", [[], [float("nan")] * 3])
    def test_of_nothing(self, scores: list[float]) -> None:
        explorer = ThresholdExplorer({"explicit": scores, "minor": scores})
        control(explorer, "minor").place = 0
        assert explorer.outcome.kept == 0

    def test_of_billions(self, table: pa.Table) -> None:
        plane = ScorePlane.from_scores(table)
        large = replace(
            plane, scored=plane.scored * 10**9, free=plane.free * 10**9, seen=int(plane.scored.sum()) * 10**9
        )
        explorer = ThresholdExplorer(replace(large, reasons=dict.fromkeys(plane.reasons, 0)))
        assert explorer.outcome.seen > 2**32
        assert f"{explorer.outcome.seen:,}" in shown(explorer)

    def test_a_policy_can_be_set(self, run: Run) -> None:
        explorer = ThresholdExplorer(run)
        explorer.policy = Policy(thresholds={"explicit": 0.3, "minor": 0.98}, exclude=["minor"])
        assert (control(explorer, "explicit").place, part(explorer, ipywidgets.Dropdown).value) == (
            explorer._explored.plane.grids[0].place(0.3),
            "no-minors",
        )
        odd = Policy(exclude_at={"minor": 0.25})
        explorer.policy = odd
        assert (explorer.policy, part(explorer, ipywidgets.Dropdown).value) == (odd, "as set")
        for wrong in (Policy(thresholds={"explicit": 0.123, "minor": 0.5}), Policy(exclude_at={"minor": 0.123})):
            with pytest.raises(UsageError, match=r"0\.12 and 0\.13 beside it"):
                explorer.policy = wrong
        assert explorer.policy == odd


class TestInput:
    @pytest.mark.parametrize("given", [lambda run: run, lambda run: run.path, lambda run: str(run.path)])
    def test_a_run(self, run: Run, given: Any) -> None:
        assert ThresholdExplorer(given(run)).outcome.to_dict() == run.counts

    @pytest.mark.parametrize(
        "given",
        [
            lambda table, _: table,
            lambda table, _: table.to_pydict(),
            lambda table, _: table.to_pandas(),
            lambda table, _: ScorePlane.from_scores(table),
            lambda table, folder: pq.write_table(table, folder / "scores.parquet") or folder / "scores.parquet",
            lambda table, folder: table.to_pandas().to_csv(folder / "scores.csv") or str(folder / "scores.csv"),
        ],
        ids=["table", "mapping", "data frame", "plane", "parquet", "csv"],
    )
    def test_scores(self, table: pa.Table, tmp_path: Path, given: Any) -> None:
        explorer = ThresholdExplorer(given(table, tmp_path))
        assert explorer.outcome == ScorePlane.from_scores(table).outcome(Policy())
        assert explorer.findings == []

    @pytest.mark.parametrize(
        "given",
        [
            lambda labels, _: labels,
            lambda labels, _: pa.table(labels),
            lambda labels, _: pd.DataFrame(labels).sample(frac=1, random_state=0),
            lambda labels, folder: pq.write_table(pa.table(labels), folder / "l.parquet") or folder / "l.parquet",
        ],
        ids=["mapping", "table", "data frame", "parquet"],
    )
    def test_labels_of_a_run(self, run: Run, tmp_path: Path, given: Any) -> None:
        explorer = ThresholdExplorer(run, given(LABELS, tmp_path), confidence=0.9)
        control(explorer, "minor").place = 20
        measured = evaluate(run.read_scores(), run.align_labels(pa.table(LABELS)), explorer.policy, confidence=0.9)
        for found, metrics in zip(explorer.findings, [*measured.signals.values(), measured.rule], strict=True):
            assert (found.precision, found.recall) == (metrics.precision, metrics.recall)
        assert f"{explorer.findings[1].recall.low:.3f} to " in shown(explorer)
        assert "90 % intervals" in shown(explorer)

    def test_labels_of_scores(self, run: Run) -> None:
        keys = pa.array([row.key for row in ROWS])
        scores = pa.table({"key": keys, "explicit": [row.scores[0] for row in ROWS], "minor": [0.9] * len(ROWS)})
        by_row = ThresholdExplorer(scores.drop_columns("key"), {"explicit": LABELS["explicit"]}).findings
        turned = pa.table({name: LABELS[name][::-1] for name in ("key", "explicit")})
        assert ThresholdExplorer(scores, turned).findings == by_row
        assert by_row[0].recall.total == sum(LABELS["explicit"])

    def test_labels_of_a_plane(self, table: pa.Table) -> None:
        plane = ScorePlane.from_scores(table)
        labels = PlaneLabels.from_scores(plane, table, {"minor": [True] * len(table)})
        assert ThresholdExplorer(plane, labels).findings[1].recall.total == len(table)
        with pytest.raises(UsageError, match="the labels are dict, and a ScorePlane holds counts"):
            ThresholdExplorer(plane, {"minor": [True] * len(table)})

    @pytest.mark.parametrize(
        ("scores", "labels", "message"),
        [
            ({"explicit": [0.5]}, None, "no column 'minor'"),
            ({"explicit": [0.5], "minor": [1.5]}, None, r"must lie in \[0, 1\]"),
            ({"explicit": [0.5], "minor": [0.5, 0.5]}, None, "give one a sample"),
            (7, None, "give a column for each signal"),
            ("nowhere.parquet", None, "there are no scores at nowhere.parquet"),
            ({"explicit": [0.5], "minor": [0.5]}, {"other": [True]}, "no column 'explicit'"),
            ({"explicit": [0.5], "minor": [0.5]}, {"minor": [True, False]}, "there are 1 rows in the scores and 2"),
            ({"explicit": [0.5], "minor": [0.5]}, {"minor": ["perhaps"]}, "not all labels"),
            ({"explicit": [0.5], "minor": [0.5]}, {"minor": [[True], 3]}, "can't be taken as a table"),
            ({"explicit": [0.5], "minor": [0.5]}, "nowhere.csv", "there are no labels at nowhere.csv"),
        ],
    )
    def test_bad_ones(self, scores: Any, labels: Any, message: str) -> None:
        with pytest.raises(CalibrationError, match=message):
            ThresholdExplorer(scores, labels)

    def test_a_part_of_a_run(self, run: Run) -> None:
        with pytest.raises(CalibrationError, match="is a part of a run"):
            ThresholdExplorer(run.file("scores", 0).path)

    def test_a_run_that_is_not_finished(self, tmp_path: Path) -> None:
        with pytest.raises(UnfinishedRunError, match="is not finished"):
            ThresholdExplorer(run_of(tmp_path / "run", {"a": [("key", "content", 0.5, "ok")]}))

    @pytest.mark.parametrize("confidence", [0, 1, 95])
    def test_a_confidence_that_is_none(self, confidence: float) -> None:
        with pytest.raises(UsageError, match="give a number between 0 and 1"):
            ThresholdExplorer({"explicit": [0.5], "minor": [0.5]}, confidence=confidence)

    def test_a_policy_to_start_from(self, run: Run, decided: Run) -> None:
        policy = Policy(thresholds={"explicit": 0.31415, "minor": 0.5}, exclude_at={"minor": 0.27182})
        explorer = ThresholdExplorer(run, policy=policy)
        assert explorer.policy == policy
        assert explorer.outcome.to_dict() == apply_policy(decided, policy).counts
        with pytest.raises(UsageError, match="count them again"):
            ThresholdExplorer(run, policy=Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.5}))

    @pytest.mark.parametrize("missing", ["ipywidgets", "anywidget"])
    def test_without_what_it_needs(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(
            MissingExtraError, match=rf"{missing} is not installed: pip install 'safetyfilter\[notebook\]'"
        ):
            ThresholdExplorer({"explicit": [0.5], "minor": [0.5]})


class TestNumberBox:
    @pytest.mark.parametrize(
        ("typed", "taken", "note"),
        [
            ("0.3", 0.3, ""),
            (" 1e-3 ", 0.001, ""),
            ("0", 0.0, ""),
            ("1", 1.0, ""),
            ("0.5003", 0.5, "0.5003 lies between two thresholds that were counted; the nearest is taken, 0.5,"),
            ("0.99999", 1.0, "the nearest is taken, 1,"),
            ("0,3", 0.7, "'0,3' is not a number from 0 to 1; the threshold stays."),
            ("", 0.7, "'' is not a number"),
            ("nan", 0.7, "'nan' is not a number"),
            ("1.01", 0.7, "'1.01' is not a number from 0 to 1"),
            ("-0.1", 0.7, "'-0.1' is not a number from 0 to 1"),
        ],
    )
    def test_any_number(self, table: pa.Table, typed: str, taken: float, note: str) -> None:
        explorer = ThresholdExplorer(table, policy=Policy(thresholds={"explicit": 0.5, "minor": 0.7}))
        box = control(explorer, "minor")
        box._handle_custom_msg({"typed": typed}, [])
        assert explorer.policy.thresholds["minor"] == taken
        assert explorer.outcome == ScorePlane.from_scores(table).outcome(explorer.policy)
        assert note in box.note
        assert bool(box.note) == bool(note)
        box.place = 3
        assert box.note == ""
        assert box.said.endswith("%")

    @pytest.mark.parametrize(("place", "taken"), [(-5, 0.0), (10**6, 1.0)])
    def test_a_place_that_is_none(self, table: pa.Table, place: int, taken: float) -> None:
        explorer = ThresholdExplorer(table)
        control(explorer, "minor").place = place
        assert explorer.policy.thresholds["minor"] == taken


class TestFile:
    def test_it_is_written_and_never_replaced_unasked(self, table: pa.Table, tmp_path: Path) -> None:
        explorer = ThresholdExplorer(table)
        control(explorer, "minor").place = 20
        path, file = part(explorer, ipywidgets.Text), tmp_path / "policy.toml"
        path.value = str(file)
        assert f"The policy is written to {file}." in press(explorer)
        assert Policy.load(file) == explorer.policy
        first = file.read_text()
        assert first.startswith(f"# Chosen by hand: {explorer.outcome.excluded:,} of 300 samples excluded, ")
        control(explorer, "minor").place = 30
        assert "is there already; choose another name, or let the file be replaced" in press(explorer)
        assert file.read_text() == first
        tick = part(explorer, ipywidgets.Checkbox)
        tick.value = True
        assert "is written to" in press(explorer)
        assert Policy.load(file) == explorer.policy
        assert tick.value is False

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("", "there is no path"),
            (".", "is a folder"),
            ("no/such/folder/policy.toml", "can&#39;t write"),
            ("nothing://at/all.toml", "nothing://at/all.toml"),
            (f"no/such/{HTML}", "&lt;b onclick"),
            ("a\0b.toml", "null byte"),
            ("\ud800.toml", "surrogates not allowed"),
        ],
    )
    def test_errors_are_shown(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, message: str) -> None:
        monkeypatch.chdir(tmp_path)
        explorer = ThresholdExplorer({"explicit": [0.5], "minor": [0.5]})
        part(explorer, ipywidgets.Text).value = path
        part(explorer, ipywidgets.Checkbox).value = path == "."
        said = press(explorer)
        assert "Not written: " in said
        assert message in said
        assert "<b" not in said
        assert list(tmp_path.iterdir()) == []

    def test_it_is_an_error_in_python(self, tmp_path: Path) -> None:
        explorer = ThresholdExplorer({"explicit": [0.5], "minor": [0.5]})
        explorer.save_policy(tmp_path / "policy.toml")
        with pytest.raises(OutputError, match="is there already"):
            explorer.save_policy(tmp_path / "policy.toml")
        explorer.save_policy(tmp_path / "policy.toml", replace_file=True)

    @pytest.mark.parametrize("content", [b'{"schema": 1}', b"\x89PNG\r\n", b"", b"[project]\nname = 'mine'\n"])
    def test_only_a_policy_is_replaced(self, tmp_path: Path, content: bytes) -> None:
        explorer = ThresholdExplorer({"explicit": [0.5], "minor": [0.5]})
        (tmp_path / "mine").write_bytes(content)
        with pytest.raises(OutputError, match="is not a policy that can be read, and is not replaced"):
            explorer.save_policy(tmp_path / "mine", replace_file=True)
        assert (tmp_path / "mine").read_bytes() == content

    def test_the_record_of_a_calibration_goes_when_a_threshold_moves(self) -> None:
        rng = np.random.default_rng(0)
        labels = {"explicit": np.arange(2000) < 1000, "minor": np.arange(2000) >= 1000}
        scores = {signal: rng.beta(np.where(there, 8, 2), 2) for signal, there in labels.items()}
        calibration = calibrate_thresholds(scores, labels, max_miss_rate=0.05)
        policy = calibration.policy(record=calibration.record())
        explorer = ThresholdExplorer(scores, labels, policy=policy)
        assert explorer.policy.calibration is not None
        part(explorer, ipywidgets.Dropdown).value = "strict"
        assert explorer.policy.calibration is not None
        start = control(explorer, "minor").place
        control(explorer, "minor").place = start - 1
        assert explorer.policy.calibration is None
        control(explorer, "minor").place = start
        assert explorer.policy.calibration is not None


class TestSentences:
    def test_stand_ins_are_named_at_the_top(self, tmp_path: Path) -> None:
        pair = SignalPair(explicit="circle", minor="square", notice=f"These are shapes {HTML}")
        setup = replace(SETUP, pair=pair, signals=("square", "circle"))
        explorer = ThresholdExplorer(scanned(tmp_path / "run", [ROWS], policy=Policy().for_pair(pair), setup=setup))
        assert "These are shapes &lt;b onclick" in explorer.widget.children[0].value
        assert "<b onclick" not in shown(explorer)
        assert "explicit (circle)" not in shown(explorer)
        part(explorer, ipywidgets.Dropdown).value = "strict"
        assert "explicit (circle)" in shown(explorer)
        assert sorted(explorer.policy.exclude) == ["circle", "square"]

    def test_names_are_escaped(self) -> None:
        pair = SignalPair(explicit=HTML, minor="square")
        scores = {HTML: [0.9], "square": [0.9]}
        explorer = ThresholdExplorer(scores, {HTML: [True]}, policy=Policy.preset("strict").for_pair(pair))
        assert "&lt;b onclick" in shown(explorer)
        figure = json.dumps([explorer._figure.trace, explorer._figure.looks])
        assert "<b onclick" not in shown(explorer) + figure
        assert "&lt;b onclick" in figure

    def test_hidden_characters_are_shown(self) -> None:
        pair = SignalPair(explicit='a\u202e"b', minor="square")
        explorer = ThresholdExplorer(
            {pair.explicit: [0.9], "square": [0.9]},
            {pair.explicit: [True]},
            policy=Policy.preset("strict").for_pair(pair),
        )
        layout = explorer._figure.looks["dark"]["layout"]
        assert [layout["xaxis"]["title"]["text"], layout["shapes"][0]["name"], explorer._controls[0].name] == [
            'score of a\\u202e"b',
            'excluded: a\\u202e"b alone',
            'a\\u202e"b',
        ]
        assert "\u202e" not in shown(explorer)
        assert "a\\u202e&#34;b" in shown(explorer)

    def test_cuts_of_laions_detectors_on_other_probes(self, run: Run) -> None:
        explorer = ThresholdExplorer(run)
        part(explorer, ipywidgets.Dropdown).value = "laion-0.5"
        assert "was published for LAION&#39;s detector" in shown(explorer)
        part(explorer, ipywidgets.Dropdown).value = "strict"
        assert "LAION" not in shown(explorer)

    def test_near_duplicates_stay(self, tmp_path: Path) -> None:
        rows = [Row("a", (0.9, 0.9), vector=(1, 0, 0, 0)), Row("b", (0.1, 0.1), vector=(0.99, 0.1411, 0, 0))]
        run = scanned(tmp_path / "run", [rows], setup=NARROW)
        apply_policy(run, Policy(), also_near=0.97)
        explorer = ThresholdExplorer(run)
        assert "Near-duplicates of exclusions are counted as the run&#39;s own policy left them" in shown(explorer)
        assert explorer.outcome.reasons["near_excluded"] == 1

    def test_of_joined_runs_nothing_can_be_moved(self, tmp_path: Path) -> None:
        runs = [scanned(tmp_path / name, [rows_of(50)]) for name in "ab"]
        run = apply_policy(runs, Policy.preset("separate"))
        explorer = ThresholdExplorer(run, {"key": ["sample-1.jpg"], "minor": [True]})
        assert "rest on 1 other run, not on its own scores alone: other thresholds can&#39;t be tried here" in shown(
            explorer
        )
        assert all(control(explorer, signal).disabled for signal in ("explicit", "minor"))
        assert part(explorer, ipywidgets.Dropdown).disabled
        assert dict(zip(COUNT_NAMES, explorer.outcome.to_dict().values(), strict=True)) == run.counts
        assert explorer.policy == run.policy
        with pytest.raises(UsageError, match="other policies can't be tried"):
            explorer.policy = Policy()


@pytest.mark.parametrize("given", ["strict", "", Path("policy.toml"), {"explicit": 0.5}], ids=repr)
def test_what_is_no_policy_is_told_as_such(table: pa.Table, run: Run, given: Any) -> None:
    """The names of presets are for the command line."""
    explorer, labels = ThresholdExplorer(table), {"minor": [True, False]}
    one = np.ones(1, np.float32)
    probes = ProbeBank(
        [LinearProbe(signal=signal, weight=one, bias=0, encoder="e") for signal in ("explicit", "minor")]
    )
    two = {"explicit": [0.1, 0.2], "minor": [0.1, 0.9]}
    on_plane = PlaneLabels.from_scores(ScorePlane.from_scores(two), two, labels)
    takers: list[Callable[[], object]] = [
        lambda: ThresholdExplorer(table, policy=given),
        lambda: ThresholdExplorer(run, policy=given),
        lambda: setattr(explorer, "policy", given),
        lambda: apply_policy(run, given),
        lambda: evaluate(two, labels, given),
        lambda: ScorePlane.from_scores(table, given),
        lambda: ScorePlane.from_scores(table).outcome(given),
        lambda: JointScoreDisplay.from_scores(table, given),
        lambda: policy_for(given, probes),
        lambda: TradeOffDisplay.from_labels(on_plane, "minor", given),
        lambda: on_plane.findings(given),
    ]
    for take in takers:
        with pytest.raises(UsageError, match=r"is not a Policy; give Policy\.preset\(name\), or Policy\.load\(file\)"):
            take()


class TestPage:
    def test_it_shows_itself(self, run: Run) -> None:
        shown = ThresholdExplorer(run)._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in shown

    def test_it_names_no_sample(self, run: Run, table: pa.Table) -> None:
        explorer = ThresholdExplorer(run, LABELS)
        control(explorer, "minor").place = 30
        sent = state(explorer)
        assert len(sent) > 10_000
        held = [row.key for row in ROWS] + [digest.hex() for digest in run.read_scores()["key_digest"].to_pylist()]
        held += [repr(score) for score in table["minor"].to_pylist() if score and len(repr(score)) > 8]
        assert [each for each in held if each in sent] == []

    def test_the_figure_holds_what_a_page_would_draw_now(self, table: pa.Table) -> None:
        explorer = ThresholdExplorer(table)
        control(explorer, "minor").place = 7
        part(explorer, ipywidgets.Dropdown).value = "strict"
        looks, held = explorer._figure.looks, explorer._figure.get_state()  # for a page that is opened anew
        assert (held["looks"], held["trace"]) == (looks, explorer._figure.trace)
        for name, theme in {"light": LIGHT, "dark": DARK}.items():
            figure = plane_figure(explorer._explored.plane, explorer.policy, theme=theme).to_plotly_json()
            assert looks[name] == {"colorscale": figure["data"][0]["colorscale"], "layout": figure["layout"]}
            assert len(looks[name]["layout"]["shapes"]) == 3

    def test_modules_are_small(self, table: pa.Table) -> None:
        """What is sent to a widget whose module loads for more than two seconds is dropped by anywidget, for good."""
        explorer = ThresholdExplorer(table)
        modules = [each._esm for each in (explorer._figure, *explorer._controls)]
        assert all(100 < len(module) < 20_000 for module in modules)

    def test_only_what_changes_is_sent(self, table: pa.Table) -> None:
        explorer, told = ThresholdExplorer(table), []
        explorer._figure.observe(told.append)
        control(explorer, "minor").place = 7
        assert [change["name"] for change in told] == ["looks"]

    def test_everything_has_a_name(self, run: Run) -> None:
        inputs = ipywidgets.Text | ipywidgets.Checkbox | ipywidgets.Dropdown | ipywidgets.Button
        named = [each.description for each in parts_of(ThresholdExplorer(run).widget) if isinstance(each, inputs)]
        assert len(named) == 4
        assert all(named)


def test_a_slider_is_answered_at_once_whatever_the_number_of_samples() -> None:
    """Ten million take a few seconds to count, once; a slider is then answered from the counts."""
    rng = np.random.default_rng(0)
    labelled = {signal: rng.random(1000, np.float32) for signal in ("explicit", "minor")}
    explorers = []
    for count in (1_000, 10_000_000):
        plane = ScorePlane.from_scores({signal: rng.random(count, np.float32) for signal in ("explicit", "minor")})
        labels = PlaneLabels.from_scores(plane, labelled, {"minor": rng.random(1000) < 0.1})
        explorers.append(ThresholdExplorer(plane, labels))
    took: list[list[float]] = [[], []]
    for step in range(40):
        for explorer, times in zip(explorers, took, strict=True):
            begun = time.perf_counter()
            control(explorer, "minor").place = 20 + step
            times.append(time.perf_counter() - begun)
    few, many = map(median, took)
    assert many < 0.3  # about a hundredth of a second: the bound is for a far slower machine
    assert many < 3 * few + 0.01
    assert explorers[1].outcome.seen == 10_000_000
