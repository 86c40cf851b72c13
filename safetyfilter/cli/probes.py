"""``train``, ``calibrate``, ``evaluate`` and ``probes fetch``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app, emit, err
from safetyfilter.cli.labelled import (
    aligned,
    embedded_only,
    encoder_of,
    groups_of,
    labels_of,
    load_npy,
    read_embeddings,
    read_table,
    scores_and_labels,
)
from safetyfilter.errors import OutputError

if TYPE_CHECKING:
    from safetyfilter.decide.risk import Calibration
    from safetyfilter.evaluation.metrics import Evaluation

probes_app = typer.Typer(no_args_is_help=True, help="Published probes.")
app.add_typer(probes_app, name="probes")


_SHORT = {"co_occurrence": "rule", "excluded": "policy"}
"""What the tables call the rule, and all that the policy excludes."""


class Interval(StrEnum):
    """How confidence intervals are made."""

    wilson = "wilson"
    clopper_pearson = "clopper-pearson"


ScoresArgument = Annotated[
    Path, typer.Argument(help="A run directory, or Parquet with a column of scores for each signal.")
]
LabelsArgument = Annotated[
    Path,
    typer.Argument(
        help="Parquet with a column for each signal, named after it: true or false, 1 or 0, null where not labelled. "
        "Joined with a run by their column key, or key_digest; else row by row. An optional column holds groups."
    ),
]
GroupOption = Annotated[
    str | None, typer.Option(help="The labels' column of groups, such as a source or a family of near-duplicates.")
]
ConfidenceOption = Annotated[float, typer.Option(help="In (0, 1).")]


@app.command()
def train(
    embeddings: Annotated[
        Path, typer.Argument(help="A .npy of (N, D) floats, or a run directory made with --keep-embeddings.")
    ],
    labels: LabelsArgument,
    signal: Annotated[str, typer.Option(help="What the labels say is present; the labels' column.")],
    out: Annotated[Path, typer.Option(help="A new .safetensors file.")],
    encoder_digest: Annotated[
        str | None,
        typer.Option(
            help="Digest of the encoder that made the embeddings, or a JSON file with it. Where left out, it's read "
            "from run.json beside the embeddings."
        ),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="A .npy of the captions' embeddings, for a probe on images with captions.")
    ] = None,
    group_column: GroupOption = None,
    provenance: Annotated[str, typer.Option(help="Your note on where the data come from, kept in the file.")] = "",
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    json: JsonOption = False,
) -> None:
    """Fit a probe for one signal on labelled embeddings."""
    from dataclasses import asdict

    from safetyfilter.score.probe import ProbeBank
    from safetyfilter.score.training import train_probe

    _new_file(out)
    vectors, keys = read_embeddings(embeddings)
    table = aligned(read_table(labels, "labels"), keys, len(vectors), embeddings)
    with err.status("training"):
        probe = train_probe(
            vectors,
            embedded_only(labels_of(table, signal), vectors, keys),
            signal=signal,
            encoder=encoder_of(encoder_digest, embeddings),
            captions=None if captions is None else load_npy(captions),
            groups=groups_of(table, group_column),
            provenance=provenance,
            seed=seed,
        )
    ProbeBank([probe]).save(out)
    card = asdict(probe.card) if probe.card else {}
    shown = Table("figure", "value", title=f"{signal}: {out}", title_justify="left")
    for name in ("positives", "negatives", "auc", "average_precision", "calibration_error", "regularisation"):
        shown.add_row(name.replace("_", " "), f"{card[name]:.4g}" if isinstance(card[name], float) else str(card[name]))
    for recall, threshold in card["thresholds"].items():
        shown.add_row(f"threshold at recall {recall}", f"{threshold:.4g}")
    emit(
        {
            "probes": str(out),
            "signal": signal,
            "encoder": probe.encoder,
            "digest": probe.digest,
            "inputs": probe.inputs,
            "card": card,
        },
        as_json=json,
        table=shown,
    )


@app.command()
def calibrate(
    scores: ScoresArgument,
    labels: LabelsArgument,
    out: Annotated[Path, typer.Option(help="A new policy file.")],
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
    from safetyfilter.storage import replacing

    _new_file(out)
    values, truth, groups = scores_and_labels(scores, labels, group_column)
    found = calibrate_thresholds(
        values, truth, max_miss_rate=max_miss_rate, confidence=confidence, groups=groups, for_rule=not per_signal
    )
    what = "rule" if found.table else "signals, each by itself"
    text = (
        f"# Miss rate of the {what}: at most {max_miss_rate:g} with confidence {confidence:g}, for positives like "
        f"those calibrated on.\n{found.policy().to_toml()}"
    )
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    emit({"policy": str(out), **found.to_dict()}, as_json=json, table=_calibration_table(found, out))


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
    json: JsonOption = False,
) -> None:
    """Measure precision and recall with intervals, for each signal and for the rule."""
    from safetyfilter.decide.policy import Policy
    from safetyfilter.evaluation.metrics import evaluate as measure
    from safetyfilter.runs.run import Run

    if policy is None and (scores / "run.json").is_file():
        chosen = Policy.from_dict(Run.open(scores).info["policy"])
    else:
        chosen = Policy.load(policy or "co-occurrence")
    values, truth, groups = scores_and_labels(scores, labels, group_column)
    result = measure(
        values,
        truth,
        chosen,
        groups=groups,
        confidence=confidence,
        interval="wilson" if interval is Interval.wilson else "clopper-pearson",
    )
    emit(result.to_dict(), as_json=json, table=_evaluation_tables(result))


@probes_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="laion-l14 or laion-b32.")],
    to: Annotated[Path | None, typer.Option(help="A folder; the user's cache where left out.")] = None,
    json: JsonOption = False,
) -> None:
    """Download one of LAION's published detectors, and check that it is the published one."""
    from safetyfilter.score.laion import KNOWN_SHA256
    from safetyfilter.score.named import fetch_probes

    with err.status(f"fetching {name}"):
        path = fetch_probes(name, to=to)
    shown = Table(show_header=False)
    shown.add_row("file", str(path))
    shown.add_row("use it", f"--probes {name if to is None else path}")
    emit({"probes": name, "path": str(path), "sha256": KNOWN_SHA256[name]}, as_json=json, table=shown)


def _new_file(path: Path) -> None:
    if path.exists():
        raise OutputError(f"{path} exists; choose another name, or remove it first")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is no folder; make it first")


def _calibration_table(found: Calibration, out: Path) -> Table:
    columns = ["signal", "threshold", "positives", "missed", "missed at most", "excluded wrongly"]
    grouped = any(one.group is not None for one in found.signals)
    table = Table(*columns, *(["group"] if grouped else []), title=str(out), title_justify="left", box=SIMPLE_HEAD)
    for one in found.signals:
        share = one.excluded_negatives / one.negatives if one.negatives else 0.0
        table.add_row(
            one.signal,
            f"{one.threshold:.4g}",
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
    title = f"{result.samples:,} samples, intervals at {result.confidence:.0%}"
    shares = Table("what", "threshold", "recall", "precision", title=title, title_justify="left", box=SIMPLE_HEAD)
    more = Table("what", "specificity", "F2", "AUC", "avg. prec.", "unscored", box=SIMPLE_HEAD)
    for group, part in [("", result), *((f"{name}: ", part) for name, part in result.groups.items())]:
        for metrics in [*part.signals.values(), part.rule, part.policy_metrics]:
            if metrics is None:
                continue
            name = group + _SHORT.get(metrics.name, metrics.name)
            threshold = "" if metrics.threshold is None else f"{metrics.threshold:.4g}"
            # without labelled pairs, nothing found can be right: that is no precision of 0
            precision = str(metrics.precision) if metrics.recall.total else "-"
            shares.add_row(name, threshold, str(metrics.recall), precision)
            figures = [f"{x:.4f}" if x is not None else "-" for x in (metrics.auc, metrics.average_precision)]
            f2 = f"{metrics.f2.value:.3f}" if metrics.f2.value is not None else "-"
            more.add_row(name, str(metrics.specificity), f2, *figures, f"{metrics.unscored:,}")
    if result.rule is not None and not result.rule.recall.total:
        note = "No sample is labelled with both signals, so the rule's recall can't be measured: `calibrate` bounds it."
        return Group(shares, more, note)
    return Group(shares, more)
