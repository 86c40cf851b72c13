"""The officer's keys, records and sealed chunks, made once."""

from __future__ import annotations

import hashlib

import pytest

from safetyfilter import Policy, Run, SafetyFilter, open_source, scan
from safetyfilter.hashes.lists import HashLists
from safetyfilter.sealed import chunks as chunk_module
from safetyfilter.sealed import private_keys
from safetyfilter.sealed.chunks import seal
from safetyfilter.sealed.evidence import Evidence, PictureDigests
from safetyfilter.sealed.private_keys import PrivateKeys
from tests.conftest import good_images
from tests.writers import write_files

RUN, PART = "a run's number", "a part's fingerprint"
PICTURES = {**good_images(), "broken.jpg": b"no picture"}
LISTED = sorted(PICTURES)[1::4]
"""One in each part, so that every part has a record."""


@pytest.fixture(scope="session")
def keys() -> PrivateKeys:
    return PrivateKeys.generate()


@pytest.fixture(scope="session")
def records() -> tuple[Evidence, ...]:
    """Records with all fields, without some, and with texts that no format likes."""
    picture = PictureDigests(md5="00" * 16, sha1="11" * 20, sha256="22" * 32, pdq="33" * 32, pdq_quality=71)
    full = Evidence(
        source="/data/pictures.parquet",
        key="0001",
        reasons=("co_occurrence", "known_hash"),
        lists=("one.txt", "other.csv"),
        pictures=(picture, PictureDigests(md5="44" * 16, sha1="55" * 20, sha256="66" * 32)),
        caption_sha256="77" * 32,
        url="https://host.invalid/a?b=<c>&d",
        crawl={"warc": "a.warc.gz", "offset": "12"},
        time="2026-01-02T03:04:05+00:00",
    )
    odd = Evidence(source="/data/\udcff", key='a\x00b\n"source": c</key>', reasons=("known_hash",))
    plain = [Evidence(source="/data", key=f"{n:04d}", reasons=("co_occurrence",)) for n in range(7)]
    return (full, odd, *plain)


@pytest.fixture(scope="session")
def sealed(keys: PrivateKeys, records: tuple[Evidence, ...]) -> tuple[bytes, ...]:
    """The records in five chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_module, "_MOST_RECORDS", 2)
        return seal(records, keys.public, run=RUN, part=PART, first=0, last=True)


@pytest.fixture
def quick_passphrase(monkeypatch: pytest.MonkeyPatch) -> str:
    """A passphrase of which a guess costs little; the doctests make keys at the full cost."""
    monkeypatch.setattr(private_keys, "OPERATIONS", 1)
    monkeypatch.setattr(private_keys, "MEMORY_BYTES", 8192)
    return "a phrase of several words"


@pytest.fixture(scope="session")
def sealed_run(tmp_path_factory: pytest.TempPathFactory, encoder, probes, keys: PrivateKeys) -> Run:
    """A run of several parts with sealed records, of which tests change copies alone."""
    folder = tmp_path_factory.mktemp("sealed-run")
    (folder / "list.txt").write_text("".join(f"{hashlib.sha256(PICTURES[key]).hexdigest()}\n" for key in LISTED))
    safe = SafetyFilter(
        encoder,
        probes,
        Policy(thresholds={"explicit": 0.25, "minor": 0.5}),
        hash_lists=HashLists.load([f"sha256={folder / 'list.txt'}"]),
    )
    source = open_source(write_files(folder / "pictures", PICTURES), part_size=4)
    return scan(source, folder / "run", safe, officer=keys.public)
