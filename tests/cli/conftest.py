"""Embeddings, scores and labels on disk, and a scanned run."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Policy, Run, SafetyFilter, open_source, scan
from tests.conftest import good_images
from tests.writers import write_files

POLICY = Policy(thresholds={"explicit": 0.25, "minor": 0.75})
PICTURES = {**good_images(), "broken.jpg": b"no picture"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Embeddings, scores and labels of 2,000 random samples, row by row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 12)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = {"explicit": x[:, 0] > 0.0, "minor": x[:, 1] > 0.0}
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    np.save(tmp_path / "captions.npy", x[:, ::-1].astype(np.float16))
    pq.write_table(pa.table({**labels, "family": [f"f{i % 40}" for i in range(2000)]}), tmp_path / "labels.parquet")
    scores = {s: rng.beta(np.where(y, 6, 1), np.where(y, 1, 6)).astype(np.float32) for s, y in labels.items()}
    pq.write_table(pa.table(scores), tmp_path / "scores.parquet")
    return tmp_path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, encoder, probes) -> Run:
    """A finished run with embeddings, in several parts, one picture of which can't be read; tests only read it."""
    folder = tmp_path_factory.mktemp("run")
    source = open_source(write_files(folder / "pictures", PICTURES), part_size=6)
    return scan(source, folder / "run", SafetyFilter(encoder, probes, POLICY), keep_embeddings=True)


@pytest.fixture(scope="session")
def truth(run: Run) -> dict[str, bool]:
    """A label for each picture, by key: true on one side of the embeddings' widest column."""
    vectors = run.read_embeddings().astype(np.float32)
    widest = vectors[:, np.nanstd(vectors, axis=0).argmax()]
    side = dict(zip(run.read_scores()["key_digest"].to_pylist(), (widest > np.nanmedian(widest)).tolist(), strict=True))
    return {key: side[run.digester().key(key)] for key in PICTURES}
