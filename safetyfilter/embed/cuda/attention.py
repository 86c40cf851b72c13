"""Attention of open_clip's image towers as plain linear layers, which can be compiled and be in float8."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """The output of `torch.nn.MultiheadAttention` for one input, by two linear layers of its own weights.

    torch does the same in one operation at inference, into which neither its compiler nor torchao can see.

    Parameters
    ----------
    attention : MultiheadAttention
        With the batch first, biases, and keys and values as wide as queries; its weights are shared.

    Examples
    --------
    >>> before = nn.MultiheadAttention(32, 2, batch_first=True).eval()
    >>> x = torch.randn(2, 5, 32)
    >>> torch.allclose(SelfAttention(before)(x)[0], before(x, x, x, need_weights=False)[0], atol=1e-6)
    True
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.qkv = _linear(attention.in_proj_weight, attention.in_proj_bias)
        self.out = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        *,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Return (N, L, D) for (N, L, D), of which keys and values are made too, and no weights.

        `attn_mask` is (L, L), added to the logits.
        """
        images, length, _ = query.shape
        q, k, v = self.qkv(query).view(images, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out(mixed.transpose(1, 2).flatten(2)), None


def with_linear_attention(visual: nn.Module) -> nn.Module:
    """Return an image tower whose attention is by `SelfAttention` where it was torch's own and in one block; changed.

    >>> block = ResidualAttentionBlock(32, 2)
    >>> type(with_linear_attention(nn.Sequential(block))[0].attn).__name__
    'SelfAttention'
    """
    for block in visual.modules():
        # others attend to something else than what they are given, and have weights for that
        if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv") and _is_plain(block.attn):
            block.attn = SelfAttention(block.attn)
    return visual


def _is_plain(attention: nn.Module) -> bool:
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
        and attention._qkv_same_embed_dim
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _linear(weight: Any, bias: Any) -> nn.Linear:
    outs, ins = weight.shape
    layer = nn.Linear(ins, outs, device="meta")  # without weights, which come with the next lines
    layer.weight, layer.bias = weight, bias
    return layer
