"""How well probes tell real pictures, on stored embeddings that the user holds: no picture is opened.

    python benchmarks/real.py TESTSET [--probes laion-l14|FILE] [--normalise] [--json FILE]
    python benchmarks/real.py RUN|EMBEDDINGS.npy --labels LABELS [--signal minor] [--probes FILE] [--json FILE]

The first takes LAION's published test set for its detectors, a folder or the zip file, and scores it by LAION's
detector for ViT-L/14. The second takes embeddings with labels, of ICCWD for example, and scores them by the probes
given. Both also train a linear probe by cross-validation on the same rows: each row is scored by a probe that has not
seen it, whose regularisation and calibration have not either. docs/real-data.md tells how the files are had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import SEED, environment, finish, show
from real_laion import read_laion
from real_sets import LabelledSet, read_own

from safetyfilter import ProbeBank, train_probe
from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import ProbeError, SafetyFilterError
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.evaluation.metrics import Detections, Measure
from safetyfilter.score.folds import assign_folds, group_numbers

THRESHOLDS = (0.5, 0.8)
DETECTOR = "laion-l14"
PUBLISHED = {
    "LAION, of its detector": {"accuracy": 0.961},
    "an independent run, at 0.8": {"accuracy": 0.9616, "recall": 0.9456, "precision": 0.9758},
}
"""Figures that others give for LAION's test set and its detector for ViT-L/14; docs/real-data.md tells from where."""
SHARES = ("accuracy", "recall", "precision", "false_alarms")

Doubles = npt.NDArray[np.float64]
Row = dict[str, Any]


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="LAION's test set; with --labels a run that kept embeddings, or a .npy")
    parser.add_argument("--probes", help=f"a probe file or a fetched detector; {DETECTOR} for LAION's test set")
    parser.add_argument("--labels", help="Parquet or CSV with a column for the signal, or ICCWD's table")
    parser.add_argument("--signal", default="minor", help="the signal that the labels are about")
    parser.add_argument("--group-column", help="the labels' column of groups, which no fold divides")
    parser.add_argument("--encoder", default="ViT-L-14-quickgelu/openai", help="ARCHITECTURE/TAG of a .npy")
    parser.add_argument("--normalise", action="store_true", help="accept rows of any norm, each divided by it")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args(words)


def read(options: argparse.Namespace) -> LabelledSet:
    """The embeddings and labels that were asked for."""
    if options.labels is None:
        return read_laion(options.path).of_unit_norm(normalise=options.normalise)
    encoder = NamedEncoder.named(*options.encoder.split("/", 1)).spec
    own = read_own(options.path, options.labels, options.signal, encoder=encoder, group_column=options.group_column)
    return own.of_unit_norm(normalise=options.normalise)


def given_scores(rows: LabelledSet, probes: str) -> Doubles:
    """(N,) the scores of one signal by given probes, NaN where a row has none.

    Raises
    ------
    ProbeError, EncoderMismatchError
        The probes are not there, do not score the signal, or belong to another encoder.
    """
    bank = ProbeBank.load(probes)
    if rows.signal not in bank.signals:
        raise ProbeError(
            f"the probes in {probes} score {' and '.join(bank.signals)}, and the labels are about {rows.signal}; give "
            "probes for it with --probes, or name another signal with --signal"
        )
    batch = EmbeddingBatch(vectors=rows.vectors, encoder=rows.encoder.digest)
    return bank.bind(rows.encoder).score(batch)[rows.signal].astype(np.float64)


def held_out_scores(rows: LabelledSet, folds: int) -> Doubles:
    """(N,) scores by linear probes that have not seen the row, NaN where it has no embedding or no label.

    Raises
    ------
    CalibrationError
        Too few of a label, or embeddings that do not tell them apart.
    """
    used = np.flatnonzero(rows.scorable & rows.labels.known)
    groups = None if rows.groups is None else group_numbers(rows.groups, len(rows.vectors))[used]
    present = rows.labels.present[used]
    fold_of = assign_folds(present, groups, folds, SEED)
    scores = np.full(len(rows.vectors), np.nan)
    for fold in range(int(fold_of.max()) + 1):
        held, rest = used[fold_of == fold], fold_of != fold
        probe = train_probe(
            rows.vectors[used[rest]],
            present[rest],
            signal=rows.signal,
            encoder=rows.encoder,
            groups=None if groups is None else groups[rest],
            folds=folds,
            seed=SEED,
            progress=False,
        )
        scores[held] = ProbeBank([probe]).score_vectors(rows.vectors[held])[:, 0]
    return scores


def figures(rows: LabelledSet, scores: Doubles) -> Row:
    """What scores tell of the labels: areas, and shares with Wilson's 95 % intervals at each threshold.

    A row without a score counts as flagged, as it is excluded in use.
    """
    known = rows.labels.known
    result: Row = {"unscored": int(np.isnan(scores[known]).sum()), "at": {}}
    for threshold in THRESHOLDS:
        found = np.isnan(scores) | (scores >= threshold)
        one = Measure().metrics(
            Detections(name=rows.signal, found=found, scores=scores, labels=rows.labels, threshold=threshold)
        )
        result |= {"auc": one.auc, "average_precision": one.average_precision}
        right = one.true_positives + one.true_negatives
        at: Row = {
            "accuracy": Proportion.of(right, one.labelled).to_dict(),
            "recall": one.recall.to_dict(),
            "precision": one.precision.to_dict(),
            "false_alarms": Proportion.of(one.false_positives, one.false_positives + one.true_negatives).to_dict(),
        }
        if rows.folder is not None:
            members = {name: rows.folder == name for name in dict.fromkeys(rows.folder.tolist())}
            at["flagged"] = {n: Proportion.of(int(found[m].sum()), int(m.sum())).to_dict() for n, m in members.items()}
        result["at"][f"{threshold:g}"] = at
    return result


def measure(rows: LabelledSet, *, probes: str | None, folds: int, needed: bool) -> Row:
    """The figures of given probes and of the cross-validated one.

    Parameters
    ----------
    rows : LabelledSet
        Embeddings and labels.
    probes : str or None
        A probe file or a detector's name; None for none.
    folds : int
        Of the cross-validation.
    needed : bool
        Raise where the probes can't be had; off, the result tells why they are left out.
    """
    known, present = rows.labels.known, rows.labels.present
    counts: Row = {"rows": len(known), "present": int((known & present).sum()), "absent": int((known & ~present).sum())}
    if rows.folder is not None:
        counts["folders"] = {name: int((rows.folder == name).sum()) for name in dict.fromkeys(rows.folder.tolist())}
    result: Row = {"signal": rows.signal, "encoder": rows.encoder.name, "counts": counts, "folds": folds, "ways": {}}
    if probes is not None:
        try:
            result["ways"][probes if probes == DETECTOR else "given probes"] = figures(rows, given_scores(rows, probes))
        except ProbeError as error:
            if needed:
                raise
            result["left_out"] = {probes: str(error)}
    result["ways"]["linear probe"] = figures(rows, held_out_scores(rows, folds))
    return result


def print_tables(result: Mapping[str, Any]) -> None:
    """The figures in percent, beside those that others give."""
    rows = [
        (way, threshold, *(_percent(at[share]) for share in SHARES))
        for way, found in result["ways"].items()
        for threshold, at in found["at"].items()
    ]
    rows += [
        (who, "-", *(f"{100 * given[share]:.2f}" if share in given else "-" for share in SHARES))
        for who, given in result.get("published", {}).items()
    ]
    show(
        f"{result['signal']} on {result['counts']['rows']:,} embeddings, the linear probe by cross-validation, %",
        ("scored by", "threshold", *(share.replace("_", " ") for share in SHARES)),
        rows,
    )
    folders = list(result["counts"].get("folders", ()))
    if folders:
        show(
            "Flagged by folder, %",
            ("scored by", "threshold", *folders),
            [
                (way, threshold, *(_percent(at["flagged"][folder]) for folder in folders))
                for way, found in result["ways"].items()
                for threshold, at in found["at"].items()
            ],
        )
    for probes, why in result.get("left_out", {}).items():
        print(f"{probes} is left out: {why}")


def _percent(share: Mapping[str, float | None]) -> str:
    value, low, high = (share[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "-"
    return f"{100 * value:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def main() -> None:
    """Measure, print, and write what was asked for; one sentence and status 1 where it can't be."""
    options = arguments()
    try:
        laion = options.labels is None
        probes = options.probes or (DETECTOR if laion else None)
        result = measure(read(options), probes=probes, folds=options.folds, needed=options.probes is not None)
    except (SafetyFilterError, OSError) as error:
        sys.exit(f"error: {error}")
    if laion:
        result["published"] = PUBLISHED
    print_tables(result)
    finish({"environment": environment("scikit-learn"), **result}, options.json)


if __name__ == "__main__":
    main()
