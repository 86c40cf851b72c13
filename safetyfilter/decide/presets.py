"""Policies by name: what each excludes beyond the co-occurrence rule, which holds in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DEFAULT_THRESHOLD = 0.5
"""The threshold of each signal of the pair where none is given."""

PRESETS: Mapping[str, Mapping[str, bool | float]] = MappingProxyType(
    {
        "co-occurrence": MappingProxyType({}),
        "separate": MappingProxyType({"explicit": True}),
        "no-minors": MappingProxyType({"minor": True}),
        "strict": MappingProxyType({"explicit": True, "minor": True}),
        # Published cuts on the score of LAION's detector, for use with that detector as the probe for `explicit`. A cut
        # on one score is not a co-occurrence rule: that one holds besides, at thresholds of its own.
        "laion-0.1": MappingProxyType({"explicit": 0.1}),  # Stable Diffusion 2.0 was trained on pictures below it
        "laion-0.5": MappingProxyType({"explicit": 0.5}),  # NVIDIA NeMo Curator's image stage keeps pictures below it
        "laion-0.98": MappingProxyType({"explicit": 0.98}),  # Stable Diffusion 2.1 was trained on pictures below it
    }
)
"""The ``[exclude]`` of each preset: True excludes a signal at its threshold, a number at that cut.

>>> list(PRESETS)
['co-occurrence', 'separate', 'no-minors', 'strict', 'laion-0.1', 'laion-0.5', 'laion-0.98']
"""


LAION_PROBES: Mapping[str, str] = MappingProxyType(
    {
        "laion-l14": "d5283e480873cc7b2abf98b158ffe62055ff66ea29054403fc18f476773357d4",
        "laion-b32": "24de5baa1d5c06ba504567c44e08f8a665fc11dfbe1fd4774b770a40dd0a468c",
    }
)
"""The digests of LAION's published detectors as probes, on whose scores the cuts of ``laion-…`` were published."""


def exclusions(rules: Mapping[str, bool | float]) -> tuple[frozenset[str], dict[str, float]]:
    """Return the signals that an ``[exclude]`` excludes at their thresholds, and the cuts of the others.

    >>> exclusions({"explicit": 0.98, "minor": True, "violence": False})
    (frozenset({'minor'}), {'explicit': 0.98})
    """
    at_threshold = frozenset(signal for signal, rule in rules.items() if rule is True)
    return at_threshold, {signal: rule for signal, rule in rules.items() if not isinstance(rule, bool)}
