"""``train``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.labelled import GroupOption, LabelsArgument, groups_of, new_file
from safetyfilter.cli.output import emit
from safetyfilter.cli.progress import step
from safetyfilter.errors import UsageError

if TYPE_CHECKING:
    from safetyfilter.score.age_card import AgeCard
    from safetyfilter.score.ages import AgeCut
    from safetyfilter.score.card import ProbeCard

_SHOWN_RECALLS = ("0.9", "0.95", "0.99")


@app.command()
def train(
    embeddings: Annotated[
        str,
        typer.Argument(
            metavar="EMBEDDINGS",
            help="A run directory made with --keep-embeddings, or a .npy of (N, D) or (N, views, D) floats.",
        ),
    ],
    labels: LabelsArgument,
    out: Annotated[str, typer.Option(help="A new .safetensors file.")],
    signal: Annotated[
        str | None,
        typer.Option(help="The signal that the labels tell of; the labels' column. With --below it is minor."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The labels' column, where it is not named after the signal.")
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(help="The column holds ages in years, and the signal is present in whoever is younger than this."),
    ] = None,
    gap: Annotated[
        float | None, typer.Option(help="Years on either side of --below whose samples are left out; none by default.")
    ] = None,
    encoder_digest: Annotated[
        str | None,
        typer.Option(
            help="Digest of the encoder that made the embeddings, or a JSON file with it; a run's own is known."
        ),
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            help="A .npy of the captions' embeddings, row by row those of LABELS, for a probe on images with captions."
        ),
    ] = None,
    beside_whole: Annotated[
        bool,
        typer.Option(
            "--beside-whole",
            help="Judge each of several views beside the whole picture; for embeddings of --views multi.",
        ),
    ] = False,
    other_column: Annotated[
        str | None,
        typer.Option(
            help="The labels' column of the other signal, which no sample shows beside this one: the probe then does "
            "not take it for a proof of absence."
        ),
    ] = None,
    positive_weight: Annotated[
        float, typer.Option(help="How much more the positives count in all than the negatives; 1 for alike.")
    ] = 1.0,
    weight_column: Annotated[
        str | None,
        typer.Option(help="The labels' column of weights, above 0: how much a sample counts among those of its label."),
    ] = None,
    group_column: GroupOption = None,
    provenance: Annotated[str, typer.Option(help="Your note on where the data come from, kept in the file.")] = "",
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    json: JsonOption = False,
) -> None:
    """Fit a probe for one signal on labelled embeddings."""
    from dataclasses import asdict

    from safetyfilter.evaluation.labelled_embeddings import read_encoder, read_labelled_embeddings
    from safetyfilter.score.bank import ProbeBank
    from safetyfilter.score.labels import column_of
    from safetyfilter.score.training import train_probe
    from safetyfilter.signals import PAIR
    from safetyfilter.standin import STANDIN_PAIR

    ages = _cut(below, gap, label_column)
    if signal is None and ages is None:
        raise UsageError("no signal is named; give --signal, with the signal that the labels tell of")
    if not 0 < positive_weight < math.inf:
        raise UsageError(f"--positive-weight is {positive_weight}; give a number above 0, 1 for labels alike")
    if ages is not None and signal == PAIR.explicit:
        raise UsageError(f"ages tell nothing of {signal}; leave --below out, or give --signal {PAIR.minor}")
    signal = signal or PAIR.minor
    column = signal if label_column is None else label_column
    if other_column == column:
        raise UsageError(
            f"--other-column names the labels of {signal} themselves; give the column of the other signal's labels"
        )
    path = new_file(out)
    labelled = read_labelled_embeddings(embeddings, labels, captions)
    with step("training"):
        probe = train_probe(
            labelled.vectors,
            labelled.labels_of(column),
            signal=signal,
            encoder=read_encoder(encoder_digest, labelled.run, embeddings),
            captions=labelled.captions,
            beside_whole=beside_whole,
            other=column_of(labelled.labels, other_column, "labels") if other_column is not None else None,
            weights=column_of(labelled.labels, weight_column, "labels") if weight_column is not None else None,
            positive_weight=positive_weight,
            groups=groups_of(labelled.labels, group_column),
            ages=ages,
            trained_on=labelled.trained_on,
            provenance=provenance,
            seed=seed,
        )
    pair = labelled.run.record.setup.pair if labelled.run else STANDIN_PAIR if signal in STANDIN_PAIR.names else PAIR
    ProbeBank([probe], pair=pair).save(path)
    result = {
        "probes": out,
        "signal": signal,
        "encoder": probe.encoder,
        "digest": probe.digest,
        "inputs": probe.inputs,
        "card": asdict(probe.card) if probe.card else {},
    }
    emit(result, as_json=json, shown=_shown(f"{signal}: {out}", probe.card))


def _cut(below: float | None, gap: float | None, label_column: str | None) -> AgeCut | None:
    """Return the cut through ages that was asked for; `UsageError` for options that need each other."""
    from safetyfilter.score.ages import AgeCut

    if below is None:
        if gap is not None:
            raise UsageError("--gap leaves out ages around a cut, and none is given; give --below too, such as 18")
        return None
    if label_column is None:
        raise UsageError("--below cuts through ages, and no column of them is named; give --label-column too")
    return AgeCut(below=below, gap=gap or 0)


def _shown(title: str, card: ProbeCard | None) -> RenderableType:
    """Return a probe's figures as tables."""
    shown = Table("figure", "value", title=title, title_justify="left")
    for name in ("method", "positives", "negatives", "auc", "average_precision", "calibration_error", "regularisation"):
        value = getattr(card, name)
        shown.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    if card and (looks := card.trained_on.in_words):
        shown.add_row("trained on", looks)
    return Group(shown, _bands(card.ages)) if card and card.ages else shown


def _bands(ages: AgeCard) -> Table:
    """Return the share of each band of ages that is found, and how many samples were left out."""
    shown = Table(
        "age",
        "label",
        "samples",
        *(f"at {share}" for share in _SHOWN_RECALLS),
        title="found by age in years (of the absent: false alarms), at the threshold that finds that share, held out",
        title_justify="left",
    )
    for band in ages.bands:
        found = (f"{band.found[share]:.3f}" for share in _SHOWN_RECALLS)
        shown.add_row(band.years, band.label, f"{band.samples:,}", *found)
    for what, count in (("not an age", ages.not_ages), ("no age", ages.without_age)):
        shown.add_row(what, "left out", f"{count:,}")
    return shown
