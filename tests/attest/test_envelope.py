"""An envelope is believed only as it was signed, by the one key that was given."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from safetyfilter import Run
from safetyfilter.attest.envelope import PAYLOAD_TYPE, checked_payload, signed_envelope
from safetyfilter.attest.signed import signed_statement
from safetyfilter.attest.statement import PREDICATE_TYPE, STATEMENT_TYPE, Statement
from safetyfilter.attest.verify import verify_run
from safetyfilter.errors import AttestationError, OfficerKeyError
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.private_keys import PrivateKeys
from tests.attest.changing import edit_json

PAYLOAD = b'{"a": 1}'
ENVELOPES: dict[str, bytes] = {}
Fields = dict[str, Any]


def other_bytes(text: str) -> str:
    """Base64 of bytes of which the first differs."""
    content = base64.b64decode(text)
    return base64.b64encode(bytes([content[0] ^ 1]) + content[1:]).decode()


def twice(fields: Fields) -> None:
    fields["signatures"] = [*fields["signatures"], {**fields["signatures"][0], "keyid": "another"}]


def by_another(fields: Fields) -> None:
    """Signed by another key, which calls itself by the name of the right one."""
    made = json.loads(signed_envelope(base64.b64decode(fields["payload"]), PrivateKeys.generate()))
    fields["signatures"][0]["sig"] = made["signatures"][0]["sig"]


CHANGES: dict[str, Callable[[Fields], object]] = {
    "payload": lambda fields: fields.update(payload=other_bytes(fields["payload"])),
    "payload spelt otherwise": lambda fields: fields.update(payload=fields["payload"].replace("=", "") + "===="),
    "payload in URL's base64": lambda fields: fields.update(payload="_-" + fields["payload"][2:]),
    "no text": lambda fields: fields.update(payload=7),
    "not ASCII": lambda fields: fields.update(payload="\ud800"),
    "type": lambda fields: fields.update(payloadType="application/json"),
    "signature": lambda fields: fields["signatures"][0].update(sig=other_bytes(fields["signatures"][0]["sig"])),
    "short signature": lambda fields: fields["signatures"][0].update(sig="AAAA"),
    "two signatures": twice,
    "the same twice": lambda fields: fields.update(signatures=fields["signatures"] * 2),
    "no signature": lambda fields: fields.update(signatures=[]),
    "signature of a text": lambda fields: fields.update(signatures=["sig"]),
    "key's name": lambda fields: fields["signatures"][0].update(keyid="another"),
    "another signer": by_another,
    "further field": lambda fields: fields.update(more=1),
    "further field of the signature": lambda fields: fields["signatures"][0].update(more=1),
    "missing field": lambda fields: fields.pop("payloadType"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_envelope_is_refused(keys: PrivateKeys, name: str) -> None:
    fields = json.loads(signed_envelope(PAYLOAD, keys))
    assert checked_payload(json.dumps(fields).encode(), keys.public, "a file") == PAYLOAD
    CHANGES[name](fields)
    with pytest.raises(AttestationError, match="a file"):
        checked_payload(json.dumps(fields).encode(), keys.public, "a file")


@pytest.mark.parametrize("content", [b"", b"null", b"\xff", b"[" * 5000, b"{}", b'{"payload": "', b"NaN"])
def test_what_is_no_envelope_is_refused(keys: PrivateKeys, content: bytes) -> None:
    with pytest.raises(AttestationError, match="is not an attestation"):
        checked_payload(content, keys.public, "a file")


def test_another_key_is_refused(keys: PrivateKeys) -> None:
    other = PrivateKeys.generate().public
    with pytest.raises(AttestationError, match=f"is signed with the key {keys.public.fingerprint}, and not with"):
        checked_payload(signed_envelope(PAYLOAD, keys), other, "a file")


def test_what_a_stranger_wrote_is_shown_without_its_hidden_characters(run: Run, keys: PrivateKeys) -> None:
    fields = json.loads(signed_envelope(PAYLOAD, keys))
    fields["signatures"][0]["keyid"] = "\x1b[2J\u202e"
    with pytest.raises(AttestationError, match=r"with the key \\u001b\[2J\\u202e, and"):
        checked_payload(json.dumps(fields).encode(), keys.public, "a file")
    edit_json(Path(run.path) / "run.json", lambda record: record.update({"\x1b[2J": 1}))
    assert "\\u001b[2J" in verify_run(run.path, keys.public).failed[0].found


def test_the_other_half_of_the_key_counts(keys: PrivateKeys) -> None:
    """The fingerprint is of both halves, so an attester is the officer whose records these are."""
    half = OfficerKey(sealing_key=bytes(32), verify_key=keys.public.verify_key)
    with pytest.raises(AttestationError, match="is signed with the key"):
        checked_payload(signed_envelope(PAYLOAD, keys), half, "a file")


def test_anybody_can_check_the_signature_by_the_documents_alone(run: Run, keys: PrivateKeys) -> None:
    """As docs/attestation.md has it, with another library."""
    fields = json.loads((Path(run.path) / "attestation.json").read_text())
    payload = base64.b64decode(fields["payload"])
    signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    VerifyKey(keys.public.verify_key).verify(signed, base64.b64decode(fields["signatures"][0]["sig"]))
    statement = json.loads(payload)
    assert (statement["_type"], statement["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    assert [subject["name"] for subject in statement["subject"]] == ["rows", "kept"]


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda statement: statement.update(predicateType="urn:safetyfilter:attestation:v2"),
        lambda statement: statement.pop("predicate"),
        lambda statement: statement.update(predicate=[]),
        lambda statement: statement["predicate"].pop("run"),
        lambda statement: statement["predicate"]["run"].pop("encoder"),
        lambda statement: statement["subject"].pop(),
        lambda statement: statement["subject"][0].update(digest={"sha256": "00"}),
        lambda statement: statement.update(subject=7),
    ],
)
def test_a_signed_statement_of_another_kind_is_told(run: Run, keys: PrivateKeys, change) -> None:
    place = Path(run.path) / "attestation.json"
    statement = json.loads(checked_payload(place.read_bytes(), keys.public, place))
    change(statement)
    place.write_bytes(signed_envelope(json.dumps(statement).encode(), keys))
    with pytest.raises(AttestationError):
        verify_run(run, keys.public).require()


def test_a_statement_is_read_back_as_it_was_written(run: Run, keys: PrivateKeys) -> None:
    statement = signed_statement(run.path, keys.public)
    assert Statement.read(statement.payload(), "a file") == statement


def test_the_private_keys_verify_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "officer.key").write_text('{"kind": "officer\'s private keys", "version": 1}')
    with pytest.raises(OfficerKeyError, match="private keys"):
        verify_run(run, tmp_path / "officer.key")


def test_a_huge_attestation_is_not_read(run: Run, keys: PrivateKeys) -> None:
    with (Path(run.path) / "attestation.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(AttestationError, match="can't be read"):
        verify_run(run, keys.public).require()


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_mutated_envelope_is_refused_or_says_the_same(keys: PrivateKeys, data: st.DataObject) -> None:
    content = bytearray(ENVELOPES.setdefault("whole", signed_envelope(PAYLOAD, keys)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["flip", "drop", "double", "cut"]))
        if kind == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "drop":
            del content[at]
        elif kind == "double":
            content[at:at] = content[at : at + 9]
        else:
            del content[at:]
        content = content or bytearray(b"0")
    with suppress(AttestationError):
        assert checked_payload(bytes(content), keys.public, "a file") == PAYLOAD
