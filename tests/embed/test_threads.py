"""Threads that can't all be started are an error, and none of them waits for the others."""

import threading

import pytest

from safetyfilter.embed.threads import torch_threads


def test_a_thread_that_cannot_be_started_is_an_error_and_frees_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def third_fails(self: threading.Thread) -> None:
        if self.name.startswith("few"):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        torch_threads(4, "few", 1)
    for thread in started:
        thread.join(timeout=60)
        assert not thread.is_alive()
