"""The fields of a policy: checked, read from TOML text or plain values, and written as TOML text."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

import numpy as np

from safetyfilter.decide.calibration_record import CalibrationRecord
from safetyfilter.decide.presets import DEFAULT_THRESHOLD, exclusions
from safetyfilter.errors import PolicyError
from safetyfilter.signals import PAIR, SignalPair
from safetyfilter.storage import parse_toml

_log = logging.getLogger(__name__)
_SIGNALS = '[signals] with explicit = "…" and minor = "…"'


class PolicyFields(TypedDict):
    """The arguments of a `Policy`."""

    thresholds: Mapping[str, float]
    exclude: frozenset[str]
    exclude_at: Mapping[str, float]
    pair: SignalPair
    calibration: CalibrationRecord | None


def parse_policy(text: str) -> PolicyFields:
    """Return the fields of the policy in a TOML text; a pair's signal without a threshold gets the default one.

    Where the other signals have thresholds the log says so.

    Parameters
    ----------
    text : str
        ``[thresholds]`` holds numbers, ``[exclude]`` true, false or numbers, and ``[signals]``, in a policy of another
        pair than the real one, the names of the pair's signals. ``[calibration]`` is where the thresholds come from, as
        ``calibrate`` wrote it; it decides nothing.

    Raises
    ------
    PolicyError
        The text is not TOML, a key is unknown, or a value is of another kind. The ranges are for `Policy` to check.

    Examples
    --------
    >>> fields = parse_policy("[exclude]\\nexplicit = 0.98\\nminor = true")
    >>> fields["thresholds"], fields["exclude"], fields["exclude_at"]
    ({'explicit': 0.5, 'minor': 0.5}, frozenset({'minor'}), {'explicit': 0.98})
    """
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise PolicyError(f"the policy is not valid TOML: {error}; correct it") from error
    if unknown := set(data) - {"thresholds", "exclude", "signals", "calibration"}:
        raise PolicyError(
            f"unknown key {sorted(unknown)} in the policy; allowed are [thresholds], [exclude], [calibration] as "
            f"`safetyfilter calibrate` writes it, and {_SIGNALS}"
        )
    thresholds, exclude = data.get("thresholds", {}), data.get("exclude", {})
    if not isinstance(thresholds, dict) or not isinstance(exclude, dict):
        raise PolicyError("thresholds or exclude is a single value; give a section: [thresholds] then explicit = 0.5")
    for signal, rule in exclude.items():
        if not isinstance(rule, bool | int | float):
            raise PolicyError(f"exclude.{signal} is {rule!r}; give true, false, or a number from 0 to 1")
    pair = _pair(data["signals"]) if "signals" in data else PAIR
    missing = [signal for signal in pair.names if signal not in thresholds]
    for signal in thresholds:
        if signal not in pair.names and (near := get_close_matches(signal, missing, n=1)):
            raise PolicyError(
                f"there is a threshold for {signal!r}, and none for {near[0]!r}; did you mean {near[0]}? If not, give "
                "both a threshold"
            )
    given = bool(thresholds)
    thresholds = dict.fromkeys(pair.names, DEFAULT_THRESHOLD) | thresholds
    if unknown := set(exclude) - set(thresholds):  # also one that is set to false: a misspelt name is never passed over
        near = [found for signal in sorted(unknown) for found in get_close_matches(signal, thresholds, n=1)]
        raise PolicyError(
            f"unknown signal {sorted(unknown)} in [exclude]; "
            + (f"did you mean {' and '.join(near)}? " if near else "")
            + f"It may name {sorted(thresholds)}, or give the signal a threshold"
        )
    if given and missing:
        _log.warning("the policy gives no threshold for %s: %s is taken", " and ".join(missing), DEFAULT_THRESHOLD)
    at_threshold, cuts = exclusions(exclude)
    return {
        "thresholds": thresholds,
        "exclude": at_threshold,
        "exclude_at": cuts,
        "pair": pair,
        "calibration": CalibrationRecord.from_dict(data["calibration"]) if "calibration" in data else None,
    }


def format_policy(fields: PolicyFields) -> str:
    """Return TOML text that `parse_policy` reads back to equal fields.

    >>> fields = parse_policy("[thresholds]\\nexplicit = 0.3")
    >>> print(format_policy(fields))
    [thresholds]
    explicit = 0.3
    minor = 0.5
    <BLANKLINE>
    [exclude]              # beyond the co-occurrence rule, which always holds
    explicit = false
    minor = false
    <BLANKLINE>
    """
    pair, cuts = fields["pair"], fields["exclude_at"]
    lines = []
    if pair != PAIR:
        lines += ["[signals]", f"explicit = {_quoted(pair.explicit)}", f"minor = {_quoted(pair.minor)}", ""]
    lines += ["[thresholds]", *(f"{_key(signal)} = {value!r}" for signal, value in fields["thresholds"].items())]
    lines += ["", "[exclude]              # beyond the co-occurrence rule, which always holds"]
    rules = dict.fromkeys(fields["exclude"], "true") | {signal: repr(cut) for signal, cut in cuts.items()}
    lines += [f"{_key(signal)} = {rules.get(signal, 'false')}" for signal in fields["thresholds"]]
    if (calibration := fields["calibration"]) is not None:
        lines += ["", "[calibration]          # where the thresholds come from; it decides nothing"]
        lines += _table(calibration.as_dict(), "calibration")
    return "\n".join(lines) + "\n"


def fields_from_dict(data: Mapping[str, Any]) -> PolicyFields:
    """Return the fields in the plain values that `Policy.as_dict` gives; `PolicyError` where one is of another kind.

    >>> fields_from_dict({"pair": {}, "thresholds": {"explicit": 0.5, "minor": 0.5}, "exclude": [], "exclude_at": 3})
    Traceback (most recent call last):
        ...
    safetyfilter.errors.PolicyError: exclude_at is missing or not a dict in a policy; give what Policy.as_dict returns
    """
    for name, kind in (("pair", dict), ("thresholds", dict), ("exclude", list), ("exclude_at", dict)):
        if not isinstance(data.get(name), kind):
            raise PolicyError(
                f"{name} is missing or not a {kind.__name__} in a policy; give what Policy.as_dict returns"
            )
    try:
        pair = SignalPair.from_dict(data["pair"])
    except (TypeError, ValueError) as error:
        raise PolicyError(f"{data['pair']} in a policy is not a pair: {error}") from error
    return {
        "thresholds": data["thresholds"],
        "exclude": frozenset(data["exclude"]),
        "exclude_at": data["exclude_at"],
        "pair": pair,
        "calibration": CalibrationRecord.from_dict(data["calibration"]) if "calibration" in data else None,
    }


def checked_numbers(name: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return the values as floats; `PolicyError` where one is not a number in [0, 1].

    >>> checked_numbers("threshold", {"explicit": 1})
    {'explicit': 1.0}
    """
    for signal, value in values.items():
        number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise PolicyError(f"the {name} of {signal!r} is {value!r}; give a number from 0 to 1")
    # Adding 0.0 makes 0.0 of -0.0: the two are equal, and equal policies have equal digests.
    return {signal: float(value) + 0.0 for signal, value in values.items()}


def _pair(names: Any) -> SignalPair:
    if not isinstance(names, dict) or set(names) != {"explicit", "minor"}:
        raise PolicyError(f"signals is {names!r}; give {_SIGNALS}, or leave it out for the real pair")
    try:
        return SignalPair.from_dict(names)
    except ValueError as error:
        raise PolicyError(f"[signals] does not name a pair: {error}") from error


def _key(signal: str) -> str:
    bare = signal.replace("-", "").replace("_", "")
    return signal if bare.isalnum() and bare.isascii() else _quoted(signal)


def _table(values: Mapping[str, Any], name: str) -> list[str]:
    """Return the lines of a table, and behind them those of the tables in it."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items() if not _is_table(value)]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{name}.{_key(key)}]", *_table(value, f"{name}.{_key(key)}")]
        elif _is_table(value):
            for one in value:
                lines += ["", f"[[{name}.{_key(key)}]]", *_table(one, f"{name}.{_key(key)}")]
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(one, Mapping) for one in value))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(name: str) -> str:
    """Return a TOML string: JSON's escapes are TOML's too, but for pairs of surrogates and for an unescaped DEL."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
