"""float8: the same encoder and nearly the same embeddings, where the device has it and torchao is installed."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder
from safetyfilter.embed import devices, image_tower
from safetyfilter.embed.devices import FLOAT8, resolve_dtype
from safetyfilter.embed.image_tower import TorchTower
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from safetyfilter.engine.scan import run_setup
from safetyfilter.errors import DeviceError, MissingExtraError, WeightsError
from safetyfilter.filter import SafetyFilter

needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="torchao is not installed: pip install 'safetyfilter[fp8]'"
)
CUDA = torch.device("cuda", 0)
IMAGES = [Image.fromarray(each) for each in np.random.default_rng(0).integers(0, 256, (5, 36, 40, 3), np.uint8)]


def allow(patch: pytest.MonkeyPatch) -> None:
    """Let a processor round to float8 as a GPU does: torch can, though slowly."""
    for module in (devices, image_tower):
        patch.setattr(module, "require_float8", lambda _: None)
    if find_spec("torchao") is not None:
        patch.setattr(import_module("torchao.quantization.quant_api"), "_check_hardware_support", lambda _: None)


@pytest.fixture
def on_a_processor(monkeypatch) -> None:
    allow(monkeypatch)


@pytest.fixture(scope="module")
def float8(tiny_clip: Path) -> ClipEncoder:
    with pytest.MonkeyPatch.context() as patch:
        allow(patch)
        return ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="fp8")


@needs_torchao
def test_it_is_the_same_encoder_with_nearly_the_same_embeddings(float8, encoder, probes) -> None:
    found, full = float8.embed(IMAGES), encoder.embed(IMAGES)
    assert not found.failures
    assert 0.99 < (found.vectors * full.vectors).sum(axis=1).min() < 0.999999
    assert float8.spec == encoder.spec
    assert "dtype=float8_e4m3fn" in repr(float8)
    assert run_setup(SafetyFilter(float8, probes)).precision == "float8_e4m3fn"


@needs_torchao
def test_every_layer_of_a_block_is_in_float8(float8) -> None:
    names = {
        name
        for name, module in float8.image_tower.named_modules()
        if isinstance(module, torch.nn.Linear) and type(module.weight) is not torch.nn.Parameter
    }
    of_a_block = ("attn.qkv", "attn.out", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"transformer.resblocks.{block}.{name}" for block in (0, 1) for name in of_a_block}
    assert float8.image_tower.conv1.weight.dtype == torch.bfloat16


@needs_torchao
def test_it_goes_to_other_processes_as_it_is(float8, on_a_processor) -> None:
    again = unpacked_encoder(packed_encoder(float8), "cpu")
    assert again.dtype == FLOAT8
    np.testing.assert_array_equal(again.embed(IMAGES).vectors, float8.embed(IMAGES).vectors)


@needs_torchao
def test_a_device_without_it_is_told_where_the_tower_arrives(float8) -> None:
    packed = packed_encoder(float8)
    with pytest.raises(DeviceError, match=r"fp8 is for GPUs .* and cpu is not one"):
        unpacked_encoder(packed, "cpu")


@needs_torchao
def test_a_missing_extra_is_told_where_the_tower_arrives(float8, monkeypatch) -> None:
    packed = packed_encoder(float8)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match="torchao is not installed"):
        unpacked_encoder(packed, "cpu")


@needs_torchao
def test_a_tower_without_such_layers_is_refused(on_a_processor) -> None:
    visual = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 10))
    with pytest.raises(WeightsError, match="no layer of this image tower can be in float8"):
        TorchTower(visual, (0.5,) * 3, (0.5,) * 3, dtype=FLOAT8, device=torch.device("cpu"))


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0)])
def test_it_is_for_hopper_and_later(capability: tuple[int, int], monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    if capability >= (9, 0):
        assert resolve_dtype("fp8", CUDA) == FLOAT8
    else:
        with pytest.raises(DeviceError, match=rf"cuda:0 has {capability[0]}\.{capability[1]}: give .*bf16"):
            resolve_dtype("fp8", CUDA)


def test_a_processor_is_told_before_weights_are_loaded() -> None:
    with pytest.raises(DeviceError, match="and cpu is not one: give another precision"):
        ClipEncoder.load("local-dir:/nowhere", device="cpu", precision="fp8")


def test_a_missing_extra_is_told_before_weights_are_loaded(on_a_processor, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingExtraError, match=r"torchao is not installed: .*fp8"):
        ClipEncoder.load("local-dir:/nowhere", device="cpu", precision="fp8")
