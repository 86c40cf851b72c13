"""An encoder that was sent embeds as it did, in its precision, whatever has become of the files it came from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed import threads
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from safetyfilter.errors import DeviceError
from tests.conftest import good_images

OPTIONS = EmbedOptions(views="whole", batch_size=4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("texts", [False, True], ids=["images", "captions too"])
def test_a_sent_encoder_embeds_the_same_without_its_files(
    tiny_clip: Path, tmp_path: Path, precision: str, texts: bool
) -> None:
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    encoder = ClipEncoder.load(f"local-dir:{folder}", device="cpu", precision=precision)
    if texts:
        encoder.text_tower_to_device()
    images = list(good_images().values())
    expected, words = encoder.embed(images, OPTIONS).vectors, encoder.embed_text(["a boat"])
    packed = packed_encoder(encoder)
    shutil.rmtree(folder)
    again = unpacked_encoder(packed, "cpu")
    assert (again.spec, again.dtype, again.device) == (encoder.spec, encoder.dtype, encoder.device)
    np.testing.assert_array_equal(again.embed(images, OPTIONS).vectors, expected)
    again.text_tower_to_device()
    np.testing.assert_array_equal(again.embed_text(["a boat"]), words)


def test_an_encoder_of_this_process_alone_can_be_sent(encoder: ClipEncoder) -> None:
    alone = ClipEncoder(unpacked_encoder(packed_encoder(encoder), "cpu")._model, architecture="tiny", device="cpu")
    assert unpacked_encoder(packed_encoder(alone), "cpu").spec == alone.spec


def test_a_device_that_is_missing_is_told(encoder: ClipEncoder) -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        unpacked_encoder(packed_encoder(encoder), "cuda:99")


def test_a_process_keeps_to_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_share", None)
    try:
        whole = threads.cores()
        threads.set_cores(1)
        assert (threads.cores(), torch.get_num_threads()) == (1, 1)
        threads.set_cores(whole + 100)  # no more than there are
        assert threads.cores() == whole
    finally:
        torch.set_num_threads(before)
