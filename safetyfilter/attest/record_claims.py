"""Claims about ``run.json``: each field that was attested, held against what the file says now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetyfilter.attest.statement import attested_fields, differing
from safetyfilter.attest.verification import Claim
from safetyfilter.decide.sentences import excluded_alone, listed_thresholds
from safetyfilter.html_table import visible
from safetyfilter.runs.record import RunRecord

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "run": ("schema", "created", "run_id", "secret_check", "complete", "applied_from"),
    "source": ("source",),
    "encoder": ("encoder", "self_check"),
    "probes": ("probes", "signals"),
    "preparation": ("views", "gate", "decode", "precision", "quantised", "limits", "preparation", "setup_digest"),
    "pair": ("pair", "notice"),
    "policy": ("policy", "policy_warning", "decided_with", "accepted_uncertified"),
    "lists of known hashes": ("hash_lists", "hash_unchecked"),
    "officer": ("officer",),
    "versions": ("versions",),
}
"""The fields of ``run.json`` that each claim is about."""
_BY_FILES = ("scores", "decisions", "counts", "sealed")
"""Fields that claims about files hold against those too."""
DECIDED = ("policy", "policy_warning", "decided_with", "accepted_uncertified", "decisions", "counts")
"""Fields that ``decide`` writes."""


def record_claims(attested: Mapping[str, Any], now: Mapping[str, Any], record: RunRecord, story: str) -> list[Claim]:
    """Return a claim for each group of fields.

    Parameters
    ----------
    attested, now : mapping
        The fields of ``run.json`` as they were attested, and as they are.
    record : RunRecord
        Those that were attested.
    story : str
        Said of fields that ``decide`` writes, where they differ.
    """
    now = attested_fields(now)
    changed = differing(_split(attested), _split(now))
    shown = _shown(record)
    claims = []
    for what, fields in {**_GROUPS, "calibration": ("calibration",), "other fields": _others(attested, now)}.items():
        wrong = [name for name in fields if name in changed]
        if wrong:
            by_deciding = story if set(wrong) <= {*DECIDED, "calibration"} else ""
            claims.append(Claim(what=what, holds=False, found=_said(wrong, by_deciding)))
        elif shown.get(what):
            claims.append(Claim(what=what, holds=True, found=shown[what]))
    return claims


def _said(names: list[str], story: str) -> str:
    which = f"the field{'' if len(names) == 1 else 's'} {visible(', '.join(names))} of run.json"
    return f"{which} {'is' if len(names) == 1 else 'are'} not as attested" + (f": {story}" if story else "")


def _split(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields in which the calibration is told apart from the policy that it is the certificate of."""
    policy = fields.get("policy")
    if not isinstance(policy, dict) or "calibration" not in policy:
        return dict(fields)
    rest = {name: value for name, value in policy.items() if name != "calibration"}
    return {**fields, "policy": rest, "calibration": policy["calibration"]}


def _others(attested: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    known = {*_BY_FILES, *(name for names in _GROUPS.values() for name in names)}
    return tuple(sorted({*attested, *now} - known))


def _shown(record: RunRecord) -> dict[str, str]:
    """Each group as it was attested, in a few words; a group without them is told of only where it differs."""
    setup, policy, calibration = record.setup, record.policy, record.policy.calibration
    parts = f"{record.source.parts:,} part{'' if record.source.parts == 1 else 's'}"
    alone = excluded_alone(policy)
    decided = record.decided_with.in_words
    return {
        "run": f"started {record.created}",
        "source": f"{record.source.kind}, in {parts}",
        "encoder": str(setup.encoder),
        "probes": ", ".join(digest[:12] for digest in setup.probes),
        "preparation": f"views {setup.views}, decode {setup.decode}, {setup.precision}",
        "pair": f"{' and '.join(setup.pair.names)}{': ' if setup.pair.notice else ''}{setup.pair.notice}",
        "policy": listed_thresholds(policy.thresholds)
        + (f"; alone {alone}" if alone else "")
        + (f"; with {decided}" if decided else ""),
        "calibration": ""
        if calibration is None
        else f"a miss rate of at most {calibration.max_miss_rate:g} with confidence {calibration.confidence:g}, "
        f"calibrated {calibration.calibrated}",
        "lists of known hashes": ", ".join(digest[:12] for digest in setup.hash_lists),
        "officer": setup.officer,
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items())),
    }
