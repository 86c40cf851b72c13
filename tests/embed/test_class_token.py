"""A last block for the class token alone gives the same embeddings, and other towers are left alone."""

import copy

import open_clip
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from safetyfilter.embed.class_token import ClassTokenBlock, for_class_token


def vision(**how: object) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2, "mlp_ratio": 4.0}
    tower = VisionTransformer(**{**sizes, **how}).eval().requires_grad_(False)
    for parameter in tower.parameters():  # biases and scales begin as nothing, and would hide that they are left out
        parameter.add_(0.05 * torch.randn(parameter.shape))
    return tower


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "how", [{}, {"ls_init_value": 0.5}, {"no_ln_pre": True}, {"final_ln_after_pool": True}], ids=str
)
def test_embeddings_stay_the_same(how: dict[str, object], dtype: torch.dtype) -> None:
    tower = vision(**how).to(dtype)
    lean = for_class_token(copy.deepcopy(tower))
    assert isinstance(lean.transformer.resblocks[-1], ClassTokenBlock)
    assert not isinstance(lean.transformer.resblocks[0], ClassTokenBlock)
    images = torch.randn(3, 3, 32, 32).to(dtype)
    near = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(lean(images), tower(images), atol=near, rtol=near)


def test_weights_keep_their_names() -> None:
    tower = vision()
    assert for_class_token(copy.deepcopy(tower)).state_dict().keys() == tower.state_dict().keys()


def test_it_is_done_once() -> None:
    tower = for_class_token(vision())
    last = for_class_token(tower).transformer.resblocks[-1]
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(tower(images), vision()(images), atol=1e-5, rtol=1e-5)
    assert isinstance(last, ClassTokenBlock)


@pytest.mark.parametrize(
    "how",
    [
        {"pool_type": "avg"},
        {"pool_type": "none"},
        {"attentional_pool": True},
        {"output_tokens": True},
    ],
    ids=str,
)
def test_towers_that_need_the_other_tokens_stay(how: dict[str, object]) -> None:
    tower = vision(**how)
    assert not isinstance(for_class_token(tower).transformer.resblocks[-1], ClassTokenBlock)


def test_blocks_of_another_order_stay() -> None:
    tower = vision()
    tower.transformer.resblocks[-1].attn = nn.MultiheadAttention(32, 2)
    assert not isinstance(for_class_token(tower).transformer.resblocks[-1], ClassTokenBlock)


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "EVA02-B-16", "convnext_base"])
def test_other_architectures_are_left_alone(name: str) -> None:
    with torch.device("meta"):
        tower = open_clip.create_model(name, pretrained=None, device="meta").visual
    before = [type(module) for module in tower.modules()]
    assert [type(module) for module in for_class_token(tower).modules()] == before
