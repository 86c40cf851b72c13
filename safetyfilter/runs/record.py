"""The typed content of ``run.json``: everything that a run's scores and decisions depend on, decoded once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from safetyfilter.batches import REASON_NAMES
from safetyfilter.decide.policy import Policy
from safetyfilter.embed.headers import DecodeLimits
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import RunError, SchemaError
from safetyfilter.runs.parts import RESERVED_COLUMNS, SCHEMA_VERSION
from safetyfilter.signals import SignalPair

T = TypeVar("T")

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
    limits : DecodeLimits
        The largest input that was decoded.
    """

    encoder: EncoderSpec
    pair: SignalPair
    probes: tuple[str, ...]
    signals: tuple[str, ...]
    views: str
    decode: str
    precision: str
    limits: DecodeLimits

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
        }

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all of it."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def differing(self, other: RunSetup) -> list[str]:
        """Return the names of the fields in which two setups differ."""
        return [
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) != getattr(other, field.name)
        ]


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
        SHA-256 in hex over the parts' fingerprints, in order; empty before the run is complete.
    counts : mapping of str to int
        ``seen``, ``kept``, ``excluded`` and one a reason; empty before the run is complete.
    """

    created: str
    setup: RunSetup
    policy: Policy
    source: SourceRecord
    secret_check: str
    versions: Mapping[str, str]
    complete: bool = False
    scores: str = ""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def decisions_digest(self) -> str:
        """SHA-256 in hex over what the decisions are: scores, policy and counts. Others give another."""
        what = [self.setup.digest, self.secret_check, self.scores, self.policy.digest, sorted(self.counts.items())]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of ``run.json``, which `from_json` reads back."""
        setup = self.setup.as_dict()
        record = {
            "schema": SCHEMA_VERSION,
            "created": self.created,
            **({"notice": self.setup.pair.notice} if self.setup.pair.notice else {}),
            **setup,
            "setup_digest": self.setup.digest,
            "policy": self.policy.as_dict(),
            "source": dataclasses.asdict(self.source),
            "secret_check": self.secret_check,
            "versions": dict(self.versions),
            "complete": self.complete,
            "scores": self.scores,
            "counts": dict(self.counts),
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
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{place} is not JSON ({error}); restore it, or scan into a new directory") from error
        fields = _Fields(data, place)
        if (schema := fields.get("schema", int)) != SCHEMA_VERSION:
            raise SchemaError(_other_schema(place, schema))
        limits = _Fields(fields.get("limits", dict), place, "limits.")
        source = _Fields(fields.get("source", dict), place, "source.")
        setup = RunSetup(
            encoder=fields.built("encoder", EncoderSpec.from_dict),
            pair=fields.built("pair", SignalPair.from_dict),
            probes=fields.texts("probes"),
            signals=fields.texts("signals"),
            views=fields.get("views", str),
            decode=fields.get("decode", str),
            precision=fields.get("precision", str),
            limits=fields.built("limits", lambda _: _limits(limits)),
        )
        policy = fields.built("policy", Policy.from_dict)
        fields.require("setup_digest", setup.digest)
        _Fields(data["policy"], place, "policy.").require("digest", policy.digest)
        complete, counts = fields.get("complete", bool), _Fields(fields.get("counts", dict), place, "counts.")
        expected = ("seen", "kept", "excluded", *(name for name in REASON_NAMES if name in counts.data))
        return cls(
            created=fields.get("created", str),
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
            versions=fields.get("versions", dict),
            complete=complete,
            scores=fields.get("scores", str),
            counts=_added_up({n: counts.get(n, int) for n in expected}, place) if complete else {},
        )


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of a JSON object, whose errors name the file and the field."""

    data: Any
    place: object
    prefix: str = ""

    def get(self, name: str, kind: type[T]) -> T:
        value = self.data.get(name) if isinstance(self.data, dict) else None
        if not isinstance(value, kind) or (
            isinstance(value, int) and kind is int and (value is True or value is False or value < 0)
        ):
            raise RunError(
                f"{self.place}: the field {self.prefix}{name} is not {_KINDS[kind]}, but {value!r}; the file is "
                "damaged: restore it, or remove the run and scan again"
            )
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values: Sequence[object] = self.get(name, list)
        return tuple(
            _Fields({str(n): value}, self.place, f"{name}.").get(str(n), str) for n, value in enumerate(values)
        )

    def require(self, name: str, expected: str) -> None:
        """Raise `RunError` unless a digest is that of the other fields."""
        if self.get(name, str) != expected:
            raise RunError(
                f"{self.place}: the field {self.prefix}{name} is not that of the other fields; the file was changed: "
                "restore it, or remove the run and scan again"
            )

    def built(self, name: str, build: Any) -> Any:
        """The value that `build` makes of an object."""
        try:
            return build(self.get(name, dict))
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"{self.place}: the field {self.prefix}{name} can't be read ({error}); the file is damaged: restore "
                "it, or remove the run and scan again"
            ) from error


_KINDS: Mapping[type, str] = {
    int: "a whole number from 0",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def _limits(fields: _Fields) -> DecodeLimits:
    return DecodeLimits(**{f.name: fields.get(f.name, int) for f in dataclasses.fields(DecodeLimits)})


def _added_up(counts: Mapping[str, int], place: object) -> dict[str, int]:
    if counts["seen"] != counts["kept"] + counts["excluded"]:
        raise RunError(
            f"{place}: the field counts does not add up: {dict(counts)}; the file is damaged: restore it, or remove "
            "the run and scan again"
        )
    return dict.fromkeys(COUNT_NAMES, 0) | dict(counts)


def _other_schema(place: object, schema: int) -> str:
    if schema < SCHEMA_VERSION:
        return (
            f"{place} has schema {schema}, whose rows lie in the source's order and so tell who holds the source what "
            f"was excluded; this version reads {SCHEMA_VERSION}: scan into a new directory, and keep or remove the old "
            "one as you would the secret"
        )
    return f"{place} has schema {schema}, this version reads {SCHEMA_VERSION}: install the version that wrote it"
