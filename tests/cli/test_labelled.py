"""The commands on labelled data: tables for people, and one sentence for what can't be."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import EncoderSpec
from tests.cli.commands import command

DIGEST = "ab" * 32
TRAIN = ("train", "x.npy", "labels.parquet", "--signal", "minor", "--out", "p")


def in_place(arguments: tuple[str, ...], place: Path) -> list[object]:
    """The arguments with each file below the place."""
    files = (".npy", ".parquet", ".csv", "/..", ".json", ".toml", ".safetensors")
    return [place / part if part.endswith(files) or part in ("p", "nowhere/p", "none") else part for part in arguments]


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "scores.parquet", "labels.parquet"),
        ("calibrate", "scores.parquet", "labels.parquet", "--max-miss-rate", "0.05", "--out", "p.toml"),
        (*TRAIN, "--encoder-digest", DIGEST),
    ],
)
def test_tables(arguments: tuple[str, ...], place: Path) -> None:
    done = command(*in_place(arguments, place))
    assert done.status == 0, done.stderr
    assert "minor" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (TRAIN, 1, "nothing says which encoder"),
        (("train", "x.npy", "labels.parquet", "--signal", "other", "--out", "p"), 1, "'other'"),
        (("train", "x.npy", "short.parquet", "--signal", "minor", "--out", "p"), 1, "5 labels"),
        ((*TRAIN, "--encoder-digest", "zz"), 1, "64 hex"),
        ((*TRAIN, "--encoder-digest", "deep.json"), 1, "it is nested too deeply; give --encoder-digest"),
        ((*TRAIN, "--encoder-digest", "marked.json"), 1, "marked.json names no encoder"),
        (("evaluate", "scores.parquet", "labels.parquet", "--policy", "deep.toml"), 2, "it is nested too deeply"),
        (
            ("evaluate", "scores.parquet", "marked.csv"),
            1,
            "the first in row 1,999, counted from 0; give true and false, 1 and 0, or yes and no",
        ),
        (("train", "labels.parquet", "labels.parquet", "--signal", "minor", "--out", "p"), 1, "give a .npy"),
        (("train", "x.npy", "x.npy", "--signal", "minor", "--out", "p"), 1, "are not Parquet"),
        (("train", "x.npy", "none.parquet", "--signal", "minor", "--out", "p"), 1, "there are no labels"),
        (("train", "x.npy", "others.parquet", "--signal", "minor", "--out", "p"), 1, "and nothing in"),
        ((*TRAIN, "--encoder-digest", "spec.json"), 1, "12 columns, and those of ViT"),
        (("evaluate", "none", "labels.parquet"), 1, "give a run, or a Parquet or CSV file"),
        (("calibrate", "scores.parquet", "short.parquet", "--out", "p"), 1, "5 labels"),
        (("calibrate", "scores.parquet", "labels.parquet", "--max-miss-rate", "0.0001", "--out", "p"), 1, "too few"),
        (("calibrate", "scores.parquet", "labels.parquet", "--group-column", "none", "--out", "p"), 1, "none"),
        (("calibrate", "scores.parquet", "labels.parquet", "--out", "nowhere/p"), 1, "is not a folder"),
        (("evaluate", "scores.parquet", "labels.parquet", "--policy", "lax"), 2, "presets"),
        (
            ("evaluate", "keyed.parquet", "twice.parquet"),
            1,
            "more than once (1 of 5 rows are too many); give each sample one row",
        ),
        (("evaluate", "keyed.parquet", "others.parquet"), 1, "no label's key"),
        (("evaluate", "keyed.parquet", "named.parquet"), 1, "give the run itself"),
        (("evaluate", "keyed.parquet", "hex.parquet"), 1, "key_digest is of the type string, not of 16 bytes each"),
        (("evaluate", "keyed.parquet", "numbered.parquet"), 1, "key_digest is of the type int64, not of 16 bytes each"),
        (("evaluate", "scores.parquet", "damaged.parquet"), 1, "the labels in"),
        (("evaluate", "scores.parquet", "labels.parquet/none.parquet"), 1, "are not Parquet"),
        (("evaluate", "folder.parquet", "labels.parquet"), 1, "folder.parquet, a folder without run.json; make one"),
        (("train", "folder.npy", "labels.parquet", "--signal", "minor", "--out", "p"), 1, "a folder without run.json"),
        (("evaluate", "scores.parquet", "folder.parquet"), 1, "give a Parquet or CSV file"),
        (("evaluate", "scores.parquet", "none.csv"), 1, "there are no labels at"),
        (("evaluate", "scores.parquet", "damaged.csv"), 1, "are not CSV"),
        (
            ("evaluate", "scores.parquet", "maybe.csv"),
            1,
            "the first in row 1,999, counted from 0; give true and false, 1 and 0, or yes and no",
        ),
        (("evaluate", "scores.parquet", "labels.parquet", "--plot", "folder.parquet/.."), 1, "give a new or empty"),
        (("probes", "fetch", "laion-g14"), 2, "laion-l14, laion-b32, laion-h14"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments: tuple[str, ...], status: int, message: str, place: Path) -> None:
    five = {"minor": [1, 0, 1, 0, 1]}
    keys = [bytes([i]) * 16 for i in range(5)]
    pq.write_table(pa.table(five), place / "short.parquet")
    pq.write_table(pa.table({"minor": [0.5] * 5, "key_digest": keys}), place / "keyed.parquet")
    pq.write_table(pa.table({**five, "key_digest": [*keys[:4], keys[0]]}), place / "twice.parquet")
    pq.write_table(pa.table({**five, "key_digest": [b"elsewhere" + key[:7] for key in keys]}), place / "others.parquet")
    pq.write_table(pa.table({**five, "key": list("abcde")}), place / "named.parquet")
    pq.write_table(pa.table({**five, "key_digest": [key.hex() for key in keys]}), place / "hex.parquet")
    pq.write_table(pa.table({**five, "key_digest": range(5)}), place / "numbered.parquet")
    content = bytearray((place / "labels.parquet").read_bytes())
    content[4:40] = bytes(36)  # the head of the first page, of which pyarrow tells with an OSError
    (place / "damaged.parquet").write_bytes(content)
    (place / "damaged.csv").write_bytes(b"minor\n1\n1,2\n")
    (place / "maybe.csv").write_text("minor\n" + "yes\n" * 1999 + "maybe\n")
    (place / "marked.csv").write_text("minor\n" + "yes\n" * 1999 + "maybe\n", encoding="utf-8-sig")
    (place / "marked.json").write_text("{}", encoding="utf-8-sig")
    for name in ("deep.json", "deep.toml"):
        (place / name).write_text("a = " * name.endswith("toml") + "[" * 5000)
    for name in ("folder.parquet", "folder.npy"):
        (place / name).mkdir()
    spec = EncoderSpec(
        architecture="ViT-X", weights_sha256="", image_size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3,
        interpolation="bicubic", resize_mode="squash", width=16,
    )  # fmt: skip
    (place / "spec.json").write_text(json.dumps({"encoder": spec.as_dict()}))
    before = {path.name for path in place.iterdir()}
    done = command(*in_place(arguments, place))
    assert (done.status, done.stdout) == (status, ""), done.stderr
    error = done.stderr[done.stderr.index("error: ") :]
    assert message in error
    assert error.count("\n") == 1
    assert {path.name for path in place.iterdir()} == before
