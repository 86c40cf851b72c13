"""An evaluation, and a run in counts, as small tables for a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from safetyfilter.html_table import figure_text, html_notes, html_table
from safetyfilter.runs.as_html import counts_html, record_html

if TYPE_CHECKING:
    from safetyfilter.evaluation.measure import Evaluation
    from safetyfilter.evaluation.metrics import Metrics
    from safetyfilter.evaluation.summary import RunSummary

GROUPS_SHOWN = 20
"""Groups of an evaluation that its tables show; all are in its `groups`."""

_COLUMNS = ("", "threshold", "positives", "precision", "recall", "average precision", "AUC")


def evaluation_html(evaluation: Evaluation) -> str:
    """Return precision and recall with their intervals, of each signal and the rule, and within each group."""
    interval = f"{figure_text(100 * evaluation.confidence)} % intervals ({evaluation.interval})"
    shown = html_notes([evaluation.policy.pair.notice])
    shown += html_table(
        f"Evaluation on {evaluation.labelled:,} labelled of {evaluation.samples:,} samples, with {interval}; an "
        "unscored sample counts as found",
        _rows(evaluation),
        columns=_COLUMNS,
    )
    if evaluation.kept is not None:
        counts = {"kept": evaluation.kept, "excluded": evaluation.excluded, "unscored": evaluation.unscored}
        rows = [(name, count or 0) for name, count in counts.items()]
        shown += counts_html("Samples under the policy", rows, evaluation.samples)
    if evaluation.groups:
        rest = len(evaluation.groups) - GROUPS_SHOWN
        more = f" (the first {GROUPS_SHOWN}; {rest:,} more are in `groups`)" if rest > 0 else ""
        rows_of_groups = [
            (f"{group}: {name}", *cells)
            for group, within in islice(evaluation.groups.items(), GROUPS_SHOWN)
            for name, *cells in _rows(within)
        ]
        shown += html_table(f"By group{more}", rows_of_groups, columns=_COLUMNS)
    return shown


def summary_html(summary: RunSummary) -> str:
    """Return a run as it shows itself, with the causes for which samples are unscored."""
    fixed = (
        [] if summary.movable else ["Decisions rest on other scores than its own: no other thresholds can be tried."]
    )
    shown = record_html(summary.record, notes=fixed)
    if summary.failures:
        shown += counts_html("Unscored, by cause", summary.failures.items(), summary.record.counts["seen"])
    return shown


def _rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    yield from (_row(signal, metrics) for signal, metrics in evaluation.signals.items())
    if evaluation.rule is not None:
        yield _row("co_occurrence", evaluation.rule)
    if evaluation.policy_metrics is not None:
        yield _row("excluded for any reason", evaluation.policy_metrics)


def _row(name: str, metrics: Metrics) -> tuple[str, ...]:
    return (
        name,
        "" if metrics.threshold is None else repr(metrics.threshold),
        f"{metrics.true_positives + metrics.false_negatives:,}",
        str(metrics.precision),
        str(metrics.recall),
        figure_text(metrics.average_precision, ".3f"),
        figure_text(metrics.auc, ".3f"),
    )
