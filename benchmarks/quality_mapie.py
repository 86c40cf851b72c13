"""Thresholds by MAPIE's control of binary risks, on the calibration data that this library's are chosen on.

These data hold no pair, so nobody can measure the rule's miss rate on them: MAPIE is given risks of lone positives
whose control bounds it by the same sum, a pair being missed only where one of its signals is. There are two ways to do
that with ``BinaryClassificationController``:

``each``
    Each signal by itself, one dimension twice. The risk is MAPIE's own ``recall`` of that signal's positives, at least
    one minus half the promised miss rate, with half the error; hypotheses are tested in a fixed sequence, and the
    lowest threshold of all groups counts. This library does the same, but for the grid.
``together``
    Both thresholds as one parameter of two dimensions. The risk is the share of lone positives, as many of each signal,
    that are below the threshold of their own signal, at most half the promise: then the two miss rates add up to no
    more than the promise, however they share it. It is one risk a group, all controlled at once; hypotheses are tested
    by Bonferroni and Holm, MAPIE's default. Of the parameters that are valid, MAPIE chooses the one whose rule excludes
    the fewest calibration pictures, none of which is a pair.

MAPIE tests parameters of a list that must not come from the data it tests them on. So the list is laid through the
scores of a tenth of the rows, which are then left out: `STEPS` thresholds for ``each``, `SIDE` times `SIDE` for
``together``. More would be told apart more finely, and cost more, both in time and in the correction for many tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import CalibrationError, MissingExtraError, UsageError

Way = Literal["each", "together"]
"""The two ways, as above."""
WAYS: tuple[Way, ...] = get_args(Way)
STEPS, SIDE = 400, 24
"""Thresholds of a list in one dimension, and along each side of one in two."""
ASIDE = 0.1
"""The share of the rows that the list is laid through."""
REACH = 3
"""The list goes up to a threshold that misses so many times the promise: above, nothing is valid."""

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_RULE = 0
"""MAPIE's label of a row that stands for a picture and the rule; a lone positive of group g has the label g + 1."""


def mapie_thresholds(
    scores: Mapping[str, npt.NDArray[np.floating]],
    present: Mapping[str, Bools],
    *,
    max_miss_rate: float,
    confidence: float,
    groups: npt.NDArray[Any] | None = None,
    way: Way = "together",
) -> dict[str, float]:
    """Return a threshold for each of two signals, chosen by MAPIE.

    Parameters
    ----------
    scores, present : mapping of str to ndarray
        (N,) scores in [0, 1], and (N,) bool, for the same two signals; no row shows both. Rows with a NaN are left out.
    max_miss_rate : float
        In (0, 1): the share of pairs that the rule may miss.
    confidence : float
        In (0, 1): how often, over draws of the rows, it must hold.
    groups : ndarray, optional
        (N,) group of each row; the bound then holds in each group with a positive.
    way : str
        ``each`` or ``together``.

    Returns
    -------
    dict of str to float
        A signal is present where ``score >= threshold``.

    Raises
    ------
    CalibrationError
        No threshold of the list keeps the promise, or there are not two signals, or a row shows both.
    UsageError
        There is no such way.
    MissingExtraError
        MAPIE is not installed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> present = {"three": np.arange(9000) < 3000, "seven": np.arange(9000) >= 6000}
    >>> scores = {signal: rng.beta(np.where(there, 9, 2), 2) for signal, there in present.items()}
    >>> found = mapie_thresholds(scores, present, max_miss_rate=0.05, confidence=0.9)
    >>> sum((scores[s][there] < found[s]).mean() for s, there in present.items()) < 0.05
    True
    """
    if way not in WAYS:
        raise UsageError(f"way is {way!r}; give {' or '.join(WAYS)}")
    signals = list(scores)
    values = np.stack([np.asarray(scores[signal], np.float64) for signal in signals], axis=1)
    there = np.stack([np.asarray(present[signal], np.bool_) for signal in signals], axis=1)
    pairs = int(there.all(axis=1).sum())
    if len(signals) != 2 or pairs:
        raise CalibrationError(
            f"there are {len(signals)} signals, and {pairs:,} rows show all of them; give two, and rows without pairs"
        )
    number = np.zeros(len(values), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    usable = np.isfinite(values).all(axis=1)
    aside = rng.random(len(values)) < ASIDE
    grids = [
        _grid(values[chosen, s], number[chosen], REACH * max_miss_rate, STEPS if way == "each" else SIDE)
        for s in range(2)
        for chosen in (usable & aside & there[:, s],)
    ]
    rest = usable & ~aside
    if way == "each":
        budget = max_miss_rate / 2, 1 - (1 - confidence) / 2
        found = [_alone(values[chosen, s], number[chosen], grids[s], *budget) for s, chosen in _positives(rest, there)]
    else:
        found = _together(values[rest], there[rest], number[rest], grids, max_miss_rate / 2, confidence, rng)
    return dict(zip(signals, found, strict=True))


def by_every_way(
    scores: Mapping[str, npt.NDArray[np.floating]],
    present: Mapping[str, Bools],
    *,
    max_miss_rate: float,
    confidence: float,
    groups: npt.NDArray[Any] | None = None,
) -> dict[Way, dict[str, float] | None]:
    """Return what `mapie_thresholds` gives for each way; None where MAPIE finds nothing, or is not installed."""
    found: dict[Way, dict[str, float] | None] = {}
    for way in WAYS:
        try:
            found[way] = mapie_thresholds(
                scores, present, max_miss_rate=max_miss_rate, confidence=confidence, groups=groups, way=way
            )
        except (CalibrationError, MissingExtraError):
            found[way] = None
    return found


def _controller(**arguments: Any) -> Any:
    """MAPIE's controller, which the `dev` extra installs."""
    try:
        from mapie.risk_control import BinaryClassificationController
    except ImportError as error:
        raise MissingExtraError("mapie", "dev") from error
    return BinaryClassificationController(**arguments)


def _positives(rest: Bools, there: Bools) -> list[tuple[int, Bools]]:
    return [(signal, rest & there[:, signal]) for signal in range(2)]


def _grid(positives: Doubles, group: npt.NDArray[np.int64], reach: float, steps: int) -> Doubles:
    """Thresholds in even steps of the logit, from the lowest score of a positive to the group's worst quantile."""
    if not len(positives):
        raise CalibrationError("no row that the thresholds are laid through shows one of the signals; give more rows")
    logits = np.log(np.clip(positives, 1e-12, 1 - 1e-12) / (1 - np.clip(positives, 1e-12, 1 - 1e-12)))
    high = min(np.quantile(logits[group == one], min(1.0, reach)) for one in np.unique(group))
    low = min(float(logits.min()), float(high) - 1)
    grid: Doubles = 1 / (1 + np.exp(-np.linspace(low - 1, high, steps)))
    return grid


def _alone(scores: Doubles, group: npt.NDArray[np.int64], grid: Doubles, rate: float, confidence: float) -> float:
    """The threshold of one signal: the lowest of those that MAPIE finds for each group of its positives."""
    found = []
    for one in np.unique(group):
        mine = scores[group == one]
        controller = _controller(
            predict_function=lambda x: np.stack([1 - x, x], axis=1),
            risk="recall",
            target_level=1 - rate,
            confidence_level=confidence,
            best_predict_param_choice="recall",
            list_predict_params=grid,
            fwer_method="fixed_sequence",
        )
        valid = _calibrated(controller, mine, np.ones(len(mine), np.int64)).valid_predict_params
        found.append(float(np.max(valid)))  # of the valid thresholds, the one that excludes the least
    if not found:
        raise CalibrationError("no row shows one of the signals; give positives of both")
    return min(found)


def _together(
    values: Doubles,
    there: Bools,
    group: npt.NDArray[np.int64],
    grids: list[Doubles],
    rate: float,
    confidence: float,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Both thresholds: the pair of the list that is valid for each group and excludes the fewest pictures."""
    from mapie.risk_control import BinaryRisk

    # A row for the rule on each picture, then a row for each lone positive, of which it is asked whether it is caught.
    rows, kinds, labels = [values], [np.full(len(values), -1)], [np.full(len(values), _RULE)]
    numbers = np.unique(group[there.any(axis=1)])
    for one in numbers:
        each = [np.flatnonzero(there[:, signal] & (group == one)) for signal in range(2)]
        most = min(map(len, each)) or max(map(len, each))  # as many of both, where the group has both
        for signal, members in enumerate(each):
            chosen = rng.permutation(members)[:most]
            rows.append(values[chosen])
            kinds.append(np.full(len(chosen), signal))
            labels.append(np.full(len(chosen), one + 1))
    x = np.column_stack([np.concatenate(rows), np.concatenate(kinds)])
    missed = [
        BinaryRisk(
            risk_occurrence=lambda truth, caught: caught == 0,
            risk_condition=lambda truth, caught, one=one: truth == one + 1,
            higher_is_better=False,
        )
        for one in numbers
    ]
    controller = _controller(
        predict_function=_caught,
        risk=missed,
        target_level=[rate] * len(missed),
        confidence_level=confidence,
        best_predict_param_choice=BinaryRisk(
            risk_occurrence=lambda truth, excluded: excluded == 1,
            risk_condition=lambda truth, excluded: truth == _RULE,
            higher_is_better=False,
        ),
        list_predict_params=np.array([(first, second) for first in grids[0] for second in grids[1]]),
    )
    best: tuple[float, ...] = _calibrated(controller, x, np.concatenate(labels)).best_predict_param
    return best


def _caught(x: Doubles, first: float, second: float) -> npt.NDArray[np.uint8]:
    """(R,) 1 where a lone positive is caught by its own signal's threshold, or the rule excludes a picture."""
    flagged = x[:, 0] >= first, x[:, 1] >= second
    return np.choose(x[:, 2].astype(np.int64) + 1, [flagged[0] & flagged[1], *flagged]).astype(np.uint8)


def _calibrated(controller: Any, x: Doubles, labels: npt.NDArray[np.int64]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that nothing is valid, which is an error here
        controller.calibrate(x, labels)
    if controller.best_predict_param is None:
        raise CalibrationError(
            "MAPIE finds no threshold that keeps the promise; give more labelled rows, or ask for a higher miss rate"
        )
    return controller
