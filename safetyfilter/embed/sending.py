"""Encoders on their way to another process: with their weights, so that nothing is loaded from a file there."""

from __future__ import annotations

import io

import torch

from safetyfilter.embed.devices import resolve_device
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.errors import MissingExtraError


def packed_encoder(encoder: ClipEncoder) -> bytes:
    """Return an encoder and its weights as bytes, for `unpacked_encoder` of the same version of this library alone.

    >>> from safetyfilter.standin import ENCODER
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    >>> again = unpacked_encoder(packed_encoder(encoder), "cpu")
    >>> again.spec == encoder.spec, again.dtype == encoder.dtype
    (True, True)
    """
    buffer = io.BytesIO()
    torch.save(vars(encoder), buffer)
    return buffer.getvalue()


def unpacked_encoder(packed: bytes | memoryview, device: str) -> ClipEncoder:
    """Return the encoder of `packed_encoder` on a device, in the precision that it had.

    Its weights are those that were packed, whatever the files hold by now that they came from. Its text tower is in
    main memory, as that of an encoder that was just loaded.

    Raises
    ------
    DeviceError
        There is no such device, or none for this precision.
    MissingExtraError
        The encoder is in int8 or fp8, and OpenVINO or torchao is not installed here.
    """
    target = resolve_device(device)
    with io.BytesIO(packed) as buffer:
        try:
            state = torch.load(buffer, map_location="cpu", weights_only=False)  # from our own process, and no file
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "torchao":
                raise MissingExtraError("torchao", "fp8") from error
            raise
    encoder = object.__new__(ClipEncoder)
    vars(encoder).update(state)
    encoder.device, encoder._text_device = target, torch.device("cpu")
    encoder._tower = encoder._tower.on(target)
    return encoder
