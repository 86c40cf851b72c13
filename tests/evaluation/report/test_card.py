"""The data card: what it says of a run, that it is a card of the Hub's, and that no name becomes markup."""

import re
from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from safetyfilter import Policy
from safetyfilter.evaluation.report.card import data_card
from safetyfilter.evaluation.report.markdown import code
from safetyfilter.html_table import one_line
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.record import RunRecord
from safetyfilter.signals import SignalPair
from tests.evaluation.report.recorded import CALIBRATED, HOSTILE, hostile, summary_of

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def card_of(record: RunRecord) -> str:
    return data_card(summary_of(record))


def structure(card: str) -> list[str]:
    """The kinds of all that a card's Markdown is made of, but for stretches of plain text."""
    kinds = []
    for token in MARKDOWN.parse(card.split("---\n", 2)[2]):
        kinds += [token.type, *(child.type for child in token.children or () if not child.type.startswith("text"))]
    return kinds


def test_it_says_all_that_was_done() -> None:
    card = card_of(CALIBRATED)
    setup, policy = CALIBRATED.setup, CALIBRATED.policy
    for value in (
        *(setup.encoder.name, setup.encoder.weights_sha256, setup.encoder.digest, setup.encoder.resize_mode),
        *(*setup.probes, *setup.signals, setup.views, setup.decode, setup.precision, setup.digest),
        *(policy.digest, CALIBRATED.decisions_digest, CALIBRATED.scores, CALIBRATED.created),
        *("0.4.0", "2.9.0"),
    ):
        assert f"`{value}`" in card
    assert "`explicit` from 0.3 on and `minor` from 0.4 on" in card
    assert "Of 3,000 samples seen, 2,790 (93.0 %) were kept and 210 (7.0 %) excluded." in card
    assert "| `co_occurrence` | 12 | 0.4 % | both signals are present |" in card
    assert "| `explicit` | 20 | 0.7 % |" in card
    assert "`minor` |" not in card
    assert "the file ends too early, 100; no bytes, 90." in card
    assert "the rule misses at most 0.94 % of the samples that show both signals" in card
    assert "A classifier misses some" in card


def test_its_metadata_is_the_hubs() -> None:
    card = DatasetCard(card_of(CALIBRATED))
    assert card.data.to_dict() == {
        "size_categories": ["1K<n<10K"],
        "tags": ["safety-filtered", "not-for-all-audiences"],
    }
    assert card.text.startswith("\n## Safety filtering\n")


@pytest.mark.parametrize(
    "policy",
    [
        Policy.preset("separate"),
        Policy.preset("laion-0.98"),
        Policy(pair=SignalPair(explicit="circle", minor="square")),
    ],
    ids=["explicit is excluded", "explicit is excluded at a cut", "stand-ins"],
)
def test_what_is_for_all_audiences_is_not_tagged(policy: Policy) -> None:
    assert DatasetCard(card_of(replace(CALIBRATED, policy=policy))).data.tags == ["safety-filtered"]


@pytest.mark.parametrize(
    ("kept", "size"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (999_999, "100K<n<1M"),
        (5_800_000_000, "1B<n<10B"),
        (10**11, "100B<n<1T"),
        (10**12, "n>1T"),
    ],
)
def test_the_size_is_one_of_the_hubs(kept: int, size: str) -> None:
    counts = {**CALIBRATED.counts, "seen": kept + 210, "kept": kept}
    assert DatasetCard(card_of(replace(CALIBRATED, counts=counts))).data.size_categories == [size]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"decided_with": DecidedWith(near=0.97)}, "from a cosine of 0.97 on"),
        ({"decided_with": DecidedWith(runs=("ab" * 32, "cd" * 32))}, f"`{'ab' * 32}` and `{'cd' * 32}`"),
        ({"applied_from": "ab" * 32}, "applied to this one by the bytes"),
        (
            {"policy": Policy.preset("strict")},
            "Excluded by itself is also `explicit` from 0.5 on and `minor` from 0.5 on.",
        ),
        ({"policy": Policy.preset("laion-0.98")}, "is also `explicit` from 0.98 on."),
        ({"policy": Policy(thresholds={"explicit": 0.99999976, "minor": 0.0})}, "`explicit` from 0.99999976 on"),
        ({"source": replace(CALIBRATED.source, kind="embeddings")}, "the stored embedding of every sample was scored"),
        ({"versions": {}}, "safetyfilter `of a version not on record`"),
    ],
)
def test_what_a_run_rests_on_besides(change: dict[str, object], text: str) -> None:
    assert text in card_of(replace(CALIBRATED, **change))


def test_an_empty_run() -> None:
    counts = dict.fromkeys(CALIBRATED.counts, 0)
    card = data_card(summary_of(replace(CALIBRATED, counts=counts), {}))
    assert "Of 0 samples seen, 0 were kept and 0 excluded." in card
    assert "nothing is known of it: 0 samples.\n" in card


def test_what_has_no_cause_on_record_is_counted() -> None:
    card = data_card(summary_of(CALIBRATED, {"empty": 80}))
    assert "no bytes, 80; no score that the policy takes, 110." in card


def test_the_notice_of_stand_ins_comes_first() -> None:
    pair = SignalPair(explicit="circle", minor="square", notice="These are *shapes*.")
    record = replace(CALIBRATED, setup=replace(CALIBRATED.setup, pair=pair))
    assert "## Safety filtering\n\n> **These are \\*shapes\\*.**\n" in card_of(record)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(name: str) -> None:
    """The card is made of the same as with a harmless name, and shows each name as it is."""
    card = card_of(hostile(name))
    card.encode()
    assert structure(card) == structure(card_of(hostile("name")))
    spans = [
        child.content for token in MARKDOWN.parse(card) for child in token.children or () if child.type == "code_inline"
    ]
    assert spans.count(one_line(name)) > 10
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2028\u2029]", card)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_notice_shows_as_it_is(name: str) -> None:
    shown = "".join(child.content for child in MARKDOWN.parseInline(card_notice(name))[0].children or ())
    assert shown == f"{one_line(name)} stands in.".strip()


def card_notice(name: str) -> str:
    line = next(line for line in card_of(hostile(name)).splitlines() if line.startswith("> **"))
    return line.removeprefix("> **").removesuffix("**")


@pytest.mark.parametrize("text", [*HOSTILE, "", "`", "a", " a", "a ", "  ", "\n"])
def test_a_code_span_shows_a_text_as_it_is(text: str) -> None:
    (token,) = MARKDOWN.parseInline(code(text))[0].children or ()
    assert (token.type, token.content) == ("code_inline", one_line(text) or " ")


def test_it_is_always_the_same() -> None:
    again = RunRecord.from_json(CALIBRATED.to_json(), "run.json")
    assert again == CALIBRATED
    assert card_of(again) == card_of(CALIBRATED)
