"""A reader who holds the source and the run, but not the secret, learns from the run's order about nobody.

The rows of scores, decisions and embeddings once lay in the source's order: to put the two side by side named every
excluded sample and ranked all of them by score.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safetyfilter import EmbedOptions, Policy, SafetyFilter, open_source, scan
from safetyfilter.runs.run import Run
from safetyfilter.runs.secret import VARIABLE
from tests.writers import WRITERS

COUNT = 300


def png(number: int) -> bytes:
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((24, 24))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {f"{number:05d}.png": png(number) for number in range(COUNT)}


@pytest.fixture(scope="module")
def safe(encoder, probes) -> SafetyFilter:
    options = EmbedOptions(views="whole")
    scores = SafetyFilter(encoder, probes, Policy(), options)(list(IMAGES.values())).scores
    middle = {signal: float(np.median(scores[signal])) for signal in scores.signals}
    return SafetyFilter(encoder, probes, Policy(thresholds=middle), options)


@pytest.fixture(scope="module", params=sorted(WRITERS))
def run(request, tmp_path_factory, safe: SafetyFilter) -> Run:
    place = tmp_path_factory.mktemp("reader")
    WRITERS[request.param](place / "source", IMAGES, None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, "5a" * 32)
        return scan(open_source(place / "source"), place / "run", safe, keep_embeddings=True)


def in_source_order(run: Run) -> dict[str, bytes]:
    """The reader's own look at the source: keys and images, in its order."""
    source = open_source(Path(run.path).parent / "source")
    samples = [sample for part in source.parts() for sample in source.samples(part)]
    assert len(samples) == COUNT
    return {sample.key: sample.read(1 << 20) for sample in samples}


def stored(run: Run, folder: str) -> list[Path]:
    return sorted((Path(run.path) / folder).iterdir())


def column(run: Run, folder: str, name: str) -> np.ndarray:
    return np.concatenate([pq.read_table(path)[name].to_numpy() for path in stored(run, folder)])


def digests(run: Run, folder: str) -> list[bytes]:
    return [digest for path in stored(run, folder) for digest in pq.read_table(path)["key_digest"].to_pylist()]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    ranks = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(*ranks)[0, 1])


def test_a_part_has_a_thousand_samples_where_there_are_as_many(run: Run) -> None:
    assert [len(stored(run, folder)) for folder in ("scores", "decisions", "embeddings")] == [1, 1, 1]


def test_rows_lie_in_the_order_of_their_digests(run: Run) -> None:
    for folder in ("scores", "decisions"):
        assert digests(run, folder) == sorted(digests(run, folder))
        assert {pq.read_metadata(path).num_row_groups for path in stored(run, folder)} == {1}


@pytest.mark.parametrize("signal", ["explicit", "minor"])
def test_the_order_ranks_no_sample(run: Run, safe: SafetyFilter, signal: str) -> None:
    true = safe(in_source_order(run).values()).scores[signal]
    assert abs(correlation(column(run, "scores", signal), true)) < 0.2


def test_the_order_names_no_excluded_sample(run: Run, safe: SafetyFilter) -> None:
    excluded = ~safe(in_source_order(run).values()).keep
    guessed = ~column(run, "decisions", "keep")
    assert guessed.sum() == excluded.sum() > COUNT / 20
    by_chance = excluded.mean() * excluded.sum()
    assert (excluded & guessed).sum() < by_chance + 4 * np.sqrt(by_chance)


def test_embeddings_lie_as_the_scores_do(run: Run, safe: SafetyFilter) -> None:
    true = safe.encoder.embed(in_source_order(run).values(), safe.options).vectors
    vectors = np.concatenate([np.load(path) for path in stored(run, "embeddings")]).astype(np.float32)
    in_place = (np.abs(vectors - true).max(axis=1) < 1e-2).mean()
    assert in_place < 0.05


def test_whoever_has_the_secret_finds_everything(run: Run, safe: SafetyFilter, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "5a" * 32)
    images = in_source_order(run)
    order = {key: row for row, key in enumerate(digests(run, "scores"))}
    rows = [order[run.digester().key(key)] for key in images]
    expected = safe(images.values())
    np.testing.assert_allclose(column(run, "scores", "minor")[rows], expected.scores["minor"], atol=1e-5)
    np.testing.assert_array_equal(column(run, "decisions", "keep")[rows], expected.keep)
