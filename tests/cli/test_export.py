"""``export`` as a user meets it."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter import Run, SafetyFilter, open_source, scan
from tests.cli.commands import command
from tests.cli.conftest import PICTURES, POLICY
from tests.writers import write_files


def test_a_folder_as_a_saved_data_set(run: Run, tmp_path: Path) -> None:
    to = ("--source", Path(run.path).parent / "pictures", "--to", tmp_path / "out", "--format", "datasets")
    done = command("export", run.path, *to, "--json")
    assert done.json == {"run": str(run.path), "to": str(tmp_path / "out"), **run.counts}
    assert len(datasets.load_from_disk(tmp_path / "out")) == run.counts["kept"]


def test_formats_are_listed_where_there_is_no_such(run: Run, tmp_path: Path) -> None:
    to = ("--source", Path(run.path).parent / "pictures", "--to", tmp_path / "out", "--format", "zip")
    done = command("export", run.path, *to)
    assert done.status == 2
    for name in ("'zip'", "folder", "webdataset", "parquet", "datasets", "keys"):
        assert name in done.message


def test_a_destination_in_the_source_is_refused(run: Run) -> None:
    pictures = Path(run.path).parent / "pictures"
    done = command("export", run.path, "--source", pictures, "--to", pictures / "clean")
    assert done.status == 1
    assert "lies inside the source" in done.message
    assert not (pictures / "clean").exists()


def test_several_sources(encoder, probes, tmp_path: Path) -> None:
    places = [write_files(tmp_path / name, PICTURES) for name in ("one", "two")]
    run = scan(open_source(places), tmp_path / "run", SafetyFilter(encoder, probes, POLICY))
    done = command("export", run.path, "--source", places[0], "--source", places[1], "--to", tmp_path / "out", "--json")
    assert done.json["kept"] == run.counts["kept"] > 0
    kept = {path.relative_to(tmp_path / "out" / "one") for path in (tmp_path / "out" / "one").rglob("*.*")}
    assert kept == {path.relative_to(tmp_path / "out" / "two") for path in (tmp_path / "out" / "two").rglob("*.*")}
    done = command("export", run.path, "--source", places[0], "--source", places[1], "--to", tmp_path / "two" / "out")
    assert "lies inside the source" in done.message


def test_rows_that_name_files_below_a_root(encoder, probes, tmp_path: Path) -> None:
    pictures = write_files(tmp_path / "pictures", PICTURES)
    rows = [{"bytes": None, "path": str(pictures / name)} for name in PICTURES]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table({"image": pa.array(rows, image)}), tmp_path / "table" / "0.parquet")
    source = open_source(tmp_path / "table", root=pictures)
    run = scan(source, tmp_path / "run", SafetyFilter(encoder, probes, POLICY))
    to = ("--source", tmp_path / "table", "--to", tmp_path / "out")
    done = command("export", run.path, *to, "--root", pictures, "--json")
    assert done.json["kept"] == run.counts["kept"] > 0
    kept = pq.read_table(tmp_path / "out").column("image").to_pylist()
    assert {row["bytes"] for row in kept} <= set(PICTURES.values())
    assert all("/" not in row["path"] for row in kept)
    assert "not those that were scanned" not in done.stderr
    done = command("export", run.path, "--source", tmp_path / "table", "--to", tmp_path / "none", "--json")
    assert done.json["drifted"] > 0
    note = f"{done.json['drifted']} of {len(PICTURES)} samples are not those that were scanned: since the scan the "
    assert done.message.endswith(
        f"{note}source has changed, the scan was of a part of it (--limit), or it is read with another --root, "
        "--image-column or --key-column than by the scan."
    )


def test_the_run_is_named_as_in_other_commands() -> None:
    assert "export [OPTIONS] RUN" in command("export", "-h").stdout


def test_a_list_with_decoys_says_what_it_tells(run: Run, tmp_path: Path) -> None:
    to = ("--source", run.path.folder / "pictures", "--to", tmp_path / "keys", "--format", "keys", "--decoys", 0.5)
    done = command("export", run.path, *to, "--json")
    listed = (tmp_path / "keys").read_text().splitlines()
    assert len(listed) == done.json["kept"] - done.json["decoys"]
    gaps = done.json["seen"] - len(listed)
    assert f"Of {gaps} samples that are not listed, {done.json['excluded']} were excluded" in done.message
    assert "Publish one list of a run only." in done.message
    done = command("export", run.path, *to[:3], tmp_path / "out", "--decoys", 0.5)
    assert done.status == 2
    assert "decoys are for lists that are published (keys, datacomp)" in done.message


def test_a_list_of_uids_needs_uids(run: Run, tmp_path: Path) -> None:
    to = ("--source", run.path.folder / "pictures", "--to", tmp_path / "list.npy", "--format", "datacomp")
    done = command("export", run.path, *to)
    assert done.status == 1
    assert "no uid of 32 hexadecimal digits" in done.message
    assert not (tmp_path / "list.npy").exists()


def test_to_object_storage(s3, run: Run, tmp_path: Path) -> None:
    to = ("--source", run.path.folder / "pictures", "--to", f"{s3.url}/out")
    done = command("export", run.path, *to, "--json")
    assert done.json == {"run": str(run.path), "to": f"{s3.url}/out", **run.counts}
    assert len(s3.fs.find(f"{s3.bucket}/out")) == run.counts["kept"]
    done = command("export", run.path, *to)
    assert (done.status, "there already" in done.message) == (1, True)
