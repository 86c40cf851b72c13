"""``train``, ``calibrate``, ``evaluate`` and ``probes fetch``."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app, emit, err
from safetyfilter.errors import CalibrationError, OutputError, ProbeError

if TYPE_CHECKING:
    from safetyfilter.decide.risk import Calibration
    from safetyfilter.evaluate.metrics import Evaluation

probes_app = typer.Typer(no_args_is_help=True, help="Published probes.")
app.add_typer(probes_app, name="probes")


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
        "Joined on key_digest where both have it, else row by row. An optional column holds groups."
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
    vectors, keys = _read_embeddings(embeddings)
    table = _aligned(_read_table(labels, "labels"), keys, len(vectors))
    with err.status("training"):
        probe = train_probe(
            vectors,
            _labels(table, signal),
            signal=signal,
            encoder=_encoder_digest(encoder_digest, embeddings),
            captions=None if captions is None else _load_npy(captions),
            groups=_groups(table, group_column),
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
    from safetyfilter.data.atomic import replacing
    from safetyfilter.decide.risk import calibrate_thresholds

    _new_file(out)
    values, truth, groups = _scores_and_labels(scores, labels, group_column)
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
        str, typer.Option(help="A preset or a TOML file, whose thresholds are measured.")
    ] = "co-occurrence",
    group_column: GroupOption = None,
    confidence: ConfidenceOption = 0.95,
    interval: Annotated[Interval, typer.Option(help="How intervals are made.")] = Interval.wilson,
    json: JsonOption = False,
) -> None:
    """Measure precision and recall with intervals, for each signal and for the rule."""
    from safetyfilter.decide.policy import Policy
    from safetyfilter.evaluate.metrics import evaluate as measure

    values, truth, groups = _scores_and_labels(scores, labels, group_column)
    result = measure(
        values,
        truth,
        Policy.load(policy),
        groups=groups,
        confidence=confidence,
        interval="wilson" if interval is Interval.wilson else "clopper-pearson",
    )
    emit(result.to_dict(), as_json=json, table=_evaluation_table(result))


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


def _load_npy(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ProbeError(f"can't read the embeddings in {path}: {error}; give a .npy of floats") from error
    if not isinstance(array, np.ndarray):
        raise ProbeError(f"{path} holds several arrays; give a .npy of one")
    return array


def _read_embeddings(path: Path) -> tuple[npt.NDArray[Any], list[bytes] | None]:
    """The vectors, as a memory map where they are one file, and the key digests where a run gives them."""
    if not path.is_dir():
        beside = path.parent.parent / "scores" / f"{path.stem}.parquet"
        return _load_npy(path), _key_digests(_read_table(beside, "scores")) if beside.is_file() else None
    parts = sorted((path / "embeddings").glob("part-*.npy"))
    if not parts:
        raise ProbeError(f"{path} holds no embeddings; scan with --keep-embeddings, or give a .npy")
    arrays = [_load_npy(part) for part in parts]
    keys = _key_digests(_read_table(path, "scores"))
    return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)), keys


def _read_table(path: Path, what: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((path / "scores" if (path / "scores").is_dir() else path).glob("*.parquet"))
    try:
        if path.is_dir() and files:
            return pa.concat_tables([pq.read_table(file).replace_schema_metadata() for file in files])
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CalibrationError(f"can't read the {what} in {path}: {error}; give a Parquet file") from error


def _key_digests(table: Any) -> list[bytes] | None:
    return table.column("key_digest").to_pylist() if "key_digest" in table.column_names else None


def _aligned(labels: Any, keys: list[bytes] | None, count: int) -> Any:
    """The labels in the order of the rows they belong to; rows without a label get null."""
    import pyarrow as pa

    label_keys = _key_digests(labels)
    if keys is None or label_keys is None:
        if len(labels) != count:
            raise CalibrationError(
                f"there are {count} rows and {len(labels)} labels; give one a row, or a key_digest in both"
            )
        return labels
    place = {key: row for row, key in enumerate(label_keys)}
    if len(place) != len(label_keys):
        raise CalibrationError("the labels have a key_digest twice; give each sample one row")
    rows = [place.get(key) for key in keys]
    matched = sum(row is not None for row in rows)
    if not matched:
        raise CalibrationError(
            "no label's key_digest is among the rows'; key digests are one run's own: take them from its scores"
        )
    if matched < len(label_keys):
        err.print(f"[yellow]{len(label_keys) - matched:,} of {len(label_keys):,} labels belong to no row")
    return labels.take(pa.array(rows, pa.int64()))


def _labels(table: Any, signal: str) -> npt.NDArray[Any]:
    from safetyfilter.score.labels import column_of

    return column_of(table, signal, "labels")


def _groups(table: Any, column: str | None) -> npt.NDArray[Any] | None:
    if column is None:
        return None
    from safetyfilter.score.labels import column_of

    return column_of(table, column, "labels").astype(str)


def _scores_and_labels(scores: Path, labels: Path, group_column: str | None) -> tuple[Any, Any, Any]:
    values = _read_table(scores, "scores")
    truth = _aligned(_read_table(labels, "labels"), _key_digests(values), len(values))
    return values, truth, _groups(truth, group_column)


def _encoder_digest(given: str | None, embeddings: Path) -> str:
    """The encoder's digest: as given, or from a JSON file, or from the run that the embeddings lie in."""
    if given is not None and not Path(given).is_file():
        if len(given) == 64 and set(given) <= set("0123456789abcdef"):
            return given
        raise ProbeError(f"{given!r} is neither a digest of 64 hexadecimal digits nor a JSON file")
    source = Path(given) if given else (embeddings if embeddings.is_dir() else embeddings.parent.parent) / "run.json"
    if not source.is_file():
        raise ProbeError(
            f"there is no run.json at {source} to say which encoder made the embeddings; give --encoder-digest"
        )
    try:
        data = jsonlib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProbeError(f"can't read {source}: {error}; give --encoder-digest") from error
    digest = _find_digest(data)
    if digest is None:
        raise ProbeError(f"{source} names no encoder; give its digest with --encoder-digest")
    return digest


def _find_digest(data: Any) -> str | None:
    """The digest in an encoder's specification, or in a `run.json` that holds one."""
    if not isinstance(data, Mapping):
        return None
    if "architecture" in data and isinstance(data.get("digest"), str):
        return str(data["digest"])
    return next((found for name in ("encoder", "setup") if (found := _find_digest(data.get(name)))), None)


def _calibration_table(found: Calibration, out: Path) -> Table:
    table = Table(
        "signal",
        "threshold",
        "positives",
        "missed",
        "miss rate at most",
        "negatives excluded",
        title=str(out),
        title_justify="left",
    )
    for one in found.signals:
        share = one.excluded_negatives / one.negatives if one.negatives else 0.0
        table.add_row(
            one.signal,
            f"{one.threshold:.4g}",
            f"{one.positives:,}",
            f"{one.misses:,}",
            f"{one.upper_bound:.4f}",
            f"{share:.1%}" if one.negatives else "-",
        )
    if found.rule_upper_bound is not None:
        table.add_row("the rule", "", "", "", f"{found.rule_upper_bound:.4f}", "")
    return table


def _evaluation_table(result: Evaluation) -> Table:
    table = Table(
        "what",
        "precision",
        "recall",
        "specificity",
        "F2",
        "AUC",
        "average precision",
        "unscored",
        title=f"{result.samples:,} samples, intervals at {result.confidence:.0%}",
        title_justify="left",
    )
    for group, part in {"": result, **result.groups}.items():
        for metrics in [*part.signals.values(), part.rule, part.policy_metrics]:
            if metrics is not None:
                figures = [f"{x:.4f}" if x is not None else "-" for x in (metrics.auc, metrics.average_precision)]
                table.add_row(
                    f"{group}: {metrics.name}".removeprefix(": "),
                    str(metrics.precision),
                    str(metrics.recall),
                    str(metrics.specificity),
                    str(metrics.f2),
                    *figures,
                    f"{metrics.unscored:,}",
                )
    return table
