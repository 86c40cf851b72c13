"""The run directory: what a scan leaves behind, written part by part and read back as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import UnfinishedRunError, UsageError
from safetyfilter.runs.as_html import record_html
from safetyfilter.runs.checkpoints import Checkpoints
from safetyfilter.runs.decided import DecidedPart
from safetyfilter.runs.deciding import OwnDecisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.held import held
from safetyfilter.runs.labels import aligned
from safetyfilter.runs.place import run_place
from safetyfilter.runs.placement import Placement, Wanted, placed
from safetyfilter.runs.reading import read_record
from safetyfilter.runs.reasons import Reasons
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.sealing import Sealing
from safetyfilter.runs.secret import own_secret
from safetyfilter.runs.stored import (
    checks_of,
    digest_of,
    load_embeddings,
    load_scores,
    part_file,
    remove_parts,
    stored_metas,
    vouched,
)
from safetyfilter.runs.writing import PartWriter
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sources.base import Part
from safetyfilter.storage import Hold, Location, Place, replacing


@dataclass(slots=True)
class Run:
    """A run directory that is there.

    Attributes
    ----------
    path : Location
        The directory, on this machine or on other storage.
    record : RunRecord
        The content of its ``run.json``.
    before : RunRecord or None
        What was there, of a run that a scan has taken up.
    hold : Hold or None
        What holds it against other processes, while it is held for writing.
    officer : OfficerKey or None
        The key that a scan seals records to; None where it makes none, or where nothing is scored.
    """

    path: Location
    record: RunRecord = field(repr=False)
    before: RunRecord | None = field(default=None, repr=False, compare=False)
    hold: Hold | None = field(default=None, repr=False, compare=False)
    officer: OfficerKey | None = field(default=None, repr=False, compare=False)
    _own: OwnDecisions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._own = OwnDecisions(self.path, self.record.setup.signals)

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
        place = run_place(path)
        return cls(place, read_record(place, path))

    def write_record(self, record: RunRecord) -> None:
        """Write ``run.json``, whole or not at all; `HeldError` where the hold on the run was lost."""
        self.require_held()
        with replacing(self.path / "run.json") as file:
            file.write(record.to_json().encode())
        self.record = record

    def digester(self) -> Digester:
        """Return the digester of this run; `SecretError` where the secret is missing or another run's."""
        return own_secret(self.path, self.record.secret_check)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run for writing; `RunError` while another process does."""
        with held(self.path) as hold:
            self.hold = hold
            try:
                yield
            finally:
                self.hold = None

    def require_held(self) -> None:
        """Raise `HeldError` where this process held the run for writing and another one may have taken it over."""
        if self.hold is not None:
            self.hold.require()

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
            raise UnfinishedRunError(f"the run {self.path} is not finished; {self._rest_to_do}")

    def require_scored(self) -> None:
        """Raise `UnfinishedRunError` unless every part is scored, so that a policy can be applied.

        Of decisions that are applied to a copy, they are to be there too: to decide by the scores alone would forget
        what these rest on beyond them.
        """
        if not self.record.scores or (self.record.applied_from and not self.record.complete):
            raise UnfinishedRunError(
                f"the run {self.path} is not finished, and some of its scores may be of another time; "
                f"{self._rest_to_do}"
            )

    @property
    def _rest_to_do(self) -> str:
        if self.record.scores and not self.record.applied_from:
            return "run `safetyfilter decide` again"
        command = "apply" if self.record.applied_from else "scan"
        return f"run the same `safetyfilter {command}` again, which does only what is missing"

    def _repr_html_(self) -> str:
        left = "" if self.record.complete else f"not finished; {self._rest_to_do}"  # of the record: no part is read
        return record_html(self.record, where=str(self.path), state=left or "complete")

    def file(self, folder: str, index: int) -> Location:
        """Return the place of one part's file in ``scores``, ``decisions``, ``embeddings`` or ``sealed``."""
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
        wanted = Wanted(
            fingerprint_of=self.part_writer().fingerprint,
            source=self.record.source.fingerprint,
            signals=self.record.setup.signals,
            embeddings=embeddings,
            sealed=bool(self.record.setup.officer),
        )
        self.require_held()
        return placed(self.path, parts, wanted)

    def checkpoints(self, *, vectors: bool = False) -> Checkpoints:
        """Return what keeps the rows of parts in progress."""
        return Checkpoints(
            root=self.path,
            run=self._depends_on,
            digester=self.digester(),
            signals=self.record.setup.signals,
            vectors=vectors,
            sealed=bool(self.record.setup.officer),
        )

    @property
    def _depends_on(self) -> str:
        return f"{self.record.run_id}\n{self.record.setup.digest}"

    def part_writer(self) -> PartWriter:
        """Return what writes scored parts into this run, here or in another process; the run must be held meanwhile."""
        return PartWriter(
            root=self.path,
            digester=self.digester(),
            depends_on=self._depends_on,
            policy=self.policy,
            signals=self.record.setup.signals,
            sealing=self.sealing(),
        )

    def sealing(self) -> Sealing | None:
        """Return what seals the records of this run's exclusions; None without an officer's key."""
        if self.officer is None:
            return None
        return Sealing(
            key=self.officer,
            policy=self.policy,
            run=self.record.run_id,
            depends_on=self._depends_on,
            digester=self.digester(),
        )

    def write(self, part: ScoredPart, number: int | None = None) -> Counter[str]:
        """Record a scored part and the decisions on it under the run's policy, and return their counts.

        Parameters
        ----------
        part : ScoredPart
            With vectors where they are to be kept, in float16.
        number : int or None
            Its number in the run, from `place_parts`; that in its source where None.
        """
        self.require_held()
        decided = self.part_writer().written(part, part.index if number is None else number)
        self._own.contents.add(decided.content)
        return Counter(decided.counts)

    def trust_decisions(self, record: RunRecord) -> None:
        """Take the decisions that are there for this run's own, if a record vouches for all of them."""
        self._own.trust(record)

    def decide_part(self, number: int, reasons: Reasons) -> DecidedPart:
        """Return the decisions on a part's stored scores, made anew unless this object made or trusts them."""
        self.require_held()
        return self._own.decide(number, reasons)

    def own_decisions(self, number: int) -> DecidedPart | None:
        """Return the decisions on a part as they are stored, if this object made or trusts them; else None."""
        return self._own.found(number)

    def seal_scores(self, parts: Sequence[Part]) -> None:
        """Record that all parts of the source are scored, and remove those that it no longer has.

        From here on the record vouches for these scores: no others are decided on or read.

        Raises
        ------
        UnfinishedRunError
            A part is not scored, or its scores no longer hold.
        """
        fingerprint = self.part_writer().fingerprint
        expected = Counter(fingerprint(part.state) for part in parts)
        metas = stored_metas(self.path, "scores", len(parts))
        if Counter(meta["fingerprint"] for meta in metas if meta) != expected:
            raise UnfinishedRunError(f"a part of {self.path} is not scored; run the same scan again")
        self.require_held()
        remove_parts(self.path, len(parts))
        self.checkpoints().keep_only(())
        scores = [vouched(meta) for meta in metas if meta]
        counts = {name: sum(meta.get(name, 0) for meta in metas if meta) for name in ("unchecked", "sealed_records")}
        self.write_record(
            replace(
                self.record,
                scores=digest_of(scores),
                scores_checks=checks_of(scores),
                hash_unchecked=counts["unchecked"],
                sealed=counts["sealed_records"],
            )
        )

    def finish(self, counts: Mapping[str, int], reasons: Reasons, contents: Sequence[str]) -> None:
        """Record that every part is decided, by what, and the digest of the decisions' contents, part by part."""
        record = replace(
            self.record,
            policy=reasons.policy,
            decided_with=reasons.decided_with,
            counts=dict(counts),
            accepted_uncertified=reasons.accepted_uncertified,
        )
        decisions, checks = digest_of(contents), checks_of(contents)
        self.write_record(replace(record, decisions=decisions, decisions_checks=checks, complete=True))

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
        return aligned(table, self.read_scores, self.digester, one=one)


def take_up_decided(run: Run) -> None:
    """Let a run be as it is in storage by now; errors as of `require_run`, `Run.open` and `Run.require_complete`.

    >>> take_up_decided("runs/first")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'runs/first' is not a Run; open it with Run.open
    """
    require_run(run)
    run.require_complete()
    run.record = Run.open(run.path).record  # it may have been scanned or decided anew since
    run.require_complete()


def require_run(run: object) -> None:
    """Raise `UsageError` unless it is a run, and not its path for example.

    >>> require_run("runs/first")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'runs/first' is not a Run; open it with Run.open
    """
    if not isinstance(run, Run):
        raise UsageError(f"{run!r} is not a Run; open it with Run.open")
