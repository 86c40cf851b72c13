"""The card of a linear probe: how it was made and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from safetyfilter.score.age_card import AgeCard
from safetyfilter.score.as_html import card_html
from safetyfilter.score.trained_on import TrainedOn


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCard:
    """A record of how a probe was made and measured; kept in the probe's file.

    Attributes
    ----------
    method : str
        ``zero-shot`` or ``logistic-regression``; with ``, highest of 5 views`` where it was trained on as many.
    created : str
        ISO 8601 date.
    encoder : str
        The encoder's name, with open_clip's name of the weights where it lists them.
    positives, negatives : int
        Labelled samples it was fitted on; 0 for a zero-shot probe.
    folds, groups : int
        Of the cross-validation; no groups where samples were taken one by one.
    regularisation : float or None
        scikit-learn's C on standardised columns, chosen by cross-validation.
    auc, average_precision, calibration_error : float or None
        Cross-validated, on samples the scoring probe was not fitted on.
    thresholds : mapping of str to float
        Threshold at which the named share of positives is found (``"0.99"``), cross-validated.
    provenance : str
        The user's own note on the training data.
    ages : AgeCard or None
        The cut and the recall by band, where labels were made from ages.
    trained_on : TrainedOn
        How the pictures were prepared and embedded that it was trained on, as far as that is known.
    whole_thresholds : mapping of str to float
        The same as `thresholds` for the score of the whole picture alone; empty where that is the only view.
    """

    method: str
    created: str = ""
    encoder: str = ""
    positives: int = 0
    negatives: int = 0
    folds: int = 0
    groups: int = 0
    regularisation: float | None = None
    auc: float | None = None
    average_precision: float | None = None
    calibration_error: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    provenance: str = ""
    ages: AgeCard | None = None
    trained_on: TrainedOn = field(default_factory=TrainedOn)
    whole_thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the card that `dataclasses.asdict` gave; TypeError or ValueError where it is none.

        >>> ProbeCard.from_dict({"method": "zero-shot", "trained_on": {"views": "whole"}}).trained_on.views
        'whole'
        """
        values = dict(data)
        if values.get("ages"):
            values["ages"] = AgeCard.from_dict(values["ages"])
        if "trained_on" in values:
            values["trained_on"] = TrainedOn.from_dict(values["trained_on"])
        card = cls(**values)
        if not isinstance(card.whole_thresholds, Mapping):
            raise TypeError("a card has thresholds of the whole picture that are not a mapping")
        return card

    def _repr_html_(self) -> str:
        return card_html(self)
