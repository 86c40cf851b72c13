"""A recipe is small to send, and says what is wrong with it before anything is loaded."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from safetyfilter.errors import ProbeError, UsageError
from safetyfilter.integrations.recipe import FilterRecipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probes": "probes.safetensors"}, "probes is the text 'probes.safetensors'; give a tuple"),
        ({"hash_lists": "known.txt"}, "hash_lists is the text 'known.txt'; give a tuple"),
        ({"probes": ()}, "probes is empty, so that nothing would be scored"),
    ],
)
def test_what_can_t_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FilterRecipe(**values)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"policy": "no-such-policy"}, UsageError, "no-such-policy"),
        ({"views": "some"}, UsageError, "views is 'some'"),
        ({"views": "adaptive", "gate": "explicit"}, UsageError, "the gate is 'explicit'"),
        ({"probes": ("no-such-file.safetensors",)}, ProbeError, "no-such-file"),
    ],
)
def test_pieces_that_are_wrong_are_named(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FilterRecipe(**values).load()


def test_it_is_small_to_send(tmp_path: Path) -> None:
    recipe = FilterRecipe(probes=(str(tmp_path / "probes.safetensors"),), policy="strict")
    sent = pickle.dumps(recipe.load)
    assert len(sent) < 1000
    assert pickle.loads(sent).__self__ == recipe
