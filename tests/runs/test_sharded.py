"""Decisions read shard by shard: the same answers as from the index of the whole run, and a bounded part of it held."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter import Policy, Run, apply_policy
from safetyfilter.batches import Reason
from safetyfilter.errors import RunError, UsageError
from safetyfilter.runs import sharded
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.part_table import PartTable, part_table_of
from safetyfilter.runs.repeated import mark_repeated
from safetyfilter.runs.sharded import ShardedDecisions
from safetyfilter.runs.start import started
from safetyfilter.sources.base import Shards
from safetyfilter.storage import Location
from tests.runs.making import Row, scored, source_of
from tests.runs.test_record import SETUP

POLICY = Policy(thresholds={"explicit": 0.5, "minor": 0.5})
UNKNOWN = int(Reason.UNKNOWN)


def run_of(place: Path, parts: Sequence[tuple[Shards, Sequence[Row]]]) -> Run:
    """A complete run of parts with these shards and rows."""
    source = source_of([f"{number}" for number in range(len(parts))])
    with started(place, source=source, setup=SETUP, policy=POLICY) as run:
        for number, (shards, rows) in enumerate(parts):
            run.write(replace(scored(run.digester(), number, str(number), rows), shards=shards))
        run.seal_scores(source.parts())
        mark_repeated(run)
        run.seal_scores(source.parts())
    return apply_policy(Run.open(place), POLICY)


def tars(shards: Mapping[str, Sequence[Row]], each: int = 1) -> list[tuple[Shards, list[Row]]]:
    """Parts of so many tars each."""
    names = list(shards)
    return [
        (Shards(names=tuple(several), in_keys=True), [row for name in several for row in shards[name]])
        for several in (names[start : start + each] for start in range(0, len(names), each))
    ]


def rows_of(shard: str, count: int, seed: int = 0) -> list[Row]:
    scores = np.random.default_rng([seed, len(shard)]).random(count)
    return [(f"{shard}/{number:04d}", f"{shard}{number}", float(scores[number]), "ok") for number in range(count)]


@pytest.fixture
def several(tmp_path: Path) -> Run:
    """Twelve tars of forty samples, in parts of three."""
    return run_of(tmp_path / "run", tars({f"a/{n:02d}.tar": rows_of(f"a/{n:02d}.tar", 40) for n in range(12)}, 3))


def keys_of(run_rows: Mapping[str, int]) -> list[str]:
    return [f"{shard}/{number:04d}" for shard, count in run_rows.items() for number in range(count)]


KEYS = keys_of({f"a/{n:02d}.tar": 40 for n in range(12)})
STRANGERS = ["a/00.tar/9999", "a/99.tar/0000", "b/00.tar/0000", "0000", "", "/", "a/00.tar", "#", "a/00.tar#1"]


def test_the_same_reasons_as_the_whole_index(several: Run) -> None:
    whole, parts = Decisions.of(several), ShardedDecisions.of(several)
    keys = [*KEYS, *STRANGERS]
    expected = whole.reasons(keys)
    assert 50 < (expected == 0).sum() < len(KEYS)
    assert [parts.reasons_of_key(key) for key in keys] == expected.tolist()
    rows = parts.find(keys)
    np.testing.assert_array_equal(parts.reasons_of(rows), expected)
    assert [parts.row_of_key(key) for key in keys] == rows.tolist()
    assert (rows < 0).sum() == len(STRANGERS)


def test_the_same_comparison_of_contents(several: Run) -> None:
    whole, parts = Decisions.of(several), ShardedDecisions.of(several)
    for key in KEYS[::17]:
        shard, _, number = key.rpartition("/")
        for content in (f"{shard}{int(number)}".encode(), b"another", None):
            assert parts.drift(parts.row_of_key(key), content) == whole.drift(whole.row_of_key(key), content)


rows_in_shard = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy"), st.sampled_from([0.0, 0.9]), st.just("ok")), max_size=6
)


@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from(["0.tar", "1.tar", "d/0.tar", "d"]), rows_in_shard), max_size=6))
def test_whatever_the_parts_the_answers_are_those_of_the_whole(tmp_path_factory, parts) -> None:
    """Shards of one name in several parts, keys that repeat with other contents and other scores, empty parts."""
    made = [
        (Shards(names=(name,), in_keys=True), [(f"{name}/{key}", *rest) for key, *rest in rows]) for name, rows in parts
    ]
    run = run_of(tmp_path_factory.mktemp("sharded") / "run", made)
    keys = [f"{name}/{key}" for name in ("0.tar", "1.tar", "d/0.tar", "d", "e") for key in "abcdefg"]
    whole = Decisions.of(run)
    if not parts:
        return
    by_shard = ShardedDecisions.of(run)
    assert [by_shard.reasons_of_key(key) for key in keys] == whole.reasons(keys).tolist()
    for key in keys:
        row, own = whole.row_of_key(key), by_shard.row_of_key(key)
        assert (row < 0) == (own < 0)
        assert row < 0 or by_shard.drift(own, b"x") == whole.drift(row, b"x")


def test_only_the_parts_of_a_few_shards_are_held(several: Run, monkeypatch) -> None:
    monkeypatch.setattr(sharded, "_HELD", 2)
    read: list[str] = []
    original = sharded.read_decisions
    monkeypatch.setattr(sharded, "read_decisions", lambda place: (read.append(place.name), original(place))[1])
    parts = ShardedDecisions.of(several)
    for key in KEYS:
        parts.reasons_of_key(key)
    assert len(read) == len(set(read)) == 4  # each part once, though each holds three shards
    assert len(parts._held) == 2
    for key in (KEYS[0], KEYS[-1], KEYS[0], KEYS[-1]):
        parts.reasons_of_key(key)
    assert len(read) == 5  # the last one was still there


def test_what_is_held_is_bounded_by_its_bytes_too(several: Run, monkeypatch) -> None:
    monkeypatch.setattr(sharded, "_HELD_BYTES", 1)
    parts = ShardedDecisions.of(several)
    for key in KEYS:
        parts.reasons_of_key(key)
    assert len(parts._held) == 1
    assert 0 < parts.held_bytes() < 20_000


@pytest.mark.parametrize(
    "named", [str, lambda shard: f"s3://bucket/copy/{shard}", lambda shard: f"/local/{shard}", lambda s: s[2:]]
)
def test_a_key_that_tells_no_shard_is_found_by_its_shard_s_path(tmp_path: Path, named: Callable[[str], str]) -> None:
    """Tables with a key column; the shard is read under the scan's root, another one, or by its last name alone."""
    parts = [
        (Shards(names=(f"a/{n}.parquet",)), [(f"key-{n}-{m}", f"{n} {m}", m / 10, "ok") for m in range(10)])
        for n in range(4)
    ]
    run = run_of(tmp_path / "run", parts)
    if not all(named(name).startswith("a/") or "/a/" in named(name) for (s, _) in parts for name in s.names):
        parts = [(Shards(names=tuple(name[2:] for name in s.names)), rows) for s, rows in parts]
        run = run_of(tmp_path / "flat", parts)
    whole, by_shard = Decisions.of(run), ShardedDecisions.of(run)
    assert not by_shard.in_keys
    for shards, rows in parts:
        for key, *_ in rows:
            assert by_shard.reasons_of_key(key, named(f"a/{shards.names[0].rpartition('/')[2]}")) == (
                whole.reasons_of_key(key)
            )


def test_another_shard_s_key_is_unknown_and_never_kept(tmp_path: Path) -> None:
    parts = [(Shards(names=(f"{n}.parquet",)), [(f"key-{n}", f"{n}", 0.0, "ok")]) for n in range(3)]
    by_shard = ShardedDecisions.of(run_of(tmp_path / "run", parts))
    assert by_shard.reasons_of_key("key-1", "1.parquet") == 0
    for shard in ("0.parquet", "2.parquet", "9.parquet", "", "s3://", "/", "1.parquet/x"):
        assert by_shard.reasons_of_key("key-1", shard) == UNKNOWN


def test_a_table_of_parts_is_written_once_and_made_anew_where_it_is_of_other_decisions(several: Run) -> None:
    place = several.path / "index" / "parts.parquet"
    written = place.read_bytes()
    assert part_table_of(several).digest == several.record.decisions
    assert place.read_bytes() == written
    apply_policy(several, Policy(thresholds={"explicit": 0.1, "minor": 0.1}))
    assert part_table_of(several).digest == several.record.decisions != PartTable.read(place).digest or (
        place.read_bytes() != written
    )
    for damaged in (b"", b"no table", written[:-10], written):
        Path(place).write_bytes(damaged)
        assert part_table_of(several).digest == several.record.decisions
    place.remove()
    assert part_table_of(several).parts.tolist()


def test_a_table_names_no_shard(several: Run) -> None:
    digester = several.digester()
    table = part_table_of(several)
    assert [table.parts_of(digester.shard(f"a/{n:02d}.tar")) for n in (0, 2, 3, 11)] != [(), (), (), ()]
    for path in Path(several.path).rglob("*"):
        assert path.is_dir() or b".tar" not in path.read_bytes().replace(b".tar/KEY", b"")


def test_a_part_that_was_changed_since_is_an_error(several: Run) -> None:
    parts = ShardedDecisions.of(several)
    assert parts.reasons_of_key(KEYS[0]) in (0, int(Reason.CO_OCCURRENCE))
    places = [Path(several.file("decisions", number)) for number in range(4)]
    contents = [place.read_bytes() for place in places]
    for place, content in zip(places, contents[1:] + contents[:1], strict=True):  # whole, but others'
        place.write_bytes(content)
    with pytest.raises(RunError, match="make the loader again"):
        ShardedDecisions.of(several).reasons_of_key(KEYS[0])
    places[0].unlink()
    with pytest.raises(RunError, match="is missing"):
        [ShardedDecisions.of(several).reasons_of_key(key) for key in KEYS]


def test_decided_anew(several: Run) -> None:
    parts = ShardedDecisions.of(several)
    copy = pickle.dumps(parts)
    assert b"secret" not in copy.lower().replace(b"run.secret", b"")
    assert pickle.loads(copy).reasons_of_key(KEYS[5]) == parts.reasons_of_key(KEYS[5])
    parts.require_current()
    apply_policy(several, Policy(thresholds={"explicit": 0.1, "minor": 0.1}))
    for use in (parts.require_current, lambda: pickle.loads(copy), lambda: parts.reasons_of_key(KEYS[-1])):
        with pytest.raises(RunError, match="make the loader again"):
            use()


def test_a_run_without_shards_can_t_be_read_by_them(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [(Shards(), [("a", "x", 0.0, "ok")])])
    with pytest.raises(UsageError, match="does not know from which shards"):
        ShardedDecisions.of(run)


def test_a_run_on_storage_in_memory() -> None:
    place = Location.of("memory://sharded/run")
    run = run_of(place, tars({"0.tar": rows_of("0.tar", 30), "1.tar": rows_of("1.tar", 30)}))
    keys = keys_of({"0.tar": 31, "1.tar": 31})
    assert [ShardedDecisions.of(run).reasons_of_key(key) for key in keys] == Decisions.of(run).reasons(keys).tolist()
