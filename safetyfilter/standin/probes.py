"""The demo's probes, thresholds and figures: fitted on pictures that never hold both stand-ins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.decide.calibration_record import ScoredBy
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.trained_on import TrainedOn
from safetyfilter.score.training import REGULARISATION, train_probe
from safetyfilter.score.zero_shot import zero_shot_probes
from safetyfilter.standin import PROMPTS, STANDIN_PAIR
from safetyfilter.standin.pictures import Labelled

MAX_MISS_RATE, CONFIDENCE = 0.009, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Settings of the fit of the stand-ins' probes.

    Attributes
    ----------
    beside_whole : bool
        Each of several views is judged beside the whole picture.
    positive_weight : float
        How much more positives count in all than negatives.
    crowd_weight : float
        How much more a picture of several digits counts than one of a lone digit or of none.
    with_other : bool
        All pictures of the other signal are negatives, moved to where the rest lies (`train_probe`'s `other`). Else
        those are left out in which it is not alone: that much is needed to tell the two apart.
    regularisation : tuple of float
        Values of scikit-learn's C to choose from.
    """

    beside_whole: bool = False
    positive_weight: float = 1.0
    crowd_weight: float = 1.0
    with_other: bool = False
    regularisation: tuple[float, ...] = REGULARISATION


def fit_probes(
    batch: EmbeddingBatch, labelled: Labelled, trained_on: TrainedOn | None = None, fit: Fit | None = None
) -> ProbeBank:
    """A probe for each stand-in signal, fitted on pictures that never hold both; on whole ones, or on several views.

    No picture holds both, and neither signal is to be learnt as proof that the other is absent.
    """
    how = fit or Fit()
    counts = np.where(labelled.digits > 1, how.crowd_weight, 1.0)
    probes = []
    for signal in STANDIN_PAIR.names:
        other = labelled.present[STANDIN_PAIR.other(signal)]
        used = (labelled.digits == 1) | ~other | how.with_other
        probe = train_probe(
            batch.vectors[used],
            labelled.present[signal][used],
            signal=signal,
            encoder=batch.encoder,
            trained_on=trained_on,
            beside_whole=how.beside_whole,
            other=other if how.with_other else None,
            weights=counts[used],
            positive_weight=how.positive_weight,
            regularisation=how.regularisation,
            provenance="stand-in pictures, rendered",
        )
        probes.append(probe)
    return ProbeBank(probes, pair=STANDIN_PAIR)


def choose_thresholds(bank: ProbeBank, batch: EmbeddingBatch, labelled: Labelled, looks: TrainedOn) -> Policy:
    """Thresholds with a bound on the rule's miss rate, from the validation split, which holds no pair either."""
    scores = bank.score(batch)
    found = calibrate_thresholds(
        {signal: scores[signal] for signal in scores.signals},
        labelled.present,
        max_miss_rate=MAX_MISS_RATE,
        confidence=CONFIDENCE,
        pair=STANDIN_PAIR,
    )
    scored_by = ScoredBy(
        encoder=batch.encoder,
        probes=bank.digests,
        views=looks.views,
        decode=looks.decode,
        precision=looks.precision,
    )
    return found.policy(record=found.record(scored_by=scored_by))


def measure(run: Run, encoder: ClipEncoder, test: Labelled) -> dict[str, object]:
    """Return the AUC of each signal, trained and zero-shot, and the shares that the rule excluded, from the run."""
    from sklearn.metrics import roc_auc_score

    stored = run.read_scores()
    columns = {signal: pa.array(present) for signal, present in test.present.items()}
    truth = run.align_labels(pa.table({"key": test.keys, "damaged": pa.array(test.damaged), **columns}))
    readable = ~truth["damaged"].to_numpy()
    zero_shot = zero_shot_probes(encoder, PROMPTS)
    vectors = run.read_embeddings().astype(np.float32)
    zero_shot_scores = dict(zip(zero_shot.signals, zero_shot.score_vectors(vectors).T, strict=True))
    trained_scores = {signal: stored[signal].to_numpy() for signal in STANDIN_PAIR.names}
    auc = {
        name: {
            signal: round(float(roc_auc_score(truth[signal].to_numpy()[readable], values[signal][readable])), 4)
            for signal in STANDIN_PAIR.names
        }
        for name, values in (("auc", trained_scores), ("zero_shot_auc", zero_shot_scores))
    }
    excluded = Decisions.of(run).reasons(test.keys) != 0
    others = ~test.damaged & ~test.both
    return {
        **auc,
        "pairs": int(test.both.sum()),
        "pairs_excluded": int((excluded & test.both).sum()),
        "others": int(others.sum()),
        "others_excluded": int((excluded & others).sum()),
        "rule_recall": round(float(excluded[test.both].mean()), 4),
        "rule_wrongly_excluded": round(float(excluded[others].mean()), 4),
    }
