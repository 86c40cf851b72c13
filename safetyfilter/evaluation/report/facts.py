"""Facts on a run's record, as rows of tables: the source, the encoder, the probes, the decisions, the versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from safetyfilter.evaluation.report.bins import edge_text
from safetyfilter.runs.record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A row of a table.

    Attributes
    ----------
    name, value : str
        Plain text.
    digest : bool
        True for a value that is to be compared and not read.
    """

    name: str
    value: str
    digest: bool = False


def facts(record: RunRecord) -> dict[str, list[Fact]]:
    """Return rows about a run, by the heading that they stand under.

    Parameters
    ----------
    record : RunRecord
        Of a complete run. The digest of its secret is left out.
    """
    return {
        "Run": list(_run(record)),
        "Source": list(_source(record)),
        "Encoder": list(_encoder(record)),
        "Pictures": list(_pictures(record)),
        "Probes": [
            Fact(name=f"Probe {at}", value=probe, digest=True) for at, probe in enumerate(record.setup.probes, 1)
        ],
        **({"Lists of known content": list(_lists(record))} if record.setup.hash_lists else {}),
        **({"Sealed records": list(_sealed(record))} if record.setup.officer else {}),
        "Software": [Fact(name=name, value=version) for name, version in record.versions.items()],
    }


def decision_facts(record: RunRecord) -> list[Fact]:
    """Return rows about what a run's decisions rest on."""
    policy, beyond = record.policy, record.decided_with
    rows = [Fact(name=f"Threshold of {signal}", value=edge_text(value)) for signal, value in policy.thresholds.items()]
    rows += [
        Fact(name=f"Excluded for {signal} alone", value=f"from {edge_text(_cut(record, signal))} on")
        for signal in sorted(policy.exclude)
    ]
    if beyond.near is not None:
        rows.append(
            Fact(name="Near-duplicates", value=f"of co-occurrence exclusions, from a cosine of {beyond.near!r} on")
        )
    rows += [Fact(name="Scores of another run", value=scores, digest=True) for scores in beyond.runs]
    if record.applied_from:
        rows.append(Fact(name="Decisions applied from", value=record.applied_from, digest=True))
    return [
        *rows,
        Fact(name="Digest of the policy", value=policy.digest, digest=True),
        Fact(name="Digest of the decisions", value=record.decisions_digest, digest=True),
    ]


def _cut(record: RunRecord, signal: str) -> float:
    return record.policy.exclude_at.get(signal, record.policy.thresholds[signal])


def _run(record: RunRecord) -> Iterator[Fact]:
    yield Fact(name="Started", value=record.created)
    yield Fact(name="Run", value=record.run_id, digest=True)
    yield Fact(name="Setup", value=record.setup.digest, digest=True)
    yield Fact(name="Scores", value=record.scores, digest=True)
    yield Fact(name="Decisions", value=record.decisions, digest=True)


def _source(record: RunRecord) -> Iterator[Fact]:
    source = record.source
    yield Fact(name="Kind", value=source.kind)
    yield Fact(name="Keys", value=source.keys)
    yield Fact(name="Parts", value=f"{source.parts:,}")
    yield Fact(name="Location, keyed digest", value=source.location, digest=True)
    yield Fact(name="State, keyed digest", value=source.fingerprint, digest=True)


def _encoder(record: RunRecord) -> Iterator[Fact]:
    spec = record.setup.encoder
    yield Fact(name="Name", value=spec.name)
    yield Fact(name="Weights", value=spec.weights_sha256, digest=True)
    if spec.config_sha256:
        yield Fact(name="Configuration", value=spec.config_sha256, digest=True)
    yield Fact(name="Input", value=f"{spec.image_size[0]} by {spec.image_size[1]} pixels")
    yield Fact(name="Mean", value=", ".join(map(repr, spec.mean)))
    yield Fact(name="Standard deviation", value=", ".join(map(repr, spec.std)))
    yield Fact(name="Resizing", value=f"{spec.resize_mode}, {spec.interpolation}, filled with {spec.fill_color}")
    yield Fact(name="Embedding", value=f"{spec.width:,} numbers")
    yield Fact(name="Encoder", value=spec.digest, digest=True)


def _lists(record: RunRecord) -> Iterator[Fact]:
    for at, digest in enumerate(record.setup.hash_lists, 1):
        yield Fact(name=f"List {at}", value=digest, digest=True)
    yield Fact(name="Samples not held against all of one", value=f"{record.hash_unchecked:,}")


def _sealed(record: RunRecord) -> Iterator[Fact]:
    yield Fact(name="Records", value=f"{record.sealed:,}")
    yield Fact(name="Fingerprint of the officer's key", value=record.setup.officer, digest=True)


def _pictures(record: RunRecord) -> Iterator[Fact]:
    setup = record.setup
    yield Fact(name="Views", value=setup.views)
    yield Fact(name="Decoding", value=setup.decode)
    yield Fact(name="Precision", value=setup.precision)
    yield Fact(name="Preparation, version", value=str(setup.preparation))
    for name, value in asdict(setup.limits).items():
        yield Fact(name=f"Limit {name}", value=f"{value:,}")
