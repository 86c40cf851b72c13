"""Rows of a table as samples: their images, keys, captions and further pictures, and what is wrong with a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from safetyfilter.batches import Unreadable
from safetyfilter.sources.base import Sample
from safetyfilter.sources.paths import PathRule
from safetyfilter.sources.pictures import other_pictures
from safetyfilter.sources.signatures import format_of
from safetyfilter.sources.tables import Columns
from safetyfilter.sources.urls import NO_URLS, UrlFields, link_in
from safetyfilter.sources.values import plain
from safetyfilter.storage import Location

NO_KEY = "\ud800"
"""Begins the key of a row that has none: half a character, which no text in a table can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReader:
    """Turns the rows of one table into samples.

    Attributes
    ----------
    columns : Columns
        The columns of image, key, captions and further pictures.
    rule : PathRule
        The files that a row's paths may name.
    prefix : str
        A row of a table without keys is called by it and the row's number.
    urls : UrlFields
        The columns of URLs and of references to a crawl.
    """

    columns: Columns
    rule: PathRule
    prefix: str
    urls: UrlFields = NO_URLS

    @property
    def state(self) -> str:
        """The choice of columns and files as text, for the state of a part."""
        return f"{self.columns.state}:{self.rule.state}{self.urls.state}"

    def names(self, *, captions: bool, urls: bool) -> list[str]:
        """Return the columns that a scan reads, each once."""
        return list(dict.fromkeys((*self.columns.names(captions=captions), *(self.urls.names if urls else ()))))

    def samples(
        self, table: pa.Table, first: int, *, captions: bool = False, urls: bool = False, full: bool = False
    ) -> Iterator[Sample]:
        """Yield a table's rows as samples, each made when it is asked for.

        Parameters
        ----------
        table : pa.Table
            At least the columns asked for.
        first : int
            The number of its first row.
        captions : bool
            With captions.
        urls : bool
            With URLs and references.
        full : bool
            With captions, and with members: the caption as ``txt``, and all columns but the image as ``json``.
        """
        captions = captions or full
        names = table.column_names if full else self.names(captions=captions, urls=urls)
        for number, values in enumerate(zip(*(table.column(name) for name in names), strict=True), first):
            row = dict(zip(names, map(plain, values), strict=True))
            sample = self._sample(row, number, captions=captions, full=full)
            yield self._with_url(sample, row) if urls else sample

    def lost(self, keys: pa.ChunkedArray | None, first: int, count: int) -> Iterator[Sample]:
        """Yield rows that can't be read as samples, so that each is on record.

        Parameters
        ----------
        keys : pa.ChunkedArray or None
            Their keys; None where these can't be read either.
        first, count : int
            The number of the first of them, and how many they are.
        """
        for at in range(count):
            row = {} if keys is None or self.columns.key is None else {self.columns.key: plain(keys[at])}
            yield Sample(key=self._key(row, first + at)[0], failure="damaged_shard")

    def _sample(self, row: Mapping[str, Any], number: int, *, captions: bool, full: bool) -> Sample:
        key, failure = self._key(row, number)
        image, place = None, None
        others: tuple[bytes | Location, ...] = ()
        try:
            image, place = self._image(row[self.columns.image])
            others = self._others(row)
        except Unreadable as finding:
            failure = failure or finding.failure
        caption = next((row[c] for c in self.columns.captions if isinstance(row[c], str)), None) if captions else None
        suffix = PurePosixPath(place.path).suffix[1:] if place else ""
        return Sample(
            key=key,
            image=image,
            place=place,
            others=others,
            failure=failure,
            extension=(format_of(image) if image else suffix) or "jpg",
            caption=caption,
            members=_members(row, self.columns.image, caption) if full else {},
        )

    def _with_url(self, sample: Sample, row: Mapping[str, Any]) -> Sample:
        url, crawl = self.urls.read(row)
        return replace(sample, url=url or link_in(row[self.columns.image]), crawl=crawl)

    def _key(self, row: Mapping[str, Any], number: int) -> tuple[str, str | None]:
        if self.columns.key is None:
            return f"{self.prefix}{number}", None
        key = row.get(self.columns.key)
        return (f"{NO_KEY}{self.prefix}{number}", "no_key") if key is None else (str(key), None)

    def _image(self, value: Any) -> tuple[bytes | None, Location | None]:
        """Return bytes or a local file; Unreadable where there is neither."""
        if isinstance(value, Mapping):
            if value.get("bytes") is None:
                return None, self.rule.place(value.get("path"))
            value = value["bytes"]
        if value is None:
            raise Unreadable("missing")
        return value, None

    def _others(self, row: Mapping[str, Any]) -> tuple[bytes | Location, ...]:
        fields = {name: row[name] for name in (self.columns.image, *self.columns.others)}
        found = other_pictures(fields, self.columns.image)
        return tuple(each if isinstance(each, bytes) else self.rule.place(each) for each in found)


def _members(row: Mapping[str, Any], image: str, caption: str | None) -> dict[str, bytes]:
    members = {} if caption is None else {"txt": caption.encode("utf-8", "surrogatepass")}
    others = {name: value for name, value in row.items() if name != image}
    members["json"] = json.dumps(others, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return members
