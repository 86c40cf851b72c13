"""A block for the card of a data set on the Hugging Face Hub: how the set was filtered, in Markdown."""

from __future__ import annotations

from safetyfilter.evaluation.summary import RunSummary


def data_card(summary: RunSummary) -> str:
    """Return Markdown that says how a set was filtered, with the card's metadata in YAML before it.

    Parameters
    ----------
    summary : RunSummary
        Of the run that decided.
    """
    return f"---\ntags:\n- safety-filtered\n---\n\n## Safety filtering\n\n{summary.record.counts['kept']:,} kept.\n"
