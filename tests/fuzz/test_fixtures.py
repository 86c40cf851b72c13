"""Files that were once read in another way than is documented: each is refused now."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safetyfilter import open_source
from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.frames import pictures_in
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, DecodeLimits, open_header
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.views import Geometry
from safetyfilter.errors import CalibrationError, SourceError
from safetyfilter.evaluation.inputs import read_labelled_scores
from safetyfilter.storage import parse_parquet

FIXTURES = Path(__file__).with_name("fixtures")
DAMAGED = "second-picture-damaged.mpo"
PASSED = ("footer-of-another-type.parquet", "footer-levels.parquet", "footer-that-is-not-written-back.parquet")


def picture(file: Path, _: Path) -> None:
    limits = DecodeLimits(max_pixels=1 << 20)
    ImagePreparer(geometry=Geometry(image_size=(32, 32), views="whole"), limits=limits)(file.read_bytes())


def part(file: Path, _: Path) -> None:
    parse_parquet(file.read_bytes())


def labels(file: Path, folder: Path) -> None:
    scores = {"key": [f"k{number:03d}" for number in range(12)], "explicit": [0.5] * 12, "minor": [0.5] * 12}
    pq.write_table(pa.table(scores), folder / "scores.parquet")
    read_labelled_scores(folder / "scores.parquet", file)


def metadata(file: Path, folder: Path) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", np.ones((40, 8), np.float16))
    shutil.copy(file, folder / "metadata" / "metadata_0.parquet")
    source = open_source(folder)
    list(source.samples(source.parts()[0]))


def table(file: Path, _: Path) -> None:
    source = open_source(file)
    list(source.samples(source.parts()[0]))


@pytest.mark.parametrize(
    ("name", "read", "error", "words"),
    [
        ("frame-beyond-the-screen.gif", picture, Unreadable, "too_many_pixels"),
        ("decisions-column-name.parquet", part, ValueError, "UTF-8|utf-8"),
        ("labels-column-name.csv", labels, CalibrationError, "the name of a column is not UTF-8"),
        ("labels-key-twice.csv", labels, CalibrationError, "several columns are called 'key'"),
        ("labels-text.parquet", labels, CalibrationError, "UTF8"),
        ("embeddings-of-no-width.parquet", table, SourceError, "CRC checksum verification failed"),
        ("footer-negative-rows.parquet", table, SourceError, "says that a row group has -"),
        ("keys-fewer-rows.parquet", metadata, SourceError, "0 of 40 rows are there"),
    ],
)
def test_it_is_refused(
    name: str, read: Callable[[Path, Path], None], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        read(FIXTURES / name, tmp_path)


@pytest.mark.parametrize("name", PASSED)
def test_it_passes_with_all_samples_accounted_for(name: str) -> None:
    source = open_source(FIXTURES / name)  # at which pyarrow ended the process
    found = [sample for part in source.parts() for sample in source.samples(part)]
    assert len(found) == sum(part.count or 0 for part in source.parts()) > 0


def test_a_damaged_picture_behind_the_first_is_seen_as_pillow_shows_it() -> None:
    """What libjpeg makes of a damaged scan depends on how many bytes follow; 51 pixels were others than a loader's."""
    data = (FIXTURES / DAMAGED).read_bytes()
    (_, (second, _), *_) = pictures_in(open_header(data, DEFAULT_LIMITS), data, DEFAULT_LIMITS)
    with Image.open(io.BytesIO(data)) as shown:
        shown.seek(1)
        assert second.convert("RGB").tobytes() == shown.convert("RGB").tobytes()


def test_each_fixture_is_read() -> None:
    (marker,) = (mark for mark in test_it_is_refused.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {case[0] for case in marker.args[1]} | {*PASSED, DAMAGED} == {path.name for path in FIXTURES.iterdir()}
