"""Probes by name or file: LAION's detectors are fetched once into the user's cache, and known by name from then on."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetyfilter.errors import OutputError, ProbeError, UsageError, WeightsError
from safetyfilter.score.files import load_probes
from safetyfilter.score.laion import KNOWN_SHA256, load_laion_detector
from safetyfilter.score.laion_zip import MAX_ZIP
from safetyfilter.score.probe import ProbeBank

REPOSITORY = "https://raw.githubusercontent.com/LAION-AI/CLIP-based-NSFW-Detector/main"
"""Where LAION publishes its detectors."""

FILES: Mapping[str, str] = MappingProxyType(
    {
        "laion-l14": "clip_autokeras_binary_nsfw.zip",
        "laion-b32": "clip_autokeras_nsfw_b32.zip",
    }
)
"""The file of each detector, by the name this library gives it."""

_TIMEOUT_S = 60
_ZIP = b"PK\x03\x04"


def cache_folder() -> Path:
    """``safetyfilter`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "safetyfilter"


def fetch_probes(name: str, *, to: str | Path | None = None, repository: str = REPOSITORY) -> Path:
    """Download one of LAION's detectors, unless it's there already; its SHA-256 is checked either way.

    Parameters
    ----------
    name : str
        ``laion-l14`` or ``laion-b32``.
    to : str or Path, optional
        A folder; the user's cache where None, in which the name is known.
    repository : str
        Where to download from; a mirror serves the same bytes or none.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        No detector has this name.
    WeightsError
        It can't be downloaded, or what came is not the published file.
    OutputError
        The folder can't be written.

    Examples
    --------
    >>> fetch_probes("laion-h14")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: no detector is called 'laion-h14'; there are laion-l14, laion-b32
    """
    if name not in FILES:
        raise UsageError(f"no detector is called {name!r}; there are {', '.join(FILES)}")
    path = (cache_folder() if to is None else Path(to)) / FILES[name]
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == KNOWN_SHA256[name]:
        return path
    url = f"{repository}/{FILES[name]}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            data = response.read(MAX_ZIP + 1)
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            reason = f"HTTP {error.code} {error.reason}"
            error.close()
        raise WeightsError(
            f"can't download {url}: {reason}; download it where there is a network, and pass the file "
            f"with --probes {FILES[name]}"
        ) from error
    if (found := hashlib.sha256(data).hexdigest()) != KNOWN_SHA256[name]:
        raise WeightsError(
            f"what came from {url} has the SHA-256 {found}, and the published file has "
            f"{KNOWN_SHA256[name]}; try again, or download it elsewhere and pass the file with --probes"
        )
    _write(path, data)
    return path


def load_named_probes(name_or_file: str | Path) -> ProbeBank:
    """A bank from a safetensors file, one of LAION's zip files, or by name once it's fetched.

    Parameters
    ----------
    name_or_file : str or Path
        ``laion-l14``, ``laion-b32``, or a file. A detector serves ``explicit`` alone: add a probe for ``minor``.

    Raises
    ------
    ProbeError
        The file is missing or damaged, or the named detector was not fetched yet.

    Examples
    --------
    >>> load_named_probes("nowhere.safetensors")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: no probe file at nowhere.safetensors, and no probes of that name (laion-l14, \
laion-b32, in a scan zero-shot); make a file with `safetyfilter train` or ProbeBank.save
    """
    path = Path(name_or_file)
    if str(name_or_file) in FILES:
        path = cache_folder() / FILES[str(name_or_file)]
        if not path.is_file():
            raise ProbeError(
                f"{name_or_file} is not at {path}; run `safetyfilter probes fetch {name_or_file}`, or pass the file"
            )
    if not path.is_file():
        raise ProbeError(
            f"no probe file at {path}, and no probes of that name ({', '.join(FILES)}, in a scan zero-shot); make a "
            "file with `safetyfilter train` or ProbeBank.save"
        )
    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            return ProbeBank([load_laion_detector(path)])
    return load_probes(path)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"can't write {path}: {error.strerror or error}; choose a writable folder with --to"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
