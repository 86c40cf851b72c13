"""``calibrate`` and ``evaluate``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.labelled import GroupOption, LabelsArgument, groups_of, new_file
from safetyfilter.cli.output import emit, show_note, show_warning

if TYPE_CHECKING:
    from safetyfilter.decide.calibration import Calibration
    from safetyfilter.decide.policy import Policy
    from safetyfilter.evaluation.inputs import LabelledScores
    from safetyfilter.evaluation.measure import Evaluation
    from safetyfilter.evaluation.report.provenance import Provenance
    from safetyfilter.signals import SignalPair

_SHORT = {"co_occurrence": "rule", "excluded": "policy"}
"""Short names of the rule, and of all that the policy excludes, for tables."""


class Interval(StrEnum):
    """The methods of confidence intervals."""

    wilson = "wilson"
    clopper_pearson = "clopper-pearson"


ScoresArgument = Annotated[
    str,
    typer.Argument(
        metavar="SCORES", help="A run directory, or Parquet or CSV with a column of scores for each signal."
    ),
]
ConfidenceOption = Annotated[float, typer.Option(help="In (0, 1).")]


@app.command()
def calibrate(
    scores: ScoresArgument,
    labels: LabelsArgument,
    out: Annotated[str, typer.Option(help="A new policy file.")],
    max_miss_rate: Annotated[float, typer.Option(help="In (0, 1): the share of positives that may be missed.")] = 0.01,
    confidence: ConfidenceOption = 0.95,
    group_column: GroupOption = None,
    per_signal: Annotated[
        bool, typer.Option("--per-signal", help="Hold each signal to the rate by itself, not the rule.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Choose the highest thresholds with a guaranteed miss rate, and write them as a policy.

    The guarantee rests on labelled positives that are like those met in use and were not trained on. Labelling both
    signals in one sample is neither needed nor to be sought: each signal is calibrated on positives of its own.
    """
    from safetyfilter.decide.risk import calibrate_thresholds
    from safetyfilter.evaluation.inputs import read_labelled_scores, scored_by
    from safetyfilter.storage import replacing

    path = new_file(out)
    labelled = read_labelled_scores(scores, labels)
    found = calibrate_thresholds(
        labelled.scores,
        labelled.labels,
        max_miss_rate=max_miss_rate,
        confidence=confidence,
        groups=groups_of(labelled.labels, group_column),
        for_rule=not per_signal,
        pair=_pair_of(labelled),
    )
    made_on = None if labelled.run is None else scored_by(labelled.run)
    policy = found.policy(record=found.record(labels_sha256=labelled.labels_sha256, scored_by=made_on))
    what = "rule" if found.for_rule else "signals, each by itself"
    text = (
        f"# Miss rate of the {what}: at most {max_miss_rate:g} with confidence {confidence:g}, for positives like "
        f"those calibrated on.\n{policy.to_toml()}"
    )
    with replacing(path) as file:
        file.write(text.encode())
    if warning := policy.warning:
        show_warning(f"{warning} It was found here: it serves only where positives score as high as those labelled.")
    emit({"policy": out, **found.to_dict()}, as_json=json, shown=_calibration_table(found, out))


@app.command()
def evaluate(
    scores: ScoresArgument,
    labels: LabelsArgument,
    policy: Annotated[
        str | None,
        typer.Option(help="A preset or a TOML file, whose thresholds are measured; the run's own where left out."),
    ] = None,
    group_column: GroupOption = None,
    confidence: ConfidenceOption = 0.95,
    interval: Annotated[Interval, typer.Option(help="How intervals are made.")] = Interval.wilson,
    plot: Annotated[str | None, typer.Option(help="A new or empty directory for plots, as PNG files.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure precision and recall with intervals, for each signal and for the rule.

    Where the policy's thresholds come from is told too, and how far these scores lie from those calibrated on.
    """
    from safetyfilter.decide.policy import Policy
    from safetyfilter.evaluation.inputs import read_labelled_scores
    from safetyfilter.evaluation.measure import evaluate as measure
    from safetyfilter.evaluation.plots import require_new_folder, write_plots
    from safetyfilter.score.labels import signals_among

    if plot is not None:
        require_new_folder(plot)
    chosen = None if policy is None else Policy.load(policy)
    labelled = read_labelled_scores(scores, labels)
    if chosen is None:
        chosen = labelled.run.policy if labelled.run else Policy()
    chosen = chosen.for_pair(_pair_of(labelled))
    for signal in chosen.pair.names:
        if signal not in labelled.labels.column_names:
            there = ", ".join(signals_among(labelled.labels.column_names)) or "none"
            show_warning(f"The labels have no column {signal!r} ({there}): neither it nor the rule is measured.")
    result = measure(
        labelled.scores,
        labelled.labels,
        chosen,
        groups=groups_of(labelled.labels, group_column),
        confidence=confidence,
        interval="wilson" if interval is Interval.wilson else "clopper-pearson",
    )
    plots = [] if plot is None else write_plots(result, labelled.scores, labelled.labels, plot)
    stated = _stated_of(labelled, chosen)
    for warning in stated.warnings:
        show_warning(warning)
    shown = Group(_evaluation_tables(result), "", *(stated.origin, stated.guarantee, *stated.notes))
    emit({**result.to_dict(), "thresholds": stated.to_dict(), "plots": plots}, as_json=json, shown=shown)
    if plots:
        show_note(f"{len(plots)} plots are in {plot}.")


def _stated_of(labelled: LabelledScores, policy: Policy) -> Provenance:
    """Sentences on where a policy's thresholds come from, held against the scores that are measured."""
    from safetyfilter.decide.score_spread import spread_counts
    from safetyfilter.evaluation.report.provenance import provenance, provenance_of_file
    from safetyfilter.runs.decided_with import DecidedWith
    from safetyfilter.score.labels import scores_of

    spread = {
        signal: spread_counts(scores_of(labelled.scores[signal], signal))
        for signal in policy.thresholds
        if signal in labelled.scores.column_names
    }
    if labelled.run is None:
        return provenance_of_file(policy, spread)
    record, own = labelled.run.record, labelled.run.policy
    accepted = record.accepted_uncertified and (policy, policy.calibration) == (own, own.calibration)
    measured = replace(record, policy=policy, decided_with=DecidedWith(), accepted_uncertified=accepted)
    return provenance(measured, spread=spread)


def _pair_of(labelled: LabelledScores) -> SignalPair:
    """The pair of a run, or that whose names a file's columns have."""
    from safetyfilter.signals import PAIR
    from safetyfilter.standin import STANDIN_PAIR

    if labelled.run is not None:
        return labelled.run.record.setup.pair
    names = set(labelled.scores.column_names)
    return STANDIN_PAIR if names & set(STANDIN_PAIR.names) and not names & set(PAIR.names) else PAIR


def _calibration_table(found: Calibration, out: str) -> Table:
    from safetyfilter.evaluation.drawing import threshold_text

    columns = ["signal", "threshold", "positives", "missed", "missed at most", "excluded wrongly"]
    grouped = any(one.group is not None for one in found.signals)
    table = Table(*columns, *(["group"] if grouped else []), title=out, title_justify="left", box=SIMPLE_HEAD)
    for one in found.signals:
        share = one.excluded_negatives / one.negatives if one.negatives else 0.0
        table.add_row(
            one.signal,
            threshold_text(one.threshold),
            f"{one.positives:,}",
            f"{one.misses:,}",
            f"{one.upper_bound:.4f}",
            f"{share:.1%}" if one.negatives else "-",
            *([str(one.group)] if grouped else []),
        )
    if found.rule_upper_bound is not None:
        table.add_row("the rule", "", "", "", f"{found.rule_upper_bound:.4f}")
    return table


def _evaluation_tables(result: Evaluation) -> Group:
    """Two narrow tables, so that each fits a terminal of 80 columns."""
    from safetyfilter.evaluation.drawing import threshold_text

    title = f"{result.labelled:,} labelled of {result.samples:,} samples, intervals at {result.confidence:.0%}"
    shares = Table("what", "threshold", "recall", "precision", title=title, title_justify="left", box=SIMPLE_HEAD)
    more = Table("what", "labelled", "specificity", "F2", "AUC", "avg. prec.", "unscored", box=SIMPLE_HEAD)
    if result.unscored:
        more.caption, more.caption_justify = f"unscored: of the labelled; of all samples {result.unscored:,}", "left"
    for group, within in [("", result), *((f"{name}: ", within) for name, within in result.groups.items())]:
        for metrics in [*within.signals.values(), within.rule, within.policy_metrics]:
            if metrics is None:
                continue
            name = group + _SHORT.get(metrics.name, metrics.name)
            threshold = "" if metrics.threshold is None else threshold_text(metrics.threshold)
            # without labelled pairs, nothing found can be right: that is no precision of 0
            precision = str(metrics.precision) if metrics.recall.total else "-"
            shares.add_row(name, threshold, str(metrics.recall), precision)
            figures = [f"{x:.4f}" if x is not None else "-" for x in (metrics.auc, metrics.average_precision)]
            f2 = f"{metrics.f2.value:.3f}" if metrics.f2.value is not None else "-"
            more.add_row(name, f"{metrics.labelled:,}", str(metrics.specificity), f2, *figures, f"{metrics.unscored:,}")
    if result.rule is not None and not result.rule.recall.total:
        note = "No sample is labelled with both signals, so the rule's recall can't be measured: `calibrate` bounds it."
        return Group(shares, more, note)
    return Group(shares, more)
