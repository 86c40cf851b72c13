"""Targets that decode pictures as a scan does, and compare what it sees with what a usual loader shows."""

from __future__ import annotations

import hashlib
import io
import random
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from fuzzing.mutations import Mutant, Structure, mutant
from fuzzing.pictures import SEEDS
from fuzzing.structures import GIF, JPEG, PNG, WEBP
from fuzzing.target import require
from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures import turbo
from safetyfilter.embed.pictures.frames import pictures_in
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, DecodeLimits, failures_named, open_header
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.renderings import renderings
from safetyfilter.embed.pictures.views import Geometry
from safetyfilter.hashes.pdq import pdq_of

_STRUCTURES: dict[str, Structure] = {"jpeg": JPEG, "png": PNG, "webp": WEBP, "gif": GIF}
_GEOMETRY = Geometry(image_size=(32, 32), views="whole")
SMALL = DecodeLimits(max_pixels=1 << 20, max_bytes=1 << 20, max_segments=20_000, large_pixels=1 << 18)
"""Limits in the measure of small files, so that what goes up to them is reached often and costs little."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""JPEG stands for MPO too; a name that Pillow does not know would be an error with each file."""


@dataclass(slots=True, kw_only=True)
class Decoding:
    """Encoded bytes to pixels, by one format's parser.

    Attributes
    ----------
    kind : str
        The format.
    limits : DecodeLimits
        What one image may cost.
    compare : bool
        What is accepted is held against what `PIL.Image.open` shows.
    """

    kind: str
    limits: DecodeLimits = SMALL
    compare: bool = True
    name: str = ""
    memory_mb: int = 64
    cpu_s: float = 5.0
    seeds: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or self.kind

    def prepare(self, folder: Path) -> None:
        """Make the pictures."""
        self.seeds = SEEDS[self.kind]()

    def mutant(self, rng: random.Random) -> Mutant:
        """Return the next file."""
        return mutant(self.seeds, _STRUCTURES.get(self.kind), rng)

    def check(self, mutant: Mutant) -> bool:
        """Decode it; every picture that a usual loader shows must be among those that the scan sees.

        JPEGs have the same pixels or the same failure whether libjpeg-turbo decodes the plain ones itself or not.
        """
        data = mutant.data
        decode = "fast" if zlib.crc32(data) & 1 else "exact"
        prepare = ImagePreparer(geometry=_GEOMETRY, decode=decode, limits=self.limits)
        pixels = _prepared(prepare, data)
        if decode == "fast" and self.kind == "jpeg":
            with _by_pillow():
                other = _prepared(prepare, data)
            require(np.array_equal(pixels, other), "libjpeg-turbo and Pillow give other pixels, or another failure")
        if isinstance(pixels, str):
            require(pixels != "out_of_memory", "memory ran out within the limits")
            return False
        require(pixels.dtype == np.uint8 and pixels.shape[1:] == (1, 32, 32, 3), f"pixels are {pixels.shape}")
        if self.compare:
            seen = set(_seen(data, self.limits))
            require(all(shown in seen for shown in _shown(data)), "a loader shows a picture that the scan does not see")
        return True


@dataclass(slots=True, kw_only=True)
class Perceptual(Decoding):
    """Pictures of all formats, to their perceptual hashes."""

    def prepare(self, folder: Path) -> None:
        """Make the pictures."""
        self.seeds = [seed for make in SEEDS.values() for seed in make()]

    def check(self, mutant: Mutant) -> bool:
        """Hash it; each picture has a hash, its turned and mirrored ones, and a quality."""
        try:
            found = pdq_of(mutant.data, self.limits)
        except Unreadable as finding:
            require(finding.failure != "out_of_memory", "memory ran out within the limits")
            return False
        require(len(found) > 0, "no picture, and no failure")
        for one in found:
            require(one.dihedral.shape == (8, 32) and one.dihedral[0].tobytes() == one.hash, "hashes of another shape")
            require(0 <= one.quality <= 100, f"a quality of {one.quality}")
        return True


def _prepared(prepare: ImagePreparer, data: bytes) -> NDArray[np.uint8] | str:
    """The pixels of all pictures, or the failure."""
    try:
        return prepare(data)
    except Unreadable as finding:
        return finding.failure


@contextmanager
def _by_pillow() -> Iterator[None]:
    """Decode as where simplejpeg can't be imported."""
    kept, turbo.simplejpeg = turbo.simplejpeg, None
    try:
        yield
    finally:
        turbo.simplejpeg = kept


def _seen(data: bytes, limits: DecodeLimits) -> Iterator[bytes]:
    for picture, _ in pictures_in(open_header(data, limits), data, limits):
        with failures_named():
            picture.load()
            yield from map(_digest, renderings(picture))


def _shown(data: bytes) -> Iterator[bytes]:
    """What a loader gets that opens a file with Pillow and goes through its frames, as far as it comes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                for frame in ImageSequence.Iterator(image):
                    yield _digest(frame.convert("RGB"))
    except Exception:  # noqa: BLE001 - what a loader can't read is of no interest
        return


def _digest(picture: Image.Image) -> bytes:
    return hashlib.blake2b(picture.tobytes(), key=repr(picture.size).encode(), digest_size=16).digest()


def image_targets() -> list[Decoding]:
    """Return one target for each format, and one with the library's own limits."""
    large = [
        Decoding(kind=kind, name=f"{kind}-at-full-size", limits=DEFAULT_LIMITS, compare=False, memory_mb=3000, cpu_s=60)
        for kind in SEEDS
    ]
    return [*(Decoding(kind=kind) for kind in SEEDS), *large, Perceptual(kind="pdq")]
