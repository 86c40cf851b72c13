"""A verification finds every change to a run, however well it was hidden, and needs neither a sample nor the secret."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from safetyfilter import Policy, Run, apply_policy
from safetyfilter.attest import verify
from safetyfilter.attest.measured import Measured, measured
from safetyfilter.attest.sign import attest_run
from safetyfilter.attest.verification import Verification
from safetyfilter.attest.verify import verify_run
from safetyfilter.batches import Reason
from safetyfilter.errors import AttestationError, RunError, UnfinishedRunError
from safetyfilter.runs.indexed import index_of
from safetyfilter.runs.parts import read_scores, read_table, write_scores, write_table
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.stored import file_digest
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.storage import Location
from tests.attest.changing import (
    Change,
    agree,
    edit_json,
    edited,
    flip_a_keep,
    forge,
    leaves,
    rewrite,
    rewrite_raw,
    swap_files,
    swap_signals,
)
from tests.attest.runs import PARTS, finished


def failed(done: Verification) -> set[str]:
    assert not done.holds
    return {claim.what for claim in done.failed}


def swap_two_rows(table: pa.Table) -> pa.Table:
    return table.take([1, 0, *range(2, len(table))])


def drop_a_row(table: pa.Table) -> pa.Table:
    return table.slice(1)


def test_a_run_is_as_it_was_attested(run: Run, keys: PrivateKeys) -> None:
    done = verify_run(run.path, keys.public)
    assert done.holds, done.failed
    assert [claim.what for claim in done.claims] == [
        *("signature", "run", "source", "encoder", "probes", "preparation", "pair", "policy", "versions"),
        *("scores", "decisions", "data set", "kept rows", "counts", "rule", "embeddings"),
    ]
    assert {claim.holds for claim in done.claims} == {True}
    assert not list(run.path.folder.names())  # no secret lies beside it
    done.require()
    assert "as it was attested" in done._repr_html_()


@pytest.mark.parametrize("hidden", [False, True], ids=["run.json as it was", "run.json agrees"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda run: rewrite(run, 1, bits=flip_a_keep), {"decisions", "data set", "kept rows", "counts", "rule"}),
        (lambda run: rewrite(run, 1, rows=lambda rows: rows[1:]), {"scores", "decisions", "data set", "counts"}),
        (lambda run: rewrite(run, 2, rows=lambda rows: rows[:-1]), {"scores", "decisions", "data set", "counts"}),
        (lambda run: rewrite(run, 0, scores=lambda found: found / 2), {"scores", "rule"}),
        (lambda run: swap_files(run, "decisions", 0, 1), {"decisions", "data set", "kept rows", "rule"}),
        (lambda run: [swap_files(run, folder, 0, 2) for folder in ("scores", "decisions")], {"scores", "data set"}),
    ],
    ids=[
        "keep flipped",
        "first row dropped",
        "last row dropped",
        "scores halved",
        "decisions swapped",
        "parts swapped",
    ],
)
def test_changed_files_are_found(run: Run, keys: PrivateKeys, change: Change, expected: set[str], hidden: bool) -> None:
    change(run)
    if hidden:
        agree(run)
    done = verify_run(run, keys.public)
    assert failed(done) >= expected
    assert "decided anew" not in "".join(claim.found for claim in done.failed)


@pytest.mark.parametrize("folder", ["scores", "decisions"])
@pytest.mark.parametrize("change", [swap_two_rows, drop_a_row])
def test_rows_that_were_changed_in_a_file_alone_are_found(run: Run, keys: PrivateKeys, folder: str, change) -> None:
    rewrite_raw(run, folder, 1, change)
    done = verify_run(run, keys.public)
    assert failed(done) >= {folder}
    assert "part-00001.parquet" in next(claim.found for claim in done.failed if claim.what == folder)


def test_a_flipped_keep_is_found_though_the_reasons_are_left(run: Run, keys: PrivateKeys) -> None:
    def flipped(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index("keep"), "keep", pa.array([True] * len(table)))

    rewrite_raw(run, "decisions", 1, flipped)
    assert "decisions" in failed(verify_run(run, keys.public))


def test_signals_whose_names_were_swapped_are_found(run: Run, keys: PrivateKeys) -> None:
    """The values, in their order, are those that were attested."""
    swap_signals(run, 1)
    done = verify_run(run, keys.public)
    assert "scores" in failed(done)
    assert "part-00001.parquet has scores of" in next(claim.found for claim in done.failed if claim.what == "scores")
    for read in (run.read_scores, lambda: apply_policy(run, Policy(thresholds={"explicit": 0.3, "minor": 0.9}))):
        with pytest.raises(RunError, match="in this order: it was altered, or is another run's; scan again"):
            read()


@pytest.mark.parametrize("folder", ["scores", "decisions", "embeddings"])
def test_a_missing_file_is_found(run: Run, keys: PrivateKeys, folder: str) -> None:
    run.file(folder, 1).remove()
    assert folder in failed(verify_run(run, keys.public))


@pytest.mark.parametrize("name", ["part-00003.parquet", "further.parquet"])
@pytest.mark.parametrize("folder", ["scores", "decisions", "embeddings"])
def test_a_further_file_is_found(run: Run, keys: PrivateKeys, folder: str, name: str) -> None:
    (Path(run.path) / folder / name).write_bytes(run.file(folder, 0).read_bytes())
    assert failed(verify_run(run, keys.public)) == {folder}


def test_a_part_of_another_run_is_found(run: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    other = finished(tmp_path / "other")
    for folder in ("scores", "decisions"):
        Path(run.file(folder, 0)).write_bytes(other.file(folder, 0).read_bytes())
    assert failed(verify_run(run, keys.public)) >= {"scores", "decisions", "data set"}


def test_changed_embeddings_are_found(run: Run, keys: PrivateKeys) -> None:
    place = Path(run.file("embeddings", 0))
    place.write_bytes(place.read_bytes()[:-1] + b"\0")
    assert failed(verify_run(run, keys.public)) == {"embeddings"}


def test_each_field_of_the_record_is_held_against_what_was_attested(
    run: Run, keys: PrivateKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(run.path) / "run.json"
    known: list[tuple[RunRecord, Measured]] = []

    def measured_once(root: Location, record: RunRecord, **_: object) -> Measured:
        """The files stay as they are here, and what they hold is computed once for each record."""
        found = next((result for other, result in known if other == record), None) or measured(root, record)
        known.append((record, found))
        return found

    monkeypatch.setattr(verify, "measured", measured_once)
    before = place.read_text()
    paths = list(leaves(json.loads(before)))
    assert len(paths) > 60
    passed = []
    for path in paths:
        edit_json(place, lambda content, path=path: edited(content, path))
        if verify_run(run.path, keys.public).holds:
            passed.append(path)
        place.write_text(before)
    assert passed == []
    assert verify_run(run.path, keys.public).holds


@pytest.mark.parametrize("change", [lambda record: record.update(new=1), lambda record: record.pop("versions")])
def test_a_further_or_missing_field_is_found(run: Run, keys: PrivateKeys, change) -> None:
    edit_json(Path(run.path) / "run.json", change)
    assert failed(verify_run(run.path, keys.public)) <= {"other fields", "versions"}


def test_a_field_that_is_there_twice_is_found(run: Run, keys: PrivateKeys) -> None:
    """Of two, this library reads the last; another reader may take the first."""
    place = Path(run.path) / "run.json"
    place.write_text('{"complete": false,' + place.read_text().removeprefix("{"))
    assert failed(verify_run(run.path, keys.public)) == {"form"}


@pytest.mark.parametrize(("folder", "name"), [("decisions", "keep_all"), ("scores", "path")])
def test_a_further_column_is_found(run: Run, keys: PrivateKeys, folder: str, name: str) -> None:
    rewrite_raw(run, folder, 1, lambda table: table.append_column(name, pa.array([True] * len(table))))
    assert folder in failed(verify_run(run, keys.public))


@pytest.mark.parametrize("name", ["fingerprint", "scores", "shards", "shards_in_keys"])
def test_changed_metadata_of_decisions_are_found(run: Run, keys: PrivateKeys, name: str) -> None:
    place = run.file("decisions", 1)
    table, meta = read_table(place)
    write_table(table, place, meta | {name: ["00" * 8] if name == "shards" else "x"})
    assert failed(verify_run(run, keys.public)) == {"rule"}


def test_a_number_of_another_type_is_found(run: Run, keys: PrivateKeys) -> None:
    edit_json(Path(run.path) / "run.json", lambda record: record.update(complete=1))
    assert failed(verify_run(run.path, keys.public)) == {"run"}


def test_deciding_anew_is_told_from_other_changes(attested: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    attest_run(run, keys)
    apply_policy(run, Policy(thresholds={"explicit": 0.7, "minor": 0.7}))
    done = verify_run(run, keys.public)
    assert failed(done) == {"policy", "decisions", "data set", "kept rows", "counts", "rule"}
    assert all("decided anew after it was attested" in claim.found for claim in done.failed)
    apply_policy(run, Policy())
    assert verify_run(run, keys.public).holds
    rewrite(run, 1, bits=flip_a_keep)
    agree(run)
    assert "not by deciding anew: part 1: 1 of its 21 rows" in str(verify_run(run, keys.public).failed)


def test_the_attestation_of_another_run_is_found(run: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    other = finished(tmp_path / "other")
    attest_run(other, keys)
    (Path(run.path) / "attestation.json").write_bytes((other.path / "attestation.json").read_bytes())
    assert failed(verify_run(run, keys.public)) >= {"run", "scores", "decisions", "data set"}


def test_a_run_without_an_attestation_is_told(run: Run, keys: PrivateKeys) -> None:
    (run.path / "attestation.json").remove()
    with pytest.raises(AttestationError, match="is not attested; run `safetyfilter attest"):
        verify_run(run, keys.public)


def test_a_link_in_the_place_of_the_attestation_is_refused(run: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    place = Path(run.path) / "attestation.json"
    place.rename(tmp_path / "elsewhere.json")
    place.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RunError, match="symbolic link"):
        verify_run(run, keys.public)


@pytest.mark.parametrize("change", ["removed", "changed", "added"])
def test_sealed_records_are_attested_by_their_bytes(run: Run, keys: PrivateKeys, change: str) -> None:
    place = Path(run.file("sealed", 0))
    place.parent.mkdir()
    place.write_bytes(b"sealed")
    part, meta = read_scores(run.file("scores", 0), run.record.setup.signals)
    write_scores(part, run.file("scores", 0), meta | {"sealed": file_digest(run.file("sealed", 0))})
    rewrite(run, 0)
    agree(run)
    attest_run(run, keys)
    assert verify_run(run, keys.public).holds
    if change == "removed":
        place.unlink()
    else:
        Path(run.file("sealed", int(change == "added"))).write_bytes(b"other")
    assert failed(verify_run(run, keys.public)) == {"sealed records"}


def test_a_forged_index_is_found(run: Run, keys: PrivateKeys) -> None:
    index_of(run)
    assert verify_run(run, keys.public).claims[-1].what == "index"
    forge(run)
    assert failed(verify_run(run, keys.public)) == {"index"}


def test_decisions_by_near_duplicates_have_at_least_the_reasons_of_their_scores(
    tmp_path: Path, keys: PrivateKeys
) -> None:
    run = finished(tmp_path / "run", vectors=True)
    apply_policy(run, run.policy, also_near=0.9)
    attest_run(run, keys)
    done = verify_run(run, keys.public)
    assert done.holds
    assert "what else decided is not checked" in str(done.claims)
    rewrite(run, 1, bits=flip_a_keep)
    agree(run)
    with pytest.raises(AttestationError, match="can't be attested, by its rule: part 1: 1 of its 21 rows"):
        attest_run(run, keys)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: rewrite(run, 1, bits=flip_a_keep),
        lambda run: (rewrite(run, 1, bits=flip_a_keep), agree(run)),
        lambda run: rewrite(run, 0, scores=lambda found: found / 2),
        lambda run: run.file("scores", 2).remove(),
        lambda run: run.file("embeddings", 2).remove(),
        lambda run: edit_json(Path(run.path) / "run.json", lambda record: record["counts"].update(minor=7)),
    ],
)
def test_a_run_whose_files_disagree_is_not_attested(run: Run, keys: PrivateKeys, change: Change) -> None:
    before = (run.path / "attestation.json").read_bytes()
    change(run)
    with pytest.raises(AttestationError, match="can't be attested"):
        attest_run(run, keys)
    assert (run.path / "attestation.json").read_bytes() == before


def test_an_unfinished_run_is_not_attested(run: Run, keys: PrivateKeys) -> None:
    edit_json(Path(run.path) / "run.json", lambda record: record.update(complete=False))
    with pytest.raises(UnfinishedRunError):
        attest_run(Run.open(run.path), keys)


def test_excluded_rows_have_another_root_than_kept_ones(attested: Run, keys: PrivateKeys) -> None:
    statement = attest_run(attested, keys)
    assert statement.rows != statement.kept
    assert Reason.UNSCORED in Reason(16)
    assert sum(map(len, PARTS.values())) == attested.counts["seen"]


def test_a_run_that_an_older_version_wrote_is_attested(tmp_path: Path, keys: PrivateKeys) -> None:
    shutil.copytree(Path(__file__).parents[1] / "runs" / "fixtures" / "schema-3", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.record.scores_checks
    attest_run(run, keys)
    assert verify_run(run, keys.public).holds
    rewrite(run, 0, rows=lambda rows: rows[1:])
    assert failed(verify_run(run, keys.public)) >= {"scores", "decisions", "data set"}
