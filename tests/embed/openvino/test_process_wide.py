"""What is changed for the whole process is as it was afterwards, whatever threads do it at the same time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from safetyfilter.embed.openvino.modules import in_silence, is_installed
from safetyfilter.embed.plain_attention import plain_attention

WAYS = [
    pytest.param(in_silence, marks=pytest.mark.skipif(not is_installed(), reason="OpenVINO is not installed")),
    plain_attention,
]


def state() -> tuple[Any, ...]:
    levels = [logging.getLogger(name).level for name in ("nncf", "torch.utils.cpp_extension")]
    return logging.getLoggerClass(), levels, torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("way", WAYS)
def test_threads_take_turns(way: Callable[[], AbstractContextManager[None]]) -> None:
    with way():
        pass  # what it imports is there
    before, inside, most, within = state(), 0, [], threading.Event()

    def first() -> None:
        nonlocal inside
        with way():
            inside += 1
            within.set()
            threading.Event().wait(0.3)  # the other has time to come in, were it let in
            most.append(inside)
            inside -= 1

    def other() -> None:
        nonlocal inside
        within.wait()
        with way():
            inside += 1
            most.append(inside)
            inside -= 1

    threads = [threading.Thread(target=first), threading.Thread(target=other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, state()) == ([1, 1], before)


def test_one_within_the_other() -> None:
    with plain_attention(), plain_attention():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
