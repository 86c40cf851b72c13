"""Layers of image towers, written for torch's compiler: it makes one kernel of them and of what stands beside them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_ALIGNED = 8
"""Rows of so many half-precision numbers are 16 bytes, which matrix units read at once."""
_SQUARE = 30.0
_LOG2_ODDS = (1.63553458e-07, -8.08213305e-06, 1.36463841e-04, 1.66589970e-04, -0.104928529, -2.30217401)
"""By what the logarithm to base 2 of the odds against the normal distribution is ``x`` times, in powers of ``x * x``
up to `_SQUARE`, the highest first: fitted for the least error of `gelu`, which is 6e-7 besides rounding."""


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` times the normal distribution function, within 2e-6 of `torch.nn.functional.gelu`, in x's dtype.

    torch's own, by the error function, takes so many instructions that a kernel of it is slower than memory is.

    Examples
    --------
    >>> gelu(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.1587,  0.0000,  1.9545])
    """
    value = x.float()
    square = (value * value).clamp(max=_SQUARE)
    odds = torch.zeros_like(value)
    for coefficient in _LOG2_ODDS:
        odds = odds * square + coefficient
    return (value / (1 + torch.exp2(value * odds))).to(x.dtype)


class Gelu(nn.Module):
    """`torch.nn.GELU`, by `gelu` where it is compiled: else each of its steps would be a kernel.

    >>> Gelu()(torch.zeros(1))
    tensor([0.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation, in the shape and dtype of `x`."""
        return gelu(x) if torch.compiler.is_compiling() else F.gelu(x)


class PatchEmbedding(nn.Module):
    """A convolution of patches that don't overlap, as one product of matrices.

    Parameters
    ----------
    convolution : Conv2d
        Of a kernel as large as its stride, not padded, in one group.

    Examples
    --------
    >>> convolution, x = nn.Conv2d(3, 8, 5, stride=5, bias=False), torch.randn(2, 3, 11, 15)
    >>> torch.allclose(PatchEmbedding(convolution)(x), convolution(x), atol=1e-5)
    True
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.patch = convolution.kernel_size
        flat = convolution.weight.detach().permute(0, 2, 3, 1).flatten(1)  # in the order in which pixels come
        self._padding = -flat.shape[1] % _ALIGNED
        self.weight = nn.Parameter(F.pad(flat, (0, self._padding)), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, D, H / height of a patch, W / width) for (N, C, H, W), both rounded down."""
        height, width = self.patch
        down, across = x.shape[2] // height, x.shape[3] // width
        x = x[:, :, : down * height, : across * width]
        patches = x.unflatten(2, (down, height)).unflatten(4, (across, width)).permute(0, 2, 4, 3, 5, 1).flatten(3)
        return F.linear(F.pad(patches, (0, self._padding)), self.weight, self.bias).permute(0, 3, 1, 2)


def with_fused_layers(visual: nn.Module) -> nn.Module:
    """Return an image tower whose activations and patch embeddings are those of this module where they can be; changed.

    >>> layers = with_fused_layers(nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.GELU(), nn.GELU("tanh")))
    >>> [type(layer).__name__ for layer in layers]
    ['PatchEmbedding', 'Gelu', 'GELU']
    """
    for module in list(visual.modules()):
        for name, layer in module.named_children():
            if type(layer) is nn.GELU and layer.approximate == "none":
                setattr(module, name, Gelu())
            elif type(layer) is nn.Conv2d and _is_patches(layer):
                setattr(module, name, PatchEmbedding(layer))
    return visual


def _is_patches(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == layer.stride
        and min(layer.kernel_size) > 1  # else it is a product of matrices as it is
        and layer.padding in ((0, 0), "valid")
        and layer.dilation == (1, 1)
        and layer.groups == 1
    )
