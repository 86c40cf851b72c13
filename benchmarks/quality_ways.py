"""The quality benchmark's ways of filtering: probes, the views they judge, and thresholds guaranteed on the same draw.

How probes are fitted, and the promise, were chosen on other draws (seeds 9,100 to 9,211) than those that are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from quality_pictures import VIEWS, Pictures

from safetyfilter import Gate, Policy
from safetyfilter.batches import EmbeddingBatch, ScoreBatch
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.gate import When
from safetyfilter.score.training import train_probe
from safetyfilter.standin import STANDIN_PAIR
from safetyfilter.standin.pictures import Labelled
from safetyfilter.standin.probes import Fit, fit_probes

WHOLE_FIT = Fit(positive_weight=6, crowd_weight=6, with_other=True, regularisation=(3e-4,))
"""Missing costs more than excluding wrongly, and a picture of a pair is never one of a lone digit.

More regularisation than cross-validation chooses finds more of what differs from the training pictures, small objects.
"""
VIEWS_FIT = replace(WHOLE_FIT, beside_whole=True)
LEFT_OUT_FIT = replace(VIEWS_FIT, with_other=False)

WHOLE = ("trained on whole pictures, guaranteed", "whole")
"""The way that every other is held against: what a scan does by default."""
BY_VIEWS = "trained on views, guaranteed"
EACH = "trained on views, each by itself, guaranteed"
LEFT_OUT = "trained on views without the other's, guaranteed"
MAIN = (BY_VIEWS, "multi")
"""The way of filtering that the bars are about."""
UNGROUPED, OTHER_HANDS = "the same, not by number of digits", "the same, for other hands"
"""What becomes of the guarantee of `WHOLE` where one thing that it rests on is not so."""
OTHERS_AS_NEGATIVES = "other as negatives, guaranteed"
GATES: dict[str, When] = {"adaptive, either": "either", "adaptive, both": "both"}
"""Adaptive views, by when a picture is looked at closer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What thresholds guarantee of the rule."""

    max_miss_rate: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of filtering: probes, the views they judge, and a policy."""

    name: str
    views: str
    bank: ProbeBank
    policy: Policy

    def scores(self, pictures: Pictures) -> ScoreBatch:
        """Return the scores of pictures, looked at in this way."""
        return scores_in(self.views, self.bank, pictures)


def scores_in(views: str, bank: ProbeBank, pictures: Pictures) -> ScoreBatch:
    """Return the scores of pictures in these views."""
    if views not in GATES:
        return bank.score(pictures.views[views])
    several = pictures.views["multi"]
    looked = np.where(closer(views, bank, pictures)[:, None, None], several.vectors, several.vectors[:, :1])
    return bank.score(EmbeddingBatch(vectors=looked, encoder=several.encoder))


def closer(views: str, bank: ProbeBank, pictures: Pictures) -> npt.NDArray[np.bool_]:
    """(N,) bool, True for each picture whose crops are looked at, in adaptive views."""
    gate = Gate.of(bank, GATES[views])
    return gate.closer(bank.score_vectors(pictures.views["multi"].vectors[:, 0]), bank.signals)


def guaranteed(bank: ProbeBank, pictures: Pictures, views: str, promise: Promise, *, grouped: bool = True) -> Policy:
    """Thresholds for one way of looking, from pictures without the pair, for the worst number of digits in a picture.

    A picture of both is never one of a lone digit, and what is crowded is missed more often.
    """
    return calibrate_thresholds(
        scores_in(views, bank, pictures),
        pictures.present,
        max_miss_rate=promise.max_miss_rate,
        confidence=promise.confidence,
        groups=pictures.digits if grouped else None,
        pair=STANDIN_PAIR,
    ).policy()


def on_whole(pictures: Pictures) -> ProbeBank:
    """A probe for each signal, from whole pictures."""
    return fit_probes(_whole(pictures), _labelled(pictures), fit=WHOLE_FIT)


def on_views(pictures: Pictures, fit: Fit) -> ProbeBank:
    """A probe for each signal, from the views it is used on."""
    return fit_probes(pictures.views["multi"], _labelled(pictures), fit=fit)


def on_all(pictures: Pictures) -> ProbeBank:
    """A probe for each signal, all pictures of the other being negatives, so that one rules out the other."""
    batch = _whole(pictures)
    probes = [
        train_probe(batch.vectors, pictures.present[s], signal=s, encoder=batch.encoder) for s in STANDIN_PAIR.names
    ]
    return ProbeBank(probes, pair=STANDIN_PAIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Pictures of one draw to train and to calibrate on, and of other writers' hands; the probes fitted on them."""

    train: Pictures
    calibration: Pictures
    others: Pictures | None
    zero_shot: ProbeBank
    whole: ProbeBank
    views: ProbeBank
    each_view: ProbeBank
    left_out: ProbeBank
    together: ProbeBank
    promise: Promise

    @classmethod
    def of(
        cls, train: Pictures, calibration: Pictures, others: Pictures | None, zero_shot: ProbeBank, promise: Promise
    ) -> Draw:
        """Fit the probes."""
        return cls(
            train=train,
            calibration=calibration,
            others=others,
            zero_shot=zero_shot,
            whole=on_whole(train),
            views=on_views(train, VIEWS_FIT),
            each_view=on_views(train, WHOLE_FIT),
            left_out=on_views(train, LEFT_OUT_FIT),
            together=on_all(train),
            promise=promise,
        )

    def ways(self) -> Iterator[Way]:
        """Every way of filtering."""
        half = Policy(pair=STANDIN_PAIR)
        for name, bank in (("zero-shot at 0.5", self.zero_shot), ("trained at 0.5", self.whole)):
            for view in VIEWS:
                yield Way(name=name, views=view, bank=bank, policy=half)
        for view in VIEWS:
            yield self.guaranteed(WHOLE[0], view, self.whole)
        for views in ("multi", *GATES):
            yield self.guaranteed(BY_VIEWS, views, self.views)
        yield self.guaranteed(EACH, "multi", self.each_view)
        yield self.guaranteed(LEFT_OUT, "multi", self.left_out)
        yield self.guaranteed(OTHERS_AS_NEGATIVES, "whole", self.together)
        lone = guaranteed(self.whole, self.calibration, "whole", self.promise, grouped=False)
        yield Way(name=UNGROUPED, views="whole", bank=self.whole, policy=lone)
        if self.others is not None:
            elsewhere = guaranteed(self.whole, self.others, "whole", self.promise)
            yield Way(name=OTHER_HANDS, views="whole", bank=self.whole, policy=elsewhere)

    def guaranteed(self, name: str, views: str, bank: ProbeBank, max_miss_rate: float | None = None) -> Way:
        """Return the way with thresholds guaranteed on this draw, for another miss rate where one is given."""
        promise = self.promise
        if max_miss_rate is not None:
            promise = Promise(max_miss_rate=max_miss_rate, confidence=promise.confidence)
        return Way(name=name, views=views, bank=bank, policy=guaranteed(bank, self.calibration, views, promise))

    def bank_for(self, view: str) -> ProbeBank:
        """Return the probes that fit a view: those trained on views for several."""
        return self.views if view == "multi" else self.whole


def _whole(pictures: Pictures) -> EmbeddingBatch:
    return pictures.views["whole"]


def _labelled(pictures: Pictures) -> Labelled:
    return Labelled(
        keys=(), present=pictures.present, digits=pictures.digits, damaged=np.zeros(len(pictures), np.bool_)
    )
