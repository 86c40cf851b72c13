"""Faults of storage that a loader runs into, told without a word about the sample that was read."""

from __future__ import annotations

import os

from safetyfilter.errors import StorageError
from safetyfilter.storage import is_fault


class SampleFaultError(StorageError):
    """A fault of storage while a sample was read; its text holds no path and nothing else of the sample."""


def raise_fault(error: Exception) -> None:
    """Raise a fault of storage that a data set or a getter ran into; return from an error that is a sample's own.

    Raises
    ------
    StorageError
        The error is one, or is the operating system's word on storage: it has a number, or is a time-out or a lost
        connection. An OSError without a number is not taken for one: decoders raise such for a damaged image. It is
        not raised from that error, whose text may hold a sample's path.

    Examples
    --------
    >>> raise_fault(KeyError("key")), raise_fault(OSError("image file is truncated"))
    (None, None)
    >>> raise_fault(TimeoutError("timed out while reading private/a.jpg"))
    Traceback (most recent call last):
        ...
    safetyfilter.loaders.faults.SampleFaultError: can't read a sample: TimeoutError; that says nothing about ...
    """
    if isinstance(error, StorageError):
        raise fault_of(error) from None
    numbered = isinstance(error, OSError) and error.errno is not None
    if is_fault(error) and (numbered or isinstance(error, TimeoutError | ConnectionError)):
        raise fault_of(error) from None


def fault_of(error: Exception) -> SampleFaultError:
    """Return a fault of storage as an error that tells its kind and the remedy, and nothing of the sample.

    >>> str(fault_of(OSError(5, "Input/output error", "private/a.jpg"))).partition(";")[0]
    "can't read a sample: OSError: Input/output error"
    """
    if isinstance(error, SampleFaultError):
        return error
    first = error.__cause__ if isinstance(error, StorageError) and isinstance(error.__cause__, Exception) else error
    cause = type(first).__name__
    if isinstance(first, OSError) and first.errno is not None:
        cause += f": {os.strerror(first.errno)}"  # not its own text, which may name a file
    return SampleFaultError(
        f"can't read a sample: {cause}; that says nothing about the sample: try again when the storage is well, or "
        "retry in the data set's own code"
    )
