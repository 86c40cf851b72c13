"""The displays of an evaluation as picture files, for those without a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import MissingExtraError, OutputError
from safetyfilter.evaluation.curves import PrecisionRecallDisplay, ReliabilityDisplay
from safetyfilter.evaluation.drawing import FIGURE_SIZE
from safetyfilter.evaluation.histograms import ScoreHistogramDisplay
from safetyfilter.evaluation.joint_scores import JointScoreDisplay
from safetyfilter.evaluation.measure import Evaluation
from safetyfilter.evaluation.trade_off import TradeOffDisplay
from safetyfilter.score.labels import NamedColumns, column_of
from safetyfilter.storage import Location, local_path, replacing

_DPI = 150


def require_new_folder(folder: str | os.PathLike[str]) -> None:
    """Raise `OutputError` unless plots can be written there: a folder that is new or empty."""
    local = local_path(folder, "the plots")
    if local.exists() and (not local.is_dir() or any(local.iterdir())):
        raise OutputError(f"{folder} is there already; give a new or empty directory for the plots")


def write_plots(
    evaluation: Evaluation, scores: NamedColumns, labels: NamedColumns, folder: str | os.PathLike[str]
) -> list[str]:
    """Write a display of each kind as a PNG: for each signal measured, and for the pair.

    Parameters
    ----------
    evaluation : Evaluation
        Of these scores and labels.
    scores, labels : mapping-like
        As of `evaluate`.
    folder : path
        A new or empty directory on this machine.

    Returns
    -------
    list of str
        The files' names: ``precision-recall-SIGNAL.png``, ``reliability-SIGNAL.png`` and ``scores-SIGNAL.png``; where
        both of the pair are scored also ``trade-off-SIGNAL.png`` of its labelled signals, and ``pair.png``.

    Raises
    ------
    OutputError
        The directory is not empty, or can't be written.
    MissingExtraError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "notebook") from error
    require_new_folder(folder)
    place, names = Location.of(local_path(folder, "the plots")), []
    place.make_folder()
    for name, display in _displays(evaluation, scores, labels):
        figure = Figure(figsize=FIGURE_SIZE, layout="constrained")  # of no window, whatever the machine has
        display.plot(figure.subplots())
        names.append(f"{name.replace('/', '_')}.png")
        with replacing(place / names[-1]) as file:
            figure.savefig(file, format="png", dpi=_DPI)
    return names


def _displays(evaluation: Evaluation, scores: NamedColumns, labels: NamedColumns) -> Iterator[tuple[str, Any]]:
    policy: Policy = evaluation.policy
    for signal in evaluation.signals:
        values, truth = column_of(scores, signal, "scores"), column_of(labels, signal, "labels")
        threshold = policy.thresholds[signal]
        yield (
            f"precision-recall-{signal}",
            PrecisionRecallDisplay.from_scores(values, truth, signal=signal, operating_threshold=threshold),
        )
        yield f"reliability-{signal}", ReliabilityDisplay.from_scores(values, truth, signal=signal)
        yield f"scores-{signal}", ScoreHistogramDisplay.from_scores(values, truth, signal=signal, threshold=threshold)
    if evaluation.kept is not None:  # all of the policy's signals are scored
        for signal in (name for name in policy.pair.names if name in evaluation.signals):
            yield f"trade-off-{signal}", TradeOffDisplay.from_scores(scores, labels, signal=signal, policy=policy)
        yield "pair", JointScoreDisplay.from_scores(scores, policy)
