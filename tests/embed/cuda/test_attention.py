"""Attention by linear layers is torch's own, and other attention is left alone."""

import copy

import pytest
import torch
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock
from torch import nn

from safetyfilter import ClipEncoder
from safetyfilter.embed.cuda.attention import SelfAttention, with_linear_attention


def test_a_tower_gives_the_same(encoder: ClipEncoder) -> None:
    before = encoder.image_tower
    after = with_linear_attention(copy.deepcopy(before))
    assert sum(isinstance(module, SelfAttention) for module in after.modules()) == 2
    assert not any(isinstance(module, nn.MultiheadAttention) for module in after.modules())
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(after(images), before(images), atol=1e-5, rtol=1e-5)


def test_masks_are_added() -> None:
    attention = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    x, mask = torch.randn(2, 5, 32), torch.full((5, 5), -torch.inf).triu(1)
    expected = attention(x, x, x, need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(SelfAttention(attention)(x, x, x, attn_mask=mask)[0], expected)


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(AttentionalPooler(32, 32, n_head=2, n_queries=3), id="a pooler, whose keys are others"),
        pytest.param(ResidualAttentionBlock(32, 2, is_cross_attention=True), id="a block across two inputs"),
        pytest.param(ResidualAttentionBlock(32, 2, batch_first=False), id="the batch second"),
    ],
)
def test_other_attention_stays(module: nn.Module) -> None:
    assert isinstance(with_linear_attention(nn.Sequential(module))[0].attn, nn.MultiheadAttention)
