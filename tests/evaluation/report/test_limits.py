"""The limits: those of the method for every run, and those that a run has by the way it was made."""

from dataclasses import replace
from pathlib import Path

import pytest

from safetyfilter import Policy
from safetyfilter.evaluation.report.limits import LIMITS, limits_of
from safetyfilter.runs.record import RunRecord
from safetyfilter.signals import SignalPair
from tests.evaluation.report.recorded import CALIBRATED, COUNTS

WITH_LISTS = replace(CALIBRATED, counts=COUNTS | {"known_hash": 1})


def test_every_run_has_those_of_the_method() -> None:
    assert limits_of(WITH_LISTS) == LIMITS
    assert len({limit.title for limit in LIMITS}) == len(LIMITS)
    assert all(limit.text.endswith(".") and not limit.title.endswith(".") for limit in LIMITS)


@pytest.mark.parametrize(
    ("record", "title"),
    [
        (CALIBRATED, "No list of known content was used"),
        (replace(WITH_LISTS, source=replace(CALIBRATED.source, kind="embeddings")), "No picture was seen"),
        (
            replace(WITH_LISTS, setup=replace(CALIBRATED.setup, views="center")),
            "The centre of each picture was seen",
        ),
        (
            replace(WITH_LISTS, setup=replace(CALIBRATED.setup, hash_lists=("a1",)), hash_unchecked=3),
            "Not all samples were held against all lists of known content",
        ),
        (
            replace(WITH_LISTS, policy=Policy(thresholds={"explicit": 0.5, "minor": 1})),
            "The rule may exclude next to nothing",
        ),
        (
            replace(WITH_LISTS, setup=replace(CALIBRATED.setup, pair=SignalPair(notice="These are shapes."))),
            "Other signals stand in for the real ones",
        ),
    ],
)
def test_a_run_has_limits_of_its_own(record: RunRecord, title: str) -> None:
    own, *others = limits_of(record)
    assert own.title == title
    assert tuple(others) == LIMITS


def test_they_are_those_of_the_readme() -> None:
    """Each promise that the README does not make is among them, in words of its heading."""
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    section = readme.partition("## What it cannot promise")[2].partition("\n## ")[0]
    told = " ".join(f"{limit.title}. {limit.text}" for limit in LIMITS).lower()
    headings = [
        line.removeprefix("- **").partition("**")[0] for line in section.splitlines() if line.startswith("- **")
    ]
    assert len(headings) >= 6
    for heading in headings:
        heads = {word for word in heading.lower().strip(".").replace(",", "").split() if len(word) > 4}
        assert len({word for word in heads if word in told}) >= len(heads) / 2, heading
