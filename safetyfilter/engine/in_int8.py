"""An encoder in int8 for a scan: quantised on pictures of a source, or as the run that goes on has it."""

from __future__ import annotations

import logging

from safetyfilter.embed.devices import resolve_device, resolve_dtype
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.embed.int8.cache import kept_tower
from safetyfilter.embed.int8.quantising import PICTURES
from safetyfilter.embed.openvino.modules import nncf_module
from safetyfilter.errors import WeightsError
from safetyfilter.runs.run import Run
from safetyfilter.sources.base import Source
from safetyfilter.sources.spread import spread_pictures

_log = logging.getLogger(__name__)


def in_int8(encoder: ClipEncoder, source: Source, run: Run | None = None) -> ClipEncoder:
    """Return an encoder in int8.

    Parameters
    ----------
    encoder : ClipEncoder
        In float32 on the CPU.
    source : Source
        Of pictures; some of them, spread over all of it, are what the encoder is quantised on.
    run : Run or None
        A run that is to go on: where it was made with this encoder in int8, its own quantised model is taken, whatever
        the source holds by now.

    Raises
    ------
    UsageError, MissingExtraError, WeightsError, OutputError
        As of `ClipEncoder.quantised`.
    StorageError
        A sample could not be read though it was tried again.
    """
    setup = None if run is None else run.record.setup
    if setup is not None and setup.quantised and setup.encoder == encoder.spec:
        try:
            return encoder.quantised(kept_tower(setup.quantised))
        except WeightsError as error:
            _log.warning("%s. The encoder is quantised anew: if that gives another model, it is another run", error)
    return encoder.quantised(spread_pictures(source, PICTURES))


def require_int8(device: str) -> None:
    """Raise an error unless int8 is offered on a device and its extra is installed, before anything is loaded.

    Raises
    ------
    UsageError, DeviceError
        The device is unknown, or not the processor.
    MissingExtraError
        OpenVINO or NNCF is not installed.
    """
    resolve_dtype("int8", resolve_device(device))
    nncf_module()
