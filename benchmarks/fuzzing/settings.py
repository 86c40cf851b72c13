"""Targets that read what a user names: policies, probes, labels, configurations, detectors, and secrets."""

from __future__ import annotations

import io
import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import safetyfilter as sf
from fuzzing.files import FileTarget
from fuzzing.mutations import Mutant
from fuzzing.runs import probes
from fuzzing.structures import LINES, TENSORS, WORDS
from fuzzing.target import require
from safetyfilter.batches import Reason, ScoreBatch
from safetyfilter.embed.clip.configuration import read_configuration
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.evaluation.inputs import read_labelled_scores
from safetyfilter.runs.secret import VARIABLE, own_secret
from safetyfilter.score.labels import Labels, column_of, scores_of
from safetyfilter.storage import Location

_ROWS = 12


@dataclass(slots=True, kw_only=True)
class PolicyFile(FileTarget):
    """Policies; one that is accepted never keeps a sample with both signals, or with no score."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        texts = [sf.Policy.preset(name).to_toml() for name in ("strict", "laion-0.98", "no-minors")]
        texts.append('[signals]\nexplicit = "circle"\nminor = "square"\n\n[thresholds]\ncircle = 0.25\nsquare = 0.75\n')
        texts.append(
            "# a comment\n[thresholds]\nexplicit = 0.3\nminor = 0.4\nviolence = 0.9\n[exclude]\nviolence = 0.95\n"
        )
        return [text.encode() for text in texts]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        policy = sf.Policy.load(self.place)
        signals = tuple(policy.thresholds)
        require(all(0 <= policy.thresholds[name] <= 1 for name in signals), "a threshold outside [0, 1]")
        values = np.ones((3, len(signals)), np.float32)
        values[1] = np.nan
        values[2] = [policy.thresholds[name] for name in signals]
        bits = policy.decide(ScoreBatch(values=values, signals=signals)).reason_bits
        require(bool(bits[0] & Reason.CO_OCCURRENCE), "both signals are kept")
        require(bits[1] == Reason.UNSCORED, "no score is kept")
        require(bool(bits[2]), "both signals at their thresholds are kept")
        require(sf.Policy.from_toml(policy.to_toml()).digest == policy.digest, "it is not read back")


@dataclass(slots=True, kw_only=True)
class ProbeFile(FileTarget):
    """Probe files; one that is accepted gives scores in [0, 1] or none."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        bank = probes()
        bank.save(self.place)
        linear = self.place.read_bytes()
        sf.ProbeBank([bank.probes[0]]).save(self.place)
        return [linear, self.place.read_bytes(), linear]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        bank = sf.ProbeBank.load(self.place)
        require(bank.width <= 1 << 20, "a probe of more columns than its file can hold")
        vectors = np.random.default_rng(0).normal(size=(4, bank.width)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(all="ignore"):
            scores = bank.score_vectors(vectors)
        finite = scores[~np.isnan(scores)]
        require(bool(((finite >= 0) & (finite <= 1)).all()), "a score outside [0, 1]")


@dataclass(slots=True, kw_only=True)
class LabelFile(FileTarget):
    """Labels and scores in CSV or Parquet; what is accepted has a label or none in each row, and no other."""

    scores: bool = False

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        keys = [f"k{number:03d}" for number in range(_ROWS)]
        rng = random.Random(0)
        scores = {"key": keys, **{name: [round(rng.random(), 3) for _ in keys] for name in ("explicit", "minor")}}
        flags = [rng.choice((True, False, None)) for _ in keys]
        labels = {"key": keys, "explicit": flags, "minor": [rng.choice((True, False)) for _ in keys]}
        self._other.write_bytes(_parquet(labels if self.scores else scores))
        table = scores if self.scores else labels
        return [_csv(table), _csv(table).replace(b"\n", b"\r\n")] if self.file.endswith(".csv") else [_parquet(table)]

    @property
    def _other(self) -> Path:
        return self.folder / "other.parquet"

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        scores, labels = (self.place, self._other) if self.scores else (self._other, self.place)
        found = read_labelled_scores(scores, labels)
        require(len(found.scores) == len(found.labels), "rows do not match")
        for signal in ("explicit", "minor"):
            values = scores_of(column_of(found.scores, signal, "scores"), signal)
            require(bool((np.isnan(values) | ((values >= 0) & (values <= 1))).all()), "a score outside [0, 1]")
            require(
                len(Labels.of(column_of(found.labels, signal, "labels"), signal)) == len(values), "labels are missing"
            )


def _csv(table: dict[str, list[object]]) -> bytes:
    words = {True: "true", False: "no", None: ""}
    rows = zip(*table.values(), strict=True)
    lines = [
        ",".join(table),
        *(",".join(str(words.get(v, v) if not isinstance(v, float) else v) for v in row) for row in rows),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _parquet(table: dict[str, list[object]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()


@dataclass(slots=True, kw_only=True)
class ConfigurationFile(FileTarget):
    """open_clip's configurations, with the preprocessing in them."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        text = """{"model_cfg": {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}},
        "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic",
        "resize_mode": "shortest", "fill_color": 0}}"""
        return [text.encode()]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        found = read_configuration(self.place)
        if found.preprocessing is not None:
            made = Preprocessing.of(found.preprocessing)
            require(bool(np.isfinite([*made.mean, *made.std]).all()) and min(made.std) > 0, "it is not finite")


@dataclass(slots=True, kw_only=True)
class SecretFile(FileTarget):
    """A run's secret: the run's own, or an error."""

    def prepare(self, folder: Path) -> None:
        """Make the file, without a secret in the environment."""
        os.environ.pop(VARIABLE, None)
        super(SecretFile, self).prepare(folder)

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        return [b"5e" * 32 + b"\n", (b"0123456789abcdef" * 2)]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        from safetyfilter.runs.digests import Digester

        for secret in {bytes.fromhex(seed.decode().strip()) for seed in self.seeds}:
            try:
                found = own_secret(Location.of(self.folder / "run"), Digester(secret).text("secret"))
            except sf.errors.SecretError:
                continue
            require(found.secret == secret, "another secret passes for the run's")
            return
        raise sf.errors.SecretError("not one of them")


def setting_targets() -> list[FileTarget]:
    """Return one target for each file that a user names."""
    return [
        PolicyFile(name="policy", file="policy.toml", structure=WORDS),
        ProbeFile(name="probes", file="probes.safetensors", structure=TENSORS),
        LabelFile(name="labels-csv", file="labels.csv", structure=WORDS),
        LabelFile(name="labels-parquet", file="labels.parquet"),
        LabelFile(name="scores-csv", file="scores.csv", structure=WORDS, scores=True),
        ConfigurationFile(name="configuration", file="open_clip_config.json", structure=WORDS),
        SecretFile(name="secret", file="run.secret", structure=LINES),
    ]
