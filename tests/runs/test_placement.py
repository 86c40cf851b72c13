"""Parts keep their files when others come and go, and a copy that is stopped half-way is made again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from safetyfilter import Policy, Run
from safetyfilter.runs import placement
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.start import started
from tests.attest.changing import swap_signals
from tests.runs.making import Row, run_of, scored, source_of
from tests.runs.test_record import SETUP

ROWS: dict[str, list[Row]] = {state: [(f"key {state}", state, 0.1, "ok")] for state in "abcdef"}
VECTORS = np.ones((1, 4), np.float16)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Four parts with embeddings, a to d."""
    with started(tmp_path / "run", source=source_of("abcd"), setup=SETUP, policy=Policy()) as run:
        for index, state in enumerate("abcd"):
            run.write(scored(run.digester(), index, state, ROWS[state], vectors=VECTORS * index))
        run.seal_scores(source_of("abcd").parts())
    return run


@contextmanager
def taken_up(run: Run, states: str) -> Iterator[Run]:
    with started(run.path, source=source_of(states), setup=SETUP, policy=Policy()) as again:
        yield again


def key_in(run: Run, number: int) -> str:
    part, _ = read_scores(run.file("scores", number), run.record.setup.signals)
    digester = run.digester()
    return next(state for state in ROWS if digester.key(f"key {state}") == part.keys[0].tobytes())


@pytest.mark.parametrize(
    ("states", "numbers", "todo"),
    [
        ("abcd", [0, 1, 2, 3], ""),
        ("eabcd", [4, 0, 1, 2, 3], "e"),
        ("aexcd", [0, None, None, 2, 3], "ex"),
        ("dcba", [3, 2, 1, 0], ""),
        ("ebfd", [None, 1, None, 3], "ef"),
        ("d", [0], ""),
        ("ec", [0, 1], "e"),
        ("cd", [0, 1], ""),
    ],
)
def test_a_part_is_known_by_its_state(run: Run, states: str, numbers: list[int | None], todo: str) -> None:
    with taken_up(run, states) as again:
        parts = source_of(states).parts()
        placed = again.place_parts(parts, embeddings=True)
        free = iter(sorted(set(range(len(states))) - set(numbers)))
        for state in sorted(todo, key=again.part_writer().fingerprint):
            if numbers[states.index(state)] is None:
                numbers = [*numbers[: states.index(state)], next(free), *numbers[states.index(state) + 1 :]]
        assert [placed.numbers[index] for index in range(len(states))] == numbers
        assert "".join(part.state for part in placed.todo) == todo
        assert placed.done == sorted(number for number, state in zip(numbers, states, strict=True) if state not in todo)
        for part in placed.todo:
            rows = ROWS.get(part.state, [("x", "x", 0.1, "ok")])
            again.write(
                scored(again.digester(), part.index, part.state, rows, vectors=VECTORS), placed.numbers[part.index]
            )
        again.seal_scores(parts)
        for index, state in enumerate(states):
            if state in ROWS:
                assert key_in(again, numbers[index]) == state
                vectors = np.load(again.file("embeddings", numbers[index]))
                assert vectors[0, 0] == ("abcd".index(state) if state not in todo else 1)
    for folder in ("scores", "embeddings"):
        assert len(list((Path(run.path) / folder).iterdir())) == len(states)


def test_numbers_say_nothing_of_the_order_in_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETYFILTER_SECRET", "5a" * 32)
    states = [f"shard {number}" for number in range(50)]
    numbers = []
    for listed in (states, states[::-1]):
        with started(tmp_path / "run", source=source_of(listed), setup=SETUP, policy=Policy()) as run:
            placed = run.place_parts(source_of(listed).parts())
            numbers.append({listed[index]: number for index, number in placed.numbers.items()})
            fingerprint = run.part_writer().fingerprint
    assert numbers[0] == numbers[1]
    assert sorted(states, key=numbers[0].__getitem__) == sorted(states, key=fingerprint) != states


@pytest.mark.parametrize("stop_at", range(1, 6))
def test_a_copy_that_is_stopped_is_made_again(run: Run, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    calls: list[object] = []
    replacing = placement.replacing

    @contextmanager
    def stopping(place: object) -> Iterator[IO[bytes]]:
        calls.append(place)
        with replacing(place) as file:
            if len(calls) == stop_at:
                raise KeyboardInterrupt
            yield file

    parts = source_of("dc").parts()
    with taken_up(run, "dc") as again, monkeypatch.context() as patch:
        patch.setattr(placement, "replacing", stopping)
        with pytest.raises(KeyboardInterrupt):
            again.place_parts(parts, embeddings=True)
    with taken_up(run, "dc") as again:
        placed = again.place_parts(parts, embeddings=True)
        assert placed.todo == ()
        again.seal_scores(parts)
        assert {index: key_in(again, number) for index, number in placed.numbers.items()} == {0: "d", 1: "c"}
        held = {key_in(again, number): np.load(again.file("embeddings", number))[0, 0] for number in (0, 1)}
        assert held == {"d": 3, "c": 2}


@pytest.mark.parametrize("other", ["source", "setup"])
def test_a_part_of_another_run_of_the_same_secret_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setenv("SAFETYFILTER_SECRET", "5a" * 32)
    first = run_of(tmp_path / "first", {"a": ROWS["a"], "b": ROWS["b"]})
    source = replace(source_of("ab"), location="elsewhere") if other == "source" else source_of("ab")
    setup = replace(SETUP, views="multi") if other == "setup" else SETUP
    with started(tmp_path / "other", source=source, setup=setup, policy=Policy()) as there:
        for index, state in enumerate("ab"):
            there.write(scored(there.digester(), index, state, ROWS[state]))
    Path(first.file("scores", 0)).write_bytes(Path(there.file("scores", 0)).read_bytes())
    assert [part.state for part in first.place_parts(source_of("ab").parts()).todo] == ["a"]


def test_runs_of_one_source_secret_and_setup_have_the_same_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an uninterrupted scan can be compared with another byte for byte."""
    monkeypatch.setenv("SAFETYFILTER_SECRET", "5a" * 32)
    one, two = (run_of(tmp_path / name, {"a": ROWS["a"], "b": ROWS["b"]}) for name in ("one", "two"))
    for folder in ("scores", "decisions"):
        for number in range(2):
            assert Path(one.file(folder, number)).read_bytes() == Path(two.file(folder, number)).read_bytes()


def test_a_part_under_other_names_of_signals_is_done_again(run: Run) -> None:
    swap_signals(run, 2)
    assert [part.state for part in run.place_parts(source_of("abcd").parts()).todo] == ["c"]


@pytest.mark.parametrize("what", ["scores", "embeddings"])
def test_a_damaged_part_is_done_again(run: Run, what: str) -> None:
    place = Path(run.file(what, 2))
    place.write_bytes(place.read_bytes()[:-3] + b"\0\0\0")
    assert [part.state for part in run.place_parts(source_of("abcd").parts(), embeddings=True).todo] == ["c"]
