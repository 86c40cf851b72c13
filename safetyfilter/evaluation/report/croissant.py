"""A fragment for the Croissant record of a data set: how the set was filtered, in JSON-LD.

The fields are those of Croissant's vocabulary for responsible AI (RAI 1.0) and, for provenance, those of PROV-O that
Croissant 1.1 recommends.
"""

from __future__ import annotations

import json
import re
from typing import Any

from safetyfilter.evaluation.report.limits import limits_of
from safetyfilter.evaluation.report.words import REASON_WORDS, Words
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.html_table import one_line

CONTEXT = {
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "prov": "http://www.w3.org/ns/prov#",
}
"""The prefixes of the fragment. A Croissant record's own context has all of these but ``prov``, and many more."""

CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
"""The specifications that a record conforms to once the fragment is part of it."""


_PLAIN = re.compile(r"[A-Za-z0-9][\w.+:/-]*", re.ASCII)
_BIASES = (
    "Probes err, and nothing says that they err evenly: samples that were wrongly excluded, and those that were "
    "missed, may be more frequent among some people or kinds of picture than among others. The run did not measure it."
)
_SENSITIVE = (
    "Neither scores nor decisions are part of the data set, and the record of the run names no sample. Samples that "
    "were kept may show people; nothing else was done about personal or sensitive information."
)


def croissant(summary: RunSummary) -> str:
    """Return JSON-LD that says how a set was filtered, to be merged into the set's own Croissant record.

    Parameters
    ----------
    summary : RunSummary
        Of the run that decided.
    """
    return json.dumps(fragment(summary), indent=2, ensure_ascii=False) + "\n"


def fragment(summary: RunSummary) -> dict[str, Any]:
    """Return the fields of `croissant`: a text where the vocabulary takes one, a list where it takes several."""
    words = Words(summary=summary, quote=_quoted)
    record = summary.record
    notice = [one_line(record.setup.pair.notice)] if record.setup.pair.notice else []
    reasons = "; ".join(f"{name} ({REASON_WORDS[name]}), {count:,}" for name, count in words.reasons())
    return {
        "@context": CONTEXT,
        "conformsTo": list(CONFORMS_TO),
        "rai:dataPreprocessingProtocol": [
            *notice,
            words.what(),
            f"Software: {words.software}, with {words.versions()}.",
            f"Encoder: {words.encoder()}",
            f"Preprocessing: {words.preprocessing()}",
            f"Probes: {words.probes()}",
        ],
        "rai:dataManipulationProtocol": " ".join(
            [
                *notice,
                words.validity(),
                words.rule(),
                *words.beyond(),
                words.counts(),
                f"By reason: {reasons}.",
                f"Where the thresholds come from: {words.thresholds()}",
            ]
        ),
        "rai:dataCollectionMissingData": words.unscored(),
        "rai:dataLimitations": [one_line(f"{limit.title}. {limit.text}") for limit in limits_of(record)],
        "rai:dataBiases": _BIASES,
        "rai:personalSensitiveInformation": (
            f"The samples were scored by machine for the signals {words.pair}, in order to exclude some. {_SENSITIVE}"
        ),
        "rai:dataReleaseMaintenancePlan": f"{words.bound()} {words.maintenance()}",
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": "Safety filtering",
            "prov:startedAtTime": one_line(record.created),
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "prov:label": f"safetyfilter {one_line(record.versions.get('safetyfilter', ''))}".rstrip(),
            },
        },
    }


def _quoted(text: str) -> str:
    """Return a text from data as it is where it is a plain name, number or digest, else in quotation marks."""
    return text if _PLAIN.fullmatch(text) else f"“{one_line(text)}”"
