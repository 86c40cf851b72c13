"""The words and tables of an explorer, as HTML in which everything is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from safetyfilter.evaluation.plane import Outcome
from safetyfilter.evaluation.plane_labels import Finding
from safetyfilter.html_table import visible
from safetyfilter.signals import SignalPair

if TYPE_CHECKING:
    from jinja2 import Template

_ALWAYS = ("co_occurrence", "unscored")

_READOUT = """\
<table>
<caption>Samples under this policy</caption>
<thead><tr><th scope="col"></th><th scope="col">samples</th><th scope="col">share</th>
<th scope="col">change</th></tr></thead>
<tbody>
{%- for name, count, share, more in counts %}
<tr{% if loop.index > 3 %} class="reason"{% endif %}><th scope="row">{{ name }}</th><td>{{ "{:,}".format(count) }}</td>
<td>{{ share }}</td><td>{{ "{:+,}".format(more) if more else "0" }}</td></tr>
{%- endfor %}
</tbody></table>
<p>A sample may be excluded for several reasons. Change is against the policy at the start.</p>
{%- if findings %}
<table>
<caption>On the labelled samples, with {{ confidence }} intervals</caption>
<thead><tr><th scope="col"></th><th scope="col">precision</th><th scope="col">recall</th>
<th scope="col">misses at most</th></tr></thead>
<tbody>
{%- for name, precision, recall, bound in findings %}
<tr><th scope="row">{{ name }}</th>
{%- for share in (precision, recall) %}
<td>{% if share.total %}{{ "%.3f"|format(share.value) }}<br>{{ "%.3f to %.3f"|format(share.low, share.high) }}
<br>{{ "{:,} of {:,}".format(share.count, share.total) }}{% else %}-{% endif %}</td>
{%- endfor %}
<td>{{ bound }}</td></tr>
{%- endfor %}
</tbody></table>
<p>"Misses at most" bounds the share of scored positives that are missed, with {{ confidence }} confidence, for
positives like those labelled; that of the rule is the sum of the two signals' bounds, each at half the error, and holds
if a signal is missed no more often where the other one is present too. They hold for thresholds that were fixed before
anybody looked at these labels; to have thresholds chosen with a guarantee, use <code>calibrate_thresholds</code>.</p>
{%- endif %}
"""
_SENTENCES = """{% for sentence in sentences %}<p class="{{ kind }}">{{ sentence }}</p>{% endfor %}"""


def readout(
    outcome: Outcome, start: Outcome, pair: SignalPair, *, findings: Sequence[Finding] = (), confidence: float = 0.95
) -> str:
    """Return the tables of what a policy does, against what the one at the start did.

    Parameters
    ----------
    outcome, start : Outcome
        Of the policy, and of that at the start.
    pair : SignalPair
        The pair that it is about.
    findings : sequence of Finding
        Of the policy, at the given confidence; a table of these is left out where there are none.
    confidence : float
        In (0, 1).

    Examples
    --------
    >>> outcome = Outcome(seen=8, kept=6, excluded=2, reasons={"co_occurrence": 2})
    >>> "<td>25.00 %</td>" in readout(outcome, outcome, SignalPair())
    True
    """
    names = {"explicit": visible(pair.explicit), "minor": visible(pair.minor)}
    were = start.to_dict()
    counts = [
        (
            name if names.get(name, name) == name else f"{name} ({names[name]})",
            count,
            share_text(count, outcome.seen),
            count - were.get(name, 0),
        )
        for name, count in outcome.to_dict().items()
        if name not in outcome.reasons or name in _ALWAYS or count or were.get(name)
    ]
    found = [(visible(each.name), each.precision, each.recall, _bound(each.miss_bound)) for each in findings]
    return _template(_READOUT).render(counts=counts, findings=found, confidence=f"{100 * confidence:.4g} %")


def sentences_html(sentences: Iterable[str], kind: str) -> str:
    """Return a paragraph for each sentence, of a class of the explorer's style sheet.

    >>> sentences_html(["1 < 2"], "note")
    '<p class="note">1 &lt; 2</p>'
    """
    return _template(_SENTENCES).render(sentences=[visible(sentence) for sentence in sentences], kind=kind)


def in_a_sentence(outcome: Outcome) -> str:
    """Return the counts as a sentence, for a screen reader.

    >>> in_a_sentence(Outcome(seen=4000, kept=3000, excluded=1000, reasons={}))
    '1,000 of 4,000 samples excluded, 25.00 %'
    """
    share = share_text(outcome.excluded, outcome.seen)
    return f"{outcome.excluded:,} of {outcome.seen:,} samples excluded, {share}"


def share_text(count: int, total: int) -> str:
    """Return a share in per cent, in as many digits as tell it from none and from all.

    >>> share_text(1, 8), share_text(1, 10_000_000), share_text(9_999_999, 10_000_000), share_text(8, 8)
    ('12.50 %', '0.00001 %', '99.99999 %', '100 %')
    >>> share_text(0, 8), share_text(0, 0)
    ('0 %', '-')
    """
    if not total:
        return "-"
    if count in (0, total):
        return "100 %" if count else "0 %"
    texts = (f"{100 * count / total:.{digits}f}" for digits in range(2, 18))
    return next((text for text in texts if 0 < float(text) < 100), "0") + " %"


def _bound(bound: float | None) -> str:
    return "-" if bound is None else f"{bound:.3%}".replace("%", " %")


@cache
def _template(text: str) -> Template:
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True).from_string(text)
