"""The officer's private keys: made, kept under a passphrase, and opened by the officer alone."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from safetyfilter.errors import OfficerKeyError, OutputError, UsageError
from safetyfilter.sealed.keys import (
    KEY_BYTES,
    KEY_VERSION,
    PRIVATE_KIND,
    PUBLIC_KIND,
    OfficerKey,
    hex_field,
    key_content,
    key_fields,
    nacl_module,
    public_path,
)
from safetyfilter.storage import Location, Place, create_private, local_path

SHORTEST_PASSPHRASE = 12
"""Characters that a passphrase must have at least."""
_LONGEST_PASSPHRASE = 1024
OPERATIONS, MEMORY_BYTES = 3, 1 << 28
"""The cost of a guess at the passphrase: libsodium's moderate limits for Argon2id."""
_MOST_OPERATIONS, _MOST_MEMORY_BYTES = 16, 1 << 30
"""Limits on what a file may ask of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeys:
    """Both private keys of an officer, in the clear, in memory alone: they are neither shown nor pickled.

    Attributes
    ----------
    sealing : bytes
        X25519, 32 bytes: opens sealed records.
    signing_seed : bytes
        Ed25519, 32 bytes: signs attestations.
    """

    sealing: bytes = field(repr=False)
    signing_seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> PrivateKeys:
        """Return new keys from the system's source of random numbers.

        >>> len(PrivateKeys.generate().signing_seed)
        32
        """
        return cls(
            sealing=bytes(nacl_module("public").PrivateKey.generate()),
            signing_seed=bytes(nacl_module("signing").SigningKey.generate()),
        )

    @classmethod
    def open(cls, place: Place, passphrase: str) -> PrivateKeys:
        """Return the keys in a file that `write_keys` made.

        Parameters
        ----------
        place : path, URL or Location
            The file of private keys.
        passphrase : str
            What it was made with.

        Raises
        ------
        OfficerKeyError
            It is not such a file, is damaged, or the passphrase is another one.
        MissingExtraError
            PyNaCl is not installed.
        StorageError
            The storage failed each time it was asked.
        """
        fields = key_fields(key_content(place), place)
        if fields.get("kind") == PUBLIC_KIND:
            raise OfficerKeyError(f"{place} is the public key; give the private keys: the file without .pub at its end")
        if fields.get("kind") != PRIVATE_KIND or fields.get("version") != KEY_VERSION:
            raise OfficerKeyError(f"{place} is not an officer's private keys of version {KEY_VERSION}; give that file")
        key = _stretched(passphrase, _costs(fields, place), hex_field(fields, "salt", place))
        try:
            content = nacl_module("secret").SecretBox(key).decrypt(hex_field(fields, "box", place))
        except nacl_module("exceptions").CryptoError as error:
            raise OfficerKeyError(
                f"{place} can't be opened: the passphrase is not the one it was made with, or the file is damaged; "
                "try again, or restore it from a copy"
            ) from error
        if len(content) != 2 * KEY_BYTES:
            raise OfficerKeyError(f"{place} does not hold two keys of {KEY_BYTES} bytes; restore it from a copy")
        keys = cls(sealing=content[:KEY_BYTES], signing_seed=content[KEY_BYTES:])
        if fields.get("fingerprint") != keys.public.fingerprint:
            raise OfficerKeyError(f"{place}: the fingerprint is not that of the keys in it; restore it from a copy")
        return keys

    @property
    def public(self) -> OfficerKey:
        """The public half.

        >>> keys = PrivateKeys(sealing=bytes(32), signing_seed=bytes(32))
        >>> keys.public.verify_key.hex()[:16]
        '3b6a27bcceb6a42d'
        """
        return OfficerKey(
            sealing_key=bytes(nacl_module("public").PrivateKey(self.sealing).public_key),
            verify_key=bytes(nacl_module("signing").SigningKey(self.signing_seed).verify_key),
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled: they stay in the officer's process")


def write_keys(place: Place, passphrase: str) -> OfficerKey:
    """Make an officer's keys, write both files, and return the public key.

    The private keys are encrypted under the passphrase (Argon2id, XSalsa20-Poly1305) and only their owner may read the
    file (mode 0600) from its first byte; the public key lies beside it, under the same name with ``.pub`` at its end.

    Parameters
    ----------
    place : path or Location
        A file on this machine that is not there yet.
    passphrase : str
        At least 12 characters. Nobody can open the records without it.

    Raises
    ------
    OutputError
        One of the files is there already and is left as it is, or can't be written; or the place is on other storage.
    UsageError
        The passphrase is too short, or longer than 1,024 characters.
    MissingExtraError
        PyNaCl is not installed.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "officer.key"
    >>> public = write_keys(path, "a phrase of several words")
    >>> PrivateKeys.open(path, "a phrase of several words").public == public
    True
    """
    require_passphrase(passphrase)
    path = require_new(place)
    public = public_path(path)
    keys = PrivateKeys.generate()
    _create(path, _private_text(keys, passphrase))
    try:
        _create(public, keys.public.to_text())
        public.chmod(0o644)
    except BaseException:
        path.unlink(missing_ok=True)  # nobody has this key yet, and half a pair is in the way of the next attempt
        raise
    return keys.public


def require_new(place: Place) -> Path:
    """Return the place for new keys as a local path; `OutputError` where one of the two files is there already.

    >>> require_new("/no-such-folder/officer.key").name
    'officer.key'
    """
    path = local_path(place, "an officer's key")
    if not path.name:
        raise OutputError(f"{str(place)!r} names no file; give a name for the officer's keys")
    for file in (path, public_path(path)):
        if file.is_symlink() or file.exists():
            raise OutputError(f"{file} is there already, and a key is never replaced; give another name")
    return path


def require_passphrase(passphrase: str) -> None:
    """Raise `UsageError` for a passphrase that is too short or too long.

    >>> require_passphrase("short")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: the passphrase has 5 characters; it must have 12 to 1,024: take several words
    """
    if not SHORTEST_PASSPHRASE <= len(passphrase) <= _LONGEST_PASSPHRASE:
        raise UsageError(
            f"the passphrase has {len(passphrase):,} characters; it must have {SHORTEST_PASSPHRASE} to "
            f"{_LONGEST_PASSPHRASE:,}: take several words"
        )


def _private_text(keys: PrivateKeys, passphrase: str) -> str:
    salt: bytes = nacl_module("utils").random(16)
    costs = (OPERATIONS, MEMORY_BYTES)
    box = nacl_module("secret").SecretBox(_stretched(passphrase, costs, salt)).encrypt(keys.sealing + keys.signing_seed)
    fields = {
        "kind": PRIVATE_KIND,
        "version": KEY_VERSION,
        "fingerprint": keys.public.fingerprint,
        "key_from_passphrase": "argon2id",
        "operations": costs[0],
        "memory_bytes": costs[1],
        "salt": salt.hex(),
        "box": bytes(box).hex(),
    }
    return json.dumps(fields, indent=2) + "\n"


def _costs(fields: dict[str, Any], place: object) -> tuple[int, int]:
    """Return operations and bytes of memory, within what a file may ask for."""
    operations, memory = fields.get("operations"), fields.get("memory_bytes")
    if (
        fields.get("key_from_passphrase") != "argon2id"
        or type(operations) is not int
        or type(memory) is not int
        or not 1 <= operations <= _MOST_OPERATIONS
        or not 8192 <= memory <= _MOST_MEMORY_BYTES
    ):
        raise OfficerKeyError(
            f"{place}: the costs of its passphrase are not Argon2id's within {_MOST_OPERATIONS} operations and "
            f"{_MOST_MEMORY_BYTES:,} bytes of memory; the file is damaged: restore it from a copy"
        )
    return operations, memory


def _stretched(passphrase: str, costs: tuple[int, int], salt: bytes) -> bytes:
    """Return the key that a passphrase gives; the same for one that is typed on another system."""
    argon2id = nacl_module("pwhash").argon2id
    if len(salt) != argon2id.SALTBYTES:
        raise OfficerKeyError(
            f"the salt is not {argon2id.SALTBYTES} bytes; the file is damaged: restore it from a copy"
        )
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    key: bytes = argon2id.kdf(nacl_module("secret").SecretBox.KEY_SIZE, text, salt, *costs)
    return key


def _create(path: Path, text: str) -> None:
    try:
        create_private(Location.local(str(path)), text.encode("ascii"))
    except FileExistsError as error:
        raise OutputError(f"{path} is there already, and a key is never replaced; give another name") from error
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror or error}; choose a writable place") from error
