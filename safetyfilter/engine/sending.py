"""Work on its way to workers of another machine: the encoder goes with its weights, and the secret stays behind."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from safetyfilter.runs.digests import Digester

if TYPE_CHECKING:
    from safetyfilter.embed.encoder import ClipEncoder

_ENCODER, _DIGESTER = "encoder", "digester"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An object as bytes, which hold no secret, and can lie in a store that is shared or written to disk.

    Attributes
    ----------
    content : bytes
        The object by cloudpickle, without its encoders and digesters.
    encoders : tuple of ndarray
        (N,) uint8, the encoders with their weights; as arrays, which a store can share.
    """

    content: bytes
    encoders: tuple[npt.NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return len(self.content) + sum(map(len, self.encoders))


def packed(sent: object, pickler: type[Any]) -> tuple[Packed, Digester | None]:
    """Return an object as bytes without its secret, and the digester that holds the secret, to be sent otherwise.

    Parameters
    ----------
    sent : object
        Holds one digester at most, in as many places as it likes.
    pickler : type
        cloudpickle's ``Pickler``, which also sends what is defined in a notebook or a script.
    """
    encoders: list[ClipEncoder] = []
    digesters: set[Digester | None] = set()

    class Pickler(pickler):  # type: ignore[misc]
        def persistent_id(self, obj: object) -> tuple[str, int] | None:
            if isinstance(obj, Digester):
                digesters.add(obj)
                return _DIGESTER, 0
            if _is_encoder(obj):
                if not any(obj is other for other in encoders):
                    encoders.append(obj)
                return _ENCODER, next(number for number, other in enumerate(encoders) if other is obj)
            return None

    with io.BytesIO() as buffer:
        Pickler(buffer).dump(sent)
        content = buffer.getvalue()
    digester, *others = digesters or {None}
    if others:
        raise ValueError("two secrets can't be sent at once")
    return Packed(content=content, encoders=tuple(map(_packed_encoder, encoders))), digester


def _is_encoder(obj: object) -> TypeGuard[ClipEncoder]:
    """True for an encoder, of which there is none where nothing has imported its module, and with it torch."""
    module = sys.modules.get("safetyfilter.embed.encoder")
    return module is not None and isinstance(obj, module.ClipEncoder)


def _packed_encoder(encoder: ClipEncoder) -> npt.NDArray[np.uint8]:
    from safetyfilter.embed.sending import packed_encoder

    return np.frombuffer(packed_encoder(encoder), np.uint8)


def _unpacked_encoder(sent: npt.NDArray[np.uint8], device: str) -> ClipEncoder:
    from safetyfilter.embed.sending import unpacked_encoder  # and torch, which workers need for encoders alone

    return unpacked_encoder(sent.data, device)


def unpacked(sent: Packed, digester: Digester | None, device: str) -> Any:
    """Return the object of `packed`, its encoders on a device.

    Raises
    ------
    DeviceError
        There is no such device.
    """
    encoders = [_unpacked_encoder(encoder, device) for encoder in sent.encoders]
    given: dict[str, Callable[[int], object]] = {_ENCODER: encoders.__getitem__, _DIGESTER: lambda _: digester}

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: tuple[str, int]) -> object:
            return given[pid[0]](pid[1])

    return Unpickler(io.BytesIO(sent.content)).load()
