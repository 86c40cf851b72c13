"""The demo's pictures on disk: image files and tars, with what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from safetyfilter.standin import STANDIN_PAIR
from safetyfilter.standin.backgrounds import Split
from safetyfilter.standin.rendered import pictures

DIGITS: Mapping[str, int] = {STANDIN_PAIR.explicit: 3, STANDIN_PAIR.minor: 7}
DAMAGED = 10
"""Files of the test split that are no readable pictures."""
_SHARD = 500

Report = Callable[[Mapping[str, int]], None]
"""Called with the number of pictures that were written, under ``seen``."""


def _silent(_: Mapping[str, int]) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A split on disk: what the pictures show, in the order of the source.

    Attributes
    ----------
    keys : tuple of str
        The samples' keys.
    present : mapping of str to ndarray
        (N,) bool for each stand-in signal.
    digits : ndarray
        (N,) how many digits each picture shows.
    damaged : ndarray
        (N,) bool, True where the file is no readable picture.
    """

    keys: tuple[str, ...]
    present: Mapping[str, npt.NDArray[np.bool_]]
    digits: npt.NDArray[np.int64]
    damaged: npt.NDArray[np.bool_]

    @property
    def both(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where both signals are present in a readable picture."""
        both: npt.NDArray[np.bool_] = np.logical_and.reduce(list(self.present.values())) & ~self.damaged
        return both


def write_folder(
    folder: Path, split: Split, count: int, seed: int, pool: ProcessPoolExecutor, report: Report = _silent
) -> Labelled:
    """Render a split as JPEG files with captions; no picture holds both signals."""
    folder.mkdir(parents=True)
    keys, drawn = [], []
    for number, picture in enumerate(pictures(count, split, seed, pairs=False, pool=pool)):
        keys.append(f"{number:06d}.jpg")
        (folder / keys[-1]).write_bytes(picture.jpeg)
        (folder / f"{number:06d}.txt").write_text(picture.caption, encoding="utf-8")
        drawn.append(picture.digits)
        report({"seen": 1})
    return _labelled(keys, drawn, damaged=())


def write_tars(folder: Path, count: int, seed: int, pool: ProcessPoolExecutor, report: Report = _silent) -> Labelled:
    """Render the test split as tars, pairs among them, and damage a few files; the truth goes beside the tars."""
    folder.mkdir(parents=True)
    damaged = set(np.random.default_rng(seed).choice(count, DAMAGED, replace=False).tolist())
    keys, drawn = [], []
    rendered = iter(pictures(count, "test", seed, pairs=True, pool=pool))
    for shard in range(-(-count // _SHARD)):
        name = f"{shard:05d}.tar"
        with webdataset.TarWriter(str(folder / name), encoder=False) as tar:
            for number in range(shard * _SHARD, min((shard + 1) * _SHARD, count)):
                picture = next(rendered)
                encoded = picture.jpeg
                if number in damaged:
                    encoded = encoded[: len(encoded) // 2] if number % 2 else b"no picture"
                tar.write({"__key__": f"{number:06d}", "jpg": encoded, "txt": picture.caption.encode()})
                keys.append(f"{name}/{number:06d}")
                drawn.append(picture.digits)
                report({"seen": 1})
    labelled = _labelled(keys, drawn, damaged=sorted(damaged))
    truth = {"key": keys, **{signal: pa.array(present) for signal, present in labelled.present.items()}}
    pq.write_table(pa.table(truth), folder.with_name("truth.parquet"))
    return labelled


def _labelled(keys: Sequence[str], drawn: Sequence[tuple[int, ...]], damaged: Sequence[int]) -> Labelled:
    present = {signal: np.array([digit in digits for digits in drawn]) for signal, digit in DIGITS.items()}
    bad = np.zeros(len(keys), np.bool_)
    bad[list(damaged)] = True
    return Labelled(keys=tuple(keys), present=present, digits=np.array([len(d) for d in drawn]), damaged=bad)
