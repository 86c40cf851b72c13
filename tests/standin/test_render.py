"""The scenes: what is in them, that they repeat, and that no split shares anything with another."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from safetyfilter.standin import render
from safetyfilter.standin.backgrounds import PHOTOGRAPHS, PHRASES, TEXTURES, Split, photograph
from safetyfilter.standin.handwriting import HANDWRITING
from safetyfilter.standin.prompts import SEVEN, THREE, Prompts

UNSUITABLE = {"astronaut", "camera", "lfw_subset", "coins", "retina", "cell", "ihc", "page", "text", "clock_motion"}


def _same(first: render.Scene, second: render.Scene) -> bool:
    return (
        first.caption == second.caption
        and first.digits == second.digits
        and np.array_equal(first.boxes, second.boxes)
        and np.array_equal(np.asarray(first.image), np.asarray(second.image))
    )


@pytest.mark.parametrize(("one", "other"), list(combinations(render.SPLITS, 2)))
def test_splits_share_neither_handwriting_nor_backgrounds(one: Split, other: Split) -> None:
    assert not set(HANDWRITING[one]) & set(HANDWRITING[other])
    assert not set(PHOTOGRAPHS[one]) & set(PHOTOGRAPHS[other])
    assert not set(TEXTURES[one]) & set(TEXTURES[other])


def test_handwriting_is_cut_between_writers() -> None:
    from sklearn.datasets import load_digits

    # Every writer of this data set begins by writing 0 to 9 twice.
    target = load_digits().target
    assert sum(len(rows) for rows in HANDWRITING.values()) == len(target)
    for rows in HANDWRITING.values():
        starts = [row for row in rows if row - 1 not in rows]
        assert all(target[row : row + 20].tolist() == [*range(10), *range(10)] for row in starts)


def test_photographs_are_the_listed_ones() -> None:
    names = {name for split in render.SPLITS for name in PHOTOGRAPHS[split]}
    assert not names & UNSUITABLE
    assert {photograph(name).mode for name in names} == {"RGB"}
    assert set(PHRASES) == names | {name for split in render.SPLITS for name in TEXTURES[split]}


@pytest.mark.parametrize("split", render.SPLITS)
def test_scenes_repeat_and_do_not_depend_on_their_count(split: Split) -> None:
    first = list(render.scenes(6, split=split, seed=4, pairs=False))
    again = list(render.scenes(3, split=split, seed=4, pairs=False))
    assert all(_same(a, b) for a, b in zip(first, again, strict=False))
    other = list(render.scenes(3, split=split, seed=5, pairs=False))
    assert not any(_same(a, b) for a, b in zip(again, other, strict=True))


def test_scenes_stay_in_bounds_and_use_their_split() -> None:
    for scene in render.scenes(150, split="test", seed=0, pairs=True):
        width, height = scene.image.size
        assert scene.image.mode == "RGB"
        assert min(width, height) >= 64
        assert max(width, height) <= 160
        assert 0.64 <= width / height <= 1.56
        assert scene.boxes.shape == (len(scene.digits), 4)
        assert (scene.boxes >= 0).all()
        assert (scene.boxes[:, 2:] <= (width, height)).all()
        assert (scene.boxes[:, :2] < scene.boxes[:, 2:]).all()
        assert scene.background in PHOTOGRAPHS["test"] + TEXTURES["test"]
        assert all(render.DIGIT_WORDS[digit] in scene.caption for digit in scene.digits)


def test_digits_without_pairs_never_hold_both() -> None:
    rng = np.random.default_rng(0)
    draws = [set(render.draw_digits(rng, pairs=False)) for _ in range(5000)]
    assert not any({3, 7} <= draw for draw in draws)
    assert all(0.27 < np.mean([digit in draw for draw in draws]) < 0.33 for digit in (3, 7))
    assert all({digit, other} in map(set, draws) for digit in (3, 7) for other in (0, 1, 2, 4, 5, 6, 8, 9))


def test_digits_with_pairs() -> None:
    rng = np.random.default_rng(0)
    assert all({3, 7} <= set(render.draw_digits(rng, pairs="only")) for _ in range(200))
    assert 0.06 < np.mean([{3, 7} <= set(render.draw_digits(rng, pairs=True)) for _ in range(3000)]) < 0.12


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("pairs", [True, "only"])
def test_pairs_are_refused_outside_the_test_split(split: Split, pairs: render.Pairs) -> None:
    with pytest.raises(ValueError, match="never share"):
        render.scenes(1, split=split, seed=0, pairs=pairs)
    with pytest.raises(ValueError, match="never share"):
        render.render(np.random.default_rng(0), split=split, digits=(7, 1, 3), size=(64, 64))


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        render.scenes(1, split="holdout", seed=0, pairs=False)  # type: ignore[arg-type]


def test_explicit_centres_and_scale() -> None:
    scene = render.render(
        np.random.default_rng(1),
        split="test",
        digits=(3, 7),
        size=(200, 100),
        scale=(0.3, 0.3),
        center=((0.25, 0.5), (1.0, 0.5)),
    )
    middle = (scene.boxes[0, :2] + scene.boxes[0, 2:]) / 2
    assert np.allclose(middle, (50, 50), atol=1)
    assert 20 <= scene.boxes[0, 3] - scene.boxes[0, 1] <= 40
    assert scene.boxes[1, 2] == 200  # cut off at the border
    with pytest.raises(ValueError, match="as many centres"):
        render.render(np.random.default_rng(1), split="test", digits=(3, 7), size=(64, 64), center=((0.5, 0.5),))


def test_batch_is_what_scenes_are() -> None:
    first = render.batch(np.random.default_rng(2), 200, 48)
    again = render.batch(np.random.default_rng(2), 200, 48)
    assert first.images.shape == (200, 48, 48, 3)
    assert first.images.dtype == np.uint8
    assert np.array_equal(first.images, again.images)
    assert first.captions == again.captions
    assert not (first.present[:, 3] & first.present[:, 7]).any()
    assert not (first.named & ~first.present).any()
    assert set(first.places) <= set(PHOTOGRAPHS["train"] + TEXTURES["train"])
    for caption, named in zip(first.captions, first.named, strict=True):
        assert {word for word in render.DIGIT_WORDS if word in caption.split() or word + "," in caption.split()} == {
            render.DIGIT_WORDS[digit] for digit in np.nonzero(named)[0]
        }


@pytest.mark.parametrize("prompts", [THREE, SEVEN])
def test_no_prompt_names_both_digits(prompts: Prompts) -> None:
    positive, contrasting = prompts
    assert not any("three" in text and "seven" in text for text in positive + contrasting)
    assert not any("three" in text or "seven" in text for text in contrasting)


def test_processes_that_render_load_neither_torch_nor_scikit_learn() -> None:
    """Each of them would import for longer than it renders."""
    code = "import sys, safetyfilter.standin.rendered; print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
