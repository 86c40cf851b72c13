"""Properties of an open_clip model: a digest of its weights, its width and its work for one image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


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
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.empty(1, 3, height, width, device="meta")
    shapes = {name: _shape(tensor) for name, tensor in (*tower.named_parameters(), *tower.named_buffers())}
    try:
        features, flops = _counted(lambda pixels: functional_call(tower, shapes, pixels), images)
    except Exception:  # noqa: BLE001 - a tower that looks at numbers on its way, or makes some on the processor
        features, flops = _counted(tower, torch.zeros(1, 3, height, width))
    return int((features[0] if isinstance(features, tuple) else features).shape[-1]), flops


def _shape(tensor: torch.Tensor) -> torch.Tensor:
    # With gradients: else whole layers are done by one operation, of which the counter does not know the work.
    return torch.empty_like(tensor, device="meta", requires_grad=tensor.is_floating_point())


def _counted(tower: Callable[[torch.Tensor], Any], images: torch.Tensor) -> tuple[Any, float]:
    with sdpa_kernel(SDPBackend.MATH), _Operations() as counted:  # other kernels of attention are not known either
        features = tower(images)
    return features, float(counted.flops)


class _Operations(TorchDispatchMode):
    """Adds up floating-point operations by torch's own formulas; its counter goes by modules too, at twice the time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out
