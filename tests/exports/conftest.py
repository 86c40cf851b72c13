"""Filters for the tests of exports."""

from __future__ import annotations

import pytest

from safetyfilter import EmbedOptions, Policy, SafetyFilter


@pytest.fixture
def safe(encoder, probes) -> SafetyFilter:
    """A filter that keeps some of the photographs."""
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole", batch_size=8))


@pytest.fixture
def keeps_all(safe: SafetyFilter) -> SafetyFilter:
    """A filter that keeps all that it can score."""
    return SafetyFilter(safe.encoder, safe.probes, Policy(thresholds={"explicit": 1, "minor": 1}), safe.options)
