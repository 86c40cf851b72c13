"""The signed envelope of a statement: DSSE, with one Ed25519 signature, made and checked by securesystemslib."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from safetyfilter.errors import AttestationError, MissingExtraError
from safetyfilter.html_table import visible
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.storage import parse_json

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # public, says its documentation

    from safetyfilter.sealed.private_keys import PrivateKeys

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""The type of a payload that is an in-toto statement."""
REMEDY = "restore the file, or run `safetyfilter attest` again"
"""The remedy for an attestation that can't be read."""
_FIELDS, _SIGNATURE_FIELDS = {"payload", "payloadType", "signatures"}, {"keyid", "sig"}


def signed_envelope(payload: bytes, keys: PrivateKeys) -> bytes:
    """Return the text of an envelope around a payload, signed with an officer's key.

    Parameters
    ----------
    payload : bytes
        The text of a statement.
    keys : PrivateKeys
        The officer's.

    Raises
    ------
    MissingExtraError
        securesystemslib is not installed.

    Examples
    --------
    >>> from safetyfilter.sealed.private_keys import PrivateKeys
    >>> keys = PrivateKeys.generate()
    >>> checked_payload(signed_envelope(b"{}", keys), keys.public, "a file")
    b'{}'
    """
    public = _public(keys.public)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(Ed25519PrivateKey.from_private_bytes(keys.signing_seed), public))
    return (json.dumps(envelope.to_dict(), indent=2) + "\n").encode()


def checked_payload(content: bytes, key: OfficerKey, place: object) -> bytes:
    """Return the payload of an envelope that is signed with an officer's key, and with no other.

    Parameters
    ----------
    content : bytes
        The envelope's text.
    key : OfficerKey
        The officer's public key.
    place : object
        The file, for errors.

    Raises
    ------
    AttestationError
        It is not an envelope of an in-toto statement with one signature, or the signature is not by this key.
    MissingExtraError
        securesystemslib is not installed.

    Examples
    --------
    >>> checked_payload(b"[]", OfficerKey(sealing_key=bytes(32), verify_key=bytes(32)), "a file")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.AttestationError: a file is not an attestation (it is not an envelope with ...
    """
    public = _public(key)
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error, UnverifiedSignatureError

    data = _envelope(content, place)
    if (keyid := data["signatures"][0]["keyid"]) != public.keyid:
        raise AttestationError(
            f"{place} is signed with the key {visible(keyid[:40])}, and not with {key.fingerprint}; "
            "give the public key of whoever attested the run, or let the run be attested anew"
        )
    try:
        envelope = Envelope.from_dict(deepcopy(data))  # which takes it apart
        if envelope.to_dict() != data:
            raise ValueError("its base64 is not in the usual spelling")
        envelope.verify([public], 1)
    except UnverifiedSignatureError as error:
        raise AttestationError(
            f"{place}: the signature is not that of its content by the key {key.fingerprint}: it was changed, or "
            "signed by somebody else; let the run be attested anew"
        ) from error
    except (Error, ValueError) as error:
        raise AttestationError(f"{place} is not an attestation ({error}); {REMEDY}") from error
    return bytes(envelope.payload)


def _envelope(content: bytes, place: object) -> dict[str, Any]:
    """The fields of an envelope around an in-toto statement, with one signature."""
    try:
        data = parse_json(content)
    except ValueError as error:
        raise AttestationError(f"{place} is not an attestation ({error}); {REMEDY}") from error
    if not isinstance(data, dict) or data.keys() != _FIELDS:
        wrong = f"it is not an envelope with the fields {', '.join(sorted(_FIELDS))}"
    elif data["payloadType"] != PAYLOAD_TYPE or not isinstance(data["payload"], str):
        wrong = f"its payload is not of the type {PAYLOAD_TYPE}"
    elif not isinstance(data["signatures"], list) or len(data["signatures"]) != 1:
        wrong = "it has not one signature"
    elif not _is_signature(data["signatures"][0]):
        wrong = f"its signature has not the fields {', '.join(sorted(_SIGNATURE_FIELDS))}"
    else:
        return data
    raise AttestationError(f"{place} is not an attestation ({wrong}); {REMEDY}")


def _is_signature(found: object) -> bool:
    return (
        isinstance(found, dict)
        and found.keys() == _SIGNATURE_FIELDS
        and all(isinstance(value, str) for value in found.values())
    )


def _public(key: OfficerKey) -> SSlibKey:
    """The key as securesystemslib has it, known by the officer's fingerprint."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 - else a slow stand-in would be used
        from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("securesystemslib with cryptography", "attest") from error
    return SSlibKey(key.fingerprint, "ed25519", "ed25519", {"public": key.verify_key.hex()})
