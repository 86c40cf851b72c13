"""Stand-in pictures rendered in this process, where others would import for longer than they render."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import pytest

from safetyfilter.standin import rendered


def here() -> AbstractContextManager[SimpleNamespace]:
    """Return what renders in the place of a pool of processes; `tests.standin.test_demo` has those."""
    return nullcontext(SimpleNamespace(map=map))


def render_here(patch: pytest.MonkeyPatch) -> None:
    """Have stand-in pictures rendered here."""
    patch.setattr(rendered, "renderers", here)
