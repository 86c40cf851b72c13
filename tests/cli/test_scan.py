"""``scan`` and ``decide``: what they say of policies, of failures and of what to do next."""

import hashlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Run
from safetyfilter.batches import STATUS_NAMES
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.standin import STANDIN_PAIR
from tests.cli.commands import command
from tests.conftest import bad_images, good_images
from tests.writers import write_files, write_tars

GOOD, BAD = good_images(), bad_images()
STAND_IN = ["--encoder", "stand-in", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("pictures"), GOOD | BAD)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A run with zero-shot probes; tests decide it anew."""
    path = tmp_path_factory.mktemp("scan") / "run"
    assert command("scan", pictures, "--out", path, *STAND_IN).status == 0
    return path


def policy(folder: Path, *, minor: float, **more: str) -> Path:
    file = folder / "policy.toml"
    exclude = "".join(f"{signal} = {rule}\n" for signal, rule in more.items())
    file.write_text(f"[thresholds]\nexplicit = 0.5\nminor = {minor!r}\n[exclude]\n{exclude}")
    return file


def test_why_samples_are_unscored_is_told_by_cause(run: Path) -> None:
    done = command("decide", run, "--policy", "co-occurrence", "--json")
    causes = done.json["unscored_by_cause"]
    assert sum(causes.values()) == done.json["unscored"] == len(BAD)
    assert causes["truncated"] == 1
    assert set(causes) <= set(STATUS_NAMES)
    shown = command("decide", run, "--policy", "co-occurrence").stdout
    for cause in causes:
        assert f"    {cause} " in shown
    assert shown.index("unscored") < shown.index("truncated")


def test_hash_lists_and_an_officers_key(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("nacl", reason="PyNaCl is not installed: pip install 'safetyfilter[sealed]'")
    key = PrivateKeys.generate().public
    (tmp_path / "officer.key.pub").write_text(key.to_text())
    (tmp_path / "list.txt").write_text(hashlib.sha256(GOOD["coffee.jpg"]).hexdigest())
    words = ["scan", pictures, "--out", tmp_path / "run", *STAND_IN]
    lists = ["--hash-list", f"sha256={tmp_path / 'list.txt'}"]
    done = command(*words, *lists, "--officer-key", tmp_path / "officer.key.pub", "--json")
    assert (done.json["known_hash"], done.json["hash_unchecked"]) == (1, 0)
    assert done.json["sealed_records"] == done.json["co_occurrence"] + 1 - both(tmp_path / "run")
    told = command("status", tmp_path / "run", "--json").json
    assert (told["officer"], len(told["hash_lists"])) == (key.fingerprint, 1)
    assert {name: told[name] for name in ("hash_unchecked", "sealed_records")} == {
        name: done.json[name] for name in ("hash_unchecked", "sealed_records")
    }
    shown = command("status", tmp_path / "run").stdout
    for text in (key.fingerprint, told["hash_lists"][0][:12], "hash unchecked", "sealed records"):
        assert text in shown
    assert "list.txt" not in shown
    other = command(*words, *lists)
    assert other.status == 1
    assert "differs in officer's key (--officer-key)" in " ".join(other.stderr.split())
    for option, file, error in (
        ("--hash-list", "missing.txt", "missing.txt"),
        ("--officer-key", "list.txt", "list.txt is not a key file"),
    ):
        failed = command("scan", pictures, "--out", tmp_path / "new", option, tmp_path / file, *STAND_IN)
        assert failed.status in (1, 2)
        assert error in " ".join(failed.stderr.split())
        assert not (tmp_path / "new").exists()


def test_adaptive_views_need_a_gate_that_the_record_names(pictures: Path, tmp_path: Path) -> None:
    words = ["scan", pictures, "--out", tmp_path / "run", *STAND_IN]
    for refused, error in (
        (["--gate", "explicit=0.1,minor=0.1"], "'--gate': it is for --views adaptive; leave it out"),
        (["--views", "adaptive"], "(--gate, such as explicit=0.02,minor=0.02)"),
    ):
        failed = command(*words, *refused)
        assert failed.status == 2
        assert error in " ".join(failed.stderr.replace("│", " ").split())
        assert not (tmp_path / "run").exists()
    assert command(*words, "--views", "adaptive", "--gate", "explicit=0.25,minor=0.75").status == 0
    explicit, minor = STANDIN_PAIR.names
    told = command("status", tmp_path / "run", "--json").json
    assert (told["views"], told["gate"]) == ("adaptive", {"floors": {explicit: 0.25, minor: 0.75}, "when": "either"})
    shown = " ".join(command("status", tmp_path / "run").stdout.replace("│", " ").split())
    assert f"by the gate either:{minor}=0.75,{explicit}=0.25" in shown


def both(run: Path) -> int:
    """The samples that are excluded both for co-occurrence and as known content."""
    found = [pq.read_table(path)["reasons"].to_pylist() for path in (run / "decisions").iterdir()]
    return sum({"co_occurrence", "known_hash"} <= set(reasons) for part in found for reasons in part)


@pytest.mark.parametrize(("threshold", "warned"), [(0.98, False), (0.99, True), (1.0, True)])
def test_a_rule_that_can_hardly_exclude_is_named_by_decide_and_scan(
    run: Path, pictures: Path, tmp_path: Path, threshold: float, warned: bool
) -> None:
    warning = f"Hardly any score reaches the threshold of {STANDIN_PAIR.minor}, {threshold}"
    file = policy(tmp_path, minor=threshold)
    for done in (
        command("decide", run, "--policy", file, "--json"),
        command("scan", pictures, "--out", run, *STAND_IN, "--json"),  # keeps the run's policy
        command("scan", pictures, "--out", run, *STAND_IN, "--policy", file, "--json"),
    ):
        assert (warning in done.message) is warned
        assert (done.json["policy_warning"] is not None) is warned
    assert (Run.open(run).policy.warning is not None) is warned


def test_every_change_is_told_in_digits_that_differ(run: Path, tmp_path: Path) -> None:
    explicit, minor = STANDIN_PAIR.names
    command("decide", run, "--policy", "co-occurrence")
    done = command("decide", run, "--policy", policy(tmp_path, minor=0.50001, explicit="0.7"))
    assert f"The threshold of {minor} was 0.5 and is now 0.50001." in done.message
    assert f"Excluded for {explicit} alone: was no, is now at 0.7." in done.message
    done = command("decide", run, "--policy", policy(tmp_path, minor=0.50001, explicit="0.70001"))
    assert "The threshold of" not in done.message
    assert f"Excluded for {explicit} alone: was at 0.7, is now at 0.70001." in done.message


def test_zero_shot_thresholds_are_said_not_to_be_calibrated(pictures: Path, tmp_path: Path) -> None:
    scan = ["scan", pictures, "--out", tmp_path / "run", *STAND_IN]
    note = "Zero-shot thresholds are not calibrated"
    done = command(*scan)
    assert note in done.message
    assert f"safetyfilter calibrate {tmp_path / 'run'} LABELS.parquet --out policy.toml" in done.message
    assert "(or LABELS.csv)" in done.message
    assert note not in command(*scan, "--policy", policy(tmp_path, minor=0.3)).message


def test_causes_that_an_option_may_mend_come_with_advice(pictures: Path, tmp_path: Path) -> None:
    """Of a table without a sample that can be scored, and so without a word on thresholds."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    one = next(iter(GOOD))
    rows = [{"bytes": None, "path": str(pictures / one)}, {"bytes": GOOD[one], "path": None}]
    pq.write_table(pa.table({"image": pa.array(rows, image), "key": ["a", None]}), tmp_path / "t.parquet")
    found = [
        command("scan", tmp_path / "t.parquet", "--out", tmp_path / "run", *STAND_IN),
        command("decide", tmp_path / "run", "--policy", "strict"),
    ]
    for done in found:
        assert done.status == 0
        assert "unreadable: where rows name files by absolute paths, scan with --root" in done.message
        assert "no_key: 1 row has a null in the key column; fill it, or name another with --key-column" in done.message
        assert "Zero-shot thresholds" not in done.message


def test_several_images_of_a_tars_sample_come_with_advice(tmp_path: Path) -> None:
    one, other = list(GOOD.values())[:2]
    tar = write_tars(tmp_path / "tars", {"a.jpg": one}, members={"other.jpg": other})
    done = command("scan", tar, "--out", tmp_path / "run", *STAND_IN)
    assert "several_images: 1 sample holds more than one picture; scan with --image-column and the" in done.message


def test_an_interruption_says_how_much_is_kept_and_how_to_go_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scan = ["scan", pictures, "--out", tmp_path / "run", *STAND_IN, "--part-size", 8]
    original, written = Run.write, []

    def interrupted(run: Run, *arguments: object) -> object:
        written.append(original(run, *arguments))  # type: ignore[arg-type]
        if len(written) == 2:
            raise KeyboardInterrupt
        return written[-1]

    monkeypatch.setattr(Run, "write", interrupted)
    done = command(*scan)
    assert (done.status, done.stdout) == (130, "")
    assert done.message.endswith("interrupted; finished parts are kept, and the same command goes on from there")
    assert re.fullmatch(
        r"stopped: \d+ scored samples are kept, and the same scan goes on from there", caplog.messages[-1]
    )
    found = command("status", tmp_path / "run", "--json").json
    assert found["parts_scored"] == 2
    assert found["samples_scored"] > 0
    monkeypatch.undo()
    assert command(*scan, "--json").json["seen"] == len(GOOD | BAD)


def test_laions_cuts_on_other_probes_are_told(run: Path, pictures: Path) -> None:
    warning = "The cut of laion-0.5 was published for LAION's detector"
    assert warning in command("decide", run, "--policy", "laion-0.5").message
    assert warning in command("scan", pictures, "--out", run, *STAND_IN, "--policy", "laion-0.5").message
    assert warning not in command("decide", run, "--policy", "separate").message


def test_a_trial_of_a_few_samples_is_a_run_of_its_own(pictures: Path, tmp_path: Path) -> None:
    scan = ["scan", pictures, "--out", tmp_path / "run", *STAND_IN]
    assert command(*scan, "--limit", 3, "--json").json["seen"] == 3
    assert "a run of another source; give another --out" in command(*scan).message


def test_a_trial_leaves_the_run_of_the_whole_as_it_is(run: Path, pictures: Path) -> None:
    before = Run.open(run).counts
    done = command("scan", pictures, "--out", run, *STAND_IN, "--limit", 3)
    assert (done.status, Run.open(run).counts) == (1, before)


def test_another_part_size_says_that_all_is_scored_again(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = ["scan", pictures, "--out", tmp_path / "run", *STAND_IN]
    for again, sizes in ((False, []), (False, []), (True, ["--part-size", 4]), (False, ["--part-size", 4])):
        caplog.clear()
        assert command(*scan, *sizes).status == 0
        assert ("all of it is scored again" in caplog.text) is again


def test_several_sources_are_one_run_whose_keys_name_them(pictures: Path, tmp_path: Path) -> None:
    more = write_files(tmp_path / "more", dict(list(GOOD.items())[:2]))
    done = command("scan", pictures, more, "--out", tmp_path / "run", *STAND_IN, "--json")
    assert done.json["seen"] == len(GOOD | BAD) + 2
    keys = tmp_path / "keys.txt"
    sources = ["--source", pictures, "--source", more]
    assert command("export", tmp_path / "run", *sources, "--to", keys, "--format", "keys").status == 0
    assert {key.partition("/")[0] for key in keys.read_text().splitlines()} <= {pictures.name, "more"}
    assert len(keys.read_text().splitlines()) == done.json["kept"]


def test_parts_of_another_size_and_threads_change_no_decision(pictures: Path, tmp_path: Path, run: Path) -> None:
    command("decide", run, "--policy", "co-occurrence")
    decoding = ("--threads", 1, "--decoders", "processes")
    done = command("scan", pictures, "--out", tmp_path / "run", *STAND_IN, "--part-size", 4, *decoding, "--json")
    assert len(list((tmp_path / "run" / "scores").iterdir())) > 1
    assert done.json["kept"] == Run.open(run).counts["kept"]


def test_the_last_line_counts_samples_that_share_a_key_as_the_table_does(tmp_path: Path) -> None:
    first, second = list(GOOD.values())[:2]
    table = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"key": ["a", "a"], "image": [first, second]}), table)
    done = command("scan", table, "--out", tmp_path / "run", *STAND_IN, "--json")
    assert done.json["unscored_by_cause"] == {"repeated_key": 2}
    assert "kept 0, excluded 2, unscored 2" in done.message
