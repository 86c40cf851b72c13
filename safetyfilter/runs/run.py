"""The run directory: what a scan leaves behind, written part by part and read back as a whole."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import Reason, Unreadable
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError, RunError, SecretError, UnfinishedRunError, UsageError
from safetyfilter.runs.decided import read_decisions, write_decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.labels import join_labels, key_column
from safetyfilter.runs.parts import ScoredPart, read_meta, read_scores, write_scores
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.secret import read_secret, secret_origin
from safetyfilter.runs.stored import (
    FOLDERS,
    file_digest,
    fingerprint_of,
    holds,
    load_embeddings,
    load_scores,
    part_file,
    remove_parts,
)
from safetyfilter.sources.base import Part
from safetyfilter.storage import Location, local_path, locked, replacing


@dataclass(slots=True)
class Run:
    """A run directory that is there.

    Attributes
    ----------
    path : Path
        The directory.
    record : RunRecord
        The content of its ``run.json``.
    """

    path: Path
    record: RunRecord = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run.

        Raises
        ------
        RunError
            There is no run, or its ``run.json`` is damaged.
        SchemaError
            It was written by another version of the schema.
        """
        path = run_path(path)
        place = Location.of(path) / "run.json"
        try:
            text = place.read_text()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"no run at {path}; make one with `safetyfilter scan SOURCE --out {path}`") from error
        except (PermissionError, IsADirectoryError, UnicodeDecodeError, Unreadable) as error:
            raise RunError(f"can't read {place}: {error}; restore it, or scan into a new directory") from error
        return cls(path, RunRecord.from_json(text, place))

    def write_record(self, record: RunRecord) -> None:
        """Write ``run.json``, whole or not at all."""
        with replacing(self.path / "run.json") as file:
            file.write(record.to_json().encode())
        self.record = record

    def digester(self) -> Digester:
        """Return the digester of this run; `SecretError` where the secret is missing or another run's."""
        digester = read_secret(self.path)
        if digester.text("secret") != self.record.secret_check:
            raise SecretError(
                f"the secret in {secret_origin(self.path)} is not the one that the run {self.path} was made with; find "
                "that one"
            )
        return digester

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run for writing; `RunError` while another process does."""
        with held(self.path):
            yield

    @property
    def policy(self) -> Policy:
        """The policy that was last applied."""
        return self.record.policy

    @property
    def counts(self) -> dict[str, int]:
        """``seen``, ``kept``, ``excluded`` and one per reason; `UnfinishedRunError` before the run is complete."""
        self.require_complete()
        return dict(self.record.counts)

    @property
    def part_count(self) -> int:
        """The number of the source's parts."""
        return self.record.source.parts

    def require_complete(self) -> None:
        """Raise `UnfinishedRunError` unless every part is scored and decided."""
        if not self.record.complete:
            raise UnfinishedRunError(
                f"the run {self.path} is not finished; "
                + (
                    "run `safetyfilter decide` again"
                    if self.record.scores
                    else "run the same `safetyfilter scan` again, which does only what is missing"
                )
            )

    @property
    def root(self) -> Location:
        """The directory as a place of storage."""
        return Location.of(self.path)

    def file(self, folder: str, index: int) -> Location:
        """Return the place of one part's file in ``scores``, ``decisions`` or ``embeddings``."""
        return part_file(self.root, folder, index)

    def unscored_parts(self, parts: Sequence[Part], *, embeddings: bool = False) -> list[Part]:
        """Return the parts whose scores, or wanted embeddings, are missing or no longer hold."""
        digester = self.digester()
        return [part for part in parts if not self._is_scored(part, digester, embeddings)]

    def _is_scored(self, part: Part, digester: Digester, embeddings: bool) -> bool:
        try:
            _, meta = read_scores(self.file("scores", part.index))  # all of it: what is damaged is done again
        except RunError:
            return False
        if meta["fingerprint"] != self._fingerprint(part.index, part.state, digester):
            return False
        kept = meta.get("embeddings")
        return not embeddings or (kept is not None and holds(self.file("embeddings", part.index), kept))

    def _fingerprint(self, index: int, state: str, digester: Digester) -> str:
        """A fingerprint of a part's samples and everything that its scores depend on."""
        return digester.text(f"{self.record.setup.digest}\n{index}\n{state}")

    def write(self, part: ScoredPart) -> Counter[str]:
        """Record a scored part and the decisions on it under the run's policy; its counts.

        Embeddings that are there already are those of other scores, and are removed; the part's own are written first,
        so that scores never name embeddings that are not there.

        Parameters
        ----------
        part : ScoredPart
            With vectors where they are to be kept, in float16.
        """
        place, kept = self.file("embeddings", part.index), None
        place.remove()
        if part.vectors is not None:
            (self.root / "embeddings").make_folder()
            with replacing(place) as file:
                np.save(file, part.vectors.astype(np.float16, copy=False))
            kept = file_digest(place)
        fingerprint = self._fingerprint(part.index, part.state, self.digester())
        write_scores(part, self.file("scores", part.index), {"fingerprint": fingerprint, "embeddings": kept})
        return self._decide(part, fingerprint, self.policy)

    def decide_part(self, index: int, policy: Policy) -> Counter[str]:
        """Decide on a part's stored scores, unless that was done; its counts."""
        meta = read_meta(self.file("scores", index))
        try:
            decided = read_decisions(self.file("decisions", index))
        except RunError:
            decided = None  # missing or damaged: made again
        if meta and decided and (decided.fingerprint, decided.policy) == (meta["fingerprint"], policy.digest):
            return Counter(decided.counts)
        part, meta = read_scores(self.file("scores", index))
        return self._decide(part, meta["fingerprint"], policy)

    def _decide(self, part: ScoredPart, fingerprint: str, policy: Policy) -> Counter[str]:
        bits = policy.decide(part.scores).reason_bits
        if part.known_hashes is not None:
            bits[part.known_hashes] |= np.uint16(Reason.KNOWN_HASH)
        meta = {"fingerprint": fingerprint, "policy": policy.digest}
        return write_decisions(part, bits, self.file("decisions", part.index), meta)

    def seal_scores(self, parts: Sequence[Part]) -> None:
        """Record that all parts of the source are scored, and remove those that it no longer has.

        From here on the record vouches for these scores: no others are decided on or read.

        Raises
        ------
        UnfinishedRunError
            A part is not scored, or its scores no longer hold.
        """
        digester = self.digester()
        fingerprints = [self._fingerprint(part.index, part.state, digester) for part in parts]
        for part, fingerprint in zip(parts, fingerprints, strict=True):
            if (read_meta(self.file("scores", part.index)) or {}).get("fingerprint") != fingerprint:
                raise UnfinishedRunError(f"part {part.index} of {self.path} is not scored; run the same scan again")
        remove_parts(self.root, len(parts))
        self.write_record(replace(self.record, scores=fingerprint_of(fingerprints)))

    def finish(self, counts: Mapping[str, int], policy: Policy) -> None:
        """Record that every part is decided under a policy."""
        self.write_record(replace(self.record, policy=policy, counts=dict(counts), complete=True))

    def read_scores(self) -> pa.Table:
        """Return the scores of all samples: the columns of ``scores/``, rows in the run's order.

        Raises
        ------
        UnfinishedRunError, SchemaError, RunError
            The run is not finished, or a part is missing, damaged, or not of this run.
        """
        self.require_complete()
        return load_scores(self.root, self.record)

    def read_embeddings(self) -> npt.NDArray[np.float16]:
        """Return (N, D) or (N, V, D) float16, the embeddings of all samples in the order of `read_scores`.

        NaN where a sample has none. A single part is mapped into memory.

        Raises
        ------
        UnfinishedRunError, SchemaError, RunError
            As `read_scores`; or the run was made without embeddings, or they are not those of its scores.
        """
        self.require_complete()
        return load_embeddings(self.root, self.record)

    def align_labels(self, labels: pa.Table) -> pa.Table:
        """Return labels in the order of `read_scores`, with nulls for samples that have none.

        Parameters
        ----------
        labels : pyarrow.Table
            With a column ``key`` that holds the samples' keys, or ``key_digest`` as the run has it, in any order, and
            a column for each signal.

        Raises
        ------
        CalibrationError
            There is no such column, a sample has two labels, or no label belongs to this run.
        SecretError
            The run's secret, with which keys are looked up, is missing.
        """
        if not {"key", "key_digest"} & set(labels.column_names):
            raise CalibrationError(
                "the labels have no column key, and a run's rows are in no order that other labels could follow; give "
                "the samples' keys in a column key"
            )
        label_keys = key_column(labels, None if "key_digest" in labels.column_names else self.digester())
        return join_labels(labels, key_column(self.read_scores()), label_keys)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a run directory for writing; `RunError` while another process does."""
    try:
        with locked(path, wait=False):
            for folder in (path, *(path / name for name in FOLDERS)):
                for left in folder.glob(".*.tmp"):  # by a process that was killed
                    left.unlink()
            yield
    except BlockingIOError as error:
        raise RunError(f"another process is writing {path}; wait for it, or give another --out") from error


def require_run(run: object) -> None:
    """Raise `UsageError` unless it is a run, and not its path for example.

    >>> require_run("runs/first")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'runs/first' is not a Run; open it with Run.open
    """
    if not isinstance(run, Run):
        raise UsageError(f"{run!r} is not a Run; open it with Run.open")


def run_path(path: str | os.PathLike[str]) -> Path:
    """Return the local path of a run directory, with a name beside which its secret can lie.

    >>> run_path("runs/first"), run_path(".").name == Path.cwd().name
    (PosixPath('runs/first'), True)
    """
    local = local_path(path, "a run directory")
    return local if local.name not in ("", "..") else local.resolve()
