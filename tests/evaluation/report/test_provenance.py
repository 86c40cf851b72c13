"""Where thresholds come from: a guarantee is told where it holds, and why not where it does not."""

from dataclasses import replace

import pytest

from safetyfilter import Policy
from safetyfilter.decide.bounds import upper_bound
from safetyfilter.decide.calibration_record import CalibrationRecord
from safetyfilter.decide.presets import LAION_PROBES, PRESETS
from safetyfilter.evaluation.report.provenance import Provenance, provenance
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.record import RunRecord
from safetyfilter.signals import SignalPair
from tests.evaluation.report.recorded import CALIBRATED, SAME

FOUND = CALIBRATED.policy.calibration
assert FOUND is not None
RULE = "If each signal is missed no more often where the other is present too, the rule misses at most"


def of_policy(**changes: object) -> RunRecord:
    return replace(CALIBRATED, policy=replace(CALIBRATED.policy, **changes))


def of_calibration(**changes: object) -> RunRecord:
    return of_policy(calibration=replace(FOUND, **changes))


def words(found: Provenance) -> str:
    return " ".join([found.origin, found.guarantee, *found.bounds, *found.rests_on, *found.warnings])


def test_a_guarantee_that_holds() -> None:
    found = provenance(CALIBRATED)
    assert found.origin.startswith(
        "The policy states that its thresholds were calibrated on 2026-01-31 by safetyfilter"
    )
    assert f"of the SHA-256 {'ab' * 32}" in found.origin
    assert found.guarantee == (
        "If each signal is missed no more often where the other is present too, the rule misses at most 0.94 % of the "
        "samples that show both signals, with a confidence of 95 % (the calibration was asked for 1 % at the most)."
    )
    assert [(one.signal, one.verdict, one.holds) for one in found.signals] == [
        ("explicit", "yes", True),
        ("minor", "yes", True),
    ]
    assert "0 of 800 labelled positives" in found.bounds[0]
    assert "in each group" not in found.bounds[0]
    assert "in each group" in found.bounds[1]
    assert any("can't be checked" in text for text in found.rests_on)
    assert found.warnings == ()


def test_bounds_of_each_signal_are_none_of_the_rule() -> None:
    found = provenance(of_calibration(for_rule=False))
    assert "nothing is guaranteed of the rule" in found.guarantee
    assert len(found.bounds) == 2
    assert not any("can't be checked" in text for text in found.rests_on)


@pytest.mark.parametrize(("signals", "rule"), [(0.95, 0.95), (0.5, 0.9999), (0.975, 0.96)])
def test_confidences_of_the_signals_that_do_not_add_up_to_that_of_the_rule(signals: float, rule: float) -> None:
    split = [replace(one, confidence=signals, positives=3000) for one in FOUND.signals]
    found = provenance(of_calibration(confidence=rule, signals=tuple(split)))
    assert found.guarantee.endswith("nothing is guaranteed of the rule.")
    assert len(found.bounds) == 2  # each signal's own is still what its counts give


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99, 1 - 1e-9, 1 - 1e-13])
def test_the_confidences_that_calibrate_writes_give_that_of_the_rule(confidence: float) -> None:
    split = [replace(one, confidence=1 - (1 - confidence) / 2, positives=10**6) for one in FOUND.signals]
    found = provenance(of_calibration(confidence=confidence, signals=tuple(split)))
    assert found.guarantee.startswith(RULE)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_no_guarantee(name: str) -> None:
    pair = SignalPair(explicit="circle", minor="square")
    for policy in (Policy.preset(name), Policy.preset(name).for_pair(pair)):
        found = provenance(replace(CALIBRATED, policy=policy))
        assert f"the preset {name}, whose thresholds of 0.5 are defaults" in found.origin
        assert found.guarantee == "No guarantee is on record."
        assert (found.signals, found.bounds, found.rests_on) == ((), (), ())
        assert bool(found.warnings) == name.startswith("laion-")


def test_a_published_cut_on_the_detector_that_it_was_published_for() -> None:
    probes = (LAION_PROBES["laion-l14"], "ab" * 32)
    record = replace(CALIBRATED, policy=Policy.preset("laion-0.5"), setup=replace(CALIBRATED.setup, probes=probes))
    assert provenance(record).warnings == ()


def test_thresholds_without_a_record_count_as_chosen_by_hand() -> None:
    found = provenance(of_policy(calibration=None))
    assert "chosen by hand" in found.origin
    assert found.guarantee == "No guarantee is on record."


@pytest.mark.parametrize(
    ("scored_by", "said"),
    [
        (replace(SAME, encoder="ab" * 32), "the scores of another encoder. Its thresholds mean something else"),
        (replace(SAME, probes=("ab" * 32,)), "the scores of other probes. Its"),
        (replace(SAME, views="center"), "the scores of other views of each picture. Its"),
        (replace(SAME, encoder="ab" * 32, probes=()), "another encoder and of other probes. Its"),
    ],
)
def test_a_guarantee_made_on_other_scores_is_none(scored_by: object, said: str) -> None:
    found = provenance(of_calibration(scored_by=scored_by))
    assert found.guarantee == "Nothing is guaranteed of this run."
    assert said in words(found)
    assert (found.bounds, found.rests_on) == ((), ())
    assert {one.verdict for one in found.signals} == {"no: it was found on other scores"}


def test_another_precision_is_told_with_both_names() -> None:
    found = provenance(of_calibration(scored_by=replace(SAME, precision="float64", setup="ab" * 32)))
    assert (
        "If scores in this run's precision miss no more than those that were calibrated on, and if" in found.guarantee
    )
    assert f"on scores in float64, and those of this run are in {CALIBRATED.setup.precision}" in words(found)
    assert {one.verdict for one in found.signals} == {"only on scores of the same precision"}
    assert found.bounds
    assert all(bound.startswith("On scores like those that were calibrated on, of the sam") for bound in found.bounds)
    same = replace(SAME, precision=CALIBRATED.setup.precision)
    assert provenance(of_calibration(scored_by=same)).warnings == ()


def test_other_settings_are_told() -> None:
    found = provenance(of_calibration(scored_by=replace(SAME, setup="ab" * 32)))
    assert found.guarantee.startswith(RULE)
    assert "scores may differ by little" in words(found)


def test_a_guarantee_on_scores_of_nobody_knows_what_is_conditional() -> None:
    found = provenance(of_calibration(scored_by=None))
    assert "If the scores were those of the same encoder and probes, and if each signal is" in found.guarantee
    assert "Nothing on record says which encoder and probes" in words(found)
    assert {one.verdict for one in found.signals} == {"only on scores of the same encoder and probes"}


def test_the_encoder_may_be_known_by_a_former_digest() -> None:
    encoder = replace(CALIBRATED.setup.encoder, config_sha256="12" * 32)
    record = replace(
        of_calibration(scored_by=replace(SAME, encoder=encoder.former_digest)),
        setup=replace(CALIBRATED.setup, encoder=encoder),
    )
    assert provenance(record).guarantee.startswith(RULE)


@pytest.mark.parametrize("scored_by", [SAME, replace(SAME, encoder="ab" * 32, scores="ee" * 32)])
def test_joined_runs_miss_no_more_than_the_one_that_was_calibrated_on(scored_by: object) -> None:
    record = replace(of_calibration(scored_by=scored_by), decided_with=DecidedWith(runs=("ee" * 32,)))
    found = provenance(record)
    assert found.guarantee.startswith(RULE)
    assert "the highest counts: no more is missed" in words(found)


def test_a_run_joined_with_others_than_the_one_that_was_calibrated_on() -> None:
    other = replace(SAME, encoder="ab" * 32, scores="dd" * 32)
    record = replace(of_calibration(scored_by=other), decided_with=DecidedWith(runs=("ee" * 32,)))
    assert provenance(record).guarantee == "Nothing is guaranteed of this run."


def test_a_threshold_that_was_raised_has_no_guarantee() -> None:
    found = provenance(of_policy(thresholds={"explicit": 0.31, "minor": 0.4}))
    assert "It does not hold for the thresholds in use." in found.guarantee
    assert [one.verdict for one in found.signals] == ["no: the threshold in use is higher", "yes"]
    assert len(found.bounds) == 1
    assert "The threshold of explicit was raised since: 0.3 was found, and 0.31 is in use." in words(found)


def test_a_threshold_that_was_lowered_keeps_its_guarantee() -> None:
    found = provenance(of_policy(thresholds={"explicit": 0.29, "minor": 0.4}))
    assert found.guarantee.startswith(f"{RULE} 0.94 %")
    assert "The threshold of explicit was lowered since" in words(found)


def test_a_bound_that_does_not_follow_from_its_counts_is_none() -> None:
    explicit, minor = FOUND.signals
    found = provenance(of_calibration(signals=(replace(explicit, misses=100), minor)))
    assert "The counts on record for explicit do not give the bound on record" in words(found)
    assert [one.verdict for one in found.signals] == ["no: the counts on record do not give it", "yes"]
    assert "does not hold" in found.guarantee


@pytest.mark.parametrize("misses", [0, 1, 7])
def test_a_bound_that_calibrate_wrote_follows_from_its_counts(misses: int) -> None:
    bound = upper_bound(misses, 4000, 0.975)
    signals = tuple(
        replace(one, misses=misses, positives=4000, upper_bound=bound, max_miss_rate=0.01) for one in FOUND.signals
    )
    assert all(one.holds for one in provenance(of_calibration(signals=signals)).signals)


def test_what_was_not_calibrated_is_told() -> None:
    thresholds = {"explicit": 0.3, "minor": 0.4, "violence": 0.6}
    found = provenance(of_policy(thresholds=thresholds, exclude_at={"explicit": 0.9, "minor": 0.2}))
    assert "The threshold of violence was not calibrated" in words(found)
    assert "The cut at which explicit excludes a sample by itself, 0.9, was not calibrated." in words(found)
    assert "The cut at which minor" not in words(found)


def test_a_signal_that_the_policy_no_longer_has() -> None:
    further = replace(FOUND.signals[0], signal="violence")
    found = provenance(of_calibration(signals=(*FOUND.signals, further)))
    assert [one.signal for one in found.signals] == ["explicit", "minor"]


def test_the_names_of_signals_are_quoted() -> None:
    found = provenance(of_policy(thresholds={"explicit": 0.31, "minor": 0.3, "x": 0.5}), quote=lambda text: f"<{text}>")
    assert {"<explicit>", "<minor>", "<x>", "<0.4.0>"} <= {word.strip(".,") for word in words(found).split()}


@pytest.mark.parametrize(
    ("share", "text"), [(0.01, "1 %"), (0.000012345, "0.001234 %"), (0.95, "95 %"), (0.9999999, "99.99999 %")]
)
def test_shares_are_never_rounded_to_nothing_or_all(share: float, text: str) -> None:
    split = [replace(one, confidence=1 - (1 - share) / 2, positives=10**6) for one in FOUND.signals]
    record: CalibrationRecord = replace(FOUND, confidence=share, signals=tuple(split))
    assert f"with a confidence of {text} (" in provenance(of_policy(calibration=record)).guarantee
