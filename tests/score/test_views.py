"""Training on several views: the highest counts, for figures and files too; and warnings about pictures that differ."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.metrics import roc_auc_score

from safetyfilter import AgeCut, ClipEncoder, EmbedOptions, LinearProbe, ProbeBank, SafetyFilter, open_source, scan
from safetyfilter.batches import EmbeddingBatch
from safetyfilter.errors import CalibrationError, ProbeError
from safetyfilter.score.as_html import card_html
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.gate import FLOOR_RECALL, Gate
from safetyfilter.score.trained_on import TrainedOn, differences
from safetyfilter.score.training import train_probe
from safetyfilter.signals import PAIR
from safetyfilter.standin import STANDIN_PAIR
from safetyfilter.standin.pictures import Labelled
from safetyfilter.standin.probes import fit_probes
from tests.conftest import good_images
from tests.writers import write_files

VIEWS, WIDTH = 5, 8
LOOKS = TrainedOn(views="multi", decode="fast", precision="float32")


def bags(count: int, seed: int, *, shown_whole: float = 0.25, strength: float = 4) -> tuple[np.ndarray, np.ndarray]:
    """(N, V, D) embeddings of pictures in which one crop of each positive shows the signal, and the labels.

    The whole picture shows something of it in a share of the positives, of which a first fit learns what to look for.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, VIEWS, WIDTH)).astype(np.float32) * 0.5
    present = np.arange(count) % 3 == 0
    x[..., 1] += 3
    x[present, rng.integers(1, VIEWS, present.sum()), 0] += strength
    x[rng.permutation(np.flatnonzero(present))[: round(shown_whole * present.sum())], 0, 0] += strength / 2
    return x / np.linalg.norm(x, axis=2, keepdims=True), present


X, Y = bags(600, 0)


@pytest.fixture(scope="module")
def probe() -> LinearProbe:
    return train_probe(X, Y, signal="minor", encoder="e", trained_on=LOOKS, folds=3, regularisation=[0.01, 1.0])


def highest(probe: LinearProbe, x: np.ndarray) -> np.ndarray:
    return ProbeBank([probe]).score(EmbeddingBatch(vectors=x, encoder="e")).values[:, 0]


def test_it_finds_what_a_probe_from_whole_pictures_misses(probe: LinearProbe) -> None:
    x, y = bags(600, 1)
    whole = train_probe(X[:, 0], Y, signal="minor", encoder="e", folds=3, regularisation=[0.01, 1.0])
    found = roc_auc_score(y, highest(probe, x))
    assert found > 0.97
    assert roc_auc_score(y, whole.score(x[:, 0])) < 0.8
    assert roc_auc_score(y, highest(whole, x)) < found
    assert probe.weight.shape == (WIDTH,)


def test_the_cards_figures_are_those_of_the_highest_view() -> None:
    # Labels that overlap: where they hardly do, a fit on more samples has larger weights than those of the folds.
    x, y = bags(3000, 2, shown_whole=0.8, strength=1.5)
    known, labels = bags(1500, 0, shown_whole=0.8, strength=1.5)
    probe = train_probe(known, labels, signal="minor", encoder="e", trained_on=LOOKS, regularisation=[0.1])
    scores, whole, card = highest(probe, x), probe.score(x[y, 0]), probe.card
    assert card is not None
    assert card.auc == pytest.approx(roc_auc_score(y, scores), abs=0.02)
    assert scores.mean() == pytest.approx(y.mean(), abs=0.03)  # calibrated on the highest, too
    for share in ("0.8", "0.9", "0.95"):
        assert (scores[y] >= card.thresholds[share]).mean() == pytest.approx(float(share), abs=0.06)
        assert (whole >= card.whole_thresholds[share]).mean() == pytest.approx(float(share), abs=0.06)
    assert (card.method, card.trained_on) == ("logistic-regression, highest of 5 views", LOOKS)
    assert (card.positives, card.negatives) == (500, 1000)


def test_the_same_seed_gives_the_same_probe_from_float16_in_a_file(probe: LinearProbe, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(np.float16))
    made = [
        train_probe(x, Y, signal="minor", encoder="e", folds=3, regularisation=[0.01])
        for x in (np.load(tmp_path / "x.npy", mmap_mode="r"), X.astype(np.float16))
    ]
    assert made[0].digest == made[1].digest


def test_one_view_is_the_same_as_none() -> None:
    one, none = (train_probe(x, Y, signal="a", encoder="e", folds=3, regularisation=[0.1]) for x in (X[:, :1], X[:, 0]))
    assert one.digest == none.digest
    assert one.card == none.card
    assert one.card.whole_thresholds == {}


def test_unlabelled_pictures_groups_and_captions_go_along() -> None:
    labels = np.where(np.arange(len(Y)) < 300, Y.astype(float), np.nan)
    x = X.copy()
    x[400, 3] = np.nan  # not labelled
    groups = np.arange(len(Y)) // 2
    settings = {"signal": "minor", "encoder": "e", "folds": 3, "regularisation": [0.1]}
    some = train_probe(x, labels, groups=groups, captions=X[:, 1], **settings)
    part = train_probe(X[:300], Y[:300], groups=groups[:300], captions=X[:300, 1], **settings)
    assert some.digest == part.digest
    assert (some.card.groups, some.inputs, some.width) == (150, "image+caption", 2 * WIDTH)


def test_captions_are_joined_with_every_view() -> None:
    rng = np.random.default_rng(3)
    captions = rng.standard_normal((len(Y), WIDTH)).astype(np.float32)
    captions[:, 0] = np.where(Y, 3, -3)  # which alone tell
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    noise = bags(len(Y), 4)[0][np.random.default_rng(5).permutation(len(Y))]
    probe = train_probe(noise, Y, signal="minor", encoder="e", folds=3, regularisation=[0.1], captions=captions)
    joined = np.concatenate([noise, np.repeat(captions[:, None], VIEWS, axis=1)], axis=2)
    assert roc_auc_score(Y, ProbeBank([probe]).score_vectors(joined)[:, 0]) > 0.99


def test_ages_and_their_gap_go_along_with_views() -> None:
    rng = np.random.default_rng(0)
    ages = np.where(Y, rng.uniform(2, 18, len(Y)), rng.uniform(18, 60, len(Y)))
    card = train_probe(
        X, ages, signal="minor", encoder="e", ages=AgeCut(below=18, gap=2), folds=3, regularisation=[0.1]
    ).card
    assert card.ages.in_gap == ((ages >= 16) & (ages < 20)).sum() > 0
    for band in card.ages.bands:  # nothing in the pictures tells of the age, so the gap is as the rest
        if band.samples > 15:
            assert (band.found["0.8"] > 0.5) == band.present


@pytest.mark.parametrize(
    ("embeddings", "more", "message"),
    [
        (X, {"trained_on": TrainedOn(views="whole")}, "views 'whole', of which a picture has 1, and are of 5 each"),
        (X[:, 0], {"trained_on": LOOKS}, "views 'multi', of which a picture has 5, and are of 1 each"),
        (X, {"captions": X}, r"give one caption for each image, \(600, 8\) floats"),
        (X, {"captions": X[:, 0].astype(int)}, r"captions \(600, 8\) int64"),
        (X[:, :0], {}, r"\(N, V, D\) of V views"),
        (X[:, None], {}, r"not \(600, 1, 5, 8\)"),
        (X[:599], {}, "599 embeddings and 600 labels"),
        (np.where(np.arange(VIEWS)[:, None] == 4, np.nan, X), {}, "600 of 600 labelled embeddings are NaN"),
    ],
)
def test_bad_input(embeddings: np.ndarray, more: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        train_probe(embeddings, Y, signal="minor", encoder="e", **more)


def test_views_that_tell_nothing_are_an_error() -> None:
    rng = np.random.default_rng(1)
    constant = np.tile(X[:1], (200, 1, 1))
    with pytest.raises(CalibrationError, match="do not tell the labels"):
        train_probe(constant, rng.random(200) < 0.5, signal="minor", encoder="e", folds=3, regularisation=[0.1])


class TestFiles:
    def test_the_card_comes_back(self, probe: LinearProbe, tmp_path: Path) -> None:
        ProbeBank([probe]).save(tmp_path / "p.safetensors")
        again = ProbeBank.load(tmp_path / "p.safetensors").probes[0]
        assert (again.card, again.digest) == (probe.card, probe.digest)

    def test_earlier_versions_read_the_file(self, probe: LinearProbe, tmp_path: Path) -> None:
        """They know no other entries of a card than these, and ignore entries of the header that they do not know."""
        ProbeBank([probe]).save(tmp_path / "p.safetensors")
        with safe_open(tmp_path / "p.safetensors", framework="numpy") as file:
            header = file.metadata()
        assert header["schema"] == "1"
        for new in ("trained_on", "whole_thresholds"):
            assert new not in header["cards"]
            assert new in header

    def test_files_of_earlier_versions_are_read(self, probe: LinearProbe, tmp_path: Path) -> None:
        path = tmp_path / "p.safetensors"
        ProbeBank([probe]).save(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata()
        del header["trained_on"], header["whole_thresholds"]
        save_file(load_file(path), path, metadata=header)
        assert ProbeBank.load(path).probes[0].card == replace(probe.card, trained_on=TrainedOn(), whole_thresholds={})

    def test_a_card_that_says_nothing_of_it_writes_nothing(self, probe: LinearProbe, tmp_path: Path) -> None:
        ProbeBank([replace(probe, card=ProbeCard(method="zero-shot"))]).save(tmp_path / "p.safetensors")
        with safe_open(tmp_path / "p.safetensors", framework="numpy") as file:
            assert not {"trained_on", "whole_thresholds"} & set(file.metadata())

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("trained_on", '[{"views": 3}]'),
            ("trained_on", '[{"angle": "x"}]'),
            ("trained_on", "[7]"),
            ("trained_on", "[]"),
            ("whole_thresholds", "[7]"),
        ],
    )
    def test_damage_is_one_kind_of_error(self, entry: str, value: str, probe: LinearProbe, tmp_path: Path) -> None:
        path = tmp_path / "p.safetensors"
        ProbeBank([probe]).save(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata()
        save_file(load_file(path), path, metadata=header | {entry: value})
        with pytest.raises(ProbeError, match="the file is damaged"):
            ProbeBank.load(path)

    def test_the_card_shows_it(self, probe: LinearProbe) -> None:
        assert "views multi, decode fast, precision float32" in card_html(probe.card)
        assert "trained on" not in card_html(ProbeCard(method="zero-shot"))


def carded(signal: str, looks: TrainedOn, width: int = WIDTH, encoder: str = "e") -> LinearProbe:
    card = ProbeCard(method="logistic-regression", trained_on=looks)
    return LinearProbe(signal=signal, weight=np.zeros(width, np.float32), bias=-5, encoder=encoder, card=card)


class TestDifferences:
    @pytest.mark.parametrize(
        ("looks", "used", "names"),
        [
            (LOOKS, LOOKS, []),
            (LOOKS, replace(LOOKS, views="whole"), ["views"]),
            (replace(LOOKS, views="whole"), LOOKS, ["views"]),
            (LOOKS, replace(LOOKS, views="adaptive"), []),
            (replace(LOOKS, views="adaptive"), LOOKS, ["views"]),
            (LOOKS, TrainedOn(views="center", decode="exact", precision="bfloat16"), ["views", "decode", "precision"]),
            (TrainedOn(), LOOKS, []),
            (LOOKS, TrainedOn(), []),
        ],
    )
    def test_what_differs(self, looks: TrainedOn, used: TrainedOn, names: list[str]) -> None:
        assert looks.differing(used) == names
        assert len(differences([carded("minor", looks)], used)) == len(names)

    def test_probes_that_differ_alike_are_told_together(self) -> None:
        probes = [carded(signal, LOOKS) for signal in ("explicit", "minor", "minor")]
        (sentence,) = differences([*probes, replace(probes[0], card=None)], replace(LOOKS, decode="exact"))
        assert sentence.startswith(
            "the probes for 'explicit' and 'minor' were trained on pictures with the decoding 'fast', and are used "
            "with the decoding 'exact'"
        )
        assert "--decode fast" in sentence

    def test_a_filter_and_a_scan_tell_of_it_once(
        self, encoder: ClipEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        looks = TrainedOn(views="multi", decode="exact", precision="float32")
        spec = encoder.spec
        bank = ProbeBank([carded(signal, looks, spec.width, spec.digest) for signal in PAIR.names])
        name, picture = next(iter(good_images().items()))
        with caplog.at_level(logging.WARNING, logger="safetyfilter"):
            filters = [SafetyFilter(encoder, bank, options=EmbedOptions(views="center", decode="exact"))] * 2
            assert not caplog.messages  # stored embeddings may yet be what it is for
            for safe in filters:
                safe([picture])
                scan(open_source(write_files(tmp_path / "pictures", {name: picture})), tmp_path / "run", safe)
            fitting = SafetyFilter(encoder, bank, options=EmbedOptions(views="multi", decode="exact"))
            fitting([picture])
        told = [message for message in caplog.messages if "trained on" in message]
        assert len(told) == 1
        assert "the views 'multi', and are used with the views 'center'" in told[0]


def test_a_gate_takes_floors_on_the_whole_picture(probe: LinearProbe) -> None:
    both = ProbeBank([probe, replace(probe, signal="explicit")])
    assert probe.card is not None
    floor = probe.card.whole_thresholds[FLOOR_RECALL]
    assert dict(Gate.of(both).floors) == {"explicit": floor, "minor": floor}
    assert floor < probe.card.thresholds[FLOOR_RECALL]


def test_the_stand_ins_probes_are_fitted_on_views_too() -> None:
    labels = {STANDIN_PAIR.explicit: Y, STANDIN_PAIR.minor: np.roll(Y, 1)}
    batch = EmbeddingBatch(vectors=np.concatenate([X, np.roll(X, 1, axis=0)], axis=2) / np.float32(2**0.5), encoder="e")
    labelled = Labelled(keys=(), present=labels, digits=np.ones(len(Y), int), damaged=np.zeros(len(Y), np.bool_))
    bank = fit_probes(batch, labelled, LOOKS)
    assert [probe.card.trained_on for probe in bank.probes] == [LOOKS, LOOKS]
    assert all(probe.card.auc > 0.9 for probe in bank.probes)


def test_a_value_that_is_no_text_is_an_error() -> None:
    with pytest.raises(TypeError, match="views is 5; give a text"):
        TrainedOn(views=5)  # type: ignore[arg-type]
    assert TrainedOn.from_dict(asdict(LOOKS)) == LOOKS
