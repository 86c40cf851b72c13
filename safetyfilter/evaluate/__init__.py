"""How well scores, thresholds and the rule do on labelled samples: metrics with intervals, and displays.

``safetyfilter.evaluate`` is both this package and, as a public name, the function `evaluate` in it; calling the package
calls the function, so that neither hides the other whichever was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from safetyfilter.evaluate.metrics import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
