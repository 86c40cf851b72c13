"""The passages of the documentation that give how well pairs are told on stand-ins."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from passage_text import percent, short, table

DETECTORS = {"l14": "ViT-L/14", "b32": "ViT-B/32"}
WHOLE, BY_VIEWS = "trained on whole pictures, guaranteed", "trained on views, guaranteed"
EACH = "trained on views, each by itself, guaranteed"
LEFT_OUT = "trained on views without the other's, guaranteed"
WAYS = {
    (WHOLE, "whole"): "`whole`",
    (WHOLE, "multi"): "`multi`, by the same probes, trained on whole pictures",
    (EACH, "multi"): "`multi`, by probes trained on its views",
    (BY_VIEWS, "multi"): "`multi`, by probes trained on its views, `--beside-whole --other-column`",
    (LEFT_OUT, "multi"): "the same without `--other-column` and pictures of the other signal",
    (BY_VIEWS, "adaptive, either"): "`adaptive`, closer where either signal may be there",
    (BY_VIEWS, "adaptive, both"): "`adaptive`, closer where both may be there",
    (WHOLE, "center"): "`center`, CLIP's own crop",
}
OTHERWISE = {
    ("the same, not by number of digits", "whole"): "`whole`, not by number of objects",
    ("the same, for other hands", "whole"): "`whole`, calibrated on other writers",
}
BASELINES = {
    "one_signal": "one-signal cut (NeMo Curator's rule)",
    "laion_400m": "LAION-400M's rule, gate as published",
    "laion_400m_loosened": "LAION-400M's rule, gate moved too",
    "direct": "a direct classifier of the pair",
}
MAPIE = {"each": "each signal by itself", "together": "both thresholds together"}

MIX = {"neither": 0.899, "one": 0.1, "both": 0.001}
"""The shares of pictures, by what they show, for which the work of adaptive views is told."""

Result = Mapping[str, Any]


def sizes(result: Result) -> str:
    """The number of pictures that the quality was measured on."""
    counts = {name: result["counts"][name] for name in ("train", "calibration", "test")}
    return textwrap.fill(
        f"Thresholds promise that at most {short(result['sizes']['max_miss_rate'])} of pairs are missed, with "
        f"{short(result['sizes']['confidence'])} confidence, whatever the number of digits in a picture. "
        f"{counts['train']['pictures']:,} pictures for training, {counts['calibration']['pictures']:,} for "
        f"thresholds, {counts['test']['pictures']:,} to count on, of which {counts['test']['both']:,} hold the pair, "
        f"in {len(result['sizes']['seeds'])} draws.",
        120,
    )


def quality(result: Result) -> str:
    """The rule's recall and what it excludes wrongly, in each way, and the baselines at the same share."""
    rules = {(row["way"], row["views"]): row["rule"] for row in result["rows"]}
    lines = [(name, *_figures(rules[way])) for way, name in {**WAYS, **OTHERWISE}.items() if way in rules]
    lines += [
        (f"`multi`, thresholds by MAPIE, {name}", *_figures(result["mapie"][way]))
        for way, name in MAPIE.items()
        if way in result["mapie"]
    ]
    share = rules[result["main"]["way"], result["main"]["views"]]["wrongly_excluded"]
    lines += [
        (
            f"{title}, same share",
            percent(result["baselines"][name]["at_same_share"]["recall"]),
            f"{100 * share['value']:.1f}",
        )
        for name, title in BASELINES.items()
    ]
    return table(("", "recall of pairs, % (95 % interval)", "wrongly excluded, %"), lines)


def small(result: Result) -> str:
    """The same where objects are small."""
    rules = {(row["way"], row["views"]): row["rule"] for row in result["placed"] if row["objects"] == "small"}
    alike = _figures(result["whole_at_share"]["small"])
    return table(
        ("", "recall of pairs, % (95 % interval)", "wrongly excluded, %"),
        [
            *((name, *_figures(rules[way])) for way, name in WAYS.items()),
            ("`whole`, with thresholds that exclude as many usual pictures wrongly as `multi` does", *alike),
        ],
    )


def promises(result: Result) -> str:
    """The rule's recall and what it excludes wrongly, by what is promised."""
    ways = {WHOLE: "`whole`", BY_VIEWS: "`multi`", LEFT_OUT: "`multi` without `--other-column`"}
    found: dict[float, dict[str, Result]] = {}
    for row in result["promises"]:
        found.setdefault(row["max_miss_rate"], {})[row["way"]] = row
    return table(
        ("at most missed, %", *(f"{name}: recall, % / wrongly excluded, %" for name in ways.values())),
        [
            (
                f"{100 * rate:g}",
                *(
                    f"{100 * rows[w]['recall']['value']:.1f} / {100 * rows[w]['wrongly_excluded']['value']:.1f}"
                    for w in ways
                ),
            )
            for rate, rows in found.items()
        ],
    )


def closer(result: Result) -> str:
    """The pictures that adaptive views look at closer, by what they show."""
    found = result["looked_closer"]
    return table(
        ("closer where", "neither signal shown, %", "one, %", "both, %", "both, but small, %", "work, times `whole`"),
        [
            (
                f"{views.partition(', ')[2]} may be there",
                *(percent(kinds["usual"][kind]) for kind in ("neither", "one", "both")),
                percent(kinds["small"]["both"]),
                f"{1 + 4 * sum(share * kinds['usual'][kind]['value'] for kind, share in MIX.items()):.2f}",
            )
            for views, kinds in found.items()
        ],
    )


def adaptive_cost(result: Result) -> str:
    """The processor's time of ways of looking, over that of the whole picture alone."""
    first = result["cases"][0]["pipeline"]["cost_over_whole"]
    names = {way: f"`{way}`" for way in first}
    names |= {way: f"`adaptive`, {way.removeprefix('adaptive_')} % looked at closer" for way in first if "_" in way}
    return table(
        ("", *names.values()),
        [
            (f"{case['encoder']}, {name}", *(f"{case[what]['cost_over_whole'][way]:.2f}" for way in first))
            for case in result["cases"]
            for what, name in (("bare", "the model alone"), ("pipeline", "from JPEG files of 512 pixels"))
        ],
    )


def adaptive_machine(result: Result) -> str:
    """The processor of these figures."""
    return f"(float32, on {result['environment']['cpu']}.)"


def positions(result: Result) -> str:
    """Recall of a lone object in a wide picture, by its distance from the nearer end."""
    columns = {view: column["same_false_alarms"] for view, column in result["positions"].items()}
    bands = [name for name in columns["whole"] if name != "false_alarms"]
    return table(
        ("views", *(f"{band} of the width" for band in bands)),
        [(view, *(f"{100 * columns[view][band]['value']:.0f} %" for band in bands)) for view in columns],
    )


def laion(result: Result) -> str:
    """The decisions that change where the vocabulary tables of LAION's detectors are dropped."""
    changed = []
    for name, arrays in result["laion_tables_dropped"].items():
        few, rows = (sum(array[what] for array in arrays.values()) for what in ("changed", "rows"))
        changed.append(f"{few:,} of {rows:,} decisions at 0.5 ({DETECTORS[name]})")
    return (
        "LAION's detectors hold vocabulary tables that the common ports drop. On the reference inputs, some of which\n"
        f"were made to meet them, that changes {' and '.join(changed)}."
    )


def _figures(rule: Result) -> tuple[str, str]:
    return percent(rule["recall"]), percent(rule["wrongly_excluded"])
