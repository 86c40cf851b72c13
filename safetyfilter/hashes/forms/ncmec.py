"""Pages of the hash-sharing API of the National Center for Missing & Exploited Children (NCMEC), as XML.

The form is that of version 2 of the API: ``queryResult`` holds ``images`` and ``videos``, these hold entries of
members, with fingerprints and the members' feedback on each kind of fingerprint, and notices that entries were deleted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import WITHDRAWN, Entries
from safetyfilter.hashes.forms.blocks import Readable
from safetyfilter.hashes.forms.hexes import NotAListError, parse_hash
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import kind_named

_READ = 64 << 10
_LONGEST = 1 << 20
"""Bytes of one tag, comment or the like: a parser reads such a one anew with each block."""
_DEEPEST = 32
_LARGEST_ENTRY = 100_000
"""Elements of one entry."""
_LONGEST_TEXT = 1000
"""Characters of a text that are kept: an identity or a hash is shorter."""
_FEEDBACK = {"affirmativeFeedback": True, "negativeFeedback": False}
_REMEDY = "give a page of NCMEC's hash sharing as it was received"


@dataclass(slots=True)
class _Entry:
    """One entry, as far as it was read."""

    name: str
    member: str = ""
    identity: str = ""
    fingerprints: list[tuple[str, str]] = field(default_factory=list)
    votes: defaultdict[str, dict[bool, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: {True: set(), False: set()})
    )
    elements: int = 0

    def voted_down(self, kind: HashKind) -> bool:
        """Return True where more members reject this kind of fingerprint than affirm it."""
        votes = [votes for name, votes in self.votes.items() if not name or kind_named(name) is kind]
        against = set[str]().union(*(each[False] for each in votes))
        return len(against) > len(set[str]().union(*(each[True] for each in votes)) - against)


def read_ncmec(stream: Readable, entries: Entries, into: Collected) -> None:
    """Take the images of a page.

    A fingerprint is out where more members rejected it than affirmed it, and an entry where a later page, or the same
    one further on, deletes or replaces it. Videos, and fingerprints that are neither digests nor PDQ, are counted in
    `Collected.left_out`. The parser is given no document type, no entity and nothing from elsewhere.

    Parameters
    ----------
    stream : file
        The page.
    entries : Entries
        Of all pages.
    into : Collected
        The list that this page's entries belong to.

    Raises
    ------
    NotAListError
        It is not such a page, or not XML, or goes beyond the bounds on depth, size and number of elements.

    Examples
    --------
    >>> import io
    >>> page = f'''<queryResult><images><image><member id="1">A</member><id>one</id>
    ... <fingerprints><md5>{"00" * 16}</md5><pdna>AAAA</pdna></fingerprints></image></images></queryResult>'''
    >>> entries, collected = Entries(), Collected()
    >>> read_ncmec(io.BytesIO(page.encode()), entries, collected)
    >>> entries.settle()
    >>> collected.sorted()[HashKind.MD5].shape, dict(collected.left_out)
    ((1, 16), {'of the kind pdna': 1})
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    page = _Page(entries, into)
    parser.buffer_text = True
    parser.StartElementHandler = page.begin
    parser.EndElementHandler = page.end
    parser.CharacterDataHandler = page.text
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    given = 0
    try:
        while chunk := stream.read(_READ):
            parser.Parse(chunk)
            given += len(chunk)
            if given - parser.CurrentByteIndex > _LONGEST:
                raise NotAListError(
                    f"holds a tag of more than a million characters; {_REMEDY}", parser.CurrentLineNumber
                )
        parser.Parse(b"", True)
    except NotAListError as error:
        raise NotAListError(error.finding, error.line or parser.CurrentLineNumber) from None
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two of an encoding it names
        line = error.lineno if isinstance(error, expat.ExpatError) else None
        raise NotAListError(f"is not XML; {_REMEDY}", line) from None


def _refuse(*_: Any) -> int:
    raise NotAListError(f"has a document type or an entity, which are not read; {_REMEDY}")


class _Page:
    """The elements of a page as they come."""

    def __init__(self, entries: Entries, into: Collected) -> None:
        self._entries, self._into = entries, into
        self._path: list[str] = []
        self._entry: _Entry | None = None
        self._text = ""
        self._feedback: tuple[str, bool] | None = None

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        name = tag.rpartition(" ")[2]
        if not self._path and name != "queryResult":
            raise NotAListError(f"is XML, and not a page of hashes; {_REMEDY}")
        self._path.append(name)
        self._text = ""
        if len(self._path) > _DEEPEST:
            raise NotAListError(f"is nested too deeply; {_REMEDY}")
        if len(self._path) == 3 and self._path[1] in ("images", "videos"):
            self._entry = _Entry(name.lower())
        elif (entry := self._entry) is not None:
            entry.elements += 1
            if entry.elements > _LARGEST_ENTRY:
                raise NotAListError(f"is in an entry of too many elements; {_REMEDY}")
            if name == "member" and len(self._path) == 4:
                entry.member = attributes.get("id", "")[:_LONGEST_TEXT]
            elif name == "member" and self._feedback is not None:
                kind, affirms = self._feedback
                entry.votes[kind][affirms].add(attributes.get("id", "")[:_LONGEST_TEXT])
            elif self._path[3] == "feedback" and len(self._path) == 5 and name in _FEEDBACK:
                self._feedback = attributes.get("type", ""), _FEEDBACK[name]

    def text(self, text: str) -> None:
        """Take text."""
        if self._entry is not None and len(self._text) < _LONGEST_TEXT:
            self._text += text[:_LONGEST_TEXT]

    def end(self, _: str) -> None:
        """Take the end of an element."""
        entry, text, path = self._entry, self._text.strip(), self._path
        if entry is not None:
            if len(path) == 4 and path[3] == "id":
                entry.identity = text
            elif len(path) == 5 and path[3] == "fingerprints":
                entry.fingerprints.append((path[4], text))
            elif len(path) == 5 and path[3] == "feedback":
                self._feedback = None
            elif len(path) == 3:
                self._take(entry)
                self._entry = None
        self._text = ""
        path.pop()

    def _take(self, entry: _Entry) -> None:
        identity = f"{entry.member} {entry.identity}"
        if entry.name.startswith("deleted"):
            if entry.name == "deletedimage":
                self._entries.withdraw(identity, self._into)
            return
        if entry.name != "image":
            self._into.leave_out(entry.name)
            return
        hashes = []
        for name, text in entry.fingerprints:
            kind = kind_named(name)
            if kind is None or kind.of_url:
                self._into.leave_out(name)
            elif entry.voted_down(kind):
                self._into.left_out[WITHDRAWN] += 1
            else:
                try:
                    hashes.append(parse_hash(text, kind))
                except ValueError:  # which who got the page can't mend
                    self._into.left_out["broken, and not a hash of their kind"] += 1
        if entry.identity:
            self._entries.put(identity, hashes, self._into)
        else:  # nothing can replace or delete it
            for kind, value in hashes:
                self._into.add(kind, value)
