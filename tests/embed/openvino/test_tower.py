"""Where OpenVINO is the faster, it embeds the pictures of scans and torch a few; or torch all, and says why."""

from __future__ import annotations

import logging
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed import encoder as encoder_module
from safetyfilter.embed.image_tower import TorchTower
from safetyfilter.embed.openvino import modules, tower
from safetyfilter.embed.openvino.model import OpenvinoModel
from safetyfilter.embed.openvino.tower import ConvertedTower, is_faster_by_openvino
from safetyfilter.embed.self_check.checks import batches_for, checked
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from tests.conftest import good_images
from tests.embed.models import tower_of

pytestmark = pytest.mark.skipif(
    not modules.is_installed(), reason="OpenVINO is not installed: pip install 'safetyfilter[openvino]'"
)
IMAGES = list(good_images().values())
SCAN = EmbedOptions(batch_size=8, full_batches=True)


@pytest.fixture
def of_torch(encoder: ClipEncoder) -> TorchTower:
    return tower_of(encoder)


@pytest.fixture(scope="module")
def automatic(tiny_clip: Path) -> ClipEncoder:
    """An encoder of ``auto``, as on a processor with AMX; OpenVINO computes in float32 where it has no bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "resolve_dtype", lambda *_: torch.bfloat16)
        patch.setattr(tower, "cpu_has_amx", lambda: True)
        patch.setattr(tower, "_WORTH_IT", 0)
        return ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu")


def test_a_scan_is_embedded_by_openvino_and_a_few_pictures_by_torch(
    automatic: ClipEncoder, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    run = OpenvinoModel.__call__
    monkeypatch.setattr(OpenvinoModel, "__call__", lambda self, pixels: calls.append(len(pixels)) or run(self, pixels))
    few = automatic.embed(IMAGES)
    assert (automatic.dtype, automatic.scans_otherwise, calls) == (torch.bfloat16, True, [])
    scanned = automatic.embed(IMAGES, SCAN)
    assert sum(calls) >= len(IMAGES)
    for batch in (few, scanned):
        assert not batch.failures
        assert batch.vectors.dtype == np.float32
        assert (batch.vectors * encoder.embed(IMAGES).vectors).sum(axis=1).min() > 0.999
    np.testing.assert_array_equal(automatic.embed(IMAGES[::-1], SCAN).vectors[::-1], scanned.vectors)


def test_it_is_the_same_encoder_and_can_be_sent(automatic: ClipEncoder, encoder: ClipEncoder) -> None:
    assert (automatic.spec, encoder.scans_otherwise) == (encoder.spec, False)
    assert isinstance(automatic.image_tower, torch.nn.Module)
    again = unpacked_encoder(packed_encoder(automatic), "cpu")
    again.text_tower_to_device()
    np.testing.assert_allclose(again.embed_text(["a boat"]), encoder.embed_text(["a boat"]), atol=1e-6)
    np.testing.assert_array_equal(again.embed(IMAGES, SCAN).vectors, automatic.embed(IMAGES, SCAN).vectors)
    assert isinstance(pickle.loads(pickle.dumps(automatic._tower)), ConvertedTower)
    moved = unpacked_encoder(packed_encoder(automatic), "meta")
    assert type(moved._tower) is TorchTower


def test_the_self_check_goes_the_way_of_a_scan(automatic: ClipEncoder, encoder: ClipEncoder) -> None:
    assert [batches_for(each, EmbedOptions())[0].full_batches for each in (automatic, encoder)] == [True, False]
    checked(automatic, EmbedOptions())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda *_: (_ for _ in ()).throw(RuntimeError("an operation\nin many words")), "slower: an operation$"),
        (lambda run, *_: lambda pixels: run(pixels).roll(1, 0), r"of cosine 0\.\d+$"),
        (lambda run, *_: lambda pixels: run(pixels) * torch.nan, "of cosine nan$"),
    ],
    ids=["fails", "mixes rows", "not finite"],
)
def test_what_can_not_be_converted_or_is_wrong_is_told_once_and_not_used(
    of_torch: TorchTower, fault, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tower, "OpenvinoModel", lambda *_, **__: fault(of_torch))
    made = ConvertedTower(of_torch, (32, 32))
    with caplog.at_level(logging.WARNING):
        runs = [made.run_for(8, full=True) for _ in range(2)]
    assert runs == [of_torch, of_torch]
    assert not made.converts
    (record,) = caplog.records
    assert "torch runs the image tower, and not OpenVINO" in record.message
    assert re.search(said, record.message)


def test_an_interruption_is_no_reason_to_go_on(of_torch: TorchTower, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    made = ConvertedTower(of_torch, (32, 32))
    with monkeypatch.context() as patch:
        patch.setattr(tower, "OpenvinoModel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.run_for(8, full=True)
    assert isinstance(made.run_for(8, full=True), OpenvinoModel)


def test_a_forked_process_has_torch_embed(of_torch: TorchTower, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ConvertedTower(of_torch, (32, 32))
    assert isinstance(made.run_for(8, full=True), OpenvinoModel)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert made.run_for(8, full=True) is of_torch


@pytest.mark.parametrize(
    ("flops", "amx", "there", "faster"),
    [
        (8.8e9, True, True, True),
        (8.8e9, False, True, False),
        (8.8e9, True, False, False),
        (5e7, True, True, False),
    ],
)
def test_where_it_is_taken(flops: float, amx: bool, there: bool, faster: bool, monkeypatch) -> None:
    monkeypatch.setattr(tower, "cpu_has_amx", lambda: amx)
    monkeypatch.setattr(tower, "is_installed", lambda: there)
    assert is_faster_by_openvino(flops) is faster


def test_a_precision_that_was_asked_for_is_torchs(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "is_faster_by_openvino", lambda _: True)
    assert type(ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="bf16")._tower) is TorchTower


def test_the_tower_of_torch_stays_as_it_was(of_torch: TorchTower) -> None:
    before = {name: weight.clone() for name, weight in of_torch.state_dict().items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    ConvertedTower(of_torch, (32, 32)).run_for(8, full=True)
    assert of_torch.dtype == torch.float32
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert all(torch.equal(weight, before[name]) for name, weight in of_torch.state_dict().items())
