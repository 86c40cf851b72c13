"""The README's tables, from the committed results: ``python benchmarks/tables.py`` prints them.

A test compares them with the README, so that no number stands there that is not in the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BASELINES = {
    "one_signal": "one-signal cut (NeMo Curator's rule)",
    "laion_400m": "LAION-400M's rule, gate as published",
    "laion_400m_loosened": "LAION-400M's rule, gate moved too",
    "direct": "a direct classifier of the pair",
}


def throughput(result: Mapping[str, Any]) -> str:
    """Images a second of the pipeline, and its rate over that of each other."""
    others = ("bare", "plain_loop", "clip_retrieval", "nemo_curator")
    return _table(
        ("model, JPEG size", "images/s", "bare model", "plain loop", "clip-retrieval", "NeMo Curator's stage"),
        [
            (
                f"{case['architecture']}, {case['jpeg_side']} px",
                _number(case["images_per_second"]["pipeline"]),
                *(f"{case['ratios'][name]:.2f}" if (name := f"pipeline_over_{o}") in case["ratios"] else "-"
                  for o in others),
            )
            for case in result["cases"]
        ],
    )  # fmt: skip


def loader(result: Mapping[str, Any]) -> str:
    """Rates of filtered loaders over unfiltered ones, lookups and memory."""
    ratios, found = result["ratios"], result["lookups"]
    return _table(
        ("measured", "result"),
        [
            ("map-style loader by decisions, over unfiltered", f"{ratios['decisions_over_unfiltered']:.2f}"),
            ("the same with content checks", f"{ratios['content_checks_over_unfiltered']:.2f}"),
            ("iterable loader by decisions, over unfiltered", f"{ratios['iterable_decisions_over_unfiltered']:.2f}"),
            ("the same with content checks", f"{ratios['iterable_content_checks_over_unfiltered']:.2f}"),
            ("online with the stand-in encoder, over a scan", f"{ratios['online_over_scan']:.2f}"),
            ("a million lookups, one by one", f"{found['million_one_by_one_median_s']:.2f} s"),
            ("a million lookups, batched", f"{found['million_batched_median_s']:.2f} s"),
            ("opening 10 million decisions", f"{1000 * found['opened_s']:.0f} ms"),
            (f"memory of {found['workers']} workers together", f"{found['workers_together_mb']:.0f} MB"),
        ],
    )


def quality(result: Mapping[str, Any]) -> str:
    """The rule's recall and what it excludes wrongly, by view mode, and the baselines at the same share."""
    views = {"whole": "whole picture", "multi": "whole and four crops", "center": "CLIP's centre crop"}
    rows = {row["views"]: row["rule"] for row in result["rows"] if row["way"] == result["main"]["way"]}
    lines = [
        (f"guaranteed thresholds, {name}", _percent(rows[view]["recall"]), _percent(rows[view]["wrongly_excluded"]))
        for view, name in views.items()
    ]
    for way, name in (
        ("the same, not by number of digits", "the first, not by number of objects"),
        ("the same, for other hands", "the first, calibrated on other hands"),
    ):
        rule = next(row["rule"] for row in result["rows"] if row["way"] == way)
        lines.append((name, _percent(rule["recall"]), _percent(rule["wrongly_excluded"])))
    share = rows[result["main"]["views"]]["wrongly_excluded"]
    for name, title in BASELINES.items():
        lines.append((f"{title}, same share", _percent(result["baselines"][name]["at_same_share"]["recall"]),
                      f"{100 * share['value']:.1f}"))  # fmt: skip
    return _table(("", "recall of pairs, % (95 % interval)", "wrongly excluded, %"), lines)


def positions(result: Mapping[str, Any]) -> str:
    """Recall of a lone object in a wide picture, by its distance from the nearer end."""
    columns = {view: column["same_false_alarms"] for view, column in result["positions"].items()}
    bands = [name for name in columns["whole"] if name != "false_alarms"]
    return _table(
        ("views", *(f"{band} of the width" for band in bands)),
        [(view, *(f"{100 * columns[view][band]['value']:.0f} %" for band in bands)) for view in columns],
    )


TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "throughput": ("throughput.json", throughput),
    "loader": ("loader.json", loader),
    "quality": ("quality.json", quality),
    "positions": ("quality.json", positions),
}


def tables() -> dict[str, str]:
    """All tables, by name, of the results that are there."""
    return {
        name: table(json.loads((RESULTS / file).read_text()))
        for name, (file, table) in TABLES.items()
        if (RESULTS / file).exists()
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(share: Mapping[str, float]) -> str:
    return f"{100 * share['value']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


if __name__ == "__main__":
    for name, table in tables().items():
        print(f"{name}\n\n{table}\n")
