"""Properties of models: the work of an image as a formula has it, and the digest of weights as it always was."""

from __future__ import annotations

import hashlib

import open_clip
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from safetyfilter import EmbedOptions
from safetyfilter.embed.clip import model
from safetyfilter.embed.clip.fitting import check_finite
from safetyfilter.embed.clip.model import weights_digest, width_and_flops
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.embed.clip.towers import build_model
from safetyfilter.errors import WeightsError
from tests.embed.models import tiny_model


def transformer_flops(config: dict) -> int:
    """Two operations for each multiplication and addition of a vision transformer: all matrix products there are."""
    vision = config["vision_cfg"]
    width, patch = vision["width"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    layer = tokens * width * width * (3 + 1 + 4 + 4)  # queries, keys and values; their output; both of the MLP
    attention = 2 * tokens * tokens * width
    return 2 * (
        patches * 3 * patch * patch * width + vision["layers"] * (layer + attention) + width * config["embed_dim"]
    )


@pytest.mark.parametrize(("name", "batch"), [("ViT-B-32", 32), ("ViT-L-14", 8)])
def test_the_work_of_an_image_is_all_its_matrix_products(name: str, batch: int) -> None:
    config = open_clip.get_model_config(name)
    width, flops = width_and_flops(build_model(config, Preprocessing()))
    assert width == config["embed_dim"]
    assert flops == pytest.approx(transformer_flops(config), rel=1e-6)
    assert EmbedOptions().resolve_batch_size(torch.device("cpu"), flops) == batch


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_weights_count_as_others(frozen: bool) -> None:
    model = tiny_model().requires_grad_(not frozen)
    config = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}}
    assert width_and_flops(model) == (32, transformer_flops(config))
    assert all(parameter.grad is None for parameter in model.parameters())


class Looking(torch.nn.Module):
    """A tower whose way depends on its numbers, so that shapes alone do not tell its work."""

    image_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(48, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if float(self.linear.weight.sum()) > -1e9:
            return self.linear(pixels.flatten(1))
        raise AssertionError


def test_a_tower_that_looks_at_numbers_is_counted_with_numbers() -> None:
    model = torch.nn.Module()
    model.visual = Looking()
    assert width_and_flops(model) == (5, 2 * 48 * 5)


def weights() -> torch.nn.Module:
    """Weights of each kind that checkpoints have."""
    module = torch.nn.Module()
    values = torch.arange(-6, 6, dtype=torch.float32).reshape(3, 4) / 7
    for name, value in {
        "turned": values.T,
        "weight_half": values.half(),
        "weight_brain": values.bfloat16(),
        "weight_double": values.double(),
        "scale": torch.tensor(2.5),
        "count": torch.tensor(3),
        "none": torch.empty(0, 4),
        "position_ids": torch.arange(9),
        "mask": torch.tensor([True, False]),
    }.items():
        module.register_buffer(name, value)
    return module


def test_the_digest_of_weights_is_what_it_was() -> None:
    assert weights_digest(weights()) == "e92fde122530271396c51187c1085b3a6cb5d62f1de63f286326049e0b946e6f"
    digest = hashlib.sha256()
    for name, value in sorted(weights().state_dict().items()):
        if name != "position_ids":
            array = (value.float() if value.is_floating_point() else value).contiguous().numpy()
            digest.update(f"{name}\0{tuple(array.shape)}\0".encode() + array.tobytes())
    assert weights_digest(weights()) == digest.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_large_weights_are_finite_though_their_sum_is_not(dtype: torch.dtype) -> None:
    module = torch.nn.Module()
    module.register_buffer("large", torch.full((4,), torch.finfo(dtype).max, dtype=dtype))
    check_finite(module)
    module.large[1], module.large[2] = float("inf"), float("-inf")
    with pytest.raises(WeightsError, match="large"):
        check_finite(module)


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "convnext_base", "coca_ViT-B-32", "MobileCLIP-S1"])
def test_what_is_left_out_counts_as_much_as_what_is_done(name: str) -> None:
    torch.manual_seed(0)
    tower = open_clip.create_model(name, pretrained=None).visual.eval()
    size = tower.image_size
    images = torch.rand(1, 3, *(size if isinstance(size, tuple) else (size, size)))
    done, flops = model._counted(tower, images, model._Operations())
    left_out, counted = model._counted(tower, images, model._Unmultiplied())
    assert counted == flops == torchs_flops(tower, images) > 1e9
    assert [part.shape for part in _parts(left_out)] == [part.shape for part in _parts(done)]


@pytest.mark.parametrize("layer", [
    torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), torch.nn.Conv2d(4, 6, 2, bias=False),
    torch.nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), torch.nn.Linear(8, 3), torch.nn.Linear(8, 3, bias=False),
])  # fmt: skip
def test_the_operations_of_a_layer_are_those_that_torch_counts(layer: torch.nn.Module) -> None:
    images = torch.rand(1, 4, 9, 8)
    done, flops = model._counted(layer, images, model._Operations())
    left_out, counted = model._counted(layer, images, model._Unmultiplied())
    assert counted == flops == torchs_flops(layer, images) > 0
    assert left_out.shape == done.shape


def torchs_flops(tower: torch.nn.Module, images: torch.Tensor) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tower(images.clone().requires_grad_())
    return counter.get_total_flops()


def _parts(features: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return features if isinstance(features, tuple) else (features,)
