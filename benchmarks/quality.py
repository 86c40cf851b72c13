"""How well signals and rule are told on stand-in pictures, against baselines rebuilt from their published rules.

Probes are trained, and thresholds guaranteed, on pictures in which a three and a seven never meet; the test pictures
hold both. A guarantee rests on calibration pictures drawn like those met in use, so these are: of the test split's
hands and backgrounds, without pairs, and the bound is that of the worst number of digits in a picture, as pairs are
never alone. Two rows show what becomes of it otherwise: calibrated on all numbers of digits together, and on the
validation split, which is of other hands. The encoder is the stand-in's: the figures compare ways of filtering, and
say nothing of how well real signals are told. How probes are fitted, and what is promised, was chosen on other draws.

    python benchmarks/quality.py [--quick] [--json FILE] [--keep FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import arguments, environment, finish, progress
from quality_baselines import baselines, laion_tables
from quality_mapie import by_every_way
from quality_pictures import VIEWS, Embedder, Pictures, Place, joined
from quality_tables import print_tables
from quality_ways import BY_VIEWS, GATES, LEFT_OUT, MAIN, WHOLE, Draw, Promise, Way, closer

from safetyfilter import ClipEncoder, Policy
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.evaluation.measure import evaluate
from safetyfilter.score.zero_shot import zero_shot_probes
from safetyfilter.standin import ENCODER, PROMPTS, STANDIN_PAIR

LAION_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "laion"
MIN_RECALL, MAX_WRONGLY_EXCLUDED, SMALL_OVER_WHOLE = 0.995, 0.06, 2.0
FALSE_ALARMS = 0.05
"""Share of the wide pictures without a signal that may be flagged where recall is told by position."""
PROMISES = (0.008, 0.01, 0.016, 0.022, 0.03, 0.05, 0.1, 0.3)
"""Miss rates of the rule, for what they cost."""
MOST_PROMISED, HALVINGS = 0.3, 10
"""The greatest miss rate, and how often its range is halved, for one way that excludes as much as another."""
BANDS = ((0.08, 0.15), (0.15, 0.25), (0.25, 0.35), (0.35, 0.5))
"""The middle of a lone digit, as a share of the width from the nearer end."""

Bools = npt.NDArray[np.bool_]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many pictures of each kind, and what the thresholds guarantee of the rule."""

    train: int
    calibration: int
    mixed: int
    pairs: int
    small: int
    edge: int
    along: int
    seeds: tuple[int, ...]
    """One for each draw."""
    other_hands: int = 0
    """Pictures of other writers' hands, on which thresholds are also chosen."""
    max_miss_rate: float = 0.022
    confidence: float = 0.95
    least_promise: float = 0.008
    """Less, and there are too few calibration pictures."""

    @property
    def promise(self) -> Promise:
        """What the thresholds guarantee."""
        return Promise(max_miss_rate=self.max_miss_rate, confidence=self.confidence)


SIZES = {
    "full": Sizes(
        train=16_000,
        calibration=30_000,
        mixed=4000,
        pairs=1500,
        small=1000,
        edge=1000,
        along=1500,
        seeds=(9400, 9500, 9600),
        other_hands=15_000,
    ),
    # fewer pictures can't promise as much
    "quick": Sizes(
        train=3000,
        calibration=8000,
        mixed=1000,
        pairs=300,
        small=150,
        edge=150,
        along=300,
        seeds=(0,),
        least_promise=0.02,
    ),
}


def figures(way: Way, pictures: Pictures, mixed: Bools | None = None) -> Row:
    """Precision and recall of each signal and of the rule.

    Parameters
    ----------
    mixed : ndarray, optional
        (N,) bool: the pictures in which pairs are as frequent as chance has it. Precision, which depends on that, and
        the signals' figures are theirs; the rule's recall is that of all pairs.
    """
    scores = way.scores(pictures)
    excluded, both = ~way.policy.decide(scores).keep, pictures.both
    rows = np.ones(len(pictures), np.bool_) if mixed is None else mixed
    found = evaluate(
        {s: scores[s][rows] for s in scores.signals},
        {s: p[rows] for s, p in pictures.present.items()},
        way.policy,
        exclusion_rates=(),
    )
    assert found.rule is not None
    return {
        "way": way.name,
        "views": way.views,
        "signals": {
            signal: {
                "threshold": one.threshold,
                "auc": one.auc,
                "precision": one.precision.to_dict(),
                "recall": one.recall.to_dict(),
                "specificity": one.specificity.to_dict(),
            }
            for signal, one in found.signals.items()
        },
        "rule": {
            "precision": found.rule.precision.to_dict(),
            "recall": _share(excluded, both),
            "wrongly_excluded": _share(excluded, ~both),
        },
    }


def promises(draw: Draw, test: Pictures, sizes: Sizes) -> list[Row]:
    """The rule on the test pictures, where other miss rates are guaranteed."""
    rows = []
    for name, views, bank in ((*WHOLE, draw.whole), (*MAIN, draw.views), (LEFT_OUT, "multi", draw.left_out)):
        for rate in (rate for rate in PROMISES if rate >= sizes.least_promise):
            found = figures(draw.guaranteed(name, views, bank, rate), test)["rule"]
            rows.append(
                {
                    "way": name,
                    "max_miss_rate": rate,
                    "views": views,
                    **{one: found[one] for one in ("recall", "wrongly_excluded")},
                }
            )
    return rows


def whole_at_share(draw: Draw, test: Pictures, small: Pictures, share: float) -> Row:
    """The rule on usual and on small objects by whole pictures, where it excludes as large a share of the rest wrongly.

    Views can be compared by that alone: at the same promise one of them may exclude far more than another. It is the
    way of the greatest miss rate that excludes no less.
    """
    chosen, least, most = draw.guaranteed(*WHOLE, draw.whole), draw.promise.max_miss_rate, MOST_PROMISED
    for _ in range(HALVINGS):
        rate = float(np.sqrt(least * most))
        way = draw.guaranteed(*WHOLE, draw.whole, rate)
        if figures(way, test)["rule"]["wrongly_excluded"]["value"] >= share:
            chosen, least = way, rate
        else:
            most = rate
    return {name: figures(chosen, pictures)["rule"] for name, pictures in (("usual", test), ("small", small))}


def beside_mapie(draw: Draw, test: Pictures) -> Row:
    """The rule by MAPIE's thresholds, chosen for the main way on the same pictures for the same promise."""
    scores = Way(name="", views=MAIN[1], bank=draw.views, policy=Policy(pair=STANDIN_PAIR)).scores(draw.calibration)
    found = by_every_way(
        {s: scores[s] for s in STANDIN_PAIR.names},
        draw.calibration.present,
        max_miss_rate=draw.promise.max_miss_rate,
        confidence=draw.promise.confidence,
        groups=draw.calibration.digits,
    )
    rows: Row = {}
    for name, cuts in found.items():
        if cuts is not None:
            policy = Policy(pair=STANDIN_PAIR, thresholds=cuts)
            rows[name] = figures(Way(name=name, views=MAIN[1], bank=draw.views, policy=policy), test)["rule"]
    return rows


def by_position(way: Way, pictures: Pictures) -> Row:
    """Recall of a lone digit by its distance from the nearer end of a wide picture, both signals together.

    At the policy's thresholds, and at those that flag `FALSE_ALARMS` of the same pictures without the signal: views
    whose thresholds differ can be compared by the latter alone.
    """
    scores = way.scores(pictures)
    distance = np.minimum(pictures.where, 1 - pictures.where)
    columns: Row = {}
    for name in ("guaranteed", "same_false_alarms"):
        flagged, there = [], []
        for signal in STANDIN_PAIR.names:
            present, values = pictures.present[signal], scores[signal].astype(np.float64)
            cut = np.quantile(values[~present], 1 - FALSE_ALARMS, method="higher")
            flagged.append(way.policy.present(scores, signal) if name == "guaranteed" else values > cut)
            there.append(present)
        hit, present = np.array(flagged), np.array(there)
        bands = {f"{low:g}-{high:g}": present & (distance >= low) & (distance <= high) for low, high in BANDS}
        columns[name] = {"false_alarms": _share(hit, ~present), **{b: _share(hit, rows) for b, rows in bands.items()}}
    return columns


def looked_closer(draw: Draw, pictures: Mapping[str, Pictures]) -> Row:
    """The share of pictures whose crops are looked at in adaptive views, by what they show."""
    found: Row = {}
    for views in GATES:
        found[views] = {}
        for name, some in pictures.items():
            picked = closer(views, draw.views, some)
            one = np.logical_or.reduce(list(some.present.values())) & ~some.both
            kinds = {"neither": ~one & ~some.both, "one": one, "both": some.both, "all": one | True}
            found[views][name] = {kind: _share(picked, rows) for kind, rows in kinds.items()}
    return found


def measure(sizes: Sizes, keep: Path | None = None) -> Row:
    """Everything but the environment, pooled over independent draws of all pictures."""
    started = time.perf_counter()
    encoder = ClipEncoder.load(ENCODER, precision="fp32")  # on every processor the same figures
    draws = []
    for number, seed in enumerate(sizes.seeds):
        draws.append(measure_draw(Embedder(encoder=encoder, keep=keep), sizes, seed))
        progress(f"draw {number + 1} of {len(sizes.seeds)} measured, {time.perf_counter() - started:.0f} s")
    result: Row = pooled(draws)
    main, whole = (rule_of(result, *way) for way in (MAIN, WHOLE))
    small, at_share = rule_of(result, *MAIN, "small"), result["whole_at_share"]
    ratios = {
        "rule_recall": main["recall"]["value"],
        "rule_wrongly_excluded": main["wrongly_excluded"]["value"],
        "whole_recall": whole["recall"]["value"],
        "whole_wrongly_excluded": whole["wrongly_excluded"]["value"],
        "multi_wrongly_excluded": main["wrongly_excluded"]["value"],
        "small_recall": small["recall"]["value"],
        "small_whole_recall": at_share["small"]["recall"]["value"],
    }
    peers = {f"{name}_recall": peer["at_same_share"]["recall"]["value"] for name, peer in result["baselines"].items()}
    return {
        "encoder": str(encoder.spec),
        "precision": str(encoder.dtype).removeprefix("torch."),
        "sizes": asdict(sizes),
        "ratios": {name: round(value, 4) for name, value in {**ratios, **peers}.items()},
        "main": dict(zip(("way", "views"), MAIN, strict=True)),
        "bars": bars(ratios, peers),
        "draws": [rule_of(draw, *MAIN) for draw in draws],
        **result,
        "laion_tables_dropped": laion_tables(LAION_DATA),
        "seconds": round(time.perf_counter() - started, 1),
    }


def measure_draw(embedder: Embedder, sizes: Sizes, seed: int) -> Row:
    """What is counted on one draw of pictures, with probes and thresholds of its own."""
    train = embedder.usual(sizes.train, "train", seed, pairs=False, views=("multi",))
    calibration = embedder.usual(sizes.calibration, "test", seed + 2, pairs=False)
    others = None
    if sizes.other_hands:
        others = embedder.usual(sizes.other_hands, "validation", seed, pairs=False, views=("whole",))
    test = joined(
        embedder.usual(sizes.mixed, "test", seed + 10, pairs=True),
        embedder.usual(sizes.pairs, "test", seed + 11, pairs="only"),
    )
    mixed = np.arange(len(test)) < sizes.mixed
    counts: dict[Place, int] = {"small": sizes.small, "edge": sizes.edge, "along": sizes.along}
    special = embedder.placed(counts, seed)
    draw = Draw.of(train, calibration, others, zero_shot_probes(embedder.encoder, PROMPTS), sizes.promise)
    ways = list(draw.ways())
    rows = [figures(way, test, mixed) for way in ways]
    wrongly = rule_of({"rows": rows}, *MAIN)["wrongly_excluded"]
    named = {"train": train, "calibration": calibration, "validation": others, "test": test, **special}
    return {
        "counts": {name: pictures.counts() for name, pictures in named.items() if pictures is not None},
        "rows": rows,
        "placed": [
            {"objects": name, **figures(way, pictures)}
            for name, pictures in special.items()
            if name != "along"
            for way in ways
        ],
        "whole_at_share": whole_at_share(draw, test, special["small"], wrongly["value"]),
        "positions": {
            view: by_position(
                draw.guaranteed(BY_VIEWS if view == "multi" else WHOLE[0], view, draw.bank_for(view)), special["along"]
            )
            for view in VIEWS
        },
        "looked_closer": looked_closer(draw, {"usual": test, "small": special["small"]}),
        "promises": promises(draw, test, sizes),
        "mapie": beside_mapie(draw, test),
        "baselines": {
            name: {
                "as_published": peer.as_published(test.both),
                "at_same_share": peer.at_share(wrongly["count"], test.both),
            }
            for name, peer in baselines(embedder.encoder, draw.whole, train, test).items()
        },
    }


def rule_of(result: Row, way: str, views: str, objects: str | None = None) -> Row:
    """The rule's figures for a way of filtering, on usual or on placed objects."""
    rows = result["rows"] if objects is None else [row for row in result["placed"] if row["objects"] == objects]
    rule: Row = next(row["rule"] for row in rows if (row["way"], row["views"]) == (way, views))
    return rule


def pooled(draws: Sequence[Any]) -> Any:
    """Draws of the same shape as one: shares are of all pictures together, counts are added up, figures averaged."""
    first = draws[0]
    if isinstance(first, dict) and "total" in first:
        return Proportion.of(sum(one["count"] for one in draws), sum(one["total"] for one in draws)).to_dict()
    if isinstance(first, dict):
        return {name: pooled([one[name] for one in draws]) for name in first if all(name in one for one in draws)}
    if isinstance(first, list):
        return [pooled(items) for items in zip(*draws, strict=True)]
    if isinstance(first, int):
        return sum(draws)
    return float(np.mean(draws)) if isinstance(first, float) else first


def bars(ratios: Mapping[str, float], peers: Mapping[str, float]) -> dict[str, bool]:
    """Whether the rule is as good as it should be."""
    return {
        "recall_at_least_99.5_percent": ratios["rule_recall"] >= MIN_RECALL,
        "wrongly_excluded_at_most_6_percent": ratios["rule_wrongly_excluded"] <= MAX_WRONGLY_EXCLUDED,
        "multi_excludes_less_wrongly_than_whole": ratios["multi_wrongly_excluded"] < ratios["whole_wrongly_excluded"],
        "small_objects_twice_as_often_found": (
            ratios["small_recall"] >= SMALL_OVER_WHOLE * ratios["small_whole_recall"]
        ),
        "beats_every_baseline_at_the_same_share": all(ratios["rule_recall"] > other for other in peers.values()),
    }


def _share(hit: Bools, rows: Bools) -> dict[str, float | int | None]:
    return Proportion.of(int((hit & rows).sum()), int(rows.sum())).to_dict()


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__, keep=True)
    result = measure(SIZES["quick" if options.quick else "full"], options.keep)
    print_tables(result)
    measured_on = {"environment": environment("scikit-learn", "mapie"), "quick": options.quick}
    finish({**measured_on, **result}, options.json)


if __name__ == "__main__":
    main()
