"""Fast decoding changes embeddings and decisions as little as it may."""

import sys
from pathlib import Path

import pytest

from tests.rendering import render_here

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts import each other by name, and so do the processes that render

import parity  # noqa: E402


def test_embeddings_and_decisions_are_those_of_exact_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    render_here(monkeypatch)
    found = parity.decode_parity(photographs=12, drawn=400)
    assert found["decisions"] == 3 * (4 * 12 + 400)
    assert found["cosine_min"] >= parity.MIN_COSINE
    assert found["decisions_same"] >= parity.MIN_SAME
