"""The command line as a user meets it: real processes, exit status, one sentence and the remedy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safetyfilter import ProbeBank
from tests.conftest import bad_images, good_images, write_files

GOOD, BAD = good_images(), bad_images()


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safetyfilter", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, probes, tiny_clip: Path) -> Path:
    place = tmp_path_factory.mktemp("cli")
    write_files(place / "pictures", GOOD | BAD)
    probes.save(place / "probes.safetensors")
    ProbeBank([probe for probe in probes.probes if probe.signal == "minor"]).save(place / "one.safetensors")
    (place / "policy.toml").write_text("[thresholds]\nexplicit = 0.4\nminor = 0.4\n[exclude]\nexplicit = true\n")
    return place


@pytest.fixture(scope="module")
def scanned(place: Path, tiny_clip: Path) -> dict[str, object]:
    done = run(
        "scan",
        place / "pictures",
        "--out",
        place / "run",
        "--encoder",
        f"local-dir:{tiny_clip}",
        "--probes",
        place / "probes.safetensors",
        "--batch-size",
        4,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--engine",
        "local",
        "--keep-embeddings",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    assert "images/s" in done.stderr
    return result


def test_scan(scanned, place: Path) -> None:
    assert scanned["seen"] == len(GOOD | BAD) == scanned["kept"] + scanned["excluded"]
    assert scanned["unscored"] == len(BAD)
    assert json.loads((place / "run" / "run.json").read_text())["counts"]["seen"] == scanned["seen"]


def test_scan_again_does_nothing_anew(scanned, place: Path, tiny_clip: Path) -> None:
    done = run(
        "scan",
        place / "pictures",
        "--out",
        place / "run",
        "--encoder",
        f"local-dir:{tiny_clip}",
        "--probes",
        place / "probes.safetensors",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--keep-embeddings",
    )
    assert done.returncode == 0, done.stderr
    assert "seen" in done.stdout
    assert "unscored" in done.stdout


def test_decide_and_export(scanned, place: Path) -> None:
    decided = run("decide", place / "run", "--policy", place / "policy.toml", "--json")
    assert decided.returncode == 0, decided.stderr
    counts = json.loads(decided.stdout)
    assert counts["kept"] <= scanned["kept"]
    assert counts["policy"]["thresholds"] == {"explicit": 0.4, "minor": 0.4}
    for format in ("folder", "webdataset", "parquet", "keys"):
        exported = run(
            "export",
            place / "run",
            "--source",
            place / "pictures",
            "--to",
            place / f"out-{format}",
            "--format",
            format,
            "--json",
        )
        assert exported.returncode == 0, exported.stderr
        assert json.loads(exported.stdout)["kept"] == counts["kept"]
    assert len((place / "out-keys").read_text().splitlines()) == counts["kept"]


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
        (["scan", "{}/pictures", "--out", "{}/new", "--probes", "zero-short"], 1, "no probes of that name"),
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
        (["fly"], 2, "No such command"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_bad_input(scanned, place: Path, arguments: list[str], status: int, message: str) -> None:
    (place / "hollow").mkdir(exist_ok=True)
    write_files(place / "others", {"z.jpg": GOOD["china.jpg"]})
    (place / "odd.toml").write_text("[thresholds]\nexplicit = 2\n")
    (place / "unknown.toml").write_text("[thresholds]\nviolence = 0.5\n")
    before = sorted(place.rglob("*"))
    done = run(*(argument.replace("{}", str(place)) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(place.rglob("*")) == before


def test_weights_that_cant_be_downloaded(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safetyfilter", "scan", str(place / "pictures"), "--out", str(place / "new")],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "cache"), "HOME": str(place)},
    )
    assert done.returncode == 1
    assert "Without a network, pass a checkpoint file" in " ".join(done.stderr.split())
    assert not (place / "new").exists()


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("demo", "scan", "decide", "export"):
        assert command in done.stdout
