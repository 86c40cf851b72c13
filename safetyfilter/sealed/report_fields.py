"""The fields of a report to a hotline, as far as opened records tell them, and those that a person fills in.

They are the public ones of the reporting API of NCMEC's CyberTipline, in the order of its technical documentation:
``report`` once, and ``fileDetails`` for each file. Other hotlines ask for the same in forms of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from safetyfilter.sealed.evidence import PictureDigests
from safetyfilter.sealed.opened import OpenedRecord
from safetyfilter.sealed.report_xml import Value

TO_FILL_IN = "TO FILL IN"
"""Stands for what the library can't know; no hotline's form takes it, so that no draft is sent unread."""

INCIDENT_TYPE = "Child Pornography (possession, manufacture, and distribution)"
"""The one of the API's incident types that reports of found files have; its words are the statute's."""

UNKNOWN: Mapping[str, str] = {
    "report.incidentSummary.incidentType": "a scan gives a suspicion: confirm the type, or choose another",
    "report.incidentSummary.incidentDateTime": "is when the scan excluded the first of these; give the incident's own",
    "report.internetDetails.webPageIncident.thirdPartyHostedContent": "add it where another company hosts the page",
    "report.reporter.reportingPerson": "the name and the address of the designated reporter",
    "report.reporter.companyTemplate": "add what your organisation says of itself, if it does",
    "report.personOrUserReported": "who put it there is not known; add it where you know",
    "fileDetails.reportId": "given by the hotline when the report is opened",
    "fileDetails.fileId": "given by the hotline; no file is attached, and none is to be opened in order to attach it",
    "fileDetails.publiclyAvailable": "true where everybody could reach it; the library opens no URL to find out",
    "fileDetails.fileAnnotations": "left out, generativeAi among them: unknown, since nobody has looked",
    "fileDetails.industryClassification": "left out: unknown, since nobody has looked",
}
"""The fields that the library can't know, each with what to do about it."""

_SUSPICION = {
    "known_hash": "The file's bytes or its URL are on a list of known content; or, where (pdq) alone follows its "
    "name, the picture resembles one on it, as copies do. That is not a finding of this sender.",
    "co_occurrence": "A classifier excluded the file from a training set; that is a suspicion and may well be wrong.",
}


def grouped_by(record: OpenedRecord) -> tuple[str, ...]:
    """Return those of a record's reasons for which it was made, by which drafts are grouped.

    >>> from safetyfilter.sealed.evidence import Evidence
    >>> grouped_by(OpenedRecord(run="r", evidence=Evidence(source="s", key="k", reasons=("minor", "known_hash"))))
    ('known_hash',)
    """
    return tuple(reason for reason in _SUSPICION if reason in record.evidence.reasons)


def report_fields(records: Sequence[OpenedRecord]) -> dict[str, Value]:
    """Return the fields of ``report`` for records that are excluded for the same reasons.

    Parameters
    ----------
    records : sequence of OpenedRecord
        At least one.

    Examples
    --------
    >>> from safetyfilter.sealed.evidence import Evidence
    >>> record = OpenedRecord(run="r", evidence=Evidence(source="s", key="k", reasons=("known_hash",), url="u"))
    >>> report_fields([record])["internetDetails"]
    {'webPageIncident': {'url': ['u']}}
    """
    evidence = [record.evidence for record in records]
    times = [one.time for one in evidence if one.time]
    summary: dict[str, Value] = {
        "incidentType": INCIDENT_TYPE,
        "incidentDateTime": min(times, default=TO_FILL_IN),
        "incidentDateTimeDescription": "The time at which a scan of a data set excluded the first of these files. "
        "When they were put online is not known.",
    }
    urls = list(dict.fromkeys(one.url for one in evidence if one.url))
    person = {"firstName": TO_FILL_IN, "lastName": TO_FILL_IN, "email": TO_FILL_IN}
    return {
        "incidentSummary": summary,
        **({"internetDetails": {"webPageIncident": {"url": urls}}} if urls else {}),
        "reporter": {"reportingPerson": person},
        "additionalInfo": _about(records),
    }


def file_fields(record: OpenedRecord) -> list[dict[str, Value]]:
    """Return the fields of ``fileDetails`` for each picture of a record; of one without digests, for the record.

    Examples
    --------
    >>> from safetyfilter.sealed.evidence import Evidence
    >>> record = OpenedRecord(run="r", evidence=Evidence(source="s", key="k", reasons=("known_hash",)))
    >>> [fields["fileViewedByEsp"] for fields in file_fields(record)]
    [False]
    """
    evidence = record.evidence
    pictures: Sequence[PictureDigests | None] = evidence.pictures or (None,)
    return [
        {
            "reportId": TO_FILL_IN,
            "fileId": TO_FILL_IN,
            **({"locationOfFile": evidence.url} if evidence.url else {}),
            "fileViewedByEsp": False,
            "exifViewedByEsp": False,
            "publiclyAvailable": TO_FILL_IN,
            "fileRelevance": "Reported",
            **({"originalFileHash": _hashes(picture)} if picture else {}),
            "additionalInfo": _provenance(record, picture),
        }
        for picture in pictures
    ]


def to_fill_in(records: Sequence[OpenedRecord]) -> dict[str, Value]:
    """Return the fields that are left to a person, each with what to do about it.

    Examples
    --------
    >>> from safetyfilter.sealed.evidence import Evidence
    >>> record = OpenedRecord(run="r", evidence=Evidence(source="s", key="k", reasons=("known_hash",)))
    >>> to_fill_in([record])["report.internetDetails"]
    '1 of 1 records have no URL: say where the data set comes from; nobody can act on a record without provenance'
    """
    fields: dict[str, Value] = dict(UNKNOWN)
    if without := sum(not record.evidence.url for record in records):
        fields["report.internetDetails"] = (
            f"{without:,} of {len(records):,} records have no URL: say where the data set comes from; nobody can act "
            "on a record without provenance"
        )
    return fields


def _hashes(picture: PictureDigests) -> list[Value]:
    digests = {"MD5": picture.md5, "SHA1": picture.sha1, "SHA256": picture.sha256, "PDQ": picture.pdq}
    return [{"@hashType": kind, "#text": digest} for kind, digest in digests.items() if digest]


def _about(records: Sequence[OpenedRecord]) -> str:
    reasons = grouped_by(records[0])
    runs = sorted({record.run for record in records})
    lines = [
        "Found while a data set was filtered before it was used for training. Nobody has viewed the files.",
        *(_SUSPICION[reason] for reason in reasons),
        f"Excluded for: {', '.join(reasons)}.",
        f"Number of the run, for questions: {', '.join(runs)}.",
    ]
    return "\n".join(lines)


def _provenance(record: OpenedRecord, picture: PictureDigests | None) -> str:
    """Return what else is known of a file, one field a line; values are quoted, so that none passes for a field."""
    evidence = record.evidence
    values: dict[str, object] = {
        "source": evidence.source,
        "key in the source": evidence.key,
        "excluded for": ", ".join(evidence.reasons),
        "on the lists": ", ".join(evidence.lists),
        "excluded at": evidence.time,
        "SHA-256 of the caption": evidence.caption_sha256,
        **{f"crawl: {name}": value for name, value in evidence.crawl.items()},
        "quality of the PDQ hash": "" if picture is None or picture.pdq_quality is None else picture.pdq_quality,
        "cut short, since far too long": ", ".join(evidence.cut),
        "run": record.run,
    }
    return "\n".join(f"{json.dumps(name)[1:-1]}: {json.dumps(value)}" for name, value in values.items() if value != "")
