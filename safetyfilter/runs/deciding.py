"""Decides on the stored scores of a run's parts, and takes no decisions for its own that it did not make."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from safetyfilter.errors import RunError
from safetyfilter.runs.decided import DecidedPart, read_decisions
from safetyfilter.runs.parts import read_meta, read_scores
from safetyfilter.runs.reasons import Reasons
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.shards import carried_meta
from safetyfilter.runs.stored import digest_of, part_file, stored_metas
from safetyfilter.runs.writing import write_reasons
from safetyfilter.storage import Location


@dataclass(slots=True)
class OwnDecisions:
    """The decisions in a run that this process made, or found that its record vouches for."""

    root: Location
    signals: tuple[str, ...]
    contents: set[str] = field(default_factory=set)

    def trust(self, record: RunRecord) -> None:
        """Take the decisions that are there for the run's own, if a record vouches for all of them."""
        metas = stored_metas(self.root, "decisions", record.source.parts)
        contents = [meta["content"] for meta in metas if meta]
        if record.complete and digest_of(contents) == record.decisions:
            self.contents.update(contents)

    def found(self, number: int) -> DecidedPart | None:
        """Return the decisions on a part that are stored, if they are whole and the run's own."""
        try:
            there = read_decisions(part_file(self.root, "decisions", number))
        except RunError:
            return None  # missing or damaged
        return there if there.content in self.contents else None

    def _fits(self, number: int, reasons: Reasons) -> bool:
        """True where the stored decisions say that they are by these reasons, on the stored scores."""
        scores, decisions = (read_meta(part_file(self.root, folder, number)) for folder in ("scores", "decisions"))
        if scores is None or decisions is None:
            return False
        told = decisions["fingerprint"], decisions.get("scores"), decisions.get("policy"), carried_meta(decisions)
        return told == (scores["fingerprint"], scores["content"], reasons.digest, carried_meta(scores))

    def decide(self, number: int, reasons: Reasons) -> DecidedPart:
        """Return the decisions on a part's stored scores.

        They are decided anew, and written where that gives others than are there; only those that this made or was
        told to trust are taken as they are. Else a file that was put there could pass for the run's own.
        """
        there: DecidedPart | None = None
        if self._fits(number, reasons):
            with suppress(RunError):  # damaged: made again
                there = read_decisions(part_file(self.root, "decisions", number))
        if there and there.content in self.contents:
            return there
        part, meta = read_scores(part_file(self.root, "scores", number), self.signals)
        bits = reasons.of_part(number, part)
        if not (there and there.content == part.digest_with(bits)):
            there = write_reasons(self.root, number, part, bits, {**meta, "policy": reasons.digest})
        self.contents.add(there.content)
        return there
