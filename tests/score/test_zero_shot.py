"""Zero-shot probes: CLIP's own classifier as linear probes."""

import numpy as np
import pytest
import torch

from safetyfilter import PromptPair, zero_shot_probes
from safetyfilter.errors import ProbeError
from safetyfilter.score.zero_shot import DEFAULT_PROMPTS, PromptSet
from safetyfilter.signals import PAIR, SignalPair
from tests.conftest import PHOTOGRAPHS, photograph


def test_it_is_the_softmax_over_the_two_sides(encoder) -> None:
    prompts = {"boat": PromptPair(present=["a boat", "a ship"], absent=["a cup", "a cat", "a tree"])}
    bank = zero_shot_probes(encoder, prompts)
    batch = encoder.embed([photograph(name) for name in PHOTOGRAPHS])
    sides = [
        torch.tensor(encoder.embed_text(side)).mean(0) for side in (prompts["boat"].present, prompts["boat"].absent)
    ]
    means = torch.stack([side / side.norm() for side in sides])
    expected = (encoder.logit_scale * torch.tensor(batch.vectors) @ means.T).softmax(dim=-1)[:, 0]
    np.testing.assert_allclose(bank.score(batch)["boat"], expected, atol=1e-5)
    assert bank.probes[0].encoder == encoder.spec.digest


def test_default_prompts_name_both_signals_apart(encoder) -> None:
    assert set(DEFAULT_PROMPTS) == {"explicit", "minor"}
    assert zero_shot_probes(encoder).signals == ("explicit", "minor")
    minors = ("child", "toddler", "baby", "teenager", "minor", "kid", "school", "playground")
    adult = ("explicit", "nude", "porn", "sex")
    for prompt in (*DEFAULT_PROMPTS["explicit"].present, *DEFAULT_PROMPTS["explicit"].absent):
        assert not [word for word in minors if word in prompt]
    for prompt in (*DEFAULT_PROMPTS["minor"].present, *DEFAULT_PROMPTS["minor"].absent):
        assert not [word for word in adult if word in prompt]
    for prompt in DEFAULT_PROMPTS["explicit"].present:
        assert "adult" in prompt


def test_users_can_replace_prompts(encoder) -> None:
    changed = zero_shot_probes(encoder, DEFAULT_PROMPTS | {"minor": PromptPair(present=["a pupil"], absent=["a rock"])})
    default = zero_shot_probes(encoder)
    assert changed.digests[0] == default.digests[0]
    assert changed.digests[1] != default.digests[1]


def test_the_pair_is_the_prompts(encoder) -> None:
    prompt = PromptPair(present=["a boat"], absent=["a rock"])
    pair = SignalPair(explicit="boat", minor="rock", notice="boats only")
    named = PromptSet({"boat": prompt}, pair)
    assert zero_shot_probes(encoder, named | {"rock": prompt}).pair == pair
    assert zero_shot_probes(encoder, named | {"rock": prompt}).signals == ("boat", "rock")
    assert zero_shot_probes(encoder, dict(named)).pair == PAIR
    assert zero_shot_probes(encoder).pair == DEFAULT_PROMPTS.pair == PAIR
    assert dict(named) == {"boat": prompt}


@pytest.mark.parametrize("side", [[], "a text", [""], [3]])
def test_bad_prompts(side: object) -> None:
    with pytest.raises(ProbeError, match="present prompts"):
        PromptPair(present=side, absent=["a rock"])


class Opposed:
    """An encoder whose text embeddings are what the test says."""

    logit_scale = 1.0

    def __init__(self, spec, rows: list[list[float]]) -> None:
        self.spec, self._rows = spec, rows

    def embed_text(self, texts):
        return np.float32(self._rows)


@pytest.mark.parametrize("rows", [[[1, 0], [-1, 0]], [[0, 0], [0, 0]], [[np.nan, 1], [0, 1]]])
def test_prompts_without_a_direction_are_an_error(encoder, rows: list[list[float]]) -> None:
    prompts = {"boat": PromptPair(present=["a boat", "no boat"], absent=["a cup", "a cat"])}
    with pytest.raises(ProbeError, match="'a boat' has no direction"):
        zero_shot_probes(Opposed(encoder.spec, rows), prompts)
