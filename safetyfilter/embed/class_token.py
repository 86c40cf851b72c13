"""The last block of a vision transformer for the one token that becomes the embedding, and no other."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import nn

from safetyfilter.embed.libraries import open_clip


class ClassTokenBlock(open_clip.transformer.ResidualAttentionBlock):  # type: ignore[misc]
    """A block whose output is that of its first token alone: all others give it keys and values, and nothing else.

    Parameters
    ----------
    block : ResidualAttentionBlock
        Its layers are shared, under the same names.

    Examples
    --------
    >>> block, x = open_clip.transformer.ResidualAttentionBlock(32, 2).eval(), torch.randn(2, 5, 32)
    >>> torch.allclose(ClassTokenBlock(block)(x), block(x)[:, :1], atol=1e-5)
    True
    """

    def __init__(self, block: open_clip.transformer.ResidualAttentionBlock) -> None:
        nn.Module.__init__(self)
        for name, layer in block.named_children():
            self.add_module(name, layer)
        self.train(block.training)

    def forward(self, q_x: torch.Tensor, k_x: Any = None, v_x: Any = None, attn_mask: Any = None) -> torch.Tensor:
        """Return (N, 1, D) for (N, L, D); the rest is what a block may be given in other places, and is not here."""
        tokens = self.ln_1(q_x)
        x = q_x[:, :1] + self.ls_1(self.attention(tokens[:, :1], tokens, tokens))
        out: torch.Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return out


def for_class_token(visual: nn.Module) -> nn.Module:
    """Return an image tower that computes what its embedding needs; changed where its last block computes more.

    Of the last block of 12 in ViT-B-32, five sixths of the multiplications are for tokens that are dropped behind it.
    Embeddings stay the same but for rounding.
    """
    if _pools_first_token(visual):
        blocks: Any = visual.transformer.resblocks
        if attends_to_itself(blocks[-1]):
            blocks[-1] = ClassTokenBlock(blocks[-1])
    return visual


def _pools_first_token(visual: nn.Module) -> TypeGuard[open_clip.transformer.VisionTransformer]:
    return (
        type(visual) is open_clip.transformer.VisionTransformer
        and type(visual.transformer) is open_clip.transformer.Transformer
        and visual.pool_type == "tok"
        and visual.attn_pool is None
        and not visual.output_tokens
    )


def attends_to_itself(block: nn.Module) -> bool:
    """Return True for an open_clip block that attends to nothing but what it is given, in the usual way, batch first.

    >>> block = open_clip.transformer.ResidualAttentionBlock
    >>> [attends_to_itself(block(32, 2, batch_first=first)) for first in (True, False)]
    [True, False]
    """
    return (
        isinstance(block, open_clip.transformer.ResidualAttentionBlock)
        and not hasattr(block, "ln_1_kv")
        and _is_plain(block.attn)
    )


def _is_plain(attention: nn.Module) -> bool:
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
        and attention._qkv_same_embed_dim
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )
