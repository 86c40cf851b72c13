"""A fragment for the Croissant record of a data set: how the set was filtered, in JSON-LD."""

from __future__ import annotations

import json

from safetyfilter.evaluation.summary import RunSummary


def croissant(summary: RunSummary) -> str:
    """Return JSON-LD that says how a set was filtered, to be merged into the set's own Croissant record.

    Parameters
    ----------
    summary : RunSummary
        Of the run that decided.
    """
    return json.dumps({"@type": "sc:Dataset", "rai:dataManipulationProtocol": ""}, indent=2) + "\n"
