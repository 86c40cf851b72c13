"""All targets by name, and how many of a number of cases each has."""

from __future__ import annotations

from fuzzing.hashes import hash_targets
from fuzzing.images import image_targets
from fuzzing.officer import officer_targets
from fuzzing.runs import run_targets
from fuzzing.settings import setting_targets
from fuzzing.sources import source_targets
from fuzzing.target import Target


def all_targets() -> dict[str, Target]:
    """Return every target by its name."""
    readers = (source_targets, run_targets, setting_targets, hash_targets, officer_targets)
    targets: list[Target] = [*image_targets(), *(target for made in readers for target in made())]
    return {target.name: target for target in targets}


def cases_of(cases: int) -> dict[str, int]:
    """Return the cases of each target, so many in all: most for what decodes pictures, fewer for what takes long."""
    names = list(all_targets())
    weights = {
        name: next((w for end, w in _WEIGHTS.items() if name.startswith(end) or name.endswith(end)), 15)
        for name in names
    }
    total = sum(weights.values())
    shares = {name: max(int(cases * weight / total), 1) for name, weight in weights.items()}
    shares["jpeg"] += max(cases - sum(shares.values()), 0)
    return shares


_WEIGHTS = {
    "-at-full-size": 0.5,
    **dict.fromkeys(("labels-parquet", "embedding-"), 15),
    **dict.fromkeys(("jpeg", "png", "webp", "gif", "bmp", "tiff"), 100),
    **dict.fromkeys(("policy", "probes", "configuration"), 50),
    **dict.fromkeys(("secret", "officer-", "hash-lines", "hash-ncmec", "hash-threatexchange", "npy"), 30),
    **dict.fromkeys(("tar", "parquet"), 20),
    **dict.fromkeys(("run-json", "run-scores", "run-decisions", "run-embeddings", "sealed"), 4),
    **dict.fromkeys(("data-set-", "attest"), 1.5),
}
"""Shares by how names begin or end, the first that fits; of others, 15."""
