"""The harmless stand-ins: handwritten digits in the place of the two signals, and a tiny CLIP that knows them."""

from __future__ import annotations

from pathlib import Path

from safetyfilter.score.zero_shot import PromptPair, PromptSet
from safetyfilter.signals import SignalPair
from safetyfilter.standin.prompts import SEVEN, THREE

WEIGHTS = Path(__file__).with_name("weights")
ENCODER = f"local-dir:{WEIGHTS}"
"""The name under which `ClipEncoder.load` loads the stand-in encoder."""

STANDIN_PAIR = SignalPair(
    explicit="three",
    minor="seven",
    notice="The stand-in encoder was used: these scores say nothing about real pictures.",
)
"""The signals that stand in for the real pair: a three and a seven in one picture."""

PROMPTS = PromptSet(
    {
        signal: PromptPair(present=present, absent=absent)
        for signal, (present, absent) in zip(STANDIN_PAIR.names, (THREE, SEVEN), strict=True)
    },
    pair=STANDIN_PAIR,
)
"""Prompts for the stand-in signals, as `zero_shot_probes` takes them."""
