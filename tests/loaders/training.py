"""A small model, trained on pictures, that remembers which ones it saw."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from safetyfilter.batches import OK
from safetyfilter.loaders.torch_map import SafeDataset
from safetyfilter.runs.apply import apply_policy
from safetyfilter.runs.parts import read_scores, write_scores
from safetyfilter.runs.run import Run
from safetyfilter.sources.base import Source
from tests.runs.vouching import vouch

SIDE = 32

BY_AND_WORKERS = [("run", 0), ("run", 2), ("run", 4), ("content", 2), ("filter", 0), ("filter", 2)]
"""What decides, and the processes of a loader: each of both, and each of what decides in one process and in several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Stand-in pictures on disk in three forms, and a run for each whose decisions are the truth.

    `both` tells which hold both stand-ins, `keep` which the run keeps: those not both and not damaged.
    """

    folder: Path
    tars: Path
    saved: Path
    keys: tuple[str, ...]
    both: np.ndarray
    damaged: np.ndarray
    folder_run: Path
    tars_run: Path
    saved_run: Path

    @property
    def keep(self) -> np.ndarray:
        return ~self.both & ~self.damaged

    def content(self, number: int) -> bytes:
        return (self.folder / self.keys[number]).read_bytes()

    def numbers(self) -> dict[str, int]:
        """Which picture a tensor is: by its pixels, as the model gets them."""
        return _numbers(self.folder, self.keys, tuple(self.damaged.tolist()))


@cache
def _numbers(folder: Path, keys: tuple[str, ...], damaged: tuple[bool, ...]) -> dict[str, int]:
    sound = [number for number in range(len(keys)) if not damaged[number]]
    return {fingerprint(pixels((folder / keys[number]).read_bytes())): number for number in sound}


def pixels(encoded: bytes) -> torch.Tensor:
    """(3, 32, 32) float32 in [0, 1]."""
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB").resize((SIDE, SIDE))
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def fingerprint(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


class Diffusion(nn.Module):
    """A tiny denoising diffusion model; `seen` holds what reached its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))
        self.seen: list[str] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += [fingerprint(image) for image in images]
        time = torch.rand(len(images), 1, 1, 1)
        noise = torch.randn_like(images)
        noisy = (1 - time).sqrt() * (images * 2 - 1) + time.sqrt() * noise
        predicted = self.net(torch.cat([noisy, time.expand(-1, 1, *images.shape[2:])], dim=1))
        return torch.mean((predicted - noise) ** 2)


def train(batches: Iterable[torch.Tensor], model: Diffusion | None = None) -> Diffusion:
    """One pass; returns the model, which knows what it saw."""
    model = model or Diffusion()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    for images in batches:
        optimiser.zero_grad()
        model(images).backward()
        optimiser.step()
    return model


def all_of(loader: DataLoader) -> list:
    """All batches of a loader; where a worker raises, torch would only stop it seconds later, when it is collected."""
    iterator = iter(loader)
    try:
        return list(iterator)
    finally:
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


def seen(model: Diffusion, pictures: Pictures) -> Counter[int]:
    """How often each picture reached the model; a tensor that is none of them is an error."""
    numbers = pictures.numbers()
    return Counter(numbers[print_] for print_ in model.seen)


def check(model: Diffusion, pictures: Pictures, epochs: int = 1) -> None:
    """Every kept picture was seen once an epoch, and no other ever."""
    counts = seen(model, pictures)
    assert not [n for n in counts if pictures.both[n]], "a co-occurring picture reached the model"
    assert counts == Counter({int(n): epochs for n in np.flatnonzero(pictures.keep)})


class FolderPictures(torch.utils.data.Dataset):
    """Pixels of the files below a folder."""

    def __init__(self, folder: Path, keys: tuple[str, ...]) -> None:
        self.folder, self.keys = folder, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> torch.Tensor:
        return pixels((self.folder / self.keys[number]).read_bytes())


class Stream:
    """Keys and encoded images of a folder, shuffled anew each epoch from a seed."""

    def __init__(self, folder: Path, keys: tuple[str, ...], seed: int | None = None) -> None:
        self.folder, self.keys, self.seed, self.epoch = folder, keys, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        order = np.arange(len(self.keys))
        if self.seed is not None:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        for number in order:
            yield {"key": self.keys[number], "jpg": (self.folder / self.keys[number]).read_bytes()}


def stack(samples: list[dict]) -> torch.Tensor:
    """A batch of pixels from samples with encoded images."""
    return torch.stack([pixels(sample["jpg"]) for sample in samples])


def jpeg_pixels(sample: dict) -> torch.Tensor:
    return pixels(sample["jpg"])


def decoded(row: dict) -> dict:
    """A transform for Hugging Face data sets: PIL images to pixels."""
    images = []
    for image in row["image"]:
        small = image.convert("RGB").resize((SIDE, SIDE))
        images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255)
    return {"image": images}


def only_images(rows: list[dict]) -> torch.Tensor:
    return torch.stack([row["image"] for row in rows])


def decide_by_truth(run: Run, source: Source, present: np.ndarray) -> None:
    """Put the truth about a source's samples in the place of a run's scores, (N, 2), and decide anew."""
    keys = [sample.key for part in source.parts() for sample in source.samples(part)]
    digester = run.digester()
    truth = {digester.key(key): values for key, values in zip(keys, present.astype(np.float32), strict=True)}
    for index in range(run.part_count):
        part, meta = read_scores(run.file("scores", index), run.record.setup.signals)
        values = np.stack([truth[digest.tobytes()] for digest in part.keys])
        values[part.scores.status != OK] = np.nan
        true = replace(part, scores=replace(part.scores, values=values))
        write_scores(true, run.file("scores", index), meta)
        run.file("decisions", index).remove()
    vouch(run)
    apply_policy(run, run.policy)


def decode_rows(rows: dict) -> dict:
    """A batched map for Hugging Face streams: PIL images to pixels."""
    return {"image": decoded(rows)["image"]}


def safe_folder(pictures: Pictures, **options) -> SafeDataset:
    data = FolderPictures(pictures.folder, pictures.keys)
    return SafeDataset(data, pictures.folder_run, keys=pictures.keys, **options)


def expected_report(pictures: Pictures, times: int = 1) -> dict[str, int]:
    both, damaged = pictures.both & ~pictures.damaged, pictures.damaged
    return {
        "seen": len(pictures.keys) * times,
        "kept": int(pictures.keep.sum()) * times,
        "excluded": int((~pictures.keep).sum()) * times,
        "co_occurrence": int(both.sum()) * times,
        "unscored": int(damaged.sum()) * times,
    }


def holds(report: dict[str, int], expected: dict[str, int]) -> bool:
    return {name: count for name, count in report.items() if count} == {n: c for n, c in expected.items() if c}


class OneAfterTheOther(torch.utils.data.IterableDataset):
    """Pixels of several loaders with their names: spawned workers start slowly, so that they are shared."""

    def __init__(self, mapped, iterables) -> None:
        self.mapped, self.iterables = mapped, iterables

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        for position in range(info.id, len(self.mapped), info.num_workers):
            yield "map", self.mapped[position]
        for name, iterable in self.iterables.items():
            for sample in iterable:
                yield name, pixels(sample["jpg"])
