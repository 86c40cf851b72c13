"""Downloads one of LAION's published detectors, checks that it is the published one, and keeps it as a probe file."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from safetyfilter.errors import ProbeError, SchemaError, UsageError, WeightsError
from safetyfilter.score.convert.detector import write_detector
from safetyfilter.score.convert.published import PUBLISHED, REPOSITORY, PublishedDetector
from safetyfilter.score.convert.torch_file import MAX_TORCH
from safetyfilter.score.files import read_probes
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.named import cached_probe_file

_TIMEOUT_S = 60


def fetch_probes(name: str, *, to: str | os.PathLike[str] | None = None, repository: str = REPOSITORY) -> Path:
    """Download and convert one of LAION's detectors, unless its probe file is there already.

    Parameters
    ----------
    name : str
        ``laion-l14``, ``laion-b32`` or ``laion-h14``.
    to : str or path, optional
        A folder on this machine; the user's cache where None, in which `ProbeBank.load` finds the detector by its name.
    repository : str
        The URL to download from; a mirror serves the same bytes or none, since their digest is checked.

    Returns
    -------
    Path
        The probe file.

    Raises
    ------
    UsageError
        No detector has this name.
    WeightsError
        It can't be downloaded, or what came is not the published file.
    OutputError
        The folder is on other storage, or can't be written.

    Examples
    --------
    >>> fetch_probes("laion-g14")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: no detector is called 'laion-g14'; there are laion-l14, laion-b32, laion-h14
    """
    if name not in PUBLISHED:
        raise UsageError(f"no detector is called {name!r}; there are {', '.join(PUBLISHED)}")
    path = cached_probe_file(name, to)
    published = PUBLISHED[name]
    if _is_converted(path, published):
        return path
    data = _download(f"{repository}/{published.file}")
    if not published.is_file(data):
        raise WeightsError(
            f"what came from {repository}/{published.file} has {published.found(data)}, and the published file has "
            f"{published.known_by}; try again, or download it elsewhere and run `safetyfilter probes convert` on it"
        )
    return write_detector(name, data, to=to, repository=repository)


def _is_converted(path: Path, published: PublishedDetector) -> bool:
    """Return True for a probe file, whole and of this version's schema, made from the published file."""
    if not path.is_file():
        return False
    try:
        probes, _ = read_probes(path)
    except (ProbeError, SchemaError):
        return False
    return any(isinstance(probe, LaionDetector) and probe.card and published.is_source(probe.card) for probe in probes)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - of a fixed host
            content: bytes = response.read(MAX_TORCH + 1)
            return content
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            reason = f"HTTP {error.code} {error.reason}"
            error.close()
        raise WeightsError(
            f"can't download {url}: {reason}; download it where there is a network, and run `safetyfilter probes "
            f"convert {url.rpartition('/')[2]}`"
        ) from error
