"""What a scan keeps is what an export has, of sources made at random: odd names, shared keys, second pictures, gaps."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import FORMATS, export
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources import Source, open_source
from safetyfilter.sources.signatures import format_of
from tests.conftest import encoded, photograph
from tests.exports.contents import LIMIT, full
from tests.writers import write_files

NAMES = (
    *("a.png", "A.PNG", "b", "dot.", "c._png", "d::e.png", "{f}.png", "g#?%.png", "deep/er/写真.png", "deep.png"),
    *("h\udcff.png", "i\nj.png", " k .png", "l.txt", "m.tar.png", "n" * 90 + ".png"),
)
KEYS = (*NAMES[:10], "o/p", "o", "../q", "r" * 300, "s\0t", "", "/u", "v\u2028w", "1", 1)
BAD = (b"", b"no image", None)


class Pictures:
    """Small pictures of which no two have the same bytes; one in five is damaged or not there."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._png = encoded(photograph("coffee.png").resize((24, 16)), "PNG")
        self._made = 0

    def good(self) -> bytes:
        self._made += 1
        return self._png + self._made.to_bytes(4, "big")

    def any(self) -> bytes | None:
        return BAD[self._rng.integers(len(BAD))] if self._rng.random() < 0.2 else self.good()


def folder(place: Path, rng: np.random.Generator, pictures: Pictures) -> Source:
    files: dict[str, bytes] = {}
    for name in rng.permutation(NAMES)[:10].tolist():
        content = pictures.any()
        if content is not None:
            files[name] = content
        if rng.random() < 0.3:
            files[f"{name.removesuffix('.png')}.txt"] = pictures.good() if rng.random() < 0.3 else b"a caption"
    write_files(place, files)
    (place / "gone.png").symlink_to("nowhere")
    return open_source(place)


def webdataset(place: Path, rng: np.random.Generator, pictures: Pictures) -> Source:
    place.mkdir()
    for shard in ("0.tar", "1.tar.gz"):
        with tarfile.open(place / shard, "w:gz" if shard.endswith("gz") else "w", errors="surrogateescape") as tar:
            for name in rng.permutation(NAMES)[:8].tolist():
                stem, members = name.replace(".", "_"), {"png": pictures.any() or b"", "txt": b"a boat", "_x__": b"x"}
                if rng.random() < 0.3:
                    members["left.PNG"] = pictures.good()
                for extension, content in members.items():
                    member = tarfile.TarInfo(f"{stem}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return open_source(place, image_column="png")


def columns(rng: np.random.Generator, pictures: Pictures, count: int) -> dict[str, list[object]]:
    own = [pictures.any() for _ in range(count)]
    if count > 2:
        own[1] = own[0]  # where they share a key too, they are one sample that is there twice
    keys = [str(KEYS[number]) for number in rng.integers(len(KEYS), size=count)]
    return {
        "key": [None if rng.random() < 0.1 else key for key in keys],
        "image": own,
        "views": [[pictures.good() for _ in range(rng.integers(3))] for _ in range(count)],
        "n": list(range(count)),
    }


def parquet(place: Path, rng: np.random.Generator, pictures: Pictures) -> Source:
    place.mkdir()
    for number in range(2):
        pq.write_table(pa.table(columns(rng, pictures, 9)), place / f"{number}.parquet", row_group_size=4)
    return open_source(place)


def data_set(place: Path, rng: np.random.Generator, pictures: Pictures) -> Source:
    features = datasets.Features(
        {
            "key": datasets.Value("string"),
            "image": datasets.Image(),
            "views": [datasets.Image()],
            "n": datasets.Value("int64"),
        }
    )
    splits = {}
    for split in ("train", "test"):
        made = columns(rng, pictures, 8)
        made["image"] = [None if content is None else {"bytes": content, "path": None} for content in made["image"]]
        for row, content in enumerate(made["image"]):
            if content is not None and rng.random() < 0.3:  # a path of a file, as an image folder's rows have it
                path = write_files(place, {f"{split}-{row}.png": content["bytes"]}) / f"{split}-{row}.png"
                made["image"][row] = {"bytes": None, "path": str(path)}
        made["views"] = [[{"bytes": each, "path": None} for each in views] for views in made["views"]]
        splits[split] = datasets.Dataset.from_dict(made, features=features)
    return open_source(datasets.DatasetDict(splits))


SOURCES = {"folder": folder, "webdataset": webdataset, "parquet": parquet, "datasets": data_set}


def pictures_below(place: Path, format: str) -> Iterator[bytes]:
    """All pictures that an export holds."""
    if format == "folder":
        yield from (path.read_bytes() for path in place.rglob("*") if path.is_file())
    elif format == "webdataset":
        for path in (path for path in place.rglob("*") if path.is_file()):
            with tarfile.open(path, errors="surrogateescape") as tar:
                yield from (tar.extractfile(member).read() for member in tar)
    else:
        for sample in full(open_source(place, image_column="image")):
            yield from sample.read_all(LIMIT)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SOURCES)
def test_an_export_has_what_the_scan_kept(tmp_path: Path, keeps_all, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = SOURCES[kind](tmp_path / "source", rng, Pictures(rng))
    run = scan(source, tmp_path / "run", keeps_all)
    samples = full(source)
    keep = Decisions.of(run).reasons([sample.key for sample in samples]) == 0
    kept = [sample for sample, keeps in zip(samples, keep.tolist(), strict=True) if keeps]
    assert len(samples) == run.counts["seen"]
    assert len(kept) == run.counts["kept"] > 0
    expected = Counter(picture for sample in kept for picture in sample.read_all(LIMIT))

    for format in FORMATS:
        place = tmp_path / format
        try:
            counts = export(run, source, place, format=format)
        except OutputError:
            assert format != source.form  # which takes every key that the source has
            assert not list(tmp_path.glob(f"*{format}*"))
            continue
        assert counts | run.counts == counts
        if format == "keys":
            lines = place.read_text(errors="surrogateescape").split("\n")
            assert lines == [*(sample.key for sample in kept), ""]
        else:
            assert Counter(found for found in pictures_below(place, format) if format_of(found)) == expected
