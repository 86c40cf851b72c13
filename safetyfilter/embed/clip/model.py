"""Properties of an open_clip model: a digest of its weights, its width and its work for one image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeAlias

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

Shape: TypeAlias = tuple[int, ...]


def to_dtype(tower: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Return a tower in another precision, but for its batch statistics.

    >>> to_dtype(torch.nn.Linear(1, 1), torch.bfloat16).weight.dtype
    torch.bfloat16
    """
    tower.to(dtype)
    for module in tower.modules():  # batch statistics lose too much in half precision, and cost nothing in float32
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.float()
    return tower


def weights_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 in hex over a model's weights in float32, by parameter name.

    >>> layer = torch.nn.Linear(1, 1)
    >>> weights_digest(layer) == weights_digest(layer), len(weights_digest(layer))
    (True, 64)
    """
    return state_digest(model.state_dict())


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the digest of `weights_digest` for weights by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if name.endswith("position_ids"):  # counts 0, 1, 2 …; some versions of transformers keep it, others do not
            continue
        values = tensor.detach().to("cpu").contiguous()
        values = values.float() if values.is_floating_point() else values
        digest.update(f"{name}\0{tuple(values.shape)}\0".encode())
        digest.update(values.reshape(-1).numpy().data)
    return digest.hexdigest()


def width_and_flops(model: Any) -> tuple[int, float]:
    """Return the width of a model's embeddings, and its image tower's floating-point operations for one image."""
    tower = model.eval().visual
    size = tower.image_size
    images = torch.zeros(1, 3, *((size, size) if isinstance(size, int) else size))
    images = images.to(next(tower.parameters(), images).device)
    try:
        features, flops = _counted(tower, images, _Unmultiplied())
    except Exception:  # noqa: BLE001 - a tower that looks at numbers on its way
        features, flops = _counted(tower, images, _Operations())
    return int((features[0] if isinstance(features, tuple) else features).shape[-1]), flops


def _counted(tower: torch.nn.Module, images: torch.Tensor, operations: _Operations) -> tuple[Any, float]:
    # With gradients, of which nothing is kept: else whole layers are done by one operation, of which the work is not
    # known; nor is that of other kernels of attention.
    forgotten = saved_tensors_hooks(lambda _: None, lambda kept: kept)
    with torch.enable_grad(), forgotten, sdpa_kernel(SDPBackend.MATH), operations:
        features = tower(images.requires_grad_().clone())  # which a tower may change in its place
    return features, float(operations.flops)


class _Operations(TorchDispatchMode):
    """Adds up the floating-point operations of multiplied matrices and convolutions, which are nearly all there are.

    Torch's own counter does as much, and imports the compiler's kernels to do it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # of the compiler, which would be imported to be told so; nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _WORK:
            return func(*args, **(kwargs or {}))
        shape, flops = _WORK[func](*args, **(kwargs or {}))
        self.flops += flops
        return self._out(shape, func, args, kwargs or {})

    def _out(self, shape: Shape | None, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


class _Unmultiplied(_Operations):
    """Leaves out nearly all the work: what matrices and convolutions are multiplied to has its shape and any values.

    On torch's meta device there would be no work at all, but its shapes are worked out by modules that import the
    compiler, which takes longer.
    """

    def _out(self, shape: Shape | None, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs) if shape is None else args[0].new_zeros(shape)


def _product(a: torch.Tensor, b: torch.Tensor) -> tuple[Shape, int]:
    """The shape of matrices' products, and two operations for each multiplication and addition."""
    shape = (*a.shape[:-1], b.shape[-1])
    return shape, 2 * prod(shape) * a.shape[-1]


def _convolved(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    *_: Any,
) -> tuple[Shape | None, int]:
    """The same for a convolution; no shape for a transposed one."""
    each = 2 * prod(weight.shape[1:])
    if transposed:
        return None, each * images.numel()
    sides = zip(images.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    shape = (
        images.shape[0],
        weight.shape[0],
        *((side + 2 * pad - spread * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, spread in sides),
    )
    return shape, each * prod(shape)


_ATEN = torch.ops.aten
_WORK: dict[Any, Callable[..., tuple[Shape | None, int]]] = {
    _ATEN.mm.default: _product,
    _ATEN.addmm.default: lambda _, a, b, **__: _product(a, b),
    _ATEN.bmm.default: _product,
    _ATEN.baddbmm.default: lambda _, a, b, **__: _product(a, b),
    _ATEN.convolution.default: _convolved,
}
