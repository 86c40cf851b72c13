"""Targets that damage a file of a finished run: what was excluded stays excluded, or the run is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import safetyfilter as sf
from fuzzing.files import FileTarget
from fuzzing.mutations import Mutant
from fuzzing.structures import WORDS
from fuzzing.target import require
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.sharded import ShardedDecisions

WIDTH, _ROWS = 8, 80
SPEC = EncoderSpec(
    architecture="small",
    weights_sha256="ab" * 32,
    image_size=(32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    interpolation="bicubic",
    resize_mode="shortest",
    width=WIDTH,
)


def probes() -> sf.ProbeBank:
    """Two probes that know nothing."""
    weights = np.random.default_rng(1).normal(size=(2, WIDTH)).astype(np.float32) * 4
    names = ("explicit", "minor")
    return sf.ProbeBank(
        sf.LinearProbe(signal=name, weight=weight, bias=0.0, encoder=SPEC.digest)
        for name, weight in zip(names, weights, strict=True)
    )


def scanned(folder: Path) -> sf.Run:
    """A finished run of stored embeddings, in ``run`` of a folder, with its embeddings."""
    vectors = np.random.default_rng(0).normal(size=(_ROWS, WIDTH)).astype(np.float32)
    vectors[7] = np.nan
    np.save(folder / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    safe = sf.SafetyFilter(NamedEncoder(SPEC), probes(), sf.Policy(), sf.EmbedOptions(views="whole"))
    source = sf.open_source(folder / "vectors.npy", part_size=_ROWS // 2)
    return sf.scan(source, folder / "run", safe, keep_embeddings=True)


def keys() -> list[str]:
    """The keys of its samples."""
    return [f"vectors.npy#{number}" for number in range(_ROWS)]


@dataclass(slots=True, kw_only=True)
class RunFile(FileTarget):
    """One file of a run; whatever reads the run reads it whole after that."""

    whole: dict[Path, bytes] = field(default_factory=dict)
    reasons: np.ndarray = field(default_factory=lambda: np.empty(0))
    scores: str = ""
    embeddings: np.ndarray = field(default_factory=lambda: np.empty(0))

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        self.set_up()
        self.whole = {path: path.read_bytes() for path in (self.folder / "run").rglob("*") if path.is_file()}
        return [self.place.read_bytes()]

    def set_up(self) -> None:
        """Make the run, and note what it says."""
        run = scanned(self.folder)
        self.reasons = sf.Decisions.of(run).reasons(keys())
        require(0 < int((self.reasons != 0).sum()) < _ROWS - 1, "all are kept or all excluded")
        ShardedDecisions.of(run)  # which keeps a table of the parts
        self.scores, self.embeddings = repr(run.read_scores().to_pydict()), np.array(run.read_embeddings())

    def check(self, mutant: Mutant) -> bool:
        """Damage the file, read the run, and put it right again."""
        try:
            return super(RunFile, self).check(mutant)
        finally:
            for path in (self.folder / "run").rglob("*"):
                if path.is_file() and path not in self.whole:
                    path.unlink()
            for path, content in self.whole.items():
                if not path.exists() or path.read_bytes() != content:
                    path.write_bytes(content)

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        run = sf.Run.open(self.folder / "run")
        found = sf.Decisions.of(run).reasons(keys())
        require(not (found[self.reasons != 0] == 0).any(), "what was excluded is kept")
        sharded = ShardedDecisions.of(run)
        shard = np.array([sharded.reasons_of_key(key) for key in keys()])
        require(not (shard[self.reasons != 0] == 0).any(), "what was excluded is kept, shard by shard")
        require(repr(run.read_scores().to_pydict()) == self.scores, "the scores are others")
        require(np.array_equal(run.read_embeddings(), self.embeddings, equal_nan=True), "the embeddings are others")


@dataclass(slots=True, kw_only=True)
class Checkpoint(FileTarget):
    """The checkpoint of a part in progress: as it was written, or none."""

    kept: ScoredPart | None = None
    run: sf.Run | None = None

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        self.run = scanned(self.folder)
        from safetyfilter.runs.parts import read_scores

        part, _ = read_scores(self.run.file("scores", 0), self.run.record.setup.signals, 0)
        self.kept = part
        before = set((self.folder / "run").rglob("*"))
        self.run.checkpoints().save(part)
        (made,) = set((self.folder / "run").rglob("*")) - before
        self.file = str(made.relative_to(self.folder))
        return [self.place.read_bytes()]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        assert self.run is not None
        assert self.kept is not None
        found = self.run.checkpoints().load(0, self.kept.state)
        if found is None:
            raise sf.errors.RunError("no checkpoint")
        require(np.array_equal(found.keys, self.kept.keys), "other rows")
        require(np.array_equal(found.scores.values, self.kept.scores.values, equal_nan=True), "other scores")
        require(np.array_equal(found.scores.status, self.kept.scores.status), "other statuses")


def run_targets() -> list[FileTarget]:
    """Return one target for each kind of file in a run."""
    return [
        RunFile(name="run-json", file="run/run.json", structure=WORDS),
        RunFile(name="run-scores", file="run/scores/part-00000.parquet"),
        RunFile(name="run-decisions", file="run/decisions/part-00001.parquet"),
        RunFile(name="run-embeddings", file="run/embeddings/part-00000.npy"),
        Checkpoint(name="run-checkpoint", file="run/x"),
    ]
