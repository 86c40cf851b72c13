"""A batch that does not fit the machine's memory is embedded in smaller ones, in a process that has too little."""

import json
import os
import subprocess
import sys
from pathlib import Path

ONE_HEAP = os.environ | {"MALLOC_ARENA_MAX": "1"}
"""Each thread's own heap takes 64 MiB of what the process may have, as it happens to be made or not."""


def embedded(*arguments: str) -> tuple[int, str]:
    """Embed a batch with tests/embed/little_memory.py; return the bytes it took, and what it said."""
    command = [sys.executable, "-m", "tests.embed.little_memory", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=Path(__file__).parents[2], env=ONE_HEAP
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    taken = result.pop("taken")
    assert result == {"embedded": 4800, "failures": {}, "wrong": 0}
    return taken, done.stderr


def test_a_process_with_too_little_memory_embeds_all_in_smaller_batches(tiny_clip: Path) -> None:
    needed, said = embedded(str(tiny_clip))  # from one processor to another, other kernels need another memory
    assert "out of memory" not in said
    taken, said = embedded(str(tiny_clip), str(needed * 2 // 3))
    assert "out of memory; embedding 2400 images at a time from here on" in said
    assert taken <= needed * 2 // 3
