"""The kinds of sources, and what among their files would be left out: an error, or a warning with its number."""

import json
import logging
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from safetyfilter import storage
from safetyfilter.errors import SourceError, StorageError, UsageError
from safetyfilter.sources import open_source
from tests.sources.contract import IMAGES, keys_of
from tests.writers import write_files, write_folder, write_tars

ONE = next(iter(IMAGES.values()))


def table(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [ONE]}), path)
    return path


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    return write_tars(tmp_path / "tars", {"a.jpg": ONE})


@pytest.mark.parametrize("name", ["b.jpg", "deep/b.JPG", "b.avif", "b.heic", "b.jfif"])
def test_pictures_beside_tars_are_an_error(tars: Path, name: str) -> None:
    write_files(tars, {name: ONE})
    with pytest.raises(SourceError, match="holds 1 tar and 1 image; pass one kind"):
        open_source(tars)
    assert keys_of(open_source(f"{tars}/*.tar")) == ["0.tar/000"]


def test_tables_beside_tars(tars: Path) -> None:
    write_files(tars, {"0_stats.json": b"{}"})
    table(tars / "0.parquet")  # as img2dataset leaves it
    assert keys_of(open_source(tars)) == ["0.tar/000"]
    table(tars / "other.parquet")
    with pytest.raises(SourceError, match="holds 1 tar and 1 Parquet file; pass one kind"):
        open_source(tars)


@pytest.mark.parametrize("beside", ["tar", "parquet", None])
@pytest.mark.parametrize("name", ["more.zip", "more.tar.zst", "more.arrow", "more.tfrecord", "MORE.ZIP"])
def test_formats_that_are_not_read_are_an_error(tmp_path: Path, name: str, beside: str | None) -> None:
    place = write_files(tmp_path / "source", {name: b"x"})
    if beside == "tar":
        write_tars(place, {"a.jpg": ONE})
    elif beside == "parquet":
        table(place / "0.parquet")
    with pytest.raises(SourceError, match=r"holds 1 file of a format that is not read \(1 \.\w+\); unpack"):
        open_source(place)
    with pytest.raises(SourceError, match="not read"):
        open_source(place / name)


def test_archives_among_images_are_on_record_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = write_folder(tmp_path / "source", {"secret-name.jpg": ONE, "secret-name.zip": b"x", "t.parquet": b"x"})
    assert keys_of(open_source(place)) == ["secret-name.jpg", "secret-name.zip", "t.parquet"]
    assert "2 files among the images are archives or tables (1 .zip, 1 .parquet)" in caplog.text
    assert f"to read a table, name it as the source itself: {place / 't.parquet'}; unpack archives" in caplog.text
    assert "secret-name" not in caplog.text
    with pytest.raises(UsageError, match=r"leave out root \(--root\).*, or, to read a table, .*: .*t\.parquet"):
        open_source(place, root=tmp_path)


@pytest.mark.parametrize("name", ["t.zip", "t.parquet"])
def test_one_archive_or_table_is_told_as_one(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    open_source(write_folder(tmp_path / "source", {"a.jpg": ONE, name: b"x"}))
    assert "1 file among the images is an archive or a table (1 ." in caplog.text
    assert ("unpack archives" in caplog.text, "to read a table" in caplog.text) == (name == "t.zip", name != "t.zip")


@pytest.mark.parametrize("kind", ["tars", "Parquet files"])
def test_other_files_are_told_by_their_number(tars: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    place = tars
    if kind == "Parquet files":
        place = table(tars.parent / "tables" / "0.parquet").parent
    write_files(
        place, {"README.md": b"x", "secret": b"x", "b.xyz": b"x", "c.xyz": b"x", ".hidden": b"x", "d.csv": b"x"}
    )
    open_source(place)
    assert f"3 other files beside the {kind} are not read (2 .xyz, 1 no extension)" in caplog.text
    assert "secret" not in caplog.text


def test_hidden_pictures_are_told_by_their_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a.jpg", ".b.jpg", ".git/c.png", "._a.jpg", ".DS_Store"]
    assert keys_of(open_source(write_files(tmp_path / "source", dict.fromkeys(names, ONE)))) == ["a.jpg"]
    assert "2 hidden pictures" in caplog.text


@pytest.mark.parametrize("names", [["t.parquet", "u.PARQUET", "v.pq", "w.parq"]])
def test_tables_of_every_spelling_are_read(tmp_path: Path, names: list[str], caplog: pytest.LogCaptureFixture) -> None:
    for name in names:
        table(tmp_path / name)
    caplog.set_level(logging.WARNING)
    assert keys_of(open_source(tmp_path)) == [f"{name}#0" for name in names]
    assert not caplog.messages


@pytest.mark.parametrize("option", ["image_column", "key_column"])
def test_columns_of_a_folder_are_an_error(tmp_path: Path, option: str) -> None:
    place = write_folder(tmp_path / "source", {"a.jpg": ONE})
    with pytest.raises(UsageError, match=rf"an image folder has no columns, .*leave out {option}='x' \(--{option[:3]}"):
        open_source(place, **{option: "x"})


def test_what_tars_and_folders_do_not_have(tmp_path: Path, tars: Path) -> None:
    with pytest.raises(UsageError, match="tars have no columns of keys"):
        open_source(tars, key_column="x")
    for place in (tars, write_folder(tmp_path / "source", {"a.jpg": ONE})):
        with pytest.raises(UsageError, match=r"leave out root \(--root\)"):
            open_source(place, root=tmp_path)


@pytest.mark.parametrize("place", ["hf://datasets/who/what", Path("hf://datasets/who/what")])
def test_a_repository_that_is_named_is_storage_and_no_link(place: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    monkeypatch.setattr("huggingface_hub.hf_file_system.constants.ENDPOINT", "http://127.0.0.1:9")
    HfFileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=r"can't reach hf://datasets/who/what after 5 tries: .*run the same command"):
        open_source(place)
    HfFileSystem.clear_instance_cache()


@pytest.mark.parametrize("place", ["github://who:what@main/a", "reference://", "DATA:/x", "jlab://a/b"])
def test_other_places_of_the_web_are_refused(place: str) -> None:
    with pytest.raises(SourceError, match="links are never fetched"):
        open_source(place)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_a_saved_data_set_whose_description_is_nested_too_deeply(tmp_path: Path, name: str) -> None:
    datasets.Dataset.from_dict({"image": [b"x"], "key": ["a"]}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / name).write_text('{"_data_files": ' + "[" * 5000)
    with pytest.raises(SourceError, match="can't load the data set saved at"):
        open_source(tmp_path / "saved")


@pytest.mark.parametrize("split", ["../elsewhere", "{elsewhere}", "..", ""])
def test_a_saved_data_set_names_no_split_outside_its_folder(tmp_path: Path, split: str) -> None:
    rows = datasets.Dataset.from_dict({"image": [b"x"], "key": ["a"]})
    datasets.DatasetDict(train=rows).save_to_disk(str(tmp_path / "saved"))
    rows.save_to_disk(str(tmp_path / "elsewhere"))
    splits = ["train", split.format(elsewhere=tmp_path / "elsewhere")]
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(SourceError, match=r"dataset_dict\.json names splits that are not folders beside it"):
        open_source(tmp_path / "saved")
