"""Trains the stand-in CLIP; the record of how the weights beside this file were made.

``python -m safetyfilter.standin.train [--out DIR] [--steps N] [--quick]``

A small open_clip model, a ResNet image tower and a transformer text tower, learns from pictures of `render.batch`,
which are all of the training split and never hold both a three and a seven. The image tower takes each feature's
maximum over the picture: what is seen in one place then takes nothing from what is seen in another, and two digits that
never shared a picture are still both seen (CLIP's attention pooling, tried first, found a fifth fewer of the pairs).
Two losses are added:

- a pairwise sigmoid loss (SigLIP, Zhai et al. 2023) in which *every caption of the batch that is true of a picture* is
  a positive for it: all the digits it names are there, and its background, if it names one, is the picture's;
- a multi-label loss of a linear head on the unit-norm image embedding, which is thrown away after training.

The best weights by the validation split are kept. The test split is measured once, for the record.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from safetyfilter.embed.libraries import open_clip

from .evaluate_standin import WEIGHTS, embed, evaluate, load, zero_shot_directions
from .render import PAIR, Batch, batch, scenes

SIZE = 80
MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "init_logit_scale": math.log(10),
    "init_logit_bias": -3.0,
    "vision_cfg": {
        "image_size": SIZE,
        "timm_model_name": "test_resnet",
        "timm_model_pretrained": False,
        "timm_pool": "max",
        "timm_proj": "linear",
    },
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
BATCH, FRESH, MEMORY = 256, 64, 20_000  # pictures a step; of them newly drawn; kept to be drawn from again
PEAK_RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 200, 0.05
SEED = 20


def _draw(job: tuple[int, int, int]) -> Batch:
    seed, index, count = job
    return batch(np.random.default_rng([seed, index]), count, SIZE)


def _ahead(pool: Pool, jobs: list[tuple[int, int, int]], window: int = 32) -> Iterator[Batch]:
    """A few jobs ahead and no more: `imap` would draw everything at once, taking the processor from the training."""
    pending = deque(pool.apply_async(_draw, (job,)) for job in jobs[:window])
    for job in [*jobs[window:], *[None] * window]:
        yield pending.popleft().get()
        if job is not None:
            pending.append(pool.apply_async(_draw, (job,)))


@contextmanager
def drawn_batches(jobs: list[tuple[int, int, int]], processes: int) -> Iterator[Iterator[Batch]]:
    """The drawn pictures of each job, in order; by other processes where `processes` is not 0."""
    if not processes:
        yield map(_draw, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield _ahead(pool, jobs)


class Memory:
    """The most recent pictures as tensors: each is learnt from several times, as drawing costs more than learning."""

    def __init__(self, capacity: int, context_length: int) -> None:
        self.images = torch.empty((capacity, 3, SIZE, SIZE), dtype=torch.uint8)
        self.tokens = torch.empty((capacity, context_length), dtype=torch.long)
        self.present = torch.empty((capacity, 10), dtype=torch.bool)
        self.named = torch.empty((capacity, 10), dtype=torch.bool)
        self.alone = torch.empty(capacity, dtype=torch.bool)
        self.place = torch.empty(capacity, dtype=torch.long)
        self.place_named = torch.empty(capacity, dtype=torch.bool)
        self.filled = self.next = 0
        self.seen_tokens = torch.zeros(MODEL["text_cfg"]["vocab_size"], dtype=torch.bool)
        self._places: dict[str, int] = {}

    def add(self, new: Batch, tokens: torch.Tensor) -> torch.Tensor:
        """Put pictures over the oldest ones; returns where they lie."""
        at = (torch.arange(len(tokens)) + self.next) % len(self.tokens)
        self.images[at] = torch.from_numpy(new.images).permute(0, 3, 1, 2)
        self.tokens[at] = tokens
        self.seen_tokens[tokens.ravel()] = True
        self.present[at] = torch.from_numpy(new.present)
        self.named[at] = torch.from_numpy(new.named)
        self.alone[at] = torch.from_numpy(new.count == 1)
        self.place[at] = torch.tensor([self._places.setdefault(name, len(self._places)) for name in new.places])
        self.place_named[at] = torch.from_numpy(new.place_named)
        self.next = int(at[-1] + 1) % len(self.tokens)
        self.filled = min(self.filled + len(tokens), len(self.tokens))
        return at

    def truth(self, at: torch.Tensor) -> torch.Tensor:
        """(N, N) float32: 1 where caption *j* is true of picture *i*. "No digit" is true of empty pictures alone."""
        named, present = self.named[at].float(), self.present[at].float()
        digits = (present @ named.T == named.sum(1)) & ((named.sum(1) > 0) | (present.sum(1) == 0)[:, None])
        place = ~self.place_named[at] | (self.place[at][:, None] == self.place[at])
        return (digits & place).float()


def _mean_where(told: torch.Tensor, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the entries that are told."""
    weight = told.float()
    return functional.binary_cross_entropy_with_logits(logits, truth, weight=weight, reduction="sum") / weight.sum()


def losses(
    model: open_clip.CLIP, head: torch.nn.Linear, memory: Memory, at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The contrastive loss and the multi-label loss of the remembered pictures `at`."""
    mean, std = (torch.tensor(PREPROCESS[key])[:, None, None] for key in ("mean", "std"))
    pixels = ((memory.images[at].float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        pictures, texts = model.encode_image(pixels), model.encode_text(memory.tokens[at])
    pictures, texts = (functional.normalize(found.float(), dim=-1) for found in (pictures, texts))
    assert model.logit_bias is not None
    logits = model.logit_scale.exp() * pictures @ texts.T + model.logit_bias
    said, shown = memory.named[at], memory.present[at]
    # A three and a seven never share a picture, so a model learns that the sight of one rules out the other, and would
    # take a picture of both for a picture of one. So a picture of a three and more tells nothing of sevens, nor the
    # reverse; only digits that stand alone do. Those are needed: nothing else tells a three from a seven.
    three, seven = PAIR
    crowded = shown & ~memory.alone[at][:, None]
    untold = torch.zeros_like(shown)
    untold[:, seven], untold[:, three] = crowded[:, three], crowded[:, seven]
    contrastive = _mean_where(untold.float() @ said.float().T == 0, logits, memory.truth(at))
    multi_label = _mean_where(~untold, head(10 * pictures), shown.float())
    return contrastive, multi_label


def save(model: open_clip.CLIP, seen_tokens: torch.Tensor, directory: Path) -> None:
    """Write an open_clip ``local-dir``; half precision but for the batch norms, whose variances need the range.

    The embeddings of tokens that no caption used were never trained: they are written as zeros.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, value in model.state_dict().items():
        norm = any(word in name for word in ("bn", "downsample.1", "ln_", "logit"))
        state[name] = value.clone().contiguous() if norm or not value.is_floating_point() else value.half().contiguous()
    state["token_embedding.weight"][~seen_tokens] = 0
    save_file(state, directory / "open_clip_model.safetensors", metadata={"format": "pt"})
    (directory / "open_clip_model.safetensors").chmod(0o644)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (directory / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def validate(directory: Path, count: int, seed: int = SEED) -> dict[str, float]:
    """Zero-shot AUCs on validation pictures, of the weights as written."""
    model = load(directory)
    vectors, held = embed(model, scenes(count, split="validation", seed=seed, pairs=False))
    scores = vectors @ zero_shot_directions(model, directory).T
    return {name: float(roc_auc_score(held[:, i], scores[:, i])) for i, name in enumerate(("three", "seven"))}


def train(
    directory: Path, *, steps: int, start: Path | None = None, quick: bool = False, processes: int = 1
) -> list[dict[str, float]]:
    """Train for `steps` and leave the best weights by validation in `directory`; returns the log.

    Where `start` is given, training goes on from the weights there.
    """
    torch.manual_seed(SEED)
    size, fresh, capacity, every = (32, 32, 64, steps) if quick else (BATCH, FRESH, MEMORY, 200)
    model = open_clip.CLIP(**MODEL).to(memory_format=torch.channels_last)
    if start is not None:
        model.load_state_dict(load(start).state_dict())
    head = torch.nn.Linear(MODEL["embed_dim"], 10)
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    parameters = [*model.parameters(), *head.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))
    warm_up = min(WARM_UP, steps // 2 + 1)

    def rate(step: int) -> float:
        return min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    memory = Memory(capacity, MODEL["text_cfg"]["context_length"])
    choose = torch.Generator().manual_seed(SEED)
    log: list[dict[str, float]] = []
    best, started = -1.0, time.perf_counter()
    fill = capacity // fresh // 4
    jobs = [(SEED, index, fresh) for index in range(fill + steps)]

    def learn(at: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], float, float]:
        contrastive, multi_label = losses(model, head, memory, at)
        gradients = torch.autograd.grad(10 * contrastive + 2 * multi_label, parameters)
        return gradients, contrastive.item(), multi_label.item()

    # Two threads with half of the pictures each are faster on two cores than two threads that share every operation,
    # and don't stall when the machine is busy.
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as threads,
        drawn_batches(jobs, processes) as arriving,
    ):
        for _ in range(fill):
            first = next(arriving)
            memory.add(first, tokenizer(first.captions))
        for step in range(steps):
            new = next(arriving)
            tokens = tokenizer(new.captions)
            at = torch.cat([memory.add(new, tokens), torch.randint(memory.filled, (size - fresh,), generator=choose)])
            model.train()
            halves = list(threads.map(learn, at.chunk(2)))
            for parameter, *gradients in zip(parameters, *(half[0] for half in halves), strict=True):
                parameter.grad = torch.stack(gradients).mean(0)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if (step + 1) % every == 0 or step + 1 == steps:
                model.eval()
                candidate = directory / "candidate"
                save(model, memory.seen_tokens, candidate)
                found = validate(candidate, 64 if quick else 1500)
                row = {
                    "step": step + 1,
                    "seconds": round(time.perf_counter() - started, 1),
                    "contrastive": round(sum(half[1] for half in halves) / 2, 4),
                    "multi_label": round(sum(half[2] for half in halves) / 2, 4),
                    **{f"validation_zero_shot_{name}": round(auc, 4) for name, auc in found.items()},
                }
                log.append(row)
                print(json.dumps(row), flush=True)
                if min(found.values()) >= best:
                    best = min(found.values())
                    for file in candidate.iterdir():
                        file.replace(directory / file.name)
                for file in candidate.iterdir():
                    file.unlink()
                candidate.rmdir()
    torch.set_num_threads(threads_before)
    return log


def main() -> None:
    """Train, measure on the test split, and write the record."""
    parser = argparse.ArgumentParser(description="Train the stand-in CLIP.")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=None, help="4000 by default, 4 with --quick")
    parser.add_argument("--start", type=Path, default=None, help="weights to go on from")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that training works")
    arguments = parser.parse_args()
    steps = arguments.steps or (4 if arguments.quick else 4000)
    log = train(
        arguments.out,
        steps=steps,
        start=arguments.start,
        quick=arguments.quick,
        processes=0 if arguments.quick else 1,
    )
    record: dict[str, Any] = {
        "command": f"python -m safetyfilter.standin.train --steps {steps}"
        + f" --start {arguments.start}" * (arguments.start is not None)
        + " --quick" * arguments.quick,
        "seed": SEED,
        "pictures_per_step": BATCH,
        "versions": {
            name: version(name)
            for name in ("torch", "open_clip_torch", "scikit-learn", "scikit-image", "pillow", "numpy")
        },
        "log": log,
    }
    if not arguments.quick:
        record["test"] = [
            evaluate(arguments.out, precision="fp32"),
            evaluate(arguments.out, precision="pure_bf16"),
        ]
        print(json.dumps(record["test"], indent=1))
    (arguments.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
