"""The report as HTML: a template filled with counts, and the scripts and styles that stand in the page itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from safetyfilter import __version__
from safetyfilter.batches import FAILURES
from safetyfilter.decide.meanings import reason_meanings
from safetyfilter.evaluation.grid import binned
from safetyfilter.evaluation.report.bins import COARSE, FINE, bins, edge_text
from safetyfilter.evaluation.report.card import data_card
from safetyfilter.evaluation.report.croissant import croissant
from safetyfilter.evaluation.report.facts import decision_facts, facts
from safetyfilter.evaluation.report.limits import limits_of
from safetyfilter.evaluation.report.page_data import page_data
from safetyfilter.evaluation.report.parts import part_groups
from safetyfilter.evaluation.report.provenance import provenance
from safetyfilter.evaluation.report.texts import script_data
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import share_text, visible
from safetyfilter.runs.record import RunRecord

if TYPE_CHECKING:
    from jinja2 import Environment

FEW = 1000
"""Samples below which the page says that its counts are about single ones."""

_MISFIT = (
    "The calibration of the thresholds does not fit the scores of this run, which was accepted when it was decided; "
    "what differs is told under “Where the thresholds come from”."
)
_SCRIPTS = ("figures.js", "thresholds.js")
_STYLES = "page.css"
_TEMPLATE = "page.html.j2"


def page(summary: RunSummary, written: datetime) -> str:
    """Return the report of a run as one HTML page.

    The same run gives the same text, but for the one line that says when it was written.

    Parameters
    ----------
    summary : RunSummary
        The run's counts.
    written : datetime
        The date that the page bears, in UTC.
    """
    environment = _environment()
    scripts = [_plotly(), *(_source(environment, name) for name in _SCRIPTS)]
    return environment.get_template(_TEMPLATE).render(
        **_contents(summary),
        written=written,
        scripts=scripts,
        script_hashes=[_hash(script) for script in scripts],
        styles=_source(environment, _STYLES),
        data=script_data(page_data(summary)),
    )


def _contents(summary: RunSummary) -> dict[str, Any]:
    record = summary.record
    return {
        "record": record,
        "counts": record.counts,
        "share": share_text,
        "plain": edge_text,
        "notices": _notices(record),
        "few": record.counts["seen"] < FEW,
        "reasons": reason_meanings(record.setup.pair),
        "pair": record.setup.pair.names,
        "movable": summary.movable,
        "spread": _spread(summary),
        "scored": int(summary.plane.scored.sum()),
        "plane": binned(summary.plane.scored, summary.plane.grids, COARSE).tolist(),
        "coarse": bins(COARSE),
        "causes": [(name, FAILURES[name], count) for name, count in _in_order(summary.failures)],
        "without_cause": max(0, record.counts["unscored"] - sum(summary.failures.values())),
        "groups": part_groups(summary.parts),
        "parts": len(summary.parts),
        "findings": summary.labels.findings(record.policy) if summary.labels else [],
        "facts": facts(record),
        "decision_facts": decision_facts(record),
        "provenance": provenance(record, spread=summary.score_spread),
        "limits": limits_of(record),
        "card": data_card(summary),
        "croissant": croissant(summary),
        "version": __version__,
    }


def _notices(record: RunRecord) -> list[str]:
    """Sentences that come before anything else."""
    misfit = _MISFIT if record.accepted_uncertified else ""
    return [text for text in (record.setup.pair.notice, record.policy.warning, misfit) if text]


def _spread(summary: RunSummary) -> list[tuple[str, int, Sequence[tuple[str, int]]]]:
    """Each signal, the samples with a score for it, and those in each bin."""
    names = [str(each) for each in bins()]
    return [
        (signal, int(counts.sum()), list(zip(names, binned(counts, [summary.grid], FINE).tolist(), strict=True)))
        for signal, counts in summary.spread.items()
    ]


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first; those of one count by name, so that the order is always the same."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("safetyfilter.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shown(value: Any) -> Any:
    """Make the hidden characters of whatever is printed visible; the page's own scripts and markup stay as they are."""
    return visible(value) if type(value) is str else value


def _source(environment: Environment, name: str) -> str:
    """The text of a file of this package, which is no template."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    bundle: str = get_plotlyjs()
    return bundle


def _hash(script: str) -> str:
    """The digest by which the page's own policy lets a script run, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
