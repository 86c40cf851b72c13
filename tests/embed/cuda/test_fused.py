"""Layers for the compiler compute what the layers do that they stand for."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from safetyfilter import ClipEncoder
from safetyfilter.embed.cuda.fused import Gelu, PatchEmbedding, gelu, with_fused_layers


def test_gelu_is_as_exact_as_torchs_own() -> None:
    x = torch.linspace(-12, 12, 400_001)
    assert (gelu(x).double() - F.gelu(x.double())).abs().max() < 2e-6
    for dtype in (torch.bfloat16, torch.float16):
        rounded = x.to(dtype)
        exact = F.gelu(rounded.double())
        off, theirs = ((found.double() - exact).abs().max() for found in (gelu(rounded), F.gelu(rounded)))
        assert gelu(rounded).dtype == dtype
        assert off <= 1.01 * theirs


def test_gelu_of_what_is_no_number_or_too_large() -> None:
    assert gelu(torch.tensor([torch.inf, 1e30])).tolist() == [torch.inf, pytest.approx(1e30)]
    assert gelu(torch.tensor([-1e30, -20.0])).abs().max() < 1e-6
    assert gelu(torch.tensor([torch.nan])).isnan().all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("patch", "size"), [(8, (32, 32)), (14, (28, 42)), (14, (30, 43)), ((4, 7), (9, 21))])
def test_patches_are_those_of_the_convolution(patch, size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, patch, stride=patch, bias=bias)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(PatchEmbedding(convolution)(x), convolution(x), atol=1e-5, rtol=1e-5)
    other_order = convolution.to(memory_format=torch.channels_last)
    torch.testing.assert_close(PatchEmbedding(other_order)(x), convolution(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(3, 8, 4, stride=2),
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 8, 4, stride=4, padding=1),
        nn.Conv2d(4, 8, 4, stride=4, groups=2),
        nn.Conv2d(3, 8, 2, stride=2, dilation=2),
        nn.GELU(approximate="tanh"),
        nn.ReLU(),
    ],
    ids=str,
)
def test_other_layers_stay(layer: nn.Module) -> None:
    assert with_fused_layers(nn.Sequential(layer))[0] is layer


def test_a_tower_gives_the_same(encoder: ClipEncoder) -> None:
    before = encoder.image_tower
    after = with_fused_layers(copy.deepcopy(before))
    kinds = [type(module) for module in after.modules()]
    assert (kinds.count(Gelu), kinds.count(PatchEmbedding), kinds.count(nn.Conv2d)) == (2, 1, 0)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(after(images), before(images), atol=1e-5, rtol=1e-5)


def test_where_it_is_compiled_the_activation_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-3, 3, 7)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(F, "gelu", None)
    torch.testing.assert_close(Gelu()(x), gelu(x))
