"""The run directory: what a scan leaves behind, written part by part and read back as a whole."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import Reason, Unreadable
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError, RunError, SecretError, UnfinishedRunError, UsageError
from safetyfilter.runs.checkpoints import Checkpoints
from safetyfilter.runs.decided import DecidedPart, read_decisions, write_decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.held import held, refuse_links
from safetyfilter.runs.labels import join_labels, key_column
from safetyfilter.runs.parts import ScoredPart, content_digest, read_meta, read_scores, write_scores
from safetyfilter.runs.placement import Placement, Wanted, placed
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.secret import read_secret, secret_origin
from safetyfilter.runs.stored import (
    digest_of,
    file_digest,
    load_embeddings,
    load_scores,
    part_file,
    remove_parts,
    vouched,
)
from safetyfilter.sources.base import Part
from safetyfilter.storage import Location, Place, is_url, local_path, replacing


@dataclass(slots=True)
class Run:
    """A run directory that is there.

    Attributes
    ----------
    path : Location
        The directory, on this machine or on other storage.
    record : RunRecord
        The content of its ``run.json``.
    """

    path: Location
    record: RunRecord = field(repr=False)
    _own_decisions: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, path: Place) -> Run:
        """Open a run.

        Raises
        ------
        RunError
            There is no run, its ``run.json`` is damaged, or there is a link in it.
        SchemaError
            It was written by another version of the schema.
        """
        given, path = path, run_place(path)
        refuse_links(path)
        place = path / "run.json"
        try:
            text = place.read_text()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"no run at {given}; make one with `safetyfilter scan SOURCE --out {given}`") from error
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

    def file(self, folder: str, index: int) -> Location:
        """Return the place of one part's file in ``scores``, ``decisions`` or ``embeddings``."""
        return part_file(self.path, folder, index)

    def place_parts(self, parts: Sequence[Part], *, embeddings: bool = False) -> Placement:
        """Return the numbers of a source's parts in this run, and those parts whose scores are missing or don't hold.

        Parameters
        ----------
        parts : sequence of Part
            All parts of the source, of which the record has the fingerprint.
        embeddings : bool
            Scores without embeddings don't do.
        """
        digester = self.digester()
        wanted = Wanted(
            fingerprint_of=lambda state: self._fingerprint(state, digester),
            source=self.record.source.fingerprint,
            embeddings=embeddings,
        )
        return placed(self.path, parts, wanted)

    def checkpoints(self, *, vectors: bool = False) -> Checkpoints:
        """Return what keeps the rows of parts in progress."""
        return Checkpoints(
            root=self.path,
            run=self._depends_on,
            digester=self.digester(),
            signals=self.record.setup.signals,
            vectors=vectors,
        )

    @property
    def _depends_on(self) -> str:
        return f"{self.record.run_id}\n{self.record.setup.digest}"

    def _fingerprint(self, state: str, digester: Digester) -> str:
        """A fingerprint of a part's samples and everything that its scores depend on."""
        return digester.text(f"{self._depends_on}\n{state}")

    def write(self, part: ScoredPart, number: int | None = None) -> Counter[str]:
        """Record a scored part and the decisions on it under the run's policy; its counts.

        Embeddings that are there already are those of other scores, and are removed; the part's own are written first,
        so that scores never name embeddings that are not there.

        Parameters
        ----------
        part : ScoredPart
            With vectors where they are to be kept, in float16.
        number : int or None
            Its number in the run, from `place_parts`; that in its source where None.
        """
        number = part.index if number is None else number
        place, kept = self.file("embeddings", number), None
        place.remove()
        if part.vectors is not None:
            (self.path / "embeddings").make_folder()
            with replacing(place) as file:
                np.save(file, part.vectors.astype(np.float16, copy=False))
            kept = file_digest(place)
        meta = {"fingerprint": self._fingerprint(part.state, self.digester()), "embeddings": kept}
        content = write_scores(part, self.file("scores", number), meta)
        return Counter(self._decide(number, part, {**meta, "content": content}, self.policy).counts)

    def trust_decisions(self, record: RunRecord) -> None:
        """Take the decisions that are there for this run's own, if a record vouches for all of them."""
        metas = [read_meta(self.file("decisions", number)) for number in range(record.source.parts)]
        contents = [meta["content"] for meta in metas if meta]
        if record.complete and digest_of(contents) == record.decisions:
            self._own_decisions.update(contents)

    def decide_part(self, number: int, policy: Policy) -> DecidedPart:
        """Return the decisions on a part's stored scores under a policy.

        They are decided anew, and written where that gives others than are there; only those that this object wrote
        or was told to trust are taken as they are. Else a file that was put there could pass for the run's own.
        """
        meta = read_meta(self.file("scores", number))
        try:
            decided = read_decisions(self.file("decisions", number))
        except RunError:
            decided = None  # missing or damaged: made again
        if meta and decided:
            there = decided.fingerprint, decided.scores, decided.policy
            if there != (meta["fingerprint"], meta["content"], policy.digest):
                decided = None
        if decided and decided.content in self._own_decisions:
            return decided
        part, meta = read_scores(self.file("scores", number))
        return self._decide(number, part, meta, policy, there=decided)

    def _decide(
        self,
        number: int,
        part: ScoredPart,
        meta: Mapping[str, Any],
        policy: Policy,
        there: DecidedPart | None = None,
    ) -> DecidedPart:
        bits = policy.decide(part.scores).reason_bits
        if part.known_hashes is not None:
            bits[part.known_hashes] |= np.uint16(Reason.KNOWN_HASH)
        if there and there.content == content_digest(part.keys, part.contents, bits):
            self._own_decisions.add(there.content)
            return there
        own = {"fingerprint": meta["fingerprint"], "scores": meta["content"], "policy": policy.digest}
        decided = write_decisions(part, bits, self.file("decisions", number), own)
        self._own_decisions.add(decided.content)
        return decided

    def seal_scores(self, parts: Sequence[Part]) -> None:
        """Record that all parts of the source are scored, and remove those that it no longer has.

        From here on the record vouches for these scores: no others are decided on or read.

        Raises
        ------
        UnfinishedRunError
            A part is not scored, or its scores no longer hold.
        """
        digester = self.digester()
        expected = Counter(self._fingerprint(part.state, digester) for part in parts)
        metas = [read_meta(self.file("scores", number)) for number in range(len(parts))]
        if Counter(meta["fingerprint"] for meta in metas if meta) != expected:
            raise UnfinishedRunError(f"a part of {self.path} is not scored; run the same scan again")
        remove_parts(self.path, len(parts))
        self.checkpoints().keep_only(())
        self.write_record(replace(self.record, scores=digest_of(vouched(meta) for meta in metas if meta)))

    def finish(self, counts: Mapping[str, int], policy: Policy, decisions: str) -> None:
        """Record that every part is decided under a policy, and the digest of these decisions."""
        record = replace(self.record, policy=policy, counts=dict(counts), decisions=decisions, complete=True)
        self.write_record(record)

    def read_scores(self) -> pa.Table:
        """Return the scores of all samples: the columns of ``scores/``, rows in the run's order.

        Raises
        ------
        UnfinishedRunError, SchemaError, RunError
            The run is not finished, or a part is missing, damaged, or not of this run.
        """
        self.require_complete()
        return load_scores(self.path, self.record)

    def read_embeddings(self) -> npt.NDArray[np.float16]:
        """Return (N, D) or (N, V, D) float16, the embeddings of all samples in the order of `read_scores`.

        NaN where a sample has none. A single part is mapped into memory.

        Raises
        ------
        UnfinishedRunError, SchemaError, RunError
            As `read_scores`; or the run was made without embeddings, or they are not those of its scores.
        """
        self.require_complete()
        return load_embeddings(self.path, self.record)

    def align(self, table: pa.Table) -> pa.Table:
        """Return the rows of a table in the order of `read_scores`, with nulls for samples that have none.

        So a caller's own captions, labels or file names come beside a run's scores and embeddings.

        Parameters
        ----------
        table : pyarrow.Table
            With a column ``key`` that holds the samples' keys, or ``key_digest`` as the run has it, in any order.

        Raises
        ------
        CalibrationError
            There is no such column, a sample has two rows, or no row belongs to this run.
        UnfinishedRunError, SchemaError, RunError
            As `read_scores`.
        SecretError
            The run's secret, with which keys are looked up, is missing.
        """
        return self._aligned(table, "row")

    def align_labels(self, labels: pa.Table) -> pa.Table:
        """Return labels in the order of `read_scores`: as `align`, with errors that speak of labels."""
        return self._aligned(labels, "label")

    def _aligned(self, table: pa.Table, one: str) -> pa.Table:
        if not {"key", "key_digest"} & set(table.column_names):
            raise CalibrationError(
                f"the {one}s have no column key, and a run's rows are in no order that other {one}s could follow; give "
                "the samples' keys in a column key"
            )
        keys = key_column(table, None if "key_digest" in table.column_names else self.digester())
        return join_labels(table, key_column(self.read_scores()), keys, one=one)


def require_run(run: object) -> None:
    """Raise `UsageError` unless it is a run, and not its path for example.

    >>> require_run("runs/first")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'runs/first' is not a Run; open it with Run.open
    """
    if not isinstance(run, Run):
        raise UsageError(f"{run!r} is not a Run; open it with Run.open")


def run_place(path: Place) -> Location:
    """Return the location of a run directory, with a name beside which its secret can lie.

    Raises
    ------
    OutputError
        It is a chain of URLs.
    UsageError
        It is a whole bucket, or no installed package opens such URLs.

    Examples
    --------
    >>> run_place("runs/first").name, str(run_place("memory://bucket/runs/first/"))
    ('first', 'memory:///bucket/runs/first')
    >>> run_place("memory://bucket")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: memory:///bucket is a whole bucket, beside which no secret can lie; give a ...
    """
    if isinstance(path, Location):
        place = path
    elif is_url(path) and "::" not in os.fspath(path):
        place = Location.of(re.sub(":/+", "://", os.fspath(path), count=1))  # pathlib folds two slashes into one
    else:
        local = local_path(path, "a run directory")
        return Location.local(os.path.realpath(local) if local.name in ("", "..") else str(local))
    if not place.is_local and "/" not in place.path.strip("/"):
        raise UsageError(f"{place} is a whole bucket, beside which no secret can lie; give a folder in it for the run")
    return place
