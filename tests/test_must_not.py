"""The public names, commands and options: none ranks or lists samples by score, finds neighbours, shows or fetches."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

import safetyfilter as sf
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.hashes.lists import HashFindings
from tests.cli.commands import every_command
from tests.runs.joining import NARROW, Row, scanned

_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")

NEVER = {
    "rank": ("rank", "ranked", "ranking", "rankings", "top", "topk", "worst", "best", "highest", "lowest", "order",
             "sort", "sorted", "argsort", "leaderboard", "above", "below"),
    "look for": ("search", "find", "query", "neighbour", "neighbours", "neighbor", "neighbors", "nearest", "knn",
                 "similar", "similarity", "alike", "lookalikes", "cluster", "retrieve", "samples", "rows", "matches"),
    "show": ("thumbnail", "thumbnails", "show", "preview", "gallery", "browse", "render", "display", "montage",
             "contact", "sheet", "imshow"),
    "fetch": ("fetch", "download", "crawl", "urlopen", "get", "request", "http"),
    "delete": ("delete", "remove", "purge", "unlink", "erase", "wipe", "clean", "move"),
}  # fmt: skip
"""Words for what is never done, by what that is."""

KNOWN = {
    "SafeIterable(rank)": "the number of a process among those that train together",
    "SafeIterable(samples)": "the user's own samples, in their order",
    "Decisions.find": "the places of keys that the caller has",
    "Decisions.reasons_of(rows)": "places that `find` gave",
    "ShardedDecisions.find": "the places of keys that the caller has",
    "ShardedDecisions.reasons_of(rows)": "places that `find` gave",
    "train_probe(search_rows)": "the number of labelled rows on which a penalty is chosen",
    "AgeCut(below)": "the age in years under which a labelled person counts as a minor, for training",
    "AgeCut.below": "the same, as an attribute",
    "train --below": "the same on the command line",
    "PromptSet.get": "a mapping's method",
    "fetch_probes": "downloads a published detector by its name and SHA-256",
    "probes fetch": "the same on the command line",
    "--show-completion": "Typer's own, for the shell",
}
"""Names with such a word that do something else, and what that is."""


def words_of(name: str) -> set[str]:
    return {word.lower() for word in _PIECE.findall(name)}


def parameters(function: object) -> Iterator[str]:
    try:
        yield from inspect.signature(function).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return


def public_names() -> Iterator[tuple[str, str]]:
    """Every public name, method and parameter: where it is, and what it is called."""
    for name in sf.__all__:
        value = getattr(sf, name)
        yield name, name
        members = [each for each in dir(value) if not each.startswith("_")] if inspect.isclass(value) else []
        for member in members:
            yield f"{name}.{member}", member
            for parameter in parameters(getattr(value, member)):
                yield f"{name}.{member}({parameter})", parameter
        if callable(value):
            for parameter in parameters(value):
                yield f"{name}({parameter})", parameter


def commands() -> Iterator[tuple[str, str]]:
    """Every command and option."""

    def walk(command: typing.Any, path: str) -> Iterator[tuple[str, str]]:
        for parameter in command.params:
            for option in parameter.opts:
                yield f"{path} {option}".strip(), option
        for name, inner in getattr(command, "commands", {}).items():
            yield f"{path} {name}".strip(), name
            yield from walk(inner, f"{path} {name}".strip())

    return walk(every_command(), "")


@cache
def all_names() -> list[tuple[str, str]]:
    return [*public_names(), *commands()]


@pytest.mark.parametrize("what", NEVER)
def test_no_name_promises_what_is_never_done(what: str) -> None:
    found = {where for where, name in all_names() if words_of(name) & set(NEVER[what])}
    assert found <= KNOWN.keys()


def test_the_walk_sees_classes_functions_commands_and_options() -> None:
    seen = {where for where, _ in all_names()}
    assert {"scan", "Run.read_scores", "scan(source)", "decide --also-near", "probes fetch"} <= seen
    assert KNOWN.keys() <= seen
    assert words_of("topK_nearestNeighbours") == {"top", "k", "nearest", "neighbours"}


KEYS = [f"pictures/{number:03d}.jpg" for number in range(120)]
SCORES = np.random.default_rng(0).random((len(KEYS), 2)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sf.Run:
    rows = [Row(key, (float(one), float(other)), content=key) for key, (one, other) in zip(KEYS, SCORES, strict=True)]
    return scanned(tmp_path_factory.mktemp("run") / "run", [rows[:70], rows[70:]])


LABELS = pa.table({"key": KEYS, "explicit": SCORES[:, 0] > 0.4, "minor": SCORES[:, 1] > 0.6})

SHOWN: dict[str, Callable[[sf.Run], object]] = {
    "a run": lambda run: run,
    "a run's record": lambda run: run.record,
    "the counts": lambda run: run.counts,
    "decisions": sf.Decisions.of,
    "a summary": RunSummary.of,
    "a summary with labels": lambda run: RunSummary.of(run, LABELS),
    "an evaluation": lambda run: sf.evaluate(run.read_scores(), run.align_labels(LABELS)),
    "answers about keys": lambda run: sf.why(run, KEYS[:5]),
    "a policy": lambda run: run.policy,
}


@pytest.mark.parametrize("name", SHOWN)
def test_nothing_that_is_shown_lists_rows(run: sf.Run, name: str) -> None:
    value = SHOWN[name](run)
    texts = [repr(value), str(value), getattr(value, "_repr_html_", str)()]
    texts += [json.dumps(value.to_dict())] if hasattr(value, "to_dict") else []
    digests = [digest.hex() for digest in run.read_scores()["key_digest"].to_pylist()]
    told = {f"{score:.6f}"[1:] for score in SCORES.ravel()}
    for text in texts:
        assert not [digest for digest in digests if digest in text]
        # An evaluation says at which threshold each of four shares is excluded, for each signal: a score, of no key.
        assert len([score for score in told if score in text]) <= (8 if name == "an evaluation" else 0)


def test_rows_come_in_the_order_of_their_digests_and_no_score_has_a_say(run: sf.Run) -> None:
    paths = [Path(run.file(folder, number)) for folder in ("scores", "decisions") for number in range(run.part_count)]
    for table in (pq.read_table(path) for path in paths):
        assert table["key_digest"].to_pylist() == sorted(table["key_digest"].to_pylist())
    whole = run.read_scores()
    for signal in ("explicit", "minor"):
        order = whole[signal].to_numpy()
        assert abs(spearmanr(order, np.arange(len(order))).statistic) < 0.45


def test_decisions_hold_no_score(run: sf.Run) -> None:
    table = pq.read_table(Path(run.file("decisions", 0)))
    assert table.column_names == ["key_digest", "content_digest", "keep", "reasons"]
    assert not any(pa.types.is_floating(field.type) for field in table.schema)
    held = [getattr(sf.Decisions.of(run), name, None) for name in dir(sf.Decisions) if not name.startswith("_")]
    assert not [value for value in held if isinstance(value, np.ndarray) and value.dtype.kind == "f"]


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_are_about_the_keys_that_were_asked_for_in_their_order(run: sf.Run, seed: int) -> None:
    asked = [*np.random.default_rng(seed).permutation(KEYS)[:9].tolist(), "pictures/none.jpg"]
    answers = sf.why(run, asked)
    assert [answer.key for answer in answers] == asked
    assert {field.name for field in dataclasses.fields(answers[0])} == {"key", "known", "reasons", "causes", "words"}
    assert not re.search(r"\d\.\d", json.dumps([answer.as_dict() for answer in answers]))
    bits = sf.Decisions.of(run).reasons(asked)
    assert bits.shape == (len(asked),)
    assert bits.dtype.kind == "u"


def test_excluding_near_duplicates_tells_of_no_pair(tmp_path: Path) -> None:
    vectors = np.eye(4)[[0, 0, 1]]
    rows = [Row("a", (0.9, 0.9), vector=vectors[0]), Row("b", vector=vectors[1]), Row("c", vector=vectors[2])]
    near = sf.apply_policy(scanned(tmp_path / "run", [rows], setup=NARROW), sf.Policy(), also_near=0.9)
    assert near.counts["near_excluded"] == 1
    table = pq.read_table(Path(near.file("decisions", 0)))
    assert table.column_names == ["key_digest", "content_digest", "keep", "reasons"]
    assert {str(answer.reasons) for answer in sf.why(near, ["b"])} == {"near_excluded"}
    assert not re.search(r"\ba\b|0\.9", sf.why(near, ["b"])[0].words[0].replace(" a ", " "))


def test_a_list_of_hashes_answers_with_names_and_kinds_alone() -> None:
    assert {field.name for field in dataclasses.fields(HashFindings)} == {"lists", "unchecked", "told"}
