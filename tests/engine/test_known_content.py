"""Scans with lists of known content and an officer's key: what is on a list is out, and there is a record of it."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safetyfilter import Policy, Reason, Run, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.engine import inspection
from safetyfilter.engine.copies import apply_run
from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.engine.scan import run_setup
from safetyfilter.engine.scorers import ImageScorer
from safetyfilter.errors import OtherRunError, UsageError
from safetyfilter.hashes.lists import HashLists
from safetyfilter.loaders.filter_decider import FilterDecider
from safetyfilter.runs.checkpoints import LEAST
from safetyfilter.runs.finishing import decide_scanned
from safetyfilter.runs.sealed_records import open_records
from safetyfilter.runs.start import started
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.sources.base import Sample
from safetyfilter.storage import Location
from tests.conftest import bad_images, encoded, good_images
from tests.engine.memory import MemorySource
from tests.engine.pictures import rows_of
from tests.writers import write_tars

URL = "https://host.invalid/{}"
GOOD = {name: image for name, image in good_images().items() if name.endswith("-2.png")}
FLAT = encoded(Image.new("RGB", (80, 80), "teal"), "PNG")
"""A picture with nothing in it, of which no perceptual hash says enough."""
IMAGES = {**GOOD, "flat": FLAT, "broken": bad_images()["bad/sheared.jpg"], "hollow": b""}
LISTED = {"md5": "coffee-2.png", "sha256": "broken", "url-sha1": "rocket-2.png"}
"""The kind of hash that a list has, of which sample."""
WITHOUT_URL = "china-2.png"
CAPTIONS = {name: f"a caption, of {name}" for name in IMAGES if name != "flat"}
HAVE_PDQ = find_spec("pdqhash") is not None


class Case(NamedTuple):
    """A source with URLs, lists on which some of its samples are, and a run of both."""

    run: Run
    folder: Path
    safe: SafetyFilter
    keys: PrivateKeys

    @property
    def table(self) -> Path:
        return self.folder / "source.parquet"


def url_of(name: str) -> str | None:
    return None if name == WITHOUT_URL else URL.format(name)


def write_source(path: Path, images: Mapping[str, bytes]) -> Path:
    columns = {
        "key": list(images),
        "image": [image or None for image in images.values()],
        "url": [url_of(name) for name in images],
        "caption": [CAPTIONS.get(name) for name in images],
        "warc_filename": [f"{name}.warc.gz" for name in images],
    }
    pq.write_table(pa.table(columns), path)
    return path


def lists_in(folder: Path, **hashes: str) -> HashLists:
    """Lists of one hash each, by kind."""
    names = []
    for kind, digest in hashes.items():
        (folder / f"{kind}.txt").write_text(f"{digest}\n")
        names.append(f"{kind.replace('_', '-')}={folder / f'{kind}.txt'}")
    return HashLists.load(names)


@pytest.fixture(scope="session")
def keys() -> PrivateKeys:
    pytest.importorskip("nacl", reason="PyNaCl is not installed: pip install 'safetyfilter[sealed]'")
    return PrivateKeys.generate()


@pytest.fixture(scope="session")
def case(safe: SafetyFilter, keys: PrivateKeys, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("known")
    lists = lists_in(
        folder,
        md5=hashlib.md5(IMAGES[LISTED["md5"]]).hexdigest(),
        sha256=hashlib.sha256(IMAGES[LISTED["sha256"]]).hexdigest(),
        url_sha1=hashlib.sha1(URL.format(LISTED["url-sha1"]).encode()).hexdigest(),
    )
    safe = replace(safe, hash_lists=lists, policy=Policy(thresholds={"explicit": 0.25, "minor": 0.25}))
    source = open_source(write_source(folder / "source.parquet", IMAGES), image_column="image", key_column="key")
    return Case(scan(source, folder / "run", safe, officer=keys.public), folder, safe, keys)


def reopened(case: Case) -> object:
    return open_source(case.table, image_column="image", key_column="key")


def records_of(run: Run, keys: PrivateKeys) -> dict[str, Evidence]:
    """The records of a run by key, of which nothing is missing or altered."""
    parts = list(open_records(run, keys))
    assert [fault for part in parts for fault in part.faults] == []
    found = [record for part in parts for record in part.records]
    assert len(found) == run.record.sealed == len({record.key for record in found})
    return {record.key: record for record in found}


def reasons_of(run: Run, names: Mapping[str, object] = IMAGES) -> dict[str, set[str]]:
    return dict(zip(names, map(set, rows_of(run, names, "decisions")["reasons"].to_pylist()), strict=True))


def test_what_is_on_a_list_is_excluded_whatever_its_scores(case: Case) -> None:
    reasons = reasons_of(case.run)
    assert {name for name, found in reasons.items() if "known_hash" in found} == set(LISTED.values())
    assert reasons["broken"] == {"known_hash", "unscored"}  # bytes are held against lists, whether they decode or not
    kept = apply_policy(copy_of(case), Policy(thresholds={"explicit": 1, "minor": 1})).counts
    assert kept["known_hash"] == len(LISTED)
    assert kept["co_occurrence"] == 0


@pytest.mark.parametrize("listed", ["coffee-2.png", "rocket-2.png"])
def test_each_picture_of_a_sample_that_is_not_scored_is_held_against_lists(
    tmp_path: Path, case: Case, listed: str
) -> None:
    images, beside = {"coffee-2.png": GOOD["coffee-2.png"], "flat.png": FLAT}, GOOD["rocket-2.png"]
    tars = write_tars(tmp_path / "tars", images, members={"webp": beside})
    safe = replace(case.safe, hash_lists=lists_in(tmp_path, md5=hashlib.md5(GOOD[listed]).hexdigest()))
    run = scan(open_source(tars), tmp_path / "run", safe, officer=case.keys.public)
    keys = {"0.tar/000": "coffee-2.png", "0.tar/001": "flat.png"}
    expected = {
        key: {"unscored"} | ({"known_hash"} if listed in (name, "rocket-2.png") else set())
        for key, name in keys.items()
    }
    assert reasons_of(run, keys) == expected
    first = records_of(run, case.keys)["0.tar/000"]
    digests = {hashlib.md5(image).hexdigest() for image in (images["coffee-2.png"], beside)}
    assert {picture.md5 for picture in first.pictures} == digests


def test_what_nobody_can_tell_is_null_and_counted(case: Case) -> None:
    known = dict(zip(IMAGES, rows_of(case.run, IMAGES)["known_hash"].to_pylist(), strict=True))
    expected = {name: name in LISTED.values() for name in IMAGES} | {"hollow": None, WITHOUT_URL: None}
    assert known == expected
    assert case.run.record.hash_unchecked == 2


@pytest.mark.skipif(not HAVE_PDQ, reason="pdqhash is not installed: pip install 'safetyfilter[hashes]'")
def test_a_picture_that_looks_like_a_listed_one(safe: SafetyFilter, tmp_path: Path) -> None:
    from safetyfilter.hashes.pdq import pdq_of

    lists = lists_in(tmp_path, pdq=pdq_of(IMAGES["coffee-2.png"])[0].hash.hex())
    safe = replace(safe, hash_lists=lists)
    run = scan(open_source(write_source(tmp_path / "s.parquet", IMAGES), key_column="key"), tmp_path / "run", safe)
    assert {name for name, reasons in reasons_of(run).items() if "known_hash" in reasons} == {"coffee-2.png"}
    known = dict(zip(IMAGES, rows_of(run, IMAGES)["known_hash"].to_pylist(), strict=True))
    assert {name for name, found in known.items() if found is None} == {"flat", "broken", "hollow"}
    assert run.record.hash_unchecked == 3
    assert not (tmp_path / "run" / "sealed").exists()  # without a key nothing of the kind is written


def test_each_such_exclusion_has_a_record(case: Case) -> None:
    found, reasons = records_of(case.run, case.keys), reasons_of(case.run)
    assert {name: set(record.reasons) for name, record in found.items()} == {
        name: own for name, own in reasons.items() if own & {"co_occurrence", "known_hash"}
    }
    assert {"co_occurrence", "known_hash"} <= {reason for record in found.values() for reason in record.reasons}
    for name, record in found.items():
        (picture,) = record.pictures
        for algorithm in ("md5", "sha1", "sha256"):
            assert getattr(picture, algorithm) == hashlib.new(algorithm, IMAGES[name]).hexdigest()
        assert bool(picture.pdq) == (HAVE_PDQ and name != "broken")
        assert (picture.pdq_quality is None) == (picture.pdq == "")
        assert record.url == (url_of(name) or "")
        assert record.crawl["warc_filename"] == f"{name}.warc.gz"
        caption = CAPTIONS.get(name)
        assert record.caption_sha256 == ("" if caption is None else hashlib.sha256(caption.encode()).hexdigest())
        assert record.source == str(case.table)
        assert record.lists == tuple(
            f"{kind.replace('-', '_')}.txt ({kind})" for kind, one in LISTED.items() if one == name
        )
        assert record.time > case.run.record.created[:10]


def test_the_run_tells_nothing_of_them_in_the_clear(case: Case) -> None:
    told = [*(name.encode() for name in IMAGES), b"host.invalid", b".warc", b"caption,", b"md5.txt", b"sha256.txt"]
    told += [hashlib.md5(image).hexdigest().encode() for image in IMAGES.values()]
    for path in Path(case.run.path).rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [text for text in told if text in content or text in str(path.relative_to(case.folder)).encode()], (
            path
        )
    assert rows_of(case.run, IMAGES)["sealed"].to_pylist() == [
        name in records_of(case.run, case.keys) for name in IMAGES
    ]


def test_the_record_of_the_run(case: Case) -> None:
    info = json.loads((Path(case.run.path) / "run.json").read_text())
    assert info["schema"] == 4
    assert info["hash_lists"] == sorted(case.safe.hash_lists.digests)  # type: ignore[union-attr]
    assert info["officer"] == case.keys.public.fingerprint
    assert info["sealed"] == len(records_of(case.run, case.keys))
    assert info["hash_unchecked"] == 2
    assert Run.open(case.run.path).record == case.run.record


def test_a_run_without_them_says_nothing_of_them(safe: SafetyFilter, scanned: Run) -> None:
    info = json.loads((Path(scanned.path) / "run.json").read_text())
    assert not {"hash_lists", "officer", "sealed", "hash_unchecked"} & set(info)
    assert run_setup(safe).as_dict().keys() == scanned.record.setup.as_dict().keys()
    assert not (Path(scanned.path) / "sealed").exists()


def copy_of(case: Case, name: str = "copy") -> Run:
    """A copy of the run, that a test may change; its lists, source and secret are the same."""
    place = case.folder / name / "run"
    if not place.exists():
        shutil.copytree(case.run.path, place)
        shutil.copy(f"{case.run.path}.secret", place.with_name("run.secret"))
    return Run.open(place)


def test_it_goes_on_with_the_same_lists_and_key_alone(case: Case, tmp_path: Path) -> None:
    run = copy_of(case, "resumed")
    other = lists_in(tmp_path, md5="00" * 16)
    for safe, officer, named in (
        (replace(case.safe, hash_lists=other), case.keys.public, r"differs in set of hash lists \(--hash-list\); give"),
        (replace(case.safe, hash_lists=None), case.keys.public, "differs in set of hash lists"),
        (case.safe, PrivateKeys.generate().public, r"differs in officer's key \(--officer-key\); give"),
        (case.safe, None, "differs in officer's key"),
    ):
        with pytest.raises(OtherRunError, match=named):
            scan(reopened(case), run.path.path, safe, officer=officer)
    swapped = HashLists(case.safe.hash_lists.lists[::-1])  # type: ignore[union-attr]
    (sealed,) = (Path(run.path) / "sealed").iterdir()
    before = sealed.read_bytes()
    again = scan(reopened(case), run.path.path, replace(case.safe, hash_lists=swapped), officer=case.keys.public)
    assert again.counts == case.run.counts
    assert sealed.read_bytes() == before  # a part that is done is not done again
    sealed.unlink()
    again = scan(reopened(case), run.path.path, case.safe, officer=case.keys.public)
    assert records_of(again, case.keys).keys() == records_of(case.run, case.keys).keys()


def test_exclusions_of_another_policy_have_no_record_and_a_warning_tells(case: Case, caplog) -> None:
    run, recorded = copy_of(case, "decided"), records_of(case.run, case.keys).keys()
    everything = apply_policy(run, Policy(thresholds={"explicit": 0, "minor": 0}))
    excluded = {name for name, own in reasons_of(everything).items() if own & {"co_occurrence", "known_hash"}}
    assert excluded > recorded
    (line,) = [record.message for record in caplog.records if "sealed record" in record.message]
    assert line.startswith(f"{len(excluded - recorded)} samples are excluded for co-occurrence or as known content")
    assert "(--officer-key)" in line
    caplog.clear()
    apply_policy(run, case.run.policy)
    assert not [record for record in caplog.records if "sealed record" in record.message]


def test_a_copy_has_the_matches_and_no_records(case: Case, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    names = {f"{number}.bin": name for number, name in enumerate(IMAGES) if IMAGES[name]}
    for file, name in names.items():
        (tmp_path / "copy" / file).write_bytes(IMAGES[name])
    applied = apply_run(case.run, open_source(tmp_path / "copy"), tmp_path / "applied")
    first = reasons_of(case.run)
    assert reasons_of(applied, names) == {file: first[name] for file, name in names.items()}
    assert applied.record.hash_unchecked == 1  # the one without bytes is not in the copy
    assert (applied.record.setup.officer, applied.record.sealed) == ("", 0)
    assert applied.record.setup.hash_lists == case.run.record.setup.hash_lists
    assert not (tmp_path / "applied" / "sealed").exists()


def test_of_one_sample_that_comes_twice_both_are_out(safe: SafetyFilter, tmp_path: Path) -> None:
    image, url = IMAGES["china-2.png"], URL.format("listed")
    rows = {"key": ["a", "a", "b"], "image": [image, image, image], "url": [url, None, None]}
    pq.write_table(pa.table(rows), tmp_path / "s.parquet")
    lists = lists_in(tmp_path, url_md5=hashlib.md5(url.encode()).hexdigest())
    source = open_source(tmp_path / "s.parquet", key_column="key")
    run = scan(source, tmp_path / "run", replace(safe, hash_lists=lists))
    assert (run.counts["known_hash"], run.record.hash_unchecked) == (2, 1)


def test_of_several_pictures_each_is_held_against_the_lists(case: Case, tmp_path: Path) -> None:
    """Though another of the same sample can't be read, and the sample is unscored for that."""
    listed, missing = IMAGES[LISTED["md5"]], tmp_path / "missing.png"
    others: tuple[tuple[bytes | Location, ...], ...] = ((GOOD["rocket-2.png"], listed), (Location.of(missing),))
    samples = [
        Sample(key="second", image=GOOD["chelsea-2.png"], others=others[0], url="u"),
        Sample(key="first", image=listed, others=others[1], url="u"),
        Sample(key="neither", image=GOOD["chelsea-2.png"], others=others[1], url="u"),
    ]
    run = scan(MemorySource(listed=[samples]), tmp_path / "run", case.safe, officer=case.keys.public)
    names = {sample.key: sample for sample in samples}
    reasons, found = reasons_of(run, names), records_of(run, case.keys)
    assert "known_hash" in reasons["second"]
    assert (reasons["first"], reasons["neither"]) == ({"known_hash", "unscored"}, {"unscored"})
    assert rows_of(run, names)["known_hash"].to_pylist() == [True, True, None]
    assert [len(found[name].pictures) for name in ("second", "first")] == [3, 1]
    assert found["first"].pictures[0].md5 == hashlib.md5(listed).hexdigest()
    safe = replace(case.safe, hash_lists=lists_in(tmp_path, md5=hashlib.md5(listed).hexdigest()))
    ((_, _, decided),) = safe.stream([(listed, missing), (missing, listed), (missing,)], lambda images: (None, images))
    assert list(decided.reasons) == [Reason.KNOWN_HASH | Reason.UNSCORED] * 2 + [Reason.UNSCORED]


@pytest.mark.parametrize("room", [0, inspection.HELD_BYTES])
def test_checkpoints_keep_records_and_number_them_on(
    case: Case, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is stopped twice, once when all of it is scored; each sample is sealed once, whatever was held."""
    monkeypatch.setattr(inspection, "HELD_BYTES", room)
    images = [image for image in IMAGES.values() if image]
    samples = [Sample(key=f"{number:03d}", image=images[number % len(images)]) for number in range(3 * LEAST)]
    source = MemorySource(listed=[samples])
    setup = run_setup(case.safe, officer=case.keys.public)
    with started(
        tmp_path / "run", source=source, setup=setup, policy=case.safe.policy, officer=case.keys.public
    ) as run:
        kept = run.checkpoints()
        job = PartJob(
            source=source,
            scorer=ImageScorer(case.safe),
            digester=run.digester(),
            checkpoints=kept,
            sealing=run.sealing(),
        )
        job = pickle.loads(pickle.dumps(job))  # as it goes to another process
        seen = 0

        def stop(counts: Mapping[str, int]) -> None:
            nonlocal seen
            seen += counts["seen"]
            if seen > 2 * LEAST:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(score_parts(job, source.parts(), report=stop))
        first = kept.load(0, "state 0")
        assert first is not None
        assert LEAST < len(first) < len(samples)
        assert len(first.sealed_chunks) > 0
        parts: Iterator[object] = score_parts(job, source.parts(), report=lambda _: None)
        next(parts)
        parts.close()  # type: ignore[attr-defined] # it was handed out, and nobody recorded it
        (part,) = score_parts(job, source.parts(), report=lambda _: None)
        assert part.sealed_chunks[: len(first.sealed_chunks)] == first.sealed_chunks
        run.write(part)
        kept.remove(part.state)
        run.seal_scores(source.parts())
        decide_scanned(run, run.policy)
    found = records_of(run, case.keys)
    listed = hashlib.md5(IMAGES[LISTED["md5"]]).hexdigest()
    expected = {sample.key for sample in samples if hashlib.md5(sample.image or b"").hexdigest() == listed}
    assert {record.key for record in found.values() if "md5.txt (md5)" in record.lists} == expected
    assert all(
        bool(record.pictures[0].pdq) == (HAVE_PDQ and record.lists != ("sha256.txt (sha256)",))
        for record in found.values()
    )
    assert sorted(path.name for path in (tmp_path / "run" / "sealed").iterdir()) == ["part-00000.bin"]


@pytest.fixture
def stored(safe: SafetyFilter, tmp_path: Path) -> Path:
    """Stored embeddings of the pictures, with URLs."""
    vectors = safe.encoder.embed(list(GOOD.values()), safe.options).vectors.astype(np.float16)
    np.save(tmp_path / "img_emb_0.npy", vectors)
    columns = {"key": list(GOOD), "url": [url_of(name) for name in GOOD], "warc_filename": [f"{n}.gz" for n in GOOD]}
    (tmp_path / "stored" / "img_emb").mkdir(parents=True)
    (tmp_path / "stored" / "metadata").mkdir()
    shutil.move(tmp_path / "img_emb_0.npy", tmp_path / "stored" / "img_emb" / "img_emb_0.npy")
    pq.write_table(pa.table(columns), tmp_path / "stored" / "metadata" / "metadata_0.parquet")
    return tmp_path / "stored"


def test_stored_embeddings_are_known_by_their_urls(case: Case, stored: Path, tmp_path: Path, caplog) -> None:
    listed = LISTED["url-sha1"]
    only = lists_in(tmp_path, url_sha1=hashlib.sha1(URL.format(listed).encode()).hexdigest())
    safe = replace(case.safe, hash_lists=only)
    run = scan(open_source(stored, key_column="key"), tmp_path / "run", safe, officer=case.keys.public)
    reasons, found = reasons_of(run, GOOD), records_of(run, case.keys)
    assert {name for name, own in reasons.items() if "known_hash" in own} == {listed}
    assert {name: set(record.reasons) for name, record in found.items()} == {
        name: own for name, own in reasons.items() if own & {"co_occurrence", "known_hash"}
    }
    assert (found[listed].url, found[listed].lists) == (URL.format(listed), ("url_sha1.txt (url-sha1)",))
    assert found[listed].crawl == {"warc_filename": f"{listed}.gz"}
    assert found[listed].pictures == ()
    assert run.record.hash_unchecked == 1
    assert not caplog.records


def test_stored_embeddings_and_lists_of_pictures(case: Case, stored: Path, tmp_path: Path, caplog) -> None:
    run = scan(open_source(stored, key_column="key"), tmp_path / "run", case.safe)
    assert run.counts["known_hash"] == 1
    assert run.record.hash_unchecked == len(GOOD) - 1  # no bytes were held against anything
    assert any("kinds md5, sha256 are not looked at" in record.message for record in caplog.records)
    blind = replace(case.safe, hash_lists=lists_in(tmp_path, md5="00" * 16))
    with pytest.raises(UsageError, match=r"\(md5\) hold no digest of a URL: none could ever match"):
        scan(open_source(stored, key_column="key"), tmp_path / "blind", blind)
    assert not (tmp_path / "blind").exists()


class TestFilter:
    """The filter by itself, in a loop or a loader."""

    @pytest.fixture(scope="class")
    @classmethod
    def with_lists(cls, case: Case, tmp_path_factory: pytest.TempPathFactory) -> SafetyFilter:
        md5 = hashlib.md5(IMAGES["coffee-2.png"]).hexdigest()
        lists = lists_in(tmp_path_factory.mktemp("lists"), md5=md5, sha256=hashlib.sha256(IMAGES["broken"]).hexdigest())
        keeps = Policy(thresholds={"explicit": 1, "minor": 1})
        return replace(case.safe, hash_lists=lists, policy=keeps)

    def test_a_call(self, with_lists: SafetyFilter, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(IMAGES["coffee-2.png"])
        given = [tmp_path / "a.png", *IMAGES.values(), tmp_path / "missing.png", Image.new("RGB", (9, 9))]
        result = with_lists(given)
        plain = replace(with_lists, hash_lists=None)(given)
        np.testing.assert_array_equal(result.scores.values, plain.scores.values)
        np.testing.assert_array_equal(result.scores.status, plain.scores.status)
        on_list = [0, *(1 + list(IMAGES).index(name) for name in ("coffee-2.png", "broken"))]
        added = result.reason_bits & ~plain.reason_bits
        assert np.flatnonzero(added).tolist() == on_list
        assert (added[on_list] == Reason.KNOWN_HASH).all()
        assert len(with_lists([])) == 0

    def test_urls(self, case: Case) -> None:
        images = list(GOOD.values())
        with pytest.raises(UsageError, match=f"{len(images)} images came with none; pass a URL, or None, for each"):
            case.safe(images)
        found = case.safe(images, urls=[url_of(name) for name in GOOD])
        known = [name for name, bits in zip(GOOD, found.reason_bits, strict=True) if bits & Reason.KNOWN_HASH]
        assert known == sorted([LISTED["md5"], LISTED["url-sha1"]], key=list(GOOD).index)
        with pytest.raises(UsageError, match="nothing tells a sample's URL: pass url"):
            next(case.safe.stream(images, lambda image: (None, image)))
        streamed = case.safe.stream(GOOD.items(), lambda item: item, url=url_of)
        assert [int(bits) for _, _, one in streamed for bits in one.reason_bits] == found.reason_bits.tolist()

    def test_a_loader(self, case: Case, with_lists: SafetyFilter) -> None:
        from safetyfilter.loaders.access import Access

        access: Access[bytes] = Access(image=lambda image: image)
        decided = list(FilterDecider(with_lists).stream(list(GOOD.values()), access))
        assert [Reason(bits) for _, bits in decided if bits] == [Reason.KNOWN_HASH]
        with pytest.raises(UsageError, match="holds digests of URLs, which a loader does not pass on"):
            FilterDecider(case.safe)
