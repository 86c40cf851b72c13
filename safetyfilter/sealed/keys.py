"""The officer's public key: what the scanning machine has, to seal records that it can't read back."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetyfilter.batches import Unreadable
from safetyfilter.errors import MissingExtraError, OfficerKeyError, UsageError
from safetyfilter.storage import Location, Place, parse_json

KEY_BYTES = 32
"""The length of each key, X25519 and Ed25519, public and private."""
PUBLIC_KIND = "officer's public key"
PRIVATE_KIND = "officer's private keys"
KEY_VERSION = 1
"""The version of both files' form."""
_MOST_BYTES = 16_384
"""Of a key file; ours have fewer than one thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficerKey:
    """The public half of an officer's keys: it seals records and checks attestations, and opens nothing.

    Attributes
    ----------
    sealing_key : bytes
        X25519, 32 bytes: records are encrypted to it.
    verify_key : bytes
        Ed25519, 32 bytes: attestations are checked with it.

    Examples
    --------
    >>> key = OfficerKey(sealing_key=bytes(31) + b"1", verify_key=bytes(31) + b"2")
    >>> OfficerKey.load(key.to_text()) == key
    True
    """

    sealing_key: bytes
    verify_key: bytes

    def __post_init__(self) -> None:
        for name, value in (("sealing", self.sealing_key), ("verifying", self.verify_key)):
            if not isinstance(value, bytes) or len(value) != KEY_BYTES:
                raise OfficerKeyError(f"the {name} key is not {KEY_BYTES} bytes; make keys with `officer keygen`")

    @property
    def fingerprint(self) -> str:
        """The first 128 bits, in hex, of the SHA-256 over both keys: what two people compare, and a run records.

        >>> OfficerKey(sealing_key=bytes(32), verify_key=bytes(32)).fingerprint
        'f5a5fd42d16a20302798ef6ed309979b'
        """
        return hashlib.sha256(self.sealing_key + self.verify_key).hexdigest()[:32]

    @property
    def spoken_fingerprint(self) -> str:
        """The fingerprint in groups of four digits, to be read out over the telephone.

        >>> OfficerKey(sealing_key=bytes(32), verify_key=bytes(32)).spoken_fingerprint
        'f5a5 fd42 d16a 2030 2798 ef6e d309 979b'
        """
        return " ".join(re.findall("....", self.fingerprint))

    @classmethod
    def load(cls, place_or_text: Place) -> OfficerKey:
        """Return the public key in a file, or in the text of one.

        Parameters
        ----------
        place_or_text : path, URL, Location or str
            The file that ends in ``.pub``; a text that starts with ``{`` is its content.

        Raises
        ------
        OfficerKeyError
            It is not there, can't be read, is not a public key, or is the private keys' file, which has no business on
            a machine that scans.
        UsageError
            It is of another type.
        StorageError
            The storage failed each time it was asked.
        """
        if not isinstance(place_or_text, str | os.PathLike | Location):
            raise UsageError(
                f"the officer's public key is a {type(place_or_text).__name__}; give its file, as officer.key.pub, "
                "or an OfficerKey"
            )
        if isinstance(place_or_text, str) and place_or_text.lstrip().startswith("{"):
            return cls.from_fields(key_fields(place_or_text.encode(), "the text"), "the text")
        return cls.from_fields(key_fields(key_content(place_or_text), place_or_text), place_or_text)

    @classmethod
    def from_fields(cls, fields: dict[str, Any], place: object) -> OfficerKey:
        """Return the public key in the fields of its file; errors as of `load`."""
        if fields.get("kind") == PRIVATE_KIND:
            raise OfficerKeyError(
                f"{place} holds the officer's private keys, which are the officer's alone and not for a machine that "
                "scans; give the public key, the file of the same name that ends in .pub"
            )
        if fields.get("kind") != PUBLIC_KIND or fields.get("version") != KEY_VERSION:
            raise OfficerKeyError(f"{place} is not an {PUBLIC_KIND} of version {KEY_VERSION}; ask the officer for it")
        key = cls(
            sealing_key=hex_field(fields, "sealing_key", place), verify_key=hex_field(fields, "verify_key", place)
        )
        if fields.get("fingerprint") != key.fingerprint:
            raise OfficerKeyError(
                f"{place}: the fingerprint is not that of the keys, so the file was changed; ask the officer for it"
            )
        key.sealed(b"")  # a key that can't be used is found here, and not hours into a scan
        return key

    def sealed(self, content: bytes) -> bytes:
        """Return a content as a sealed box, which the officer alone can open, 48 bytes longer.

        Raises
        ------
        OfficerKeyError
            Nothing can be encrypted to this key.
        MissingExtraError
            PyNaCl is not installed.

        Examples
        --------
        >>> OfficerKey(sealing_key=bytes(32), verify_key=bytes(32)).sealed(b"content")
        Traceback (most recent call last):
            ...
        safetyfilter.errors.OfficerKeyError: nothing can be encrypted to the officer's key; ask the officer for it again
        """
        public = nacl_module("public")
        try:
            return bytes(public.SealedBox(public.PublicKey(self.sealing_key)).encrypt(content))
        except nacl_module("exceptions").CryptoError as error:  # a point of small order
            raise OfficerKeyError(
                "nothing can be encrypted to the officer's key; ask the officer for it again"
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the public key's file."""
        return {
            "kind": PUBLIC_KIND,
            "version": KEY_VERSION,
            "sealing_key": self.sealing_key.hex(),
            "verify_key": self.verify_key.hex(),
            "fingerprint": self.fingerprint,
        }

    def to_text(self) -> str:
        """Return the text of the public key's file, in JSON, which `load` reads back."""
        return json.dumps(self.as_dict(), indent=2) + "\n"


def key_content(place: Place) -> bytes:
    """Return the bytes of a key file; `OfficerKeyError` where it can't be read or is far too long."""
    try:
        return Location.of(place).read_bytes(_MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OfficerKeyError(
            f"there is no key file {os.fspath(place)}; `safetyfilter officer keygen` makes the pair"
        ) from error
    except (PermissionError, IsADirectoryError, Unreadable) as error:
        raise OfficerKeyError(
            f"{os.fspath(place)} is not a key file that can be read: it is a folder, too large or not permitted; give "
            "a file that `safetyfilter officer keygen` made"
        ) from error


def key_fields(content: bytes, place: object) -> dict[str, Any]:
    """Return the fields of a key file; `OfficerKeyError` where it is not one.

    >>> key_fields(b'{"kind": "other"}', "a file")
    {'kind': 'other'}
    """
    try:
        fields = parse_json(content)
    except ValueError as error:
        raise OfficerKeyError(f"{place} is not a key file ({error}); give one made by `officer keygen`") from error
    if not isinstance(fields, dict):
        raise OfficerKeyError(f"{place} is not a key file: it holds no object; give one made by `officer keygen`")
    return fields


def hex_field(fields: dict[str, Any], name: str, place: object) -> bytes:
    """Return a field's bytes, which it holds in hex; `OfficerKeyError` otherwise.

    >>> hex_field({"salt": "00ff"}, "salt", "a file")
    b'\\x00\\xff'
    """
    value = fields.get(name)
    if not isinstance(value, str) or not re.fullmatch("(?:[0-9a-f]{2})+", value):
        raise OfficerKeyError(f"{place}: the field {name} is not hexadecimal; the file is damaged: restore it")
    return bytes.fromhex(value)


def public_path(path: Path) -> Path:
    """Return the place of the public key that belongs to a file of private keys.

    >>> public_path(Path("officer.key")).name
    'officer.key.pub'
    """
    return path.with_name(f"{path.name}.pub")


def nacl_module(name: str) -> Any:
    """Return a module of PyNaCl, such as ``public``; `MissingExtraError` where it is not installed.

    >>> nacl_module("public").SealedBox.__name__
    'SealedBox'
    """
    try:
        return importlib.import_module(f"nacl.{name}")
    except ImportError as error:
        raise MissingExtraError("PyNaCl", "sealed") from error
