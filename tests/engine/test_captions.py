"""Probes that judge images with their captions: every source brings its captions, and what has none is unscored."""

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from safetyfilter import ClipEncoder, EmbedOptions, LinearProbe, ProbeBank, SafetyFilter, open_source, scan
from safetyfilter.batches import STANDIN_SIGNALS
from safetyfilter.errors import UsageError
from safetyfilter.loaders.torch import SafeIterable
from safetyfilter.runs.parts import ScorePart
from safetyfilter.standin.render import scenes

DRAWN = list(scenes(7, split="train", seed=3, pairs=False))
CAPTIONS: list[str | None] = [None if number == 4 else scene.caption for number, scene in enumerate(DRAWN)]


def png(number: int) -> bytes:
    encoded = io.BytesIO()
    DRAWN[number].image.save(encoded, "PNG")
    return encoded.getvalue()


IMAGES = [png(number) for number in range(len(DRAWN))]


def folder(place: Path) -> object:
    place.mkdir()
    for number, (image, caption) in enumerate(zip(IMAGES, CAPTIONS, strict=True)):
        (place / f"{number}.png").write_bytes(image)
        if caption is not None:
            (place / f"{number}.txt").write_text(caption, encoding="utf-8")
    return place


def tars(place: Path) -> object:
    place.mkdir()
    with webdataset.TarWriter(str(place / "0.tar"), encoder=False) as tar:
        for number, (image, caption) in enumerate(zip(IMAGES, CAPTIONS, strict=True)):
            tar.write({"__key__": str(number), "png": image} | ({"txt": caption.encode()} if caption else {}))
    return place


def parquet(place: Path) -> object:
    place.mkdir()
    pq.write_table(pa.table({"image": IMAGES, "caption": CAPTIONS}), place / "rows.parquet")
    return place


def data_set(place: Path) -> object:
    return datasets.Dataset.from_dict({"image": IMAGES, "text": CAPTIONS})


@pytest.fixture(scope="module")
def safe(encoder: ClipEncoder) -> SafetyFilter:
    rng, width = np.random.default_rng(0), encoder.spec.width
    both, image = (rng.normal(size=size).astype(np.float32) for size in (2 * width, width))
    probes = [
        LinearProbe(signal=STANDIN_SIGNALS.minor, weight=both, bias=0.2, encoder=encoder.spec.digest,
                    inputs="image+caption"),
        LinearProbe(signal=STANDIN_SIGNALS.explicit, weight=image, bias=0.1, encoder=encoder.spec.digest),
    ]  # fmt: skip
    return SafetyFilter(encoder, ProbeBank(probes), options=EmbedOptions(views="multi", batch_size=3))


@pytest.mark.parametrize("make", [folder, tars, parquet, data_set])
def test_every_source_brings_its_captions(make, tmp_path: Path, safe: SafetyFilter) -> None:
    run = scan(open_source(make(tmp_path / "source")), tmp_path / "run", safe, keep_embeddings=True)
    scored = ScorePart.read(run.file("scores", 0))
    expected = safe(IMAGES, CAPTIONS)
    assert scored.status[4] == "no_caption" == expected.scores.failures[4]
    assert run.counts["unscored"] == 1
    for signal in STANDIN_SIGNALS.pair:
        np.testing.assert_allclose(scored.scores[signal], expected.scores[signal], rtol=1e-5)
    assert np.load(run.file("embeddings", 0, "npy")).shape == (7, 5, 2 * safe.encoder.spec.width)


def test_a_caption_counts(safe: SafetyFilter) -> None:
    told, other = safe(IMAGES[:1], ["a seven on a wall"]), safe(IMAGES[:1], ["no digit"])
    assert told.scores[STANDIN_SIGNALS.minor][0] != other.scores[STANDIN_SIGNALS.minor][0]
    assert told.scores[STANDIN_SIGNALS.explicit][0] == other.scores[STANDIN_SIGNALS.explicit][0]


def test_a_changed_caption_is_scored_anew(tmp_path: Path, safe: SafetyFilter) -> None:
    place, run = folder(tmp_path / "source"), tmp_path / "run"
    before = ScorePart.read(scan(open_source(place), run, safe).file("scores", 0)).scores["seven"]
    state = open_source(place).parts()[0].state
    (tmp_path / "source" / "0.txt").write_text("something else entirely, and longer")
    assert open_source(place).parts()[0].state != state
    after = ScorePart.read(scan(open_source(place), tmp_path / "run2", safe).file("scores", 0)).scores["seven"]
    assert before[0] != after[0]
    np.testing.assert_array_equal(before[1:], after[1:])


def test_captions_that_are_left_out_are_asked_for(safe: SafetyFilter) -> None:
    with pytest.raises(UsageError, match="7 images came with none"):
        safe(IMAGES)
    with pytest.raises(UsageError, match="7 images came with 2; pass a caption, or None, for each"):
        safe(IMAGES, ["a", "b"])
    with pytest.raises(UsageError, match="scan the source and give the run"):
        SafeIterable([], safe, image="image")
