"""``attest``, ``verify`` and ``export --verify`` as they are used: with an officer's key files."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetyfilter import Policy, Run, apply_policy
from safetyfilter.sealed import private_keys
from safetyfilter.sealed.private_keys import write_keys
from tests.attest.runs import finished
from tests.cli.commands import command

PASSPHRASE = "a phrase of several words"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, an officer's keys, of which a guess costs little, and a file of the passphrase."""
    monkeypatch.setattr(private_keys, "OPERATIONS", 1)
    monkeypatch.setattr(private_keys, "MEMORY_BYTES", 8192)
    monkeypatch.delenv("SAFETYFILTER_OFFICER_PASSPHRASE", raising=False)
    finished(tmp_path / "run")
    write_keys(tmp_path / "officer.key", PASSPHRASE)
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    return tmp_path


def attested(place: Path) -> dict[str, object]:
    return command(
        *("attest", place / "run", "--key", place / "officer.key"),
        *("--passphrase-file", place / "passphrase", "--json"),
    ).json


def test_a_run_is_attested_and_verified(place: Path) -> None:
    counts = Run.open(place / "run").counts
    said = attested(place)
    assert {name: said[name] for name in ("seen", "kept")} == {name: counts[name] for name in ("seen", "kept")}
    (place / "run.secret").unlink()  # no verification needs it
    done = command("verify", place / "run", "--key", place / "officer.key.pub", "--json")
    assert done.json["holds"] is True
    assert {claim["holds"] for claim in done.json["claims"]} == {True}
    assert str(said["rows_root"]) in done.stdout
    shown = command("verify", place / "run", "--key", place / "officer.key.pub")
    assert (shown.status, "DOES NOT HOLD" in shown.stdout) == (0, False)


def test_what_does_not_hold_is_told_in_a_table_and_by_the_exit_status(place: Path) -> None:
    attested(place)
    apply_policy(Run.open(place / "run"), Policy(thresholds={"explicit": 0.7, "minor": 0.7}))
    done = command("verify", place / "run", "--key", place / "officer.key.pub")
    assert done.status == 1
    assert "DOES NOT HOLD" in done.stdout
    assert "is not as it was attested (policy, decisions, data set, kept rows, counts, rule)" in done.message
    assert "decided anew after it was attested" in done.message
    as_json = command("verify", place / "run", "--key", place / "officer.key.pub", "--json")
    assert (as_json.status, '"holds": false' in as_json.stdout) == (1, True)


def test_an_export_demands_an_attestation(place: Path) -> None:
    (place / "pictures").mkdir()
    (place / "pictures" / "a.jpg").write_bytes(b"no picture")
    arguments = ["export", place / "run", "--source", place / "pictures", "--to", place / "out", "--verify"]
    done = command(*arguments, place / "officer.key.pub")
    assert (done.status, "is not attested" in done.message) == (1, True), done.message
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["verify", "{}/run", "--key", "{}/officer.key.pub"], 1, "is not attested; run `safetyfilter attest"),
        (["verify", "{}/none", "--key", "{}/officer.key.pub"], 1, "no run at"),
        (["verify", "{}/run", "--key", "{}/officer.key"], 1, "give the public key"),
        (["verify", "{}/run", "--key", "{}/none"], 1, "there is no key file"),
        (
            ["attest", "{}/run", "--key", "{}/officer.key.pub", "--passphrase-file", "{}/passphrase"],
            1,
            "the public key",
        ),
        (["attest", "{}/run", "--key", "{}/officer.key", "--passphrase-file", "{}/run/run.json"], 1, "can't be opened"),
        (["attest", "{}/run", "--key", "{}/officer.key"], 2, "there is no terminal to ask"),
    ],
)
def test_errors_say_what_to_do(place: Path, arguments: list[str], status: int, message: str) -> None:
    done = command(*(argument.format(place) for argument in arguments))
    assert (done.status, message in done.message) == (status, True), done.message
    assert not done.stdout
