"""The decisions that float8 changes on stand-in pictures, by an image tower that has layers in float8.

The stand-in encoder is a convolutional network, in which nothing is in float8. So a small vision transformer learns to
give the stand-in's embeddings of pictures, and decides by probes that are fitted on its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import SEED, progress
from gpu_rates import distance, made, multiplying_float8
from int8_flips import MAX_MISS_RATE, flipped, labelled, threshold_policy
from torch.nn import functional as F

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.devices import Compile
from safetyfilter.standin import ENCODER
from safetyfilter.standin.probes import fit_probes
from safetyfilter.standin.rendered import Picture, pictures, renderers

HEAD_WIDTH = 32
OPTIONS = EmbedOptions(views="whole", decoders="threads")
"""Processes take longer to start than these pictures to decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How much is learnt, and on how many pictures decisions are compared.

    Attributes
    ----------
    width, layers, patch : int
        Of the transformer.
    steps, batch : int
        Of its training.
    train, calibration, mixed, pairs : int
        Pictures to learn from; to calibrate on; to decide on; and further ones of the latter, with both signals.
    max_miss_rates : tuple of float
        Of the thresholds that are calibrated: decisions are compared at each, and the worst count.
    """

    width: int
    layers: int
    patch: int
    steps: int
    batch: int
    train: int
    calibration: int
    mixed: int
    pairs: int
    max_miss_rates: tuple[float, ...] = (MAX_MISS_RATE, 0.1)


ON_GPU = Learning(
    width=256, layers=6, patch=8, steps=4000, batch=256, train=20_000, calibration=4000, mixed=4000, pairs=2000
)
QUICK = Learning(width=256, layers=6, patch=8, steps=600, batch=256, train=4000, calibration=2000, mixed=800, pairs=400)
ON_CPU = Learning(width=96, layers=3, patch=16, steps=400, batch=64, train=2000, calibration=2000, mixed=800, pairs=400)
LEAST = Learning(
    width=32, layers=1, patch=40, steps=2, batch=8, train=40, calibration=40, mixed=4, pairs=4, max_miss_rates=(0.8,)
)


def float8_flips(device: str, how: Learning) -> dict[str, Any]:
    """How many decisions are others in float8 than in float32, by thresholds calibrated on float8's own scores."""
    teacher = ClipEncoder.load(ENCODER, device=device, precision="fp32")
    progress("fp8: pictures")
    with renderers() as pool:
        drawn: dict[str, list[Picture]] = {
            "train": list(pictures(how.train, "train", SEED, pairs=False, pool=pool)),
            "calibration": list(pictures(how.calibration, "validation", SEED + 1, pairs=False, pool=pool)),
            "test": list(pictures(how.mixed, "test", SEED + 2, pairs=True, pool=pool)),
        }
        drawn["test"] += list(pictures(how.pairs, "test", SEED + 3, pairs="only", pool=pool))
    progress("fp8: learning")
    state, agrees = _taught(teacher, [picture.jpeg for picture in drawn["train"]], how)
    encoders = []
    with multiplying_float8(device):
        for precision in ("fp32", "bf16", "fp8"):
            model = made(_config(teacher, how))
            model.visual.load_state_dict(state)
            compiled: Compile = "auto" if precision == "fp8" else False  # which is as it is used
            encoders.append(
                ClipEncoder(model, architecture="student", device=device, precision=precision, compile=compiled)
            )
        embedded = {
            name: [encoder.embed([picture.jpeg for picture in some], OPTIONS) for encoder in encoders]
            for name, some in drawn.items()
        }
    bank = fit_probes(embedded["train"][0], labelled(drawn["train"]))
    policies = {
        rate: threshold_policy(bank, embedded["calibration"][2], drawn["calibration"], rate)
        for rate in how.max_miss_rates
    }
    full, half, float8 = embedded["test"]
    one, other = full.vectors, float8.vectors
    cosines = (one * other).sum(axis=1)
    scores = bank.score(full)
    rows = {
        str(rate): {
            # those after them are all pairs
            "excluded_share": round(1 - float(policy.decide(scores).keep[: how.mixed].mean()), 4),
            "decisions_same_in_bf16": flipped(bank, [full, half], policy, drawn["test"])["decisions_same"],
            **flipped(bank, [full, float8], policy, drawn["test"]),
        }
        for rate, policy in policies.items()
    }
    return {
        "learnt_from": how.train,
        "cosine_with_the_stand_in": agrees,
        "calibrated_on": how.calibration,
        "cosine_min": round(float(cosines.min()), 5),
        "cosine_median": round(float(np.median(cosines)), 5),
        "error_over_spread": {
            name: distance(torch.from_numpy(batch.vectors), torch.from_numpy(full.vectors))["error_over_spread"]
            for name, batch in (("bf16", half), ("fp8", float8))
        },
        "by_max_miss_rate": rows,
        "decisions": how.mixed + how.pairs,
        "decisions_same": min(row["decisions_same"] for row in rows.values()),
        "pairs_kept_share": max(row["pairs_kept_share"] for row in rows.values()),
        "excluded_share": min(row["excluded_share"] for row in rows.values()),
    }


def _config(teacher: ClipEncoder, how: Learning) -> dict[str, Any]:
    return {
        "embed_dim": teacher.spec.width,
        "vision_cfg": {
            "image_size": teacher.spec.image_size[0],
            "layers": how.layers,
            "width": how.width,
            "head_width": HEAD_WIDTH,
            "patch_size": how.patch,
        },
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }


def _taught(teacher: ClipEncoder, files: list[bytes], how: Learning) -> tuple[dict[str, torch.Tensor], float]:
    """Weights of an image tower that gives nearly the teacher's embeddings, and their mean cosine at the end."""
    device = teacher.device
    prepare = teacher.preparer(OPTIONS)
    pixels = torch.from_numpy(np.concatenate([prepare(file)[0] for file in files])).to(device)
    wanted = torch.from_numpy(teacher.embed(files, OPTIONS).vectors).to(device)
    model = made(_config(teacher, how))
    student = ClipEncoder(model, architecture="student", device=str(device), precision="fp32", compile=False)
    visual = student.image_tower.requires_grad_(True)
    mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (student.spec.mean, student.spec.std))
    optimiser = torch.optim.AdamW(visual.parameters(), lr=1e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=how.steps)
    generator = torch.Generator().manual_seed(SEED)
    losses = []
    for _ in range(how.steps):
        at = torch.randint(len(pixels), (how.batch,), generator=generator).to(device)
        planes = (pixels[at].permute(0, 3, 1, 2).float() / 255 - mean) / std
        loss = 1 - (F.normalize(visual(planes), dim=-1) * wanted[at]).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        losses.append(loss.detach())
    agrees = 1 - float(torch.stack(losses[-math.ceil(how.steps / 20) :]).mean())
    return {name: value.detach().cpu().clone() for name, value in visual.state_dict().items()}, round(agrees, 4)
