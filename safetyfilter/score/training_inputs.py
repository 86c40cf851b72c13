"""The arrays that a probe is trained on, checked and brought to one shape; and the settings of a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.embed.pictures.views import VIEW_COUNTS
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError, EncoderMismatchError
from safetyfilter.score.labels import Column
from safetyfilter.score.trained_on import TrainedOn

Rows = npt.NDArray[np.floating[Any]]

MOST_WEIGHT = 1e6
"""The most that a sample, or the positives, may count, and its inverse the least: their sums in float32 are sound."""

LEAST_SEARCH_ROWS = 100
"""The fewest rows on which regularisation is chosen."""


def check_settings(
    *, positive_weight: float, folds: int, regularisation: Sequence[float], search_rows: int, seed: int
) -> None:
    """Raise `CalibrationError` for a setting of a training that is none, saying which and what to give.

    >>> check_settings(positive_weight=1, folds=5, regularisation=[0.1], search_rows=50, seed=0)
    Traceback (most recent call last):
    safetyfilter.errors.CalibrationError: search_rows is 50; give a whole number of at least 100
    """
    whole = {"folds": (folds, 2), "search_rows": (search_rows, LEAST_SEARCH_ROWS), "seed": (seed, 0)}
    for name, (value, least) in whole.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise CalibrationError(f"{name} is {value!r}; give a whole number of at least {least}")
    if not _is_number(positive_weight) or not 1 / MOST_WEIGHT <= positive_weight <= MOST_WEIGHT:
        raise CalibrationError(
            f"positive_weight is {positive_weight!r}; give a number above 0, 1 for labels alike, and between "
            f"{1 / MOST_WEIGHT:g} and {MOST_WEIGHT:g}"
        )
    values = list(regularisation) if isinstance(regularisation, Iterable) else []
    if not values or not all(_is_number(value) and 0 < value < np.inf for value in values):
        raise CalibrationError(f"regularisation is {regularisation!r}; give a sequence of one number above 0 or more")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def checked_inputs(
    embeddings: Rows, captions: Rows | None, encoder: EncoderSpec | str, trained_on: TrainedOn, whole: bool = False
) -> list[Rows]:
    """Return the embeddings of pictures, and what each view is judged beside, as (N, V, D) each, without a copy.

    That is its caption, where there are captions, or with `whole` the whole picture.

    Raises
    ------
    CalibrationError
        An array has another shape or is not of floats, or the views are not as many as `trained_on` says.
    EncoderMismatchError
        The embeddings do not have the encoder's width.

    Examples
    --------
    >>> pictures, captions = np.zeros((4, 5, 8), np.float32), np.zeros((4, 8), np.float32)
    >>> [array.shape for array in checked_inputs(pictures, captions, "e", TrainedOn(views="multi"))]
    [(4, 5, 8), (4, 5, 8)]
    """
    if not isinstance(embeddings, np.ndarray):
        raise CalibrationError(
            f"embeddings are {type(embeddings).__name__}; give an array of (N, D) floats, or of (N, V, D) for V views "
            "of each picture"
        )
    if embeddings.ndim not in (2, 3) or not np.issubdtype(embeddings.dtype, np.floating) or 0 in embeddings.shape[1:]:
        raise CalibrationError(
            "embeddings are (N, D) floats, or (N, V, D) of V views of each picture, not "
            f"{embeddings.shape} {embeddings.dtype}"
        )
    views = 1 if embeddings.ndim == 2 else embeddings.shape[1]
    if (expected := VIEW_COUNTS.get(trained_on.views, views)) != views:
        raise CalibrationError(
            f"the embeddings are said to have the views {trained_on.views!r}, of which a picture has {expected}, and "
            f"are of {views} each; give the embeddings and the views of one run"
        )
    width = embeddings.shape[-1]
    if captions is not None and (
        captions.shape != (len(embeddings), width) or not np.issubdtype(captions.dtype, np.floating)
    ):
        raise CalibrationError(
            f"embeddings have the shape {embeddings.shape}, and captions {captions.shape} {captions.dtype}; give one "
            f"caption for each image, {(len(embeddings), width)} floats, from the same encoder"
        )
    if isinstance(encoder, EncoderSpec) and encoder.width != width:
        raise EncoderMismatchError(
            f"the embeddings have {width} columns, and those of {encoder} have {encoder.width}; give the encoder that "
            "made them"
        )
    inputs = [embeddings.reshape(-1, views, width)]
    if whole:
        if captions is not None or views == 1:
            raise CalibrationError(
                "a probe that judges views beside the whole picture takes embeddings of several views (--views multi) "
                f"and no captions; these are of {views} view{'s' if views > 1 else ''} each"
                f"{' and come with captions' if captions is not None else ''}: leave beside_whole (--beside-whole) out"
            )
        inputs.append(np.broadcast_to(inputs[0][:, :1], inputs[0].shape))
    if captions is not None:
        inputs.append(np.broadcast_to(captions[:, None], inputs[0].shape))
    return inputs


def sample_weights(weights: Column | None, count: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Return how much each of the samples in `rows` counts, 1 where nothing says.

    Samples without a label need no weight.

    Raises
    ------
    CalibrationError
        There are not `count` weights, or that of a sample in `rows` is not a number above 0.

    Examples
    --------
    >>> sample_weights([1, None, 3], 3, np.array([0, 2])).tolist()
    [1.0, 3.0]
    """
    if weights is None:
        return np.ones(len(rows), np.float32)
    form = f"give {count} numbers above 0, one for each sample"
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"the weights are not all numbers; {form}") from error
    if values.shape != (count,):
        raise CalibrationError(f"the weights have the shape {values.shape}; {form}")
    values = values[rows]
    if wrong := int((~(np.isfinite(values) & (values > 0))).sum()):
        raise CalibrationError(
            f"{wrong:,} of the {len(rows):,} labelled samples have no weight above 0; {form}, 1 for a sample that "
            "counts once"
        )
    if len(rows) and (values.max() > MOST_WEIGHT or values.min() < 1 / MOST_WEIGHT):
        raise CalibrationError(
            f"the weights go from {values.min():g} to {values.max():g}, and are to lie between {1 / MOST_WEIGHT:g} and "
            f"{MOST_WEIGHT:g}; {form}, 1 for a sample that counts once"
        )
    return values.astype(np.float32)
