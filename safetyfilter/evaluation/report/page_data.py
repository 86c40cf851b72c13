"""The numbers that the report's script draws and counts from: cells, thresholds, bins; no row, and no score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import PRESETS
from safetyfilter.evaluation.grid import Grid, binned
from safetyfilter.evaluation.logit_axis import TICK_TEXTS, TICKS, axis_places
from safetyfilter.evaluation.report.bins import FINE, bins, edge_text
from safetyfilter.evaluation.report.parts import PartGroup, part_groups, percent
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import visible
from safetyfilter.signals import PAIR


def page_data(summary: RunSummary) -> dict[str, Any]:
    """Return plain values for JSON, all that the page's script needs.

    Parameters
    ----------
    summary : RunSummary
        The run's counts.
    """
    plane, counts = summary.plane, summary.record.counts
    return {
        "axis": {
            "edges": _places(FINE),
            "bins": [str(each) for each in bins()],
            "ticks": _places(TICKS),
            "texts": list(TICK_TEXTS),
        },
        "plane": binned(plane.scored, plane.grids, FINE).tolist(),
        "pair": [visible(name) for name in plane.policy.pair.names],
        "spread": [
            {
                "signal": visible(signal),
                "counts": binned(counts, [summary.grid], FINE).tolist(),
                "cuts": _places(_cuts(summary.record.policy, signal)),
            }
            for signal, counts in summary.spread.items()
        ],
        "parts": [_group(group) for group in part_groups(summary.parts)],
        "count": len(summary.parts),
        "excluded": percent(counts["excluded"], counts["seen"]),
        "trial": _trial(summary) if summary.movable else None,
    }


def _trial(summary: RunSummary) -> dict[str, Any]:
    """All that other thresholds on the pair are tried with."""
    plane, policy = summary.plane, summary.record.policy
    return {
        "seen": plane.seen,
        "reasons": dict(plane.reasons),
        "scored": plane.scored.ravel().tolist(),
        "free": plane.free.ravel().tolist(),
        "grids": [_grid(grid) for grid in plane.grids],
        "policy": _choice(policy, plane.grids),
        "presets": {name: _choice(_preset(name, policy), plane.grids) for name in PRESETS},
        "toml": visible(policy.to_toml()),
        "signals": list(policy.pair.names) if policy.pair != PAIR else None,
        "thresholds": [_entry(signal, value, policy) for signal, value in policy.thresholds.items()],
        "exclude": {signal: _rule(policy, signal) for signal in policy.thresholds},
    }


def _grid(grid: Grid) -> dict[str, Any]:
    """Thresholds as a policy's TOML writes them, as people read them, and along the axis."""
    values = grid.thresholds.tolist()
    return {
        "values": values,
        "written": [repr(value) for value in values],
        "shown": [edge_text(value) for value in values],
        "places": _places(values),
    }


def _preset(name: str, policy: Policy) -> Policy:
    return Policy.preset(name).for_pair(policy.pair)


def _choice(policy: Policy, grids: tuple[Grid, Grid]) -> dict[str, Any]:
    """The places of a policy's thresholds and cuts; of a signal that is not excluded by itself no cut."""
    names = policy.pair.names
    return {
        "thresholds": [grid.place(policy.thresholds[name]) for name, grid in zip(names, grids, strict=True)],
        "alone": [name in policy.exclude for name in names],
        "cuts": [
            grid.place(policy.exclude_at[name]) if name in policy.exclude_at else None
            for name, grid in zip(names, grids, strict=True)
        ],
    }


def _entry(signal: str, value: float, policy: Policy) -> dict[str, Any]:
    names = policy.pair.names
    return {"signal": signal, "written": repr(value), "axis": names.index(signal) if signal in names else None}


def _rule(policy: Policy, signal: str) -> str:
    if signal not in policy.exclude:
        return "false"
    return repr(policy.exclude_at[signal]) if signal in policy.exclude_at else "true"


def _cuts(policy: Policy, signal: str) -> list[float]:
    """The thresholds and cuts in use on a signal, of which a further one may have none."""
    found: list[Mapping[str, float]] = [policy.thresholds, policy.exclude_at]
    return sorted({each[signal] for each in found if signal in each})


def _group(group: PartGroup) -> dict[str, Any]:
    return {
        "parts": str(group),
        "at": (group.first + group.last) / 2,
        "excluded": [group.excluded.lowest, group.excluded.percent, group.excluded.highest],
        "unscored": [group.unscored.lowest, group.unscored.percent, group.unscored.highest],
    }


def _places(scores: Any) -> list[float]:
    places: list[float] = np.round(axis_places(scores), 4).tolist() if len(scores) else []
    return places
