"""A batch that does not fit the machine's memory is embedded in smaller ones, in a process that has too little."""

import json
import os
import subprocess
import sys
from pathlib import Path

ONE_HEAP = os.environ | {"MALLOC_ARENA_MAX": "1"}
"""Each thread's own heap takes 64 MiB of what the process may have, as it happens to be made or not."""


def test_a_process_with_too_little_memory_embeds_all_in_smaller_batches(tiny_clip: Path) -> None:
    command = [sys.executable, "-m", "tests.embed.little_memory", str(tiny_clip)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=Path(__file__).parents[2], env=ONE_HEAP
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"embedded": 12000, "failures": {}, "wrong": 0}
    assert "out of memory; embedding 6000 images at a time from here on" in done.stderr
