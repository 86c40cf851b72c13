"""Applies the decisions of a run to another copy of its data set, by the digests of its contents.

No picture is decoded and no encoder is loaded: the bytes of each sample are read, and looked up. So the copy may have
another order, other shards and names, and lack samples or have more; what the run has not seen is excluded.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from safetyfilter.batches import OK, STATUS_CODES, ReasonBits, ScoreBatch, Unreadable
from safetyfilter.errors import OutputError, RunError, SourceError
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.runs.apply import accepted_for, decide_by
from safetyfilter.runs.contents import Contents, contents_of
from safetyfilter.runs.digests import DIGEST_BYTES, NO_CONTENT, Digester
from safetyfilter.runs.held import INDEX_FOLDER
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.place import run_place
from safetyfilter.runs.reasons import Reasons, own_reasons
from safetyfilter.runs.repeated import mark_repeated
from safetyfilter.runs.run import Run, require_run
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.start import started
from safetyfilter.sources.base import Part, Sample, Source, require_source, samples_of
from safetyfilter.sources.extents import nested
from safetyfilter.storage import Place, cache_folder

_THREADS, _AHEAD = 16, 64
"""Threads that read samples, and samples that are held at a time."""
_REPORTED = 256
"""Samples between two reports."""

_log = logging.getLogger(__name__)


def apply_run(
    run: Run,
    source: Source,
    out: Place,
    *,
    accept_uncertified: bool = False,
    progress: Progress | Literal[False] | None = None,
) -> Run:
    """Decide on another copy of a run's data set by content, and leave a run directory of that copy.

    Each sample of the copy is decided as the samples of the run that have its bytes: it has their scores and their
    reasons; of several, the highest scores and all reasons. One whose bytes the run has not seen, changed by as much as
    one bit, has the status and the reason ``unknown``; one that can't be read its failure. Where a sample holds several
    pictures, all of them and their order count.

    The new run has the secret of the first, by which contents are looked up, and is used as any other: exported from,
    loaded from, decided anew. It can be stopped and goes on from its last finished part.

    Parameters
    ----------
    run : Run
        Complete, and made from pictures.
    source : Source
        The other copy.
    out : path or URL
        The new run directory: new, empty, or that of the same call. Meanwhile about 20 bytes and 4 a signal for each
        sample of the run are put by in it, twice; where it is not on this machine, in the user's cache.
    accept_uncertified : bool
        As of `apply_policy`; what was accepted for the run's own decisions need not be accepted again.
    progress : callable, False or None
        As for a scan: None for a bar in a notebook and nothing elsewhere, False for no bar.

    Returns
    -------
    Run
        The new run, complete, with counts that add up.

    Raises
    ------
    UnfinishedRunError
        The run is not complete.
    UncertifiedPolicyError
        The run was decided by a policy that was calibrated on scores that were made in another way.
    RunError
        The run has no digests of contents, as it was made from stored embeddings; or it was decided or scanned anew
        meanwhile; or a part of it is missing or damaged.
    SourceError
        The source holds stored embeddings, whose pictures nobody has here.
    OtherRunError
        `out` holds another run.
    OutputError
        It can't be written, or lies in the source or the run.
    SecretError
        The run's secret is missing, or beside `out` lies another.
    StorageError
        A sample could not be read though it was tried again. Finished parts are kept.
    """
    require_run(run)
    require_source(source)
    run = Run.open(run.path)  # it may have been decided anew since it was opened
    run.require_complete()
    _require_pictures(run, source)
    _require_apart(run, out)
    accepted = accepted_for(run, run.policy, run.record.decided_with.runs, accept_uncertified=accept_uncertified)
    told: Counter[str] = Counter()

    def report(counts: Mapping[str, int]) -> None:
        told.update(counts)
        if progress:
            progress(counts)

    setup, applied = replace(run.record.setup, officer=""), run.record.decisions_digest  # nothing is sealed of a copy
    with (
        notebook_progress(progress, lambda: _tally(source), after_s=2) as progress,
        started(
            out, source=source, setup=setup, policy=run.policy, secret=run.digester(), applied_from=applied
        ) as copy,
        _put_by(copy) as path,
    ):
        contents = contents_of(run, path)
        _match(copy, source, contents, report)
        mark_repeated(copy)
        copy.seal_scores(source.parts())
        now = Run.open(run.path).record
        if not now.complete or now.decisions_digest != applied:
            raise RunError(f"the run {run.path} was decided anew while it was applied; run the same command again")
        decided = decide_by(copy, replace(_carried(run, contents), accepted_uncertified=accepted))
        changed = {name: decided.counts[name] - told[name] for name in ("kept", "excluded", "unscored")}
        if any(changed.values()):
            report(changed)
    if decided.counts["unknown"] == decided.counts["seen"]:
        _log.warning(
            "the run %s knows none of these %s samples by content, and all are excluded; is this another data set, or "
            "were its pictures encoded anew?",
            run.path,
            f"{decided.counts['seen']:,}",
        )
    return decided


def _tally(source: Source) -> Tally:
    return Tally(what="applying", total=samples_of(source), parts=len(source.parts()), unit="samples")


def _require_pictures(run: Run, source: Source) -> None:
    if run.record.source.kind == "embeddings":
        raise RunError(
            f"the run {run.path} was made from stored embeddings, and has no digests of pictures by which a copy could "
            "be told; apply a run that was made from the pictures, or scan the copy"
        )
    if source.kind == "embeddings":
        raise SourceError(
            f"{source.location} holds stored embeddings and no pictures, which are what the samples of a run are known "
            "by; give the pictures, or scan the embeddings"
        )


def _require_apart(run: Run, out: Place) -> None:
    place = run_place(out)
    if nested(place, run.path):
        raise OutputError(f"{place} and the run {run.path} lie one inside the other; choose a place beside it")


@contextmanager
def _put_by(copy: Run) -> Iterator[Path]:
    """Yield the place of what is looked up; it is kept where this ends by an error, for the next time."""
    if copy.path.is_local:
        folder = Path(copy.path) / INDEX_FOLDER
    else:
        folder = cache_folder() / hashlib.sha256(str(copy.path).encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OutputError(
            f"can't write to {folder}: {error.strerror or error}; make it writable, or set XDG_CACHE_HOME"
        ) from error
    yield folder / "contents.bin"
    with suppress(OSError):
        (folder / "contents.bin").unlink()


def _match(copy: Run, source: Source, contents: Contents, report: Progress) -> None:
    """Read the parts of a source that are not done yet, and write what their contents have."""
    placement = copy.place_parts(source.parts())
    for number in placement.done:
        done, _ = read_scores(copy.file("scores", number), copy.record.setup.signals, number)
        at_the_end = {"kept": 0, "excluded": 0}
        report(_counts(done.scores) | at_the_end | {"resumed": len(done)})
    writer = replace(copy.part_writer(), policy=copy.policy.covered_by(copy.record.setup.signals))
    setup = copy.record.setup
    reader = _Reader(source, copy.digester(), setup.limits.max_bytes, bool(setup.hash_lists))
    with ThreadPoolExecutor(_THREADS, "safetyfilter-read") as pool:
        for part in placement.todo:
            scored = reader.matched(part, contents, pool, report)
            copy.require_held()
            counts = writer.write(scored, placement.numbers[part.index])
            report({name: counts[name] for name in ("kept", "excluded")})


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the samples of a source, and makes digests of them; `lists` where the run held them against lists."""

    source: Source
    digester: Digester
    max_bytes: int
    lists: bool

    def matched(self, part: Part, contents: Contents, pool: ThreadPoolExecutor, report: Progress) -> ScoredPart:
        """Return a part with what its contents have; what can't be read has its failure."""
        found: list[tuple[bytes, int]] = []
        waiting: deque[Future[tuple[bytes, int]]] = deque()
        reported = 0
        for sample in self.source.samples(part, max_bytes=self.max_bytes):
            waiting.append(pool.submit(self._read, sample))
            if len(waiting) >= _AHEAD:
                found.append(waiting.popleft().result())
            if len(found) - reported >= _REPORTED:
                report({"seen": len(found) - reported})
                reported = len(found)
        found += [future.result() for future in waiting]
        digests = np.frombuffer(b"".join(digest for digest, _ in found), np.uint8).reshape(-1, 2 * DIGEST_BYTES)
        carried = contents.carried(digests[:, DIGEST_BYTES:])
        read = np.array([status for _, status in found], np.uint8)
        scores = replace(carried.scores, status=np.where(read == OK, carried.scores.status, read))
        report({"seen": len(found) - reported, "unscored": _counts(scores)["unscored"]})
        rows = ScoredPart.in_order(
            part.index,
            part.state,
            digests,
            scores,
            carried.known_hashes,
            shards=part.shards,
            unchecked_hashes=carried.unchecked_hashes,
        )
        if self.lists or carried.known_hashes.any():
            return rows
        return replace(rows, known_hashes=None, unchecked_hashes=None)

    def _read(self, sample: Sample) -> tuple[bytes, int]:
        """Return the digests of a sample's key and content, and ``ok`` or its failure, as a code."""
        key = self.digester.key(sample.key)
        try:
            images = sample.read_all(self.max_bytes)
        except Unreadable as finding:
            return key + NO_CONTENT, STATUS_CODES[finding.failure]
        return key + self.digester.content(*images), OK


def _counts(scores: ScoreBatch) -> dict[str, int]:
    unscored = (scores.status != OK) & (scores.status != STATUS_CODES["unknown"])  # which is a reason of its own
    return {"seen": len(scores), "unscored": int(unscored.sum())}


def _carried(run: Run, contents: Contents) -> Reasons:
    """Return the reasons of a copy's rows: by their scores, and those that their contents have in the run."""
    policy = run.policy.covered_by(run.record.setup.signals)

    def of_part(number: int, part: ScoredPart) -> ReasonBits:
        bits = own_reasons(part, policy)
        there = part.contents.any(axis=1)
        bits[there] |= contents.carried(part.contents[there]).reason_bits
        return bits

    return Reasons(policy=run.policy, decided_with=run.record.decided_with, of_part=of_part)
