"""The engines of one machine keep the contract of engines."""

from __future__ import annotations

import pytest

from safetyfilter import SafetyFilter
from safetyfilter.engine.base import Engine
from safetyfilter.engine.local import LocalEngine
from tests.engine.contract import EngineContract
from tests.engine.test_contract import Case, images


class TestLocal(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return LocalEngine()


class TestProcesses(EngineContract):
    tolerance = 1e-5

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return LocalEngine(devices=["cpu", "cpu"])

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, safe: SafetyFilter) -> Case:
        """Images alone: of stored embeddings, what processes yield is in `test_contract`."""
        return images(safe)
