"""Folds for cross-validation: each label spread evenly, near-duplicates kept together."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import CalibrationError
from safetyfilter.score.labels import Column


def assign_folds(
    present: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64] | None, folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the (N,) fold of each sample, each label spread evenly and no group split.

    Raises
    ------
    CalibrationError
        Labels of one class, or all samples of a label in one group.
    """
    rng = np.random.default_rng(seed)
    counts = {"present": int(present.sum()), "absent": int((~present).sum())}
    if min(counts.values()) < 2 or folds < 2:
        raise CalibrationError(
            f"{counts['present']} samples are labelled present and {counts['absent']} absent; "
            "cross-validation needs at least 2 of each and 2 folds: label more"
        )
    fold_of = np.empty(len(present), np.int64)
    if groups is None:
        folds = min(folds, *counts.values())
        for side in (present, ~present):
            fold_of[rng.permutation(np.flatnonzero(side))] = np.arange(side.sum()) % folds
        return fold_of
    size = np.bincount(groups)
    positives = np.bincount(groups, weights=present).astype(np.int64)
    folds = min(folds, int((positives > 0).sum()), int((positives < size).sum()))
    if folds < 2:
        raise CalibrationError(
            "all samples of a label lie in one group; cross-validation needs at least 2 groups with "
            "each label: label more, or give finer groups"
        )
    # The largest groups go first, each to the fold with the least so far: positives by their count, the rest by size.
    fold_of_group = np.empty(len(size), np.int64)
    filled = np.zeros(folds, np.int64)
    for members, load in (((positives > 0), positives), ((positives == 0) & (size > 0), size)):
        heap = [(0 if load is positives else int(filled[fold]), fold) for fold in range(folds)]
        heapq.heapify(heap)
        shuffled = rng.permutation(np.flatnonzero(members))
        for group in shuffled[np.argsort(-load[shuffled], kind="stable")]:
            weight, fold = heapq.heappop(heap)
            fold_of_group[group] = fold
            filled[fold] += size[group]
            heapq.heappush(heap, (weight + int(load[group]), fold))
    fold_of = fold_of_group[groups]
    if any(len(np.unique(present[fold_of == fold])) < 2 for fold in range(folds)):
        raise CalibrationError(
            f"{folds} folds without splitting a group leave one with a single label; give finer "
            "groups, label more, or ask for fewer folds"
        )
    return fold_of


def group_numbers(groups: Column, count: int) -> npt.NDArray[np.int64]:
    """Return the (N,) number of each sample's group, from 0; those without one are a group too.

    >>> group_numbers(["b", "a", "b"], 3).tolist()
    [1, 0, 1]
    """
    values = np.asarray(groups)
    if values.shape != (count,):
        raise CalibrationError(f"there are {count} samples and groups of shape {values.shape}; give one for each row")
    indices: npt.NDArray[np.int64] = np.unique(
        values.astype(str) if values.dtype == object else values, return_inverse=True
    )[1]
    return indices
