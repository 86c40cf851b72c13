"""Ages: what becomes of each, that bands count alike, what the card tells, and what is refused."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from safetyfilter.errors import CalibrationError, ProbeError, UsageError
from safetyfilter.score.age_card import AgeBand, AgeCard
from safetyfilter.score.ages import MOST_WEIGHT, OLDEST, AgeCut
from safetyfilter.score.as_html import card_html
from safetyfilter.score.aside import Aside
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.training import train_probe

ENOUGH = [1.0, 2.0, 30.0, 40.0]
"""Two ages on either side of the cut."""


@pytest.mark.parametrize(
    ("age", "label"),
    [
        (0, True),
        (15.99, True),
        ("15", True),
        (" 15.5 ", True),
        (16, None),
        (18, None),
        (19.99, None),
        (20, False),
        ("20.0", False),
        (OLDEST, False),
        (OLDEST + 0.1, None),
        (-0.1, None),
        (-1, None),
        (float("inf"), None),
        ("inf", None),
        (float("nan"), None),
        (None, None),
        ("", None),
        ("N/A", None),
    ],
)
def test_an_age_is_present_absent_or_counted_among_those_left_out(age: object, label: bool | None) -> None:
    aged = AgeCut(below=18, gap=2).split([*ENOUGH, age], "age")
    assert aged.labels.known[-1] == (label is not None)
    assert aged.labels.present[-1] == (label is True)
    assert aged.in_gap + aged.not_ages + aged.without_age == (label is None)


@pytest.mark.parametrize(
    "column",
    [
        np.array([*ENOUGH, np.nan]),
        np.array([*ENOUGH, np.nan], np.float32),
        np.array(ENOUGH, np.int64),
        np.array(ENOUGH, np.uint8),
        pa.array([1, 2, 30, 40, None]),
        pa.chunked_array([["1", "2"], ["30", "40", ""]]),
        pa.array(ENOUGH).dictionary_encode(),
    ],
    ids=lambda column: str(getattr(column, "dtype", None) or column.type),
)
def test_ages_come_in_any_column(column: object) -> None:
    aged = AgeCut().split(column, "age")
    assert aged.labels.present[:4].tolist() == [True, True, False, False]
    assert aged.without_age == len(aged.labels) - 4


@pytest.mark.parametrize(
    "wrong",
    ["young", "20-29", "(25, 32)", True, b"25", [3], "2001-01-01", "12 years", np.datetime64("2001-01-01")],
    ids=str,
)
def test_what_is_no_number_is_an_error_that_repeats_no_value(wrong: object) -> None:
    with pytest.raises(CalibrationError, match=r"1 of 5 are not numbers, the first in row 4, counted from 0") as told:
        AgeCut().split([*ENOUGH, wrong], "age")
    assert "20-29" not in str(told.value)
    assert "young" not in str(told.value)


def test_a_column_of_labels_is_not_one_of_ages() -> None:
    with pytest.raises(CalibrationError, match="4 of 4 are not numbers"):
        AgeCut().split(np.array([True, False, True, False]), "minor")
    with pytest.raises(CalibrationError, match=r"shape \(2, 2\)"):
        AgeCut().split(np.ones((2, 2)), "age")


def test_numbers_that_are_not_ages_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="safetyfilter")
    AgeCut().split([*ENOUGH, -5, 2014, 200, None], "age")
    assert caplog.messages == ["3 of 8 ages are not between 0 and 130 years: left out"]


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        ([1, 2, 3, 17, 18], "3 samples are younger than 16 years and 0 are 20 or older; 2 lie in the gap between"),
        ([17, 18, 30, 40], "0 samples are younger than 16 years and 2 are 20 or older"),
        ([1, 2, 30], "at least 2 on either side"),
        ([], "0 samples are younger"),
        ([-1, 140, None, ""], "2 have something that is not an age, and 2 none"),
    ],
)
def test_a_gap_that_leaves_one_side_says_what_lies_where(ages: list[object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        AgeCut(below=18, gap=2).split(ages, "age")


@pytest.mark.parametrize(
    ("below", "gap", "message"),
    [
        (0, 0, "above 0 and below 130"),
        (-18, 0, "above 0"),
        (130, 0, "below 130"),
        (float("nan"), 0, "the cut is at nan"),
        (18, -1, "the gap is -1 years; give 0 or more"),
        (18, float("nan"), "the gap is nan"),
        (18, float("inf"), "the gap is inf"),
        (18, 18, "leaves nobody on one side"),
        (100, 30, "leaves nobody on one side"),
    ],
)
def test_a_cut_that_is_none(below: float, gap: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AgeCut(below=below, gap=gap)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-20, 160) | st.none(), max_size=60), st.floats(1, 100), st.floats(0, 0.9))
def test_every_sample_is_on_a_side_or_counted(ages: list[float | None], below: float, share: float) -> None:
    cut = AgeCut(below=below, gap=share * min(below, 130 - below))
    try:
        aged = cut.split(ages, "age")
    except CalibrationError:
        return
    assert aged.labels.known.sum() + aged.in_gap + aged.not_ages + aged.without_age == len(ages)
    known = np.flatnonzero(aged.labels.known)
    assert np.flatnonzero(aged.band >= 0).tolist() == sorted([*known, *aged.gap_rows])
    weights = aged.weights()
    assert (weights[known] > 0).all()
    assert weights.max() <= MOST_WEIGHT
    starts = [*cut.starts, float("inf")]
    assert all(starts[aged.band[row]] <= ages[row] < starts[aged.band[row] + 1] for row in [*known, *aged.gap_rows])
    in_gap = np.array([ages[row] < below for row in aged.gap_rows], float)
    card = aged.card(aged.labels.present[known].astype(float), in_gap, {"0.5": 0.5})
    assert sum(band.samples for band in card.bands if band.trained_on) == len(known)
    assert sum(band.samples for band in card.bands) == len(known) + aged.in_gap
    assert all(band.found["0.5"] == band.present for band in card.bands)
    assert all((cut.youngest_left_out <= band.start < cut.youngest_absent) != band.trained_on for band in card.bands)


def test_bands_of_a_side_count_alike_but_for_those_of_few() -> None:
    ages = [*[1.0] * 80, *[10.0] * 20, *[25.0] * 990, *[80.0] * 10]
    aged = AgeCut().split(ages, "age")
    weights = aged.weights()
    sums = [float(weights[aged.band == band].sum()) for band in np.unique(aged.band)]
    assert sums == pytest.approx([50, 50, 500, 10 * MOST_WEIGHT])


def faces(count: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose direction turns with the age, most of them of adults in their thirties."""
    rng = np.random.default_rng(seed)
    ages = np.concatenate([rng.uniform(0, 16, count // 20), rng.uniform(16, 20, count // 40), rng.normal(35, 6, count)])
    ages = ages.clip(0, 90)
    x = rng.standard_normal((len(ages), 8)).astype(np.float32) * 0.3
    x[:, 0] += np.tanh((ages - 18) / 12)
    x[:, 1] += ages < 6
    return x, ages


@pytest.fixture(scope="module")
def probe() -> LinearProbe:
    x, ages = faces(2000)
    column = [*ages.tolist(), None, -3.0, 400.0]
    x = np.concatenate([x, np.full((3, 8), np.nan, np.float32)])
    return train_probe(
        x, column, signal="minor", encoder="e", ages=AgeCut(below=18, gap=2), regularisation=[0.1, 1.0], folds=3
    )


def test_the_card_tells_the_recall_by_band_and_what_was_left_out(probe: LinearProbe) -> None:
    card = probe.card
    assert card is not None
    assert card.ages is not None
    assert (card.ages.below, card.ages.gap, card.ages.in_gap) == (18, 2, 50 + leftover())
    assert (card.ages.not_ages, card.ages.without_age) == (2, 1)
    assert [band.years for band in card.ages.bands][:10] == [
        "0 to 3", "3 to 6", "6 to 9", "9 to 12", "12 to 14", "14 to 16", "16 to 18", "18 to 20", "20 to 22", "22 to 25",
    ]  # fmt: skip
    young = [band for band in card.ages.bands if band.present and band.trained_on]
    old = [band for band in card.ages.bands if not band.present and band.trained_on]
    gap = [band for band in card.ages.bands if not band.trained_on]
    assert [(band.label, band.years) for band in gap] == [
        ("present, not trained on", "16 to 18"), ("absent, not trained on", "18 to 20"),
    ]  # fmt: skip
    assert sum(band.samples for band in gap) == card.ages.in_gap
    assert young[-1].found["0.9"] > gap[0].found["0.9"] > old[1].found["0.9"]
    assert sum(band.samples for band in young) == card.positives
    assert sum(band.samples for band in old) == card.negatives
    for recall in ("0.9", "0.99"):
        found = sum(band.found[recall] * band.samples for band in young) / card.positives
        assert found == pytest.approx(float(recall), abs=0.01)
    assert young[0].found["0.9"] > young[-1].found["0.9"]
    assert old[0].found["0.9"] > old[-1].found["0.9"]


def leftover() -> int:
    """Samples of the thirties' normal distribution that lie in the gap."""
    ages = faces(2000)[1]
    return int(((ages[150:] >= 16) & (ages[150:] < 20)).sum())


def test_a_rare_band_counts_as_much_as_a_common_one() -> None:
    """Two kinds of the absent, told from the present by different columns: weights turn the probe to the rare ones."""
    rng = np.random.default_rng(0)
    ages = np.repeat([5.0, 30.0, 75.0], [300, 3000, 60])
    x = rng.standard_normal((len(ages), 2)).astype(np.float32) * 0.5
    x[ages == 30, 0] += 1.5
    x[ages == 75, 1] += 1.5
    options = {"signal": "minor", "encoder": "e", "regularisation": [1.0], "folds": 3}
    bands = train_probe(x, ages, ages=AgeCut(), **options)
    plain = train_probe(x, ages < 18, **options)
    assert bands.weight[1] / bands.weight[0] > 2 * plain.weight[1] / plain.weight[0]
    assert bands.card.positives == plain.card.positives == 300


@pytest.mark.parametrize("grouped", [True, False])
def test_pictures_left_out_are_scored_by_a_fit_that_saw_none_of_their_people(
    grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, ages = faces(600)
    people = np.arange(len(ages)) % 90
    made: list[tuple[Aside, np.ndarray, np.ndarray]] = []

    def noted(rows: np.ndarray, groups: np.ndarray | None, used: np.ndarray, fold_of: np.ndarray) -> Aside:
        assert (groups is not None) == grouped
        made.append((original(rows, groups, used, fold_of), used, fold_of))
        return made[-1][0]

    original = Aside.of
    monkeypatch.setattr(Aside, "of", noted)
    groups = people if grouped else None
    card = train_probe(
        x, ages, signal="minor", encoder="e", ages=AgeCut(gap=2), groups=groups, regularisation=[0.1], folds=3
    ).card
    ((aside, used, fold_of),) = made
    assert card is not None
    assert card.ages is not None
    assert len(aside.rows) == card.ages.in_gap > 10
    assert np.isfinite(aside.logits).all()
    of_person = dict(zip(people[used].tolist(), fold_of.tolist(), strict=True))
    same = [of_person[people[row]] == fold for row, fold in zip(aside.rows, aside.fold_of, strict=True)]
    assert all(same) == grouped
    assert card.groups == (90 if grouped else 0)


def test_an_embedding_in_the_gap_that_is_not_finite_is_an_error() -> None:
    x, ages = faces(600)
    x[np.flatnonzero((ages >= 16) & (ages < 20))[:2]] = np.nan
    with pytest.raises(CalibrationError, match=r"embeddings of samples with an age in the gap are NaN"):
        train_probe(x, ages, signal="minor", encoder="e", ages=AgeCut(gap=2), regularisation=[0.1], folds=2)


def test_the_card_comes_back_from_the_file_and_earlier_versions_can_read_the_probe(
    probe: LinearProbe, tmp_path: Path
) -> None:
    path = tmp_path / "p.safetensors"
    ProbeBank([probe, replace(probe, signal="other", card=None)]).save(path)
    minor, other = ProbeBank.load(path).probes
    assert isinstance(minor, LinearProbe)
    assert isinstance(other, LinearProbe)
    assert (minor.card, other.card) == (probe.card, None)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    assert "ages" not in json.loads(header["cards"])[0]
    plain = replace(probe, card=ProbeCard(method="zero-shot"))
    ProbeBank([plain]).save(path)
    with safe_open(path, framework="numpy") as file:
        assert "ages" not in file.metadata()
    assert ProbeBank.load(path).probes[0].card == plain.card


@pytest.mark.parametrize(
    "ages",
    [[], [{}], [{"below": "x"}], [{"below": 18, "bands": [{"start": "x"}]}], [{"below": 18, "more": 1}], [7], {}],
)
def test_a_file_whose_ages_are_damaged_is_refused(ages: object, probe: LinearProbe, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    ProbeBank([probe]).save(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    save_file(load_file(path), path, metadata=header | {"ages": json.dumps(ages)})
    if ages == [{}]:  # a card without ages
        assert ProbeBank.load(path).probes[0].card.ages is None
        return
    with pytest.raises(ProbeError, match="the file is damaged"):
        ProbeBank.load(path)


def test_no_age_of_a_sample_is_in_the_card(probe: LinearProbe) -> None:
    assert probe.card is not None
    ages = asdict(probe.card)["ages"]
    assert set(ages) == {"below", "gap", "in_gap", "not_ages", "without_age", "bands"}
    assert all(set(band) == {"start", "end", "present", "trained_on", "samples", "found"} for band in ages["bands"])


def test_the_card_shows_ages_in_a_notebook(probe: LinearProbe) -> None:
    shown = card_html(probe.card)
    assert "younger than 18 years" in shown
    assert "14 to 16" in shown
    assert "70 and more" in card_html(
        ProbeCard(
            method="m", thresholds={"0.9": 0.5}, ages=AgeCard(below=18, bands=(AgeBand(start=70, found={"0.9": 0.25}),))
        )
    )
