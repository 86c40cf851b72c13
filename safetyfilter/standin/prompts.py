"""The text prompts of the zero-shot stand-in probes: for each digit, prompts that name it and prompts that do not."""

from __future__ import annotations

_FRAMES = (
    "{}",
    "a picture of {}",
    "handwritten {}",
    "there is {}",
    "{} on a striped background",
    "{} over a photograph of grass",
)
_OTHERS = ("no digit", "a zero", "a one", "a two", "a four", "a five", "a six", "an eight", "a nine")

Prompts = tuple[tuple[str, ...], tuple[str, ...]]


def _prompts(*names: str) -> Prompts:
    positive = tuple(frame.format(name) for name in names for frame in _FRAMES)
    return positive, tuple(frame.format(other) for other in _OTHERS for frame in _FRAMES[:4])


#: (positive, contrasting) for each signal; no prompt names a three and a seven, nor either in the other's contrast.
THREE: Prompts = _prompts("a three", "the digit three", "the number three")
SEVEN: Prompts = _prompts("a seven", "the digit seven", "the number seven")
