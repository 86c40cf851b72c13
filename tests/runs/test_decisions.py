"""Decisions looked up by key: right for every key, shared by processes, and an error where they can't be trusted."""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter import Policy, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.batches import Digester, Reason
from safetyfilter.errors import RunError, SchemaError, SecretError, UnfinishedRunError
from safetyfilter.runs import decisions as module
from safetyfilter.runs import index as index_module
from safetyfilter.runs.decisions import Decisions, index_of
from safetyfilter.runs.index import DecisionIndex, records, write_index
from safetyfilter.runs.parts import read_table, write_table
from safetyfilter.runs.run import Run
from tests.conftest import bad_images, good_images, write_files

IMAGES = dict(sorted((good_images() | bad_images()).items()))
KEEP_ALL = Policy(thresholds={"explicit": 1, "minor": 1})
DIGESTER = Digester(bytes(range(32)))


@pytest.fixture
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, KEEP_ALL)


@pytest.fixture
def run(tmp_path: Path, safe: SafetyFilter) -> Run:
    return scan(open_source(write_files(tmp_path / "f", IMAGES), part_size=8), tmp_path / "run", safe)


def array(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def indexed(place: Path, keys: list[bytes], contents: list[bytes], reasons: list[int], batch: int = 1000) -> Decisions:
    rows = records(array(keys), array(contents), np.array(reasons, np.uint8))
    write_index(
        place, (rows[start : start + batch] for start in range(0, len(rows), batch)), rows=len(rows), fingerprint="f"
    )
    return Decisions(DecisionIndex(place), DIGESTER, place.parent)


def names(bits) -> list[str]:
    return [str(Reason(int(b))) for b in bits]


class TestOfARun:
    """What `Decisions.of` reads and refuses."""

    def test_agrees_with_the_parts(self, run: Run) -> None:
        decisions = Decisions.of(run)
        assert len(decisions) == len(IMAGES)
        counts = run.counts
        bits = decisions.reasons(list(IMAGES), list(IMAGES.values()))
        assert (bits == 0).sum() == counts["kept"] == len(good_images())
        assert names(bits) == ["unscored" if name in bad_images() else "none" for name in IMAGES]
        assert bits.tolist() == [decisions.reasons_of_key(name) for name in IMAGES]
        assert bits.tolist() == [decisions.reasons_of_sample(name, content) for name, content in IMAGES.items()]
        assert names(decisions.reasons(["new.jpg"])) == ["unknown"] == names([decisions.reasons_of_key("new.jpg")])

    def test_a_repeated_key_is_kept_only_if_every_sample_is(self, tmp_path, safe) -> None:
        rows = {"key": ["a", "b", "a"], "image": pa.array([IMAGES["china.jpg"], IMAGES["china.jpg"], b"bad"])}
        pq.write_table(pa.table(rows), tmp_path / "p.parquet")
        decisions = Decisions.of(scan(open_source(tmp_path / "p.parquet"), tmp_path / "run", safe))
        assert len(decisions) == 2
        assert names(decisions.reasons(["a", "b", "c"])) == ["unscored", "none", "unknown"]
        contents = [IMAGES["china.jpg"], IMAGES["china.jpg"], None]
        assert names(decisions.reasons(["a", "b", "b"], contents)) == ["unscored|drifted", "none", "drifted"]

    def test_the_secret_is_needed(self, run: Run, tmp_path, monkeypatch) -> None:
        secret = (tmp_path / "run.secret").read_text()
        (tmp_path / "run.secret").unlink()
        with pytest.raises(SecretError, match="no secret for the run"):
            Decisions.of(run)
        monkeypatch.setenv("SAFETYFILTER_SECRET", "00" * 32)
        with pytest.raises(SecretError, match="not the one"):
            Decisions.of(run)
        monkeypatch.setenv("SAFETYFILTER_SECRET", "no hex")
        with pytest.raises(SecretError, match="hexadecimal"):
            Decisions.of(run)
        monkeypatch.setenv("SAFETYFILTER_SECRET", secret)
        assert len(Decisions.of(run)) == len(IMAGES)

    def test_an_unfinished_run_is_an_error(self, run: Run) -> None:
        Decisions.of(run)
        run.info["complete"] = False
        with pytest.raises(UnfinishedRunError):
            Decisions.of(run)

    def test_parts_of_two_policies_are_an_error(self, run: Run) -> None:
        Decisions.of(run)  # the index that is there doesn't hide it
        run.decide_part(1, Policy.preset("strict"))
        with pytest.raises(RunError, match="decided under another policy"):
            Decisions.of(run)

    def test_a_missing_or_damaged_part_is_an_error(self, run: Run) -> None:
        part = run.file("decisions", 1)
        content = part.read_bytes()
        part.write_bytes(content[:100])
        with pytest.raises(RunError, match="can't read"):
            Decisions.of(run)
        part.unlink()
        with pytest.raises(RunError, match="can't read"):
            Decisions.of(run)

    @pytest.mark.parametrize("change", ["version", "reason", "column", "type"])
    def test_another_schema_is_an_error(self, run: Run, change: str) -> None:
        table, meta = read_table(run.file("decisions", 0))
        if change == "reason":
            table = table.set_column(3, "reasons", pa.array([["novel"]] * len(table), pa.list_(pa.string())))
        elif change == "column":
            table = table.drop_columns(["keep"])
        elif change == "type":
            table = table.set_column(0, "key_digest", table.column(0).cast(pa.binary()))
        write_table(table, run.file("decisions", 0), {**meta, **({"schema": 99} if change == "version" else {})})
        with pytest.raises(SchemaError):
            Decisions.of(run)

    def test_a_row_that_says_nothing_is_excluded(self, run: Run) -> None:
        table, meta = read_table(run.file("decisions", 0))
        silent = pa.array([None] * len(table), pa.bool_())
        table = table.set_column(2, "keep", silent)
        table = table.set_column(3, "reasons", pa.array([None] * len(table), pa.list_(pa.string())))
        write_table(table, run.file("decisions", 0), meta)
        decisions = Decisions.of(run)
        assert names(decisions.reasons(list(IMAGES)[:8])) == ["unknown"] * 8

    def test_an_empty_run(self, tmp_path: Path) -> None:
        decisions = indexed(tmp_path / "i", [], [], [])
        assert len(decisions) == 0
        assert names(decisions.reasons(["a", "b"])) == ["unknown"] * 2 == names(map(decisions.reasons_of_key, "ab"))


class TestTheIndex:
    """The file that all processes map."""

    def test_built_once_and_again_when_decided_anew(self, run: Run) -> None:
        Decisions.of(run)
        path = run.path / "index" / "decisions.bin"
        first = path.stat().st_mtime_ns, path.stat().st_ino
        assert len(Decisions.of(Run.open(run.path))) == len(IMAGES)
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == first
        old = Decisions.of(run)
        new = Decisions.of(apply_policy(run, Policy(thresholds={"explicit": 0, "minor": 0})))
        assert new.fingerprint != old.fingerprint
        assert (new.reasons(list(IMAGES)) != 0).all()
        assert (old.reasons(list(IMAGES)) == 0).any()  # a loader under way keeps its decisions

    @pytest.mark.parametrize("damage", [b"", b"\0" * 5000, "cut"])
    def test_a_damaged_index_is_built_again(self, run: Run, damage) -> None:
        expected = Decisions.of(run).reasons(list(IMAGES))
        path = run.path / "index" / "decisions.bin"
        path.write_bytes(path.read_bytes()[:-4096] if damage == "cut" else damage)
        np.testing.assert_array_equal(Decisions.of(run).reasons(list(IMAGES)), expected)

    def test_it_lies_ready_and_needs_no_secret_to_be_made(self, run: Run, tmp_path) -> None:
        path = run.path / "index" / "decisions.bin"
        assert path.exists()
        path.unlink()
        (tmp_path / "run.secret").unlink()
        assert len(index_of(run)) == len(IMAGES)

    def test_a_run_that_changes_meanwhile_is_an_error(self, run: Run, monkeypatch) -> None:
        (run.path / "index" / "decisions.bin").unlink()

        def changing(run):
            yield from batches(run)
            os.utime(run.file("decisions", 0))

        batches = module._batches
        monkeypatch.setattr(module, "_batches", changing)
        with pytest.raises(RunError, match="was written to while"):
            Decisions.of(run)
        assert not (run.path / "index" / "decisions.bin").exists()

    def test_a_run_that_cannot_be_written(self, run: Run, tmp_path, monkeypatch) -> None:
        shutil.rmtree(run.path / "index")
        (run.path / "index").write_text("in the way")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert len(Decisions.of(run)) == len(IMAGES)
        assert list((tmp_path / "cache").rglob("decisions.bin"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "run.secret"))
        with pytest.raises(RunError, match="XDG_CACHE_HOME"):
            Decisions.of(run)

    def test_processes_wait_for_the_one_that_builds(self, run: Run) -> None:
        code = (
            "import sys; from safetyfilter.runs.decisions import Decisions, Run\n"
            "print(len(Decisions.of(Run.open(sys.argv[1]))))"
        )
        (run.path / "index" / "decisions.bin").unlink()
        with (run.path / "index" / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = [
                subprocess.Popen([sys.executable, "-c", code, run.path], stdout=subprocess.PIPE, text=True)
                for _ in range(2)
            ]
            with pytest.raises(subprocess.TimeoutExpired):
                waiting[0].wait(timeout=4)
        assert [process.communicate(timeout=60)[0].strip() for process in waiting] == [str(len(IMAGES))] * 2
        assert not list((run.path / "index").glob(".*"))

    def test_pickled_it_is_a_path_and_no_secret(self, run: Run, tmp_path) -> None:
        decisions = Decisions.of(run)
        pickled = pickle.dumps(decisions)
        assert len(pickled) < 1000
        secret = bytes.fromhex((tmp_path / "run.secret").read_text().strip())
        assert secret not in pickled
        assert secret.hex().encode() not in pickled
        again = pickle.loads(pickled)
        np.testing.assert_array_equal(again.reasons(list(IMAGES)), decisions.reasons(list(IMAGES)))
        Decisions.of(apply_policy(run, Policy.preset("strict")))
        with pytest.raises(RunError, match="have changed since"):
            pickle.loads(pickled)

    def test_it_names_no_sample(self, run: Run) -> None:
        Decisions.of(run)
        content = (run.path / "index" / "decisions.bin").read_bytes()
        assert not [name for name in IMAGES if Path(name).stem.encode() in content]


class TestLookups:
    """Right answers, one at a time and many."""

    @pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 500, 70_000])
    @pytest.mark.parametrize("at_once", [1 << 21, 1000])
    def test_many_keys(self, tmp_path, monkeypatch, count: int, at_once: int) -> None:
        monkeypatch.setattr(index_module, "_SORTED_AT_ONCE", at_once)
        rng = np.random.default_rng(count)
        keys = [f"{number // 100:05d}.tar/{number:09d}" for number in range(count)]
        digests = [DIGESTER.key(key) for key in keys]
        contents = [DIGESTER.content(key.encode()) for key in keys]
        reasons = rng.integers(0, 256, count) * (rng.random(count) < 0.2)
        order = rng.permutation(count).tolist()
        decisions = indexed(
            tmp_path / "i", [digests[n] for n in order], [contents[n] for n in order], [int(reasons[n]) for n in order]
        )
        assert len(decisions) == count
        np.testing.assert_array_equal(decisions.reasons(keys), reasons)
        some = order[:2000]
        assert [decisions.reasons_of_key(keys[n]) for n in some] == reasons[some].tolist()
        right = [keys[n].encode() for n in some]
        np.testing.assert_array_equal(decisions.reasons([keys[n] for n in some], right), reasons[some])
        assert (decisions.reasons([keys[n] for n in some], [b"x"] * len(some)) & Reason.DRIFTED != 0).all()
        unknown = [f"{key}?" for key in keys[:2000]]
        assert (
            set(decisions.reasons(unknown).tolist())
            == {int(Reason.UNKNOWN)}
            == set(map(decisions.reasons_of_key, unknown))
        )
        if count == 70_000:
            assert decisions.index.nbytes / count < 18  # 9 of them and the table for lookups, 8 for contents

    @settings(max_examples=60, deadline=None)
    @given(
        rows=st.lists(
            st.tuples(st.binary(min_size=1, max_size=2), st.integers(0, 255), st.sampled_from(b"ab")), max_size=60
        )
    )
    def test_digests_that_nearly_agree(self, tmp_path_factory, rows) -> None:
        """Digests of few different bytes, so that buckets, halves and neighbours collide."""
        place = tmp_path_factory.mktemp("i") / "i"
        keys = [(part * 16)[:16] for part, _, _ in rows]
        decisions = indexed(place, keys, [bytes([content]) * 16 for _, _, content in rows], [r for _, r, _ in rows], 7)
        expected: dict[bytes, int] = {}
        for key, (_, reasons, _) in zip(keys, rows, strict=True):
            expected[key] = expected.get(key, 0) | reasons
        assert len(decisions) == len(expected)
        asked = [*expected, b"\1" * 15 + b"\2", bytes(16), b"\xff" * 16, bytes(8) + b"\xff" * 8]
        found = decisions.index.find(array(asked))
        assert found.tolist() == [decisions.index.find_one(key) for key in asked]
        for key, row in zip(asked, found, strict=True):
            near = [k for k in expected if k[:8] == key[:8] and k[12] >> 7 == key[12] >> 7]
            assert (row >= 0) == bool(near)  # 64 bits and the bucket's: one bit, for so few
            if key in expected:
                assert decisions.index.reasons[row] == expected[key]
                seen = {content for k, (_, _, content) in zip(keys, rows, strict=True) if k == key}
                held = int(decisions.index.contents[row]).to_bytes(8, "little")
                assert held == (bytes([*seen]) * 8 if len(seen) == 1 else bytes(8))

    def test_keys_hash_as_the_scan_hashes_them(self, tmp_path) -> None:
        keys = ["a", "", "ü/写真.jpg", "\udcff", "x" * 5000]
        decisions = indexed(tmp_path / "i", [DIGESTER.key(key) for key in keys], [bytes(16)] * 5, [0, 1, 2, 4, 8])
        assert decisions.reasons(keys).tolist() == [0, 1, 2, 4, 8] == [decisions.reasons_of_key(key) for key in keys]
        assert names(decisions.reasons(["a"], [b""])) == ["drifted"]  # no content on record matches nothing

    def test_content_for_each_key(self, run: Run) -> None:
        with pytest.raises(ValueError, match="zip"):
            Decisions.of(run).reasons(["a", "b"], [b""])
