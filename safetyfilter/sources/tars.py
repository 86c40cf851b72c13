"""WebDataset tars, grouped into samples by the webdataset library."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_expander

from safetyfilter.sources.base import IMAGE_EXTENSIONS, Part, Sample
from safetyfilter.sources.files import Listing

_log = logging.getLogger(__name__)


class WebDatasetSource:
    """Tars in the WebDataset layout; each is a part.

    A sample's key is ``SHARD.tar/KEY``: the shard's path relative to the source, and the sample's name in it. The rest
    of a damaged shard is on record as one sample, unscored; what could not be listed has no decision, and a loader
    excludes it as unknown.

    Parameters
    ----------
    listing : Listing
        The tars.
    image_field : str or None
        The extension of the image to score. Where None, a sample must have exactly one image.
    """

    kind = "webdataset"

    def __init__(self, listing: Listing, *, image_field: str | None = None) -> None:
        self.location = listing.location
        self._listing = listing
        self._shards = [name for name in listing.names if name.endswith(".tar")]
        self._image_field = image_field

    @property
    def shards(self) -> Sequence[str]:
        """The tars' paths relative to the source, in order."""
        return self._shards

    def parts(self) -> Sequence[Part]:
        """One part a tar, in the order of their names."""
        return [Part(index=index, state=self._listing.state([shard])) for index, shard in enumerate(self._shards)]

    def samples(self, part: Part, *, full: bool = False) -> Iterator[Sample]:
        """The samples of a tar, in its own order."""
        shard = self._shards[part.index]
        with self._listing.open(shard) as stream:
            groups = group_by_keys(tar_file_expander([{"url": shard, "stream": stream}]), lcase=False)
            try:
                for group in groups:
                    yield self._sample(shard, group, full=full)
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                _log.warning(
                    "a shard is damaged (%s): part %d ends early, and what it still holds is excluded",
                    type(error).__name__,
                    part.index,
                )
                yield Sample(key=f"{shard}/", failure="damaged_shard")

    def _sample(self, shard: str, group: Mapping[str, Any], *, full: bool) -> Sample:
        fields = {name: value for name, value in group.items() if not name.startswith("__")}
        extension, failure = image_of(fields, self._image_field)
        members = {name: value for name, value in fields.items() if name != extension} if full else {}
        return Sample(
            key=f"{shard}/{group['__key__']}",
            image=fields.get(extension),
            failure=failure,
            extension=extension,
            members=members,
        )


def image_of(fields: Mapping[str, object], wanted: str | None = None) -> tuple[str, str | None]:
    """The extension under which a sample's image lies, and why there is none.

    A sample with several images is not scored: which of them a training loop would read is not known here.

    >>> image_of({"txt": b"", "JPG": b""}), image_of({"jpg": b"", "mask.png": b""}), image_of({"txt": b""})
    (('JPG', None), ('', 'several_images'), ('', 'missing'))
    """
    images = [
        name for name in fields if (name == wanted if wanted else name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS)
    ]
    if len(images) == 1:
        return images[0], None
    return "", "several_images" if images else "missing"
