"""The facts on a run's record: lists of known content and an officer's key are told where a run has them."""

from dataclasses import replace

from safetyfilter.evaluation.report.facts import facts
from tests.evaluation.report.recorded import CALIBRATED


def test_lists_and_the_officers_key_are_told_where_there_are_any() -> None:
    setup = replace(CALIBRATED.setup, hash_lists=("a1" * 32, "b2" * 32), officer="c3" * 16)
    told = facts(replace(CALIBRATED, setup=setup, hash_unchecked=1_234, sealed=56))
    assert set(told) - set(facts(CALIBRATED)) == {"Lists of known content", "Sealed records"}
    rows = {row.name: row.value for heading in ("Lists of known content", "Sealed records") for row in told[heading]}
    assert rows == {
        "List 1": "a1" * 32,
        "List 2": "b2" * 32,
        "Samples not held against all of one": "1,234",
        "Records": "56",
        "Fingerprint of the officer's key": "c3" * 16,
    }
