"""The record of an encoder's first use, in the user's cache, against which later uses on this machine are held.

Whoever could write to the cache could put another record there: it is used only where it is this user's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

from safetyfilter.embed.pictures.images import PREPARATION
from safetyfilter.embed.self_check.checks import ImageEncoder, require_like
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.embed.self_check.pictures import PICTURES_VERSION
from safetyfilter.errors import SafetyFilterError
from safetyfilter.storage import cache_folder, parse_json
from safetyfilter.storage.own_files import NotOwnError, read_own, write_own

_MOST_BYTES = 1 << 20
_FULL = "float32"

_log = logging.getLogger(__name__)


def require_as_first(encoder: ImageEncoder, now: CheckEmbeddings, quantised: str = "") -> None:
    """Hold embeddings against those of this encoder's first use by this user on this machine, or keep them as such.

    Those of the first use in float32 are held against too, whatever the precision is. A cache that can't be read or
    written, or not be trusted, is told and left alone.

    Parameters
    ----------
    encoder : ImageEncoder
        The encoder.
    now : CheckEmbeddings
        Its embeddings.
    quantised : str
        The digest of its image tower in int8; empty in every other precision.

    Raises
    ------
    SelfCheckError
        They are others.
    """
    try:
        folder = cache_folder() / "self-check"
    except (SafetyFilterError, RuntimeError):  # a URL, or a user without a home
        return
    own = _name(encoder, now, quantised)
    for name in dict.fromkeys((own, _name(encoder, replace(now, precision=_FULL), ""))):
        before = _read(folder, name)
        if before is not None:
            where, remedy = f"first use, {folder / name}", f"If it was wrong at its first use, remove {folder / name}"
            require_like(encoder, now, before, where, remedy)
        elif name == own:
            _write(folder, name, now)


def _name(encoder: ImageEncoder, now: CheckEmbeddings, quantised: str) -> str:
    what = [PICTURES_VERSION, PREPARATION, encoder.spec.digest, now.precision, now.view, quantised]
    return f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()}.json"


def _read(folder: Path, name: str) -> CheckEmbeddings | None:
    try:
        content = read_own(folder, name, _MOST_BYTES)
        return None if content is None else CheckEmbeddings.from_dict(parse_json(content))
    except NotOwnError as error:
        _log.warning("the encoder is not held against its first use: %s; make it private (chmod go-w)", error)
    except OSError as error:
        _log.info("the encoder is not held against its first use: %s", error.strerror or error)
    except (LookupError, TypeError, ValueError):
        _log.info("the encoder is not held against its first use: what was recorded of it is damaged")
    return None


def _write(folder: Path, name: str, now: CheckEmbeddings) -> None:
    try:
        write_own(folder, name, json.dumps(now.as_dict()).encode())
    except OSError as error:
        _log.info("the encoder's first use is not recorded: %s", error.strerror or error)
