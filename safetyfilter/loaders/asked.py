"""Samples of a map-style data set that are asked for: compared once more where that was wanted or is needed."""

from __future__ import annotations

from typing import Any

from PIL import Image

from safetyfilter.errors import UsageError
from safetyfilter.loaders.counts import SharedCounts
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.fields import OtherPictures
from safetyfilter.loaders.map_samples import MapSamples
from safetyfilter.runs.index import Rows

_pictures = OtherPictures(None)


class AskedSamples:
    """Tells whether a sample that is asked for may pass, and remembers which have changed since they were scored.

    Parameters
    ----------
    decider : Decider
        Of the data set.
    samples : MapSamples
        The data set's.
    rows : ndarray or None
        (K,) int64, the kept samples' rows in the index of the decisions; None where no run decided.

    Attributes
    ----------
    compares : bool
        True where samples may be found changed, so that each has to be looked at by itself.
    """

    def __init__(self, decider: Decider, samples: MapSamples, rows: Rows | None) -> None:
        self._decider = decider
        self._check = None if rows is None else decider.access_check(samples.access)
        if self._check is not None and not self._check.may_compare:
            self._check = None
        self.compares = self._check is not None
        self._rows = rows if self.compares else None
        self._samples = samples.without_keys() if self.compares else None
        self._looks_into = not samples.holds_images
        self._shared = SharedCounts() if self.compares else None

    def require_current(self) -> None:
        """Raise `RunError` where the run was decided anew since."""
        self._decider.require_current()

    def passes(self, position: int, number: int, sample: Any) -> bool:
        """Return False for a sample whose pictures are not those that were scored.

        Parameters
        ----------
        position, number : int
            Its place among the kept samples, and in the data set.
        sample : object
            As the data set gives it.

        Raises
        ------
        UsageError
            It holds several encoded pictures, and the loader was told of images beside the samples, or of none.
        StorageError
            The storage failed, which says nothing about the sample.
        """
        if self._looks_into:
            self._require_one_picture(sample)
        if self._check is None or self._samples is None or self._rows is None or self._shared is None:
            return True
        if not self._check.reasons(int(self._rows[position]), self._samples.asked(number, sample)):
            return True
        self._shared.flags(len(self._rows))[position] = 1
        return False

    def changed(self) -> int:
        """Return how many samples were found changed, in all processes."""
        if self._shared is None or self._rows is None:
            return 0
        return sum(self._shared.flags(len(self._rows))[:])

    def _require_one_picture(self, sample: Any) -> None:
        encoded = [picture for picture in _pictures(sample) if not isinstance(picture, Image.Image)]
        if len(encoded) > 1:
            raise UsageError(
                f"a sample holds {len(encoded)} encoded pictures, and only the image given beside it, or none, was "
                "looked at: say with image= which of them is its image, and all of them are"
            )
