"""Finds marks in bytes: as they are, encoded in the usual ways, or as a digest that needs no secret."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

WINDOW = 8
"""Bytes by which a needle is looked for first; no needle is shorter."""

HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")
"""The digests that are told apart; what begins like one of them is one cut short."""

_TEXT_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def forms_of(text: str) -> dict[str, bytes]:
    """A text as it may stand in a file, by the name of the form."""
    found = {encoding: text.encode(encoding) for encoding in _TEXT_ENCODINGS}
    plain = text.encode()
    found |= {f"hex of {encoding}": found[encoding].hex().encode() for encoding in _TEXT_ENCODINGS}
    for shift in range(3):  # wherever the text begins in what was encoded
        encoded = base64.b64encode(b"\0" * shift + plain)
        whole = encoded[(0, 2, 3)[shift] : len(encoded) - 4]
        found[f"base64, {shift} bytes in"] = whole
        if (for_urls := whole.translate(bytes.maketrans(b"+/", b"-_"))) != whole:
            found[f"base64 for URLs, {shift} bytes in"] = for_urls
    found["base32"] = base64.b32encode(plain)[: len(plain) * 8 // 5]
    found["percent-encoded"] = "".join(f"%{byte:02x}" for byte in plain).encode()
    found["JSON escapes"] = "".join(f"\\u{ord(letter):04x}" for letter in text).encode()
    found["character references"] = "".join(f"&#{ord(letter)};" for letter in text).encode()
    found["hexadecimal character references"] = "".join(f"&#x{ord(letter):x};" for letter in text).encode()
    found["backwards"] = plain[::-1]
    return found


def digests_of(content: bytes) -> dict[str, bytes]:
    """Digests of bytes that anyone can compute, by name, as bytes."""
    found = {name: hashlib.new(name, content).digest() for name in HASHES}
    # A shorter BLAKE2 is another digest, and not the beginning of a longer one.
    found |= {
        f"blake2b of {size} bytes": hashlib.blake2b(content, digest_size=size).digest() for size in (8, 16, 20, 32)
    }
    found["blake2s of 16 bytes"] = hashlib.blake2s(content, digest_size=16).digest()
    found["two of zlib's"] = zlib.crc32(content).to_bytes(4, "big") + zlib.adler32(content).to_bytes(4, "big")
    return found


def digest_forms(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The beginnings of digests of bytes as they may stand in a file, each with the name of its form."""
    for name, digest in digests_of(content).items():
        for way, each in ((name, digest), (f"{name} backwards", digest[::-1])):
            yield way, each[:WINDOW]
            yield f"{way} in hex", each.hex()[: 2 * WINDOW].encode()
            yield f"{way} in base64", (plain := base64.b64encode(each)[:10])
            if (for_urls := base64.urlsafe_b64encode(each)[:10]) != plain:
                yield f"{way} in base64 for URLs", for_urls


class Finder:
    """Looks for many needles at once.

    Parameters
    ----------
    needles : mapping of bytes to str
        What is looked for -> what it is called.
    """

    def __init__(self, needles: Mapping[bytes, str]) -> None:
        if short := [name for needle, name in needles.items() if len(needle) < WINDOW]:
            raise ValueError(f"{short[0]} is shorter than {WINDOW} bytes")
        self._by_start: dict[int, list[tuple[bytes, str]]] = {}
        for needle, name in needles.items():
            start = int.from_bytes(needle[:WINDOW], "little")
            self._by_start.setdefault(start, []).append((needle, name))
        self._starts = np.array(sorted(self._by_start), np.uint64)

    def __len__(self) -> int:
        return sum(map(len, self._by_start.values()))

    @classmethod
    def of(cls, texts: Mapping[str, str], contents: Mapping[str, bytes]) -> Finder:
        """Return a finder of texts by name, and of digests of contents by name."""
        needles: dict[bytes, str] = {}
        for name, text in texts.items():
            needles |= {form: f"{name} ({how})" for how, form in forms_of(text).items()}
        for name, content in contents.items():
            needles |= {form: f"{name} ({how})" for how, form in digest_forms(content)}
        return cls(needles)

    def found(self, data: bytes) -> set[str]:
        """Return the names of the needles in bytes; of texts, upper and lower case are one."""
        return set(self._found(data)) | set(self._found(data.lower()))

    def _found(self, data: bytes) -> Iterator[str]:
        for shift in range(min(WINDOW, max(0, len(data) - WINDOW + 1))):
            windows = np.frombuffer(data, "<u8", (len(data) - shift) // WINDOW, shift)
            at = np.searchsorted(self._starts, windows).clip(max=len(self._starts) - 1)
            for number in np.flatnonzero(self._starts[at] == windows).tolist():
                place = shift + number * WINDOW
                for needle, name in self._by_start[int(windows[number])]:
                    if data.startswith(needle, place):
                        yield name

    def found_in(self, pieces: Iterable[bytes]) -> set[str]:
        """Return the names of the needles in any of several pieces."""
        return set().union(*map(self.found, pieces))
