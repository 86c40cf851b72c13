"""The quality benchmark's figures as tables, in percent, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import show
from quality_baselines import TITLES

from safetyfilter.standin import STANDIN_PAIR


def print_tables(result: Mapping[str, Any]) -> None:
    """The figures in percent, with 95 % intervals."""
    pair = STANDIN_PAIR.names
    show(
        "Signals on test pictures: precision and recall, %",
        ("probes and thresholds", "views", *(f"{s} {what}" for s in pair for what in ("prec.", "recall"))),
        [
            (
                row["way"],
                row["views"],
                *(_percent(row["signals"][s][what]) for s in pair for what in ("precision", "recall")),
            )
            for row in result["rows"]
        ],
    )
    show(
        "The rule on test pictures, %",
        ("probes and thresholds", "views", "precision", "recall", "wrongly excluded"),
        [
            (row["way"], row["views"], *(_percent(row["rule"][w]) for w in ("precision", "recall", "wrongly_excluded")))
            for row in result["rows"]
        ],
    )
    show(
        "Small and edge-placed objects, half of the pictures with both: recall of signals and rule, %",
        ("objects, probes and thresholds", "views", *pair, "rule", "wrongly excluded"),
        [
            (
                f"{row['objects']}: {row['way']}",
                row["views"],
                *(_percent(row["signals"][s]["recall"]) for s in pair),
                *(_percent(row["rule"][w]) for w in ("recall", "wrongly_excluded")),
            )
            for row in result["placed"]
        ],
    )
    show(
        "What a promise costs: the rule's recall and what it excludes wrongly, by promised miss rate, %",
        ("promised miss rate", "probes", "views", "recall", "wrongly excluded"),
        [
            (
                f"{row['max_miss_rate']:.1%}",
                row["way"],
                row["views"],
                *(_percent(row[w]) for w in ("recall", "wrongly_excluded")),
            )
            for row in result["promises"]
        ],
    )
    positions = {view: columns["same_false_alarms"] for view, columns in result["positions"].items()}
    bands = [name for name in positions["whole"] if name != "false_alarms"]
    show(
        "Wide pictures: recall by distance from the nearer end, at equally many false alarms, %",
        ("views", *bands),
        [(view, *(_percent(columns[band]) for band in bands)) for view, columns in positions.items()],
    )
    show(
        "Baselines: recall of pairs at the share of the rest that the rule excludes, and as published, %",
        ("baseline", "same share: recall", "published: recall", "published: wrongly excluded"),
        [
            (f"this library, {result['main']['way']}", f"{result['ratios']['rule_recall']:.1%}", "-", "-"),
            *(
                (
                    TITLES[name],
                    _percent(peer["at_same_share"]["recall"]),
                    *(
                        _percent(peer["as_published"][w]) if peer["as_published"] else "-"
                        for w in ("recall", "wrongly_excluded")
                    ),
                )
                for name, peer in result["baselines"].items()
            ),
        ],
    )
    show(
        "MAPIE's thresholds for the same promise, %",
        ("way", "recall", "wrongly excluded"),
        [(way, *(_percent(row[w]) for w in ("recall", "wrongly_excluded"))) for way, row in result["mapie"].items()],
    )
    show(
        "Adaptive views: pictures that are looked at closer, by what they show, %",
        ("views", "pictures", "neither", "one", "both"),
        [
            (views, name, *(_percent(kinds[kind]) for kind in ("neither", "one", "both")))
            for views, pictures in result["looked_closer"].items()
            for name, kinds in pictures.items()
        ],
    )
    if result["laion_tables_dropped"]:
        show(
            "LAION's detectors: decisions at 0.5 that change without the vocabulary tables",
            ("detector, reference array", "changed", "rows"),
            [
                (f"{detector} {array}", counts["changed"], counts["rows"])
                for detector, arrays in result["laion_tables_dropped"].items()
                for array, counts in arrays.items()
            ],
        )
    for bar, holds in result["bars"].items():
        print(f"{bar}: {'holds' if holds else 'does not hold'}")


def _percent(share: Mapping[str, float | None]) -> str:
    value, low, high = (share[name] for name in ("value", "low", "high"))
    return (
        "-" if value is None or low is None or high is None else f"{100 * value:.1f} ({100 * low:.1f}-{100 * high:.1f})"
    )
