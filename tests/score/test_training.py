"""Training: what a probe learns, that folds don't leak, that scores are calibrated, and bad input."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.batches import STATUS_CODES, EmbeddingBatch
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError, EncoderMismatchError, ProbeError
from safetyfilter.score.bank import ProbeBank, join_captions
from safetyfilter.score.folds import assign_folds
from safetyfilter.score.held_out import calibration_error
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.training import train_probe

SPEC = EncoderSpec(
    architecture="a",
    weights_sha256="0" * 64,
    image_size=(8, 8),
    mean=(0, 0, 0),
    std=(1, 1, 1),
    interpolation="bicubic",
    resize_mode="shortest",
    width=16,
)


def unit(rng: np.random.Generator, count: int, width: int = 16) -> np.ndarray:
    x = rng.standard_normal((count, width)).astype(np.float32) + 0.3
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def labelled(count: int = 3000, share: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = unit(rng, count)
    z = x[:, 0] + rng.logistic(size=count) * 0.08
    return x, z > np.quantile(z, 1 - share)


def test_scores_are_calibrated_on_samples_it_has_not_seen() -> None:
    x, y = labelled(12_000)
    probe = train_probe(x[:6000], y[:6000], signal="explicit", encoder=SPEC)
    scores = probe.score(x[6000:])
    assert calibration_error(scores, y[6000:]) < 0.02  # class weights alone would put it above 0.1
    assert abs(scores.mean() - y[6000:].mean()) < 0.02
    card = probe.card
    assert card is not None
    from sklearn.metrics import average_precision_score, roc_auc_score

    assert card.auc == pytest.approx(roc_auc_score(y[6000:], scores), abs=0.02)
    assert card.average_precision == pytest.approx(average_precision_score(y[6000:], scores), abs=0.06)
    assert card.calibration_error < 0.03
    for recall, threshold in card.thresholds.items():
        assert (scores[y[6000:]] >= threshold).mean() == pytest.approx(float(recall), abs=0.05)
    assert sorted(card.thresholds.values(), reverse=True) == list(card.thresholds.values())


def test_the_card_says_what_was_done_and_comes_back_from_the_file(tmp_path: Path) -> None:
    x, y = labelled(600)
    probe = train_probe(x, y, signal="minor", encoder=SPEC, provenance="random numbers", groups=np.arange(600) // 2)
    card = probe.card
    assert card is not None
    assert (card.positives, card.negatives, card.folds, card.groups) == (60, 540, 5, 300)
    assert card.provenance == "random numbers"
    ProbeBank([probe]).save(tmp_path / "p.safetensors")
    again = ProbeBank.load(tmp_path / "p.safetensors").probes[0]
    assert isinstance(again, LinearProbe)
    assert (again.card, again.digest, again.encoder) == (card, probe.digest, SPEC.digest)


def test_a_memory_map_of_float16_and_the_same_seed_give_the_same_probe(tmp_path: Path) -> None:
    x, y = labelled(800)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    probes = [
        train_probe(a, y, signal="explicit", encoder="e", regularisation=[0.1]) for a in (mapped, x.astype(np.float16))
    ]
    assert probes[0].digest == probes[1].digest
    full = train_probe(x, y, signal="explicit", encoder="e", regularisation=[0.1])
    assert np.abs(probes[0].score(x) - full.score(x)).max() < 0.02


@pytest.mark.parametrize(("grid", "fits"), [([0.01, 0.1], 2 * 3 + 3), ([0.1], 3)], ids=["chosen", "given"])
def test_every_fit_on_a_fold_is_reported(grid: list[float], fits: int) -> None:
    x, present = labelled(300)
    told: list[Mapping[str, int]] = []
    train_probe(x, present, signal="a", encoder=SPEC, folds=3, regularisation=grid, progress=told.append)
    assert told == [{"seen": 1}] * fits


def test_near_duplicates_do_not_leak_where_groups_are_given() -> None:
    rng = np.random.default_rng(0)
    bases, label = unit(rng, 60, 64), rng.random(60) < 0.5  # labels that nothing in the vectors explains
    x = np.repeat(bases, 10, axis=0) + rng.standard_normal((600, 64)).astype(np.float32) * 0.01
    y, groups = np.repeat(label, 10), np.repeat(np.arange(60), 10)
    leaky = train_probe(x, y, signal="explicit", encoder="e", regularisation=[1.0]).card
    assert leaky is not None
    assert leaky.auc > 0.95
    try:
        grouped = train_probe(x, y, signal="explicit", encoder="e", regularisation=[1.0], groups=groups).card
    except CalibrationError:
        return  # found no better than chance, as it is
    assert grouped is not None
    assert grouped.auc < 0.7


def test_unlabelled_samples_are_left_out() -> None:
    x, y = labelled(600)
    some = np.array([*y[:500], *[None] * 100], dtype=object)
    whole = train_probe(x[:500], y[:500], signal="explicit", encoder="e", regularisation=[0.1])
    x[550] = np.nan
    assert train_probe(x, some, signal="explicit", encoder="e", regularisation=[0.1]).digest == whole.digest


def test_weak_regularisation_is_chosen_where_the_data_bear_it() -> None:
    x, y = labelled(3000)
    few = train_probe(
        np.c_[x[:60], unit(np.random.default_rng(5), 60, 200)],
        y[:60] | (np.arange(60) < 8),
        signal="explicit",
        encoder="e",
        folds=3,
    )
    many = train_probe(x, y, signal="explicit", encoder="e")
    assert few.card.regularisation < many.card.regularisation


def test_the_choice_is_made_on_a_part_of_many_samples() -> None:
    x, y = labelled(3000)
    part = train_probe(x, y, signal="explicit", encoder="e", search_rows=600)
    whole = train_probe(x, y, signal="explicit", encoder="e")
    assert part.card.auc == pytest.approx(whole.card.auc, abs=0.01)
    assert part.card.positives == whole.card.positives == 300


def test_a_separable_signal_stays_finite() -> None:
    x, _ = labelled(300)
    probe = train_probe(x, x[:, 0] > 0.1, signal="explicit", encoder="e")
    assert np.isfinite(probe.weight).all()
    assert np.abs(probe.weight).max() < 1000
    assert 0 < probe.score(x).min() < 0.5 < probe.score(x).max() <= 1


def test_captions_tell_what_images_do_not() -> None:
    rng = np.random.default_rng(0)
    images, captions = unit(rng, 2000), unit(rng, 2000)
    y = images[:, 0] + captions[:, 0] + rng.logistic(size=2000) * 0.03 > 0.35
    image_only = train_probe(images, y, signal="minor", encoder=SPEC)
    both = train_probe(images, y, signal="minor", encoder=SPEC, captions=captions)
    assert both.card.auc > image_only.card.auc + 0.05
    assert (both.inputs, both.width) == ("image+caption", 32)
    bank = ProbeBank([both, train_probe(images, images[:, 1] > 0.1, signal="explicit", encoder=SPEC)]).bind(SPEC)
    batch = EmbeddingBatch(vectors=images, encoder=SPEC.digest)
    with pytest.raises(ProbeError, match="image\\+caption embeddings of width 32"):
        bank.score(batch)
    captions[3] = np.nan
    scores = bank.score(join_captions(batch, captions))
    np.testing.assert_array_equal(scores["minor"][4:], both.score(np.c_[images, captions])[4:])
    np.testing.assert_array_equal(scores["explicit"][4:], bank.probes[1].score(images)[4:])
    assert np.isnan(scores["minor"][3])


def test_captions_over_several_views() -> None:
    rng = np.random.default_rng(0)
    status = np.zeros(5, np.uint8)
    status[2] = STATUS_CODES["undecodable"]
    batch = EmbeddingBatch(vectors=np.stack([unit(rng, 5), unit(rng, 5)], axis=1), status=status, encoder="e")
    joined = join_captions(batch, unit(rng, 5))
    assert joined.vectors.shape == (5, 2, 32)
    assert joined.failures == {2: "undecodable"}
    with pytest.raises(ProbeError, match="a caption each"):
        join_captions(batch, unit(rng, 4))


def test_a_caption_probe_needs_an_encoder_of_half_its_width() -> None:
    probe = LinearProbe(
        signal="minor", weight=np.ones(16, np.float32), bias=0, encoder=SPEC.digest, inputs="image+caption"
    )
    with pytest.raises(EncoderMismatchError, match=r"those of .* have 32"):
        probe.bind(SPEC)
    with pytest.raises(ProbeError, match="twice"):
        ProbeBank([probe, LinearProbe(signal="explicit", weight=np.ones(16, np.float32), bias=0, encoder=SPEC.digest)])
    with pytest.raises(ProbeError, match="image or image"):
        LinearProbe(signal="minor", weight=np.ones(16, np.float32), bias=0, encoder="e", inputs="text")


X, Y = labelled(40, share=0.4)


@pytest.mark.parametrize(
    ("embeddings", "labels", "more", "error", "message"),
    [
        (X, np.ones(40), {}, CalibrationError, "40 samples are labelled present and 0 absent"),
        (X, np.zeros(40), {}, CalibrationError, "0 samples"),
        (X, Y[:39], {}, CalibrationError, "40 embeddings and 39 labels"),
        (
            np.where(np.arange(40)[:, None] == 3, np.nan, X),
            Y,
            {},
            CalibrationError,
            "1 of 40 labelled embeddings are NaN",
        ),
        (X, Y, {"encoder": SPEC, "captions": X[:, :3]}, CalibrationError, "captions"),
        (X[:, :8], Y, {"encoder": SPEC}, EncoderMismatchError, "8 columns"),
        (X[:, 0], Y, {}, CalibrationError, r"\(N, D\)"),
        (X.astype(int), Y, {}, CalibrationError, "floats"),
        (X, Y, {"groups": np.arange(39)}, CalibrationError, "groups of shape"),
        (X, Y, {"groups": np.where(Y, 1, np.arange(40) + 2)}, CalibrationError, "one group"),
        (X, Y, {"folds": 1}, CalibrationError, "folds is 1; give a whole number of at least 2"),
        (X, Y, {"regularisation": []}, CalibrationError, "regularisation"),
        (X, Y, {"regularisation": [np.nan, 1]}, CalibrationError, "regularisation"),
        (X, Y, {"weights": np.full(40, 1e38)}, CalibrationError, r"weights go from 1e\+38"),  # whose sums overflow
        (X, Y, {"weights": [1e-7, *np.ones(39)]}, CalibrationError, "weights go from 1e-07 to 1"),
        (X, Y, {"weights": [10**400] * 40}, CalibrationError, "not all numbers"),
        *((X, Y, {"positive_weight": w}, CalibrationError, "positive_weight") for w in (None, "2", np.nan, 1e300, 0)),
        (X, np.arange(40) % 3, {}, CalibrationError, "true and false"),
    ],
)
def test_bad_input(
    embeddings: np.ndarray, labels: np.ndarray, more: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_probe(embeddings, labels, **{"signal": "explicit", "encoder": "e"} | more)


@settings(max_examples=60)
@given(st.integers(4, 200), st.integers(1, 40), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1), st.integers(2, 7))
def test_folds_split_no_group(count: int, groups: int, share: float, seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    present, group = rng.random(count) < share, rng.integers(0, groups, count)
    group = np.unique(group, return_inverse=True)[1]
    try:
        fold_of = assign_folds(present, group, folds, seed)
    except CalibrationError:
        return
    assert all(len(np.unique(fold_of[group == one])) == 1 for one in np.unique(group))
    assert set(fold_of) == set(range(int(fold_of.max()) + 1))
    assert all(len(np.unique(present[fold_of == fold])) == 2 for fold in np.unique(fold_of))


@given(st.integers(2, 60), st.integers(2, 60), st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_folds_share_both_labels_evenly(positives: int, negatives: int, folds: int, seed: int) -> None:
    present = np.arange(positives + negatives) < positives
    fold_of = assign_folds(present, None, folds, seed)
    for side in (present, ~present):
        sizes = np.bincount(fold_of[side], minlength=min(folds, positives, negatives))
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search_rows": 0}, "search_rows is 0; give a whole number of at least 100"),
        ({"folds": "5"}, "folds is '5'; give a whole number of at least 2"),
        ({"seed": -1}, "seed is -1; give a whole number of at least 0"),
        ({"regularisation": 0.1}, "regularisation is 0.1; give a sequence"),
        ({"regularisation": []}, r"regularisation is \[\]; give a sequence"),
        ({"regularisation": [0.1, 0]}, r"regularisation is \[0.1, 0\]; give a sequence"),
        ({"positive_weight": True}, "positive_weight is True; give a number above 0"),
    ],
)
def test_settings_that_are_none(settings: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        train_probe(*labelled(200), signal="explicit", encoder="e", **settings)


def test_rows_in_a_list_are_no_embeddings() -> None:
    x, y = labelled(200)
    with pytest.raises(CalibrationError, match="embeddings are list; give an array"):
        train_probe(x.tolist(), y, signal="explicit", encoder="e")
