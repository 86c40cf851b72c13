"""ThreatExchange's JSON: pages of updates or descriptors, one object a line, or objects by their numbers.

https://developers.facebook.com/docs/threat-exchange/reference/apis
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import Entries
from safetyfilter.hashes.forms.blocks import Readable
from safetyfilter.hashes.forms.hexes import NotAListError, parse_hash
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import kind_named
from safetyfilter.storage import parse_json

TYPES = ("type", "signal_type")
INDICATORS = ("indicator", "raw_indicator", "signal_str", "signal_value", "signal_hash")
"""Names of an entry's type and of its hash: in the API, and in what the command line and HMA, the service, print."""
MAX_TEXT = 256 << 20
"""The largest JSON text that is read as a whole."""
_STATUSES = {"NON_MALICIOUS": 1, "MALICIOUS": -1}
_REACTIONS = {"DISAGREE_WITH_TAGS": 1, "HELPFUL": -1}
"""Votes against an entry are counted up, those for it down."""
_BROKEN = "broken, and not a hash of their kind"


def kind_of_type(text: str) -> HashKind | None:
    """Return the kind that ThreatExchange's name of a type tells; None for all that is not used.

    Its digests of URLs are not: they are taken after the URL was changed.

    >>> kind_of_type("photo_md5"), kind_of_type("pdq"), kind_of_type("HASH_URL_MD5"), kind_of_type("HASH_TMK")
    (<HashKind.MD5: 'md5'>, <HashKind.PDQ: 'pdq'>, None, None)
    """
    kind = kind_named(text.strip().upper().removeprefix("HASH_").removeprefix("PHOTO_"))
    return None if kind is None or kind.of_url else kind


def read_threatexchange(stream: Readable, entries: Entries, into: Collected) -> None:
    """Take the entries of a JSON text.

    An entry is out where it is deleted, or where more members vote against it than for it, by the status of their
    descriptors or by reactions. What is no hash of a picture's bytes or looks is counted in `Collected.left_out`.

    Parameters
    ----------
    stream : file
        The text.
    entries : Entries
        Of all pages; those of this one replace earlier ones of the same number.
    into : Collected
        The list that the entries belong to.

    Raises
    ------
    NotAListError
        It is not JSON, or no such entries.

    Examples
    --------
    >>> import io
    >>> entries, collected = Entries(), Collected()
    >>> page = b'{"data": [{"id": "1", "type": "HASH_MD5", "indicator": "%s"}]}' % (b"00" * 16)
    >>> read_threatexchange(io.BytesIO(page), entries, collected)
    >>> entries.settle()
    >>> collected.sorted()[HashKind.MD5].shape
    (1, 16)
    """
    for value in _values(stream):
        for item in _items(value):
            _take(item, entries, into)


def _values(stream: Readable) -> Iterator[Any]:
    """Yield the values of a text: one, or one a line."""
    text = stream.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise NotAListError(f"is JSON of more than {MAX_TEXT >> 20} MiB; give it in several files, in order")
    try:
        yield parse_json(text)
        return
    except ValueError as error:
        lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
        if len(lines) < 2:
            raise NotAListError(_not_json(error)) from None
    for number, line in lines:
        try:
            value = parse_json(line)
        except ValueError as error:
            raise NotAListError(_not_json(error), number) from None
        yield value


def _not_json(error: ValueError) -> str:
    name = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
    return f"is not {name}; give one JSON value in UTF-8, or one object a line"


def _items(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the entries in a page, a list, or an object of objects."""
    match value:
        case {"data": list(inner)} | list(inner):
            found: list[Any] = inner
        case {"type": _} | {"signal_type": _}:
            found = [value]
        case dict() if value:
            found = [one for one in value.values() if one is not None]
        case _:
            found = [None]
    for item in found:
        if not isinstance(item, dict) or not isinstance(_first(item, TYPES), str):
            raise NotAListError(
                "is JSON, and holds something else than ThreatExchange's entries, objects with a type and an "
                "indicator; give a page of its API, a list of entries, or one a line"
            )
        yield item


def _first(item: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the value of the first of these names that an entry has; None where it has none."""
    return next((item[name] for name in names if name in item), None)


def _take(item: Mapping[str, Any], entries: Entries, into: Collected) -> None:
    name, text = str(_first(item, TYPES)), _first(item, INDICATORS)
    kind = kind_of_type(name)
    if kind is None:
        into.leave_out(name)
        return
    identity = f"{name} {item['id']}" if isinstance(item.get("id"), str | int) else f"{name}={text}"
    gone = item.get("should_delete") or ("should_delete" in item and "descriptors" not in item)
    if gone or _against(item) > 0:
        entries.withdraw(identity, into)
        return
    try:
        entries.put(identity, [parse_hash(str(text).strip(), kind)], into)
    except ValueError:  # which who got the file can't mend
        into.left_out[_BROKEN] += 1


def _against(item: Mapping[str, Any]) -> int:
    """Return how many more members vote against an entry than for it, each once."""
    told: dict[str, int] = {}
    reacted: dict[str, int] = {}
    descriptors = item.get("descriptors")
    listed = descriptors.get("data") if isinstance(descriptors, dict) else None
    for number, one in enumerate(listed if isinstance(listed, list) else [item]):
        if not isinstance(one, dict):
            continue
        owner = one.get("owner")
        name = str(owner.get("id") if isinstance(owner, dict) else owner or f"descriptor {number}")
        told[name] = _STATUSES.get(str(one.get("status")), 0)
        reactions = one.get("reactions")
        for reaction in reactions if isinstance(reactions, list) else ():
            if isinstance(reaction, dict) and (vote := _REACTIONS.get(str(reaction.get("key")))):
                for member in str(reaction.get("value")).split(","):
                    reacted[member] = min(reacted.get(member, 1), vote)
    return sum((reacted | told).values())
