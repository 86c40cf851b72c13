"""The officer's keys: for their owner alone, never replaced, and opened by the passphrase and nothing else."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetyfilter.errors import OfficerKeyError, OutputError, UsageError
from safetyfilter.sealed import private_keys
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.private_keys import PrivateKeys, require_new, write_keys


@pytest.fixture
def pair(tmp_path: Path, quick_passphrase: str) -> Path:
    """The file of private keys, beside which the public key lies."""
    write_keys(tmp_path / "officer.key", quick_passphrase)
    return tmp_path / "officer.key"


def changed(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_both_files_hold_one_pair(pair: Path, quick_passphrase: str) -> None:
    keys, public = PrivateKeys.open(pair, quick_passphrase), OfficerKey.load(f"{pair}.pub")
    assert keys.public == public == OfficerKey.load(public.to_text())
    assert len(keys.sealing) == len(keys.signing_seed) == len(public.sealing_key) == len(public.verify_key) == 32
    assert keys.sealing != keys.signing_seed
    assert (
        public.spoken_fingerprint.replace(" ", "") == public.fingerprint == json.loads(pair.read_text())["fingerprint"]
    )


def test_only_the_owner_may_read_the_private_keys_from_the_first_byte(
    tmp_path: Path, quick_passphrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, int] = {}
    really = os.open

    def watched(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        if flags & os.O_CREAT and str(tmp_path) in os.fspath(path):
            made[Path(path).name] = mode
            assert flags & os.O_EXCL
        return really(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        write_keys(tmp_path / "officer.key", quick_passphrase)
    finally:
        os.umask(before)
    assert len(made) == 2
    assert set(made.values()) == {0o600}
    assert (tmp_path / "officer.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "officer.key.pub").stat().st_mode & 0o777 == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"officer.key", "officer.key.pub"}


@pytest.mark.parametrize("name", ["officer.key", "officer.key.pub"])
@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere")])
def test_no_key_is_replaced(tmp_path: Path, quick_passphrase: str, name: str, make: Callable[[Path], object]) -> None:
    make(tmp_path / name)
    before = os.lstat(tmp_path / name)
    with pytest.raises(OutputError, match=rf"{name} is there already, and a key is never replaced; give another name"):
        write_keys(tmp_path / "officer.key", quick_passphrase)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert os.lstat(tmp_path / name) == before


def test_half_a_pair_is_removed(tmp_path: Path, quick_passphrase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "officer.key.pub").write_text("of another process, in the meantime")
    monkeypatch.setattr(private_keys, "require_new", Path)
    with pytest.raises(OutputError, match="is there already"):
        write_keys(tmp_path / "officer.key", quick_passphrase)
    assert [path.name for path in tmp_path.iterdir()] == ["officer.key.pub"]


def test_a_folder_that_is_not_there(tmp_path: Path, quick_passphrase: str) -> None:
    with pytest.raises(OutputError, match=r"can't write .*No such file or directory; choose a writable place"):
        write_keys(tmp_path / "none" / "officer.key", quick_passphrase)


@pytest.mark.parametrize("passphrase", ["", "eleven char", "x" * 1025])
def test_passphrases_have_a_length(tmp_path: Path, passphrase: str) -> None:
    with pytest.raises(UsageError, match=rf"has {len(passphrase):,} characters; it must have 12 to 1,024"):
        write_keys(tmp_path / "officer.key", passphrase)
    assert list(tmp_path.iterdir()) == []


def test_another_passphrase(pair: Path) -> None:
    with pytest.raises(OfficerKeyError, match="the passphrase is not the one it was made with"):
        PrivateKeys.open(pair, "a phrase of several word")


def test_a_passphrase_is_the_same_from_another_keyboard(tmp_path: Path, quick_passphrase: str) -> None:
    public = write_keys(tmp_path / "officer.key", "für alle Fälle zwölf")
    assert PrivateKeys.open(tmp_path / "officer.key", "fu\u0308r alle Fa\u0308lle zwo\u0308lf").public == public


def test_the_files_are_not_mistaken_for_one_another(pair: Path, quick_passphrase: str) -> None:
    with pytest.raises(OfficerKeyError, match=r"private keys, which are the officer's alone.*ends in \.pub"):
        OfficerKey.load(pair)
    with pytest.raises(OfficerKeyError, match=r"is the public key; give the private keys"):
        PrivateKeys.open(f"{pair}.pub", quick_passphrase)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, "is not an officer's private keys of version 1"),
        ({"kind": "another"}, "is not an officer's private keys of version 1"),
        ({"operations": 0}, "costs of its passphrase"),
        ({"operations": 17}, "costs of its passphrase"),
        ({"operations": True}, "costs of its passphrase"),
        ({"operations": "1"}, "costs of its passphrase"),
        ({"memory_bytes": 1 << 40}, "costs of its passphrase"),
        ({"memory_bytes": 1}, "costs of its passphrase"),
        ({"memory_bytes": None}, "costs of its passphrase"),
        ({"key_from_passphrase": "none"}, "costs of its passphrase"),
        ({"salt": "00"}, "the salt is not 16 bytes"),
        ({"salt": "zz"}, "salt is not hexadecimal"),
        ({"salt": None}, "salt is not hexadecimal"),
        ({"box": ""}, "box is not hexadecimal"),
        ({"box": "00"}, "can't be opened"),
        ({"box": "00" * 104}, "can't be opened"),
        ({"fingerprint": "0" * 32}, "the fingerprint is not that of the keys in it"),
    ],
    ids=str,
)
def test_a_changed_file_of_private_keys(
    pair: Path, quick_passphrase: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(OfficerKeyError, match=message):
        PrivateKeys.open(changed(pair, **fields), quick_passphrase)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(place=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_no_bit_of_the_private_keys_can_be_changed(pair: Path, quick_passphrase: str, place: int, bit: int) -> None:
    fields = json.loads(pair.read_text())
    box = bytearray.fromhex(fields["box"])
    box[place % len(box)] ^= 1 << bit
    other = pair.with_name("changed")
    other.write_text(json.dumps(fields | {"box": box.hex()}))
    with pytest.raises(OfficerKeyError):
        PrivateKeys.open(other, quick_passphrase)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, "is not an officer's public key of version 1"),
        ({"kind": "another"}, "is not an officer's public key of version 1"),
        ({"verify_key": "00" * 32}, "the fingerprint is not that of the keys"),
        ({"sealing_key": "00" * 31}, "the sealing key is not 32 bytes"),
        ({"sealing_key": 7}, "sealing_key is not hexadecimal"),
        ({"fingerprint": None}, "the fingerprint is not that of the keys"),
    ],
    ids=str,
)
def test_a_changed_public_key(pair: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OfficerKeyError, match=message):
        OfficerKey.load(changed(Path(f"{pair}.pub"), **fields))


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_key_that_all_can_open_is_refused_before_a_scan(point: bytes) -> None:
    text = OfficerKey(sealing_key=point, verify_key=bytes(32)).to_text()
    with pytest.raises(OfficerKeyError, match="nothing can be encrypted to the officer's key"):
        OfficerKey.load(text)


@pytest.mark.parametrize(
    "content", [b"", b"no JSON", b"[]", b"\xff", b"[" * 10_000, b" " * 20_000, None], ids=lambda c: repr(c)[:12]
)
def test_what_is_not_a_key_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    for load in (OfficerKey.load, lambda place: PrivateKeys.open(place, "a phrase of several words")):
        with pytest.raises(OfficerKeyError, match=r"is not a key file|there is no key file"):
            load(tmp_path / "key")
        with pytest.raises(OfficerKeyError, match="is not a key file that can be read"):
            load(tmp_path)


def test_private_keys_are_not_shown_or_sent(keys: PrivateKeys) -> None:
    assert repr(keys) == "PrivateKeys()"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(keys)
    assert pickle.loads(pickle.dumps(keys.public)) == keys.public


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_a_place_without_a_name_is_told(place: str) -> None:
    with pytest.raises(OutputError, match="names no file; give a name for the officer's keys"):
        require_new(place)
