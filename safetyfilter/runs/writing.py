"""Writes scored parts into a run, with the decisions on them: in the process that scores them, wherever that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import safetyfilter
from safetyfilter.batches import ReasonBits
from safetyfilter.decide.policy import Policy
from safetyfilter.embed.pictures.images import PREPARATION
from safetyfilter.errors import RunError
from safetyfilter.runs.decided import DecidedPart, write_decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import write_scores
from safetyfilter.runs.reasons import Reasons
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.sealing import RECORDED, Sealing, part_fingerprint
from safetyfilter.runs.shards import carried_meta, shard_meta
from safetyfilter.runs.stored import file_digest, part_file
from safetyfilter.sealed.file import write_chunks
from safetyfilter.storage import Location, replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWriter:
    """Writes the parts of one run; can be sent to another process or machine, and holds no lock.

    Whoever started the scan holds the run meanwhile. A copy carries the run's secret, in memory alone. In a process
    with another version of this library, which might score otherwise, it can't be unpickled: `RunError`.

    Attributes
    ----------
    root : Location
        The run directory, which must be the same place where this is sent.
    digester : Digester
        The run's.
    depends_on : str
        Digest of what every part of the run depends on.
    policy : Policy
        What parts are decided by.
    signals : tuple of str
        The signals that a part must have.
    sealing : Sealing or None
        Seals the records of exclusions; where None, none are made.
    """

    root: Location
    digester: Digester
    depends_on: str
    policy: Policy
    signals: tuple[str, ...]
    sealing: Sealing | None = None

    def fingerprint(self, state: str) -> str:
        """Return the fingerprint of a part's samples, by its state in its source, and of all its scores depend on."""
        return part_fingerprint(self.digester, self.depends_on, state)

    def write(self, part: ScoredPart, number: int) -> Counter[str]:
        """Record a scored part and the decisions on it, and return their counts.

        Embeddings and sealed records that are there already are those of other scores, and are removed; the part's own
        are written first, so that scores never name what is not there.

        Parameters
        ----------
        part : ScoredPart
            With vectors where they are to be kept, in float16.
        number : int
            Its number in the run, from `Run.place_parts`.

        Raises
        ------
        RunError
            The part has scores of other signals, or records are to be sealed and it comes without.
        OutputError
            It can't be written.
        """
        return Counter(self.written(part, number).counts)

    def written(self, part: ScoredPart, number: int) -> DecidedPart:
        """Record a scored part as `write` does, and return the decisions on it."""
        if part.scores.signals != self.signals:
            raise RunError(
                f"part {number} has scores of {', '.join(part.scores.signals)}, and {self.root} is a run on "
                f"{', '.join(self.signals)}: a fault of the engine"
            )
        place, kept = part_file(self.root, "embeddings", number), None
        place.remove()
        if part.vectors is not None:
            (self.root / "embeddings").make_folder()
            with replacing(place) as file:
                np.save(file, part.vectors.astype(np.float16, copy=False))
            kept = file_digest(place)
        own = {"fingerprint": self.fingerprint(part.state), "embeddings": kept, **self._sealed(part, number)}
        meta = own | shard_meta(part.shards, self.digester)
        content = write_scores(part, part_file(self.root, "scores", number), meta)
        reasons = Reasons.by_policy(self.policy)
        bits = reasons.of_part(number, part)
        return write_reasons(self.root, number, part, bits, {**meta, "content": content, "policy": reasons.digest})

    def _sealed(self, part: ScoredPart, number: int) -> dict[str, object]:
        """Write a part's sealed records, and return what its scores say of them; without a key nothing is written."""
        if self.sealing is None:
            return {}
        if part.sealed is None:
            raise RunError(f"part {number} comes without the records that are to be sealed: a fault of the engine")
        place = part_file(self.root, "sealed", number)
        place.remove()
        (self.root / "sealed").make_folder()
        digest = write_chunks(place, self.sealing.ended(part.state, part.sealed_chunks))
        return {"sealed": digest, "sealed_records": int(part.sealed.sum())}

    def __reduce__(self) -> tuple[object, ...]:
        own = (self.root, self.digester, self.depends_on, self.policy, self.signals, self.sealing)
        return _unpickled, (_versions(), own)


def write_reasons(
    root: Location, number: int, part: ScoredPart, bits: ReasonBits, meta: Mapping[str, Any]
) -> DecidedPart:
    """Write the decisions on a part whose scores are stored, and return them.

    Parameters
    ----------
    root : Location
        The run directory.
    number : int
        The part's number in it.
    part : ScoredPart
        Its rows.
    bits : ndarray
        (N,) uint16, a `Reason` set each.
    meta : mapping
        The metadata of its scores, and ``policy``: the digest of what gave these reasons.
    """
    own = {"fingerprint": meta["fingerprint"], "scores": meta["content"], "policy": meta["policy"]}
    if part.sealed is not None:  # else there are no records that one could be missing of
        own["unsealed"] = int(((bits & np.uint16(RECORDED) != 0) & ~part.sealed).sum())
    return write_decisions(part, bits, part_file(root, "decisions", number), own | carried_meta(meta))


def _versions() -> tuple[str, int]:
    return safetyfilter.__version__, PREPARATION


def _unpickled(versions: tuple[str, int], own: tuple[Any, ...]) -> PartWriter:
    if versions != _versions():
        there, here = (f"safetyfilter {name} (preparation {number})" for name, number in (versions, _versions()))
        raise RunError(
            f"a worker has {here}, and the scan was started by {there}; install one version on all machines, and run "
            "the same scan again"
        )
    root, digester, depends_on, policy, signals, sealing = own
    return PartWriter(
        root=root, digester=digester, depends_on=depends_on, policy=policy, signals=signals, sealing=sealing
    )
