"""The weights as committed: small, loadable by open_clip alone, and as good as the design asks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from safetyfilter.standin import train
from safetyfilter.standin.evaluate_standin import WEIGHTS, embed, load, zero_shot_directions
from safetyfilter.standin.render import Scene, scenes


def test_weights_are_at_most_8_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 8_000_000


def test_open_clip_loads_both_towers() -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{WEIGHTS}")
    model.eval()
    scene = next(scenes(1, split="test", seed=0, pairs=True))
    with torch.inference_mode():
        image = model.encode_image(transform(scene.image)[None], normalize=True)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{WEIGHTS}")
        text = model.encode_text(tokenizer(["a three", "a seven"]), normalize=True)
    assert image.shape[1] == text.shape[1] == 128
    assert torch.isfinite(image).all()
    assert float(text[0] @ text[1]) < 0.9


def test_stored_weights_are_what_is_loaded() -> None:
    stored = load_file(WEIGHTS / "open_clip_model.safetensors")
    loaded = load(WEIGHTS).state_dict()
    assert set(stored) == set(loaded)
    assert all(torch.equal(stored[name].float(), loaded[name].float()) for name in stored)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """Probes for a three and for a seven, fitted in float32, and held-out pictures with what they show."""

    probes: list[LogisticRegression]
    pictures: list[Scene]
    vectors: np.ndarray
    held: np.ndarray


@pytest.fixture(scope="module")
def taught() -> Taught:
    model = load(WEIGHTS)
    seen, shown = embed(model, scenes(1000, split="train", seed=1, pairs=False))
    probes = []
    for column in range(2):
        apart = ~shown[:, 1 - column] | shown[:, 2]  # as `evaluate` says
        probes.append(LogisticRegression(C=10.0, max_iter=2000).fit(seen[apart], shown[apart, column]))
    pictures = list(scenes(500, split="test", seed=1, pairs=True))
    test, held = embed(model, pictures)
    return Taught(probes=probes, pictures=pictures, vectors=test, held=held)


def assert_told_apart(model: open_clip.CLIP, vectors: np.ndarray, taught: Taught) -> None:
    zero_shot = vectors @ zero_shot_directions(model, WEIGHTS).T
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for column, probe in enumerate(taught.probes):
        held = taught.held[: len(vectors), column]
        assert roc_auc_score(held, probe.decision_function(vectors)) >= 0.98
        assert roc_auc_score(held, zero_shot[:, column]) >= 0.90


def test_held_out_pictures_are_told_apart(taught: Taught) -> None:
    """A small sample of what ``weights/training.json`` records in full."""
    assert_told_apart(load(WEIGHTS), taught.vectors, taught)


def test_probes_fitted_in_float32_tell_them_apart_in_bfloat16(taught: Taught) -> None:
    """As probe files are used, one for every precision; on few pictures, since many processors are slow at it."""
    model = load(WEIGHTS, "pure_bf16")
    vectors, _ = embed(model, taught.pictures[:200])
    assert (vectors * taught.vectors[:200]).sum(axis=1).min() > 0.995
    assert_told_apart(model, vectors, taught)


def test_recorded_figures_meet_the_bars() -> None:
    record = json.loads((WEIGHTS / "training.json").read_text())
    for figures in record["test"]:
        if figures["resize"] == "squash":
            probes = figures["probes"]["apart"]
            assert min(value[0] for value in probes["auc"].values()) >= 0.98
            assert min(value[0] for value in figures["zero_shot_auc"].values()) >= 0.90
            assert probes["rule_recall"][0] >= 0.97
            assert probes["rule_wrongly_excluded"][0] <= 0.10


def test_quick_training_writes_a_loadable_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--quick", "--steps", "3", "--out", str(tmp_path / "weights")])
    train.main()
    log = json.loads((tmp_path / "weights" / "training.json").read_text())["log"]
    assert log[-1]["step"] == 3
    torch.manual_seed(train.SEED)
    start, learnt = open_clip.CLIP(**train.MODEL).state_dict(), load(tmp_path / "weights").state_dict()
    name = "visual.trunk.conv1.0.weight"
    assert start[name].shape == learnt[name].shape
    assert not torch.allclose(start[name], learnt[name].float(), atol=1e-3)
