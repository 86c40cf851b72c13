"""Two runs of one source have nothing in common by which their rows could be joined, and no order that tells."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from safetyfilter import EmbedOptions, LinearProbe, ProbeBank, Run, SafetyFilter, open_source, scan
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.signals import PAIR
from safetyfilter.storage import Location
from tests.leaks.decoding import layers
from tests.writers import write_embedding_job

PARTS, PART = 40, 12
KEYS = [f"pictures/{number:05d}.jpg" for number in range(PARTS * PART)]
OF_ALL = 0.75
"""A rank correlation of so many parts that chance gives once in ten million runs."""
OF_ROWS = 5.5 / np.sqrt(len(KEYS))
"""The same of all rows."""
_HEX = re.compile(rb"(?<![\w.])(?=[0-9]*[a-f])[0-9a-f]{16,}")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A run as someone sees it who knows which row is whose.

    Attributes
    ----------
    run : Run
        The run.
    files : dict of str to list of bytes
        Its files by name, taken apart.
    part, row : ndarray
        (N,) int, by the source's order: the number of the part that a sample lies in, and of its row in there.
    """

    run: Run
    files: dict[str, list[bytes]]
    part: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, run: Run) -> Seen:
        order = {bytes(digest): number for number, digest in enumerate(run.digester().keys(KEYS))}
        part, row = np.empty(len(KEYS), int), np.empty(len(KEYS), int)
        for number in range(run.part_count):
            for at, digest in enumerate(pq.read_table(run.file("scores", number))["key_digest"].to_pylist()):
                part[order[digest]], row[order[digest]] = number, at
        root = Path(run.path)
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        files = {str(path.relative_to(root)): list(layers(path.read_bytes())) for path in paths}
        return cls(run=run, files=files, part=part, row=row)

    def digests(self) -> set[bytes | None]:
        """All digests of keys and contents, and None for those of what has no bytes."""
        table = self.run.read_scores()
        return {*table["key_digest"].to_pylist(), *table["content_digest"].to_pylist()}

    def hex_texts(self) -> set[bytes]:
        """All texts in its files that look like a digest."""
        return {found for pieces in self.files.values() for piece in pieces for found in _HEX.findall(piece)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, encoder) -> tuple[Seen, Seen]:
    place = tmp_path_factory.mktemp("joining")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(KEYS), 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    job = write_embedding_job(place / "job", [vectors], keys=[KEYS])
    named = NamedEncoder(encoder.spec)
    weights = rng.standard_normal((2, 32)).astype(np.float32) * 4
    bank = ProbeBank([
        LinearProbe(signal=signal, weight=weight, bias=0.0, encoder=named.spec.digest)
        for signal, weight in zip(PAIR.names, weights, strict=True)
    ])  # fmt: skip
    safe = SafetyFilter(named, bank, options=EmbedOptions(views="whole"))
    source = open_source(job, part_size=PART)
    assert len(source.parts()) == PARTS
    one, other = (Seen.of(scan(source, place / name, safe, keep_embeddings=True)) for name in ("one", "other"))
    return one, other


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return abs(float(spearmanr(first, second).statistic))


def test_no_digest_is_in_both(two: tuple[Seen, Seen]) -> None:
    one, other = two
    assert len(one.digests()) == len(KEYS) + 1
    assert one.digests() & other.digests() == {None}


def test_no_text_that_looks_like_a_digest_is_in_both_but_of_what_is_public(two: tuple[Seen, Seen]) -> None:
    one, other = two
    record = json.loads((Path(one.run.path) / "run.json").read_text())
    public = [record["encoder"], record["probes"], record["setup_digest"], record["policy"], record["versions"]]
    common = one.hex_texts() & other.hex_texts()
    assert record["setup_digest"].encode() in common
    assert common <= set(_HEX.findall(json.dumps(public).encode()))


def test_nothing_in_the_record_of_the_source_is_in_both(two: tuple[Seen, Seen]) -> None:
    one, other = (json.loads((Path(each.run.path) / "run.json").read_text()) for each in two)
    own = ("run_id", "secret_check", "scores", "decisions", "scores_checks", "decisions_checks")
    assert not [name for name in own if one[name] == other[name]]
    assert one["source"]["location"] != other["source"]["location"]
    assert one["source"]["fingerprint"] != other["source"]["fingerprint"]


def test_files_are_called_by_numbers_alone(two: tuple[Seen, Seen]) -> None:
    one, other = two
    assert one.files.keys() == other.files.keys()
    for name in one.files:
        assert re.fullmatch(r"run\.json|index/(\w+\.\w+|lock)|\w+/part-\d{5}\.(parquet|npy)", name), name


def test_rows_are_in_no_order_of_the_source(two: tuple[Seen, Seen]) -> None:
    place_in_part = np.arange(len(KEYS)) % PART
    for seen in two:
        assert sorted(seen.row.tolist()) == sorted(place_in_part.tolist())
        assert correlation(seen.row, place_in_part) < OF_ROWS


def test_parts_are_in_no_order_of_the_source(two: tuple[Seen, Seen]) -> None:
    for seen in two:
        numbers = seen.part[::PART]
        assert sorted(numbers.tolist()) == list(range(PARTS))
        assert correlation(numbers, np.arange(PARTS)) < OF_ALL


def test_two_runs_are_in_no_common_order(two: tuple[Seen, Seen]) -> None:
    one, other = two
    assert correlation(one.row, other.row) < OF_ROWS
    assert correlation(one.part[::PART], other.part[::PART]) < OF_ALL


def test_an_order_would_be_seen() -> None:
    assert correlation(np.arange(PARTS), np.arange(PARTS)[::-1]) > OF_ALL
    assert correlation(np.arange(len(KEYS)), np.arange(len(KEYS)) // 3) > OF_ROWS


@pytest.mark.parametrize("folder", ["scores", "decisions"])
def test_each_part_is_one_stretch_of_rows_whatever_it_holds(two: tuple[Seen, Seen], folder: str) -> None:
    for seen in two:
        files = [pq.ParquetFile(path) for path in (Path(seen.run.path) / folder).iterdir()]
        assert {(file.num_row_groups, file.metadata.num_rows) for file in files} == {(1, PART)}


def test_without_its_secret_a_run_says_nothing_of_a_key(two: tuple[Seen, Seen], tmp_path: Path) -> None:
    one, other = two
    (Path(one.run.path).with_name("one.secret")).rename(tmp_path / "one.secret")
    try:
        secret = Path(other.run.path).with_name("other.secret").read_text()
        Path(one.run.path).with_name("one.secret").write_text(secret)
        with pytest.raises(PermissionError, match="secret"):
            Run.open(Location.of(one.run.path)).digester()
    finally:
        (tmp_path / "one.secret").replace(Path(one.run.path).with_name("one.secret"))
