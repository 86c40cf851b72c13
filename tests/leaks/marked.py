"""Sources of each kind whose keys, paths, captions, addresses and pictures carry random marks, some of them broken."""

from __future__ import annotations

import io
import json
import secrets
import string
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

from tests.writers import write_embedding_job, write_files

SAMPLES = 40
"""Whole pictures in each source: more than a checkpoint has at least."""
WIDTH = 32
"""Columns of stored embeddings."""
SHARD = "shard:"
"""Begins what a mark of a shard, a table or a folder is called."""
_LETTERS = 16


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A source, and what must be found nowhere but in it.

    Attributes
    ----------
    place : Path
        The source.
    texts : dict of str to str
        What a mark is of -> the mark.
    contents : dict of str to bytes
        What is whole a key, a path, a caption, an address or a picture, of which no digest may be found.
    shards : dict of str to str
        The same as `texts` of shards, tables and folders, whose own names an error may tell.
    keys : list of str
        Of whole pictures.
    """

    place: Path
    texts: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def mark(self, what: str) -> str:
        """A new mark."""
        self.texts[what] = "".join(secrets.choice(string.ascii_lowercase) for _ in range(_LETTERS))
        return self.texts[what]

    def shard(self, what: str) -> str:
        """A new mark of a shard, a table or a folder."""
        self.shards[what] = "".join(secrets.choice(string.ascii_lowercase) for _ in range(_LETTERS))
        self.contents[f"{SHARD} {what}"] = self.shards[what].encode()
        return self.shards[what]

    def whole(self, what: str, content: str | bytes) -> Any:
        """Note something of which no digest may be found, and return it."""
        self.contents[what] = content.encode() if isinstance(content, str) else content
        return content


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The marks of one sample, by what they are of."""

    key: str
    caption: str
    url: str
    image: bytes


def picture(text: str, seed: int) -> bytes:
    """A generated picture that says a text in its metadata."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize((40, 40))
    buffer = io.BytesIO()
    if seed % 5 == 4:
        image.save(buffer, "TIFF", description=text)
    elif seed % 2:
        note = PngImagePlugin.PngInfo()
        note.add_text("Description", text)
        image.save(buffer, "PNG", pnginfo=note)
    else:
        exif = Image.Exif()
        exif[0x010E] = text  # ImageDescription
        image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def samples(marked: Marked, *, broken: bool = True) -> list[Marks]:
    """Samples of a source: whole pictures, and behind them some that can't be read."""
    found = [_sample(marked, number) for number in range(SAMPLES)]
    if broken:
        whole = found[0].image
        spoilt = {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "text": marked.mark("text of no picture").encode(),
        }
        found += [_sample(marked, SAMPLES + n, content) for n, content in enumerate(spoilt.values())]
    return found


def _sample(marked: Marked, number: int, image: bytes | None = None) -> Marks:
    key = marked.mark(f"key {number}")
    caption = marked.whole(f"caption {number}", f"a {marked.mark(f'word of the caption {number}')} on a plain")
    host, page = marked.mark(f"host {number}"), marked.mark(f"page {number}")
    url = marked.whole(f"address {number}", f"https://{host}.example/{page}.jpg")
    if image is None:
        image = picture(marked.mark(f"metadata of the picture {number}"), number)
    if len(image) > 16:
        marked.whole(f"picture {number}", image)
    return Marks(key=key, caption=caption, url=url, image=image)


def _extension(image: bytes) -> str:
    return {b"\x89PNG": "png", b"II*\0": "tif"}.get(image[:4], "jpg")


def folder(place: Path) -> Marked:
    """A folder with a folder in it, captions beside the pictures, and a link that leads nowhere."""
    marked = Marked(place=place)
    inner, files = marked.shard("folder"), {}
    for number, each in enumerate(samples(marked)):
        name = f"{inner}/{each.key}" if number % 3 == 0 else each.key
        path = marked.whole(f"path {number}", f"{name}.{_extension(each.image)}")
        marked.keys.append(path)
        files |= {path: each.image, f"{name}.txt": each.caption.encode(), f"{name}.json": _about(each)}
    write_files(place, files)
    (place / f"{marked.mark('link')}.jpg").symlink_to(f"{marked.mark('where a link leads')}.jpg")
    marked.whole("the whole path", str(place / marked.keys[1]))
    return marked


def webdataset(place: Path) -> Marked:
    """Two tars, the second of which ends in the midst of a sample."""
    marked = Marked(place=place)
    place.mkdir(parents=True)
    every = samples(marked)
    for number, of_shard in enumerate((every[::2], every[1::2])):
        name = f"{marked.shard(f'shard {number}')}.tar"
        with tarfile.open(place / name, "w") as tar:
            for each in of_shard:
                marked.keys.append(marked.whole(f"key of a sample {each.key}", f"{name}/{each.key}"))
                for extension, content in (
                    (_extension(each.image), each.image), ("txt", each.caption.encode()), ("json", _about(each))
                ):  # fmt: skip
                    member = tarfile.TarInfo(f"{each.key}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                    marked.contents[f"name of a member {member.name}"] = member.name.encode()
    last = place / name
    last.write_bytes(last.read_bytes()[: int(last.stat().st_size * 0.7)])
    return marked


def _about(each: Marks) -> bytes:
    return json.dumps({"url": each.url, "caption": each.caption, "key": each.key}).encode()


def _columns(marked: Marked, every: list[Marks]) -> dict[str, Any]:
    marked.keys.extend(marked.whole(f"the key {each.key}", each.key) for each in every)
    return {
        "key": [each.key for each in every],
        "caption": [each.caption for each in every],
        "url": [each.url for each in every],
        "crawl": [marked.mark(f"reference to a crawl {number}") for number in range(len(every))],
    }


def parquet(place: Path) -> Marked:
    """Two tables, a page of the second of which is damaged."""
    marked = Marked(place=place)
    place.mkdir(parents=True)
    every = samples(marked)
    every += [every[1]]  # a key that comes twice, with one content
    every += [Marks(key=every[2].key, caption="", url="", image=every[3].image)]  # and with another
    columns = _columns(marked, every) | {"image": pa.array([each.image for each in every], pa.binary())}
    table = pa.table(columns).replace_schema_metadata({"note": marked.mark("metadata of a table")})
    names = [f"{marked.shard(f'table {number}')}.parquet" for number in range(2)]
    for name, rows in zip(names, (table.slice(0, 30), table.slice(30)), strict=True):
        pq.write_table(rows, place / name, row_group_size=7, compression="none", write_page_checksum=True)
    content = bytearray((place / names[1]).read_bytes())
    at = content.index(every[31].image[8:40])
    content[at : at + 8] = bytes(8)
    (place / names[1]).write_bytes(content)
    return marked


def data_set(place: Path) -> Marked:
    """A data set saved to disk; its pictures were once files of their own."""
    marked = Marked(place=place)
    every = samples(marked)
    columns = _columns(marked, every)
    columns["image"] = [
        {"bytes": each.image, "path": marked.whole(f"path {number}", f"{marked.mark(f'path {number}')}.jpg")}
        for number, each in enumerate(every)
    ]
    features = {name: datasets.Image() if name == "image" else datasets.Value("string") for name in columns}
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(str(place))
    return marked


def embeddings(place: Path) -> Marked:
    """Stored embeddings with metadata beside them, of which some are no vectors."""
    marked = Marked(place=place)
    every = samples(marked, broken=False)
    vectors = np.random.default_rng(3).standard_normal((len(every), WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors[3], vectors[4] = 0, np.nan
    columns = _columns(marked, every)
    keys: list[str | None] = [*columns.pop("key")]
    keys[5] = None
    write_embedding_job(place, [vectors], keys=[keys], extra=columns)
    return marked


KINDS: Mapping[str, Callable[[Path], Marked]] = {
    "folder": folder,
    "webdataset": webdataset,
    "parquet": parquet,
    "datasets": data_set,
    "embeddings": embeddings,
}
"""The writer of a marked source of each kind."""
