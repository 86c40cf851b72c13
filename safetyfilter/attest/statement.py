"""The statement that an attestation signs: in-toto's, version 1, about the rows of a run and what it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetyfilter.attest.envelope import REMEDY
from safetyfilter.attest.merkle import ROOT_NAME
from safetyfilter.errors import AttestationError, RunError
from safetyfilter.html_table import visible
from safetyfilter.runs.fields import Fields
from safetyfilter.runs.record import RunRecord
from safetyfilter.storage import parse_json

ATTESTATION_FILE = "attestation.json"
"""The file of a run that holds its attestation."""
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
"""The type of in-toto's statement."""
PREDICATE_TYPE = "urn:safetyfilter:attestation:v1"
"""The type of what is stated, of which ``docs/attestation.md`` has every field."""
ALL_ROWS, KEPT_ROWS = "rows", "kept"
"""The names of the two subjects."""
UNATTESTED = ("scores_checks", "decisions_checks")
"""Fields of ``run.json`` that a statement leaves out, since they grow with the parts, and are computed from these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement about a complete run.

    Attributes
    ----------
    rows, kept : str
        The Merkle roots, in hex, over all rows of the run's decisions and over those that are kept.
    embeddings, sealed : str
        Digests, in hex, of the files in ``embeddings/`` and ``sealed/`` (`folder_digest`); empty where there are none.
    run : mapping
        The fields of ``run.json`` but those in `UNATTESTED`, as JSON has them.
    attested : str
        ISO 8601, when it was signed.
    version : str
        The version of this library that signed it.
    """

    rows: str
    kept: str
    embeddings: str
    sealed: str
    run: Mapping[str, Any]
    attested: str
    version: str

    def payload(self) -> bytes:
        """Return the text that is signed, in JSON; `read` reads it back."""
        subjects = ((ALL_ROWS, self.rows), (KEPT_ROWS, self.kept))
        predicate = {
            "attested": self.attested,
            "version": self.version,
            "embeddings": self.embeddings,
            "sealed": self.sealed,
            "run": dict(self.run),
        }
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {ROOT_NAME: root}} for name, root in subjects],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
        return json.dumps(statement, sort_keys=True).encode()

    @classmethod
    def read(cls, payload: bytes, place: object) -> Statement:
        """Return the statement in a payload.

        Parameters
        ----------
        payload : bytes
            Whose signature holds.
        place : object
            The file, for errors.

        Raises
        ------
        AttestationError
            It is not a statement of this kind and version.

        Examples
        --------
        >>> Statement.read(b"{}", "a file")
        Traceback (most recent call last):
            ...
        safetyfilter.errors.AttestationError: a file does not hold a statement of urn:safetyfilter:attestation:v1, ...
        """
        try:
            data = parse_json(payload)
        except ValueError as error:
            raise AttestationError(f"{place} does not hold a statement ({error}); {REMEDY}") from error
        try:
            fields = Fields(data, place, remedy=REMEDY)
            kinds = visible(fields.get("_type", str)), visible(fields.get("predicateType", str))
        except RunError:
            kinds = ("nothing of the kind", "")
        if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise AttestationError(
                f"{place} does not hold a statement of {PREDICATE_TYPE}, but {' '.join(kinds).strip()}; it is of "
                "another version, which can read it, or of another program"
            )
        try:
            predicate = Fields(fields.get("predicate", dict), place, "predicate.", REMEDY)
            roots = _roots(fields, place)
            return cls(
                rows=roots[ALL_ROWS],
                kept=roots[KEPT_ROWS],
                embeddings=predicate.get("embeddings", str),
                sealed=predicate.get("sealed", str),
                run=predicate.get("run", dict),
                attested=predicate.get("attested", str),
                version=predicate.get("version", str),
            )
        except RunError as error:
            raise AttestationError(str(error)) from error

    def record(self, place: object) -> RunRecord:
        """Return the record of the run that was attested; `AttestationError` where it is not one of this version."""
        try:
            return RunRecord.from_json(json.dumps(self.run), place)
        except RunError as error:
            raise AttestationError(f"the attested record can't be read: {error}") from error


def attested_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``run.json`` that a statement has.

    >>> attested_fields({"scores": "a1", "scores_checks": "00"})
    {'scores': 'a1'}
    """
    return {name: value for name, value in record.items() if name not in UNATTESTED}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields in which two objects of JSON differ, in order; 1, 1.0 and true are not the same.

    >>> differing({"a": 1, "b": 2, "c": []}, {"a": True, "b": 2})
    ['a', 'c']
    """
    missing = object()
    return sorted(
        name
        for name in {*one, *other}
        if missing in (found := (one.get(name, missing), other.get(name, missing)))
        or _text(found[0]) != _text(found[1])
    )


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _roots(fields: Fields, place: object) -> dict[str, str]:
    """The roots of the two subjects, by name."""
    found = {}
    for number, subject in enumerate(fields.get("subject", list)):
        of_it = Fields(subject, place, f"subject.{number}.", REMEDY)
        digest = Fields(of_it.get("digest", dict), place, f"subject.{number}.digest.", REMEDY)
        found[of_it.get("name", str)] = digest.get(ROOT_NAME, str)
    if found.keys() != {ALL_ROWS, KEPT_ROWS}:
        raise RunError(f"{place}: the subjects are not {ALL_ROWS} and {KEPT_ROWS}, but {sorted(found)}; {REMEDY}")
    return found
