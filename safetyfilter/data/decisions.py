"""A run's decisions, looked up by key: what is not found there and kept is excluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.data.parts import read_table
from safetyfilter.data.runs import Run
from safetyfilter.errors import RunError
from safetyfilter.samples import DIGEST_BYTES, Digester, Reason

_DIGEST = np.dtype((np.void, DIGEST_BYTES))
Bits = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """The decisions of a complete run, sorted by key digest.

    A key that was seen more than once has the reasons of all its samples: it is kept only if each of them is.

    Attributes
    ----------
    keys : ndarray
        (N,) 16 bytes each, sorted, each once.
    contents : ndarray
        (N,) 16 bytes each; zeros where there were no bytes, or where samples with the same key differ in content.
    reason_bits : ndarray
        (N,) uint16, a `Reason` set each.
    digester : Digester
        What computes the digests of keys and contents.
    """

    keys: npt.NDArray[np.void]
    contents: npt.NDArray[np.void]
    reason_bits: Bits
    digester: Digester

    @classmethod
    def of(cls, run: Run) -> Decisions:
        """Load a run's decisions.

        Raises
        ------
        UnfinishedRunError
            A part is not scored or not decided.
        SecretError
            The run's secret is missing or wrong.
        """
        run.require_complete()
        digester = run.digester()
        policy = run.policy.digest
        keys, contents, bits = [], [], []
        for index in range(run.part_count):
            table, meta = read_table(run.file("decisions", index))
            if meta["policy"] != policy:
                raise RunError(f"part {index} of {run.path} was decided under another policy; run `safetyfilter decide` "
                               "again")
            keys.append(_digests(table.column("key_digest")))
            contents.append(_digests(table.column("content_digest")))
            bits.append(_bits(table))
        return cls._merged(np.concatenate(keys), np.concatenate(contents), np.concatenate(bits), digester)

    @classmethod
    def _merged(cls, keys: npt.NDArray[np.void], contents: npt.NDArray[np.void], bits: Bits,
                digester: Digester) -> Decisions:
        order = np.argsort(keys, kind="stable")
        keys, contents, bits = keys[order], contents[order], bits[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        merged = np.bitwise_or.reduceat(bits, first) if len(first) else bits
        one_content = contents[first].copy()
        repeated = np.repeat(np.arange(len(first)), np.diff([*first, len(keys)]))
        one_content[repeated[contents != one_content[repeated]]] = np.zeros((), _DIGEST)
        return cls(keys=keys[first], contents=one_content, reason_bits=merged, digester=digester)

    def __len__(self) -> int:
        return len(self.keys)

    def reasons(self, keys: Sequence[str], contents: Sequence[bytes | None] | None = None) -> Bits:
        """Why samples are excluded.

        Parameters
        ----------
        keys : sequence of str
            The samples' keys, as the source of the run gives them.
        contents : sequence of bytes or None
            The encoded images; where given, a sample whose bytes differ from those scored is excluded as ``drifted``.

        Returns
        -------
        ndarray
            (N,) uint16, a `Reason` set each; 0 means kept.
        """
        if not len(self):
            return np.full(len(keys), Reason.UNKNOWN, np.uint16)
        wanted = np.array([self.digester.key(key) for key in keys], _DIGEST)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self) - 1)
        found = self.keys[at] == wanted
        bits = np.where(found, self.reason_bits[at], np.uint16(Reason.UNKNOWN))
        if contents is not None:
            for row, content in enumerate(contents):
                if found[row] and (content is None or self.contents[at[row]].tobytes() != self.digester.content(content)):
                    bits[row] |= np.uint16(Reason.DRIFTED)
        return bits


def _digests(column: pa.ChunkedArray) -> npt.NDArray[np.void]:
    filled = column.combine_chunks().fill_null(bytes(DIGEST_BYTES))
    return np.frombuffer(b"".join(filled.to_pylist()), _DIGEST)


def _bits(table: pa.Table) -> Bits:
    """Reason sets from the column of names; a row that says neither keep nor why is excluded as unknown."""
    reasons = table.column("reasons").combine_chunks()
    names = reasons.flatten().to_pylist()
    owners = np.repeat(np.arange(len(table)), np.diff(reasons.offsets.to_numpy()))
    bits = np.zeros(len(table), np.uint16)
    np.bitwise_or.at(bits, owners, np.array([Reason[name.upper()] for name in names], np.uint16))
    unexplained = ~table.column("keep").to_numpy() & (bits == 0)
    bits[unexplained] = np.uint16(Reason.UNKNOWN)
    return bits
