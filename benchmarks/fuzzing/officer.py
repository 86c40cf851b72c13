"""Targets that read what an officer has: keys, sealed records, and the attestation of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import safetyfilter as sf
from fuzzing.files import FileTarget
from fuzzing.mutations import Mutant
from fuzzing.runs import RunFile
from fuzzing.structures import WORDS
from fuzzing.target import require
from safetyfilter.attest.sign import attest_run
from safetyfilter.attest.verify import verify_run
from safetyfilter.errors import AttestationError, SealedError
from safetyfilter.sealed import private_keys
from safetyfilter.sealed.chunks import seal
from safetyfilter.sealed.evidence import Evidence, PictureDigests
from safetyfilter.sealed.file import read_chunks, write_chunks
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.opening import open_part
from safetyfilter.sealed.private_keys import PrivateKeys, write_keys
from safetyfilter.storage import Location

_PASSPHRASE = "a phrase of several words"
KEYS = PrivateKeys(sealing=bytes(range(32)), signing_seed=bytes(range(32, 64)))


@dataclass(slots=True, kw_only=True)
class PublicKey(FileTarget):
    """The officer's public key: that key, or an error."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        return [KEYS.public.to_text().encode()]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        require(OfficerKey.load(self.place) == KEYS.public, "another key passes for the officer's")


@dataclass(slots=True, kw_only=True)
class PrivateKeyFile(FileTarget):
    """The officer's private keys, under a passphrase that costs little here."""

    made: OfficerKey | None = None

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        private_keys.OPERATIONS, private_keys.MEMORY_BYTES = 1, 8192
        place = self.folder / "made.key"
        self.made = write_keys(place, _PASSPHRASE)
        return [place.read_bytes()]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        require(PrivateKeys.open(self.place, _PASSPHRASE).public == self.made, "other keys pass for the officer's")


@dataclass(slots=True, kw_only=True)
class SealedFile(FileTarget):
    """A part's sealed records: all of them, or a fault."""

    records: frozenset[str] = field(default_factory=frozenset)

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        picture = PictureDigests(md5="0" * 32, sha1="1" * 40, sha256="2" * 64)
        records = [
            Evidence(source="s", key=f"key {number}", reasons=("known_hash",), pictures=(picture,), url="u" * 300)
            for number in range(300)
        ]
        self.records = frozenset(record.key for record in records)
        write_chunks(Location.of(self.place), seal(records, KEYS.public, run="r", part="p", first=0, last=True))
        return [self.place.read_bytes()]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        opened = open_part(read_chunks(Location.of(self.place)), KEYS, run="r", part="p")
        if opened.faults:
            require(self.records >= {record.key for record in opened.records}, "records that nobody sealed")
            raise SealedError("; ".join(opened.faults))
        require({record.key for record in opened.records} == self.records, "records are missing, and nothing says so")


@dataclass(slots=True, kw_only=True)
class AttestedFile(RunFile):
    """A file of an attested run: whatever still verifies says what was attested."""

    def set_up(self) -> None:
        """Make the run, and attest it."""
        super(AttestedFile, self).set_up()
        attest_run(sf.Run.open(self.folder / "run"), KEYS, progress=False)

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        verification = verify_run(self.folder / "run", KEYS.public, progress=False)
        if not verification.holds:
            raise AttestationError("it does not hold")
        if self.file == "run/attestation.json":
            whole = json.loads(self.whole[self.place])
            require(json.loads(mutant.data)["payload"] == whole["payload"], "another statement passes")
        super(AttestedFile, self).read(mutant)


def officer_targets() -> list[FileTarget]:
    """Return one target for each file."""
    return [
        PublicKey(name="officer-key", file="officer.key.pub", structure=WORDS),
        PrivateKeyFile(name="officer-private-keys", file="officer.key", structure=WORDS, memory_mb=1100, cpu_s=60),
        SealedFile(name="sealed-records", file="part-00000.bin"),
        AttestedFile(name="attestation", file="run/attestation.json", structure=WORDS),
        AttestedFile(name="attested-record", file="run/run.json", structure=WORDS),
        AttestedFile(name="attested-decisions", file="run/decisions/part-00000.parquet"),
        AttestedFile(name="attested-scores", file="run/scores/part-00000.parquet"),
    ]
