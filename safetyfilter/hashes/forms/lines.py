"""Lists with one hash a line, in hex."""

from __future__ import annotations

from typing import IO

from safetyfilter.errors import SourceError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.kinds import HASH_BYTES, HashKind
from safetyfilter.hashes.naming import ListFile

_BY_DIGITS = {2 * HASH_BYTES[kind]: kind for kind in (HashKind.MD5, HashKind.SHA1, HashKind.SHA512)}


def read_lines(stream: IO[bytes], file: ListFile, into: Collected) -> None:
    """Add the hashes of a file with one a line."""
    for number, line in enumerate(stream, 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        kind = file.kind or _BY_DIGITS.get(len(text))
        if kind is None or len(text) != 2 * HASH_BYTES[kind]:
            raise SourceError(f"line {number} of {file.file} is not a hash; name the kind, as in sha256=FILE")
        try:
            into.add(kind, bytes.fromhex(text.decode("ascii")))
        except ValueError as error:
            raise SourceError(f"line {number} of {file.file} is not hex; correct it") from error
