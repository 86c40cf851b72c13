"""The engines of one machine keep the contract of engines."""

from __future__ import annotations

import pytest

from safetyfilter.engine.base import Engine
from safetyfilter.engine.local import LocalEngine
from tests.engine.contract import EngineContract


class TestLocal(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return LocalEngine()


class TestProcesses(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return LocalEngine(devices=["cpu", "cpu"])
