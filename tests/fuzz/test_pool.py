"""The harness itself: a process that ends, hangs, grows or leaks is found, and told by its case."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = """
import json, os, signal, sys
from dataclasses import asdict
from fuzzing.mutations import Mutant
from fuzzing.pool import run
from fuzzing import worker

worker._LEAK_MB, worker._WARM_UP = 20, 20
held = []

class Target:
    name, memory_mb, cpu_s, seeds = "none", 30, 0.3, [b"seed"]
    def prepare(self, folder):
        pass
    def mutant(self, rng):
        return Mutant(data=b"file", seed=0, in_place=True)
    def check(self, mutant):
        self.at = getattr(self, "at", -2) + 1
        if self.at == AT:
            BODY
        return self.at < 0 or self.at % 2 == 0  # its own file first, which must pass

print(json.dumps(asdict(run(lambda: Target(), 0, 250))))
"""


def tally(body: str, at: str = "130") -> dict[str, Any]:
    script = _SCRIPT.replace("AT:", f"{at}:").replace("BODY", body)
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=benchmarks, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize(
    ("body", "kind", "words", "ends"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash", "SIGSEGV", True),
        ("os._exit(3)", "crash", "status 3", True),
        ("while True: pass", "hang", "SIGPROF", True),
        ("bytearray(os.urandom(1 << 20) * 60)", "memory", "MB", False),
        ("raise RecursionError", "error", "RecursionError", False),
        ("assert False, 'it passed'", "passed", "it passed", False),
    ],
)
def test_a_fault_is_found_and_told_by_its_case(body: str, kind: str, words: str, ends: bool) -> None:
    found = tally(body)
    (fault,) = found["faults"]
    assert (fault["case"], fault["kind"]) == (130, kind)
    assert words in fault["text"]
    # a process that ends takes the counts since the last hundred with it; all its cases were run all the same
    assert found["cases"] == 250
    assert found["accepted"] + found["rejected"] + (kind != "memory") == 250
    assert ends == (kind in ("crash", "hang"))


def test_a_leak_is_found() -> None:
    found = tally("pass\n        held.append(os.urandom(1 << 18))")
    assert [fault["kind"] for fault in found["faults"]] == ["leak"]


def test_without_a_fault_there_is_none() -> None:
    found = tally("pass")
    assert found["faults"] == []
    assert (found["cases"], found["accepted"], found["rejected"]) == (250, 125, 125)
