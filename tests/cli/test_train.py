"""``train``: from embeddings and labels on disk to a probe file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import (
    ClipEncoder,
    EmbedOptions,
    LinearProbe,
    ProbeBank,
    Run,
    SafetyFilter,
    open_source,
    scan,
    train_probe,
)
from safetyfilter.signals import PAIR
from tests.cli.commands import command
from tests.cli.conftest import PICTURES
from tests.writers import write_files

DIGEST = "ab" * 32


def test_it_writes_a_probe_and_no_file_twice(place: Path) -> None:
    arguments = ["train", place / "x.npy", place / "labels.parquet", "--signal", "minor", "--out",
                 place / "p.safetensors", "--encoder-digest", DIGEST, "--group-column", "family",
                 "--provenance", "random numbers", "--json"]  # fmt: skip
    found = command(*arguments).json
    (probe,) = ProbeBank.load(place / "p.safetensors").probes
    assert (found["digest"], found["encoder"], probe.signal) == (probe.digest, DIGEST, "minor")
    assert found["card"]["groups"] == 40
    assert found["card"]["auc"] > 0.99
    again = command(*arguments)
    assert (again.status, again.stdout) == (1, "")
    assert "exists; choose another name" in again.message


def test_on_captions_too(place: Path) -> None:
    (place / "spec.json").write_text(json.dumps({"encoder": {"architecture": "a", "digest": DIGEST}}))
    found = command(
        "train", place / "x.npy", place / "labels.parquet", "--signal", "minor", "--out", place / "p.safetensors",
        "--encoder-digest", place / "spec.json", "--captions", place / "captions.npy", "--json",
    ).json  # fmt: skip
    assert (found["inputs"], found["encoder"]) == ("image+caption", DIGEST)


@pytest.mark.parametrize("named_by", ["key", "key_digest"])
def test_a_run_joins_labels_by_key_in_any_order(
    run: Run, truth: dict[str, bool], tmp_path: Path, named_by: str
) -> None:
    keys = list(truth)[::-1][1:]
    names = keys if named_by == "key" else pa.array([run.digester().key(key) for key in keys], pa.binary(16))
    labels = pa.table({named_by: names, "minor": [truth[key] for key in keys]})
    pq.write_table(labels, tmp_path / "labels.parquet")
    out = tmp_path / "p.safetensors"
    found = command("train", run.path, tmp_path / "labels.parquet", "--signal", "minor", "--out", out, "--json").json
    assert found["encoder"] == run.record.setup.encoder.digest
    readable = [key for key in keys if key != "broken.jpg"]
    assert found["card"]["positives"] == sum(truth[key] for key in readable)
    assert found["card"]["negatives"] == sum(not truth[key] for key in readable)


def test_a_runs_captions_are_row_by_row_those_of_the_labels(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    """Captions that alone tell the signal: a probe on them is right only where each meets its own sample."""
    keys = sorted(truth, key=lambda key: key[::-1])
    random = np.random.default_rng(0).random(len(keys)) > 0.5
    width = run.record.setup.encoder.width
    captions = np.zeros((len(keys), width), np.float32)
    captions[np.arange(len(keys)), random.astype(int)] = 1
    np.save(tmp_path / "captions.npy", captions)
    pq.write_table(pa.table({"key": keys, "minor": random.tolist()}), tmp_path / "labels.parquet")
    out = tmp_path / "p.safetensors"
    train = ["train", run.path, tmp_path / "labels.parquet", "--signal", "minor", "--out", out]
    assert command(*train, "--captions", tmp_path / "captions.npy", "--json").json["inputs"] == "image+caption"
    bank, vectors = ProbeBank.load(out), run.read_embeddings().astype(np.float32)
    place = {digest: row for row, digest in enumerate(run.read_scores()["key_digest"].to_pylist())}
    rows = [place[run.digester().key(key)] for key in keys]
    scores = bank.score_vectors(np.concatenate([vectors[rows], captions], axis=1))[:, 0]
    seen = np.isfinite(scores)
    assert seen.sum() == len(keys) - 1
    assert scores[seen & random].min() > scores[seen & ~random].max()


def test_a_run_whose_pictures_changed_since_has_no_embeddings(
    tmp_path: Path, encoder, probes, run: Run, truth: dict[str, bool]
) -> None:
    folder, out, safe = write_files(tmp_path / "pictures", PICTURES), tmp_path / "run", SafetyFilter(encoder, probes)
    pq.write_table(pa.table({"key": list(truth), "minor": list(truth.values())}), tmp_path / "labels.parquet")
    scan(open_source(folder), out, safe, keep_embeddings=True)
    (folder / "chelsea.jpg").write_bytes(PICTURES["china.jpg"])
    scan(open_source(folder), out, safe)
    train = ["train", out, tmp_path / "labels.parquet", "--signal", "minor", "--out", tmp_path / "p.safetensors"]
    done = command(*train, "--json")
    assert (done.status, done.stdout) == (1, "")
    assert done.message.endswith(f"{out} holds no embeddings; scan again with --keep-embeddings")
    assert not (tmp_path / "p.safetensors").exists()


def test_an_unfinished_run_is_not_trained_on(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copy(f"{run.path}.secret", tmp_path / "run.secret")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"complete": False, "counts": {}, "scores": ""}))
    pq.write_table(pa.table({"key": list(truth), "minor": list(truth.values())}), tmp_path / "labels.parquet")
    train = ["train", tmp_path / "run", tmp_path / "labels.parquet", "--signal", "minor"]
    done = command(*train, "--out", tmp_path / "p.safetensors")
    assert done.status == 1
    assert re.search(r"is not finished; run the same `safetyfilter scan` again", done.message)


def test_parts_of_a_run_are_not_taken_apart(run: Run, place: Path) -> None:
    out = ["--signal", "minor", "--out", place / "p.safetensors"]
    done = command("train", Path(run.path) / "embeddings" / "part-00000.npy", place / "labels.parquet", *out)
    assert done.status == 1
    assert "give the run directory" in done.message


def test_on_several_views(tmp_path: Path, encoder: ClipEncoder, probes: ProbeBank) -> None:
    safe = SafetyFilter(encoder, probes, options=EmbedOptions(views="multi", decode="exact"))
    pictures = write_files(tmp_path / "pictures", PICTURES)
    run = scan(open_source(pictures), tmp_path / "run", safe, keep_embeddings=True)
    vectors = run.read_embeddings().astype(np.float32)
    highest = vectors[..., np.nanstd(vectors, axis=(0, 1)).argmax()].max(axis=1)
    sides = highest > np.nanmedian(highest)
    labels = pa.table({"key_digest": run.read_scores()["key_digest"], "minor": sides.tolist()})
    pq.write_table(labels, tmp_path / "labels.parquet")
    train = ["train", run.path, tmp_path / "labels.parquet", "--signal", "minor"]
    found = command(*train, "--out", tmp_path / "p.safetensors", "--json").json
    card = found["card"]
    assert card["trained_on"] == {"views": "multi", "decode": "exact", "precision": "float32"}
    assert card["method"] == "logistic-regression, highest of 5 views"
    assert card["positives"] == sides.sum()
    assert card["positives"] + card["negatives"] == len(PICTURES) - 1
    assert ProbeBank.load(tmp_path / "p.safetensors").probes[0].card.trained_on.views == "multi"


@pytest.fixture
def several_views(tmp_path: Path) -> Path:
    """Embeddings of three views each, with labels, and weights of those samples that have one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 3, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x / np.linalg.norm(x, axis=2, keepdims=True))
    labels = [None if i < 20 else bool(value > 0) for i, value in enumerate(x[..., 1].max(axis=1) - 0.8)]
    weights = [None if label is None else 1 + i % 3 for i, label in enumerate(labels)]
    other = [label is False and i % 2 == 0 for i, label in enumerate(labels)]
    columns = {
        "minor": labels,
        "explicit": other,
        "both": labels,
        "weight": weights,
        "nought": [0.0] * 240,
        "name": ["somebody"] * 240,
    }
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    return tmp_path


def test_how_much_views_and_samples_count(several_views: Path) -> None:
    train = ["train", several_views / "x.npy", several_views / "labels.parquet", "--signal", "minor",
             "--encoder-digest", DIGEST, "--json"]  # fmt: skip
    options = ("--beside-whole", "--positive-weight", 4, "--weight-column", "weight", "--other-column", "explicit")
    found = command(*train, *options, "--out", several_views / "p.safetensors").json
    table = pq.read_table(several_views / "labels.parquet")
    inputs = {"signal": "minor", "encoder": DIGEST, "beside_whole": True}
    same = train_probe(np.load(several_views / "x.npy"), table["minor"].to_pylist(), **inputs, positive_weight=4,
                       weights=table["weight"].to_pylist(), other=table["explicit"].to_pylist())  # fmt: skip
    plain = train_probe(np.load(several_views / "x.npy"), table["minor"].to_pylist(), **inputs)
    assert (found["inputs"], found["digest"]) == ("image+whole", same.digest)
    assert same.digest != plain.digest
    assert found["card"]["positives"] + found["card"]["negatives"] == 220


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--positive-weight", 0), 2, "--positive-weight is 0.0; give a number above 0"),
        (("--positive-weight", "inf"), 2, "--positive-weight is inf; give a number above 0"),
        (("--weight-column", "years"), 1, "the labels have no column 'years'"),
        (("--weight-column", "nought"), 1, "220 of the 220 labelled samples have no weight above 0"),
        (("--other-column", "years"), 1, "the labels have no column 'years'"),
        (("--other-column", ""), 1, "the labels have no column ''"),  # a shell's variable that is not set
        (("--weight-column", ""), 1, "the labels have no column ''"),
        (("--label-column", ""), 1, "the labels have no column ''"),
        (("--other-column", "minor"), 2, "--other-column names the labels of minor themselves"),
        (("--other-column", "both"), 1, "samples are labelled with 'minor' and the other signal"),
        (("--other-column", "name"), 1, "the labels of 'the other signal' are not all labels"),
        (("--weight-column", "name"), 1, "the weights are not all numbers; give 240 numbers above 0"),
        (("--beside-whole", "--captions", "captions.npy"), 1, "leave beside_whole (--beside-whole) out"),
    ],
)
def test_weights_that_are_none(several_views: Path, options: tuple[object, ...], status: int, message: str) -> None:
    np.save(several_views / "captions.npy", np.ones((240, 6), np.float32))
    given = [several_views / one if one == "captions.npy" else one for one in options]
    done = command("train", several_views / "x.npy", several_views / "labels.parquet", "--signal", "minor", *given,
                   "--encoder-digest", DIGEST, "--out", several_views / "p.safetensors")  # fmt: skip
    assert (done.status, done.stdout) == (status, ""), done.stderr
    assert message in done.message
    assert "somebody" not in done.stderr


def test_a_run_on_images_with_captions_says_what_can_be_done(tmp_path: Path, encoder: ClipEncoder) -> None:
    source = open_source(write_files(tmp_path / "pictures", PICTURES))
    weight, digest = np.zeros(encoder.spec.width * 2, np.float32), encoder.spec.digest
    bank = ProbeBank(
        [LinearProbe(signal=s, weight=weight, bias=-5, encoder=digest, inputs="image+caption") for s in PAIR.names]
    )
    scan(source, tmp_path / "run", SafetyFilter(encoder, bank), keep_embeddings=True)
    pq.write_table(pa.table({"key": list(PICTURES), "minor": [True] * len(PICTURES)}), tmp_path / "labels.parquet")
    done = command("train", tmp_path / "run", tmp_path / "labels.parquet", "--signal", "minor", "--out", tmp_path / "p")
    assert (done.status, done.stdout) == (1, "")
    message = r"of images with their captions, of 64 columns, .* images alone have 32; .* with --captions"
    assert re.search(message, done.message)


@pytest.fixture
def aged(place: Path) -> Path:
    """Ages in years that grow with a column of the embeddings; a few rows have none, or something else."""
    x = np.load(place / "x.npy")[:400].astype(np.float32)
    np.save(place / "x.npy", x)
    ages = (25 - 60 * x[:, 1]).clip(0, 90).round(1).tolist()
    ages[:3] = [None, -1.0, 1999.0]
    pq.write_table(pa.table({"age": ages, "person": [i // 4 for i in range(len(ages))]}), place / "ages.parquet")
    return place


AGES = ("--label-column", "age", "--below", 18, "--gap", 2)


def test_ages_make_the_probe_for_minor(aged: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = ["train", aged / "x.npy", aged / "ages.parquet", *AGES, "--group-column", "person",
             "--encoder-digest", DIGEST]  # fmt: skip
    found = command(*train, "--out", aged / "p.safetensors", "--json").json
    (probe,) = ProbeBank.load(aged / "p.safetensors").probes
    assert (found["signal"], probe.signal, found["digest"]) == ("minor", "minor", probe.digest)
    card = found["card"]
    ages = card["ages"]
    assert (ages["below"], ages["gap"], ages["not_ages"], ages["without_age"]) == (18, 2, 2, 1)
    assert card["positives"] + card["negatives"] + ages["in_gap"] + 3 == 400
    assert 50 < card["groups"] <= 100
    untrained = [band for band in ages["bands"] if not band["trained_on"]]
    assert {(band["start"], band["end"], band["present"]) for band in untrained} <= {(16, 18, True), (18, 20, False)}
    assert sum(band["samples"] for band in untrained) == ages["in_gap"] > 0
    shown = command(*train, "--out", aged / "again.safetensors")
    assert "2 of 400 ages are not between 0 and 130 years: left out" in caplog.messages
    for text in ("14 to 16", "20 to 22", "not trained on", "not an age"):
        assert text in shown.stdout


def test_no_age_is_left_in_a_run(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    ages = pa.table({"key": list(truth), "age": [7 if label else 47 for label in truth.values()]})
    pq.write_table(ages, tmp_path / "ages.parquet")
    before = {path: path.read_bytes() for path in Path(run.path).rglob("*") if path.is_file()}
    done = command("train", run.path, tmp_path / "ages.parquet", *AGES, "--out", tmp_path / "p.safetensors", "--json")
    assert done.json["card"]["positives"] == sum(label for key, label in truth.items() if key != "broken.jpg")
    assert done.json["card"]["ages"]["without_age"] == 1
    assert {path: path.read_bytes() for path in Path(run.path).rglob("*") if path.is_file()} == before


def test_labels_may_lie_in_a_column_of_another_name(place: Path) -> None:
    train = ["train", place / "x.npy", place / "labels.parquet", "--encoder-digest", DIGEST, "--json"]
    found = command(*train, "--signal", "minor", "--label-column", "explicit", "--out", place / "p.safetensors").json
    assert (found["signal"], found["card"]["ages"]) == ("minor", None)
    column = pq.read_table(place / "labels.parquet")["explicit"].to_pylist()
    assert found["card"]["positives"] == sum(column)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--label-column", "age", "--below", 18, "--gap", -1), 2, "the gap is -1 years; give 0 or more"),
        (("--label-column", "age", "--below", 0), 2, "the cut is at 0 years; give an age above 0 and below 130"),
        (("--label-column", "age", "--below", 18, "--gap", 18), 2, "leaves nobody on one side"),
        (("--label-column", "age", "--gap", 2), 2, "give --below too"),
        (("--label-column", "age", "--below", "nan"), 2, "the cut is at nan years"),
        (("--below", 18), 2, "give --label-column too"),
        (("--label-column", "age"), 2, "no signal is named; give --signal"),
        (("--label-column", "age", "--below", 18, "--signal", "explicit"), 2, "ages tell nothing of explicit"),
        (("--label-column", "person", "--below", 600), 2, "below 130"),
        (("--label-column", "name", "--below", 18), 1, "400 of 400 are not numbers, the first in row 0"),
        (("--label-column", "years", "--below", 18), 1, "have no column 'years'"),
        (("--label-column", "old", "--below", 18), 1, "0 samples are younger than 18 years and 400 are 18 or older"),
        (("--label-column", "age", "--signal", "minor"), 1, "the labels of 'minor' are not all labels"),
    ],
)
def test_ages_that_make_no_labels(aged: Path, options: tuple[object, ...], status: int, message: str) -> None:
    table = pq.read_table(aged / "ages.parquet")
    table = table.append_column("name", pa.array([f"somebody {i}" for i in range(400)]))
    pq.write_table(table.append_column("old", pa.array([40] * 400)), aged / "ages.parquet")
    out = aged / "p.safetensors"
    done = command("train", aged / "x.npy", aged / "ages.parquet", *options, "--encoder-digest", DIGEST, "--out", out)
    assert (done.status, done.stdout) == (status, ""), done.stderr
    assert message in done.message
    assert "somebody" not in done.stderr
    assert not out.exists()
