"""The pair of signals that must never both be present in a kept sample.

The core knows one pair, by name: `PAIR`. A bank of probes may name another pair that stands in for it; the stand-ins'
names live in `safetyfilter.standin`, and nothing below that package knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalPair:
    """The names of the two signals whose co-occurrence excludes a sample.

    Parameters
    ----------
    explicit, minor : str
        The names under which the two signals are scored. They differ.
    notice : str
        A sentence that every record of a run with this pair carries; empty for real signals. Two pairs of the same
        names are equal whatever their notices.

    Raises
    ------
    ValueError
        A name is empty, or both are the same; or the notice is not a text.

    Examples
    --------
    >>> SignalPair(explicit="circle", minor="square").names
    ('circle', 'square')
    >>> SignalPair() == PAIR
    True
    """

    explicit: str = "explicit"
    minor: str = "minor"
    notice: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        named = all(isinstance(name, str) and name for name in self.names)
        if not named or self.explicit == self.minor:
            raise ValueError(f"a pair is two different names of signals, not {self.names}; give one for each signal")
        if not isinstance(self.notice, str):
            raise ValueError(f"the notice of a pair is {self.notice!r}; give a sentence, or leave it out")

    @property
    def names(self) -> tuple[str, str]:
        """The two names, ``(explicit, minor)``."""
        return (self.explicit, self.minor)

    def other(self, signal: str) -> str:
        """The other signal of the pair.

        >>> PAIR.other("minor")
        'explicit'
        """
        return {self.explicit: self.minor, self.minor: self.explicit}[signal]

    def as_dict(self) -> dict[str, str]:
        """Plain values for a file; `from_dict` reads them back."""
        return {"explicit": self.explicit, "minor": self.minor, **({"notice": self.notice} if self.notice else {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> SignalPair:
        """Return the pair that `as_dict` wrote; TypeError or ValueError where it is none."""
        return cls(**data)


PAIR = SignalPair()
"""The real pair: ``explicit`` and ``minor``."""
