"""LAION's published detectors: their files, checksums and licence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from safetyfilter.score.laion import DetectorCard

REPOSITORY = "https://raw.githubusercontent.com/LAION-AI/CLIP-based-NSFW-Detector/main"
"""The repository in which LAION publishes its detectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDetector:
    """A detector's file.

    Attributes
    ----------
    file : str
        Its name in the repository.
    sha256 : str
        Its SHA-256, in hex; empty where it is known by Git's id alone.
    git_blob : str
        Git's id of it as its repository has it, in hex: of the file that was published, since SHA-1 keeps nobody from
        making another with the same id who made both.
    """

    file: str
    sha256: str = ""
    git_blob: str = ""

    @property
    def known_by(self) -> str:
        """Its digest, with the name of the algorithm, for an error."""
        return f"the SHA-256 {self.sha256}" if self.sha256 else f"Git's id {self.git_blob}"

    def found(self, data: bytes) -> str:
        """Return the digest of some bytes in the words of `known_by`."""
        return replace(
            self,
            sha256=hashlib.sha256(data).hexdigest() if self.sha256 else "",
            git_blob="" if self.sha256 else git_blob(data),
        ).known_by

    def is_file(self, data: bytes) -> bool:
        """Return True for the bytes of the published file."""
        return self.found(data) == self.known_by

    def is_source(self, card: DetectorCard) -> bool:
        """Return True for the card of a detector that was converted from this file."""
        return card.sha256 == self.sha256 if self.sha256 else card.git_blob == self.git_blob


def git_blob(data: bytes) -> str:
    """Return Git's id of a file's content, in hex.

    >>> git_blob(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    digest = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


PUBLISHED: Mapping[str, PublishedDetector] = MappingProxyType(
    {
        "laion-l14": PublishedDetector(
            file="clip_autokeras_binary_nsfw.zip",
            sha256="905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
        ),
        "laion-b32": PublishedDetector(
            file="clip_autokeras_nsfw_b32.zip",
            sha256="78715ab9d64485167e8c9ade3b8e6761a17a16c24d114bd47431ac1dab46462b",
        ),
        "laion-h14": PublishedDetector(file="h14_nsfw.pth", git_blob="5c5d8ecea5da82f9e6f1201692691f9f8874759d"),
    }
)
"""The detectors, by the name this library gives them (`safetyfilter.score.named.NAMES`)."""

LICENCE = """MIT License

Copyright 2022, Christoph Schuhmann

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated \
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the \
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit \
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE \
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR \
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR \
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
"""The licence under which LAION publishes its detectors; a converted one carries it."""
