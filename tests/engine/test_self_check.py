"""The self-check of a scan: held against its run and the user's cache, by each process, before anything is scored."""

from __future__ import annotations

import json
import logging
import queue
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from safetyfilter import ClipEncoder, Run, SafetyFilter, open_source, scan
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.engine import processes, ray_worker
from safetyfilter.engine.coordinator import Coordinator
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.scorers import ImageScorer
from safetyfilter.engine.sending import Packed
from safetyfilter.errors import RunError, SelfCheckError
from safetyfilter.runs.digests import Digester
from tests.cli.commands import command
from tests.embed.self_check.faulty import (
    OtherEncoder,
    all_equal,
    changed,
    other_normalisation,
    other_weights,
    slightly_other_weights,
    with_nan,
)
from tests.engine.pictures import GOOD
from tests.writers import write_files

FEW = dict(list(GOOD.items())[:4])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "safetyfilter" / "self-check"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "pictures", FEW)


@pytest.fixture(scope="module")
def wrong(encoder: ClipEncoder) -> ClipEncoder:
    return changed(encoder, other_weights)


def parts_of(run: Path) -> list[Path]:
    return [path for path in run.rglob("part-*") if path.is_file()]


def test_a_run_has_what_its_first_encoder_made_of_the_pictures(scanned: Run, safe: SafetyFilter) -> None:
    record = scanned.record.self_check
    assert record is not None
    assert (record.precision, record.device) == ("float32", "cpu")
    assert record.vectors.shape == (4, safe.probes.width)
    field = json.loads((Path(scanned.path) / "run.json").read_text())["self_check"]
    assert set(field) == {"pictures", "precision", "view", "device", "embeddings"}
    assert Run.open(scanned.path).record == scanned.record


@pytest.mark.parametrize(
    ("change", "said"), [(with_nan, "has the norm nan"), (all_equal, "are all the same")], ids=["nan", "all equal"]
)
def test_nothing_is_scored_by_an_encoder_that_fails(
    cache: Path, folder: Path, tmp_path: Path, safe: SafetyFilter, change, said: str
) -> None:
    broken = replace(safe, encoder=OtherEncoder(encoder=safe.encoder, change=change))
    with pytest.raises(SelfCheckError, match=said):
        scan(open_source(folder), tmp_path / "run", broken)
    assert parts_of(tmp_path / "run") == []
    assert not cache.exists()
    sound = replace(safe, encoder=OtherEncoder(encoder=safe.encoder))  # somebody else's too
    assert scan(open_source(folder), tmp_path / "other", sound).record.self_check is not None


@pytest.mark.parametrize("change", [other_weights, other_normalisation], ids=["weights", "normalisation"])
def test_the_same_identity_with_other_embeddings_is_found_by_the_first_use(
    cache: Path, folder: Path, tmp_path: Path, safe: SafetyFilter, change
) -> None:
    scan(open_source(folder), tmp_path / "first", safe)
    with pytest.raises(SelfCheckError, match="If it was wrong at its first use, remove ") as caught:
        scan(open_source(folder), tmp_path / "run", replace(safe, encoder=changed(safe.encoder, change)))
    assert str(next(cache.iterdir())) in str(caught.value)
    assert parts_of(tmp_path / "run") == []


def test_a_run_goes_on_with_an_encoder_that_embeds_as_its_first(
    cache: Path, folder: Path, tmp_path: Path, safe: SafetyFilter, wrong: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scan(open_source(folder), tmp_path / "run", safe).record
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    whole = replace(safe, encoder=wrong)
    assert scan(open_source(folder), tmp_path / "run", whole).record == first  # nothing to embed, nothing to check
    write_files(folder, {"new.png": GOOD["coffee-2.png"]})
    with pytest.raises(SelfCheckError, match=r"of this run's first use, run\.json: on cpu, float32") as caught:
        scan(open_source(folder), tmp_path / "run", whole)
    assert "go on where they agree, or scan into a new directory" in str(caught.value)
    assert "first use, /" not in str(caught.value)
    other = replace(safe, encoder=changed(safe.encoder, slightly_other_weights))
    again = scan(open_source(folder), tmp_path / "run", other)
    assert (again.counts["seen"], again.record.self_check) == (len(FEW) + 1, first.self_check)


def test_a_run_of_an_earlier_version_is_gone_on_with_and_gets_a_record(
    cache: Path, folder: Path, tmp_path: Path, safe: SafetyFilter
) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    run.write_record(replace(run.record, self_check=None))
    assert scan(open_source(folder), run.path, safe).record.self_check is None
    write_files(folder, {"new.png": GOOD["coffee-2.png"]})
    assert scan(open_source(folder), run.path, safe).record.self_check is not None


def test_a_damaged_record_is_told_by_its_field(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    file = tmp_path / "run" / "run.json"
    content = json.loads(file.read_text())
    content["self_check"]["embeddings"] = content["self_check"]["embeddings"][:-8]
    file.write_text(json.dumps(content))
    with pytest.raises(RunError, match="the field self_check can't be read"):
        Run.open(run.path)


def test_stored_embeddings_have_no_encoder_to_check(tmp_path: Path, safe: SafetyFilter) -> None:
    vectors = np.eye(3, safe.probes.width, dtype=np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    run = scan(open_source(tmp_path / "vectors.npy"), tmp_path / "run", safe)
    assert run.record.self_check is None
    assert "self_check" not in (tmp_path / "run" / "run.json").read_text()


def test_a_process_of_another_device_is_held_against_the_run(
    cache: Path, safe: SafetyFilter, scanned: Run, wrong: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageScorer, "on", lambda self, device: ImageScorer(replace(safe, encoder=wrong)))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    job = PartJob(
        source=open_source(Path(scanned.path).parent / "pictures"),
        scorer=ImageScorer(safe),
        digester=Digester(b"s" * 32),
        self_check=scanned.record.self_check,
    )
    results: queue.Queue[object] = queue.Queue()
    with pytest.raises(SystemExit):
        processes._work(job, "cpu", queue.Queue(), results, threading.Event())
    assert isinstance(error := results.get_nowait(), SelfCheckError)
    assert "of this run's first use" in str(error)


def test_workers_of_a_cluster_agree_on_the_first_of_them(scanned: Run) -> None:
    first, coordinator = scanned.record.self_check, Coordinator()
    assert first is not None
    other = CheckEmbeddings.of(-first.vectors, precision="float32", view="whole", device="cpu")
    assert coordinator.news().self_check is None
    assert coordinator.first_check(None) is None
    assert coordinator.first_check(first) == first
    assert coordinator.first_check(other) == first
    assert coordinator.news().self_check == first


@pytest.mark.parametrize("at_once", [False, True], ids=["later", "at the same time as the first"])
def test_a_worker_that_embeds_otherwise_stops_the_scan(
    cache: Path, scanned: Run, safe: SafetyFilter, wrong: ClipEncoder, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Without Ray: calls of the coordinator are calls of an object here."""
    coordinator = Coordinator()
    coordinator.first_check(scanned.record.self_check)
    there = SimpleNamespace(
        **{
            name: SimpleNamespace(remote=getattr(coordinator, name))
            for name in ("begin", "digester", "ended", "failed", "first_check", "log", "tell")
        }
    )
    scorer = ImageScorer(replace(safe, encoder=wrong))
    source = open_source(Path(scanned.path).parent / "pictures")
    first = None if at_once else scanned.record.self_check
    job = PartJob(source=source, scorer=scorer, digester=Digester(b"s" * 32), self_check=first)
    given = SimpleNamespace(
        job=job, writer=SimpleNamespace(root=scanned.path), started=scanned.record.started, parts={}, numbers={}
    )
    fake = SimpleNamespace(get=lambda answer: answer, exceptions=SimpleNamespace(RayActorError=OSError))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_worker, "unpacked", lambda *_: given)
    monkeypatch.setattr(ray_worker, "set_cores", lambda cores: None)
    monkeypatch.setattr(logging.getLogger("safetyfilter"), "handlers", [])
    ray_worker.PartWorker(Packed(content=b"", encoders=()), there, device="cpu", cores=1)([0])
    (failure,) = coordinator.faults()
    assert failure.kind is SelfCheckError
    assert "of this run's first use, run.json" in failure.message
    assert coordinator.begin("another", [1]) == []
    assert coordinator.busy() == 0


def test_the_command_says_it_in_one_line_and_fails(
    cache: Path, folder: Path, tmp_path: Path, tiny_clip: Path, probes
) -> None:
    probes.save(tmp_path / "probes.safetensors")
    words = ["scan", folder, "--encoder", f"local-dir:{tiny_clip}", "--probes", tmp_path / "probes.safetensors"]
    words += ["--device", "cpu", "--precision", "fp32"]
    assert command(*words, "--out", tmp_path / "first").status == 0
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    kept["embeddings"] = CheckEmbeddings.of(
        -CheckEmbeddings.from_dict(kept).vectors, precision="float32", view="whole", device="cpu"
    ).as_dict()["embeddings"]
    file.write_text(json.dumps(kept))
    done = command(*words, "--out", tmp_path / "run", "--json")
    assert (done.status, done.stdout) == (1, "")
    assert "failed its self-check on cpu of " in done.message
    assert f"remove {file}" in done.message
    assert "Traceback" not in done.stderr
