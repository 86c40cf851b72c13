"""The harmless stand-ins: handwritten digits in the place of the two signals, and a tiny CLIP that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetyfilter.batches import STANDIN_SIGNALS
from safetyfilter.score.zero_shot import PromptPair
from safetyfilter.standin.prompts import SEVEN, THREE

WEIGHTS = Path(__file__).with_name("weights")
ENCODER = f"local-dir:{WEIGHTS}"
"""What `ClipEncoder.load` takes to load the stand-in encoder."""

PROMPTS: Mapping[str, PromptPair] = MappingProxyType(
    {
        signal: PromptPair(present=present, absent=absent)
        for signal, (present, absent) in zip(STANDIN_SIGNALS.pair, (THREE, SEVEN), strict=True)
    }
)
"""Prompts for the stand-in signals, as `zero_shot_probes` takes them."""
