"""The run directory: what a scan leaves behind, resumable part by part."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from safetyfilter.batches import Digester, Floats
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OtherRunError, OutputError, RunError, SchemaError, SecretError, UnfinishedRunError
from safetyfilter.runs.parts import SCHEMA_VERSION, ScorePart, read_meta, write_decisions
from safetyfilter.runs.secret import create_secret, read_secret, secret_place
from safetyfilter.sources.base import Part, Source
from safetyfilter.storage import replacing


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What a run's scores depend on besides the source; another setup is another run.

    Attributes
    ----------
    encoder : mapping
        `EncoderSpec.as_dict`.
    stand_in : bool
        Whether the encoder is the stand-in, whose scores mean nothing for real pictures.
    probes : sequence of str
        The probes' digests.
    signals : sequence of str
        The signals scored.
    views, decode, precision : str
        How images were prepared and embedded.
    """

    encoder: Mapping[str, object]
    stand_in: bool
    probes: Sequence[str]
    signals: Sequence[str]
    views: str
    decode: str
    precision: str

    def as_dict(self) -> dict[str, object]:
        """Plain values for `run.json`."""
        return {
            "encoder": dict(self.encoder),
            "stand_in": self.stand_in,
            "probes": list(self.probes),
            "signals": list(self.signals),
            "views": self.views,
            "decode": self.decode,
            "precision": self.precision,
        }

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all of it."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class Run:
    """A run directory that is there.

    Attributes
    ----------
    path : Path
        The directory.
    info : dict
        What `run.json` holds.
    """

    path: Path
    info: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run.

        Raises
        ------
        RunError
            There is no run, or its `run.json` is damaged.
        SchemaError
            It was written by another version of the schema.
        """
        path = Path(path)
        try:
            info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"no run at {path}; make one with `safetyfilter scan SOURCE --out {path}`") from error
        except (OSError, ValueError) as error:
            raise RunError(f"can't read {path / 'run.json'}: {error}; scan again, finished parts are kept") from error
        if not isinstance(info, dict) or info.get("schema") != SCHEMA_VERSION:
            found = info.get("schema") if isinstance(info, dict) else None
            raise SchemaError(
                f"the run {path} has schema {found}, this version reads {SCHEMA_VERSION}; use the "
                "version that wrote it, or scan into a new directory"
            )
        return cls(path, info)

    @staticmethod
    def check_output(path: str | Path) -> None:
        """Raise `OutputError` unless a run could be written here; leaves nothing behind."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; give a directory for the run")
        if path.is_dir() and not (path / "run.json").exists() and any(path.iterdir()):
            raise OutputError(f"{path} is not empty and holds no run; give a new or empty directory")
        existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        try:  # a trial, since permissions alone don't tell on every file system
            with tempfile.TemporaryDirectory(dir=existing, prefix=".safetyfilter-"):
                pass
        except OSError as error:
            raise OutputError(
                f"can't write to {existing}: {error.strerror}; choose a writable place for the run"
            ) from error

    @classmethod
    def start(cls, path: str | Path, *, source: Source, setup: RunSetup, policy: Policy) -> Run:
        """Start a run, or take up the one that is there.

        Raises
        ------
        OtherRunError
            The directory holds a run of another source, or with another encoder, probes or preparation.
        OutputError
            It can't be written.
        """
        path = Path(path)
        cls.check_output(path)
        known = (path / "run.json").exists()
        if known:
            run = cls.open(path)
            digester = run.digester()
            if run.info["setup_digest"] != setup.digest:
                wanted = json.loads(json.dumps(setup.as_dict()))  # as it would come back from the file
                differing = [name for name, value in wanted.items() if run.info.get(name) != value]
                raise OtherRunError(
                    f"{path} holds a run with another {', '.join(differing)}; give another --out, or remove that run"
                )
            if run.info["source"]["location"] != digester.text(source.location):
                raise OtherRunError(f"{path} holds a run of another source; give another --out, or remove that run")
        else:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"can't make {path}: {error.strerror}; choose a writable place") from error
            run = cls(path, {})
            digester = create_secret(path)
        parts = source.parts()
        run.info = {
            "schema": SCHEMA_VERSION,
            "created": run.info.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
            **setup.as_dict(),
            "setup_digest": setup.digest,
            "policy": policy.as_dict(),
            "source": {
                "kind": source.kind,
                "location": digester.text(source.location),
                "parts": len(parts),
                "fingerprint": digester.text("\n".join(part.state for part in parts)),
            },
            "secret_check": digester.text("secret"),
            "versions": _versions(),
            "complete": False,
            "counts": None,
        }
        for folder in ("scores", "decisions"):
            (path / folder).mkdir(exist_ok=True)
        run.write_info()
        return run

    def write_info(self) -> None:
        """Write `run.json`, whole or not at all."""
        with replacing(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(self.info, indent=2) + "\n", encoding="utf-8")

    def digester(self) -> Digester:
        """What computes this run's digests; `SecretError` where the secret is missing or another run's."""
        digester = read_secret(self.path)
        if digester.text("secret") != self.info["secret_check"]:
            raise SecretError(
                f"the secret in {secret_place(self.path)} is not the one that the run {self.path} was made with; find "
                "that one"
            )
        return digester

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run for writing; `RunError` while another process does."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"another process is writing {self.path}; wait for it, or give another --out") from error
            for left in self.path.glob("*/.*.tmp"):  # by a process that was killed
                left.unlink()
            yield
        finally:
            os.close(descriptor)

    @property
    def part_count(self) -> int:
        """How many parts the source has."""
        return int(self.info["source"]["parts"])

    @property
    def policy(self) -> Policy:
        """The policy that was last applied."""
        return Policy.from_dict(self.info["policy"])

    @property
    def counts(self) -> dict[str, int]:
        """``seen``, ``kept``, ``excluded`` and one per reason; `UnfinishedRunError` before the run is complete."""
        self.require_complete()
        return dict(self.info["counts"])

    def require_complete(self) -> None:
        """Raise `UnfinishedRunError` unless every part is scored and decided."""
        if not self.info["complete"]:
            raise UnfinishedRunError(
                f"the run {self.path} is not finished; run the same `safetyfilter scan` again, "
                "which does only what is missing"
            )

    def file(self, folder: str, index: int, suffix: str = "parquet") -> Path:
        """The path of one part's file."""
        return self.path / folder / f"part-{index:05d}.{suffix}"

    def fingerprint(self, part: Part, digester: Digester) -> str:
        """What stands for the part's samples and everything its scores depend on."""
        return digester.text(f"{self.info['setup_digest']}\n{part.index}\n{part.state}")

    def is_scored(self, part: Part, digester: Digester, *, embeddings: bool = False) -> bool:
        """Whether the part's scores are there and still hold."""
        meta = read_meta(self.file("scores", part.index))
        held = meta is not None and meta["fingerprint"] == self.fingerprint(part, digester)
        return held and (not embeddings or self.file("embeddings", part.index, "npy").exists())

    def write_scores(self, index: int, part: ScorePart, embeddings: Floats | None = None) -> None:
        """Write a part's scores, after its embeddings where they are kept."""
        if embeddings is not None:
            (self.path / "embeddings").mkdir(exist_ok=True)
            with replacing(self.file("embeddings", index, "npy")) as temporary, temporary.open("wb") as file:
                np.save(file, embeddings.astype(np.float16))
        part.write(self.file("scores", index))

    def decide_part(self, index: int, policy: Policy) -> Counter[str]:
        """Decide on a part's stored scores, unless that was done; its counts."""
        scores = self.file("scores", index)
        meta, decided = read_meta(scores), read_meta(self.file("decisions", index))
        if meta and decided and (decided["fingerprint"], decided["policy"]) == (meta["fingerprint"], policy.digest):
            counts = decided["counts"]
            assert isinstance(counts, dict)
            return Counter(counts)
        part = ScorePart.read(scores)
        return write_decisions(
            part, policy.decide(part.scores).reason_bits, self.file("decisions", index), policy=policy.digest
        )

    def finish(self, counts: Mapping[str, int], policy: Policy) -> None:
        """Record that every part is scored and decided, and remove parts that the source no longer has."""
        for folder in ("scores", "decisions", "embeddings"):
            for file in sorted((self.path / folder).glob("part-*")):
                if int(file.stem.removeprefix("part-")) >= self.part_count:
                    file.unlink()
        self.info |= {"policy": policy.as_dict(), "counts": dict(counts), "complete": True}
        self.write_info()


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    names = ("safetyfilter", "torch", "open_clip_torch", "numpy", "pyarrow", "Pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
