"""Sources of generated pictures, of which one in twenty is broken; a new one for each round."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.standin.render import scenes

BROKEN = 20
"""One in so many is broken."""
_SHARD = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A source on disk.

    Attributes
    ----------
    kind : str
        ``folder``, ``webdataset`` or ``parquet``.
    place : Path
        Its folder.
    pictures : mapping of str to bytes
        The encoded pictures by key.
    broken : frozenset of str
        The keys of those that no decoder reads.
    """

    kind: str
    place: Path
    pictures: Mapping[str, bytes]
    broken: frozenset[str]

    @property
    def url(self) -> str:
        """The source, on the storage that fails."""
        return f"soak://{self.place}"


def make(kind: str, place: Path, count: int, seed: int) -> Made:
    """Write a source with so many samples."""
    rng = random.Random(seed)
    broken = set(rng.sample(range(count), max(1, count // BROKEN)))
    files = []
    for number, scene in enumerate(scenes(count, split="test", seed=seed, pairs=True)):
        encoded = io.BytesIO()
        scene.image.save(encoded, "JPEG", quality=90)
        files.append(_damaged(encoded.getvalue(), rng) if number in broken else encoded.getvalue())
    place.mkdir(parents=True)
    keys = _WRITERS[kind](place, files)
    return Made(
        kind=kind,
        place=place,
        pictures=dict(zip(keys, files, strict=True)),
        broken=frozenset(keys[number] for number in broken),
    )


def _damaged(encoded: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (encoded[: len(encoded) // 2], b"not a picture " + rng.randbytes(8), encoded[:20], b"\xff\xd8\xff")
    )


def _folder(place: Path, files: list[bytes]) -> list[str]:
    keys = [f"{number % 3}/{number:05d}.jpg" for number in range(len(files))]
    for key, content in zip(keys, files, strict=True):
        (place / key).parent.mkdir(exist_ok=True)
        (place / key).write_bytes(content)
    return keys


def _tars(place: Path, files: list[bytes]) -> list[str]:
    keys = []
    for start in range(0, len(files), _SHARD):
        name = f"{start // _SHARD:05d}.tar"
        with tarfile.open(place / name, "w") as tar:
            for number, content in enumerate(files[start : start + _SHARD], start):
                member = tarfile.TarInfo(f"{number:05d}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                keys.append(f"{name}/{number:05d}")
    return keys


def _table(place: Path, files: list[bytes]) -> list[str]:
    keys = [f"key {number}" for number in range(len(files))]
    table = pa.table({"key": keys, "image": pa.array(files, pa.binary())})
    pq.write_table(table, place / "0.parquet", row_group_size=_SHARD)
    return keys


_WRITERS: Mapping[str, Callable[[Path, list[bytes]], list[str]]] = {
    "folder": _folder,
    "webdataset": _tars,
    "parquet": _table,
}
KINDS = tuple(_WRITERS)
