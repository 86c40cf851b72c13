"""Banks of probes: one score for each signal, the encoder, statuses, views and the pair."""

from dataclasses import replace

import numpy as np
import pytest

from safetyfilter.batches import OK, STATUS_CODES, STATUS_NAMES, EmbeddingBatch
from safetyfilter.errors import EncoderMismatchError, ProbeError
from safetyfilter.score.bank import ProbeBank, join_captions
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.probe import Probe
from safetyfilter.signals import PAIR, SignalPair

RNG = np.random.default_rng(0)


def probe(signal: str = "explicit", width: int = 8, encoder: str = "e" * 64, **changes: object) -> LinearProbe:
    made = LinearProbe(
        signal=signal,
        weight=RNG.normal(size=width).astype(np.float32),
        bias=0.25,
        encoder=encoder,
        card=ProbeCard(method="zero-shot", created="2026-01-01"),
    )
    return replace(made, **changes)


def vectors(count: int = 5, width: int = 8) -> np.ndarray:
    raw = RNG.normal(size=(count, width)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=-1, keepdims=True)


def batch(values: np.ndarray, **changes: object) -> EmbeddingBatch:
    return EmbeddingBatch(**({"vectors": values, "encoder": "e" * 64} | changes))


def test_one_product_gives_what_each_probe_gives() -> None:
    probes = [probe("explicit"), probe("minor"), probe("violence")]
    x = vectors(100)
    scores = ProbeBank(probes).score(batch(x))
    assert scores.signals == ("explicit", "minor", "violence")
    for one in probes:
        np.testing.assert_array_equal(scores[one.signal], one.score(x))
        expected = 1 / (1 + np.exp(-(x.astype(float) @ one.weight.astype(float) + one.bias)))
        np.testing.assert_allclose(scores[one.signal], expected, rtol=1e-6)
    assert isinstance(probes[0], Probe)


def test_a_score_does_not_depend_on_the_batch() -> None:
    bank, x = ProbeBank([probe("explicit", 512), probe("minor", 512)]), vectors(257, 512)
    whole = bank.score_vectors(x)
    np.testing.assert_array_equal(whole, np.concatenate([bank.score_vectors(x[i : i + 1]) for i in range(len(x))]))


def test_failed_rows_are_nan_and_extreme_ones_are_not() -> None:
    x = vectors(3)
    x[1] = np.nan
    big = ProbeBank([probe(weight=np.full(8, 1e30, np.float32))])
    status = np.uint8([OK, STATUS_CODES["truncated"], STATUS_CODES["no_caption"]])
    scores = big.score(batch(x, status=status))
    assert np.isnan(scores.values[1:]).all()
    assert scores.values[0, 0] in (0, 1)
    np.testing.assert_array_equal(scores.status, status)


def test_a_row_that_is_not_finite_and_has_no_status_gets_one() -> None:
    x = vectors(4)
    x[1], x[2] = np.nan, np.nan
    given = batch(x, status=np.uint8([OK, OK, STATUS_CODES["empty"], OK]))
    scores = ProbeBank([probe(), probe("minor")]).score(given)
    assert [STATUS_NAMES[code] for code in scores.status] == ["ok", "non_finite", "empty", "ok"]
    np.testing.assert_array_equal(np.isnan(scores.values).all(axis=1), scores.status != OK)
    np.testing.assert_array_equal(np.isnan(scores.values).any(axis=1), scores.status != OK)
    assert given.failures == {2: "empty"}


def test_the_maximum_over_views() -> None:
    bank, x = ProbeBank([probe(), probe("minor")]), vectors(12).reshape(4, 3, 8)
    scores = bank.score_vectors(x)
    np.testing.assert_array_equal(scores, np.stack([bank.score_vectors(view) for view in x.swapaxes(0, 1)]).max(axis=0))
    x[2, 1] = np.nan
    assert np.isnan(bank.score_vectors(x)[2]).all()


def test_the_higher_of_two_probes_for_one_signal() -> None:
    first, second, x = probe(), probe(), vectors()
    bank = ProbeBank([first, probe("minor")]) + ProbeBank([second])
    assert bank.signals == ("explicit", "minor")
    np.testing.assert_array_equal(bank.score(batch(x))["explicit"], np.maximum(first.score(x), second.score(x)))


def test_another_encoders_embeddings_are_an_error(encoder) -> None:
    bank = ProbeBank([probe()])
    with pytest.raises(EncoderMismatchError, match=r"eeeeeeeeeeee.*ffffffffffff"):
        bank.score(batch(vectors(), encoder="f" * 64))
    with pytest.raises(EncoderMismatchError, match="make the probe anew"):
        bank.bind(encoder.spec)
    with pytest.raises(EncoderMismatchError, match=r"different encoders: .*scan with each into a run of its own"):
        ProbeBank([probe(), probe("minor", encoder="f" * 64)])
    with pytest.raises(ProbeError, match=r"different widths, .*scan with each into a run of its own"):
        ProbeBank([probe(), probe("minor", width=9)])
    with pytest.raises(EncoderMismatchError, match=r"If both are wanted: .*scan with each into a run of its own"):
        bank.bind(encoder.spec)
    with pytest.raises(ProbeError, match="width 8, got an array"):
        bank.score_vectors(vectors(3, 9))


def test_banks_that_cannot_be() -> None:
    with pytest.raises(ProbeError, match="at least one"):
        ProbeBank([])
    with pytest.raises(ProbeError, match="different widths"):
        ProbeBank([probe(), probe("minor", 9)])


class Constant:
    """A probe of a user's own, which gives one score to every image."""

    inputs = "image"
    encoder = "e" * 64
    digest = "d"

    def __init__(self, signal: str, value: float, width: int = 8) -> None:
        self.signal, self.value, self.width = signal, value, width

    def bind(self, spec: object) -> "Constant":
        return self

    def score(self, vectors: np.ndarray) -> np.ndarray:
        return np.full(len(vectors), self.value, np.float32)

    @classmethod
    def score_all(cls, probes: list["Constant"], vectors: np.ndarray) -> np.ndarray:
        return np.stack([one.score(vectors[:, : one.width]) for one in probes], axis=1)


def test_probes_of_several_kinds_serve_together(tmp_path) -> None:
    linear, x = [probe("minor"), probe("violence")], vectors()
    bank = ProbeBank([Constant("explicit", 0.25), *linear, Constant("minor", 0.0), Constant("violence", 1.0)])
    scores = bank.score(batch(x))
    assert scores.signals == ("explicit", "minor", "violence")
    np.testing.assert_array_equal(scores["explicit"], 0.25)
    np.testing.assert_array_equal(scores["minor"], linear[0].score(x))
    np.testing.assert_array_equal(scores["violence"], 1.0)
    with pytest.raises(ProbeError, match="kinds Constant, LinearProbe"):
        bank.save(tmp_path / "p.safetensors")


def test_no_rows_are_no_scores() -> None:
    bank = ProbeBank([probe(), probe("minor"), probe("minor")])
    assert bank.score(batch(np.zeros((0, 8), np.float32))).values.shape == (0, 2)
    assert bank.score_vectors(np.zeros((0, 3, 8), np.float32)).shape == (0, 2)


SHAPES = SignalPair(explicit="circle", minor="square", notice="shapes only")


def test_a_bank_names_its_pair(encoder) -> None:
    assert ProbeBank([probe()]).pair == PAIR
    bank = ProbeBank([probe("circle", 32, encoder.spec.digest)], SHAPES)
    assert bank.bind(encoder.spec).pair == SHAPES
    more = bank + ProbeBank([probe("square", 32, encoder.spec.digest)], SHAPES)
    assert (more.pair, more.signals) == (SHAPES, ("circle", "square"))
    with pytest.raises(ProbeError, match="circle and square, the other's is explicit and minor"):
        bank + ProbeBank([probe("square", 32, encoder.spec.digest)])


@pytest.mark.parametrize(
    ("notices", "kept"), [(("", "b"), "b"), (("a", ""), "a"), (("a", "a"), "a"), (("a", "b"), "a b"), (("", ""), "")]
)
def test_a_notice_is_kept_whichever_bank_has_it(notices: tuple[str, str], kept: str) -> None:
    first, second = (ProbeBank([probe()], replace(PAIR, notice=notice)) for notice in notices)
    assert (first + second).pair.notice == kept


@pytest.mark.parametrize("pair", [SHAPES, SignalPair(explicit="minor", minor="explicit"), SignalPair(minor="violence")])
def test_the_rule_is_about_the_real_signals_where_both_are_scored(pair: SignalPair) -> None:
    with pytest.raises(ProbeError, match="the rule is about the former"):
        ProbeBank([probe("explicit"), probe("violence"), probe("minor")], pair)
    with pytest.raises(ProbeError, match="the rule is about the former"):
        ProbeBank([probe("explicit")], pair) + ProbeBank([probe("minor")], pair)
    assert ProbeBank([probe("explicit")], pair).pair == pair


@pytest.mark.parametrize("pair", [("explicit", "minor"), "minor", None])
def test_a_pair_is_a_signal_pair(pair: object) -> None:
    with pytest.raises(ProbeError, match="give a SignalPair"):
        ProbeBank([probe()], pair)


def test_joined_captions_keep_statuses_and_mark_the_missing() -> None:
    images, captions = vectors(4), vectors(4)
    captions[1:3] = np.nan
    joined = join_captions(batch(images, status=np.uint8([OK, OK, STATUS_CODES["empty"], OK])), captions)
    assert joined.failures == {1: "no_caption", 2: "empty"}
    assert joined.vectors.shape == (4, 16)


@pytest.mark.parametrize("shape", [(8,), (5, 8)])
def test_the_maximum_over_all_pictures_of_a_sample(shape: tuple[int, ...]) -> None:
    bank = ProbeBank([probe(), probe("minor")])
    first, others = (vectors(count * 5).reshape(count, 5, 8) for count in (3, 4))
    first, others = (x if len(shape) == 2 else x[:, 0] for x in (first, others))
    owners = np.array([2, 0, 2, 2])
    found = bank.score(batch(first, others=others, owners=owners)).values
    for row in range(3):
        pictures = np.concatenate([first[row : row + 1], others[owners == row]])
        np.testing.assert_array_equal(found[row], bank.score(batch(pictures)).values.max(axis=0))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e30, 1e-30])
@pytest.mark.parametrize("where", ["first", "other", "view"])
def test_an_embedding_without_a_direction_is_not_scored(value: float, where: str) -> None:
    x, others = vectors(12).reshape(3, 4, 8), vectors(8).reshape(2, 4, 8)
    {"first": x[1], "other": others[0], "view": x[1, 2:3]}[where][:] = value
    scores = ProbeBank([probe(), probe("minor")]).score(batch(x, others=others, owners=np.array([1, 2])))
    assert scores.failures == {1: "non_finite"}
    assert np.isnan(scores.values[1]).all()
    assert np.isfinite(scores.values[[0, 2]]).all()


@pytest.mark.parametrize("half", [slice(0, 8), slice(8, 16)])
def test_each_half_of_an_image_with_its_caption_has_a_direction(half: slice) -> None:
    bank = ProbeBank([probe(width=16, inputs="image+caption")])
    x = np.concatenate([vectors(2), vectors(2)], axis=1)
    x[1, half] = 0
    assert bank.score(batch(x)).failures == {1: "non_finite"}


def test_the_caption_of_a_sample_is_that_of_all_its_pictures() -> None:
    images, others, captions = vectors(3), vectors(4), vectors(3)
    owners = np.array([2, 0, 2, 1])
    joined = join_captions(batch(images, others=others, owners=owners), captions)
    np.testing.assert_array_equal(joined.others, np.concatenate([others, captions[owners]], axis=1))
    np.testing.assert_array_equal(joined.owners, owners)
    views = join_captions(batch(images[:, None], others=others[:, None], owners=owners), captions)
    np.testing.assert_array_equal(views.others[:, 0], joined.others)
    captions[0] = np.nan
    assert join_captions(batch(images, others=others, owners=owners), captions).failures == {0: "no_caption"}
