"""The typed content of ``run.json``: everything that a run's scores and decisions depend on, decoded once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetyfilter.batches import REASON_NAMES
from safetyfilter.decide.fitting import Scoring
from safetyfilter.decide.policy import Policy
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.images import PREPARATION
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import RunError, SchemaError
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.fields import Fields
from safetyfilter.runs.parts import READ_SCHEMAS, RESERVED_COLUMNS, SCHEMA_VERSION
from safetyfilter.score.gate import Gate, views_in_full
from safetyfilter.signals import SignalPair
from safetyfilter.storage import parse_json

_SAID_OF = {
    "hash_lists": "set of hash lists (--hash-list)",
    "officer": "officer's key (--officer-key)",
    "gate": "gate of adaptive views (--gate)",
    "quantised": "quantised model (--precision int8, --quantise-on)",
}
COUNT_NAMES: tuple[str, ...] = ("seen", "kept", "excluded", *REASON_NAMES)
"""The counts of a complete run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """Everything that a run's scores depend on besides the source; another setup is another run.

    Attributes
    ----------
    encoder : EncoderSpec
        The encoder's identity.
    pair : SignalPair
        The two signals that must not co-occur; its notice says where they stand in for others.
    probes : tuple of str
        The probes' digests.
    signals : tuple of str
        The signals scored.
    views, decode, precision : str
        How images were prepared and embedded.
    quantised : str
        The digest of the image tower in int8 (`QuantisedTower.digest`); empty in every other precision.
    limits : DecodeLimits
        The largest input that was decoded.
    preparation : int
        Version of the code that finds and prepares a sample's pictures; see
        `safetyfilter.embed.pictures.images.PREPARATION`.
    hash_lists : tuple of str
        The digests of the lists of known content that samples were held against, in ascending order.
    officer : str
        The fingerprint of the key that records of exclusions were sealed to; empty where none were made.
    gate : Gate or None
        Of adaptive views, by which pictures were looked at closer; None of all others.
    """

    encoder: EncoderSpec
    pair: SignalPair
    probes: tuple[str, ...]
    signals: tuple[str, ...]
    views: str
    decode: str
    precision: str
    limits: DecodeLimits
    preparation: int = PREPARATION
    hash_lists: tuple[str, ...] = ()
    officer: str = ""
    quantised: str = ""
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if reserved := sorted(set(self.signals) & set(RESERVED_COLUMNS)):
            raise RunError(f"{', '.join(reserved)} is not a signal's name, but that of a run's own column; rename it")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``run.json``."""
        return {
            "encoder": self.encoder.as_dict(),
            "pair": self.pair.as_dict(),
            "probes": list(self.probes),
            "signals": list(self.signals),
            "views": self.views,
            "decode": self.decode,
            "precision": self.precision,
            "limits": dataclasses.asdict(self.limits),
            "preparation": self.preparation,
            **({"hash_lists": list(self.hash_lists)} if self.hash_lists else {}),
            **({"officer": self.officer} if self.officer else {}),
            **({"quantised": self.quantised} if self.quantised else {}),
            **({"gate": self.gate.as_dict()} if self.gate else {}),
        }

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all of it."""
        values = self.as_dict() | {"encoder": self.encoder.identity()}  # whatever name it was loaded by
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def scoring(self) -> Scoring:
        """The way in which the scores are made, which a policy's calibration is held against."""
        return Scoring(
            encoder=self.encoder,
            probes=self.probes,
            views=views_in_full(self.views, self.gate),
            decode=self.decode,
            precision=self.precision,
        )

    def differing(self, other: RunSetup) -> list[str]:
        """Return the names of the fields in which two setups differ."""
        names = [
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) != getattr(other, field.name)
        ]
        if {self.decode, other.decode} == {"as stored", "normalised"}:  # of stored embeddings, which nobody decodes
            names[names.index("decode")] = "decode (--normalise)"
        if "precision" in names:
            names[names.index("precision")] = f"precision ({self.precision} there, {other.precision} here)"
        return [_SAID_OF.get(name, name) for name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """The source, as a run remembers it.

    Attributes
    ----------
    kind, keys : str
        As the source states them.
    location, fingerprint : str
        Keyed digests of where it lies, and of its parts' states.
    parts : int
        How many parts it has.
    """

    kind: str
    keys: str
    location: str
    fingerprint: str
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of ``run.json``.

    Attributes
    ----------
    created : str
        ISO 8601, when the run was started.
    run_id : str
        A keyed digest of the source's location and the setup, that tells this run's parts from those of every other;
        of two runs with all of that in common, every part is the same.
    setup : RunSetup
        What the scores depend on.
    policy : Policy
        The policy that was last applied, or is being applied.
    source : SourceRecord
        What was scanned.
    secret_check : str
        A digest that only the run's own secret gives.
    versions : mapping of str to str
        Of this library and those that it computes with.
    complete : bool
        True once every part is scored and decided.
    scores : str
        SHA-256 in hex over the fingerprints and contents of the parts' scores, in order; empty before all are scored.
    decisions : str
        The same over the contents of the parts' decisions; empty before the run is complete.
    counts : mapping of str to int
        ``seen``, ``kept``, ``excluded`` and one a reason; empty before the run is complete.
    decided_with : DecidedWith
        What the decisions rest on beyond the scores and the policy.
    hash_unchecked : int
        Samples that are on no list of known content and could not be held against all of one; once all are scored.
    sealed : int
        Sealed records of exclusions; once all are scored.
    scores_checks, decisions_checks : str
        Four hexadecimal digits for each part, by which an error names one that was altered afterwards.
    self_check : CheckEmbeddings or None
        What the first encoder that scored for this run made of generated pictures, against which each process holds its
        own; None of stored embeddings, of applied decisions, and of runs that version 0.5.0 or one before it made.
    applied_from : str
        `decisions_digest` of the run whose decisions were applied to this source by content; empty for a scan.
    accepted_uncertified : bool
        True where it was accepted that the policy was calibrated on scores that were made in another way.
    schema : int
        The version of the form in which the run was begun.
    """

    created: str
    run_id: str
    setup: RunSetup
    policy: Policy
    source: SourceRecord
    secret_check: str
    versions: Mapping[str, str]
    complete: bool = False
    scores: str = ""
    decisions: str = ""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    decided_with: DecidedWith = dataclasses.field(default_factory=DecidedWith)
    applied_from: str = ""
    scores_checks: str = ""
    decisions_checks: str = ""
    hash_unchecked: int = 0
    sealed: int = 0
    self_check: CheckEmbeddings | None = None
    accepted_uncertified: bool = False
    schema: int = SCHEMA_VERSION

    @property
    def started(self) -> tuple[str, str]:
        """The run's number and when it was started, which tell it from a copy of a former one."""
        return self.run_id, self.created

    @property
    def decisions_digest(self) -> str:
        """SHA-256 in hex over what the decisions are; others, under another policy or on other scores, give another."""
        what: list[object] = [
            self.run_id,
            self.setup.digest,
            self.secret_check,
            self.scores,
            self.policy.digest,
            self.decisions,
        ]
        what += [self.decided_with.as_dict()] if self.decided_with else []
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    @property
    def decided_by(self) -> str:
        """The digest that the decisions of each part carry: `Policy.digest` where they rest on nothing else."""
        return self.decided_with.digest_with(self.policy)

    def to_json(self) -> str:
        """Return the text of ``run.json``, which `from_json` reads back."""
        setup = self.setup.as_dict()
        record = {
            "schema": self.schema,
            "created": self.created,
            "run_id": self.run_id,
            **({"notice": self.setup.pair.notice} if self.setup.pair.notice else {}),
            **({"policy_warning": self.policy.warning} if self.policy.warning else {}),
            **setup,
            "setup_digest": self.setup.digest,
            "policy": self.policy.as_dict(),
            "source": dataclasses.asdict(self.source),
            "secret_check": self.secret_check,
            "versions": dict(self.versions),
            "complete": self.complete,
            "scores": self.scores,
            "scores_checks": self.scores_checks,
            "decisions": self.decisions,
            "decisions_checks": self.decisions_checks,
            "counts": dict(self.counts),
            **({"hash_unchecked": self.hash_unchecked} if self.setup.hash_lists else {}),
            **({"sealed": self.sealed} if self.setup.officer else {}),
            **({"self_check": self.self_check.as_dict()} if self.self_check else {}),
            **({"decided_with": self.decided_with.as_dict()} if self.decided_with else {}),
            **({"applied_from": self.applied_from} if self.applied_from else {}),
            **({"accepted_uncertified": True} if self.accepted_uncertified else {}),
        }
        return json.dumps(record, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, place: object) -> RunRecord:
        """Return the record that a ``run.json`` holds.

        Raises
        ------
        SchemaError
            It was written by another version of the schema.
        RunError
            It is damaged; the error names the file and the field.
        """
        try:
            data = parse_json(text)
        except ValueError as error:
            raise RunError(f"{place} is not JSON ({error}); restore it, or scan into a new directory") from error
        fields = Fields(data, place)
        if (schema := fields.get("schema", int)) not in READ_SCHEMAS:
            raise SchemaError(_other_schema(place, schema))
        limits = Fields(fields.get("limits", dict), place, "limits.")
        source = Fields(fields.get("source", dict), place, "source.")
        setup = RunSetup(
            encoder=fields.built("encoder", EncoderSpec.from_dict),
            pair=fields.built("pair", SignalPair.from_dict),
            probes=fields.texts("probes"),
            signals=fields.texts("signals"),
            views=fields.get("views", str),
            decode=fields.get("decode", str),
            precision=fields.get("precision", str),
            limits=fields.built("limits", lambda _: _limits(limits)),
            preparation=fields.get("preparation", int),
            hash_lists=fields.texts("hash_lists") if "hash_lists" in data else (),
            officer=fields.get("officer", str) if "officer" in data else "",
            quantised=fields.get("quantised", str) if "quantised" in data else "",
            gate=fields.built("gate", Gate.from_dict) if "gate" in data else None,
        )
        policy = fields.built("policy", Policy.from_dict)
        fields.require("setup_digest", setup.digest)
        Fields(data["policy"], place, "policy.").require("digest", policy.digest)
        complete = fields.get("complete", bool)
        counts = Fields({"near_excluded": 0, **fields.get("counts", dict)}, place, "counts.")
        return cls(
            created=fields.get("created", str),
            run_id=fields.get("run_id", str),
            setup=setup,
            policy=policy,
            source=SourceRecord(
                kind=source.get("kind", str),
                keys=source.get("keys", str),
                location=source.get("location", str),
                fingerprint=source.get("fingerprint", str),
                parts=source.get("parts", int),
            ),
            secret_check=fields.get("secret_check", str),
            versions=_versions(fields, place),
            complete=complete,
            scores=fields.get("scores", str),
            decisions=fields.get("decisions", str),
            counts=_added_up({name: counts.get(name, int) for name in COUNT_NAMES}, place) if complete else {},
            decided_with=_decided_with(fields, place),
            applied_from=fields.get("applied_from", str) if "applied_from" in data else "",
            scores_checks=fields.get("scores_checks", str) if "scores_checks" in data else "",
            decisions_checks=fields.get("decisions_checks", str) if "decisions_checks" in data else "",
            hash_unchecked=fields.get("hash_unchecked", int) if setup.hash_lists else 0,
            sealed=fields.get("sealed", int) if setup.officer else 0,
            accepted_uncertified="accepted_uncertified" in data and fields.get("accepted_uncertified", bool),
            self_check=fields.built("self_check", CheckEmbeddings.from_dict) if "self_check" in data else None,
            schema=schema,
        )


def _decided_with(fields: Fields, place: object) -> DecidedWith:
    if "decided_with" not in fields.data:
        return DecidedWith()
    found = Fields(fields.get("decided_with", dict), place, "decided_with.")
    near = found.data.get("near")
    if near is not None and not (isinstance(near, float) and -1 <= near <= 1):
        raise RunError(f"{place}: the field decided_with.near is not a cosine; the file is damaged: restore it")
    return DecidedWith(near=near, runs=found.texts("runs"))


def _versions(fields: Fields, place: object) -> dict[str, str]:
    found = fields.get("versions", dict)
    return {name: Fields(found, place, "versions.").get(name, str) for name in found}


def _limits(fields: Fields) -> DecodeLimits:
    return DecodeLimits(**{f.name: fields.get(f.name, int) for f in dataclasses.fields(DecodeLimits)})


def _added_up(counts: Mapping[str, int], place: object) -> dict[str, int]:
    if counts["seen"] != counts["kept"] + counts["excluded"]:
        raise RunError(
            f"{place}: the field counts does not add up: {dict(counts)}; the file is damaged: restore it, or remove "
            "the run and scan again"
        )
    return dict(counts)


def _other_schema(place: object, schema: int) -> str:
    if schema > SCHEMA_VERSION:
        return (
            f"{place} has schema {schema}, this version reads up to {SCHEMA_VERSION}: install the version that wrote it"
        )
    why = (
        "whose rows lie in the source's order and so tell who holds the source what was excluded"
        if schema < 2
        else "which may keep samples that hold a further picture, or a rendering of one, that no probe saw"
    )
    return (
        f"{place} has schema {schema}, {why}; this version reads {READ_SCHEMAS[0]} and {SCHEMA_VERSION}: scan into a "
        "new directory, and keep or remove the old one as you would the secret"
    )
