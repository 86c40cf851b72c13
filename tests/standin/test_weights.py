"""The weights as committed: small, loadable by open_clip alone, and as good as the design asks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from safetyfilter.standin.evaluate_standin import WEIGHTS, embed, load, zero_shot_directions
from safetyfilter.standin.render import scenes
from safetyfilter.standin.train import main


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


@pytest.mark.parametrize("precision", ["fp32", "pure_bf16"])
def test_held_out_pictures_are_told_apart(precision: str) -> None:
    """A small sample of what ``weights/training.json`` records in full."""
    model = load(WEIGHTS, precision)
    train, taught = embed(model, scenes(1000, split="train", seed=1, pairs=False))
    test, held = embed(model, scenes(500, split="test", seed=1, pairs=True))
    zero_shot = test @ zero_shot_directions(model, WEIGHTS).T
    assert np.allclose(np.linalg.norm(test, axis=1), 1, atol=1e-5)
    for column in range(2):
        apart = ~taught[:, 1 - column] | taught[:, 2]  # as `evaluate` says
        probe = LogisticRegression(C=10.0, max_iter=2000).fit(train[apart], taught[apart, column])
        assert roc_auc_score(held[:, column], probe.decision_function(test)) >= 0.98
        assert roc_auc_score(held[:, column], zero_shot[:, column]) >= 0.90


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
    main()
    log = json.loads((tmp_path / "weights" / "training.json").read_text())["log"]
    assert log[-1]["step"] == 3
    start = load(tmp_path / "weights").state_dict()["visual.trunk.conv1.0.weight"]
    monkeypatch.setattr("sys.argv", ["train", "--quick", "--steps", "6", "--out", str(tmp_path / "more")])
    main()
    assert not torch.equal(start, load(tmp_path / "more").state_dict()["visual.trunk.conv1.0.weight"])
