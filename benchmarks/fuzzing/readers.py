"""All targets, by name."""

from __future__ import annotations

from fuzzing.images import image_targets
from fuzzing.runs import run_targets
from fuzzing.settings import setting_targets
from fuzzing.sources import source_targets
from fuzzing.target import Target


def all_targets() -> dict[str, Target]:
    """Return every target by its name."""
    targets: list[Target] = [*image_targets(), *source_targets(), *run_targets(), *setting_targets()]
    return {target.name: target for target in targets}
