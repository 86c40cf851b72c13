"""The decisions that int8 changes on stand-in pictures, where thresholds were calibrated on int8's own scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import SEED

from safetyfilter import ClipEncoder, EmbedOptions, Policy
from safetyfilter.batches import EmbeddingBatch
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.embed.int8.quantising import PICTURES
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.zero_shot import zero_shot_probes
from safetyfilter.standin import ENCODER, PROMPTS, STANDIN_PAIR
from safetyfilter.standin.pictures import DIGITS, Labelled
from safetyfilter.standin.probes import fit_probes
from safetyfilter.standin.rendered import Picture, pictures, renderers

MIN_SAME, MAX_PAIRS_KEPT = 0.997, 0.003
"""Decisions that must agree with float32's, and pairs that float32 excludes and int8 may keep, as shares."""
MAX_MISS_RATE, CONFIDENCE = 0.02, 0.95
WHOLE = EmbedOptions(views="whole")


def flips(*, train: int, calibration: int, mixed: int, pairs: int) -> dict[str, Any]:
    """How many decisions are others in int8 than in float32, by trained and by zero-shot probes.

    The encoder is quantised on training pictures. Both precisions decide by the same thresholds, which are calibrated
    on int8's scores of pictures without pairs.

    Parameters
    ----------
    train, calibration, mixed, pairs : int
        Pictures to train probes on; to calibrate on; to decide on; and further ones of the latter, with both signals.
    """
    full = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    with renderers() as pool:
        drawn = {
            "train": list(pictures(train, "train", SEED, pairs=False, pool=pool)),
            "calibration": list(pictures(calibration, "validation", SEED + 1, pairs=False, pool=pool)),
            "test": list(pictures(mixed, "test", SEED + 2, pairs=True, pool=pool)),
            "pairs": list(pictures(pairs, "test", SEED + 3, pairs="only", pool=pool)),
        }
    drawn["test"] += drawn.pop("pairs")
    int8 = full.quantised([picture.jpeg for picture in drawn["train"][:PICTURES]])
    embedded = {
        name: [encoder.embed([picture.jpeg for picture in some], WHOLE) for encoder in (full, int8)]
        for name, some in drawn.items()
    }
    one, other = (batch.vectors for batch in embedded["test"])
    banks = {
        "trained": fit_probes(embedded["train"][0], labelled(drawn["train"])),
        "zero_shot": zero_shot_probes(full, PROMPTS),
    }
    rows = {
        name: flipped(bank, embedded["test"], threshold_policy(bank, embedded["calibration"][1], drawn["calibration"]),
                       drawn["test"])
        for name, bank in banks.items()
    }  # fmt: skip
    return {
        "quantised_on": min(train, PICTURES),
        "calibrated_on": calibration,
        "cosine_min": round(float((one * other).sum(axis=1).min()), 5),
        "cosine_median": round(float(np.median((one * other).sum(axis=1))), 5),
        "probes": rows,
        "decisions_same": min(row["decisions_same"] for row in rows.values()),
        "pairs_kept": max(row["pairs_kept_share"] for row in rows.values()),
    }


def labelled(some: list[Picture]) -> Labelled:
    """What pictures show."""
    present = {signal: np.array([digit in one.digits for one in some]) for signal, digit in DIGITS.items()}
    return Labelled(
        keys=(),
        present=present,
        digits=np.array([len(one.digits) for one in some]),
        damaged=np.zeros(len(some), np.bool_),
    )


def threshold_policy(
    bank: ProbeBank, batch: EmbeddingBatch, some: list[Picture], max_miss_rate: float = MAX_MISS_RATE
) -> Policy:
    """The policy with thresholds that bound the rule's miss rate."""
    scores = bank.score(batch)
    found = calibrate_thresholds(
        {signal: scores[signal] for signal in scores.signals},
        labelled(some).present,
        max_miss_rate=max_miss_rate,
        confidence=CONFIDENCE,
        pair=STANDIN_PAIR,
    )
    return found.policy()


def flipped(bank: ProbeBank, batches: list[EmbeddingBatch], policy: Policy, some: list[Picture]) -> dict[str, Any]:
    """How many decisions by one policy are others on the second batch, in 8 bits, than on the first, in float32."""
    scores = [bank.score(batch) for batch in batches]
    full, int8 = (policy.decide(each).keep for each in scores)
    excluded_pairs = ~full & labelled(some).both
    present = [np.stack([policy.present(each, signal) for signal in STANDIN_PAIR.names]) for each in scores]
    return {
        "decisions": len(full),
        "changed": int((full != int8).sum()),
        "decisions_same": round(float((full == int8).mean()), 5),
        "excluded_pairs": int(excluded_pairs.sum()),
        "pairs_kept": int((int8 & excluded_pairs).sum()),
        "pairs_kept_share": round(float(int8[excluded_pairs].mean()), 5) if excluded_pairs.any() else 0.0,
        "signals_same": round(float((present[0] == present[1]).mean()), 5),
        "largest_score_change": round(
            max(float(np.abs(scores[0][s] - scores[1][s]).max()) for s in STANDIN_PAIR.names), 5
        ),
    }
