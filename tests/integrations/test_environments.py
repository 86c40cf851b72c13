"""The stages against the real frameworks, each in its own environment, where there is one."""

import os
import subprocess

import pytest

from tests.integrations.environments import REQUIREMENTS, ROOT, python_of


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_stage_in_the_real_framework(name: str) -> None:
    python = python_of(name)
    if not python.exists():
        pytest.skip(f"{name} has no environment: python tests/integrations/environments.py {name} makes it")
    tests = f"tests/integrations/test_{name}.py"
    # Warnings of the frameworks are theirs; fixtures of this library's own tests need more than is installed there.
    options = ["-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-p", "no:cacheprovider", "-q", "-ra"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-m", "pytest", *options, tests], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]
