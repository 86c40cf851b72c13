"""Vocabularies: printing a number and looking its text up, without printing."""

import numpy as np
import pytest

from safetyfilter.errors import ProbeError
from safetyfilter.score.vocabulary import Vocabulary

VALUES = (
    np.concatenate(
        [
            np.random.default_rng(0).standard_normal(5000),
            np.random.default_rng(1).standard_normal(5000) * 1e-6,
            [0.0, -0.0, 5e-7, 1.5e-6, -5e-7, 65504.0, -1e-30],
        ]
    )
    .astype(np.float16)
    .astype(np.float32)
)


@pytest.mark.parametrize(
    "asked",
    [VALUES, np.nextafter(VALUES, np.float32(np.inf)), VALUES * np.float32(1.0001)],
    ids=["same", "next", "far"],
)
def test_printing_and_looking_up_agree(asked: np.ndarray) -> None:
    words = sorted({f"{value:f}" for value in VALUES.tolist()}, key=lambda word: word[::-1])
    place = {word: number for number, word in enumerate(words, start=1)}
    assert Vocabulary.of(0, words).look_up(asked).tolist() == [place.get(f"{value:f}", 0) for value in asked.tolist()]


def test_an_empty_vocabulary_knows_nothing() -> None:
    assert Vocabulary.of(0, []).look_up(np.float32([0, 1])).tolist() == [0, 0]


@pytest.mark.parametrize("words", [["0.5"], ["0.500000", "0.500000"], ["0.123456"], ["nan"], ["1e3"], [""]])
def test_words_that_are_not_a_vocabulary(words: list[str]) -> None:
    with pytest.raises(ProbeError, match="vocabulary of column 7"):
        Vocabulary.of(7, words)


@pytest.mark.parametrize(
    "changes",
    [
        {"column": -1},
        {"codes": np.float32([1, 2])},
        {"codes": np.float64([1, 2, 3])},
        {"codes": np.float64([2, 1])},
        {"codes": np.float64([1, np.nan])},
        {"places": np.float64([1, np.inf])},
        {"places": np.float64([[1], [2]])},
    ],
)
def test_arrays_that_are_not_a_vocabulary(changes: dict[str, object]) -> None:
    with pytest.raises(ProbeError, match="vocabulary of column"):
        Vocabulary(**{"column": 0, "codes": np.float64([1, 2]), "places": np.float64([1, 2])} | changes)
