"""Writes lists of hashes in the forms in which they come, all of harmless contents."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from safetyfilter.hashes.collecting import width_kept
from safetyfilter.hashes.kinds import HASH_BYTES, HashKind
from safetyfilter.hashes.reading import parse_hashes

Hashes = Mapping[HashKind, set[bytes]]


def digest(kind: str, content: bytes) -> str:
    """The digest of a content, in hex, by the kind's name."""
    return hashlib.new(HashKind(kind).algorithm, content).hexdigest()


def hash_of(kind: HashKind, number: int) -> bytes:
    """A hash of a kind that no other number has."""
    return hashlib.shake_128(f"{kind} {number}".encode()).digest(HASH_BYTES[kind])


def read(text: str | bytes, name: str = "FILE") -> Hashes:
    """The hashes in a text, by kind, as far as they are kept."""
    found = parse_hashes(text.encode() if isinstance(text, str) else text, name)
    return {kind: set(map(bytes, rows)) for kind, rows in found.items()}


def kept(hashes: Iterable[tuple[HashKind, bytes]]) -> Hashes:
    """The same as `read` has them."""
    found: dict[HashKind, set[bytes]] = {}
    for kind, value in hashes:
        found.setdefault(kind, set()).add(value[: width_kept(kind)])
    return found


def table(rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def update(number: int, kind: str, indicator: str, *statuses: str, **more: object) -> dict[str, object]:
    """An entry of ThreatExchange's updates, with the members' statuses."""
    descriptors = [
        {"id": str(900 + at), "owner": {"id": str(at)}, "status": status} for at, status in enumerate(statuses)
    ]
    entry = {"id": str(number), "type": kind, "indicator": indicator, "last_updated": 1, "should_delete": False}
    return {**entry, "descriptors": {"data": descriptors}, **more}


def page_of_updates(*entries: Mapping[str, object]) -> str:
    """A page of ThreatExchange's API."""
    return json.dumps({"data": entries, "paging": {"cursors": {"after": "MQ"}, "next": "https://graph.example/"}})


def image(
    identity: str,
    fingerprints: Mapping[str, str],
    *,
    member: int = 42,
    up: Mapping[str, Sequence[int]] | None = None,
    down: Mapping[str, Sequence[int]] | None = None,
    tag: str = "image",
) -> str:
    """An entry of NCMEC's hash sharing, with members that affirm or reject its fingerprints by their kind."""
    prints = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fingerprints.items())
    votes = "".join(
        f'<{name} type={quoteattr(kind)} lastUpdateTimestamp="2023-06-01T12:48:14Z">{before}'
        f'<members timestamp="2023-06-01T12:48:14Z">{"".join(f"""<member id="{one}">A</member>""" for one in members)}'
        f"</members>{after}</{name}>"
        for name, before, after, given in (
            ("affirmativeFeedback", "", "", up or {}),
            ("negativeFeedback", '<reasons><reason guid="0" name="A reason" type="Md5"/>', "</reasons>", down or {}),
        )
        for kind, members in given.items()
    )
    return (
        f'<{tag}><member id="{member}">A member</member><timestamp>2017-10-24T15:00:00Z</timestamp>'
        f"<id>{escape(identity)}</id><classification>A1</classification><fingerprints>{prints}</fingerprints>"
        f'<feedback lastUpdateTimestamp="2023-06-01T12:48:14Z">{votes}</feedback></{tag}>'
    )


def deleted(identity: str, *, member: int = 42, tag: str = "deletedImage") -> str:
    """A notice that an entry was deleted."""
    return (
        f'<{tag}><member id="{member}">A</member><id>{identity}</id><timestamp>2017-10-24T15:10:00Z</timestamp></{tag}>'
    )


def page(*images: str, videos: Sequence[str] = ()) -> str:
    """A page of NCMEC's hash sharing."""
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        '<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2">\n'
        f'<images count="{len(images)}" maxTimestamp="2017-10-24T15:10:00Z">{"".join(images)}</images>\n'
        f'<videos count="{len(videos)}" maxTimestamp="2017-10-24T15:10:00Z">{"".join(videos)}</videos>\n'
        "<paging><next>/v2/entries?from=2017&amp;start=2001&amp;size=1000&amp;max=3000</next></paging>\n</queryResult>"
    )


def put(folder: Path, name: str, text: str | bytes) -> str:
    """Write a file, and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)
