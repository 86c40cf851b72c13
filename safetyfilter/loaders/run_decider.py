"""The decider of a run: looks samples up by key, and compares their pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np

from safetyfilter.batches import Reason
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.faults import raise_fault
from safetyfilter.loaders.image_check import ImageCheck
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.runs.sharded import ShardedDecisions
from safetyfilter.storage import Location

T = TypeVar("T")
_log = logging.getLogger(__name__)

_UNKNOWN = int(Reason.UNKNOWN)
EMBEDDINGS = "embeddings"
"""The kind of a source of stored embeddings, of whose pictures a run has no digest."""
_BATCH, _BATCH_WITH_IMAGES = 1024, 16
"""Samples looked up at a time; fewer where they hold images, which are in memory until then."""


class RunDecider:
    """Decides by a run: a sample is kept only if the run knows its key and keeps it.

    Parameters
    ----------
    decisions : Decisions or ShardedDecisions
        The run's.
    verify : bool or "access"
        Also exclude, as ``drifted``, a sample whose pictures are not those that were scored: with True when it is
        decided on, with ``"access"`` only when it is asked for.

    Raises
    ------
    RunError
        The decisions are not those of the run any more.
    UsageError
        Pictures are to be compared, and the run saw none, since it was made from stored embeddings.
    """

    needs_keys = True

    def __init__(self, decisions: Decisions | ShardedDecisions, *, verify: bool | Literal["access"] = False) -> None:
        record = Run.open(decisions.run).record
        self._decisions, self._verify = decisions, verify
        self.require_current(now=True)
        self._saw_pictures = record.source.kind != EMBEDDINGS
        if not self._saw_pictures:
            _tell_of_embeddings(decisions.run, bool(verify))
        self.needs_images = verify is True
        self._keys_of_source = record.source.keys
        self._max_bytes = record.setup.limits.max_bytes
        self._why_no_key = ""  # the last reason for which a key could not be had, which may be why none is known

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_why_no_key": ""}

    def require(self, access: Access[Any]) -> None:
        """Raise `UsageError` unless it gives keys, and images where these are compared."""
        if access.key is None:
            raise UsageError(f"a run's decisions are looked up by key: {access.key_help}")
        if access.image is None and self._verify:
            raise UsageError(f"verify_content needs the encoded images: {access.image_help}")

    def require_current(self, *, now: bool = False) -> None:
        """Raise `RunError` where the run was decided anew since."""
        self._decisions.require_current(now=now)

    def for_row_numbers(self) -> RunDecider:
        """Return a decider that compares each image: a row's number says nothing about the image in it."""
        return RunDecider(self._decisions, verify=True)

    def knows(self, keys: Sequence[str]) -> bool:
        """Return True where the run has one of these keys."""
        return bool((self._decisions.find(keys) >= 0).any())

    def stream(self, samples: Iterable[T], access: Access[T], *, workers: int = 1) -> Iterator[tuple[T, int]]:
        """Yield each sample with why it is excluded; no sample is read ahead, and `workers` makes no difference."""
        assert access.key is not None
        key_of, reasons_of_key, check = access.key, self._decisions.reasons_of_key, self.image_check(access)
        shard_of = access.shard if self._decisions.by_shard else None
        where: tuple[str, ...] = ()  # the sample's shard, where decisions are read by it and its key does not tell it
        for sample in samples:  # a few microseconds each, so nothing is called that need not be
            try:
                key = key_of(sample)
                if shard_of is not None:
                    where = (os.fspath(shard_of(sample)),)
            except Exception as error:  # noqa: BLE001 - a sample without a key is excluded and the rest goes on
                self._note(error, key_of)
                key = None
            reasons = _UNKNOWN if key is None else reasons_of_key(str(key), *where)
            if check is not None and (not reasons or self.needs_images) and key is not None and check.is_due(sample):
                reasons |= check.reasons(self._decisions.row_of_key(str(key), *where), sample)
            yield sample, reasons
        if check is not None:
            check.require_images()

    def decide(
        self, samples: Iterable[T], access: Access[T], *, workers: int = 1, check: ImageCheck | None = None
    ) -> Iterator[Decided]:
        """Yield the reasons of all samples, a batch at a time; `workers` makes no difference."""
        remaining = iter(samples)
        if check is None and (self.needs_images or access.others is not None):
            check = self._check(access, verify=self.needs_images, compare_first=False)
        size = _BATCH if check is None else _BATCH_WITH_IMAGES
        while batch := list(islice(remaining, size)):
            keys = self._keys(batch, access)
            rows = self._decisions.find(["" if key is None else str(key) for key in keys])
            if None in keys:
                rows[[number for number, key in enumerate(keys) if key is None]] = -1
            bits = self._decisions.reasons_of(rows)
            if check is not None:
                for number, row in enumerate(rows.tolist()):
                    if self.needs_images or not bits[number]:
                        bits[number] |= np.uint16(check.reasons(row, batch[number]))
            yield Decided(reason_bits=bits, rows=rows)

    def image_check(self, access: Access[Any]) -> ImageCheck | None:
        """Return the comparison of samples' pictures with those scanned; None where nothing can be looked at."""
        return self._check(access, verify=self.needs_images)

    def access_check(self, access: Access[Any]) -> ImageCheck | None:
        """Return the comparison that is due when a sample is asked for; None where nothing can be looked at."""
        return self._check(access, verify=bool(self._verify), compare_first=False)

    def _check(self, access: Access[Any], *, verify: bool, compare_first: bool = True) -> ImageCheck | None:
        if access.image is None and access.others is None:
            return None
        return ImageCheck(
            self._decisions,
            access,
            max_bytes=self._max_bytes,
            verify=verify,
            compare_first=compare_first,
            comparable=self._saw_pictures,
        )

    def require_used(self, counts: Mapping[str, int]) -> None:
        """Raise `RunError` where the run can't keep anything of what was seen, which is never what was meant."""
        seen, unknown = counts["seen"], counts["unknown"]
        if not seen or unknown + counts["drifted"] < seen:
            return
        if unknown < seen:
            raise RunError(
                f"not one of the first {seen} samples has the image that the run {self._decisions.run} scanned under "
                "its key; check that keys and images belong together and are read encoded, or scan this source"
            )
        raise RunError(
            f"the run {self._decisions.run} knows none of the first {seen} samples: it is another source's, or keys "
            f"are not those of the scan, which are {self._keys_of_source}; give such keys, or scan this source"
            + (f" ({self._why_no_key})" if self._why_no_key else "")
        )

    def _keys(self, samples: Sequence[T], access: Access[T]) -> list[Any]:
        """Return the samples' keys, None for what has none."""
        assert access.key is not None
        try:
            return list(map(access.key, samples))
        except Exception:  # noqa: BLE001 - of one sample; which one, and whether it is the only one, is seen one by one
            keys: list[Any] = [None] * len(samples)
        for number, sample in enumerate(samples):
            try:
                keys[number] = access.key(sample)
            except Exception as error:  # noqa: BLE001 - as in `stream`
                self._note(error, access.key)
        return keys

    def _note(self, error: Exception, key_of: object) -> None:
        """Keep why a key could not be had, without the error's text, which may hold a sample; a fault is raised."""
        raise_fault(error)
        name = getattr(key_of, "name", None)
        where = f" {name!r}" if isinstance(name, str) else ""
        self._why_no_key = f"getting a key{where} failed with {type(error).__name__}"


def _tell_of_embeddings(run: Location, verify: bool) -> None:
    """Warn that no picture can be compared with a run of stored embeddings; `UsageError` where all are to be."""
    if verify:
        raise UsageError(
            f"the run {run} was made from stored embeddings and saw no picture, so that none can be compared: give "
            "samples with keys and leave out verify_content, or scan the pictures themselves"
        )
    _log.warning(
        "the run %s was made from stored embeddings and saw no picture: samples are told by their keys alone, and "
        "pictures that have changed since they were embedded are not noticed",
        run,
    )
