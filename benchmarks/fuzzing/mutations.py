"""Mutations of a file: of its bytes, of its numbers, and of the pieces that its format is made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Pieces = list[bytes]
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 33, 64, 127, 128, 255, 256, 257, 511, 512, 1000, 4095, 4096, 8191, 16384)
LARGE = tuple(sign + (1 << power) for power in (15, 16, 24, 30, 31, 32, 48, 62, 63, 64) for sign in (-1, 0, 1))
"""Numbers at which lengths, sides and offsets overflow."""
_WIDTHS = (1, 2, 4, 8)
_HEAD = 96
"""Bytes at the beginning of a file, in which most formats have their sizes: half of all numbers are written there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A mutated file.

    Attributes
    ----------
    data : bytes
        Its content.
    seed : int
        The number of the file that it was made from.
    in_place : bool
        True where bytes were changed at their places or cut off at the end, so that nothing was added or taken out that
        is whole by itself.
    """

    data: bytes
    seed: int
    in_place: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """The pieces of a format.

    Attributes
    ----------
    split : callable
        A file's bytes to its pieces; together they need not be all of it.
    join : callable
        Pieces to a file, with lengths and checksums set right where the second argument is True.
    words : tuple of bytes
        Pieces that can stand anywhere, of which some are where no reader expects them.
    """

    split: Callable[[bytes], Pieces]
    join: Callable[[Pieces, bool], bytes]
    words: tuple[bytes, ...] = ()


def mutant(seeds: Sequence[bytes], structure: Structure | None, rng: random.Random) -> Mutant:
    """Return a mutated file: of one of the seeds, with one to four changes.

    A part of the files comes through unchanged in nearly all, so that what lies behind a file's header is reached too.
    """
    number = rng.randrange(len(seeds))
    data, in_place = seeds[number], True
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        kind = rng.random()
        if structure is not None and kind < 0.5:
            data, in_place = _of_pieces(data, structure, rng, seeds), False
        elif kind < 0.85:
            data = rng.choice(_IN_PLACE)(data, rng)
        else:
            data, in_place = rng.choice(_SPLICES)(data, rng, seeds), False
    return Mutant(data=data, seed=number, in_place=in_place)


def _of_pieces(data: bytes, structure: Structure, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    pieces = structure.split(data)
    if not pieces:
        return data
    at, kind = rng.randrange(len(pieces)), rng.randrange(8)
    if kind == 0:
        pieces[at : at + 1] = [pieces[at]] * rng.choice((2, 3, 10, 60))
    elif kind == 1:
        del pieces[at]
    elif kind == 2:
        other = rng.randrange(len(pieces))
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif kind == 3:
        pieces.insert(at, rng.choice(structure.split(rng.choice(seeds)) or [b""]))
    elif kind == 4:
        pieces[at:] = [pieces[at][: rng.randrange(len(pieces[at]) + 1)]]
    elif kind in (5, 6) and structure.words:
        pieces[at] = rng.choice(structure.words)
    else:
        pieces[at] = rng.choice(_IN_PLACE)(pieces[at], rng)
    return structure.join(pieces, rng.random() < 0.8)


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16))
    made = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
    return data[:at] + made[: len(data) - at] + data[at + length :]


def _number(data: bytes, rng: random.Random) -> bytes:
    width = rng.choice(_WIDTHS)
    last = len(data) - width
    if last < 0:
        return data
    at = rng.randrange(min(last, _HEAD) + 1) if rng.random() < 0.5 else rng.randrange(last + 1)
    order = "little" if rng.random() < 0.5 else "big"
    old = int.from_bytes(data[at : at + width], order)
    value = rng.choice((rng.choice(NUMBERS), rng.choice(LARGE), old + rng.randint(-3, 3), old * 2))
    return data[:at] + (value % (1 << 8 * width)).to_bytes(width, order) + data[at + width :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 64, 512))
    return data[:at] + data[at + length :]


def _repeat(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 64, 512))
    return data[:at] + data[at : at + length] * rng.choice((2, 3, 50)) + data[at + length :]


def _insert(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 16))) + data[at:]


def _splice(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _append(data: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    return data + rng.choice((bytes(rng.choice((1, 512, 1024))), rng.choice(seeds), rng.randbytes(32)))


_IN_PLACE = (_flip, _flip, _bytes, _number, _number, _cut)
_SPLICES = (_remove, _repeat, _insert, _splice, _append)
