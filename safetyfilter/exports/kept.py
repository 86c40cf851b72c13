"""A kept sample with its bytes, without what no probe looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safetyfilter.sources import Sample
from safetyfilter.sources.pictures import IMAGE_EXTENSIONS, other_pictures
from safetyfilter.sources.signatures import format_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A kept sample with its bytes.

    Attributes
    ----------
    key : str
        The sample's key.
    image : bytes
        The encoded image.
    others : tuple of bytes
        The sample's other pictures, all of them scored.
    extension : str
        The image file's extension, without the dot, as it came; empty where it has none.
    caption : str or None
        The caption.
    members : mapping of str to bytes
        Everything else that belongs to the sample, by extension; in a tar, the other pictures too.
    shard : str or None
        The source's own file that the sample lies in.
    """

    key: str
    image: bytes
    others: tuple[bytes, ...] = ()
    extension: str = "jpg"
    caption: str | None = None
    members: Mapping[str, bytes]
    shard: str | None = None

    def image_extension(self) -> str:
        """Return an extension by which the image is known as one: its own, or its format's.

        >>> Kept(key="a", image=b"GIF89a", extension="txt", members={}).image_extension()
        'gif'
        """
        if self.extension.lower() in IMAGE_EXTENSIONS:
            return self.extension
        return format_of(self.image) or "jpg"

    def beside(self) -> dict[str, bytes]:
        """Return all that belongs to the sample but its image, by extension; pictures without a name are numbered.

        >>> list(Kept(key="a", image=b"", others=(b"GIF89a",), members={"txt": b"a boat"}).beside())
        ['txt', '1.gif']
        """
        found = dict(self.members)
        for number, other in enumerate(self.others, 1):
            if other not in self.members.values():
                found[f"{number}.{format_of(other) or 'jpg'}"] = other
        return found


def kept_of(sample: Sample, contents: Sequence[bytes]) -> tuple[Kept, int]:
    """Return a kept sample, and the number of its members that are left out since they are pictures nobody scored.

    Parameters
    ----------
    sample : Sample
        As a source's `batches` gives it.
    contents : sequence of bytes
        Its pictures, as `Sample.read_all` gives them: these were scored.

    Examples
    --------
    >>> kept, left_out = kept_of(Sample(key="a.jpg", members={"txt": b"GIF89a", "json": b"{}"}), [b"image"])
    >>> dict(kept.members), left_out
    ({'json': b'{}'}, 1)
    """
    unseen = {
        name
        for name, member in sample.members.items()
        if any(picture not in contents for picture in other_pictures({name: member}, "\0"))
    }
    caption = sample.caption
    if caption is not None and format_of(caption.encode("utf-8", "surrogatepass")):
        caption = None
    kept = Kept(
        key=sample.key,
        image=contents[0],
        others=tuple(contents[1:]),
        extension=sample.extension,
        caption=caption,
        members={name: member for name, member in sample.members.items() if name not in unseen},
        shard=sample.shard,
    )
    return kept, len(unseen)
