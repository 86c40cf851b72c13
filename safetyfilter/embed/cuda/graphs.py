"""All kernels of a function in one CUDA graph: one call starts them, whatever else the interpreter does."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

_WARM_UPS = 3


class Graph:
    """A function of one tensor, recorded once as a CUDA graph and replayed since.

    Recording is torch's own, and not that of ``mode="reduce-overhead"``, which must be called from one thread alone.
    Calls may come from any thread and on any stream.

    Parameters
    ----------
    function : callable
        Device tensor -> device tensor; it must do the same whatever the values are, and wait for nothing.
    like : Tensor
        An input; all others have its shape, dtype and device.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> None:
        self._device = like.device
        self._lock = threading.Lock()
        self._input = like.clone()
        # One stream for both: libraries make handles and workspaces for each, which can't be done while recording.
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function(self._input)
            # in this thread alone: others may allocate memory meanwhile
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._output = function(self._input)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._done: torch.cuda.Event | None = None

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the function's output, in memory of its own."""
        stream = torch.cuda.current_stream(self._device)
        with self._lock:
            if self._done is not None:  # on another stream the last call may still be at its input or output
                stream.wait_event(self._done)
            self._input.copy_(values)
            self._graph.replay()
            output = self._output.clone()
            self._done = stream.record_event()
        return output
