"""The decider of a run: looks samples up by key, and compares their images where asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np

from safetyfilter.batches import Reason, ReasonBits
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access, raise_fault
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.image_check import ImageCheck, Recheck
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run

T = TypeVar("T")

_UNKNOWN, _DRIFTED = int(Reason.UNKNOWN), int(Reason.DRIFTED)
_BATCH, _BATCH_WITH_IMAGES = 1024, 128
"""Samples looked up at a time; fewer where they hold images, which are in memory until then."""


class RunDecider:
    """Decides by a run: a sample is kept only if the run knows its key and keeps it.

    Parameters
    ----------
    decisions : Decisions
        The run's.
    verify : bool or "access"
        Also exclude, as ``drifted``, a sample whose encoded image is not the one that was scored: with True when it is
        decided on, with ``"access"`` only when it is asked for.
    """

    needs_keys = True

    def __init__(self, decisions: Decisions, *, verify: bool | Literal["access"] = False) -> None:
        record = Run.open(decisions.run).record
        self._decisions, self._verify = decisions, verify
        self.needs_images = verify is True
        self._keys_of_source = record.source.keys
        self._max_bytes = record.setup.limits.max_bytes
        self._error: Exception | None = None  # the last that getting a key raised, which may be why none is known

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_error": None}

    @property
    def identity(self) -> tuple[str, ...]:
        """The run's decisions, and when images are compared with those scored."""
        return "run", self._decisions.fingerprint, str(self._verify)

    @property
    def recheck(self) -> Recheck | None:
        """The comparison of images when samples are asked for; None without `verify`."""
        return Recheck(self._decisions, max_bytes=self._max_bytes) if self._verify else None

    def require(self, access: Access[Any]) -> None:
        """Raise `UsageError` unless it gives keys, and images where these are compared."""
        if access.key is None:
            raise UsageError(f"a run's decisions are looked up by key: {access.key_help}")
        if access.image is None and self._verify:
            raise UsageError(f"verify_content needs the encoded images: {access.image_help}")

    def for_row_numbers(self) -> RunDecider:
        """Return a decider that compares each image: a row's number says nothing about the image in it."""
        return RunDecider(self._decisions, verify=True)

    def stream(self, samples: Iterable[T], access: Access[T], *, workers: int = 1) -> Iterator[tuple[T, int]]:
        """Yield each sample with why it is excluded; no sample is read ahead, and `workers` makes no difference."""
        assert access.key is not None
        key_of, reasons_of_key, check = access.key, self._decisions.reasons_of_key, self.image_check(access)
        for sample in samples:  # a few microseconds each, so nothing is called that need not be
            try:
                key = key_of(sample)
            except Exception as error:  # noqa: BLE001 - a sample without a key is excluded and the rest goes on
                self._note(error)
                key = None
            if key is None:
                reasons = _UNKNOWN
            elif self.needs_images:
                reasons = self._decisions.reasons_of_sample(str(key), access.content(sample, self._max_bytes))
            else:
                reasons = reasons_of_key(str(key))
            if check is not None and not check.done and not reasons and not check.same(sample):
                reasons = _DRIFTED  # of the first, another image is as good as drifted
            yield sample, reasons

    def decide(self, samples: Iterable[T], access: Access[T], *, workers: int = 1) -> Iterator[Decided]:
        """Yield the reasons of all samples, a batch at a time; `workers` makes no difference."""
        remaining = iter(samples)
        size = _BATCH_WITH_IMAGES if self.needs_images else _BATCH
        while batch := list(islice(remaining, size)):
            keys = self._keys(batch, access)
            rows = self._decisions.find(["" if key is None else str(key) for key in keys])
            if None in keys:
                rows[[number for number, key in enumerate(keys) if key is None]] = -1
            bits = self._decisions.reasons_of(rows)
            if self.needs_images:
                self._mark_drifted(bits, rows.tolist(), batch, access)
            yield Decided(reason_bits=bits, rows=rows)

    def image_check(self, access: Access[Any]) -> ImageCheck | None:
        """Return a check of the first images; None where all are compared anyway, or none can be reached."""
        if access.image is None or self.needs_images:
            return None
        return ImageCheck(self._decisions, access, max_bytes=self._max_bytes)

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
        error = self._error
        raise RunError(
            f"the run {self._decisions.run} knows none of the first {seen} samples: it is another source's, or keys "
            f"are not those of the scan, which are {self._keys_of_source}; give such keys, or scan this source"
            + (f" (getting a key failed with {type(error).__name__}: {error})" if error is not None else "")
        ) from error

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
                self._note(error)
        return keys

    def _note(self, error: Exception) -> None:
        """Keep what getting a key raised, which may be why none is known; a fault of storage is raised."""
        raise_fault(error)
        self._error = error

    def _mark_drifted(self, bits: ReasonBits, rows: list[int], samples: Sequence[T], access: Access[T]) -> None:
        for number, (row, sample) in enumerate(zip(rows, samples, strict=True)):
            if row >= 0:
                content = access.content(sample, self._max_bytes)
                if content is None or not self._decisions.unchanged(row, content):
                    bits[number] |= np.uint16(_DRIFTED)
