"""LAION's published detectors: their files, checksums and licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

REPOSITORY = "https://raw.githubusercontent.com/LAION-AI/CLIP-based-NSFW-Detector/main"
"""The repository in which LAION publishes its detectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDetector:
    """A detector's zip file.

    Attributes
    ----------
    file : str
        Its name in the repository.
    sha256 : str
        Its SHA-256, in hex.
    """

    file: str
    sha256: str


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
