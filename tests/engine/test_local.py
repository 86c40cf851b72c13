"""Scans of real photographs: every good one scored, every bad one on record, and nothing lost when interrupted."""

import json
import os
import signal as signals
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from safetyfilter import EmbedOptions, Policy, SafetyFilter
from safetyfilter.batches import OK
from safetyfilter.engine.local import apply_policy, scan
from safetyfilter.errors import OtherRunError, OutputError, PolicyError, RunError, UnfinishedRunError
from safetyfilter.runs.run import Run
from safetyfilter.sources import open_source
from tests.conftest import bad_images, good_images, write_files

GOOD, BAD = good_images(), bad_images()
STATUS = {
    "bad/sheared.jpg": "truncated",
    "bad/hollow.jpg": "empty",
    "bad/prose.png": "not_an_image",
    "bad/giant.png": "too_many_pixels",
    "bad/jottings.md": "not_an_image",
    "bad/nought.webp": "not_an_image",
}


def rows(run: Run, folder: str = "scores") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((run.path / folder).iterdir())])


@pytest.fixture
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole", batch_size=4, workers=2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "pictures", GOOD | BAD)


def test_good_ones_are_scored_and_bad_ones_on_record(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder, part_size=6), tmp_path / "run", safe)
    scores, decisions, digester = rows(run), rows(run, "decisions"), run.digester()
    names = sorted(GOOD | BAD)
    assert scores["key_digest"].to_pylist() == [digester.key(name) for name in names]
    assert scores["content_digest"].to_pylist() == [digester.content((GOOD | BAD)[name]) for name in names]
    assert scores["status"].to_pylist() == [STATUS.get(name, OK) for name in names]
    for name, *values, reasons, keep in zip(
        names,
        scores["explicit"].to_pylist(),
        scores["minor"].to_pylist(),
        decisions["reasons"].to_pylist(),
        decisions["keep"].to_pylist(),
        strict=True,
    ):
        if name in GOOD:
            assert all(0 <= value <= 1 for value in values)
            assert keep == (min(values) < 0.5) == (reasons != ["co_occurrence"])
        else:
            assert np.isnan(values).all()
            assert (keep, reasons) == (False, ["unscored"])
    counts = run.counts
    assert counts["seen"] == len(names) == counts["kept"] + counts["excluded"]
    assert counts["unscored"] == len(BAD)
    assert 0 < counts["kept"] < len(GOOD)  # random probes put some pictures on each side
    assert Counter(reason for reasons in decisions["reasons"].to_pylist() for reason in reasons) == Counter(
        {name: count for name, count in counts.items() if count and name not in ("seen", "kept", "excluded")}
    )


def as_tars(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(place / f"{shard}.tar"), encoder=False) as tar:
            for number, (name, content) in enumerate(list(files.items())[shard * 10 : shard * 10 + 10]):
                tar.write({"__key__": f"{number:03d}", Path(name).suffix[1:]: content})
    return place


def as_parquet(place: Path, files: dict[str, bytes]) -> Path:
    pq.write_table(pa.table({"image": pa.array(files.values(), pa.binary())}), place, row_group_size=7)
    return place


def as_data_set(place: Path, files: dict[str, bytes]) -> Path:
    rows = {"image": [{"bytes": content, "path": None} for content in files.values()]}
    datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})).save_to_disk(place)
    return place


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_kind_of_source_gets_the_same_scores(
    tmp_path: Path, safe: SafetyFilter, tiny_clip: Path, precision: str
) -> None:
    from safetyfilter import ClipEncoder

    encoder = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision=precision)
    safe = SafetyFilter(encoder, safe.probes, safe.policy, safe.options)
    files = dict(sorted((GOOD | {k: v for k, v in BAD.items() if not k.endswith(".md")}).items()))
    sources = [
        write_files(tmp_path / "folder", files),
        as_tars(tmp_path / "tars", files),
        as_parquet(tmp_path / "p.parquet", files),
        as_data_set(tmp_path / "saved", files),
    ]
    runs = [scan(open_source(source), tmp_path / f"run-{n}", safe) for n, source in enumerate(sources)]
    first, *others = [rows(run).select(["explicit", "minor", "status"]).to_pydict() for run in runs]
    for run, other in zip(runs[1:], others, strict=True):
        for signal in ("explicit", "minor"):
            np.testing.assert_array_equal(np.array(other[signal]), np.array(first[signal]))
        assert other["status"] == first["status"]
        assert rows(run, "decisions")["keep"].to_pylist() == rows(runs[0], "decisions")["keep"].to_pylist()


def test_a_run_names_no_sample(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe, keep_embeddings=True)
    stems = {Path(name).stem.encode() for name in GOOD | BAD}
    for path in run.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [stem for stem in stems if stem in content], path
            assert str(folder).encode() not in content
    assert rows(run).schema.names == ["key_digest", "content_digest", "explicit", "minor", "status"]
    assert rows(run, "decisions").schema.names == ["key_digest", "content_digest", "keep", "reasons"]
    assert rows(run).schema.field("key_digest").type == pa.binary(16)
    secret = tmp_path / "run.secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert not (run.path / "secret").exists()


def test_embeddings_are_kept_row_by_row(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder, part_size=8), tmp_path / "run", safe, keep_embeddings=True)
    for path in sorted((run.path / "embeddings").iterdir()):
        vectors = np.load(path)
        status = pq.read_table(run.path / "scores" / f"{path.stem}.parquet")["status"].to_pylist()
        assert (vectors.dtype, vectors.shape) == (np.float16, (len(status), 32))
        assert [bool(np.isfinite(vector).all()) for vector in vectors] == [code == OK for code in status]


def test_multi_views_score_at_least_the_whole(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    from dataclasses import replace

    multi = replace(safe, options=EmbedOptions(views="multi", batch_size=4))
    whole, many = (
        rows(scan(open_source(folder), tmp_path / name, f)) for name, f in (("whole", safe), ("multi", multi))
    )
    ok = np.array([code == OK for code in whole["status"].to_pylist()])
    for signal in ("explicit", "minor"):
        assert (many[signal].to_numpy()[ok] >= whole[signal].to_numpy()[ok] - 1e-6).all()


def test_finished_parts_are_not_done_again(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    out = tmp_path / "run"
    first = scan(open_source(folder, part_size=5), out, safe)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("part-*")}
    (out / "scores" / "part-00001.parquet").unlink()
    (out / "decisions" / "part-00002.parquet").write_bytes(b"PAR1")
    resumed: list[int] = []
    again = scan(open_source(folder, part_size=5), out, safe, progress=lambda c: resumed.append(c.get("resumed", 0)))
    changed = {path.relative_to(out).as_posix() for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"scores/part-00001.parquet", "decisions/part-00002.parquet"}
    assert again.counts == first.counts
    assert sum(resumed) == first.counts["seen"] - 5


def test_a_changed_source_is_done_again_where_it_changed(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    out = tmp_path / "run"
    scan(open_source(folder, part_size=5), out, safe)
    (folder / "zz.jpg").write_bytes(GOOD["china.jpg"])
    run = scan(open_source(folder, part_size=5), out, safe)
    assert run.counts["seen"] == len(GOOD | BAD) + 1
    for name in ("zz.jpg", *sorted(GOOD | BAD)[-5:]):
        (folder / name).unlink()
    shorter = scan(open_source(folder, part_size=5), out, safe)
    assert (
        shorter.counts["seen"] == len(GOOD | BAD) - 5 == rows(shorter).num_rows == rows(shorter, "decisions").num_rows
    )


def test_another_policy_in_no_time(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    scores = (run.path / "scores" / "part-00000.parquet").stat().st_mtime_ns
    strict = apply_policy(Run.open(run.path), Policy.preset("strict"))
    assert strict.counts["kept"] <= run.counts["kept"]
    assert Run.open(run.path).policy == Policy.preset("strict")
    assert (run.path / "scores" / "part-00000.parquet").stat().st_mtime_ns == scores
    with pytest.raises(PolicyError, match="no probe scores"):
        apply_policy(Run.open(run.path), Policy(thresholds={"explicit": 0.5, "minor": 0.5, "violence": 0.5}))
    assert Run.open(run.path).counts == strict.counts


@pytest.mark.parametrize(
    ("what", "match"), [("source", "another source"), ("views", "another views"), ("probes", "another probes")]
)
def test_another_run_is_not_overwritten(
    folder: Path, tmp_path: Path, safe: SafetyFilter, encoder, what: str, match: str
) -> None:
    from dataclasses import replace

    from safetyfilter import ProbeBank

    scan(open_source(folder), tmp_path / "run", safe)
    before = (tmp_path / "run" / "run.json").read_bytes()
    source = folder
    if what == "source":
        source = write_files(tmp_path / "other", GOOD)
    elif what == "views":
        safe = replace(safe, options=EmbedOptions(views="center"))
    else:
        safe = replace(safe, probes=ProbeBank([replace(p, bias=p.bias + 1) for p in safe.probes.probes]))
    with pytest.raises(OtherRunError, match=match):
        scan(open_source(source), tmp_path / "run", safe)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_bad_outputs(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        scan(open_source(folder), tmp_path / "file", safe)
    with pytest.raises(OutputError, match="holds no run"):
        scan(open_source(folder), folder, safe)
    with pytest.raises(OutputError, match="can't write to"):
        scan(open_source(folder), tmp_path / "file" / "run", safe)
    with pytest.raises(RunError, match="no run at"):
        Run.open(tmp_path / "nothing")


def test_two_scans_dont_write_one_run(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    with run.writing(), pytest.raises(RunError, match="another process"):
        scan(open_source(folder), tmp_path / "run", safe)


_KILLED = """
import sys, os, signal
from safetyfilter import ClipEncoder, EmbedOptions, Policy, ProbeBank, SafetyFilter
from safetyfilter.sources import open_source
from safetyfilter.engine.local import scan
folder, out, clip, probes = sys.argv[1:]
safe = SafetyFilter(ClipEncoder.load(f"local-dir:{clip}", device="cpu", precision="fp32"), ProbeBank.load(probes),
                    Policy(), EmbedOptions(views="whole", batch_size=4, workers=2))
print("ready", flush=True)
scan(open_source(folder, part_size=6), out, safe, progress=lambda counts: print("seen", flush=True))
"""


@pytest.mark.parametrize("how", [signals.SIGKILL, signals.SIGINT], ids=["kill-9", "ctrl-c"])
def test_a_scan_that_is_stopped_goes_on(
    tmp_path: Path, safe: SafetyFilter, tiny_clip: Path, how: signals.Signals
) -> None:
    folder = write_files(
        tmp_path / "pictures", {f"{n}/{name}": image for n in range(30) for name, image in GOOD.items()}
    )
    probes = tmp_path / "probes.safetensors"
    safe.probes.save(probes)
    command = [sys.executable, "-c", _KILLED, folder, tmp_path / "run", tiny_clip, probes]
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    for _ in range(12):  # ready, then enough batches for a few parts
        process.stdout.readline()
    os.kill(process.pid, how)
    asked = time.monotonic()
    process.communicate(timeout=20)
    assert how != signals.SIGINT or time.monotonic() - asked < 2
    assert process.returncode != 0
    run = Run.open(tmp_path / "run")
    with pytest.raises(UnfinishedRunError, match="not finished"):
        _ = run.counts
    left = list((run.path / "scores").glob("part-*"))
    assert 0 < len(left) < run.part_count
    assert all(pq.read_table(path).num_rows == 6 for path in left)
    redone: list[int] = []
    source = open_source(folder, part_size=6)
    finished = scan(source, tmp_path / "run", safe, progress=lambda counts: redone.append(counts.get("resumed", 0)))
    assert sum(redone) == 6 * len(left)
    fresh = scan(source, tmp_path / "fresh", safe)
    assert finished.counts == fresh.counts
    for signal_name in ("explicit", "minor"):
        np.testing.assert_allclose(
            rows(finished)[signal_name].to_numpy(), rows(fresh)[signal_name].to_numpy(), atol=1e-5
        )
    assert not [path for path in run.path.rglob("*") if ".tmp" in path.name]


def test_run_json_says_what_was_done(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    info = json.loads((run.path / "run.json").read_text())
    assert info["schema"] == 1
    assert info["encoder"]["digest"] == safe.encoder.spec.digest
    assert info["probes"] == list(safe.probes.digests)
    assert Policy.from_dict(info["policy"]) == safe.policy
    assert info["source"]["kind"] == "folder"
    assert info["counts"]["seen"] == len(GOOD | BAD)
    assert info["stand_in"] is False
    assert {"torch", "safetyfilter", "open_clip_torch"} <= set(info["versions"])


def test_two_processes_do_what_one_does(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    seen: Counter[str] = Counter()
    one = scan(open_source(folder, part_size=4), tmp_path / "one", safe)
    two = scan(
        open_source(folder, part_size=4),
        tmp_path / "two",
        safe,
        devices=["cpu", "cpu"],
        keep_embeddings=True,
        progress=lambda counts: seen.update(counts),
    )
    assert two.counts == one.counts
    assert seen["seen"] == one.counts["seen"]
    for signal in ("explicit", "minor"):
        np.testing.assert_allclose(rows(two)[signal].to_numpy(), rows(one)[signal].to_numpy(), atol=1e-5)
    assert len(list((two.path / "embeddings").iterdir())) == two.part_count


def test_a_process_that_fails_is_told(
    folder: Path, tmp_path: Path, safe: SafetyFilter, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match="ended early"):
        scan(open_source(folder, part_size=4), tmp_path / "run", safe, devices=["cpu", "cuda:99"])
    assert "torch sees" in capfd.readouterr().err
    assert scan(open_source(folder, part_size=4), tmp_path / "run", safe).counts["seen"] == len(GOOD | BAD)
