"""A block for the card of a data set on the Hugging Face Hub: how the set was filtered, in Markdown and YAML.

The fields are those of the Hub's specification of data set cards, which names ``size_categories`` and ``tags``.
"""

from __future__ import annotations

from collections.abc import Iterator

from safetyfilter.evaluation.report.limits import limits_of
from safetyfilter.evaluation.report.markdown import code, escaped
from safetyfilter.evaluation.report.words import REASON_WORDS, Words
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import share_text
from safetyfilter.signals import PAIR

_SIZES = ("K", "M", "B", "T")


def data_card(summary: RunSummary) -> str:
    """Return Markdown that says how a set was filtered, with metadata in YAML before it.

    It is a card by itself; in another card, the metadata goes into that at its top.

    Parameters
    ----------
    summary : RunSummary
        Of the run that decided.
    """
    return "\n".join([*_metadata(summary), "", *_section(summary), ""])


def size_category(count: int) -> str:
    """Return the Hub's name of a size.

    >>> size_category(0), size_category(1_000), size_category(2_500_000), size_category(10**12)
    ('n<1K', '1K<n<10K', '1M<n<10M', 'n>1T')
    """
    if count < 1000:
        return "n<1K"
    digits = len(str(count)) - 1
    if digits >= 12:
        return "n>1T"
    return f"{_power(digits)}<n<{_power(digits + 1)}"


def _power(digits: int) -> str:
    return f"{10 ** (digits % 3)}{_SIZES[digits // 3 - 1]}"


def _metadata(summary: RunSummary) -> Iterator[str]:
    policy = summary.record.policy
    yield "---"
    yield "# Add these to the metadata of the card."
    yield "size_categories:"
    yield f"- {size_category(summary.record.counts['kept'])}"
    yield "tags:"
    yield "- safety-filtered"
    if policy.pair == PAIR and PAIR.explicit not in policy.exclude:
        yield "- not-for-all-audiences  # explicit samples without minors were not excluded"
    yield "---"


def _section(summary: RunSummary) -> Iterator[str]:
    words = Words(summary=summary, quote=code)
    yield "## Safety filtering"
    yield ""
    if notice := summary.record.setup.pair.notice:
        yield f"> **{escaped(notice)}**"
        yield ""
    yield words.what()
    yield ""
    yield words.validity()
    yield ""
    yield "### What was excluded"
    yield ""
    yield words.counts()
    yield ""
    yield "| reason | samples | share of all | meaning |"
    yield "|---|--:|--:|---|"
    seen = summary.record.counts["seen"]
    for name, count in words.reasons():
        yield f"| `{name}` | {count:,} | {escaped(share_text(count, seen))} | {REASON_WORDS[name]} |"
    yield ""
    yield words.unscored()
    yield ""
    yield "### How it was decided"
    yield ""
    yield f"- **Software:** {words.software}, with {words.versions()}."
    yield f"- **Encoder:** {words.encoder()}"
    yield f"- **Preprocessing:** {words.preprocessing()}"
    yield f"- **Probes:** {words.probes()}"
    yield f"- **Rule:** {words.rule()}"
    for text in words.beyond():
        yield f"- {text}"
    yield f"- **Where the thresholds come from:** {words.thresholds()}"
    yield f"- **What a decision is bound to:** {words.bound()}"
    yield "- **On record**, by SHA-256:"
    for name, digest in words.digests():
        yield f"  - {name}: {digest}"
    yield ""
    yield "### What this cannot promise"
    yield ""
    for limit in limits_of(summary.record):
        yield f"- **{escaped(limit.title)}.** {escaped(limit.text)}"
