"""Models that are built without values: what is computed stays, other threads are left alone, and all can be built."""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from safetyfilter import ClipEncoder
from safetyfilter.embed.clip.loading import load_model
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.embed.clip.towers import build_model
from safetyfilter.embed.clip.unfilled import unfilled
from tests.embed.models import TINY, tiny_model, write_config


def test_parameters_take_no_memory_and_masks_are_there() -> None:
    model = build_model(TINY, Preprocessing())
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model.attn_mask, tiny_model().attn_mask)
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in tiny_model().state_dict().items()
    }


def test_other_threads_make_models_as_ever() -> None:
    made: list[torch.nn.Module] = []

    def build() -> torch.nn.Module:
        other = threading.Thread(target=lambda: made.append(torch.nn.BatchNorm1d(2)))
        other.start()
        other.join()
        return torch.nn.BatchNorm1d(2).to("meta")

    model = unfilled(build)
    assert model.weight.is_meta
    assert [made[0].weight.device.type, made[0].running_mean.device.type] == ["cpu", "cpu"]


def test_nothing_is_left_behind_where_it_fails() -> None:
    def build() -> torch.nn.Module:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        unfilled(build)
    assert torch.nn.Linear(1, 1).weight.device.type == "cpu"


def test_a_model_that_cannot_be_built_without_values_is_built_with_them(tmp_path: Path, monkeypatch) -> None:
    folder = write_config(tmp_path)
    save_file({n: v.contiguous() for n, v in tiny_model().state_dict().items()}, folder / "open_clip_model.safetensors")
    expected = ClipEncoder.load(f"local-dir:{folder}", device="cpu", precision="fp32")
    create, devices = open_clip.create_model, []

    def looking(*args: Any, device: str, **options: Any) -> torch.nn.Module:
        devices.append(device)
        model = create(*args, device=device, **options)
        float(next(model.parameters()).sum())  # as some layers do with what they were begun with
        return model

    monkeypatch.setattr(open_clip, "create_model", looking)
    encoder = ClipEncoder.load(f"local-dir:{folder}", device="cpu", precision="fp32")
    assert devices == ["meta", "cpu"]
    assert encoder.spec == expected.spec
    assert (encoder.embed_text(["a boat"]) == expected.embed_text(["a boat"])).all()


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weights_do_not_change_with_the_file(tmp_path: Path, ending: str) -> None:
    folder, state = write_config(tmp_path), {n: v.contiguous() for n, v in tiny_model().state_dict().items()}
    file = folder / f"open_clip_model.{ending}"
    (save_file if ending == "safetensors" else torch.save)(state, file)
    encoder = ClipEncoder.load(f"local-dir:{folder}", device="cpu", precision="fp32")
    before = encoder.embed_text(["a boat"])
    with file.open("r+b") as content:
        content.truncate(0)  # which ends a process that has the file mapped
    assert (encoder.embed_text(["a boat"]) == before).all()


MIDDLE = TINY | {"vision_cfg": {"image_size": 224, "layers": 6, "width": 768, "patch_size": 32}}


def most_memory() -> int:
    """The most bytes that this process had in memory since the last time that it was set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_loading_takes_little_more_memory_than_the_weights(tmp_path: Path, tiny_clip: Path, ending: str) -> None:
    folder = write_config(tmp_path, MIDDLE)
    state = {n: torch.zeros(v.shape) for n, v in build_model(MIDDLE, Preprocessing()).state_dict().items()}
    (save_file if ending == "safetensors" else torch.save)(state, folder / f"w.{ending}")
    del state
    load_model(f"local-dir:{tiny_clip}")  # what is used for the first time takes memory too
    gc.collect()
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the memory that earlier tests have left free can't be given back here")
    ctypes.CDLL(None).malloc_trim(0)  # else it is used again, and none of it is counted
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not set the most memory of a process back")
    before = most_memory()
    loaded = load_model(f"local-dir:{folder}")
    size = sum(value.nbytes for value in loaded.model.state_dict().values())
    assert 0.3 < (most_memory() - before) / size < 1.3
