"""``apply`` as a user meets it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter import Run
from tests.cli.commands import command
from tests.cli.conftest import PICTURES
from tests.writers import write_files, write_tars


def test_another_copy(run: Run, tmp_path: Path) -> None:
    copy = write_tars(tmp_path / "copy", dict(sorted(PICTURES.items(), reverse=True)))
    done = command("apply", run.path, "--to", copy, "--out", tmp_path / "applied", "--json")
    result = done.json
    assert {name: result[name] for name in run.counts} == run.counts
    assert (result["run"], result["applied"]) == (str(tmp_path / "applied"), str(run.path))
    assert result["unscored_by_cause"] == {"not_an_image": 1}
    assert f"applying: {len(PICTURES)} samples" in done.message
    assert "unknown" not in done.message
    to = ("--source", copy, "--to", tmp_path / "clean")
    assert command("export", tmp_path / "applied", *to, "--json").json["kept"] == run.counts["kept"]
    again = command("apply", run.path, "--to", copy, "--out", tmp_path / "applied")
    assert again.status == 0
    assert str(run.counts["kept"]) in again.stdout
    decided = command("decide", tmp_path / "applied", "--policy", "strict", "--json").json
    assert decided["seen"] == len(PICTURES)


def test_what_is_not_known_is_told(run: Run, tmp_path: Path) -> None:
    copy = write_files(tmp_path / "copy", {"a.jpg": PICTURES["china.jpg"], "b.jpg": PICTURES["china.jpg"] + b"\0"})
    done = command("apply", run.path, "--to", copy, "--out", tmp_path / "applied", "--json")
    assert (done.json["seen"], done.json["unknown"], done.json["unscored"]) == (2, 1, 0)
    assert done.json["unscored_by_cause"] == {}
    assert f"unknown: 1 of 2 samples have bytes that {run.path} has not seen" in done.message
    assert command("status", tmp_path / "applied", "--json").json["unscored_by_cause"] == {}


def test_several_sources_and_columns(run: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "f", PICTURES)
    pictures = list(PICTURES.values())
    pq.write_table(pa.table({"picture": pictures, "id": list(PICTURES)}), tmp_path / "t.parquet")
    to = ("--to", files, "--to", tmp_path / "t.parquet")
    done = command("apply", run.path, *to, "--out", tmp_path / "applied", "--json")
    assert done.json["kept"] == 2 * run.counts["kept"]
    options = ("--image-column", "picture", "--key-column", "id", "--part-size", 5)
    done = command(
        "apply", run.path, "--to", tmp_path / "t.parquet", "--out", tmp_path / "applied-2", *options, "--json"
    )
    assert done.json["kept"] == run.counts["kept"]


def test_errors_leave_nothing(run: Run, tmp_path: Path) -> None:
    copy = write_files(tmp_path / "copy", PICTURES)
    for arguments, message in (
        ((run.path, "--to", copy, "--out", run.path), "lie one inside the other"),
        ((run.path, "--to", tmp_path / "none", "--out", tmp_path / "new"), "no source at"),
        ((tmp_path / "none", "--to", copy, "--out", tmp_path / "new"), "no run at"),
        ((run.path, "--to", copy, "--out", copy / "run"), "inside the other"),
    ):
        done = command("apply", *arguments)
        assert (done.status, message in done.message) == (1, True), done.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
