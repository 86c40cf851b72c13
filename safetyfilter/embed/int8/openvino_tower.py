"""The image tower that OpenVINO runs on the processor, in int8."""

from __future__ import annotations

import os
import queue
from typing import Any, ClassVar

import torch

from safetyfilter.embed.devices import require_processor
from safetyfilter.embed.int8.openvino_modules import openvino_module
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.int8.signal_stack import kept_signal_stack
from safetyfilter.embed.threads import cores
from safetyfilter.errors import UsageError


class CompiledTower:
    """A model of OpenVINO, compiled for this machine's processor; it may be called from several threads at once.

    As many calls as this process has cores are done at the same time, each on a core of its own: the pipeline splits
    a batch among its threads, and cores that share one operation wait for the slowest of them at each.

    Parameters
    ----------
    model : openvino.Model or bytes
        The model: (n, H, W, 3) uint8 -> (n, D) float32; or its graph as XML.
    weights : bytes or None
        The weights of a graph.
    precision : str or None
        ``f32`` or ``bf16``, for what is not in int8; where None, bfloat16 where the processor has it, else float32.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    """

    def __init__(self, model: Any, weights: bytes | None = None, *, precision: str | None = None) -> None:
        config: dict[str, Any] = {"NUM_STREAMS": cores(), "INFERENCE_NUM_THREADS": cores(), "ENABLE_CPU_PINNING": False}
        if precision is not None:
            config["INFERENCE_PRECISION_HINT"] = precision
        with kept_signal_stack():
            core = openvino_module().Core()
            if isinstance(model, bytes):
                model = core.read_model(model, weights)
            self._compiled = core.compile_model(model, "CPU", config)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._process = os.getpid()

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (n, D) float32 for (n, H, W, 3) uint8.

        Raises
        ------
        UsageError
            This is a process that was forked from the one that compiled the model, and has none of its threads.
        """
        if os.getpid() != self._process:  # to go on would be to wait for them for ever
            raise UsageError(
                "an encoder in int8 can't be used in a process that was forked from the one that made it; start worker "
                "processes by spawn (multiprocessing_context='spawn' of a DataLoader), or take another precision"
            )
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        found = request.infer([pixels.contiguous().numpy()], share_inputs=True, share_outputs=False)
        self._idle.put(request)  # not after an error, which may have left it in any state
        return torch.from_numpy(found[0])


class OpenvinoTower:
    """A quantised image tower on this machine's processor.

    Parameters
    ----------
    quantised : QuantisedTower
        The tower.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    """

    full_batches: ClassVar[bool] = False

    def __init__(self, quantised: QuantisedTower) -> None:
        self.quantised = quantised
        self._run = CompiledTower(quantised.model, quantised.weights)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings, as `ImageTower` says."""
        return self._run(pixels)

    def on(self, device: torch.device) -> OpenvinoTower:
        """Return the tower itself, for the processor; `DeviceError` for another device."""
        require_processor(device)
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # compiled anew where it arrives
        return (OpenvinoTower, (self.quantised,))
