"""The outcome of a verification: claims of an attestation, each of which holds or does not, with what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetyfilter.errors import AttestationError
from safetyfilter.html_table import html_table

_STATES = {True: "holds", False: "DOES NOT HOLD", None: "not checked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of an attestation.

    Attributes
    ----------
    what : str
        The thing that it is about, in a word or two.
    holds : bool or None
        None where it was not checked, and `found` says why.
    found : str
        The thing as it was attested, or the first thing that is wrong.
    """

    what: str
    holds: bool | None
    found: str

    @property
    def state(self) -> str:
        """``holds``, ``DOES NOT HOLD`` or ``not checked``.

        >>> Claim(what="counts", holds=None, found="").state
        'not checked'
        """
        return _STATES[self.holds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The claims of a run's attestation, held against the run.

    Attributes
    ----------
    run : str
        The run directory.
    key : str
        The fingerprint of the key that it was verified with.
    claims : tuple of Claim
        The signature first.

    Examples
    --------
    >>> held = Claim(what="signature", holds=True, found="")
    >>> Verification(run="runs/first", key="a1", claims=(held,)).holds
    True
    """

    run: str
    key: str
    claims: tuple[Claim, ...]

    @property
    def holds(self) -> bool:
        """True where no claim fails, and the signature, at least, was checked and holds."""
        return self.claims[0].holds is True and all(claim.holds is not False for claim in self.claims)

    @property
    def failed(self) -> tuple[Claim, ...]:
        """The claims that do not hold."""
        return tuple(claim for claim in self.claims if claim.holds is False)

    def require(self) -> None:
        """Raise `AttestationError` unless all holds.

        >>> Verification(run="a-run", key="a1", claims=(Claim(what="counts", holds=False, found="kept"),)).require()
        Traceback (most recent call last):
            ...
        safetyfilter.errors.AttestationError: a-run is not as it was attested (counts): kept
        """
        if not self.holds:
            raise AttestationError(
                f"{self.run} is not as it was attested ({', '.join(one.what for one in self.failed)}): "
                f"{self.failed[0].found}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        claims = [{"what": one.what, "holds": one.holds, "found": one.found} for one in self.claims]
        return {"run": self.run, "key": self.key, "holds": self.holds, "claims": claims}

    def _repr_html_(self) -> str:
        state = "as it was attested" if self.holds else "NOT as it was attested"
        return html_table(f"{self.run}: {state}", [(one.what, one.state, one.found) for one in self.claims])
