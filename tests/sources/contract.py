"""The contract that every source passes; its tests inherit it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from safetyfilter.batches import Unreadable
from safetyfilter.errors import EmptySourceError
from safetyfilter.sources import Sample, Source, open_source
from safetyfilter.sources.wrapped import with_urls
from tests.conftest import good_images
from tests.writers import WRITERS, write_with_urls

IMAGES = dict(sorted(good_images().items()))
CAPTIONS = {name: f"caption of {name} — 写真" for name in IMAGES}
URLS = {name: f"https://example.org/{name}?size=1&q=写真" for name in list(IMAGES)[1:]}
"""Where each image but the first was found."""
CRAWLS = {name: f"crawl/{number:05d}.warc.gz" for number, name in enumerate(IMAGES)}
LIMIT = 1 << 30


def samples_of(source: Source, *, captions: bool = False, urls: bool = False) -> list[Sample]:
    """All samples of a source, part after part."""
    return [sample for part in source.parts() for sample in source.samples(part, captions=captions, urls=urls)]


def keys_of(source: Source) -> list[str]:
    return [sample.key for sample in samples_of(source)]


def states_of(source: Source) -> list[str]:
    return [part.state for part in source.parts()]


class SourceContract:
    """What holds for every source."""

    kind: ClassVar[str]
    form: ClassVar[str]
    counts_known: ClassVar[bool] = True

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return WRITERS[self.kind](tmp_path / "source", IMAGES, CAPTIONS)

    def test_it_states_its_kind_its_keys_and_its_form(self, place: Path) -> None:
        source = open_source(place)
        assert (source.kind, source.form, source.location) == (self.kind, self.form, str(place))
        assert source.keys

    @pytest.mark.parametrize("part_size", [1, 4, 10_000])
    def test_every_image_in_order_byte_for_byte(self, place: Path, part_size: int) -> None:
        source = open_source(place, part_size=part_size)
        assert [sample.read(LIMIT) for sample in samples_of(source)] == list(IMAGES.values())
        assert [part.index for part in source.parts()] == list(range(len(source.parts())))

    def test_keys_are_stable_and_each_its_own(self, place: Path) -> None:
        keys = keys_of(open_source(place))
        assert keys == keys_of(open_source(place, part_size=4)) == keys_of(open_source(str(place)))
        assert len(set(keys)) == len(IMAGES)

    @pytest.mark.parametrize("part_size", [1, 4, 10_000])
    def test_keys_begin_with_the_shards_of_their_part_where_it_says_so(self, place: Path, part_size: int) -> None:
        source = open_source(place, part_size=part_size)
        for part in source.parts():
            assert len(set(part.shards.names)) == len(part.shards.names)
            for key in [sample.key for sample in source.samples(part)] if part.shards.in_keys else []:
                assert key[: max(key.rfind("/"), key.rfind("#"), 0)] in part.shards.names

    def test_reads_are_bounded(self, place: Path) -> None:
        sample = samples_of(open_source(place))[0]
        size = len(sample.read(LIMIT))
        assert len(sample.read(size)) == size
        with pytest.raises(Unreadable, match="too_many_bytes"):
            sample.read(size - 1)

    def test_captions_come_only_where_asked_for(self, place: Path) -> None:
        source = open_source(place)
        assert [sample.caption for sample in samples_of(source, captions=True)] == list(CAPTIONS.values())
        assert not any(sample.caption for sample in samples_of(source))
        assert not any(sample.members for sample in samples_of(source, captions=True))

    def test_urls_come_only_where_asked_for(self, tmp_path: Path) -> None:
        place = write_with_urls(self.kind, tmp_path / "found", IMAGES, URLS, CRAWLS)
        opened = open_source(place, part_size=4)
        for source in (opened, with_urls(opened), pickle.loads(pickle.dumps(opened))):
            samples = samples_of(source, urls=True)
            assert [sample.url for sample in samples] == [URLS.get(name) for name in IMAGES]
            assert [sample.crawl for sample in samples] == [{"warc_filename": CRAWLS[name]} for name in IMAGES]
            assert [sample.read(LIMIT) for sample in samples] == list(IMAGES.values())
            assert [(s.key, s.url, s.crawl) for s in samples_of(source)] == [(s.key, None, {}) for s in samples]

    def test_a_field_of_urls_by_name_is_in_the_state(self, tmp_path: Path) -> None:
        place = write_with_urls(self.kind, tmp_path / "found", IMAGES, URLS, CRAWLS)
        usual, named = open_source(place), open_source(place, url_column="warc_filename")
        assert [sample.url for sample in samples_of(named, urls=True)] == list(CRAWLS.values())
        assert [sample.crawl for sample in samples_of(named, urls=True)][1:] == [{"url": url} for url in URLS.values()]
        assert states_of(usual) != states_of(named)

    def test_what_urls_are_read_from_is_in_the_state_where_they_count(self, tmp_path: Path) -> None:
        place = write_with_urls(self.kind, tmp_path / "found", IMAGES, URLS, CRAWLS)
        before = states_of(with_urls(open_source(place)))
        shutil.rmtree(place)
        write_with_urls(self.kind, place, IMAGES, dict.fromkeys(IMAGES, "https://example.org/"), CRAWLS)
        assert states_of(with_urls(open_source(place)))[0] != before[0]

    def test_batches_are_the_samples_with_all_that_belongs_to_them(self, place: Path) -> None:
        source = open_source(place)
        for part in source.parts():
            batches = list(source.batches(part))
            full = [sample for batch in batches for sample in batch.samples]
            scanned = list(source.samples(part, captions=True))
            assert [(s.key, s.read(LIMIT), s.caption, s.shard) for s in full] == [
                (s.key, s.read(LIMIT), s.caption, s.shard) for s in scanned
            ]
            assert [sample.members["txt"].decode() for sample in full] == [sample.caption for sample in full]
            assert {batch.rows is None for batch in batches} == {self.kind in ("folder", "webdataset")}

    def test_counts_where_known(self, place: Path) -> None:
        source = open_source(place, part_size=5)
        for part in source.parts():
            assert part.count == (len(list(source.samples(part))) if self.counts_known else None)

    def test_states_tell_when_the_source_changes(self, place: Path) -> None:
        before = states_of(open_source(place))
        assert before == states_of(open_source(place))
        shutil.rmtree(place)
        changed = dict(IMAGES) | {next(iter(IMAGES)): b"another"}
        WRITERS[self.kind](place, changed, CAPTIONS)
        assert states_of(open_source(place))[0] != before[0]

    def test_it_can_be_sent_to_another_process(self, place: Path) -> None:
        source = open_source(place)
        sent = pickle.loads(pickle.dumps(source))
        assert keys_of(sent) == keys_of(source)
        assert states_of(sent) == states_of(source)

    def test_parts_are_not_small(self, tmp_path: Path) -> None:
        files = {f"{number:05d}.jpg": b"x" for number in range(2_300)}
        source = open_source(WRITERS[self.kind](tmp_path / "many", files, None), part_size=1_000)
        counts = [sum(1 for _ in source.samples(part)) for part in source.parts()]
        assert sum(counts) == len(files)
        assert len(counts) == 2
        assert min(counts) >= 990  # tars are estimated

    def test_an_empty_one_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(EmptySourceError, match="no sample in"):
            open_source(self.write_empty(tmp_path / "empty"))

    def write_empty(self, place: Path) -> object:
        return WRITERS[self.kind](place, {}, None)
