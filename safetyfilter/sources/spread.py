"""Pictures of a source, spread over its parts: the same ones each time, for what needs some of them and not all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import numpy as np

from safetyfilter.batches import Unreadable
from safetyfilter.sources.base import MAX_BYTES, Source

_PARTS = 32
"""Parts that are opened first; others only where these hold too few pictures."""
_STRIDE = 16
"""The most samples that are passed over to come to the next, since some sources read what they pass over."""


def spread_pictures(source: Source, count: int, *, max_bytes: int = MAX_BYTES) -> Iterator[bytes]:
    """Yield encoded pictures of a source's samples, from parts spread evenly over all of it.

    An unchanged source gives the same ones. What can't be read is passed over; what is read may still be no picture:
    whoever needs `count` that are takes as many more as are not.

    Parameters
    ----------
    source : Source
        Of images.
    count : int
        About how many are needed: a part gives its share first, and then what else it has.
    max_bytes : int
        The most that is read of one.

    Yields
    ------
    bytes
        The first picture of a sample, encoded; at the most each sample's, once.

    Raises
    ------
    StorageError
        A sample could not be read though it was tried again.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from safetyfilter.sources import open_source
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for number in range(100):
    ...     _ = (folder / f"{number:02d}.jpg").write_bytes(b"%d" % number)
    >>> list(islice(spread_pictures(open_source(folder), 5), 6))
    [b'0', b'16', b'32', b'48', b'64', b'1']
    """
    parts = source.parts()
    chosen = sorted({round(place) for place in np.linspace(0, len(parts) - 1, min(_PARTS, count))}) if parts else []
    share = -(-count // max(1, len(chosen)))
    looked_at: dict[int, range] = {}
    for index in chosen:
        step = min(_STRIDE, max(1, (parts[index].count or 0) // share))
        looked_at[index] = range(0, share * step, step)
    # First the shares of the parts that were chosen; then, for whoever asks for more, everything else.
    for shares in (True, False):
        for index in looked_at if shares else range(len(parts)):
            numbers = looked_at.get(index, range(0))
            samples = source.samples(parts[index], max_bytes=max_bytes)
            for number, sample in enumerate(islice(samples, numbers.stop if shares else None)):
                if (number in numbers) is shares:
                    with suppress(Unreadable):
                        yield sample.read(max_bytes)
