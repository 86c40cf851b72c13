"""The grounds of decisions beyond a policy and a run's own scores: near-duplicates and other runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from safetyfilter.decide.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedWith:
    """The grounds of a run's decisions beyond its own scores and policy; only ``decide`` can make such decisions anew.

    Attributes
    ----------
    near : float or None
        The cosine from which on near-duplicates of co-occurrence exclusions were excluded too; None where none were.
    runs : tuple of str
        `RunRecord.scores` of the other runs that were joined, in order.

    Examples
    --------
    >>> bool(DecidedWith()), bool(DecidedWith(near=0.97))
    (False, True)
    """

    near: float | None = None
    runs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.near is not None or bool(self.runs)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``run.json``."""
        return {"near": self.near, "runs": list(self.runs)}

    @property
    def in_words(self) -> str:
        """All of it, for a message; empty where there is nothing.

        >>> DecidedWith(near=0.97, runs=("a1", "b2")).in_words
        'near-duplicates of exclusions (from a cosine of 0.97 on) and 2 other runs'
        """
        near = [] if self.near is None else [f"near-duplicates of exclusions (from a cosine of {self.near!r} on)"]
        runs = [f"{len(self.runs)} other run{'s' if len(self.runs) > 1 else ''}"] if self.runs else []
        return " and ".join(near + runs)

    def together_with(self, other: DecidedWith) -> DecidedWith:
        """Return what two kinds of decisions rest on, near-duplicates by the lower cosine.

        >>> DecidedWith(near=0.97).together_with(DecidedWith(near=0.95, runs=("a1",)))
        DecidedWith(near=0.95, runs=('a1',))
        """
        cosines = [near for near in (self.near, other.near) if near is not None]
        return DecidedWith(near=min(cosines, default=None), runs=tuple(dict.fromkeys([*self.runs, *other.runs])))

    def digest_with(self, policy: Policy) -> str:
        """Return the digest that the decisions of a part carry: of the policy, and of all of this where there is any.

        >>> DecidedWith().digest_with(Policy()) == Policy().digest
        True
        >>> DecidedWith(near=0.97).digest_with(Policy()) == Policy().digest
        False
        """
        if not self:
            return policy.digest
        return hashlib.sha256(json.dumps([policy.digest, self.as_dict()]).encode()).hexdigest()

    def loosened_to(self, now: DecidedWith) -> list[str]:
        """Return a sentence for each thing that decisions rested on and rest on no longer.

        >>> DecidedWith(near=0.95).loosened_to(DecidedWith(near=0.97))
        ['Near-duplicates of exclusions were excluded from a cosine of 0.95 on, and are now from 0.97 on.']
        >>> DecidedWith().loosened_to(DecidedWith(near=0.97))
        []
        """
        lines = []
        if self.near is not None and now.near is None:
            lines.append(
                f"Near-duplicates of exclusions, excluded so far from a cosine of {self.near!r} on, are no longer "
                f"excluded: decide with --also-near {self.near!r} (in Python also_near) to exclude them again."
            )
        elif self.near is not None and now.near is not None and now.near > self.near:
            lines.append(
                f"Near-duplicates of exclusions were excluded from a cosine of {self.near!r} on, and are now from "
                f"{now.near!r} on."
            )
        if gone := len(set(self.runs) - set(now.runs)):
            which, it = ("run no longer counts", "it") if gone == 1 else ("runs no longer count", "them")
            lines.append(f"{gone} joined {which}, as scored then: name {it} after this one to decide by {it} again.")
        return lines
