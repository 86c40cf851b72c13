"""The fit of a calibration's record to scores: whether these are made as those were that the thresholds come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from safetyfilter.decide.calibration_record import CalibrationRecord, ScoredBy
from safetyfilter.errors import UncertifiedPolicyError

if TYPE_CHECKING:
    from safetyfilter.decide.policy import Policy
    from safetyfilter.embed.spec import EncoderSpec

Setting: TypeAlias = Literal["encoder", "probes", "views", "decoding", "precision"]
SLIGHT: tuple[Setting, ...] = ("decoding", "precision")
"""Settings that change the same scores by little; by the others, a threshold means something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The way in which the scores are made that a policy is to decide on.

    Attributes
    ----------
    encoder : EncoderSpec
        The encoder.
    probes : tuple of str
        The probes' digests.
    views, decode, precision : str
        How pictures are looked at, decoded and embedded; each is empty where that is not known, and then not compared.
    """

    encoder: EncoderSpec
    probes: tuple[str, ...]
    views: str = ""
    decode: str = ""
    precision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """A setting in which scores differ from those that were calibrated on.

    Attributes
    ----------
    setting : str
        Its name.
    calibrated, here : str
        The two values of it; digests are cut to 12 digits.

    Examples
    --------
    >>> str(Misfit(setting="views", calibrated="whole", here="multi"))
    'views (whole there, multi here)'
    """

    setting: Setting
    calibrated: str
    here: str

    @property
    def slight(self) -> bool:
        """True where the setting changes the same scores by little."""
        return self.setting in SLIGHT

    def __str__(self) -> str:
        return f"{self.setting} ({self.calibrated} there, {self.here} here)"


def misfits(record: CalibrationRecord | None, scoring: Scoring, joined: Sequence[str] = ()) -> tuple[Misfit, ...]:
    """Return the settings in which scores are known to differ from those that a record's thresholds come from.

    Parameters
    ----------
    record : CalibrationRecord or None
        Of a policy. Nothing differs where there is none, nor where it does not say what gave the scores.
    scoring : Scoring
        How the scores are made that are to be decided on.
    joined : sequence of str
        `RunRecord.scores` of the runs that are decided by too: the highest score counts, and so a threshold that was
        calibrated on the very scores of one of them misses no more.
    """
    by = None if record is None else record.scored_by
    if by is None or (by.scores and by.scores in joined):
        return ()
    return tuple(_differing(by, scoring))


def _differing(by: ScoredBy, scoring: Scoring) -> Iterator[Misfit]:
    if not scoring.encoder.is_named_by(by.encoder):
        yield Misfit(setting="encoder", calibrated=by.encoder[:12], here=scoring.encoder.digest[:12])
    if set(by.probes) != set(scoring.probes):
        yield Misfit(setting="probes", calibrated=_listed(by.probes), here=_listed(scoring.probes))
    settings: tuple[tuple[Setting, str, str], ...] = (
        ("views", by.views, scoring.views),
        ("decoding", by.decode, scoring.decode),
        ("precision", by.precision, scoring.precision),
    )
    for setting, there, here in settings:
        if there and here and there != here:
            yield Misfit(setting=setting, calibrated=there, here=here)


def _listed(digests: Sequence[str]) -> str:
    return " and ".join(digest[:12] for digest in sorted(digests)) or "none"


def require_fitting(policy: Policy, scoring: Scoring, joined: Sequence[str] = (), *, accepted: bool = False) -> None:
    """Raise `UncertifiedPolicyError` where `misfits` returns something, unless that was accepted.

    Raises
    ------
    UncertifiedPolicyError
        The policy's thresholds were calibrated on other scores; the error names each setting, and both its values.
    """
    if accepted or not (found := misfits(policy.calibration, scoring, joined)):
        return
    raise UncertifiedPolicyError(
        "the policy's thresholds were calibrated on scores that were made in another way than those here, and what is "
        f"guaranteed of them is not so of these; what differs: {', '.join(map(str, found))}. Calibrate on scores that "
        "are made as these are, or make these as those were, or give another policy; to decide by it all the same, "
        "without a guarantee, pass --accept-uncertified (accept_uncertified=True)"
    )
