"""The numbers of parts in a run: a part that is scored keeps its files, wherever it lies in its source by now."""

from __future__ import annotations

import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from safetyfilter.errors import RunError
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.stored import FOLDERS, part_file, part_numbers, seems_to_hold
from safetyfilter.sources.base import Part
from safetyfilter.storage import Location, replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Parts of a source, and the numbers of their files in a run.

    Attributes
    ----------
    numbers : mapping of int to int
        The index of each part in its source -> its number in the run, below the count of parts.
    todo : tuple of Part
        The parts that are still to be scored.
    stored : int
        The parts that the run has, whether they are the source's or not.
    """

    numbers: Mapping[int, int]
    todo: tuple[Part, ...]
    stored: int = 0

    @property
    def done(self) -> list[int]:
        """The numbers of the parts that are scored."""
        todo = {part.index for part in self.todo}
        return sorted(number for index, number in self.numbers.items() if index not in todo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The requirements on a stored part beside its being whole.

    Attributes
    ----------
    fingerprint_of : callable
        A part's state -> the fingerprint that its scores must have.
    source : str
        The fingerprint of the source: where a part's samples share keys with others, its scores hold only while all
        of the source is unchanged.
    signals : tuple of str
        The signals scored, in order.
    embeddings, sealed : bool
        Embeddings, and sealed records, are to be there too.
    """

    fingerprint_of: Callable[[str], str]
    source: str
    signals: tuple[str, ...]
    embeddings: bool
    sealed: bool = False


def placed(root: Location, parts: Sequence[Part], wanted: Wanted) -> Placement:
    """Return where the parts of a source lie in a run, or will.

    New parts have numbers in the order of their fingerprints, keyed digests, which says nothing without the secret.
    Stored parts are known by their fingerprints. One whose number is too high, since the source has fewer parts now,
    is copied to a lower one; whoever is stopped half-way finds the old files still there.
    """
    waiting: dict[str, deque[Part]] = defaultdict(deque)
    for part in parts:
        waiting[wanted.fingerprint_of(part.state)].append(part)
    numbers: dict[int, int] = {}
    stored = part_numbers(root, "scores")
    with ThreadPoolExecutor(4) as pool:
        for number, fingerprint in zip(stored, pool.map(lambda n: _whole(root, n, wanted), stored), strict=True):
            if fingerprint is not None and waiting.get(fingerprint):
                numbers[waiting[fingerprint].popleft().index] = number
    todo = tuple(part for part in parts if part.index not in numbers)
    free = deque(sorted(set(range(len(parts))) - set(numbers.values())))
    for part in sorted(todo, key=lambda part: wanted.fingerprint_of(part.state)):  # else they lay as in the source
        numbers[part.index] = free.popleft()
    for index, number in numbers.items():
        if number >= len(parts):
            numbers[index] = free.popleft()
            _copy(root, number, numbers[index])
    return Placement(numbers=numbers, todo=todo, stored=len(stored))


def _whole(root: Location, number: int, wanted: Wanted) -> str | None:
    """The fingerprint of a stored part that may be kept, if its state is a part's of the source."""
    try:
        # all of it: what is damaged is done again
        _, meta = read_scores(part_file(root, "scores", number), wanted.signals)
    except RunError:
        return None
    if meta["repeated"] not in (None, wanted.source):
        return None
    for folder, asked in (("embeddings", wanted.embeddings), ("sealed", wanted.sealed)):
        digest = meta.get(folder)
        if asked and not (digest and seems_to_hold(part_file(root, folder, number), digest)):
            return None
    return str(meta["fingerprint"])


def _copy(root: Location, number: int, target: int) -> None:
    for folder in reversed(FOLDERS):  # the scores last, since they vouch for the rest
        place = part_file(root, folder, number)
        if place.is_file():
            with place.open() as old, replacing(part_file(root, folder, target)) as new:
                shutil.copyfileobj(old, new)
        else:
            part_file(root, folder, target).remove()
