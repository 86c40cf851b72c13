"""Decisions looked up by key: right for every key, shared by processes, and an error where they can't be trusted."""

import errno
import fcntl
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Policy, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.batches import Reason, count_decisions
from safetyfilter.errors import RunError, SchemaError, SecretError, UnfinishedRunError, UsageError
from safetyfilter.runs import index_file
from safetyfilter.runs import indexed as module
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.digests import hash_of_columns
from safetyfilter.runs.indexed import index_of
from safetyfilter.runs.parts import digests_of, read_table, write_table
from safetyfilter.runs.reasons import Reasons
from safetyfilter.runs.run import Run
from tests.conftest import bad_images, good_images
from tests.runs.vouching import vouch
from tests.writers import write_files

IMAGES = dict(sorted((good_images() | bad_images()).items()))
KEEP_ALL = Policy(thresholds={"explicit": 1, "minor": 1})


@pytest.fixture
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, KEEP_ALL)


@pytest.fixture
def run(tmp_path: Path, safe: SafetyFilter) -> Run:
    return scan(open_source(write_files(tmp_path / "f", IMAGES), part_size=8), tmp_path / "run", safe)


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
        assert names(decisions.reasons(["a", "b", "b"], contents)) == ["unscored", "none", "drifted"]

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
        run.record = replace(run.record, complete=False)
        with pytest.raises(UnfinishedRunError):
            Decisions.of(run)

    def test_parts_of_two_policies_are_an_error(self, run: Run) -> None:
        Decisions.of(run)  # the index that is there doesn't hide it
        run.decide_part(1, Reasons.by_policy(Policy.preset("strict")))
        with pytest.raises(RunError, match=r"part 1 of .* was not decided by what its run\.json says"):
            Decisions.of(run)

    def test_a_missing_or_damaged_part_is_an_error(self, run: Run) -> None:
        part = Path(run.file("decisions", 1))
        content = part.read_bytes()
        part.write_bytes(content[:100])
        with pytest.raises(RunError, match="can't be read"):
            Decisions.of(run)
        part.unlink()
        with pytest.raises(RunError, match="is missing"):
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
        digests = [digests_of(table.column(name)) for name in ("key_digest", "content_digest")]
        bits = np.full(len(table), Reason.UNKNOWN, np.uint16)
        said = {"content": hash_of_columns(*digests, bits).hexdigest(), "counts": count_decisions(bits)}
        write_table(table, run.file("decisions", 0), meta | said)
        with pytest.raises(RunError, match=r"the decisions of part 0 in .* are not those"):
            Decisions.of(run)
        vouch(run)
        decisions = Decisions.of(run)
        held = set(read_table(run.file("decisions", 0))[0]["key_digest"].to_pylist())
        of_part = [name for name in IMAGES if run.digester().key(name) in held]
        assert len(of_part) == len(table) > 0
        assert names(decisions.reasons(of_part)) == ["unknown"] * len(of_part)

    def test_one_key_is_not_a_list_of_its_letters(self, run: Run) -> None:
        with pytest.raises(UsageError, match="give a list of keys"):
            Decisions.of(run).reasons("china.jpg")

    def test_content_for_each_key(self, run: Run) -> None:
        with pytest.raises(ValueError, match="zip"):
            Decisions.of(run).reasons(["a", "b"], [b""])


class TestCurrent:
    """Open decisions tell when the run was decided anew."""

    def test_as_long_as_nothing_was_decided_anew(self, run: Run) -> None:
        decisions = Decisions.of(run)
        again = pickle.loads(pickle.dumps(decisions))
        for _ in range(2):
            decisions.require_current()
            again.require_current()
        Decisions.of(apply_policy(run, KEEP_ALL))  # the same decisions, in another file
        decisions.require_current()

    @pytest.mark.parametrize("change", ["decided", "being decided", "gone"])
    def test_other_decisions_are_an_error(self, run: Run, change: str) -> None:
        decisions = Decisions.of(run)
        decisions.require_current()
        again = pickle.loads(pickle.dumps(decisions))
        if change == "decided":
            apply_policy(run, Policy.preset("strict"))
        elif change == "being decided":
            run.write_record(replace(run.record, complete=False, counts={}))
        else:
            (Path(run.path) / "run.json").unlink()
        for each in (decisions, again):
            with pytest.raises(RunError, match="restore the run" if change == "gone" else "make the loader again"):
                each.require_current()

    def test_a_run_that_was_opened_before_it_was_scanned_anew_is_read_again(self, run: Run) -> None:
        before = Run.open(run.path)
        run.write_record(replace(run.record, complete=False, counts={}))
        with pytest.raises(UnfinishedRunError):
            Decisions.of(before)

    def test_all_pictures_of_a_sample_are_compared(self, run: Run) -> None:
        decisions, content = Decisions.of(run), IMAGES["china.jpg"]
        bits = decisions.reasons(["china.jpg"] * 3, [content, (content,), (content, content)])
        assert names(bits) == ["none", "none", "drifted"]
        assert decisions.reasons_of_sample("china.jpg", (content, b"more")) == Reason.DRIFTED


class TestTheIndex:
    """The file that all processes map."""

    def test_built_once_and_again_when_decided_anew(self, run: Run) -> None:
        Decisions.of(run)
        path = Path(run.path) / "index" / "decisions.bin"
        first = path.stat().st_mtime_ns, path.stat().st_ino
        assert len(Decisions.of(Run.open(run.path))) == len(IMAGES)
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == first
        old = Decisions.of(run)
        new = Decisions.of(apply_policy(run, Policy(thresholds={"explicit": 0, "minor": 0})))
        assert new.fingerprint != old.fingerprint
        assert (new.reasons(list(IMAGES)) != 0).all()
        assert (old.reasons(list(IMAGES)) == 0).any()  # a loader under way keeps its decisions

    @pytest.mark.parametrize("damage", [b"", b"\0" * 5000, "cut", "bit"])
    def test_a_damaged_index_is_built_again(self, run: Run, damage) -> None:
        expected = Decisions.of(run).reasons(list(IMAGES))
        path = Path(run.path) / "index" / "decisions.bin"
        content = path.read_bytes()
        flipped = content[:-1] + bytes([content[-1] ^ 16])  # the last row's reasons
        path.write_bytes({"cut": content[:-4096], "bit": flipped}.get(damage, damage))
        np.testing.assert_array_equal(Decisions.of(run).reasons(list(IMAGES)), expected)

    def test_it_lies_ready_and_needs_no_secret_to_be_made(self, run: Run, tmp_path) -> None:
        path = Path(run.path) / "index" / "decisions.bin"
        assert path.exists()
        path.unlink()
        (tmp_path / "run.secret").unlink()
        assert len(index_of(run)) == len(IMAGES)

    def test_a_run_that_changes_meanwhile_is_an_error(self, run: Run, monkeypatch) -> None:
        (Path(run.path) / "index" / "decisions.bin").unlink()

        def changing(run):
            yield from batches(run)
            os.utime(run.file("decisions", 0))

        batches = module._batches
        monkeypatch.setattr(module, "_batches", changing)
        with pytest.raises(RunError, match="was written to while"):
            Decisions.of(run)
        assert not (Path(run.path) / "index" / "decisions.bin").exists()

    def test_a_run_that_cannot_be_written(self, run: Run, tmp_path, monkeypatch) -> None:
        shutil.rmtree(Path(run.path) / "index")
        (Path(run.path) / "index").write_text("in the way")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert len(Decisions.of(run)) == len(IMAGES)
        assert list((tmp_path / "cache").rglob("decisions.bin"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "run.secret"))
        with pytest.raises(RunError, match="XDG_CACHE_HOME"):
            Decisions.of(run)

    @pytest.mark.parametrize("full", [["index"], ["index", "cache"]])
    def test_where_there_is_no_room(self, run: Run, tmp_path, monkeypatch, caplog, full: list[str]) -> None:
        expected = Decisions.of(run).reasons(list(IMAGES))
        shutil.rmtree(Path(run.path) / "index")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        folders = {"index": Path(run.path) / "index", "cache": tmp_path / "cache"}

        def allocate(descriptor: int, size: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if any(path.is_relative_to(folders[name]) for name in full):
                raise OSError(errno.ENOSPC, "No space left on device")
            os.posix_fallocate(descriptor, 0, size)

        monkeypatch.setattr(index_file, "allocate", allocate)
        decisions = Decisions.of(run)
        np.testing.assert_array_equal(decisions.reasons(list(IMAGES)), expected)
        assert bool(list((tmp_path / "cache").rglob("decisions.bin"))) == ("cache" not in full)
        assert ("there is no room for an index" in caplog.text) == ("cache" in full)
        again = pickle.loads(pickle.dumps(decisions))
        np.testing.assert_array_equal(again.reasons(list(IMAGES), list(IMAGES.values())), expected)
        assert [again.reasons_of_key(key) for key in IMAGES] == expected.tolist()
        assert not list(tmp_path.rglob("*.tmp"))

    def test_a_limit_on_files_ends_no_process(self, run: Run, tmp_path) -> None:
        """The kernel's own refusal, in a process that may write files of a few kilobytes only."""
        shutil.rmtree(Path(run.path) / "index")
        code = (
            "import resource, sys; from safetyfilter.runs.decisions import Decisions, Run\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "print(len(Decisions.of(Run.open(sys.argv[1]))))"
        )
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", code, run.path], capture_output=True, text=True, env=environment, timeout=300
        )
        assert (done.returncode, done.stdout.strip()) == (0, str(len(IMAGES)))
        assert "there is no room for an index" in done.stderr

    def test_processes_wait_for_the_one_that_builds(self, run: Run) -> None:
        code = (
            "import sys; from safetyfilter.runs.decisions import Decisions, Run\n"
            "print(len(Decisions.of(Run.open(sys.argv[1]))))"
        )
        (Path(run.path) / "index" / "decisions.bin").unlink()
        with (Path(run.path) / "index" / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = [
                subprocess.Popen([sys.executable, "-c", code, run.path], stdout=subprocess.PIPE, text=True)
                for _ in range(2)
            ]
            with pytest.raises(subprocess.TimeoutExpired):
                waiting[0].wait(timeout=4)
        assert [process.communicate(timeout=300)[0].strip() for process in waiting] == [str(len(IMAGES))] * 2
        assert not list((Path(run.path) / "index").glob(".*"))

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
        content = (Path(run.path) / "index" / "decisions.bin").read_bytes()
        assert not [name for name in IMAGES if Path(name).stem.encode() in content]
