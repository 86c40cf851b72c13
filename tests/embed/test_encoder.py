"""Encoders: open_clip's own loading, an identity that tells them apart, and embeddings equal to open_clip's."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.devices import cpu_has_bfloat16
from safetyfilter.errors import (
    DeviceError,
    EncoderMismatchError,
    UsageError,
)
from tests.conftest import PHOTOGRAPHS, encoded, photograph


def photographs() -> list[Image.Image]:
    return [photograph(name) for name in PHOTOGRAPHS]


@pytest.mark.parametrize("mode", ["bytes", "path", "pil", "mixed"])
def test_embeddings_are_open_clips_own(encoder: ClipEncoder, tiny_clip: Path, tmp_path: Path, mode: str) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    model.eval()
    inputs = []
    for number, image in enumerate(photographs()):
        path = tmp_path / f"{number}.png"
        image.save(path)
        kind = mode if mode != "mixed" else ("bytes", "path", "pil")[number % 3]
        inputs.append({"bytes": path.read_bytes(), "path": str(path) if number else path, "pil": image}[kind])
    with torch.no_grad():
        expected = model.encode_image(torch.stack([transform(i) for i in photographs()]), normalize=True)
    batch = encoder.embed(inputs, EmbedOptions(decode="exact", batch_size=2))
    assert batch.vectors.dtype == np.float32
    np.testing.assert_allclose(batch.vectors, expected, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-6)
    assert not batch.failures


def test_failures_keep_their_place(encoder: ClipEncoder, tmp_path: Path) -> None:
    good = encoded(photograph("china.jpg"))
    batch = encoder.embed([b"", good, tmp_path / "none.jpg", good[:500], good], EmbedOptions(batch_size=2))
    assert batch.failures == {0: "empty", 2: "missing", 3: "truncated"}
    assert np.isnan(batch.vectors).all(axis=1).tolist() == [True, False, True, True, False]
    np.testing.assert_allclose(batch.vectors[1], batch.vectors[4], atol=2e-6)
    only_bad = encoder.embed([b"", b"x"])
    assert only_bad.failures == {0: "empty", 1: "not_an_image"}
    assert encoder.embed([]).vectors.shape == (0, 32)
    assert pickle.loads(pickle.dumps(batch)).failures == batch.failures


def test_texts(encoder: ClipEncoder, tiny_clip: Path) -> None:
    model = open_clip.create_model(f"local-dir:{tiny_clip}").eval()
    texts = ["a boat", "a cup of coffee", "a cat"]
    with torch.no_grad():
        expected = model.encode_text(open_clip.get_tokenizer(f"local-dir:{tiny_clip}")(texts), normalize=True)
    np.testing.assert_allclose(encoder.embed_text(texts, batch_size=2), expected, atol=2e-6)
    assert encoder.embed_text([]).shape == (0, 32)


def test_the_spec_is_the_same_for_every_precision_and_container(tiny_clip: Path, tmp_path: Path) -> None:
    reference = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="fp32")
    half = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="bf16")
    assert half.spec == reference.spec
    assert half.dtype == torch.bfloat16
    other = tmp_path / "as-pickle"
    shutil.copytree(tiny_clip, other)
    model = open_clip.create_model(f"local-dir:{tiny_clip}")
    torch.save(model.state_dict(), other / "open_clip_pytorch_model.bin")
    (other / "open_clip_model.safetensors").unlink()
    assert ClipEncoder.load(f"local-dir:{other}", device="cpu").spec.digest == reference.spec.digest
    state = model.state_dict()
    state["visual.proj"][0, 0] += 1e-3
    torch.save(state, other / "open_clip_pytorch_model.bin")
    assert ClipEncoder.load(f"local-dir:{other}", device="cpu").spec.digest != reference.spec.digest


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": (16, 16)},
        {"mean": (0.5, 0.5, 0.5)},
        {"interpolation": "bilinear"},
        {"resize_mode": "squash"},
        {"fill_color": 9},
        {"config_sha256": "0"},
        {"width": 3},
    ],
)
def test_every_part_of_the_spec_counts(encoder: ClipEncoder, change: dict[str, object]) -> None:
    assert replace(encoder.spec, **change).digest != encoder.spec.digest
    assert type(encoder.spec).from_dict(encoder.spec.as_dict()) == encoder.spec


def test_half_precision_stays_close(encoder: ClipEncoder, tiny_clip: Path) -> None:
    half = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="bf16")
    cosines = (half.embed(photographs()).vectors * encoder.embed(photographs()).vectors).sum(axis=1)
    assert cosines.min() > 0.995


def test_auto_precision_takes_what_the_processor_has(tiny_clip: Path) -> None:
    expected = torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    assert ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu").dtype == expected


def test_devices_and_precisions(tiny_clip: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision"):
        ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision="int3")
    with pytest.raises(UsageError, match="unknown device"):
        ClipEncoder.load(f"local-dir:{tiny_clip}", device="abacus")
    with pytest.raises(DeviceError, match="torch sees"):
        ClipEncoder.load(f"local-dir:{tiny_clip}", device="cuda:99")


@pytest.mark.parametrize(
    "change", [{"batch_size": 0}, {"batch_size": "many"}, {"views": "edge"}, {"decode": "lossy"}, {"workers": 0}]
)
def test_bad_options(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        EmbedOptions(**change)


def test_an_encoder_goes_to_another_process_by_its_name(encoder: ClipEncoder, tiny_clip: Path, tmp_path: Path) -> None:
    image = photograph("china.jpg")
    again = pickle.loads(pickle.dumps(encoder))
    assert (again.spec, again.device, again.dtype) == (encoder.spec, encoder.device, encoder.dtype)
    np.testing.assert_array_equal(again.embed([image]).vectors, encoder.embed([image]).vectors)
    assert encoder.on("cpu").spec == encoder.spec
    wrapped = ClipEncoder(open_clip.create_model(f"local-dir:{tiny_clip}"), architecture="tiny", device="cpu")
    with pytest.raises(UsageError, match=r"load it with ClipEncoder\.load"):
        pickle.dumps(wrapped)
    with pytest.raises(UsageError, match="without a tokenizer"):
        wrapped.embed_text(["a boat"])
    copy = tmp_path / "copy"
    shutil.copytree(tiny_clip, copy)
    packed = pickle.dumps(ClipEncoder.load(f"local-dir:{copy}", device="cpu"))
    state = open_clip.create_model(f"local-dir:{copy}").state_dict()
    state["visual.proj"][0, 0] += 1
    (copy / "open_clip_model.safetensors").unlink()
    torch.save(state, copy / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderMismatchError, match="have changed"):
        pickle.loads(packed)
