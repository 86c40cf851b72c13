"""A run as small tables for a notebook, from its record alone: counts by reason, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from safetyfilter.batches import REASON_NAMES
from safetyfilter.decide.as_html import policy_facts
from safetyfilter.html_table import html_notes, html_table, share_text
from safetyfilter.runs.record import RunRecord
from safetyfilter.signals import SignalPair

_ALWAYS = ("co_occurrence", "unscored")


def record_html(record: RunRecord, *, where: str = "", state: str = "complete", notes: Iterable[str] = ()) -> str:
    """Return what a run is of, what it was made with and what it counts; no part of it is read.

    Parameters
    ----------
    record : RunRecord
        The content of ``run.json``.
    where : str
        The run directory; empty where it is not known.
    state : str
        How far it is, in words.
    notes : iterable of str
        Sentences that stand above the tables, after the pair's own notice and the policy's warning.
    """
    setup = record.setup
    facts = [
        ("where", where),
        ("state", state),
        ("source", f"{record.source.kind}, {record.source.parts:,} part{'' if record.source.parts == 1 else 's'}"),
        ("encoder", f"{setup.encoder.name} ({setup.encoder.digest[:12]})"),
        ("probes", f"for {', '.join(setup.signals)} ({', '.join(digest[:12] for digest in setup.probes)})"),
        *policy_facts(record.policy),
        ("decisions rest on", _grounds(record)),
        ("created", f"{record.created}, version {record.versions.get('safetyfilter', 'unknown')}"),
    ]
    shown = html_notes([setup.pair.notice, record.policy.warning, *notes])
    shown += html_table("Run", [(name, words) for name, words in facts if words])
    if not record.complete:
        return shown
    return shown + counts_html("Samples", _named(record.counts, setup.pair), record.counts["seen"])


def counts_html(caption: str, counts: Iterable[tuple[str, int]], total: int) -> str:
    """Return counts with their shares of a total.

    >>> "<td style=\\"text-align: right\\">25.0 %</td>" in counts_html("Samples", [("kept", 1)], 4)
    True
    """
    rows = [(name, f"{count:,}", share_text(count, total)) for name, count in counts]
    return html_table(caption, rows, columns=("", "samples", "share"))


def _named(counts: Mapping[str, int], pair: SignalPair) -> Iterator[tuple[str, int]]:
    """The totals, and the reasons that occur; with the pair's own names, where these are others."""
    names = {"explicit": pair.explicit, "minor": pair.minor}
    for name, count in counts.items():
        if name not in REASON_NAMES or name in _ALWAYS or count:
            own = names.get(name, name)
            yield (name if own == name else f"{name} ({own})"), count


def _grounds(record: RunRecord) -> str:
    if record.applied_from:
        return "the decisions of another copy of the data set, by content"
    beyond = record.decided_with.in_words
    return f"its own scores, and {beyond}" if beyond else "its own scores alone"
