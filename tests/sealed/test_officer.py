"""``officer``: keys, opened records and drafts from the command line; the passphrase is never an argument."""

from __future__ import annotations

import getpass
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safetyfilter import Run
from safetyfilter.cli import passphrase
from safetyfilter.sealed import private_keys
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.private_keys import PrivateKeys
from tests.cli.commands import command
from tests.sealed.conftest import PICTURES

PHRASE = "a phrase of several words"


@pytest.fixture(autouse=True)
def _no_passphrase(monkeypatch: pytest.MonkeyPatch, quick_passphrase: str) -> None:
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)


@pytest.fixture
def phrase_file(tmp_path: Path) -> Path:
    (tmp_path / "phrase").write_text(f"{PHRASE}\nand a second line\n")
    return tmp_path / "phrase"


@pytest.fixture
def key_file(tmp_path: Path, keys: PrivateKeys) -> Path:
    """The file of the keys that the run is sealed to."""
    (tmp_path / "officer.key").write_text(private_keys._private_text(keys, PHRASE))
    return tmp_path / "officer.key"


def test_keygen_makes_a_pair(tmp_path: Path, phrase_file: Path) -> None:
    made = command("officer", "keygen", tmp_path / "new.key", "--passphrase-file", phrase_file, "--json").json
    public = OfficerKey.load(made["public_key"])
    assert made == {
        "private_keys": str(tmp_path / "new.key"),
        "public_key": str(tmp_path / "new.key.pub"),
        "fingerprint": public.fingerprint,
    }
    assert PrivateKeys.open(tmp_path / "new.key", PHRASE).public == public


def test_keygen_shows_the_fingerprint_to_be_read_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(passphrase.VARIABLE, PHRASE)
    done = command("officer", "keygen", tmp_path / "new.key")
    assert OfficerKey.load(tmp_path / "new.key.pub").spoken_fingerprint in done.stdout
    assert PHRASE not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("too short\n", 2, "the passphrase has 9 characters; it must have 12 to 1,024: take several words"),
        ("\n", 2, "the passphrase has 0 characters"),
        (b"\xff\xfe" * 20, 2, "can't be read as a passphrase's file (UnicodeDecodeError)"),
        ("x" * 9000, 2, "can't be read as a passphrase's file"),
        (None, 2, "can't be read as a passphrase's file (FileNotFoundError)"),
    ],
    ids=["short", "empty", "no text", "endless", "not there"],
)
def test_a_passphrase_that_wont_do(tmp_path: Path, content: str | bytes | None, status: int, message: str) -> None:
    if content is not None:
        (tmp_path / "phrase").write_bytes(content.encode() if isinstance(content, str) else content)
    done = command("officer", "keygen", tmp_path / "new.key", "--passphrase-file", tmp_path / "phrase")
    assert done.status == status
    assert message in done.message
    assert not (tmp_path / "new.key").exists()


def test_without_a_terminal_it_says_how_to_give_the_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    done = command("officer", "keygen", tmp_path / "new.key")
    assert done.status == 2
    assert "there is no terminal to ask for the passphrase; give --passphrase-file FILE, or set SAFETY" in done.message


def test_a_key_that_is_there_is_told_before_a_passphrase_is_asked_for(key_file: Path) -> None:
    done = command("officer", "keygen", key_file)
    assert done.status == 1
    assert "is there already, and a key is never replaced; give another name" in done.message


def test_two_answers_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((PHRASE, "another phrase of words"))
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(answers))
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        done = command("officer", "keygen", tmp_path / "new.key")
    assert done.status == 2
    assert "the two passphrases differ; nothing was written: run the command again" in done.message
    assert list(tmp_path.iterdir()) == []


def test_at_a_terminal_it_is_asked_for_twice_without_echo(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "safetyfilter", "officer", "keygen", str(tmp_path / "new.key")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for prompt in (b"Passphrase of the officer's keys: ", b"The same again: "):
        while prompt not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, f"{PHRASE}\n".encode())
    while more := read_to_the_end(ours):
        shown += more
    os.close(ours)
    assert process.wait(timeout=600) == 0
    assert PHRASE.encode() not in shown
    assert b"fingerprint" in shown
    assert PrivateKeys.open(tmp_path / "new.key", PHRASE).public == OfficerKey.load(tmp_path / "new.key.pub")


def read_to_the_end(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # what Linux says once nobody has the other side
        return b""


def test_no_command_takes_a_passphrase_as_an_argument() -> None:
    for name in ("keygen", "open"):
        assert "--passphrase " not in command("officer", name, "--help").stdout
        assert command("officer", name, "a", "--passphrase", PHRASE).status == 2


def test_open_and_report(sealed_run: Run, key_file: Path, phrase_file: Path, tmp_path: Path) -> None:
    arguments = [sealed_run.path, "--key", key_file, "--passphrase-file", phrase_file, "--to", tmp_path / "a.jsonl"]
    done = command("officer", "open", *arguments, "--json")
    assert done.json["records"] == sealed_run.record.sealed
    assert done.json["faults"] == []
    assert "is in the clear: keep it from everyone but the officer. Open no file or URL that it names" in done.message
    drafts = command("officer", "report", tmp_path / "a.jsonl", "--to", tmp_path / "drafts")
    assert drafts.status == 0
    assert "Nothing was sent." in drafts.message
    assert "A record without provenance helps nobody" in drafts.message
    shown = done.stdout + done.stderr + drafts.stdout + drafts.stderr
    assert not [key for key in PICTURES if key in shown]
    assert any((tmp_path / "drafts").glob("known_hash*.xml"))
    again = command("officer", "open", *arguments)
    assert again.status == 1
    assert "is there already and is not replaced; give another name" in again.message


def test_damaged_records_are_saved_if_asked_for_and_still_a_failure(
    sealed_run: Run, key_file: Path, phrase_file: Path, tmp_path: Path
) -> None:
    shutil.copytree(sealed_run.path, tmp_path / "run")
    (tmp_path / "run" / "sealed" / "part-00001.bin").unlink()
    arguments = [tmp_path / "run", "--key", key_file, "--passphrase-file", phrase_file, "--to", tmp_path / "a.jsonl"]
    done = command("officer", "open", *arguments)
    assert done.status == 1
    assert "are not whole: part 1: its file of sealed records is missing; restore the files from" in done.message
    assert not (tmp_path / "a.jsonl").exists()
    done = command("officer", "open", *arguments, "--damaged", "--json")
    assert done.status == 1
    assert (
        "error: not all sealed records could be opened: part 1: its file of sealed records is missing" in done.message
    )
    assert json.loads(done.stdout)["records"] == len((tmp_path / "a.jsonl").read_text().splitlines()) > 0
