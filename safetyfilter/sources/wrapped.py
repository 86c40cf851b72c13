"""Sources made of others: several as one, the first samples of one, for a trial, and one whose URLs count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice

from safetyfilter.errors import UsageError
from safetyfilter.sources.base import MAX_BYTES, Part, Sample, SampleBatch, Source
from safetyfilter.sources.files import Extent
from safetyfilter.sources.vectors import VectorBlock, blocks_of


class JoinedSource:
    """Several sources as one.

    A sample's key is ``NAME/KEY``: NAME is the last name in the path of its own source (of a pattern, of the folder
    that it begins with), with a number behind it where two are the same, and KEY is its key there.

    Parameters
    ----------
    sources : sequence of Source
        In the order in which they are read.

    Raises
    ------
    UsageError
        There is none.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise UsageError("there is no source in the list; give at least one")
        self._sources = dict(zip(_names(sources), sources, strict=True))
        kinds, forms = {source.kind for source in sources}, {source.form for source in sources}
        if "embeddings" in kinds and len(kinds) > 1:
            raise UsageError(
                f"stored embeddings and {', '.join(sorted(kinds - {'embeddings'}))} can't be one source: the ones are "
                "scored as they are, the others embedded; scan each into a run of its own"
            )
        self.kind = kinds.pop() if len(kinds) == 1 else "several kinds"
        self.form = forms.pop() if len(forms) == 1 else "parquet"
        self.location = ", ".join(source.location for source in sources)
        self.keys = "; ".join(f"{name}/ and {source.keys}" for name, source in self._sources.items())
        self.extents: tuple[Extent, ...] = tuple(extent for source in sources for extent in source.extents)

    @cached_property
    def _origins(self) -> list[tuple[str, Part]]:
        return [(name, part) for name, source in self._sources.items() for part in source.parts()]

    def parts(self) -> Sequence[Part]:
        """Return the parts of all sources, one source behind the other."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            replace(
                part,
                index=index,
                state=f"{name}\n{part.state}",
                url_state=part.url_state and f"{name}\n{part.url_state}",
                shards=replace(
                    part.shards, names=tuple(f"{name}/{shard}" if shard else name for shard in part.shards.names)
                ),
            )
            for index, (name, part) in enumerate(self._origins)
        ]

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield a part's samples, under their names in the whole."""
        name, own = self._origins[part.index]
        for sample in self._sources[name].samples(own, captions=captions, urls=urls, max_bytes=max_bytes):
            yield _under(name, sample)

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield a part's samples with everything that belongs to them."""
        name, own = self._origins[part.index]
        for batch in self._sources[name].batches(own, max_bytes=max_bytes):
            yield replace(batch, samples=tuple(_under(name, sample) for sample in batch.samples))

    def blocks(self, part: Part, *, captions: bool = False, urls: bool = False) -> Iterator[VectorBlock]:
        """Yield a part's stored embeddings, under their names in the whole; `SourceError` where it has none."""
        name, own = self._origins[part.index]
        for block in blocks_of(self._sources[name], own, captions=captions, urls=urls):
            yield block.under(name)


class LimitedSource:
    """The first samples of a source, for a trial.

    It lies at a place of its own, so that a trial does not take the run of the whole for its own and remove what that
    has scored.

    Parameters
    ----------
    source : Source
        The whole.
    limit : int
        Samples, at least 1.

    Raises
    ------
    UsageError
        `limit` is below 1.
    """

    def __init__(self, source: Source, limit: int) -> None:
        if limit < 1:
            raise UsageError(f"a trial has at least one sample, not {limit}; leave limit out for all")
        self._source, self._limit = source, limit
        self.kind, self.form, self.keys = source.kind, source.form, source.keys
        self.location, self.extents = f"the first {limit} samples of {source.location}", source.extents

    @cached_property
    def _parts(self) -> list[Part]:
        """The parts that the first samples lie in; those whose counts are not known are counted as far as needed."""
        found: list[Part] = []
        left = self._limit
        for part in self._source.parts():
            if not left:
                break
            count = part.count
            if count is None:
                count = sum(1 for _ in islice(self._source.samples(part), left + 1))
            if count > left:
                found.append(replace(part, count=left, state=f"{part.state}\nthe first {left}"))
                break
            found.append(part)
            left -= count
        return found

    def parts(self) -> Sequence[Part]:
        """Return the parts that the first samples lie in."""
        return self._parts

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield a part's samples, as many as are wanted of it."""
        found = self._source.samples(self._whole(part), captions=captions, urls=urls, max_bytes=max_bytes)
        return islice(found, part.count)

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield a part's samples with everything that belongs to them, as many as are wanted of it."""
        left = part.count
        for batch in self._source.batches(self._whole(part), max_bytes=max_bytes):
            if left is None:
                yield batch
                continue
            count = min(left, len(batch.samples))
            if count:
                rows = None if batch.rows is None else batch.rows.slice(0, count)
                yield replace(batch, samples=batch.samples[:count], rows=rows)
            left -= count
            if not left:
                return

    def blocks(self, part: Part, *, captions: bool = False, urls: bool = False) -> Iterator[VectorBlock]:
        """Yield a part's stored embeddings, as many as are wanted of it; `SourceError` where it has none."""
        left = part.count or 0
        for block in blocks_of(self._source, self._whole(part), captions=captions, urls=urls):
            yield block[:left]
            left -= min(left, len(block))
            if not left:
                return

    def _whole(self, part: Part) -> Part:
        return self._source.parts()[part.index]


class UrlSource:
    """A source of which the URLs count: its parts change with the files that only these are read from.

    Parameters
    ----------
    source : Source
        Whose samples are the same here.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kind, self.form, self.keys = source.kind, source.form, source.keys
        self.location, self.extents = source.location, source.extents

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            replace(part, state=f"{part.state}\n{part.url_state}") if part.url_state else part
            for part in self._source.parts()
        ]

    def parts(self) -> Sequence[Part]:
        """Return the source's parts, with the state of files that only URLs are read from in their states."""
        return self._parts

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield a part's samples."""
        return self._source.samples(part, captions=captions, urls=urls, max_bytes=max_bytes)

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield a part's samples with everything that belongs to them."""
        return self._source.batches(part, max_bytes=max_bytes)


def with_urls(source: Source) -> Source:
    """Return the source for a scan in which URLs count: itself, where all files that it reads count already.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from safetyfilter.sources import open_source
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name, content in (("a.jpg", b"..."), ("a.json", b"{}")):
    ...     _ = (folder / name).write_bytes(content)
    >>> source = open_source(folder)
    >>> with_urls(source).parts()[0].state == source.parts()[0].state
    False
    """
    return UrlSource(source) if any(part.url_state for part in source.parts()) else source


def _names(sources: Sequence[Source]) -> list[str]:
    """Return a name for each source, all different."""
    found: list[str] = []
    for source in sources:
        place = next((extent.place for extent in source.extents), None)
        name = (place.name if place is not None else source.location.strip("/").rpartition("/")[2]) or "source"
        unique, number = name, 2
        while unique in found:
            unique, number = f"{name}-{number}", number + 1
        found.append(unique)
    return found


def _under(name: str, sample: Sample) -> Sample:
    shard = None if sample.shard is None else f"{name}/{sample.shard}"
    return replace(sample, key=f"{name}/{sample.key}", shard=shard)
