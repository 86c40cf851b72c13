"""A probe's card as small tables for a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from safetyfilter.html_table import figure_text, html_table

if TYPE_CHECKING:
    from safetyfilter.score.age_card import AgeCard
    from safetyfilter.score.card import ProbeCard


def card_html(card: ProbeCard) -> str:
    """Return how a probe was made and measured, without what its card does not say.

    A card comes from a file and may hold anything: what is not a number is shown as it is.

    >>> from safetyfilter.score.card import ProbeCard
    >>> "zero-shot" in card_html(ProbeCard(method="zero-shot"))
    True
    """
    groups = f", samples in {figure_text(card.groups, ',')} groups" if card.groups else ""
    facts = [
        ("method", card.method),
        ("created", card.created),
        ("encoder", card.encoder),
        ("fitted on", _labelled(card)),
        ("trained on", card.trained_on.in_words),
        ("cross-validation", f"{figure_text(card.folds, ',')} folds{groups}" if card.folds else ""),
        ("regularisation (C)", card.regularisation),
        ("AUC, held out", card.auc),
        ("average precision, held out", card.average_precision),
        ("calibration error, held out", card.calibration_error),
        ("provenance", card.provenance),
        *(_ages(card.ages) if card.ages else ()),
    ]
    shown = html_table("Probe card", [(name, figure_text(value)) for name, value in facts if value not in (None, "")])
    if not card.thresholds or not isinstance(card.thresholds, Mapping):
        return shown
    rows = [(share, figure_text(threshold)) for share, threshold in card.thresholds.items()]
    shown += html_table("Positives found, held out", rows, columns=("share found", "at the threshold"))
    return shown + (_bands(card.ages, list(card.thresholds)) if card.ages else "")


def _ages(ages: AgeCard) -> Iterator[tuple[str, object]]:
    yield "positives", f"younger than {figure_text(ages.below)} years"
    yield (
        "left out of the ages",
        (
            f"{figure_text(ages.in_gap, ',')} within {figure_text(ages.gap)} years of that, "
            f"{figure_text(ages.not_ages, ',')} not ages, {figure_text(ages.without_age, ',')} without one"
        ),
    )


def _bands(ages: AgeCard, shares: Sequence[str]) -> str:
    rows = [
        (
            band.years,
            band.label,
            figure_text(band.samples, ","),
            *(figure_text(band.found.get(share)) for share in shares),
        )
        for band in ages.bands
    ]
    columns = ("years of age", "label", "samples", *(f"at {share}" for share in shares))
    return html_table("Taken for positive by age, held out, at the thresholds above", rows, columns=columns)


def _labelled(card: ProbeCard) -> str:
    if not card.positives and not card.negatives:
        return "no labels"
    return f"{figure_text(card.positives, ',')} positives, {figure_text(card.negatives, ',')} negatives"
