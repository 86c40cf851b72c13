"""Probes that judge images with their captions: every source brings its captions, and what has none is unscored."""

import io
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import ClipEncoder, EmbedOptions, LinearProbe, ProbeBank, SafetyFilter, open_source, scan
from safetyfilter.errors import UsageError
from safetyfilter.standin import STANDIN_PAIR
from safetyfilter.standin.render import scenes
from tests.engine.pictures import keys_of, rows_of
from tests.writers import WRITERS, write_folder

DRAWN = list(scenes(7, split="train", seed=3, pairs=False))
CAPTIONS: list[str | None] = [None if number == 4 else scene.caption for number, scene in enumerate(DRAWN)]


def png(number: int) -> bytes:
    encoded = io.BytesIO()
    DRAWN[number].image.save(encoded, "PNG")
    return encoded.getvalue()


FILES = {f"{number}.png": png(number) for number in range(len(DRAWN))}
IMAGES = list(FILES.values())
BY_NAME = dict(zip(FILES, CAPTIONS, strict=True))


@pytest.fixture(scope="module")
def safe(encoder: ClipEncoder) -> SafetyFilter:
    rng, width = np.random.default_rng(0), encoder.spec.width
    both, image = (rng.normal(size=size).astype(np.float32) for size in (2 * width, width))
    probes = [
        LinearProbe(signal=STANDIN_PAIR.minor, weight=both, bias=0.2, encoder=encoder.spec.digest,
                    inputs="image+caption"),
        LinearProbe(signal=STANDIN_PAIR.explicit, weight=image, bias=0.1, encoder=encoder.spec.digest),
    ]  # fmt: skip
    return SafetyFilter(
        encoder, ProbeBank(probes, pair=STANDIN_PAIR), options=EmbedOptions(views="multi", batch_size=3)
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_every_source_brings_its_captions(kind: str, tmp_path: Path, safe: SafetyFilter) -> None:
    source = open_source(WRITERS[kind](tmp_path / "source", FILES, BY_NAME))
    run = scan(source, tmp_path / "run", safe, keep_embeddings=True)
    scored, expected = rows_of(run, keys_of(source)), safe(IMAGES, CAPTIONS).scores
    assert scored["status"][4].as_py() == "no_caption" == expected.failures[4]
    assert run.counts["unscored"] == 1
    for signal in STANDIN_PAIR.names:
        np.testing.assert_allclose(scored[signal].to_numpy(), expected[signal], rtol=1e-5)
    assert run.read_embeddings().shape == (7, 5, 2 * safe.encoder.spec.width)


def test_a_caption_counts(safe: SafetyFilter) -> None:
    told, other = safe(IMAGES[:1], ["a seven on a wall"]), safe(IMAGES[:1], ["no digit"])
    assert told.scores[STANDIN_PAIR.minor][0] != other.scores[STANDIN_PAIR.minor][0]
    assert told.scores[STANDIN_PAIR.explicit][0] == other.scores[STANDIN_PAIR.explicit][0]


def test_a_changed_caption_is_scored_anew(tmp_path: Path, safe: SafetyFilter) -> None:
    place = write_folder(tmp_path / "source", FILES, BY_NAME)
    run = scan(open_source(place), tmp_path / "run", safe)
    before = rows_of(run, FILES)[STANDIN_PAIR.minor].to_numpy()
    state = open_source(place).parts()[0].state
    (place / "0.txt").write_text("something else entirely, and longer")
    assert open_source(place).parts()[0].state != state
    after = rows_of(scan(open_source(place), tmp_path / "run", safe), FILES)[STANDIN_PAIR.minor].to_numpy()
    assert before[0] != after[0]
    np.testing.assert_array_equal(before[1:], after[1:])


def test_captions_that_are_left_out_are_asked_for(safe: SafetyFilter) -> None:
    with pytest.raises(UsageError, match="7 images came with none"):
        safe(IMAGES)
    with pytest.raises(UsageError, match="7 images came with 2; pass a caption, or None, for each"):
        safe(IMAGES, ["a", "b"])
