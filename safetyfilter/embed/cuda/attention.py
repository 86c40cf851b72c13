"""Attention of open_clip's image towers as plain linear layers, which can be compiled and be in float8."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from safetyfilter.embed.class_token import attends_to_itself


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
        """Return (N, M, D) for (N, M, D), and no weights.

        Queries are of the first M of the L tokens in `key`, and keys and values of all; `attn_mask` is (M, L), added to
        the logits.
        """
        tokens = query if key is None else key
        images, length, _ = tokens.shape
        q, k, v = self.qkv(tokens).view(images, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q = q[:, :, : query.shape[1]]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out(mixed.transpose(1, 2).flatten(2)), None


def with_linear_attention(visual: nn.Module) -> nn.Module:
    """Return an image tower whose attention is by `SelfAttention` where it was torch's own and in one block; changed.

    >>> from open_clip.transformer import ResidualAttentionBlock
    >>> block = ResidualAttentionBlock(32, 2)
    >>> type(with_linear_attention(nn.Sequential(block))[0].attn).__name__
    'SelfAttention'
    """
    block: Any
    for block in visual.modules():
        if attends_to_itself(block):
            block.attn = SelfAttention(block.attn)
    return visual


def _linear(weight: Any, bias: Any) -> nn.Linear:
    outs, ins = weight.shape
    layer = nn.Linear(ins, outs, device="meta")  # without weights, which come with the next lines
    layer.weight, layer.bias = weight, bias
    return layer
