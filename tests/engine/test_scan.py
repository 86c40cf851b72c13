"""Scans of real photographs: every good one scored, every bad one on record, and nothing done twice."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import ClipEncoder, EmbedOptions, Policy, ProbeBank, Run, SafetyFilter, apply_policy
from safetyfilter.engine.scan import scan
from safetyfilter.errors import OtherRunError, OutputError, PolicyError, RunError
from safetyfilter.runs.record import COUNT_NAMES
from safetyfilter.sources import open_source
from tests.engine.pictures import ALL, BAD, GOOD, SIGNALS, STATUS, keys_of, rows, rows_of
from tests.writers import WRITERS, write_files


def test_good_ones_are_scored_and_bad_ones_on_record(scanned: Run) -> None:
    scores, decisions = rows_of(scanned, ALL), rows_of(scanned, ALL, "decisions")
    digester = scanned.digester()
    assert scores["content_digest"].to_pylist() == [digester.content(content) for content in ALL.values()]
    assert scores["status"].to_pylist() == [STATUS.get(name, "ok") for name in ALL]
    for name, *values, reasons, keep in zip(
        ALL,
        *(scores[signal].to_pylist() for signal in SIGNALS),
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
    counts = scanned.counts
    assert counts["seen"] == len(ALL) == counts["kept"] + counts["excluded"]
    assert counts["unscored"] == len(BAD)
    assert 0 < counts["kept"] < len(GOOD)  # random probes put some pictures on each side
    assert Counter(reason for reasons in decisions["reasons"].to_pylist() for reason in reasons) == Counter(
        {name: count for name, count in counts.items() if count and name not in ("seen", "kept", "excluded")}
    )


def test_rows_are_in_the_order_of_their_keys(scanned: Run) -> None:
    for folder in ("scores", "decisions"):
        for path in (Path(scanned.path) / folder).iterdir():
            digests = pq.read_table(path)["key_digest"].to_pylist()
            assert digests == sorted(digests)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_kind_of_source_gets_the_same_scores(
    tmp_path: Path, safe: SafetyFilter, tiny_clip: Path, precision: str
) -> None:
    safe = replace(safe, encoder=ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision=precision))
    files = {name: content for name, content in ALL.items() if not name.endswith(".md")}  # no name for one in a tar
    found = {}
    for kind, write in WRITERS.items():
        source = open_source(write(tmp_path / kind, files, None))
        run = scan(source, tmp_path / f"run-{kind}", safe)
        scores = rows_of(run, keys_of(source)).select([*SIGNALS, "status"]).to_pydict()
        found[kind] = scores | {"keep": rows_of(run, keys_of(source), "decisions")["keep"].to_pylist()}
    first, *others = found.values()
    assert len(others) == 3
    for other in others:
        np.testing.assert_equal(other, first)


def test_a_run_names_no_sample(scanned: Run) -> None:
    stems = {Path(name).stem.encode() for name in ALL}
    files = [path for path in Path(scanned.path).rglob("*") if path.is_file()]
    assert {path.relative_to(scanned.path).parts[0] for path in files} >= {
        "scores",
        "decisions",
        "embeddings",
        "index",
    }
    for path in files:
        content = path.read_bytes()
        assert not [stem for stem in stems if stem in content], path
        assert str(Path(scanned.path).parent).encode() not in content
    assert rows(scanned).schema.names == ["key_digest", "content_digest", *SIGNALS, "status"]
    assert rows(scanned, "decisions").schema.names == ["key_digest", "content_digest", "keep", "reasons"]
    assert rows(scanned).schema.field("key_digest").type == pa.binary(16)
    assert Path(scanned.path).with_name("run.secret").stat().st_mode & 0o777 == 0o600
    assert not (Path(scanned.path) / "secret").exists()


def test_run_json_says_what_was_done(scanned: Run, safe: SafetyFilter) -> None:
    info = json.loads((Path(scanned.path) / "run.json").read_text())
    assert info["schema"] == 4
    assert info["encoder"]["digest"] == safe.encoder.spec.digest
    assert info["probes"] == list(safe.probes.digests)
    assert info["signals"] == list(SIGNALS)
    assert Policy.from_dict(info["policy"]) == safe.policy
    assert (info["source"]["kind"], info["source"]["parts"]) == ("folder", 4)
    assert tuple(info["counts"]) == COUNT_NAMES
    assert info["counts"]["seen"] == len(ALL)
    assert info["complete"] is True
    assert "notice" not in info
    assert {"torch", "safetyfilter", "open_clip_torch"} <= set(info["versions"])


def test_multi_views_score_at_least_the_whole(folder: Path, tmp_path: Path, scanned: Run, safe: SafetyFilter) -> None:
    multi = replace(safe, options=EmbedOptions(views="multi", batch_size=4))
    many, whole = rows_of(scan(open_source(folder), tmp_path / "run", multi), ALL), rows_of(scanned, ALL)
    ok = np.array([name in GOOD for name in ALL])
    for signal in SIGNALS:
        assert (many[signal].to_numpy()[ok] >= whole[signal].to_numpy()[ok] - 1e-6).all()


def test_each_part_is_decided_once(folder: Path, tmp_path: Path, safe: SafetyFilter, monkeypatch) -> None:
    decided: list[int] = []
    decide = Policy.decide

    def counted(self: Policy, scores):
        decided.append(len(scores))
        return decide(self, scores)

    monkeypatch.setattr(Policy, "decide", counted)
    reports: list[dict[str, int]] = []
    run = scan(open_source(folder, part_size=6), tmp_path / "run", safe, progress=lambda r: reports.append(dict(r)))
    assert decided == [6, 6, 6, 3]
    totals = sum(map(Counter, reports), Counter())
    assert totals == {name: run.counts[name] for name in ("seen", "kept", "excluded", "unscored")}
    assert sum("kept" in report for report in reports) == run.part_count
    decided.clear()
    scan(open_source(folder, part_size=6), tmp_path / "run", safe)
    assert decided == []


def test_finished_parts_are_not_done_again(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    out = tmp_path / "run"
    first = scan(open_source(folder, part_size=5), out, safe)
    before = {path: path.stat().st_mtime_ns for path in Path(first.path).rglob("part-*")}
    removed = pq.read_metadata(out / "scores" / "part-00001.parquet").num_rows
    (out / "scores" / "part-00001.parquet").unlink()
    (out / "decisions" / "part-00002.parquet").write_bytes(b"PAR1")
    resumed: Counter[str] = Counter()
    again = scan(open_source(folder, part_size=5), out, safe, progress=resumed.update)
    changed = {path.relative_to(out).as_posix() for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"scores/part-00001.parquet", "decisions/part-00001.parquet", "decisions/part-00002.parquet"}
    assert again.counts == first.counts
    assert resumed["resumed"] == first.counts["seen"] - removed
    assert resumed["seen"] == first.counts["seen"]


def test_a_changed_source_is_done_again_where_it_changed(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    out = tmp_path / "run"
    scan(open_source(folder, part_size=5), out, safe)
    (folder / "zz.jpg").write_bytes(GOOD["china.jpg"])
    run = scan(open_source(folder, part_size=5), out, safe)
    assert run.counts["seen"] == len(ALL) + 1
    for name in ("zz.jpg", *list(ALL)[-5:]):
        (folder / name).unlink()
    shorter = scan(open_source(folder, part_size=5), out, safe)
    counts = (shorter.counts["seen"], rows(shorter).num_rows, rows(shorter, "decisions").num_rows)
    assert counts == (len(ALL) - 5,) * 3
    assert rows_of(shorter, list(ALL)[:-5])["status"].to_pylist() == [STATUS.get(n, "ok") for n in list(ALL)[:-5]]


def test_another_policy_in_no_time(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    scores = (Path(run.path) / "scores" / "part-00000.parquet").stat().st_mtime_ns
    strict = apply_policy(Run.open(run.path), Policy.preset("strict"))
    assert strict.counts["kept"] <= run.counts["kept"]
    assert Run.open(run.path).policy == Policy.preset("strict")
    assert (Path(run.path) / "scores" / "part-00000.parquet").stat().st_mtime_ns == scores
    with pytest.raises(PolicyError, match="no probe scores"):
        apply_policy(Run.open(run.path), Policy(thresholds={"explicit": 0.5, "minor": 0.5, "violence": 0.5}))
    assert Run.open(run.path).counts == strict.counts


@pytest.mark.parametrize(
    ("what", "said"),
    [("source", "of another source;"), ("views", "that differs in views;"), ("probes", "that differs in probes;")],
)
def test_another_run_is_not_overwritten(folder: Path, tmp_path: Path, safe: SafetyFilter, what: str, said: str) -> None:
    scan(open_source(folder), tmp_path / "run", safe)
    before = (tmp_path / "run" / "run.json").read_bytes()
    source = folder
    if what == "source":
        source = write_files(tmp_path / "other", GOOD)
    elif what == "views":
        safe = replace(safe, options=EmbedOptions(views="center"))
    else:
        safe = replace(safe, probes=ProbeBank([replace(p, bias=p.bias + 1) for p in safe.probes.probes]))
    with pytest.raises(OtherRunError, match=said):
        scan(open_source(source), tmp_path / "run", safe)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_bad_outputs(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        scan(open_source(folder), tmp_path / "file", safe)
    with pytest.raises(OutputError, match="holds no run"):
        scan(open_source(folder), write_files(tmp_path / "other", GOOD), safe)
    with pytest.raises(OutputError, match="can't write to"):
        scan(open_source(folder), tmp_path / "file" / "run", safe)
    with pytest.raises(RunError, match="no run at"):
        Run.open(tmp_path / "nothing")


@pytest.mark.parametrize("out", ["memory://one/run", Path("memory://two/run"), "memory:/three/run"])
def test_a_run_may_lie_at_a_url_and_no_folder_is_named_after_it(
    folder: Path, tmp_path: Path, safe: SafetyFilter, monkeypatch: pytest.MonkeyPatch, out: str | os.PathLike[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    run = scan(open_source(folder), out, safe)
    assert str(run.path).startswith("memory://")
    assert Run.open(out).counts == run.counts
    assert list(work.iterdir()) == []


def test_two_scans_dont_write_one_run(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder), tmp_path / "run", safe)
    with run.writing(), pytest.raises(RunError, match="another process"):
        scan(open_source(folder), tmp_path / "run", safe)
