"""A probe's card as small tables for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from safetyfilter.html_table import figure_text, html_table

if TYPE_CHECKING:
    from safetyfilter.score.linear import ProbeCard


def card_html(card: ProbeCard) -> str:
    """Return how a probe was made and measured, without what its card does not say.

    A card comes from a file and may hold anything: what is not a number is shown as it is.

    >>> from safetyfilter.score.linear import ProbeCard
    >>> "zero-shot" in card_html(ProbeCard(method="zero-shot"))
    True
    """
    groups = f", samples in {figure_text(card.groups, ',')} groups" if card.groups else ""
    facts = [
        ("method", card.method),
        ("created", card.created),
        ("encoder", card.encoder),
        ("fitted on", _labelled(card)),
        ("cross-validation", f"{figure_text(card.folds, ',')} folds{groups}" if card.folds else ""),
        ("regularisation (C)", card.regularisation),
        ("AUC, held out", card.auc),
        ("average precision, held out", card.average_precision),
        ("calibration error, held out", card.calibration_error),
        ("provenance", card.provenance),
    ]
    shown = html_table("Probe card", [(name, figure_text(value)) for name, value in facts if value not in (None, "")])
    if not card.thresholds or not isinstance(card.thresholds, Mapping):
        return shown
    rows = [(share, figure_text(threshold)) for share, threshold in card.thresholds.items()]
    return shown + html_table("Positives found, held out", rows, columns=("share found", "at the threshold"))


def _labelled(card: ProbeCard) -> str:
    if not card.positives and not card.negatives:
        return "no labels"
    return f"{figure_text(card.positives, ',')} positives, {figure_text(card.negatives, ',')} negatives"
