"""Targets that read lists of known hashes: a list with a damaged line does not load as a smaller one without a word."""

from __future__ import annotations

import gzip
import json
import logging
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.files import FileTarget
from fuzzing.mutations import Mutant
from fuzzing.structures import LINES, WORDS, XML
from fuzzing.target import require
from safetyfilter.hashes.lists import HashLists

_ENTRIES = 12
_ROW = re.compile(rb'[^,"]*,[^,"]*,"a, b",note')


def _hexes(digits: int, count: int = _ENTRIES) -> list[str]:
    rng = random.Random(digits)
    return [rng.randbytes(digits // 2).hex() for _ in range(count)]


class _Heard(logging.Handler):
    """Counts warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.count += 1


@dataclass(slots=True, kw_only=True)
class HashListFile(FileTarget):
    """A list of hashes, named with or without a kind and a column.

    Attributes
    ----------
    named : str
        What stands before the file's name.
    """

    named: str = ""
    heard: _Heard = field(default_factory=_Heard)

    def prepare(self, folder: Path) -> None:
        """Make the files, and listen to warnings."""
        logging.getLogger("safetyfilter").addHandler(self.heard)
        super(HashListFile, self).prepare(folder)

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        self.heard.count = 0
        lists = HashLists.load([f"{self.named}{self.place}"])
        require(len(lists) > 0, "an empty list is loaded")
        lists.match([b"no picture"], "a URL")
        if not self.heard.count:
            self.count(mutant, len(lists))

    def count(self, mutant: Mutant, loaded: int) -> None:
        """Hold the number of hashes that were loaded without a warning against that of the file's own entries."""


@dataclass(slots=True, kw_only=True)
class HashLines(HashListFile):
    """One hash a line."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        plain = "\n".join(_hexes(32)).encode()
        mixed = "\r\n".join([f"# a comment\r\nmd5:{_hexes(32)[0]}", *_hexes(40)]).encode()
        sums = "".join(f"{digest}  a/file.bin\n" for digest in _hexes(128)).encode()
        return [plain + b"\n", plain.upper(), mixed, sums, gzip.compress(plain, mtime=0)]

    def count(self, mutant: Mutant, loaded: int) -> None:
        """Hold the number of hashes that were loaded against that of the entries in the file."""
        if mutant.seed > 1 or b":" in mutant.data or mutant.data[:2] == b"\x1f\x8b":
            return
        lines = {line.strip().lower() for line in mutant.data.removeprefix(b"\xef\xbb\xbf").split(b"\n")}
        entries = {line.split()[0] for line in lines if line and not line.startswith(b"#")}
        require(loaded == len(entries), f"{loaded} of {len(entries)} lines are loaded, and nothing says so")


@dataclass(slots=True, kw_only=True)
class PdqLines(HashListFile):
    """One perceptual hash a line."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        return ["".join(f"{value}\n" for value in _hexes(64)).encode()]


@dataclass(slots=True, kw_only=True)
class HashColumns(HashListFile):
    """CSV, with a column of hashes and others."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        rows = [f'{number},{value},"a, b",note' for number, value in enumerate(_hexes(64))]
        semicolons = [f"{value};{number}" for number, value in enumerate(_hexes(64))]
        return [
            "\n".join(["id,hash,text,more", *rows, ""]).encode(),
            "\r\n".join(["hash;id", *semicolons]).encode(),
        ]

    def count(self, mutant: Mutant, loaded: int) -> None:
        """Hold the number of hashes that were loaded against that of the entries in the file."""
        header, *rows = mutant.data.split(b"\n")
        rows = [row for row in rows if row.strip()]
        if header == b"id,hash,text,more" and b"\r" not in mutant.data and all(map(_ROW.fullmatch, rows)):
            values = {row.split(b",")[1].strip().lower() for row in rows}
            require(loaded == len(values), f"{loaded} of {len(values)} rows are loaded, and nothing says so")


@dataclass(slots=True, kw_only=True)
class ThreatExchange(HashListFile):
    """ThreatExchange's JSON, as a page and one object a line."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        kinds = [("HASH_MD5", 32), ("HASH_SHA1", 40), ("HASH_SHA256", 64), ("HASH_PDQ", 64)]
        entries = [
            {"id": str(number), "type": kind, "indicator": _hexes(digits)[number], "should_delete": False,
             "descriptors": {"data": [{"status": "MALICIOUS", "reactions": {}}]}}
            for number, (kind, digits) in enumerate(kinds * 2)
        ]  # fmt: skip
        page = {"data": entries, "paging": {"next": ""}}
        return [json.dumps(page).encode(), "\n".join(map(json.dumps, entries)).encode()]


@dataclass(slots=True, kw_only=True)
class Ncmec(HashListFile):
    """Pages of NCMEC's hash sharing, as XML."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        images = "".join(
            f'<image><member id="{number}">A member</member><timestamp>2020-01-01</timestamp><id>{number:04d}</id>'
            f"<classification>A1</classification><fingerprints><md5>{md5}</md5><sha1>{sha1}</sha1></fingerprints>"
            '<feedback><affirmativeFeedback type="md5"><members><member id="2">B</member></members>'
            "</affirmativeFeedback></feedback></image>"
            for number, (md5, sha1) in enumerate(zip(_hexes(32, 4), _hexes(40, 4), strict=True))
        )
        deleted = '<deletedImage><member id="1">A</member><id>0009</id><timestamp>2020-01-02</timestamp></deletedImage>'
        head = '<?xml version="1.0" encoding="UTF-8"?>'
        return [f'{head}<queryResult><images count="4">{images}{deleted}</images></queryResult>'.encode()]


def hash_targets() -> list[FileTarget]:
    """Return one target for each form of lists."""
    return [
        HashLines(name="hash-lines", file="listed.txt", structure=LINES),
        PdqLines(name="hash-lines-pdq", file="listed.txt", named="pdq=", structure=LINES),
        HashColumns(name="hash-csv", file="listed.csv", named="sha256:hash=", structure=WORDS),
        ThreatExchange(name="hash-threatexchange", file="listed.json", structure=WORDS),
        Ncmec(name="hash-ncmec", file="listed.xml", structure=XML),
    ]
