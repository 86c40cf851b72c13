"""The harmless stand-ins: handwritten digits in the place of the two signals, and a tiny CLIP that knows them."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights")
ENCODER = f"local-dir:{WEIGHTS}"
"""What `ClipEncoder.load` takes to load the stand-in encoder."""
