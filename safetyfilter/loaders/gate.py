"""What every integration is made of: samples go in, and those that a run or a filter keeps come out, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ImageInput, Reason, Unreadable
from safetyfilter.errors import DeviceError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.loaders.checks import ImageCheck, require_readable, require_used
from safetyfilter.loaders.counts import SharedCounts
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run

T = TypeVar("T")
By: TypeAlias = "str | os.PathLike[str] | Run | Decisions | SafetyFilter"
"""What decides: a run by its directory, or a filter that scores what passes."""
Getter: TypeAlias = "str | Callable[[T], Any]"
"""Where a sample holds something: the name of an item or attribute, or a function of the sample."""

SOON = 1000
"""Samples after which a run that knows none of them is another source's."""
_UNKNOWN, _UNSCORED, _DRIFTED = int(Reason.UNKNOWN), int(Reason.UNSCORED), int(Reason.DRIFTED)


class Gate(Generic[T]):
    """Lets pass what a run or a filter keeps, and counts the rest by reason.

    Parameters
    ----------
    by : path, Run, Decisions or SafetyFilter
        What decides.
    key : str, callable or None
        Gets a sample's key; a run needs it.
    image : str, callable or None
        Gets a sample's encoded image, as bytes or path; a filter and `verify_content` need it.
    verify_content : bool
        Also exclude a sample whose encoded image is not the one that was scored.

    Raises
    ------
    UsageError
        What decides needs something that wasn't given.
    """

    def __init__(self, by: By, *, key: Getter[T] | None, image: Getter[T] | None, verify_content: bool = False) -> None:
        self.by = decider(by)
        online = isinstance(self.by, SafetyFilter)
        if key is None and not online:
            raise UsageError("a run's decisions are looked up by key: say where a sample holds it with key=")
        if image is None and (online or verify_content):
            raise UsageError(
                "a filter and verify_content need the encoded image: say where a sample holds it with image="
            )
        if verify_content and online:
            raise UsageError(
                "verify_content compares with a run, and a SafetyFilter scores every image anew; leave it out"
            )
        self.counts = SharedCounts()
        self._key, self._image, self._verify = getter(key), getter(image), verify_content
        self._looks = image is not None and not verify_content
        self._error: Exception | None = None
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_process", "_error")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_process": os.getpid(), "_error": None}

    def passing(self, samples: Iterable[T], *, workers: int = 1) -> Iterator[T]:
        """The samples that are kept, in order.

        Parameters
        ----------
        samples : iterable
            Read no further ahead than a filter's buffers; not at all by a run.
        workers : int
            Processes that share the data set; with the last of them it is known whether any key was.

        Raises
        ------
        RunError
            None of the first thousand samples, or of all where they are fewer, is in the run; or most of the first
            images are not those that it scanned.
        UsageError
            A filter finds no readable image in as many.
        DeviceError
            The filter is on CUDA, and this process was forked from the one that put it there.
        """
        if isinstance(self.by, SafetyFilter):
            yield from self._scored(self.by, samples, workers)
            return
        check = ImageCheck(self.by)
        check.done = not self._looks
        number = 0
        for number, sample in enumerate(samples, 1):
            reasons = self.reasons(sample)
            if not check.done and not reasons:
                reasons = self._looked_at(sample, check)
            self.counts.add(reasons)
            if number == SOON:
                self._require_some()
            if not reasons:
                yield sample
        self._finish(number, workers)

    def reasons(self, sample: T) -> int:
        """Why a run excludes one sample; what has no key is unknown."""
        assert isinstance(self.by, Decisions)
        try:
            key = self._key(sample)
        except Exception as error:  # noqa: BLE001 - a sample without a key is excluded and the stream goes on
            self._error = error
            return _UNKNOWN
        if key is None:
            return _UNKNOWN
        if not self._verify:
            return self.by.reasons_of_key(str(key))
        return self.by.reasons_of_sample(str(key), self._content(sample))

    def _content(self, sample: T) -> bytes | None:
        """A sample's encoded image; None where there is none."""
        try:
            return encoded(self._image(sample))
        except UsageError:
            raise
        except Exception:  # noqa: BLE001 - as above
            return None

    def _looked_at(self, sample: T, check: ImageCheck) -> int:
        """Why a sample with a kept key is excluded all the same: of the first, another image is as good as drifted."""
        try:
            content = self._content(sample)
        except UsageError:  # decoded already: only who asks for content checks has to put the gate before that
            check.done = True
            return 0
        return 0 if check.same(str(self._key(sample)), content) else _DRIFTED

    def _scored(self, safety_filter: SafetyFilter, samples: Iterable[T], workers: int) -> Iterator[T]:
        if safety_filter.encoder.device.type == "cuda" and self._process != os.getpid():
            raise DeviceError(
                "the filter is on CUDA, which does not survive a fork: give the DataLoader "
                "multiprocessing_context='spawn' or num_workers=0, or load the encoder with device='cpu'"
            )
        if workers > 1 and safety_filter.options.workers is None:  # the workers share the cores
            threads = max(1, len(os.sched_getaffinity(0)) // workers)
            safety_filter = replace(safety_filter, options=replace(safety_filter.options, workers=threads))
        number = 0
        for records, _, decisions in safety_filter.stream(samples, self._loaded):
            self.counts.add_all(decisions.reason_bits)
            number, before = number + len(records), number
            if before < SOON <= number:
                self._require_some()
            for sample, kept in zip(records, decisions.keep.tolist(), strict=True):
                if kept:
                    yield sample
        self._finish(number, workers)

    def _loaded(self, sample: T) -> tuple[T, ImageInput | Unreadable]:
        try:
            return sample, image_input(self._image(sample))
        except UsageError:
            raise
        except Unreadable as failure:
            return sample, failure
        except Exception:  # noqa: BLE001 - as above
            return sample, Unreadable("missing")

    def _finish(self, number: int, workers: int) -> None:
        """Note a pass that came to its end after so many samples, in one of so many workers."""
        if self.counts.finish() >= workers and number:
            self._require_some()

    def _require_some(self) -> None:
        """Raise rather than go on with nothing: not a single sample has been decided on."""
        report = self.counts.report()
        if isinstance(self.by, Decisions):
            require_used(self.by, report, self._error)
        else:
            require_readable(report)


def reasons_for(
    by: Decisions | SafetyFilter, keys: Sequence[str | None] | None, images: Sequence[Any] | None
) -> npt.NDArray[np.uint16]:
    """(N,) uint16, why each of a batch is excluded: looked up by key, with images compared where given, or scored."""
    if isinstance(by, SafetyFilter):
        assert images is not None
        bits = [decided.reason_bits for _, _, decided in by.stream(images, _loaded)]
        return np.concatenate([np.empty(0, np.uint16), *bits])
    assert keys is not None
    contents = None if images is None else [encoded(image) for image in images]
    reasons = by.reasons(["" if key is None else str(key) for key in keys], contents)
    reasons[[number for number, key in enumerate(keys) if key is None]] = np.uint16(Reason.UNKNOWN)
    return reasons


def decider(by: By) -> Decisions | SafetyFilter:
    """The decisions of a run, or a filter as it is.

    >>> decider("no-such-run")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.RunError: no run at no-such-run; make one with `safetyfilter scan SOURCE --out no-such-run`
    """
    if isinstance(by, SafetyFilter) and by.needs_captions:
        raise UsageError(
            "the filter's probes judge images with their captions, which a loader does not pass on; scan "
            "the source and give the run, or use probes on images alone"
        )
    if isinstance(by, SafetyFilter | Decisions):
        return by
    if isinstance(by, str | os.PathLike):
        by = Run.open(os.fspath(by))
    if not isinstance(by, Run):
        raise UsageError(f"by is a {type(by).__name__}; give a run, its directory, or a SafetyFilter")
    return Decisions.of(by)


class Named:
    """Gets an item or attribute by name; unlike a lambda it can be pickled.

    >>> Named("a")({"a": 1}), Named("imag")(2j)
    (1, 2.0)
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, sample: Any) -> Any:
        """The item, or the attribute of what is no mapping."""
        return sample[self.name] if isinstance(sample, Mapping) else getattr(sample, self.name)


def getter(where: Getter[T] | None) -> Callable[[T], Any]:
    """A function from a sample to what it holds there."""
    if where is None:
        return _nothing
    return Named(where) if isinstance(where, str) else where


def _nothing(_: object) -> None:
    return None


def image_input(value: Any) -> ImageInput | Unreadable:
    """An image as the encoder takes it; of a dict as datasets stores it, the bytes or the local path."""
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        return Unreadable("missing")
    if isinstance(value, str) and "://" in value:
        return Unreadable("not_fetched")
    image: ImageInput = value
    return image


def encoded(value: Any) -> bytes | None:
    """An image's encoded bytes, read from its file where it is a path; None where there are none.

    >>> encoded(bytearray(b"x")), encoded({"bytes": None, "path": None})
    (b'x', None)
    """
    value = image_input(value)
    if isinstance(value, Unreadable):
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        try:
            return Path(value).read_bytes()
        except OSError:
            return None
    raise UsageError(
        f"verify_content needs encoded bytes or a path, not a {type(value).__name__}: check before "
        "decoding, or give an image= that finds the bytes"
    )


def _loaded(value: Any) -> tuple[None, ImageInput | Unreadable]:
    return None, image_input(value)
