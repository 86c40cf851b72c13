"""Kept embeddings: those of their rows' images, never those of other scores."""

from pathlib import Path

import numpy as np
import pytest

from safetyfilter import EmbedOptions, Run, SafetyFilter, scan
from safetyfilter.errors import RunError
from safetyfilter.sources import open_source
from tests.engine.pictures import ALL, BAD, GOOD, parts_in, rows


def test_each_row_is_its_own_images_embedding(scanned: Run, safe: SafetyFilter) -> None:
    vectors, digester = scanned.read_embeddings(), scanned.digester()
    assert (vectors.dtype, vectors.shape) == (np.float16, (len(ALL), safe.encoder.spec.width))
    assert sum(len(np.load(path)) for path in (Path(scanned.path) / "embeddings").iterdir()) == len(ALL)
    place = {digest: row for row, digest in enumerate(rows(scanned)["key_digest"].to_pylist())}
    for name, content in ALL.items():
        alone = safe.encoder.embed([content], EmbedOptions(views="whole")).vectors[0]
        np.testing.assert_allclose(vectors[place[digester.key(name)]], alone, atol=1e-3)
    assert np.isnan(vectors).any(axis=1).sum() == len(BAD)


def test_none_are_left_of_pictures_that_changed(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    out = tmp_path / "run"
    scan(open_source(folder, part_size=8), out, safe, keep_embeddings=True)
    assert parts_in(out, "embeddings") == {0, 1, 2}
    (folder / "rocket.jpg").write_bytes(GOOD["china.jpg"])  # in the last part
    run = scan(open_source(folder, part_size=8), out, safe)
    assert len(parts_in(out, "embeddings")) == 2
    with pytest.raises(RunError, match="holds no embeddings; scan again with --keep-embeddings"):
        run.read_embeddings()
    again = scan(open_source(folder, part_size=8), out, safe, keep_embeddings=True)
    assert np.isfinite(again.read_embeddings()).all(axis=1).sum() == len(GOOD)
    assert again.counts == run.counts


def test_they_stay_where_nothing_changed(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    first = scan(open_source(folder, part_size=8), tmp_path / "run", safe, keep_embeddings=True).read_embeddings()
    again = scan(open_source(folder, part_size=8), tmp_path / "run", safe)
    np.testing.assert_array_equal(again.read_embeddings(), first)


def test_those_of_another_part_are_refused(folder: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(folder, part_size=7), tmp_path / "run", safe, keep_embeddings=True)
    one, other = (Path(run.path) / "embeddings" / f"part-0000{number}.npy" for number in (0, 1))
    right = one.read_bytes()
    assert np.load(one).shape == np.load(other).shape
    one.write_bytes(other.read_bytes())
    with pytest.raises(RunError, match="does not hold the embeddings of its scores"):
        run.read_embeddings()
    one.write_bytes(right)
    run.read_embeddings()
    one.unlink()
    with pytest.raises(RunError, match=r"part-00000\.npy.*scan again with --keep-embeddings"):
        run.read_embeddings()
