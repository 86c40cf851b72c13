"""A policy's forms: TOML text and plain values come back equal, and what is not a policy is refused."""

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.decide.fields import fields_from_dict, format_policy, parse_policy
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import PolicyError
from safetyfilter.signals import PAIR, SignalPair

unit = st.floats(0, 1)
names = st.text(min_size=1) | st.sampled_from(["a-b", "a b", "\x7f", '"quoted"', "ä", "👍", "1", "a.b"])
signal_pairs = st.just(PAIR) | st.lists(names, min_size=2, max_size=2, unique=True).map(
    lambda two: SignalPair(explicit=two[0], minor=two[1])
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    pair = draw(signal_pairs)
    thresholds = draw(st.dictionaries(names, unit, max_size=2)) | {name: draw(unit) for name in pair.names}
    some = st.sampled_from(sorted(thresholds))
    return Policy(
        thresholds=thresholds,
        exclude=draw(st.sets(some)),
        exclude_at=draw(st.dictionaries(some, unit)),
        pair=pair,
    )


@given(policies())
def test_every_form_comes_back_equal(policy: Policy) -> None:
    for again in (
        Policy.from_toml(policy.to_toml()),
        Policy.from_dict(policy.as_dict()),
        pickle.loads(pickle.dumps(policy)),
    ):
        assert again == policy
        assert again.digest == policy.digest
        assert hash(again) == hash(policy)


def test_only_another_pair_is_named_in_a_file() -> None:
    assert "[signals]" not in Policy().to_toml()
    text = Policy(pair=SignalPair(explicit="circle", minor="square", notice="shapes")).to_toml()
    assert text.startswith('[signals]\nexplicit = "circle"\nminor = "square"\n\n[thresholds]\n')


def test_the_notice_of_a_pair_is_in_the_record() -> None:
    pair = SignalPair(explicit="circle", minor="square", notice="shapes")
    assert Policy.from_dict(Policy(pair=pair).as_dict()).pair.notice == "shapes"


def test_what_is_left_out_has_a_default() -> None:
    assert parse_policy("") == {
        "thresholds": {"explicit": 0.5, "minor": 0.5},
        "exclude": frozenset(),
        "exclude_at": {},
        "pair": PAIR,
        "calibration": None,
    }
    assert parse_policy(format_policy(parse_policy("[thresholds]\nminor = 0.1"))) == parse_policy(
        "[thresholds]\nminor = 0.1"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[threshold]\nexplicit = 0.5", "unknown key"),
        ("[thresholds]\nexplicit = 2", "from 0 to 1"),
        ("[thresholds]\nexplicit = true", "from 0 to 1"),
        ("[exclude]\nviolence = true", "unknown signal"),
        ("[exclude]\nviolence = false", "unknown signal"),
        ("[exclude]\nexplicit = 'yes'", "true, false, or a number"),
        ("[exclude]\nexplicit = 1.1", "from 0 to 1"),
        ("[exclude]\nexplicit = -1", "from 0 to 1"),
        ("[exclude]\nexplicit = nan", "from 0 to 1"),
        ("[exclude]\nexplicit = '0.5'", "true, false, or a number"),
        ("[exclude]\nother = 0.5", "unknown signal"),
        ("thresholds = 3", "single value"),
        ("exclude = ['minor']", "single value"),
        ("= 3", "not valid TOML"),
        ("signals = 'other'", "signals is 'other'"),
        ("signals = 3", "signals is 3"),
        ("[signals]\nexplicit = 'circle'", "signals is"),
        ("[signals]\nexplicit = 'circle'\nminor = 'square'\nthird = 'dot'", "signals is"),
        ("[signals]\nexplicit = 'circle'\nminor = 'circle'", "two different names"),
        ("[signals]\nexplicit = 'circle'\nminor = 3", "two different names"),
    ],
)
def test_bad_toml(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.from_toml(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair": None}, "pair is missing"),
        ({"pair": {"first": "a"}}, "is not a pair"),
        ({"pair": {"explicit": "a", "minor": "a"}}, "is not a pair"),
        ({"thresholds": [0.5]}, "thresholds is missing or not a dict"),
        ({"exclude": "minor"}, "exclude is missing or not a list"),
        ({"exclude_at": 3}, "exclude_at is missing"),
    ],
)
def test_bad_records(change: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        fields_from_dict(Policy().as_dict() | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[thresholds]\nexplicit = 0.3\nminro = 0.4", "none for 'minor'; did you mean minor?"),
        (
            "[thresholds]\nexplicit = 0.3\n[exclude]\nminors = true",
            "unknown signal ['minors'] in [exclude]; did you mean",
        ),
        ("[exclude]\nminro = false", "did you mean minor? It may name"),
        ('[signals]\nexplicit = "circle"\nminor = "square"\n[thresholds]\nsqare = 0.2', "did you mean square?"),
    ],
)
def test_a_misspelt_signal_is_an_error_and_no_warning_of_defaults(
    text: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PolicyError, match=re.escape(message)):
        parse_policy(text)
    assert not caplog.messages
