"""Converts one of LAION's published files into a probe file with its licence and provenance."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np

from safetyfilter import __version__
from safetyfilter.batches import Unreadable
from safetyfilter.errors import ProbeError, StorageError
from safetyfilter.score.convert.network import MAX_ZIP, read_network
from safetyfilter.score.convert.protobuf import damaged
from safetyfilter.score.convert.published import LICENCE, PUBLISHED, REPOSITORY, git_blob
from safetyfilter.score.convert.torch_file import MAX_TORCH, read_torch_detector
from safetyfilter.score.files import write_probes
from safetyfilter.score.laion import DetectorCard, LaionDetector
from safetyfilter.score.named import cached_probe_file
from safetyfilter.score.vocabulary import Vocabulary
from safetyfilter.storage import Location

_WIDTHS = (768, 512)
_SMALLEST_SCALE = 1e-7  # Keras's Normalization divides by at least its backend's epsilon


def convert_detector(file: str | os.PathLike[str], *, to: str | os.PathLike[str] | None = None) -> Path:
    """Convert one of LAION's published files into a probe file.

    Parameters
    ----------
    file : str or path
        ``clip_autokeras_binary_nsfw.zip`` (ViT-L/14), ``clip_autokeras_nsfw_b32.zip`` (ViT-B/32) or ``h14_nsfw.pth``
        (ViT-H/14), as published. The SHA-256 of the first two and Git's id of the third are checked; all are read as
        untrusted all the same.
    to : str or path, optional
        A folder on this machine; the user's cache where None, in which `ProbeBank.load` finds the detector by its name.

    Returns
    -------
    Path
        The probe file, such as ``laion-l14.safetensors``.

    Raises
    ------
    ProbeError
        The file is missing, damaged, or not one of the published ones. Nothing is written then.
    OutputError
        The folder is on other storage, or can't be written.

    Examples
    --------
    >>> convert_detector("nowhere.zip")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: there is no detector at nowhere.zip; fetch one with \
`safetyfilter probes fetch laion-l14`
    """
    data = _read(file)
    for name, published in PUBLISHED.items():
        if published.is_file(data):
            return write_detector(name, data, to=to)
    known = "; ".join(f"{name} has {published.known_by}" for name, published in PUBLISHED.items())
    raise damaged(
        f"{file} has the SHA-256 {hashlib.sha256(data).hexdigest()} and Git's id {git_blob(data)}, and of the "
        f"published ones {known}"
    )


def write_detector(
    name: str, data: bytes, *, to: str | os.PathLike[str] | None = None, repository: str = REPOSITORY
) -> Path:
    """Write the probe file of a published detector whose file's digest was checked; errors as above."""
    published = PUBLISHED[name]
    card = DetectorCard(
        licence=LICENCE,
        source=f"{repository}/{published.file}",
        sha256=hashlib.sha256(data).hexdigest(),
        git_blob=published.git_blob,
        converted=datetime.now(UTC).date().isoformat(),
        version=__version__,
    )
    detector = _READERS[Path(published.file).suffix](data, card)
    path = cached_probe_file(name, to)
    Location.of(path.parent).make_folder()
    write_probes(path, [detector])
    return path


def read_detector(data: bytes, card: DetectorCard | None = None) -> LaionDetector:
    """Return the detector in the bytes of a zip file, whose SHA-256 is not checked.

    Parameters
    ----------
    data : bytes
        The zip file, which is treated as untrusted.
    card : DetectorCard or None
        Licence and provenance.

    Raises
    ------
    ProbeError
        The file is damaged, or holds something that the published ones do not. Nothing is loaded half.

    Examples
    --------
    >>> read_detector(b"no zip")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: the detector's file is damaged or not LAION's: it is not a readable zip (File is \
not a zip file); fetch it again with `safetyfilter probes fetch laion-l14`
    """
    if len(data) > MAX_ZIP:
        raise damaged(f"it has {len(data):,} bytes, and the published ones have about a million")
    network = read_network(data)
    if network.width not in _WIDTHS:
        raise damaged(f"it takes {network.width} columns, not {' or '.join(map(str, _WIDTHS))}")
    scale = np.maximum(np.sqrt(network.variance), np.float32(_SMALLEST_SCALE))
    try:
        return LaionDetector(
            mean=network.mean,
            scale=scale,
            layers=network.layers,
            vocabularies=tuple(Vocabulary.of(column, words) for column, words in network.vocabularies.items()),
            card=card,
        )
    except ProbeError as error:
        raise damaged(str(error)) from error


_READERS: Mapping[str, Callable[[bytes, DetectorCard], LaionDetector]] = MappingProxyType(
    {".zip": read_detector, ".pth": read_torch_detector}
)


def _read(file: str | os.PathLike[str]) -> bytes:
    try:
        return Location.of(file).read_bytes(MAX_TORCH)
    except StorageError:
        raise
    except FileNotFoundError:
        raise ProbeError(
            f"there is no detector at {file}; fetch one with `safetyfilter probes fetch laion-l14`"
        ) from None
    except Unreadable as error:
        raise damaged(f"{file} is not a file of at most {MAX_TORCH:,} bytes ({error.failure})") from None
    except OSError as error:
        raise ProbeError(f"can't read {file}: {error.strerror}; give one of LAION's published files") from error
