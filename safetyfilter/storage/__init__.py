"""Every byte that is read or written: a local path or a URL that fsspec knows, bounded, retried, whole or not at all.

Two kinds of error are told apart. A *finding* is true of one file (not there, not permitted, no regular file): it is
raised at once, and callers turn it into a status. A *fault* is the storage's (a time-out, a lost connection, a disk
that fails): it is retried with exponential backoff, then raised as `StorageError`, so that no sample is judged by it.
"""

from safetyfilter.storage.entries import Entry, entry_from, entry_of
from safetyfilter.storage.holding import Hold, exclusive
from safetyfilter.storage.location import Location, Place, is_url
from safetyfilter.storage.machine import cache_folder, local_path, locked, mapped
from safetyfilter.storage.reading import (
    PARQUET_ERRORS,
    parse_json,
    parse_parquet,
    parse_parquet_schema,
    parse_toml,
    read_image,
    read_npy,
    require_names,
)
from safetyfilter.storage.retries import ATTEMPTS, LONGEST_WAIT_S, is_fault, retried
from safetyfilter.storage.urls import shown
from safetyfilter.storage.walk import Walk
from safetyfilter.storage.writing import create_private, creating_private, replacing

__all__ = [
    "ATTEMPTS",
    "LONGEST_WAIT_S",
    "PARQUET_ERRORS",
    "Entry",
    "Hold",
    "Location",
    "Place",
    "Walk",
    "cache_folder",
    "create_private",
    "creating_private",
    "entry_from",
    "entry_of",
    "exclusive",
    "is_fault",
    "is_url",
    "local_path",
    "locked",
    "mapped",
    "parse_json",
    "parse_parquet",
    "parse_parquet_schema",
    "parse_toml",
    "read_image",
    "read_npy",
    "replacing",
    "require_names",
    "retried",
    "shown",
]
