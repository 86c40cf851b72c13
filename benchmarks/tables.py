"""Passages of the documentation that give committed results: ``python benchmarks/tables.py`` fills them in.

On its page each passage stands between two comments, ``<!-- NAME -->`` and ``<!-- end of NAME -->``. A test compares,
so that no number stands there that is not in the JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
DETECTORS = {"l14": "ViT-L/14", "b32": "ViT-B/32"}
BASELINES = {
    "one_signal": "one-signal cut (NeMo Curator's rule)",
    "laion_400m": "LAION-400M's rule, gate as published",
    "laion_400m_loosened": "LAION-400M's rule, gate moved too",
    "direct": "a direct classifier of the pair",
}


def throughput(result: Mapping[str, Any]) -> str:
    """Images a second of the pipeline, and its rate over that of each other."""
    others = ("bare", "bare_in_threads", "plain_loop", "clip_retrieval", "nemo_curator")
    return _table(
        ("model, JPEG size", "images/s", "bare model", "the same in threads", "plain loop", "clip-retrieval",
         "NeMo Curator's stage"),
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
        ("the same, for other hands", "the first, calibrated on other writers"),
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


def machine(result: Mapping[str, Any]) -> str:
    """The machine that the throughput was measured on."""
    found = result["environment"]
    return f"Measured on {found['cores']} cores of {_article(found['cpu'])} with {found['instructions']}."


def other_machine(result: Mapping[str, Any]) -> str:
    """The same in short, from a machine whose processor runs the model faster."""
    found = result["environment"]
    case = next(c for c in result["cases"] if c["ratios"] == result["ratios"])
    ratios = case["ratios"]
    return (
        f"On {found['cores']} cores of {_article(found['cpu'])} with {found['instructions']}, which embeds "
        f"{_number(case['images_per_second']['bare'])} images a second with {case['architecture']},\n"
        f"what decoding takes weighs more: {ratios['pipeline_over_bare']:.2f} of the bare model's rate at "
        f"{case['jpeg_side']} pixels, {ratios['pipeline_over_plain_loop']:.1f} times the plain loop's\n"
        f"and {ratios['pipeline_over_clip_retrieval']:.1f} times clip-retrieval's."
    )


def parity(result: Mapping[str, Any]) -> str:
    """The difference that fast decoding makes."""
    found = result["decode_parity"]
    same = round(found["decisions"] * found["decisions_same"])
    return (
        "Beside exact decoding, the stand-in encoder's embeddings of photographs of 256 to 2048 pixels and of\n"
        f"stand-in pictures have a cosine of at least {found['cosine_min']:.4f},\n"
        f"and {same:,} of {found['decisions']:,} decisions are the same."
    )


def sizes(result: Mapping[str, Any]) -> str:
    """The number of pictures that the quality was measured on."""
    counts = {name: result["counts"][name] for name in ("train", "calibration", "test")}
    return (
        f"Thresholds promise that at most {_short(result['sizes']['max_miss_rate'])} of pairs are missed, with "
        f"{_short(result['sizes']['confidence'])} confidence, whatever the number of digits in a\n"
        f"picture. {counts['train']['pictures']:,} pictures for training, {counts['calibration']['pictures']:,} for "
        f"thresholds, {counts['test']['pictures']:,} to count on, of which {counts['test']['both']:,} hold the pair."
    )


def overhead(result: Mapping[str, Any]) -> str:
    """A scan's own time a sample, now and before, by source."""
    return _table(
        ("source", "with embeddings kept", "microseconds a sample", "in version 0.1.0"),
        [
            (
                row["source"],
                "yes" if row["embeddings"] else "no",
                *(f"{row['microseconds'][name][0]:.0f}" for name in ("this", "other")),
            )
            for row in result["rows"]
        ],
    )


def laion(result: Mapping[str, Any]) -> str:
    """The decisions that change where the vocabulary tables of LAION's detectors are dropped."""
    changed = []
    for name, arrays in result["laion_tables_dropped"].items():
        few, rows = (sum(array[what] for array in arrays.values()) for what in ("changed", "rows"))
        changed.append(f"{few:,} of {rows:,} decisions at 0.5 ({DETECTORS[name]})")
    return (
        "LAION's detectors hold vocabulary tables that the common ports drop. On the reference inputs, some of which\n"
        f"were made to meet them, that changes {' and '.join(changed)}."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage of a page, the file of results that it comes from, and the function that writes it."""

    page: str
    results: str
    write: Callable[[Mapping[str, Any]], str]

    def text(self) -> str:
        """The passage as the committed results have it."""
        return self.write(json.loads((RESULTS / self.results).read_text(encoding="utf-8")))


PASSAGES: dict[str, Passage] = {
    "loader": Passage(page="loaders.md", results="loader.json", write=loader),
    "throughput": Passage(page="speed.md", results="throughput.json", write=throughput),
    "machine": Passage(page="speed.md", results="throughput.json", write=machine),
    "other machine": Passage(page="speed.md", results="throughput_amx.json", write=other_machine),
    "parity": Passage(page="speed.md", results="throughput.json", write=parity),
    "overhead": Passage(page="speed.md", results="overhead.json", write=overhead),
    "sizes": Passage(page="quality.md", results="quality.json", write=sizes),
    "quality": Passage(page="quality.md", results="quality.json", write=quality),
    "positions": Passage(page="quality.md", results="quality.json", write=positions),
    "laion": Passage(page="quality.md", results="quality.json", write=laion),
}
"""All passages, by name."""

PAGES = tuple(dict.fromkeys(passage.page for passage in PASSAGES.values()))
"""The pages below ``docs/`` that hold passages."""


def passages_of(page: str) -> list[str]:
    """The names of a page's passages."""
    return [name for name, passage in PASSAGES.items() if passage.page == page]


def filled(text: str, names: Iterable[str]) -> str:
    """A page's text with the passages of these names as the results have them."""
    for name in names:
        passage = PASSAGES[name].text()
        between = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
        text, found = between.subn(lambda match, passage=passage: f"{match[1]}\n{passage}\n{match[2]}", text)
        if found != 1:
            raise ValueError(f"the page has {found} places for {name}; put <!-- {name} --> and its end there, once")
    return text


def _article(name: str) -> str:
    return f"{'an' if name[:1].upper() in 'AEIO' else 'a'} {name}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _short(share: float) -> str:
    return f"{100 * share:g} %"


def _percent(share: Mapping[str, float]) -> str:
    return f"{100 * share['value']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


if __name__ == "__main__":
    for page in PAGES:
        path = DOCS / page
        path.write_text(filled(path.read_text(encoding="utf-8"), passages_of(page)), encoding="utf-8")
