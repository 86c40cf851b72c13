"""Models that OpenVINO runs on the processor."""

from __future__ import annotations

import os
import queue
from typing import Any

import torch

from safetyfilter.embed.openvino.modules import openvino_module
from safetyfilter.embed.openvino.signal_stack import kept_signal_stack
from safetyfilter.embed.threads import cores
from safetyfilter.errors import UsageError


class OpenvinoModel:
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
                "a model that OpenVINO runs can't be used in a process forked from the one that made it; start worker "
                "processes by spawn (multiprocessing_context='spawn' of a DataLoader), or give another precision"
            )
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        found = request.infer([pixels.contiguous().numpy()], share_inputs=True, share_outputs=False)
        self._idle.put(request)  # not after an error, which may have left it in any state
        return torch.from_numpy(found[0])
