"""Zero-shot probes in the user's cache: an encoder embeds the same prompts once.

An entry is for one encoder (the digest of its specification, and so of its weights), the prompts of each signal and the
tokens that they become, and the versions of this library and of open_clip. Whoever could write to the cache could put
other probes into it: it is used only where it lies in a folder that is this user's own and that nobody else may write
to. A probe's digest, which is kept beside it, tells an entry that was damaged; it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save

import safetyfilter
from safetyfilter.batches import Unreadable
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import SafetyFilterError
from safetyfilter.score.files import unpacked
from safetyfilter.score.linear import LinearProbe
from safetyfilter.storage import cache_folder
from safetyfilter.storage.own_files import NotOwnError, read_own, write_own

_METHOD = 1
"""Counts the ways in which probes were made of prompts."""
_MOST_BYTES = 16 << 20

_log = logging.getLogger(__name__)

Prompts = Mapping[str, tuple[Sequence[str], Sequence[str]]]


@runtime_checkable
class TellsTokens(Protocol):
    """An encoder that tells what its texts become before its text tower sees them."""

    @property
    def spec(self) -> EncoderSpec:
        """Its identity."""

    def tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (N, L) int64 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """The place of the probes that an encoder makes of prompts.

    Attributes
    ----------
    folder : Path
        That of the cache.
    key : str
        SHA-256 in hex over all that the probes come from.
    spec : EncoderSpec
        The encoder's identity.
    signals : tuple of str
        The signals, one for each probe.
    """

    folder: Path
    key: str
    spec: EncoderSpec
    signals: tuple[str, ...]

    @classmethod
    def of(cls, encoder: TellsTokens, prompts: Prompts) -> CacheEntry | None:
        """Return the entry of an encoder and prompts; None where this user has no cache.

        Errors are those of the encoder's tokenizer.
        """
        texts = [text for sides in prompts.values() for side in sides for text in side]
        tokens = np.asarray(encoder.tokens(texts), np.int64)
        what = {
            "method": _METHOD,
            "versions": [safetyfilter.__version__, version("open_clip_torch")],
            "encoder": encoder.spec.digest,
            "prompts": [[signal, *map(list, sides)] for signal, sides in prompts.items()],
            "tokens": [list(tokens.shape), hashlib.sha256(tokens.tobytes()).hexdigest()],
        }
        try:
            folder = cache_folder() / "zero-shot"
        except (SafetyFilterError, RuntimeError):  # a URL, or a user without a home
            return None
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return cls(folder=folder, key=key, spec=encoder.spec, signals=tuple(prompts))

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.key}.safetensors"

    def read(self) -> list[LinearProbe] | None:
        """Return the probes; None where there are none, or none that can be trusted."""
        try:
            content = read_own(self.folder, self.name, _MOST_BYTES)
            return None if content is None else self._checked(content)
        except NotOwnError as error:
            _log.warning("zero-shot probes are made anew: %s; make it private (chmod go-w), or remove it", error)
        except OSError as error:
            _log.info("zero-shot probes are made anew: the cache can't be read (%s)", error.strerror or error)
        except (SafetyFilterError, SafetensorError, Unreadable, KeyError, TypeError, ValueError):
            _log.info("zero-shot probes are made anew: those in the cache are damaged")
        return None

    def write(self, probes: Sequence[LinearProbe]) -> None:
        """Keep the probes; a cache that can't be written to, or not be trusted, is left as it is."""
        tensors, header = LinearProbe.pack(probes)
        digests = json.dumps([probe.digest for probe in probes])
        content = save(tensors, metadata={**header, "kind": LinearProbe.kind, "key": self.key, "digests": digests})
        try:
            write_own(self.folder, self.name, content)
        except OSError as error:
            _log.info("zero-shot probes are not kept: %s", error.strerror or error)

    def _checked(self, content: bytes) -> list[LinearProbe]:
        tensors, header = unpacked(content)
        probes = LinearProbe.unpack(tensors, header)
        if (
            header["key"] != self.key
            or tuple(probe.signal for probe in probes) != self.signals
            or json.dumps([probe.digest for probe in probes]) != header["digests"]
            or any(probe.card is None or probe.card.method != "zero-shot" for probe in probes)
        ):
            raise ValueError("it is not what was kept")
        bound = [probe.bind(self.spec) for probe in probes]
        return [replace(probe, card=probe.card and replace(probe.card, encoder=self.spec.name)) for probe in bound]
