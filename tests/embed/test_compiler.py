"""Torch's compiler is not imported with torchvision and timm, and is there when somebody compiles."""

from __future__ import annotations

import subprocess
import sys

IMPORTED = """
import sys
import torch
from safetyfilter.embed.compiler import deferred_compiler

exempt = torch.compiler.disable
with deferred_compiler():
    import open_clip, timm, torchvision
    from torchvision.ops.roi_align import is_compile_supported

    @torch.compiler.disable
    def eager(a, b=2):
        "Doc."
        return a * b

    @torch.compiler.disable(recursive=False)
    def other(a):
        return a + 1

assert torch.compiler.disable is exempt
assert not [name for name in sys.modules if name.startswith("torch._dynamo")], "imported all the same"
"""

USED = """
assert (eager.__name__, eager.__doc__) == ("eager", "Doc.")
assert (eager(3), eager(3, b=3), other(1), other(2)) == (6, 9, 2, 3)
assert "torch._dynamo" in sys.modules
"""

ASKED = """
assert is_compile_supported("cpu") in (True, False)
import torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported is not is_compile_supported
assert type(sys.modules["torch._dynamo.utils"]) is type(sys)
"""

COMPILED = """
compiled = torch.compile(torch.nn.Linear(2, 2), backend="eager")
assert compiled(torch.ones(1, 2)).shape == (1, 2)
"""

WITHIN = """
import warnings

@torch.compile(backend="eager")
def compiled(a):
    return eager(a * 2) + 1

@torch.compile(backend="eager", fullgraph=True)
def whole(a):
    return eager(a * 2) + 1

warnings.simplefilter("error")
assert compiled(torch.ones(1)) == 5
try:
    whole(torch.ones(1))
except Exception as error:
    assert "was wrapped with `torch.compiler.disable`" in str(error), error
else:
    raise AssertionError("it was compiled")
"""

OTHERWISE = """
import sys
import torch
from safetyfilter.embed.compiler import deferred_compiler

try:
    with deferred_compiler():
        from torch._dynamo.utils import counters  # another name of that module
        @torch.compiler.disable
        class Kind:
            pass
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
import torch._dynamo.utils
assert counters is torch._dynamo.utils.counters
assert isinstance(Kind, type)
with deferred_compiler():
    assert torch.compiler.disable.__module__ == "torch.compiler"
"""


LIBRARIES = """
import sys
import safetyfilter.embed.encoder
assert not [name for name in sys.modules if name.startswith("torch._dynamo")], "imported all the same"
"""


def run(*programs: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "".join(programs)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_imported_when_it_is_used() -> None:
    run(IMPORTED, USED)
    run(IMPORTED, ASKED, COMPILED)
    run(IMPORTED, WITHIN)


def test_the_library_takes_both_packages_without_it() -> None:
    run(LIBRARIES)


def test_it_is_imported_where_more_is_asked_of_it_and_left_alone_where_it_is_there() -> None:
    run(OTHERWISE)
