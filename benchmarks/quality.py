"""How well signals and rule are told on stand-in pictures, against baselines rebuilt from their published rules.

Probes are trained, and thresholds guaranteed, on pictures in which a three and a seven never meet; the test pictures
hold both. A guarantee rests on calibration pictures drawn like those met in use, so these are: of the test split's
hands and backgrounds, without pairs, and the bound is that of the worst number of digits in a picture, as pairs are
never alone. Two rows show what becomes of it otherwise: calibrated on all numbers of digits together, and on the
validation split, which is of other hands. Probes are trained as the demo trains them, on the training split. The
encoder is the stand-in's: the figures compare ways of filtering, and say nothing of how well real signals are told.

    python benchmarks/quality.py [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import SEED, arguments, environment, finish, progress
from quality_baselines import baselines, laion_tables
from quality_pictures import VIEWS, Pictures, Place, joined, placed, usual
from quality_tables import print_tables

from safetyfilter import ClipEncoder, Policy
from safetyfilter.decide.risk import Calibration, calibrate_thresholds
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.evaluation.measure import evaluate
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.training import train_probe
from safetyfilter.score.zero_shot import zero_shot_probes
from safetyfilter.standin import ENCODER, PROMPTS, STANDIN_PAIR
from safetyfilter.standin.pictures import Labelled
from safetyfilter.standin.probes import fit_probes

LAION_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "laion"
MIN_RECALL, MAX_WRONGLY_EXCLUDED = 0.99, 0.10
FALSE_ALARMS = 0.05
"""Share of the wide pictures without a signal that may be flagged where recall is told by position."""
PROMISES = (0.005, 0.008, 0.01, 0.016, 0.02, 0.03, 0.05, 0.3)
"""Miss rates of the rule, for what they cost."""
BANDS = ((0.08, 0.15), (0.15, 0.25), (0.25, 0.35), (0.35, 0.5))
"""The middle of a lone digit, as a share of the width from the nearer end."""
MAIN = ("trained, guaranteed", "whole")
"""The way of filtering that the bars are about, and what a scan does by default."""
UNGROUPED, OTHER_HANDS = "the same, not by number of digits", "the same, for other hands"
"""What becomes of the guarantee where one thing that it rests on is not so."""

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
    draws: int = 1
    other_hands: bool = True
    """Whether thresholds are also chosen on as many pictures of other writers' hands."""
    max_miss_rate: float = 0.008
    confidence: float = 0.95
    least_promise: float = 0.005
    """Less, and there are too few calibration pictures."""


SIZES = {
    # Chosen on other draws than those counted here. With 20,000 to calibrate on instead of 60,000, chance has more of a
    # say in the thresholds: at the same promise, 6 to 15 % were wrongly excluded. With 0.8 % promised, 99 % are found:
    # in pairs, digits are a little more often missed than without.
    "full": Sizes(train=16_000, calibration=60_000, mixed=4000, pairs=1500, small=1000, edge=1000, along=1500, draws=3),
    # fewer pictures can't promise as much
    "quick": Sizes(
        train=3000,
        calibration=8000,
        mixed=1000,
        pairs=300,
        small=150,
        edge=150,
        along=300,
        other_hands=False,
        max_miss_rate=0.02,
        least_promise=0.02,
    ),
}


def trained(pictures: Pictures) -> ProbeBank:
    """A probe for each signal, from whole pictures, as the demo trains them."""
    labelled = Labelled(
        keys=(), present=pictures.present, digits=pictures.digits, damaged=np.zeros(len(pictures), np.bool_)
    )
    return fit_probes(pictures.views["whole"], labelled)


def trained_on_all(pictures: Pictures) -> ProbeBank:
    """The same with every picture of the other signal as a negative: each learns that the one rules out the other."""
    batch = pictures.views["whole"]
    probes = [
        train_probe(batch.vectors, pictures.present[s], signal=s, encoder=batch.encoder) for s in STANDIN_PAIR.names
    ]
    return ProbeBank(probes, pair=STANDIN_PAIR)


def guaranteed(
    bank: ProbeBank,
    pictures: Pictures,
    view: str,
    sizes: Sizes,
    max_miss_rate: float | None = None,
    *,
    grouped: bool = True,
) -> Calibration:
    """Thresholds for one way of looking, from pictures without the pair, for the worst number of digits in a picture.

    A picture of both is never one of a lone digit, and what is crowded is missed more often.
    """
    return calibrate_thresholds(
        bank.score(pictures.views[view]),
        pictures.present,
        max_miss_rate=sizes.max_miss_rate if max_miss_rate is None else max_miss_rate,
        confidence=sizes.confidence,
        groups=pictures.digits if grouped else None,
        pair=STANDIN_PAIR,
    )


def figures(bank: ProbeBank, policy: Policy, pictures: Pictures, view: str, mixed: Bools | None = None) -> Row:
    """Precision and recall of each signal and of the rule.

    Parameters
    ----------
    mixed : ndarray, optional
        (N,) bool: the pictures in which pairs are as frequent as chance has it. Precision, which depends on that, and
        the signals' figures are theirs; the rule's recall is that of all pairs.
    """
    scores = bank.score(pictures.views[view])
    excluded, both = ~policy.decide(scores).keep, pictures.both
    rows = np.ones(len(pictures), np.bool_) if mixed is None else mixed
    found = evaluate(
        {s: scores[s][rows] for s in scores.signals},
        {s: p[rows] for s, p in pictures.present.items()},
        policy,
        exclusion_rates=(),
    )
    assert found.rule is not None
    return {
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
            "recall": Proportion.of(int(excluded[both].sum()), int(both.sum())).to_dict(),
            "wrongly_excluded": Proportion.of(int(excluded[~both].sum()), int((~both).sum())).to_dict(),
        },
    }


def promise(bank: ProbeBank, calibration: Pictures, test: Pictures, view: str, sizes: Sizes, rate: float) -> Row:
    """The rule on the test pictures, where another miss rate is guaranteed."""
    found = figures(bank, guaranteed(bank, calibration, view, sizes, rate).policy(), test, view)["rule"]
    return {name: found[name] for name in ("recall", "wrongly_excluded")}


def by_position(bank: ProbeBank, policy: Policy, pictures: Pictures, view: str) -> Row:
    """Recall of a lone digit by its distance from the nearer end of a wide picture, both signals together.

    At the policy's thresholds, and at those that flag `FALSE_ALARMS` of the same pictures without the signal: views
    whose thresholds differ can be compared by the latter alone.
    """
    scores = bank.score(pictures.views[view])
    distance = np.minimum(pictures.where, 1 - pictures.where)
    columns: Row = {}
    for name in ("guaranteed", "same_false_alarms"):
        flagged, there = [], []
        for signal in STANDIN_PAIR.names:
            present, values = pictures.present[signal], scores[signal].astype(np.float64)
            cut = np.quantile(values[~present], 1 - FALSE_ALARMS, method="higher")
            flagged.append(policy.present(scores, signal) if name == "guaranteed" else values > cut)
            there.append(present)
        hit, present = np.array(flagged), np.array(there)
        bands = {f"{low:g}-{high:g}": present & (distance >= low) & (distance <= high) for low, high in BANDS}
        columns[name] = {"false_alarms": _share(hit, ~present), **{b: _share(hit, rows) for b, rows in bands.items()}}
    return columns


def measure(sizes: Sizes) -> Row:
    """Everything but the environment, pooled over independent draws of all pictures."""
    started = time.perf_counter()
    encoder = ClipEncoder.load(ENCODER, precision="fp32")  # on every processor the same figures
    draws = []
    for number in range(sizes.draws):
        draws.append(measure_draw(encoder, sizes, SEED + 100 * number))
        progress(f"draw {number + 1} of {sizes.draws} measured, {time.perf_counter() - started:.0f} s")
    result: Row = pooled(draws)
    main = main_rule(result)
    ratios = {
        "rule_recall": round(main["recall"]["value"], 4),
        "rule_wrongly_excluded": round(main["wrongly_excluded"]["value"], 4),
    }
    ratios |= {
        f"{name}_recall": round(peer["at_same_share"]["recall"]["value"], 4)
        for name, peer in result["baselines"].items()
    }
    return {
        "encoder": str(encoder.spec),
        "precision": str(encoder.dtype).removeprefix("torch."),
        "sizes": asdict(sizes),
        "ratios": ratios,
        "main": dict(zip(("way", "views"), MAIN, strict=True)),
        "bars": bars(ratios),
        "draws": [main_rule(draw) for draw in draws],
        **result,
        "laion_tables_dropped": laion_tables(LAION_DATA),
        "seconds": round(time.perf_counter() - started, 1),
    }


def measure_draw(encoder: ClipEncoder, sizes: Sizes, seed: int) -> Row:
    """What is counted on one draw of pictures, with probes and thresholds of its own."""
    train = usual(encoder, sizes.train, "train", seed, pairs=False, views=("whole",))
    calibration = usual(encoder, sizes.calibration, "test", seed + 2, pairs=False)
    others = None
    if sizes.other_hands:
        others = usual(encoder, sizes.calibration, "validation", seed, pairs=False, views=("whole",))
    test = joined(
        usual(encoder, sizes.mixed, "test", seed + 10, pairs=True),
        usual(encoder, sizes.pairs, "test", seed + 11, pairs="only"),
    )
    mixed = np.arange(len(test)) < sizes.mixed
    counts: dict[Place, int] = {"small": sizes.small, "edge": sizes.edge, "along": sizes.along}
    special = placed(encoder, counts, seed)
    half = Policy(pair=STANDIN_PAIR)
    zero_shot = zero_shot_probes(encoder, PROMPTS)
    bank, together = trained(train), trained_on_all(train)
    calibrations = {view: guaranteed(bank, calibration, view, sizes) for view in VIEWS}
    ways = [("zero-shot at 0.5", view, zero_shot, half) for view in VIEWS]
    ways += [("trained at 0.5", view, bank, half) for view in VIEWS]
    ways += [(MAIN[0], view, bank, calibrations[view].policy()) for view in VIEWS]
    ways += [
        (UNGROUPED, "whole", bank, guaranteed(bank, calibration, "whole", sizes, grouped=False).policy()),
        (
            "other as negatives, guaranteed",
            "whole",
            together,
            guaranteed(together, calibration, "whole", sizes).policy(),
        ),
    ]
    if others is not None:
        ways.append((OTHER_HANDS, "whole", bank, guaranteed(bank, others, "whole", sizes).policy()))
    rows = [
        {"way": way, "views": view, **figures(probes, policy, test, view, mixed)} for way, view, probes, policy in ways
    ]
    wrong = main_rule({"rows": rows})["wrongly_excluded"]["count"]
    named = {"train": train, "calibration": calibration, "validation": others, "test": test, **special}
    return {
        "counts": {name: pictures.counts() for name, pictures in named.items() if pictures is not None},
        "rows": rows,
        "placed": [
            {"objects": name, "way": way, "views": view, **figures(probes, policy, pictures, view)}
            for name, pictures in special.items()
            if name != "along"
            for way, view, probes, policy in ways
        ],
        "positions": {view: by_position(bank, calibrations[view].policy(), special["along"], view) for view in VIEWS},
        "promises": [
            {"max_miss_rate": rate, "views": view, **promise(bank, calibration, test, view, sizes, rate)}
            for view in VIEWS
            for rate in PROMISES
            if rate >= sizes.least_promise
        ],
        "baselines": {
            name: {"as_published": peer.as_published(test.both), "at_same_share": peer.at_share(wrong, test.both)}
            for name, peer in baselines(encoder, bank, train, test).items()
        },
        "thresholds": {view: one.thresholds for view, one in calibrations.items()},
    }


def main_rule(result: Row) -> Row:
    """The rule's figures for the way of filtering that the bars are about."""
    rule: Row = next(row["rule"] for row in result["rows"] if (row["way"], row["views"]) == MAIN)
    return rule


def pooled(draws: Sequence[Any]) -> Any:
    """Draws of the same shape as one: shares are of all pictures together, counts are added up, figures averaged."""
    first = draws[0]
    if isinstance(first, dict) and "total" in first:
        return Proportion.of(sum(one["count"] for one in draws), sum(one["total"] for one in draws)).to_dict()
    if isinstance(first, dict):
        return {name: pooled([one[name] for one in draws]) for name in first}
    if isinstance(first, list):
        return [pooled(items) for items in zip(*draws, strict=True)]
    if isinstance(first, int):
        return sum(draws)
    return float(np.mean(draws)) if isinstance(first, float) else first


def bars(ratios: Mapping[str, float]) -> dict[str, bool]:
    """Whether the rule is as good as it should be."""
    others = [value for name, value in ratios.items() if name.endswith("_recall") and name != "rule_recall"]
    return {
        "recall_at_least_99_percent": ratios["rule_recall"] >= MIN_RECALL,
        "wrongly_excluded_at_most_10_percent": ratios["rule_wrongly_excluded"] <= MAX_WRONGLY_EXCLUDED,
        "beats_every_baseline_at_the_same_share": all(ratios["rule_recall"] > other for other in others),
    }


def _share(hit: Bools, rows: Bools) -> dict[str, float | int | None]:
    return Proportion.of(int((hit & rows).sum()), int(rows.sum())).to_dict()


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__)
    result = measure(SIZES["quick" if options.quick else "full"])
    print_tables(result)
    finish({"environment": environment("scikit-learn"), "quick": options.quick, **result}, options.json)


if __name__ == "__main__":
    main()
