"""``decide``: by several runs' scores, and with near-duplicates of what is excluded; what it says, and never says."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import save_file

from safetyfilter import ClipEncoder, LinearProbe, ProbeBank, Run
from safetyfilter.batches import REASON_NAMES
from safetyfilter.signals import PAIR
from tests.cli.commands import Done, command
from tests.cli.conftest import PICTURES
from tests.embed.models import TINY, tiny_model, write_config
from tests.writers import write_files


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, probes: ProbeBank) -> Path:
    """Pictures, the small model's probes, and another small model, narrower, with probes of its own."""
    place = tmp_path_factory.mktemp("decide")
    write_files(place / "pictures", PICTURES)
    probes.save(place / "probes.safetensors")
    config = {**TINY, "embed_dim": 16}
    folder = write_config(place / "other", config)
    model = tiny_model(config, seed=1)
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    encoder = ClipEncoder.load(f"local-dir:{folder}", device="cpu", precision="fp32")
    vectors = encoder.embed([content for name, content in PICTURES.items() if name != "broken.jpg"]).vectors
    rng = np.random.default_rng(3)
    made = []
    for signal in PAIR.names:
        weight = rng.normal(size=16).astype(np.float32) * 40
        bias = -float(np.median(vectors @ weight))
        made.append(LinearProbe(signal=signal, weight=weight, bias=bias, encoder=encoder.spec.digest))
    ProbeBank(made).save(place / "other.safetensors")
    return place


@pytest.fixture(scope="module")
def runs(place: Path, tiny_clip: Path) -> list[Path]:
    """Runs of the pictures with either model, in other parts, that share a secret."""
    common = ["scan", place / "pictures", "--device", "cpu", "--precision", "fp32", "--keep-embeddings"]
    a = [*common, "--out", place / "a", "--encoder", f"local-dir:{tiny_clip}", "--probes", place / "probes.safetensors"]
    b = [*common, "--out", place / "b", "--encoder", f"local-dir:{place / 'other'}", "--probes"]
    assert command(*a, "--part-size", 7).status == 0
    assert command(*b, place / "other.safetensors", "--secret-from", place / "a").status == 0
    assert (place / "a.secret").read_bytes() == (place / "b.secret").read_bytes()
    return [place / "a", place / "b"]


@pytest.fixture
def copies(runs: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of both runs that a test may change."""
    for run in runs:
        shutil.copytree(run, tmp_path / run.name)
        shutil.copy(f"{run}.secret", tmp_path)
    return [tmp_path / run.name for run in runs]


def decide(*arguments: object) -> Done:
    return command("decide", *arguments, "--policy", "co-occurrence", "--json")


def reasons_by_key(run: Path) -> dict[str, int]:
    from safetyfilter import Decisions

    return dict(zip(PICTURES, Decisions.of(Run.open(run)).reasons(list(PICTURES)).tolist(), strict=True))


def scores_in(table: pa.Table) -> np.ndarray:
    return np.stack([table[signal].to_numpy() for signal in PAIR.names], axis=1)


def test_the_higher_score_of_two_runs_counts(copies: list[Path]) -> None:
    alone = [reasons_by_key(run) for run in copies]
    done = decide(*copies)
    together = reasons_by_key(copies[0])
    assert all(one[key] & ~together[key] == 0 for one in alone for key in PICTURES)
    assert {key for key in PICTURES if together[key]} > {key for key in PICTURES if alone[0][key]}
    assert done.json["excluded"] == sum(bits != 0 for bits in together.values()) < len(PICTURES)
    assert (done.json["run"], done.json["joined"], done.json["also_near"]) == (str(copies[0]), [str(copies[1])], None)
    tables = [Run.open(run).read_scores() for run in copies]
    by_key = [dict(zip(table["key_digest"].to_pylist(), scores_in(table), strict=True)) for table in tables]
    digester = Run.open(copies[0]).digester()
    for key in PICTURES:
        if key != "broken.jpg":
            highest = np.maximum(*(one[digester.key(key)] for one in by_key))
            assert (together[key] != 0) is bool((highest >= 0.5).all())
    status = command("status", copies[0], "--json").json
    assert status["decided_with"] == {"near": None, "runs": [Run.open(copies[1]).record.scores]}
    assert "decided by the scores of another run too" in command("status", copies[0]).stdout


def a_cosine(run: Path) -> float:
    """A cosine from 0.9 on to which some kept samples lie near an exclusion and others don't."""
    bits = reasons_by_key(run)
    opened = Run.open(run)
    rows = dict(
        zip(opened.read_scores()["key_digest"].to_pylist(), opened.read_embeddings().astype(float), strict=True)
    )
    vectors = {key: rows[opened.digester().key(key)] for key in PICTURES}
    excluded = np.array([vector for key, vector in vectors.items() if bits[key] & 1])
    highest = sorted((excluded @ vector).max() for key, vector in vectors.items() if not bits[key])
    gap = max(range(1, len(highest)), key=lambda n: (highest[n] - highest[n - 1]) * (highest[n] > 0.905))
    return max(0.9, (highest[gap] + highest[gap - 1]) / 2)


def test_without_a_policy_that_of_the_first_run_stays(copies: list[Path]) -> None:
    decide(copies[0])
    strict = command("decide", copies[0], "--policy", "strict", "--json").json
    for more in ([copies[1]], ["--also-near", 0.99]):
        done = command("decide", copies[0], *more, "--json").json
        assert done["policy"] == strict["policy"]
        assert done["excluded"] >= strict["excluded"]
    refused = command("decide", copies[0])
    assert refused.status == 2
    assert "give --policy, --also-near or further runs" in refused.message


def test_near_duplicates(copies: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    run, before, cosine = copies[0], reasons_by_key(copies[0]), a_cosine(copies[0])
    done = decide(run, "--also-near", cosine)
    found = done.json
    after = reasons_by_key(run)
    assert 0 < found["near_excluded"] < len(PICTURES) - sum(bits != 0 for bits in before.values())
    assert found["near_excluded"] == sum(bits == 256 for bits in after.values())
    assert {key: bits for key, bits in after.items() if bits != 256} == {
        k: b for k, b in before.items() if after[k] != 256
    }
    assert set(found) == {"run", "seen", "kept", "excluded", *REASON_NAMES, "unscored_by_cause", "policy_warning",
                          "also_near", "joined", "policy", "hash_unchecked", "sealed_records"}  # fmt: skip
    assert not any(name in done.stdout + done.stderr for name in PICTURES)
    shown = " ".join(command("status", run).stdout.replace("│", " ").split())
    assert f"excluded from a cosine of {cosine!r}"[:40] in shown
    assert command("status", run, "--json").json["decided_with"]["near"] == cosine
    caplog.clear()
    assert decide(run).json["near_excluded"] == 0
    assert reasons_by_key(run) == before
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "are no longer excluded: decide with --also-near" in caplog.text


@pytest.mark.parametrize("cosine", ["0.5", "0.89", "1.01", "nan"])
def test_a_cosine_that_would_search_is_wrong_usage(runs: list[Path], cosine: str) -> None:
    done = decide(runs[0], "--also-near", cosine)
    assert (done.status, done.stdout) == (2, "")
    assert "give a number from 0.9 to 1" in done.message


def test_both_together(copies: list[Path]) -> None:
    joined = decide(*copies).json
    found = decide(*copies, "--also-near", 0.9).json
    assert found["co_occurrence"] == joined["co_occurrence"]
    assert found["kept"] + found["near_excluded"] == joined["kept"]
    shown = command("status", copies[0]).stdout
    assert "near-duplicates" in shown
    assert "joined" in shown


def test_runs_with_other_secrets_say_how(copies: list[Path], place: Path, tiny_clip: Path, tmp_path: Path) -> None:
    scan = ["scan", place / "pictures", "--encoder", f"local-dir:{tiny_clip}", "--probes", place / "probes.safetensors",
            "--device", "cpu", "--precision", "fp32"]  # fmt: skip
    assert command(*scan, "--out", tmp_path / "c").status == 0
    done = decide(copies[0], tmp_path / "c")
    assert (done.status, done.stdout) == (1, "")
    assert f"scan for it again with --secret-from {copies[0]}" in done.message
    done = command(*scan, "--out", tmp_path / "c", "--secret-from", copies[0])
    assert (done.status, done.stdout) == (1, "")
    assert "holds a run with another secret" in done.message
    assert Run.open(tmp_path / "c").record.complete
    done = command(*scan, "--out", tmp_path / "d", "--secret-from", tmp_path / "nowhere")
    assert (done.status, done.stdout) == (1, "")
    assert "no run at" in done.message
    assert not (tmp_path / "d").exists()


def test_probes_of_two_encoders_lead_here(place: Path, tiny_clip: Path, tmp_path: Path) -> None:
    done = command("scan", place / "pictures", "--out", tmp_path / "run", "--encoder", f"local-dir:{tiny_clip}",
                   "--probes", place / "probes.safetensors", "--probes", place / "other.safetensors")  # fmt: skip
    assert done.status == 1
    assert "--secret-from" in done.message
    assert "safetyfilter decide RUN_A RUN_B" in done.message


@pytest.mark.parametrize("how", ["near", "joined"])
def test_evaluate_says_that_it_measures_the_runs_own_scores(
    copies: list[Path], tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    labels = tmp_path / "labels.csv"
    rows = [f"{key},{number % 2},{number % 3 == 0:d}" for number, key in enumerate(PICTURES)]
    labels.write_text("\n".join(["key,explicit,minor", *rows]))
    assert "its own scores" not in caplog.text
    assert (
        decide(*(copies if how == "joined" else copies[:1]), *(["--also-near", 0.95] if how == "near" else [])).status
        == 0
    )
    assert command("evaluate", copies[0], labels, "--json").status == 0
    assert "what is measured here are its own scores" in caplog.text
