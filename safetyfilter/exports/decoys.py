"""Decoys: kept samples that a published list leaves out too, so that its gaps do not tell what was flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safetyfilter.errors import UsageError
from safetyfilter.runs.digests import Digester


@dataclass(frozen=True, slots=True)
class Decoys:
    """The choice of decoys: random to whoever has not the run's secret, and always the same to whoever has.

    So two lists of one run, published one after the other, have the same decoys, and say no more together than one of
    them; those of a larger share are those of a smaller one and more. All samples of one content are chosen alike,
    since copies that are still listed would give a decoy away.

    Parameters
    ----------
    digester : Digester
        The run's.
    share : float
        The share of kept samples to leave out, above 0 and below 1.

    Raises
    ------
    UsageError
        `share` is not such a number.

    Examples
    --------
    >>> few, more = (Decoys(Digester(b"s" * 32), share) for share in (0.1, 0.3))
    >>> chosen = [(few.has("", [bytes([n])]), more.has("", [bytes([n])])) for n in range(100)]
    >>> sum(one for one, _ in chosen), sum(two for _, two in chosen), any(one > two for one, two in chosen)
    (5, 32, False)
    """

    digester: Digester
    share: float

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float) or not 0 < self.share < 1:
            raise UsageError(
                f"the share of decoys lies above 0 and below 1, and is not {self.share!r}; 0.05, for example"
            )

    def has(self, key: str, contents: Sequence[bytes] | None) -> bool:
        """Return True for a sample that is a decoy, if it is kept.

        Parameters
        ----------
        key : str
            Its key, by which it is chosen where nothing is known of its bytes.
        contents : sequence of bytes or None
            Its pictures.
        """
        of = f"content {self.digester.content(*contents).hex()}" if contents else f"key {self.digester.key(key).hex()}"
        return int(self.digester.text(f"decoy of {of}"), 16) < self.share * 2**128


def flagged_among_gaps(excluded: float, decoys: float) -> float:
    """Return the share of excluded samples among all that a list leaves out.

    It is the chance to be right for whoever takes a sample that is not listed for one that was excluded. With the
    share e excluded, and the share d of the rest left out, it is e / (e + d (1 - e)).

    Parameters
    ----------
    excluded : float
        The share of all samples that is excluded, in [0, 1].
    decoys : float
        The share of kept samples that is left out too, in [0, 1].

    Examples
    --------
    >>> round(flagged_among_gaps(0.001, 0.05), 3), flagged_among_gaps(0.001, 0)
    (0.02, 1.0)
    """
    gaps = excluded + decoys * (1 - excluded)
    return excluded / gaps if gaps else 0.0
