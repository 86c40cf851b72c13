"""LAION's detector for ViT-H-14, from a file of the published one's layout with random numbers in it."""

import dataclasses
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import EncoderMismatchError, ProbeError, WeightsError
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.convert import detector as conversion
from safetyfilter.score.convert import fetch
from safetyfilter.score.convert.detector import convert_detector
from safetyfilter.score.convert.fetch import fetch_probes
from safetyfilter.score.convert.published import LICENCE, PUBLISHED, PublishedDetector, git_blob
from safetyfilter.score.convert.torch_file import MAX_TORCH, SHAPES, read_torch_detector
from safetyfilter.score.laion import LaionDetector

Tensors = dict[str, torch.Tensor]
SPEC = NamedEncoder.named("ViT-H-14", "laion2b_s32b_b79k").spec


def original() -> nn.Sequential:
    """The published layers, as LAION's model has them."""
    hidden = [(1024, 1024), (1024, 2048), (2048, 1024), (1024, 256), (256, 128)]
    layers = [layer for a, b in hidden for layer in (nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.2))]
    return nn.Sequential(*layers, nn.Linear(128, 16), nn.Linear(16, 1)).eval()


def saved(content: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) * (2 / shape[-1]) ** 0.5 for name, shape in SHAPES.items()}
    return made | {"layers.16.bias": torch.tensor([0.5])}


@pytest.fixture(scope="module")
def content(tensors: Tensors) -> bytes:
    return saved(OrderedDict(tensors))


@pytest.fixture(scope="module")
def read(content: bytes) -> LaionDetector:
    return read_torch_detector(content)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def published(content: bytes, monkeypatch: pytest.MonkeyPatch, cache: Path) -> PublishedDetector:
    """The file made here, which counts as the published one for the test."""
    one = PublishedDetector(file="h14_nsfw.pth", git_blob=git_blob(content))
    for module in (conversion, fetch):
        monkeypatch.setattr(module, "PUBLISHED", {**PUBLISHED, "laion-h14": one})
    return one


def test_the_layout_is_that_of_the_published_model(tensors: Tensors) -> None:
    names = {f"layers.{name}": tuple(tensor.shape) for name, tensor in original().state_dict().items()}
    assert names == dict(SHAPES)
    assert sum(tensor.numel() for tensor in tensors.values()) == 5_544_353


def test_its_scores_are_the_models_output_within_0_and_1(
    read: LaionDetector, tensors: Tensors, vectors: np.ndarray
) -> None:
    model = original()
    model.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in tensors.items()})
    scaled = vectors * 20  # far enough apart that some outputs lie below 0 and some above 1
    with torch.no_grad():
        output = model.double()(torch.from_numpy(scaled).double()).numpy()[:, 0]
    assert (output < 0).any()
    assert (output > 1).any()
    assert ((output > 0.01) & (output < 0.99)).any()
    np.testing.assert_allclose(read.score(scaled), output.clip(0, 1), rtol=0, atol=1e-5)


def test_a_vector_that_is_not_finite_has_no_score(read: LaionDetector, vectors: np.ndarray) -> None:
    x = vectors[:3].copy()
    x[1, 7], x[2, 0] = np.nan, np.inf
    assert np.isfinite(read.score(x)).tolist() == [True, False, False]


def test_it_goes_with_its_encoder_alone(read: LaionDetector, vectors: np.ndarray) -> None:
    bank = ProbeBank([read]).bind(SPEC)
    scores = bank.score(EmbeddingBatch(vectors=vectors, encoder=SPEC.digest))
    np.testing.assert_array_equal(scores["explicit"], read.score(vectors))
    for other in (dataclasses.replace(SPEC, tag="another"), dataclasses.replace(SPEC, config_sha256="0" * 64)):
        with pytest.raises(EncoderMismatchError, match="ViT-H-14 with the weights laion2b_s32b_b79k"):
            read.bind(other)


def test_converted_kept_and_known_by_its_name(
    published: PublishedDetector, content: bytes, tmp_path: Path, vectors: np.ndarray
) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "h14_nsfw.pth").write_bytes(content)
    path = convert_detector(tmp_path / "repository" / "h14_nsfw.pth")
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    assert (header["licence"], header["output"]) == (LICENCE, "clipped")
    assert json.loads(header["provenance"])["git_blob"] == published.git_blob
    (probe,) = ProbeBank.load("laion-h14").probes
    original = read_torch_detector(content)
    assert probe.digest == original.digest
    np.testing.assert_array_equal(probe.score(vectors), original.score(vectors))
    assert fetch_probes("laion-h14", repository="no-url") == path  # nothing is downloaded twice
    path.unlink()
    assert fetch_probes("laion-h14", repository=(tmp_path / "repository").as_uri()) == path


def test_another_file_is_refused_by_gits_id(content: bytes, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "h14_nsfw.pth").write_bytes(content)
    with pytest.raises(
        ProbeError, match=f"Git's id {git_blob(content)}, .*laion-h14 has Git's id 5c5d8ecea5da82f9e6f1"
    ):
        convert_detector(tmp_path / "h14_nsfw.pth")
    with pytest.raises(WeightsError, match=f"has Git's id {git_blob(content)}, and the published file has Git's id 5c"):
        fetch_probes("laion-h14", repository=tmp_path.as_uri())
    assert not cache.exists()


def test_gits_id_is_that_which_git_gives() -> None:
    assert git_blob(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # of Git's own book


class Ran:
    """A thing that leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (Path("ran"),))


BAD: dict[str, Callable[[Tensors], object]] = {
    "a name more": lambda t: t | {"layers.17.bias": torch.zeros(1)},
    "a name less": lambda t: {name: tensor for name, tensor in t.items() if name != "layers.16.bias"},
    "other names": lambda t: {name.removeprefix("layers."): tensor for name, tensor in t.items()},
    "a list": lambda t: list(t.values()),
    "a number": lambda t: 7,
    "another shape": lambda t: t | {"layers.0.weight": t["layers.0.weight"][:, :768].clone()},
    "whole numbers": lambda t: t | {"layers.16.bias": torch.zeros(1, dtype=torch.int64)},
    "no tensor": lambda t: t | {"layers.16.bias": [0.5]},
    "sparse": lambda t: t | {"layers.0.weight": torch.eye(1024).to_sparse()},
    "NaN": lambda t: t | {"layers.16.bias": torch.tensor([float("nan")])},
    "too large": lambda t: t | {n: torch.full(SHAPES[n], 3e38) for n in ("layers.15.weight", "layers.16.weight")},
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_of_another_layout_is_refused(what: str, tensors: Tensors) -> None:
    with pytest.raises(ProbeError, match=r"damaged or not LAION's: .*probes fetch laion-h14"):
        read_torch_detector(saved(BAD[what](tensors)))


def test_nothing_in_the_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensors: Tensors) -> None:
    monkeypatch.chdir(tmp_path)
    for hostile in (saved({**tensors, "layers.0.weight": Ran()}), pickle.dumps(Ran()), saved(original())):
        with pytest.raises(ProbeError, match=r"PyTorch can't read it as tensors by name"):
            read_torch_detector(hostile)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(pickle.dumps(Ran()))  # as it would be run
    assert [path.name for path in tmp_path.iterdir()] == ["ran"]


@pytest.mark.parametrize("cut", [0, 1, 100, 10_000, 20_000_000])
def test_a_cut_file_is_refused(content: bytes, cut: int) -> None:
    with pytest.raises(ProbeError, match="PyTorch can't read it"):
        read_torch_detector(content[:cut])


def test_a_file_that_is_too_large_is_not_read() -> None:
    with pytest.raises(ProbeError, match="22 million"):
        read_torch_detector(bytes(MAX_TORCH + 1))


SMALL = [
    saved({"layers.0.weight": torch.ones(2, 2), "layers.0.bias": torch.ones(2)}),
    saved(OrderedDict({"layers.0.weight": torch.ones(2, 2)}), _use_new_zipfile_serialization=False),
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SMALL), st.integers(0, 10**6), st.binary(min_size=1, max_size=8), st.integers(0, 40))
def test_no_damage_raises_anything_else(whole: bytes, at: int, new: bytes, gone: int) -> None:
    at %= len(whole)
    with pytest.raises(ProbeError, match="damaged or not LAION's"):  # which the whole one is refused by too
        read_torch_detector(whole[:at] + new + whole[at + gone :])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_numbers_of_another_precision_are_read(dtype: torch.dtype, tensors: Tensors, read: LaionDetector) -> None:
    other = read_torch_detector(saved({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    assert np.abs(other.layers[0][0] - read.layers[0][0]).max() < 0.01
