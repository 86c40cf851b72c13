"""Loaders and exports that demand an attestation pass nothing without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from safetyfilter import (
    Decisions,
    Policy,
    Run,
    SafeDataset,
    SafeIterable,
    ShardedDecisions,
    apply_policy,
    export,
    filter_dataset,
    safety_filter,
)
from safetyfilter.attest.demand import require_attested
from safetyfilter.attest.sign import attest_run
from safetyfilter.errors import AttestationError, RunError, UsageError
from safetyfilter.runs import index_check
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.private_keys import PrivateKeys
from tests.attest.changing import agree, edit_json, flip_a_keep, forge, rewrite
from tests.attest.runs import PARTS, copied, finished, source

KEYS = [key for rows in PARTS.values() for key, *_ in rows]

Loader = Callable[[Run, OfficerKey | Path], Any]
LOADERS: dict[str, Loader] = {
    "SafeDataset": lambda run, key: SafeDataset(KEYS, run, keys=KEYS, verify=key),
    "SafeIterable": lambda run, key: SafeIterable([{"key": key} for key in KEYS], run, key="key", verify=key),
    "filter_dataset": lambda run, key: filter_dataset(
        datasets.Dataset.from_dict({"key": KEYS}), run, key="key", verify=key, verify_content=False
    ),
    "safety_filter": lambda run, key: safety_filter(run, root="/data", verify=key),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, keys: PrivateKeys) -> Run:
    """An attested run with its secret; tests only read it."""
    run = finished(tmp_path_factory.mktemp("whole") / "run")
    attest_run(run, keys)
    return run


@pytest.mark.parametrize("key", [True, False, 0, b"officer.key.pub"], ids=repr)
def test_what_is_not_a_key_is_an_error(whole: Run, key: Any) -> None:
    with pytest.raises(UsageError, match=r"public key is a \w+; give its file, as officer\.key\.pub, or"):
        LOADERS["safety_filter"](whole, key)


@pytest.fixture
def own(whole: Run, tmp_path: Path) -> Run:
    """A copy of the attested run with its secret, for one test."""
    (tmp_path / "run.secret").write_bytes((whole.path.folder / "run.secret").read_bytes())
    return copied(whole, tmp_path / "run")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_passes_what_was_attested(whole: Run, keys: PrivateKeys, tmp_path: Path, loader: str) -> None:
    (tmp_path / "officer.pub").write_text(keys.public.to_text())
    assert LOADERS[loader](whole, tmp_path / "officer.pub") is not None
    if loader in ("SafeDataset", "SafeIterable"):
        assert len(list(LOADERS[loader](whole, keys.public))) == whole.counts["kept"] > 0


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_refuses_another_key(whole: Run, loader: str) -> None:
    with pytest.raises(AttestationError, match="is signed with the key"):
        LOADERS[loader](whole, PrivateKeys.generate().public)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_refuses_a_run_that_was_decided_anew(own: Run, keys: PrivateKeys, loader: str) -> None:
    apply_policy(own, Policy(thresholds={"explicit": 0.7, "minor": 0.7}))
    with pytest.raises(AttestationError, match="was decided anew after it was attested"):
        LOADERS[loader](own, keys.public)


def opened(run: Run) -> dict[str, Callable[[], Decisions | ShardedDecisions]]:
    return {"whole": lambda: Decisions.of(run), "by shard": lambda: ShardedDecisions(*sharded(run))}


def sharded(run: Run) -> tuple[Any, ...]:
    from safetyfilter.runs.part_table import part_table_of

    return part_table_of(run), run.digester(), run.path, run.record.decisions_digest


@pytest.mark.parametrize("how", ["whole", "by shard"])
class TestDecisions:
    """Whatever form the decisions of a run are opened in."""

    def test_attested_ones_pass(self, whole: Run, keys: PrivateKeys, how: str) -> None:
        require_attested(opened(whole)[how](), keys.public)

    def test_a_run_without_an_attestation_is_refused(self, own: Run, keys: PrivateKeys, how: str) -> None:
        (own.path / "attestation.json").remove()
        with pytest.raises(AttestationError, match="is not attested; run `safetyfilter attest"):
            require_attested(opened(own)[how](), keys.public)

    def test_changed_decisions_are_refused(self, own: Run, keys: PrivateKeys, how: str) -> None:
        rewrite(own, 1, bits=flip_a_keep)
        agree(own)
        with pytest.raises(AttestationError, match="decided anew after it was attested, or its decisions were changed"):
            require_attested(opened(Run.open(own.path))[how](), keys.public)

    def test_another_field_is_told(self, own: Run, keys: PrivateKeys, how: str) -> None:
        edit_json(Path(own.path) / "run.json", lambda record: record["versions"].update(torch="0"))
        with pytest.raises(AttestationError, match=r"run\.json has another versions"):
            require_attested(opened(Run.open(own.path))[how](), keys.public)

    def test_decisions_that_were_opened_before_are_refused(self, own: Run, keys: PrivateKeys, how: str) -> None:
        decisions = opened(own)[how]()
        apply_policy(own, Policy.preset("strict"))
        attest_run(own, keys)
        with pytest.raises(RunError, match="have changed since this loader was made"):
            require_attested(decisions, keys.public)


def test_a_forged_index_is_refused(own: Run, keys: PrivateKeys) -> None:
    forge(own)
    decisions = Decisions.of(own)
    assert (decisions.reasons(KEYS) == 0).all()  # what it would let pass
    with pytest.raises(RunError, match=r"the index of .* does not hold its decisions"):
        require_attested(decisions, keys.public)


def test_an_index_is_compared_once_in_a_process(own: Run, keys: PrivateKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    before = index_check.read_decisions
    monkeypatch.setattr(index_check, "read_decisions", lambda place: (read.append(place), before(place))[1])
    for _ in range(3):
        require_attested(Decisions.of(own), keys.public)
    assert len(read) == own.part_count
    index = next(Path(own.path).glob("index/decisions.bin"))
    index.unlink()
    require_attested(Decisions.of(own), keys.public)
    assert len(read) == 2 * own.part_count


def test_an_export_demands_an_attestation(own: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    counts = export(own, source(), tmp_path / "kept.txt", format="keys", verify=keys.public)
    assert counts["kept"] == own.counts["kept"] == len((tmp_path / "kept.txt").read_text().splitlines())
    apply_policy(own, Policy(thresholds={"explicit": 0.7, "minor": 0.7}))
    with pytest.raises(AttestationError):
        export(own, source(), tmp_path / "more.txt", format="keys", verify=keys.public)
    assert not (tmp_path / "more.txt").exists()
