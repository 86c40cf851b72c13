"""A few hundred cases of each reader of foreign bytes, always the same; ``benchmarks/fuzz.py`` runs a million."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing.mutations import Mutant
from fuzzing.readers import all_targets, cases_of
from fuzzing.target import PassedError, Target
from fuzzing.worker import rng_of

from safetyfilter.storage import retries

SLOW = ("run-", "attest", "data-set-")
TARGETS = [name for name in all_targets() if not name.endswith("-at-full-size")]
EXTRAS = {
    "pdq": "pdqhash",
    "officer": "nacl",
    "sealed": "nacl",
    "attest": "securesystemslib",
    "hash-lines-pdq": "faiss",
}


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a worker sets up, and what targets change in a process, put right again."""
    monkeypatch.setenv("SAFETYFILTER_SECRET", "5e" * 32)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.0)
    handlers = list(logging.getLogger("safetyfilter").handlers)
    yield
    logging.getLogger("safetyfilter").handlers = handlers


def target_of(name: str) -> Target:
    for start, module in EXTRAS.items():
        if name.startswith(start):
            pytest.importorskip(module)
    return all_targets()[name]


@pytest.mark.filterwarnings("ignore")  # Pillow and libraries below it warn of damage, and readers log it
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(name)
    if name == "secret":
        monkeypatch.delenv("SAFETYFILTER_SECRET")
    target.prepare(tmp_path)
    for number, seed in enumerate(target.seeds):
        assert target.check(Mutant(data=seed, seed=number, in_place=True)), f"file {number} is refused as it is"
    counts = {True: 0, False: 0}
    for case in range(10 if name.startswith(SLOW) else 120):
        try:
            counts[target.check(target.mutant(rng_of(1, name, case)))] += 1
        except Exception as error:
            raise AssertionError(f"case {case}") from error
    # of a damaged tar, what can't be read is a sample on record
    assert counts[False] or name == "tar", "no file was refused: the mutations don't reach the reader"


def test_the_cases_are_as_many_as_asked_for_and_each_target_has_some() -> None:
    cases = cases_of(1_000_000)
    assert sum(cases.values()) == 1_000_000
    assert set(cases) == set(all_targets())
    assert min(cases.values()) > 0


def test_cases_are_the_same_each_time() -> None:
    target = all_targets()["png"]
    target.prepare(Path())
    first, again, other = (target.mutant(rng_of(0, "png", number)).data for number in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "bmp", "tiff"])
def test_a_picture_that_the_scan_does_not_see_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fuzzing import images

    target = all_targets()[name]
    target.prepare(Path())
    monkeypatch.setattr(images, "_seen", lambda data, limits: iter([b"another"]))
    with pytest.raises(PassedError, match="a loader shows a picture"):
        target.check(Mutant(data=target.seeds[0], seed=0, in_place=True))
