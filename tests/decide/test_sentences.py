"""Sentences about policies: one that can hardly exclude is named as such, and no change goes untold."""

from pathlib import Path

import pytest

from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import LAION_PROBES, PRESETS
from safetyfilter.decide.sentences import HARDLY_REACHED, cut_warning
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.convert.detector import convert_detector
from safetyfilter.score.named import NAMES
from safetyfilter.signals import SignalPair
from tests.score.published_files import DATA, ZIPS, needs_laion

BELOW = 0.9899999


@pytest.mark.parametrize("signal", ["explicit", "minor"])
@pytest.mark.parametrize(
    ("threshold", "warned"), [(0.0, False), (BELOW, False), (HARDLY_REACHED, True), (0.999, True), (1.0, True)]
)
def test_a_rule_that_can_hardly_fire_is_named(signal: str, threshold: float, warned: bool) -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5} | {signal: threshold})
    assert (policy.warning is not None) is warned
    assert not warned or f"threshold of {signal}, {threshold!r}:" in str(policy.warning)


def test_both_thresholds_are_named_in_the_names_of_the_pair() -> None:
    policy = Policy(thresholds={"explicit": 0.995, "minor": 1.0})
    there = policy.for_pair(SignalPair(explicit="circle", minor="square"))
    assert "the threshold of circle, 0.995 or of square, 1.0:" in str(there.warning)


@pytest.mark.parametrize(
    "policy",
    [
        *map(Policy.preset, PRESETS),
        Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 1.0}),
        Policy(exclude_at={"explicit": 1.0}),
    ],
)
def test_what_is_excluded_besides_the_rule_has_no_part_in_it(policy: Policy) -> None:
    assert policy.warning is None


THREE = {"explicit": 0.5, "minor": 0.5, "other": 0.5}


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        (Policy(), Policy(), []),
        (Policy(), Policy(thresholds={"explicit": 0.5, "minor": 0.50001}), [
            "The threshold of minor was 0.5 and is now 0.50001. Higher, it excludes less."]),
        (Policy(thresholds={"explicit": 0.1 + 0.2, "minor": 0.5}), Policy(thresholds={"explicit": 0.3, "minor": 0.5}), [
            "The threshold of explicit was 0.30000000000000004 and is now 0.3."]),
        (Policy(), Policy(thresholds=THREE, exclude=["other"]), [
            "The threshold of other is new: 0.5.", "Excluded for other alone: was no, is now yes."]),
        (Policy(thresholds=THREE, exclude=["other"]), Policy(), [
            "The threshold of other was 0.5 and is gone: its scores no longer count.",
            "Excluded for other alone: was yes, is now no."]),
        (Policy(exclude=["minor"]), Policy(exclude_at={"minor": 0.5}), [
            "Excluded for minor alone: was yes, is now at 0.5."]),
        (Policy(exclude_at={"minor": 0.5}), Policy(exclude_at={"minor": 0.50001}), [
            "Excluded for minor alone: was at 0.5, is now at 0.50001."]),
        (Policy(exclude_at={"minor": 0.0}), Policy(), ["Excluded for minor alone: was at 0.0, is now no."]),
        (Policy(exclude_at={"minor": 1.0}), Policy(exclude=["minor"]), [
            "Excluded for minor alone: was at 1.0, is now yes."]),
    ],
)  # fmt: skip
def test_every_change_is_told_in_digits_that_differ(before: Policy, now: Policy, changes: list[str]) -> None:
    assert now.changes_from(before) == changes
    assert (before == now) is (not changes)


OTHER = "ab" * 32


@pytest.mark.parametrize(
    ("name", "probes", "warned"),
    [
        *((name, [OTHER], name.startswith("laion-")) for name in PRESETS),
        *(("laion-0.5", [OTHER, digest], False) for digest in LAION_PROBES.values()),
        ("laion-0.5.toml", [OTHER], False),
    ],
)
def test_laions_cuts_on_other_probes_are_told(name: str, probes: list[str], warned: bool) -> None:
    assert (cut_warning(name, probes) is not None) is warned


def test_laions_probes_have_the_names_that_can_be_fetched() -> None:
    """The cuts were published on the scores of these alone; the third detector came later."""
    assert set(LAION_PROBES) == set(ZIPS) < set(NAMES)


@needs_laion
@pytest.mark.parametrize("name", ZIPS)
def test_the_digests_are_those_of_the_published_files(name: str, tmp_path: Path) -> None:
    bank = ProbeBank.load(convert_detector(DATA / ZIPS[name], to=tmp_path))
    assert bank.digests == (LAION_PROBES[name],)
