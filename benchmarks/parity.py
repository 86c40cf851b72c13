"""What fast decoding changes: embeddings and decisions beside those of exact decoding, by the stand-in encoder."""

from __future__ import annotations

from typing import Any, get_args

from common import SEED, jpegs

from safetyfilter import ClipEncoder, EmbedOptions, SafetyFilter
from safetyfilter.embed.pictures.views import Views
from safetyfilter.score.zero_shot import zero_shot_probes
from safetyfilter.standin import ENCODER, PROMPTS
from safetyfilter.standin.rendered import pictures

SIDES = (256, 512, 1024, 2048)
MIN_COSINE, MIN_SAME = 0.995, 0.999


def decode_parity(*, device: str = "cpu", photographs: int = 48, drawn: int = 1000) -> dict[str, Any]:
    """The least cosine, and the share of decisions that stay the same, on photographs and on stand-in pictures.

    In float32, so that decoding alone makes a difference; by the zero-shot probes, which are the less certain ones.

    Parameters
    ----------
    device : str
        Of the stand-in encoder.
    photographs : int
        JPEG files of each size, each another crop of a photograph without people.
    drawn : int
        Stand-in pictures, those of the demo.
    """
    encoder = ClipEncoder.load(ENCODER, device=device, precision="fp32")
    files = {f"photographs, {side} px": jpegs(photographs, side) for side in SIDES}
    files["stand-in pictures"] = [picture.jpeg for picture in pictures(drawn, "test", SEED, pairs=True)]
    rows = [
        {"pictures": name, "views": view, **_compare(encoder, group, view)}
        for name, group in files.items()
        for view in get_args(Views)
        if view != "adaptive"  # whose pixels are those of multi
    ]
    decisions = sum(row["decisions"] for row in rows)
    return {
        "cosine_min": min(row["cosine_min"] for row in rows),
        "decisions": decisions,
        "decisions_same": round(1 - sum(row["changed"] for row in rows) / decisions, 5),
        "rows": rows,
    }


def _compare(encoder: ClipEncoder, files: list[bytes], views: Views) -> dict[str, Any]:
    vectors, keep = [], []
    for decode in ("fast", "exact"):
        options = EmbedOptions(views=views, decode=decode)
        batch = encoder.embed(files, options)
        vectors.append(batch.vectors)
        keep.append(SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS), options=options).decide(batch).keep)
    cosines = (vectors[0] * vectors[1]).sum(axis=-1)
    changed = int((keep[0] != keep[1]).sum())
    return {"cosine_min": round(float(cosines.min()), 5), "decisions": len(files), "changed": changed}
