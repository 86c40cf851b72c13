"""``scan`` of stored embeddings: the encoder is named and not loaded, and the options of theirs work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from safetyfilter import ClipEncoder, LinearProbe, ProbeBank, Run
from safetyfilter.embed.clip.named import NamedEncoder
from tests.cli.commands import command
from tests.cli.test_scan import STAND_IN
from tests.conftest import good_images
from tests.writers import write_embedding_job, write_files

NAMED = ("--encoder", "ViT-B-32-quickgelu", "--pretrained", "openai")


def unit_rows(count: int, width: int = 512) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    return write_probes(tmp_path / "probes.safetensors", NamedEncoder.named("ViT-B-32-quickgelu", "openai").spec.digest)


def write_probes(path: Path, encoder: str) -> Path:
    weights = np.random.default_rng(1).standard_normal((2, 512)).astype(np.float32) * 20
    ProbeBank(
        [
            LinearProbe(signal=signal, weight=weight, bias=0.0, encoder=encoder)
            for signal, weight in zip(("explicit", "minor"), weights, strict=True)
        ]
    ).save(path)
    return path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    keys = [[f"{number:09d}" for number in range(40)]]
    return write_embedding_job(tmp_path / "stored", [unit_rows(40)], keys=keys)


def test_a_job_is_scanned_by_the_name_of_its_encoder_alone(
    tmp_path: Path, job: Path, probes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClipEncoder, "load", lambda *_, **__: pytest.fail("an encoder was loaded"))
    done = command("scan", job, "--out", tmp_path / "run", *NAMED, "--probes", probes, "--json").json
    assert (done["seen"], done["unscored"]) == (40, 0)
    assert done["kept"] + done["excluded"] == 40
    run = Run.open(tmp_path / "run")
    assert run.record.source.kind == "embeddings"
    assert run.record.setup.encoder.name == "ViT-B-32-quickgelu/openai"
    scores = run.read_scores()
    assert scores["content_digest"].null_count == 40
    keys = scores["key_digest"].to_pylist()
    rows = [keys.index(run.digester().key(f"{number:09d}")) for number in range(40)]
    expected = ProbeBank.load(probes).score_vectors(unit_rows(40).astype(np.float32))
    np.testing.assert_allclose(scores["minor"].to_numpy()[rows], expected[:, 1], atol=1e-6)


def test_progress_and_the_table_speak_of_embeddings(tmp_path: Path, job: Path, probes: Path) -> None:
    done = command("scan", job, "--out", tmp_path / "run", *NAMED, "--probes", probes)
    assert done.status == 0
    assert "40 embeddings" in done.stderr
    assert "seen" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "they don't tell what encoder they came from: name it, as --encoder"),
        (("--encoder", "ViT-B-32-quickgelu"), "zero_shot_probes(ClipEncoder.load(...)).save(FILE)"),
        (("--encoder", "ViT-B-32"), "trained with QuickGELU, and ViT-B-32 computes GELU"),
        (("--encoder", "ViT-B-32-quickgelu", "--pretrained", "none-such"), "neither a file nor a tag"),
        (("--encoder", "ViT-B-32-quickgelu", "--pretrained", "sha256:ab"), "give sha256: and 12 to 64 hex digits"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, job: Path, options: tuple[str, ...], message: str
) -> None:
    done = command("scan", job, "--out", tmp_path / "run", *options)
    assert done.status == 2
    assert message in done.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (("--encoder", "ViT-B-16-quickgelu", "--pretrained", "openai"), "ViT-B-16-quickgelu/openai"),
        (("--encoder", "ViT-L-14-quickgelu", "--pretrained", "openai"), "ViT-L-14-quickgelu/openai"),
    ],
)
def test_probes_of_another_encoder_are_refused_naming_both(
    tmp_path: Path, job: Path, probes: Path, named: tuple[str, ...], words: str
) -> None:
    done = command("scan", job, "--out", tmp_path / "run", *named, "--probes", probes)
    digest = NamedEncoder.named("ViT-B-32-quickgelu", "openai").spec.digest[:12]
    assert done.status == 1
    assert f"belongs to encoder {digest}" in done.message
    assert words in done.message
    assert f"sha256:{digest}" in done.message


def test_probes_are_taken_for_the_encoder_whose_digest_the_user_gives(tmp_path: Path, job: Path) -> None:
    probes = write_probes(tmp_path / "own.safetensors", "ab" * 32)
    named = ("--encoder", "ViT-B-32-quickgelu", "--pretrained", f"sha256:{'ab' * 6}")
    assert command("scan", job, "--out", tmp_path / "run", *named, "--probes", probes).status == 0


def test_embeddings_of_another_width_are_refused(tmp_path: Path, probes: Path) -> None:
    place = write_embedding_job(tmp_path / "wide", [unit_rows(3, 768)])
    done = command("scan", place, "--out", tmp_path / "run", *NAMED, "--probes", probes)
    assert done.status == 1
    assert "has embeddings of width 768, and those of ViT-B-32-quickgelu/openai have 512" in done.message


def test_other_norms_are_an_error_that_an_option_accepts(tmp_path: Path, probes: Path) -> None:
    np.save(tmp_path / "a.npy", unit_rows(40) * np.float16(4))
    (tmp_path / "names.txt").write_text("".join(f"{number:09d}\n" for number in range(40)))
    scan = ("scan", tmp_path / "a.npy", "--out", tmp_path / "run", *NAMED, "--probes", probes)
    refused = command(*scan)
    assert refused.status == 1
    assert "a.npy has rows with norms from" in refused.message
    assert "--normalise" in refused.message
    accepted = command(*scan, "--normalise", "--keys", tmp_path / "names.txt", "--json")
    assert accepted.status == 0  # of the first nothing was recorded
    another = command(*scan, "--keys", tmp_path / "names.txt")
    assert another.status == 1
    assert "decode" in another.message


def test_options_of_embeddings_are_refused_for_images(tmp_path: Path) -> None:
    place = write_files(tmp_path / "pictures", good_images())
    done = command("scan", place, "--out", tmp_path / "run", *STAND_IN, "--normalise")
    assert done.status == 2
    assert "normalise (--normalise) is for stored embeddings" in done.message
