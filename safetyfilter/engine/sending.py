"""Work on its way to workers of another machine: the encoder goes with its weights, and the secret stays behind."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.embed.sending import packed_encoder, unpacked_encoder
from safetyfilter.runs.digests import Digester

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
            if isinstance(obj, ClipEncoder):
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
    return Packed(
        content=content, encoders=tuple(np.frombuffer(packed_encoder(each), np.uint8) for each in encoders)
    ), digester


def unpacked(sent: Packed, digester: Digester | None, device: str) -> Any:
    """Return the object of `packed`, its encoders on a device.

    Raises
    ------
    DeviceError
        There is no such device.
    """
    encoders = [unpacked_encoder(encoder.data, device) for encoder in sent.encoders]
    given: dict[str, Callable[[int], object]] = {_ENCODER: encoders.__getitem__, _DIGESTER: lambda _: digester}

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: tuple[str, int]) -> object:
            return given[pid[0]](pid[1])

    return Unpickler(io.BytesIO(sent.content)).load()
