"""Labelled scores to draw and count, and figures that are closed after each test."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture
def scores() -> np.ndarray:
    """(5000,) scores of `labels`; the first nine are NaN."""
    present = labelled()
    drawn = np.random.default_rng(1).beta(np.where(present, 5, 1), np.where(present, 2, 5))
    return np.where(np.arange(len(present)) < 9, np.nan, drawn)


@pytest.fixture
def labels() -> np.ndarray:
    """(5000,) bool, True for about a fifth."""
    return labelled()


@pytest.fixture
def pair(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of both signals."""
    return {"explicit": scores, "minor": scores[::-1]}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the figures of each test."""
    yield
    plt.close("all")


def labelled() -> np.ndarray:
    """(5000,) bool, the same each time."""
    return np.random.default_rng(0).random(5000) < 0.2
