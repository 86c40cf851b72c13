"""The decision rule: no sample with both signals at or above threshold is ever kept."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safetyfilter import storage
from safetyfilter.batches import REASON_NAMES, STATUS_CODES, Reason, ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import PRESETS
from safetyfilter.errors import PolicyError, StorageError
from safetyfilter.signals import PAIR, SignalPair

NAMES = PAIR.names
SHAPES = SignalPair(explicit="circle", minor="square", notice="shapes, for a test")
thresholds = st.floats(0, 1)
any_scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 20), st.just(2)),
    elements=st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0]),
)
excludes = st.sets(st.sampled_from(NAMES))


def batch(values: object, signals: tuple[str, ...] = NAMES) -> ScoreBatch:
    return ScoreBatch(values=np.asarray(values, np.float32).reshape(-1, len(signals)), signals=signals)


@given(any_scores, thresholds, thresholds, excludes)
def test_no_co_occurrence_is_kept(values: np.ndarray, explicit: float, minor: float, exclude: set[str]) -> None:
    policy = Policy(thresholds={"explicit": explicit, "minor": minor}, exclude=exclude)
    keep = policy.decide(batch(values)).keep
    for readings in (
        (values[:, 0] >= np.float32(explicit)) & (values[:, 1] >= np.float32(minor)),
        (values[:, 0].astype(float) >= explicit) & (values[:, 1].astype(float) >= minor),
    ):
        assert not (keep & readings).any()
    assert not (keep & ~np.isfinite(values).all(axis=1)).any()


@given(any_scores, thresholds, thresholds, st.floats(0, 1), st.floats(0, 1), excludes, excludes)
def test_stricter_never_keeps_more(
    values: np.ndarray,
    explicit: float,
    minor: float,
    lower_explicit: float,
    lower_minor: float,
    exclude: set[str],
    more: set[str],
) -> None:
    before = Policy(thresholds={"explicit": explicit, "minor": minor}, exclude=exclude)
    after = Policy(
        thresholds={"explicit": explicit * lower_explicit, "minor": minor * lower_minor}, exclude=exclude | more
    )
    assert not (after.decide(batch(values)).keep & ~before.decide(batch(values)).keep).any()


@pytest.mark.parametrize(
    ("explicit", "minor", "reasons"),
    [
        (0.5, 0.5, "co_occurrence"),
        (1.0, 1.0, "co_occurrence"),
        (np.nextafter(np.float32(0.5), np.float32(0)), 0.9, "none"),
        (np.nextafter(np.float32(0.5), np.float32(1)), 0.9, "co_occurrence"),
        (0.0, 1.0, "none"),
        (np.nan, 0.0, "unscored"),
        (0.0, np.nan, "unscored"),
        (np.inf, 1.0, "unscored"),
        (-np.inf, 0.0, "unscored"),
    ],
)
def test_around_the_threshold(explicit: float, minor: float, reasons: str) -> None:
    assert str(Policy().decide(batch([explicit, minor])).reasons[0]) == reasons


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("co-occurrence", [True, True, True, False]),
        ("separate", [True, False, True, False]),
        ("no-minors", [True, True, False, False]),
        ("strict", [True, False, False, False]),
    ],
)
def test_presets(name: str, expected: list[bool]) -> None:
    values = [[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]]
    assert Policy.preset(name).decide(batch(values)).keep.tolist() == expected
    assert name in PRESETS


@pytest.mark.parametrize("failure", [name for name in STATUS_CODES if name != "ok"])
def test_a_failed_sample_is_excluded_whatever_its_score(failure: str) -> None:
    status = np.uint8([STATUS_CODES["ok"], STATUS_CODES[failure], STATUS_CODES[failure]])
    scores = ScoreBatch(values=np.float32([[0, 0], [0, 0], [1, 1]]), signals=NAMES, status=status)
    reason = "unknown" if failure == "unknown" else "unscored"
    assert [str(reasons) for reasons in Policy().decide(scores).reasons] == ["none", reason, reason]


def test_a_users_own_signal() -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "violence": 0.7}, exclude={"violence"})
    decided = policy.decide(batch([[0, 0, 0.7], [0, 0, 0.6], [0, 0, np.nan]], (*NAMES, "violence")))
    assert [str(r) for r in decided.reasons] == ["other_signal", "none", "unscored"]


def test_a_policy_in_another_pairs_names() -> None:
    real = Policy(
        thresholds={"explicit": 0.2, "minor": 0.3, "violence": 0.9}, exclude=["minor"], exclude_at={"explicit": 1}
    )
    policy = real.for_pair(SHAPES)
    assert dict(policy.thresholds) == {"circle": 0.2, "square": 0.3, "violence": 0.9}
    assert policy.exclude == {"square", "circle"}
    assert dict(policy.exclude_at) == {"circle": 1.0}
    assert policy.pair.notice == SHAPES.notice
    decided = policy.decide(batch([[0.1, 0.3, 0], [0.2, 0.1, 0], [0.2, 0.3, 0]], ("circle", "square", "violence")))
    assert [str(reasons) for reasons in decided.reasons] == ["minor", "none", "co_occurrence|minor"]
    assert policy.for_pair(SHAPES) == policy
    assert real.for_pair(PAIR) == real


@pytest.mark.parametrize(
    "other", [PAIR, SignalPair(explicit="line", minor="dot"), SignalPair(explicit="square", minor="circle")]
)
def test_thresholds_of_another_pair_are_never_put_on_real_signals(other: SignalPair) -> None:
    with pytest.raises(PolicyError, match=re.escape("for the signals ['circle', 'square'], not for")):
        Policy(pair=SHAPES).for_pair(other)


def test_a_pairs_name_is_not_taken_by_another_signal() -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "circle": 0.9})
    with pytest.raises(PolicyError, match="'circle'"):
        policy.for_pair(SHAPES)


@pytest.mark.parametrize("pair", ["x", ("explicit", "minor"), None])
def test_a_pair_is_a_signal_pair(pair: object) -> None:
    with pytest.raises(PolicyError, match="give a SignalPair"):
        Policy(pair=pair)


def test_the_digest_covers_all_that_decides() -> None:
    different = [
        Policy(),
        Policy(thresholds={"explicit": 0.5, "minor": 0.4}),
        Policy(exclude=["explicit"]),
        Policy(exclude_at={"explicit": 0.5}),
        Policy(exclude_at={"explicit": 0.6}),
        Policy(pair=SHAPES),
        Policy(thresholds={"circle": 0.5, "square": 0.5, "dot": 0.5}, pair=SHAPES),
        Policy(thresholds={"circle": 0.5, "square": 0.5, "dot": 0.5}, pair=SignalPair(explicit="circle", minor="dot")),
    ]
    assert len({policy.digest for policy in different}) == len(different)
    assert Policy(pair=SHAPES).digest == Policy(pair=SignalPair(explicit="circle", minor="square")).digest
    zero, negative = (Policy(thresholds={"explicit": value, "minor": 0.5}) for value in (0.0, -0.0))
    assert (zero, zero.digest) == (negative, negative.digest)


@pytest.mark.parametrize(
    "thresholds",
    [
        {"explicit": 1.01, "minor": 0.5},
        {"explicit": -0.1, "minor": 0.5},
        {"explicit": float("nan"), "minor": 0.5},
        {"explicit": "0.5", "minor": 0.5},
        {"explicit": True, "minor": 0.5},
        {"explicit": 0.5},
        {"violence": 0.5},
    ],
)
def test_bad_thresholds(thresholds: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match=r"threshold"):
        Policy(thresholds=thresholds)


def test_bad_names() -> None:
    with pytest.raises(PolicyError, match="unknown signal"):
        Policy(exclude={"violence"})
    with pytest.raises(PolicyError, match="which no probe scores"):
        Policy().decide(batch([[0.1, 0.1]], ("explicit", "other")))


def test_a_policy_is_a_preset_or_a_file(tmp_path: Path) -> None:
    policy = Policy(thresholds={"explicit": 0.2, "minor": 0.3}, exclude=["minor"])
    (tmp_path / "mine.toml").write_text(policy.to_toml(), encoding="utf-8")
    assert Policy.load(tmp_path / "mine.toml") == policy
    assert Policy.load(f"file://{tmp_path}/mine.toml") == policy
    assert Policy.load("strict") == Policy.preset("strict")


@pytest.mark.parametrize("name", ["lenient", "."])
def test_neither_a_preset_nor_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyError, match="presets are co-occurrence, separate"):
        Policy.load(tmp_path / name)


def test_a_byte_order_mark_before_a_policy_says_nothing(tmp_path: Path) -> None:
    policy = Policy.load("no-minors")
    (tmp_path / "p.toml").write_text(policy.to_toml(), encoding="utf-8-sig")
    assert Policy.load(tmp_path / "p.toml") == Policy.from_toml("\ufeff" + policy.to_toml()) == policy


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = " + "[" * 5000 + "]" * 5000, "[exclude]\na" + ".a" * 5000 + " = 1"]
)
def test_a_policy_that_is_nested_too_deeply(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(PolicyError, match="the policy is not valid TOML: it is nested too deeply; correct it"):
        Policy.load(tmp_path / "p.toml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy.load(tmp_path / "p.toml")


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# thresholds of mine\n  # to come\n"], ids=["empty", "lines", "comments"]
)
def test_a_file_that_says_nothing_is_no_set_of_defaults(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(PolicyError, match=r"is empty; give it .* or name the preset co-occurrence"):
        Policy.load(tmp_path / "p.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[thresholds]\nexplicit = 0.3", ["the policy gives no threshold for minor: 0.5 is taken"]),
        ("[thresholds]\nother = 0.3", ["the policy gives no threshold for explicit and minor: 0.5 is taken"]),
        ("[thresholds]\nexplicit = 0.3\nminor = 0.5", []),
        ("[exclude]\nexplicit = true", []),
    ],
)
def test_a_default_beside_given_thresholds_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, told: list[str]
) -> None:
    (tmp_path / "p.toml").write_text(text)
    assert Policy.load(tmp_path / "p.toml").thresholds["minor"] == 0.5
    assert caplog.messages == told


def test_a_fault_of_storage_is_not_a_bad_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> bytes:
        raise TimeoutError

    monkeypatch.setattr(storage.location, "_read_local", failing)
    monkeypatch.setattr(storage.retries.time, "sleep", lambda _: None)
    with pytest.raises(StorageError):
        Policy.load(tmp_path / "p.toml")


def test_reasons_are_a_named_set() -> None:
    assert REASON_NAMES[:7] == ("co_occurrence", "explicit", "minor", "known_hash", "unscored", "drifted", "unknown")
    both = Reason.from_names(["minor", "drifted"])
    assert both.names == ("minor", "drifted")
    assert "minor" in both
    assert "explicit" not in both
    assert Reason(0) not in both
    with pytest.raises(KeyError):
        Reason.from_names(["lenient"])
