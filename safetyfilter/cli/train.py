"""``train``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.labelled import GroupOption, LabelsArgument, groups_of, new_file
from safetyfilter.cli.output import emit, err


@app.command()
def train(
    embeddings: Annotated[
        str,
        typer.Argument(
            metavar="EMBEDDINGS", help="A run directory made with --keep-embeddings, or a .npy of (N, D) floats."
        ),
    ],
    labels: LabelsArgument,
    signal: Annotated[str, typer.Option(help="The signal that the labels tell of; the labels' column.")],
    out: Annotated[str, typer.Option(help="A new .safetensors file.")],
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
    group_column: GroupOption = None,
    provenance: Annotated[str, typer.Option(help="Your note on where the data come from, kept in the file.")] = "",
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    json: JsonOption = False,
) -> None:
    """Fit a probe for one signal on labelled embeddings."""
    from dataclasses import asdict

    from safetyfilter.evaluation.inputs import read_encoder, read_labelled_embeddings
    from safetyfilter.score.bank import ProbeBank
    from safetyfilter.score.training import train_probe
    from safetyfilter.signals import PAIR
    from safetyfilter.standin import STANDIN_PAIR

    path = new_file(out)
    labelled = read_labelled_embeddings(embeddings, labels, captions)
    with err.status("training"):
        probe = train_probe(
            labelled.vectors,
            labelled.labels_of(signal),
            signal=signal,
            encoder=read_encoder(encoder_digest, labelled.run, embeddings),
            captions=labelled.captions,
            groups=groups_of(labelled.labels, group_column),
            provenance=provenance,
            seed=seed,
        )
    pair = labelled.run.record.setup.pair if labelled.run else STANDIN_PAIR if signal in STANDIN_PAIR.names else PAIR
    ProbeBank([probe], pair=pair).save(path)
    card = asdict(probe.card) if probe.card else {}
    shown = Table("figure", "value", title=f"{signal}: {out}", title_justify="left")
    for name in ("positives", "negatives", "auc", "average_precision", "calibration_error", "regularisation"):
        shown.add_row(name.replace("_", " "), f"{card[name]:.4g}" if isinstance(card[name], float) else str(card[name]))
    result = {
        "probes": out,
        "signal": signal,
        "encoder": probe.encoder,
        "digest": probe.digest,
        "inputs": probe.inputs,
        "card": card,
    }
    emit(result, as_json=json, shown=shown)
