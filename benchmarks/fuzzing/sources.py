"""Targets that open sources: tars, Parquet, saved data sets, stored embeddings; every sample is to be accounted for."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.files import FileTarget
from fuzzing.mutations import Mutant
from fuzzing.pictures import encoded, frames
from fuzzing.structures import TAR, WORDS
from fuzzing.target import require
from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError
from safetyfilter.sources import Sample, Source, open_source
from safetyfilter.sources.embeddings import EmbeddingSource

_MAX_BYTES = 1 << 20
_SAMPLES = 6


def _pictures() -> list[bytes]:
    first, second, third = frames()
    small = [first.crop((4 * number, 0, 4 * number + 16, 16)) for number in range(_SAMPLES - 3)]
    return [encoded(second, "JPEG"), encoded(third, "PNG"), encoded(first, "WEBP"), *(encoded(p, "PNG") for p in small)]


@dataclass(slots=True, kw_only=True)
class SourceTarget(FileTarget):
    """A source of pictures in one file."""

    options: dict[str, str] = field(default_factory=dict)
    expected: list[list[str]] = field(default_factory=list)

    def prepare(self, folder: Path) -> None:
        """Make the files, and note the keys of the samples in each."""
        super(SourceTarget, self).prepare(folder)
        for seed in self.seeds:
            self.place.write_bytes(seed)
            self.expected.append([sample.key for sample in self.samples()])

    def opened(self) -> Source:
        """Open the source."""
        return open_source(self.place, **self.options)

    def samples(self) -> list[Sample]:
        """Read all that a scan does, and hold it against what an export reads."""
        source = self.opened()
        found: list[Sample] = []
        for part in source.parts():
            of_part = list(source.samples(part, captions=True, max_bytes=_MAX_BYTES))
            require(part.count is None or len(of_part) == part.count, f"{len(of_part)} of {part.count} samples")
            for sample in of_part:
                with suppress(Unreadable):
                    sample.read_all(_MAX_BYTES)
            again = [s.key for batch in source.batches(part, max_bytes=_MAX_BYTES) for s in batch.samples]
            require(again == [s.key for s in of_part], "an export has other samples than a scan")
            found += of_part
        return found

    def read(self, mutant: Mutant) -> None:
        """Read the source."""
        self.account(mutant, self.samples())

    def account(self, mutant: Mutant, samples: Sequence[Sample]) -> None:
        """Hold the samples against those that must be there."""


@dataclass(slots=True, kw_only=True)
class Tar(SourceTarget):
    """Tars in the WebDataset layout, plain, with long names, and compressed."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        plain = _tar(tarfile.USTAR_FORMAT, "")
        return [
            plain,
            _tar(tarfile.PAX_FORMAT, "é" * 120),
            _tar(tarfile.GNU_FORMAT, "n" * 120),
            gzip.compress(plain, 6, mtime=0),
        ]

    def account(self, mutant: Mutant, samples: Sequence[Sample]) -> None:
        """Hold the samples against those that must be there."""
        # the records of long names have no checksum of their own, so that a change of one is a change of the name
        if mutant.in_place and mutant.seed in (0, 3) and not any(sample.failure for sample in samples):
            missing = set(self.expected[mutant.seed]) - {sample.key for sample in samples}
            require(not missing, "samples are missing, and nothing says so")


def _tar(form: int, prefix: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for number, picture in enumerate(_pictures()):
            for extension, content in (("jpg", picture), ("txt", b"a caption"), ("json", b'{"a": 1}')):
                member = tarfile.TarInfo(f"{prefix}{number:03d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(slots=True, kw_only=True)
class Parquet(SourceTarget):
    """Tables of pictures and captions, with several codecs, row groups and types."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        pictures = _pictures()
        captions = [f"caption {number}" for number in range(_SAMPLES)]
        plain = pa.table({"image": pa.array(pictures, pa.binary()), "caption": captions})
        keyed = plain.append_column("key", pa.array([f"k{number}" for number in range(_SAMPLES)]))
        struct = pa.table({"image": pa.array([{"bytes": p, "path": None} for p in pictures]), "text": captions})
        return [
            _parquet(plain, compression="none", write_page_checksum=True),
            _parquet(keyed, compression="snappy", row_group_size=2),
            _parquet(struct, compression="zstd", data_page_version="2.0"),
            _parquet(plain, compression="gzip", use_dictionary=False, row_group_size=4),
        ]

    def account(self, mutant: Mutant, samples: Sequence[Sample]) -> None:
        """Hold the samples against those that must be there."""
        rows = _rows(mutant.data)
        require(rows is None or len(samples) == rows, f"{len(samples)} samples of {rows} rows")


def _parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _rows(data: bytes) -> int | None:
    """The rows that a file's groups state together; None where that can't be read."""
    try:
        metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
        return sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    except Exception:  # noqa: BLE001
        return None


@dataclass(slots=True, kw_only=True)
class Saved(SourceTarget):
    """A data set as ``Dataset.save_to_disk`` writes it, of which one file is mutated."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        import datasets

        datasets.disable_progress_bars()
        rows = {"image": [{"bytes": p, "path": None} for p in _pictures()], "text": ["caption"] * _SAMPLES}
        features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(self.place.parent)
        return [self.place.read_bytes()]

    def opened(self) -> Source:
        """Open the source."""
        return open_source(self.place.parent)

    def account(self, mutant: Mutant, samples: Sequence[Sample]) -> None:
        """Hold the samples against those that must be there."""
        if self.structure is None and mutant.in_place:
            numbers = [str(number) for number in range(len(samples))]
            require([sample.key for sample in samples] == numbers, "rows are missing, and nothing says so")


@dataclass(slots=True, kw_only=True)
class Vectors(SourceTarget):
    """Stored embeddings: an array, a table with a column of vectors, or the metadata beside an array."""

    def samples(self) -> list[Sample]:
        """Read all rows, and hold their arrays against one another."""
        source = self.opened()
        if not isinstance(source, EmbeddingSource):  # vectors that are none any more: each sample is then no picture
            raise SourceError("a source of another kind")
        found: list[Sample] = []
        for part in source.parts():
            rows = 0
            for block in source.blocks(part):
                require(block.vectors.ndim == 2 and block.vectors.dtype.kind == "f", "vectors of another kind")
                require(len(block.keys) == len(block.vectors) == len(block.status), "keys and vectors do not match")
                rows += len(block.vectors)
                found += block.samples()
            require(rows == part.count, f"{rows} of {part.count} rows")
        return found

    def opened(self) -> Source:
        """Open the source."""
        return open_source(self.place.parents[1] if self.file.startswith("job/") else self.place, **self.options)


@dataclass(slots=True, kw_only=True)
class Arrays(Vectors):
    """``.npy`` files."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(40, 8)).astype(np.float32)
        return [_npy(vectors), _npy(vectors.astype(np.float16)), _npy(vectors, (2, 0))]


def _npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


@dataclass(slots=True, kw_only=True)
class VectorTable(Vectors):
    """Parquet files with a column of vectors."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
        keys = pa.array([f"key {number}" for number in range(40)])
        lists = pa.array(list(vectors), pa.list_(pa.float32()))
        fixed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
        return [
            _parquet(pa.table({"key": keys, "embedding": lists}), compression="none", row_group_size=16),
            _parquet(pa.table({"key": keys, "embedding": fixed}), compression="zstd", write_page_checksum=True),
        ]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        rows, found = _rows(mutant.data), self.samples()
        require(rows is None or len(found) == rows, f"{len(found)} of {rows} rows")


@dataclass(slots=True, kw_only=True)
class Metadata(Vectors):
    """The metadata beside an array, as clip-retrieval lays it out."""

    def make(self) -> list[bytes]:
        """Return the files that are mutated."""
        vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
        job = self.place.parents[1]
        (job / "img_emb").mkdir(parents=True)
        (job / "img_emb" / "img_emb_0.npy").write_bytes(_npy(vectors))
        paths = pa.array([f"{number:05d}" for number in range(40)])
        table = pa.table({"image_path": paths, "caption": ["text"] * 40})
        return [_parquet(table, compression="snappy", row_group_size=16), _parquet(table, compression="none")]

    def read(self, mutant: Mutant) -> None:
        """Read it, and hold what comes of it against what must be."""
        require(len(self.samples()) == 40, "rows are missing")


def source_targets() -> list[FileTarget]:
    """Return one target for each kind of source."""
    return [
        Tar(name="tar", file="0.tar", structure=TAR),
        Parquet(name="parquet", file="0.parquet"),
        Saved(name="data-set-rows", file="saved/data-00000-of-00001.arrow"),
        Saved(name="data-set-state", file="saved/state.json", structure=WORDS),
        Saved(name="data-set-features", file="saved/dataset_info.json", structure=WORDS),
        Arrays(name="npy", file="0.npy"),
        VectorTable(name="embedding-table", file="0.parquet"),
        Metadata(name="embedding-metadata", file="job/metadata/metadata_0.parquet"),
    ]
