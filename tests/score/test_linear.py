"""Linear probes: what one may be."""

from dataclasses import replace

import numpy as np
import pytest

from safetyfilter.errors import ProbeError
from safetyfilter.score.linear import LinearProbe

PROBE = LinearProbe(signal="explicit", weight=np.ones(8, np.float32), bias=0.25, encoder="e" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": np.zeros((2, 2), np.float32)},
        {"weight": np.array([np.nan], np.float32)},
        {"bias": np.inf},
        {"signal": ""},
        {"weight": np.zeros(0, np.float32)},
        {"inputs": "text"},
        {"inputs": "image+whole", "weight": np.ones(7, np.float32)},
    ],
)
def test_bad_probes(changes: dict[str, object]) -> None:
    with pytest.raises(ProbeError):
        replace(PROBE, **changes)


def test_the_weight_is_the_probes_own() -> None:
    weight = np.ones(8, np.float32)
    probe = replace(PROBE, weight=weight)
    weight[:] = 0
    assert probe.digest == PROBE.digest
    with pytest.raises(ValueError, match="read-only"):
        probe.weight[0] = 2


@pytest.mark.parametrize("changes", [{"signal": "minor"}, {"bias": 0.5}, {"encoder": "f"}, {"inputs": "image+caption"}])
def test_the_digest_covers_what_scores_depend_on(changes: dict[str, object]) -> None:
    assert replace(PROBE, **changes).digest != PROBE.digest
