"""The command line as a user meets it: exit status, one sentence and the remedy, and a result alone on its output."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safetyfilter.engine.scan
from safetyfilter import ClipEncoder, LinearProbe, ProbeBank, Run, SignalPair, storage
from safetyfilter.cli.app import STAGES
from safetyfilter.signals import PAIR
from safetyfilter.standin import ENCODER, STANDIN_PAIR
from tests.cli.commands import command, every_command
from tests.conftest import bad_images, good_images
from tests.sources.flaky import FlakyFileSystem
from tests.writers import write_files

GOOD, BAD = good_images(), bad_images()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, probes, tiny_clip: Path) -> Path:
    place = tmp_path_factory.mktemp("cli")
    write_files(place / "pictures", GOOD | BAD)
    probes.save(place / "probes.safetensors")
    ProbeBank([probe for probe in probes.probes if probe.signal == "minor"]).save(place / "one.safetensors")
    (place / "policy.toml").write_text("[thresholds]\nexplicit = 0.4\nminor = 0.4\n[exclude]\nexplicit = true\n")
    (place / "odd.toml").write_text("[thresholds]\nexplicit = 2\n")
    (place / "unknown.toml").write_text("[thresholds]\nviolence = 0.5\n")
    (place / "hollow").mkdir()
    write_files(place / "others", {"z.jpg": GOOD["china.jpg"]})
    return place


@pytest.fixture(scope="module")
def scan(place: Path, tiny_clip: Path) -> list[object]:
    """The arguments of a scan with the small model."""
    return ["scan", place / "pictures", "--encoder", f"local-dir:{tiny_clip}", "--probes", place / "probes.safetensors",
            "--batch-size", 4, "--device", "cpu", "--precision", "fp32", "--engine", "local"]  # fmt: skip


@pytest.fixture(scope="module")
def scanned(place: Path, scan: list[object]) -> dict[str, object]:
    done = command(*scan, "--out", place / "run", "--keep-embeddings", "--json")
    assert "images/s" in done.stderr
    return done.json


def test_scan(scanned, place: Path) -> None:
    assert scanned["seen"] == len(GOOD | BAD) == scanned["kept"] + scanned["excluded"]
    assert scanned["unscored"] == len(BAD)
    assert scanned["stand_in"] is False
    assert json.loads((place / "run" / "run.json").read_text())["counts"]["seen"] == scanned["seen"]


def test_scan_again_does_nothing_anew(scanned, place: Path, scan: list[object]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "run").glob("*/part-*")}
    done = command(*scan, "--out", place / "run", "--keep-embeddings")
    assert done.status == 0, done.stderr
    assert re.search(rf"seen\W+{len(GOOD | BAD)}\W", done.stdout)
    assert re.search(rf"unscored\W+{len(BAD)}\W", done.stdout)
    assert {path: path.stat().st_mtime_ns for path in (place / "run").glob("*/part-*")} == before


def test_decide_and_export(place: Path, scan: list[object], tmp_path: Path) -> None:
    scanned = command(*scan, "--out", tmp_path / "run", "--json").json
    done = command("decide", tmp_path / "run", "--policy", place / "policy.toml", "--json")
    counts = done.json
    assert "The threshold of minor was 0.5 and is now 0.4." in done.message
    assert counts["kept"] <= scanned["kept"]
    assert counts["policy"]["thresholds"] == {"explicit": 0.4, "minor": 0.4}
    for format in ("folder", "webdataset", "parquet", "keys"):
        to = ["--to", tmp_path / f"out-{format}", "--format", format]
        exported = command("export", tmp_path / "run", "--source", place / "pictures", *to, "--json").json
        assert exported["kept"] == counts["kept"]
    assert len((tmp_path / "out-keys").read_text().splitlines()) == counts["kept"]


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (PAIR.names, PAIR),
        (STANDIN_PAIR.names, replace(STANDIN_PAIR, notice="")),
        (STANDIN_PAIR.names, replace(STANDIN_PAIR, notice="of a colleague")),
        (STANDIN_PAIR.names, STANDIN_PAIR),
    ],
    ids=["real names", "no notice", "another notice", "stand-ins"],
)
def test_a_scan_with_the_stand_in_encoder_says_so_whatever_the_probes_are_called(
    place: Path, tmp_path: Path, names: tuple[str, str], pair: SignalPair
) -> None:
    spec = ClipEncoder.load(ENCODER, device="cpu", precision="fp32").spec
    weight = np.zeros(spec.width, np.float32)
    made = [LinearProbe(signal=name, weight=weight, bias=-5, encoder=spec.digest) for name in names]
    ProbeBank(made, pair).save(tmp_path / "p.safetensors")
    done = command("scan", place / "others", "--out", tmp_path / "run", "--encoder", "stand-in", "--device", "cpu",
                   "--probes", tmp_path / "p.safetensors", "--json")  # fmt: skip
    assert done.json["stand_in"] is True
    assert done.message.count(STANDIN_PAIR.notice) == 1
    assert pair.notice in done.message
    assert STANDIN_PAIR.notice in Run.open(tmp_path / "run").record.setup.pair.notice
    assert STANDIN_PAIR.notice in command("why", tmp_path / "run", "a key").message


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["scan", "{}/none", "--out", "{}/new"], 1, "no source at"),
        (["scan", "{}/hollow", "--out", "{}/new"], 1, "no sample in"),
        (["scan", "{}/pictures", "--out", "/proc/run"], 1, "choose a writable place"),
        (["scan", "{}/pictures", "--out", "{}/pictures"], 1, "holds no run"),
        (["scan", "{}/pictures", "--out", "{}/new", "--encoder", "ViT-L14"], 2, "did you mean"),
        (["scan", "{}/pictures", "--out", "{}/new", "--encoder", "ViT-L-14"], 2, "ViT-L-14-quickgelu"),
        (["scan", "{}/pictures", "--out", "{}/new", "--encoder", "local-dir:{}/pictures"], 1, "open_clip_config.json"),
        (
            ["scan", "{}/pictures", "--out", "{}/new", "--encoder", "stand-in", "--probes", "{}/probes.safetensors"],
            1,
            "make the probe anew for this one",
        ),
        (
            ["scan", "{}/pictures", "--out", "{}/new", "--encoder", "stand-in", "--probes", "{}/none.safetensors"],
            1,
            "probe",
        ),
        # told before the default encoder is looked for, which can't be had here
        (["scan", "{}/pictures", "--out", "{}/new", "--probes", "{}/one.safetensors"], 2, "also needs explicit"),
        (["scan", "{}/pictures", "--out", "{}/new", "--probes", "zero-short"], 1, "no published detector of that name"),
        (["scan", "{}/pictures", "--out", "{}/new", "--policy", "lenient"], 2, "the presets are"),
        (["scan", "{}/pictures", "--out", "{}/new", "--policy", "{}/odd.toml"], 2, "from 0 to 1"),
        (
            ["scan", "{}/pictures", "--out", "{}/new", "--policy", "{}/unknown.toml", "--encoder", "stand-in"],
            2,
            "add a probe for it",
        ),
        (["scan", "{}/pictures", "--out", "{}/new", "--batch-size", "0"], 2, "whole number"),
        (["scan", "{}/pictures", "--out", "{}/new", "--device", "abacus"], 2, "unknown device"),
        (["scan", "{}/pictures", "--out", "{}/new", "--views", "edge"], 2, "choose one of"),
        (["scan", "{}/pictures"], 2, "Missing option"),
        (["decide", "{}/none", "--policy", "strict"], 1, "no run at"),
        (["decide", "{}/run", "--policy", "{}/unknown.toml"], 2, "which no probe scores"),
        (["export", "{}/run", "--source", "{}/pictures", "--to", "{}/pictures"], 1, "there already"),
        (["export", "{}/run", "--source", "{}/others", "--to", "{}/new"], 1, "knows none of the"),
        (["fly"], 2, "error: No such command 'fly'; see `safetyfilter --help`"),
        (["scan"], 2, "error: Missing argument 'SOURCE'; see `safetyfilter scan --help`"),
        (
            ["scan", "{}/pictures", "--out", "{}/new", "--workers", "0"],
            2,
            "Invalid value for '--workers': Input should",
        ),
        (
            ["scan", "{}/pictures", "--out", "{}/new", "--workers", "2"],
            2,
            "Invalid value for '--workers': --workers are for --engine ray; with the local engine there is a worker",
        ),
        (
            ["scan", "{}/pictures", "--out", "{}/new", "--engine", "ray", "--address", "ray://head:10001"],
            2,
            "ray://head:10001 is an address for clients outside the cluster",
        ),
        (["scan", "{}/pictures", "--out", "{}/new", "--limit", "0"], 2, "Invalid value for '--limit': Input should"),
        (
            ["evaluate", "{}/run", "{}/labels.csv", "--interval", "wide"],
            2,
            "error: Invalid value for '--interval': 'wide' is not one of 'wilson', 'clopper-pearson'; see",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_bad_input(scanned, place: Path, arguments: list[str], status: int, message: str) -> None:
    before = sorted(place.rglob("*"))
    done = command(*(argument.replace("{}", str(place)) for argument in arguments))
    assert done.status == status, done.stderr
    assert message in done.message
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan", "{}/pictures", "--out", "simplecache::s3://bucket/run"],
        ["export", "{}/run", "--source", "{}/pictures", "--to", "simplecache::s3://bucket/cleaned"],
        ["demo", "--out", "s3://bucket/demo"],
        ["train", "{}/run", "{}/labels.parquet", "--signal", "minor", "--out", "s3://bucket/p.safetensors"],
        ["calibrate", "{}/run", "{}/labels.parquet", "--out", "s3://bucket/policy.toml"],
    ],
    ids=lambda arguments: "-".join(arguments[:1] + [part for part in arguments if "s3:" in part]),
)
def test_outputs_on_other_storage_are_refused(
    scanned, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*(argument.replace("{}", str(place)) for argument in arguments))
    assert done.status == 1, done.stderr
    assert re.search(r"can't be at (simplecache::)?s3:/.* yet; give a path on this machine$", done.message)
    assert list(tmp_path.iterdir()) == []


def test_storage_that_fails_is_one_sentence_and_no_decision(
    place: Path, scan: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    arguments = ["scan", f"flaky://{place / 'pictures'}", *scan[2:], "--out", tmp_path / "run"]
    FlakyFileSystem.fail(1_000_000)
    try:
        done = command(*arguments, "--json")
    finally:
        FlakyFileSystem.fail(0)
    assert (done.status, done.stdout) == (1, "")
    error = done.stderr[done.stderr.index("error: ") :]
    assert error.startswith("error: can't reach a file in flaky://")
    assert not any(Path(name).name in error for name in GOOD | BAD)
    assert error.endswith("run the same command again when the storage is well\n")
    assert error.count("\n") == 1
    again = command(*arguments, "--json").json
    assert again["unscored"] == len(BAD)


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; finished parts are kept, and the same command goes on from there"),
        (ZeroDivisionError("oh"), 1, "unexpected ZeroDivisionError: oh; set SAFETYFILTER_DEBUG=1 for the traceback"),
    ],
    ids=["interrupted", "fault of ours"],
)
def test_whatever_ends_a_command_is_one_sentence(
    scan: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    message: str,
) -> None:
    def ended(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(safetyfilter.engine.scan, "scan", ended)
    done = command(*scan, "--out", tmp_path / "run")
    assert (done.status, done.stdout) == (status, "")
    assert f"error: {message}" in done.message
    assert "Traceback" not in done.stderr


def test_weights_that_cant_be_downloaded(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safetyfilter", "scan", str(place / "pictures"), "--out", str(place / "new")],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "cache"), "HOME": str(place)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Without a network, pass a checkpoint file" in " ".join(done.stderr.split())
    assert not (place / "new").exists()


COMMANDS = {
    "demo": ["--out", "--json"],
    "scan": ["SOURCE", "--out", "--encoder", "--pretrained", "--probes", "--policy", "--engine", "--batch-size",
             "--device", "--precision", "--keep-embeddings", "--secret-from", "--address", "--workers",
             "--gpus-per-worker", "--threads", "--limit", "--part-size",
             "--root", "--json"],
    "status": ["RUN", "--json"],
    "why": ["RUN", "KEY", "--keys", "--key-column", "--json"],
    "decide": ["RUN", "--policy", "--also-near", "--json"],
    "export": ["RUN", "--source", "--to", "--format", "--verify", "--json"],
    "train": ["EMBEDDINGS", "LABELS", "--signal", "--out", "--json"],
    "calibrate": ["SCORES", "LABELS", "--max-miss-rate", "--confidence", "--out", "--json"],
    "evaluate": ["SCORES", "LABELS", "--policy", "--json"],
    "report": ["RUN", "--out", "--labels", "--json"],
    "apply": ["RUN", "--to", "--out", "--part-size", "--json"],
    "probes fetch": ["NAME", "--json"],
    "check-model": ["FILE", "--hash-list", "--json"],
    "officer keygen": ["OUT", "--passphrase-file", "--json"],
    "officer open": ["RUN", "--key", "--to", "--damaged", "--passphrase-file", "--json"],
    "officer report": ["OUT", "--to", "--json"],
    "attest": ["RUN", "--key", "--passphrase-file", "--json"],
    "verify": ["RUN", "--key", "--json"],
}  # fmt: skip
"""The commands and their arguments that others rely on."""


def test_help_names_every_command() -> None:
    done = command("--help")
    assert done.status == 0
    names = set(re.findall(r"^  ([a-z][a-z-]*)  ", done.stdout, flags=re.MULTILINE))
    assert names == {name.split()[0] for name in COMMANDS}


def test_help_says_of_every_command_what_its_own_help_says() -> None:
    told = {name: line for stage in STAGES.values() for name, (_, line) in stage.items()}
    assert told == {name: own.help.partition("\n\n")[0] for name, own in every_command().commands.items()}


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_its_arguments(name: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = command(*name.split(), option)
    assert done.status == 0
    assert f"Usage: safetyfilter {name} [OPTIONS]" in done.stdout
    assert "{" not in done.stdout
    words = {word.lower() for word in re.findall(r"[\w-]+", done.stdout)}
    assert {argument.lower() for argument in COMMANDS[name]} <= words


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_a_terminal_of_eighty_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "…" not in command(*name.split(), "--help").stdout  # cut off; and what only knows ASCII can't print it


def test_a_width_of_nothing_hides_no_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safetyfilter", "fly"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "0"},
    )
    assert "fly" in done.stderr


def test_the_installed_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "safetyfilter", "fly"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command" in done.stderr


def test_a_scan_that_goes_on_keeps_the_policy_of_the_run(place: Path, scan: list[object], tmp_path: Path) -> None:
    arguments = [*scan, "--out", tmp_path / "run", "--json"]
    first = command(*arguments).json
    decided = command("decide", tmp_path / "run", "--policy", "strict", "--json")
    assert "Excluded for minor alone: was no, is now yes." in decided.stderr
    assert decided.json["kept"] < first["kept"]
    again = command(*arguments)
    assert again.json["kept"] == decided.json["kept"]
    assert "Excluded for" not in again.stderr
    other = command(*arguments, "--policy", place / "policy.toml")
    assert "Excluded for minor alone: was yes, is now no." in other.stderr
    assert "The threshold of minor was 0.5 and is now 0.4." in other.stderr
