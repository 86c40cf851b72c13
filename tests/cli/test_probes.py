"""train, calibrate, evaluate and probes fetch: from files on disk to files on disk, and one sentence where it can't."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from safetyfilter.cli import probes as commands  # noqa: F401  (adds its commands)
from safetyfilter.cli.app import app
from safetyfilter.decide.policy import Policy
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.engine.local import scan
from safetyfilter.errors import SafetyFilterError
from safetyfilter.filter import SafetyFilter
from safetyfilter.runs.secret import read_secret
from safetyfilter.score.files import load_probes
from safetyfilter.sources import open_source
from tests.conftest import good_images, write_files

PAIR = ("explicit", "minor")
DIGEST = "ab" * 32


def invoke(*arguments: object) -> dict[str, object]:
    """Run a command in this process, as `main` does, and return its JSON."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Embeddings, scores and labels of 2,000 random samples, row by row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 12)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = {"explicit": x[:, 0] > 0.0, "minor": x[:, 1] > 0.0}
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    np.save(tmp_path / "captions.npy", x[:, ::-1].astype(np.float16))
    pq.write_table(pa.table({**labels, "family": [f"f{i % 40}" for i in range(2000)]}), tmp_path / "labels.parquet")
    scores = {s: rng.beta(np.where(y, 6, 1), np.where(y, 1, 6)).astype(np.float32) for s, y in labels.items()}
    pq.write_table(pa.table(scores), tmp_path / "scores.parquet")
    return tmp_path


def test_train(place: Path) -> None:
    found = invoke(
        "train",
        place / "x.npy",
        place / "labels.parquet",
        "--signal",
        "minor",
        "--out",
        place / "p.safetensors",
        "--encoder-digest",
        DIGEST,
        "--group-column",
        "family",
        "--provenance",
        "random numbers",
    )
    (probe,) = load_probes(place / "p.safetensors").probes
    assert (found["digest"], found["encoder"], probe.signal) == (probe.digest, DIGEST, "minor")
    assert found["card"]["groups"] == 40
    assert found["card"]["auc"] > 0.99
    with pytest.raises(SafetyFilterError, match="exists"):
        invoke(
            "train",
            place / "x.npy",
            place / "labels.parquet",
            "--signal",
            "minor",
            "--out",
            place / "p.safetensors",
            "--encoder-digest",
            DIGEST,
        )


def test_train_on_captions_too(place: Path) -> None:
    (place / "spec.json").write_text(json.dumps({"encoder": {"architecture": "a", "digest": DIGEST}}))
    found = invoke(
        "train",
        place / "x.npy",
        place / "labels.parquet",
        "--signal",
        "minor",
        "--out",
        place / "p.safetensors",
        "--encoder-digest",
        place / "spec.json",
        "--captions",
        place / "captions.npy",
    )
    assert (found["inputs"], found["encoder"]) == ("image+caption", DIGEST)


def test_calibrate_then_evaluate(place: Path) -> None:
    found = invoke(
        "calibrate",
        place / "scores.parquet",
        place / "labels.parquet",
        "--max-miss-rate",
        0.02,
        "--confidence",
        0.95,
        "--out",
        place / "policy.toml",
    )
    assert found["rule"] == list(PAIR)
    assert found["rule_upper_bound"] <= 0.02
    policy = Policy.load(place / "policy.toml")
    assert dict(policy.thresholds) == {one["signal"]: one["threshold"] for one in found["signals"]}
    assert (place / "policy.toml").read_text().startswith("# Miss rate of the rule: at most 0.02 with confidence 0.95")
    measured = invoke(
        "evaluate",
        place / "scores.parquet",
        place / "labels.parquet",
        "--policy",
        place / "policy.toml",
        "--group-column",
        "family",
        "--interval",
        "clopper-pearson",
    )
    for one in found["signals"]:
        assert measured["signals"][one["signal"]]["false_negatives"] == one["misses"]
    assert len(measured["groups"]) == 40
    apart = invoke(
        "calibrate",
        place / "scores.parquet",
        place / "labels.parquet",
        "--max-miss-rate",
        0.02,
        "--per-signal",
        "--out",
        place / "apart.toml",
    )
    assert apart["rule"] is None
    assert all(a["threshold"] >= b["threshold"] for a, b in zip(apart["signals"], found["signals"], strict=True))


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "scores.parquet", "labels.parquet"),
        ("calibrate", "scores.parquet", "labels.parquet", "--max-miss-rate", "0.05", "--out", "p.toml"),
        ("train", "x.npy", "labels.parquet", "--signal", "minor", "--out", "p.safetensors", "--encoder-digest", DIGEST),
    ],
)
def test_tables(command: tuple[str, ...], place: Path) -> None:
    files = [place / part if "." in part and not part.startswith("0") else part for part in command]
    done = CliRunner().invoke(app, [*map(str, files)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.stderr
    assert "minor" in done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder, probes) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_files(folder / "pictures", good_images())
    scan(open_source(folder / "pictures"), folder / "run", SafetyFilter(encoder, probes), keep_embeddings=True)
    return folder / "run"


def test_a_run_gives_embeddings_scores_and_the_encoder(run: Path, tmp_path: Path, encoder) -> None:
    """Labels in another order, for part of the run, are joined by key digest."""
    scores = pa.concat_tables([pq.read_table(file) for file in sorted((run / "scores").glob("*.parquet"))])
    vectors = np.load(run / "embeddings" / "part-00000.npy").astype(np.float32)
    widest = vectors[:, vectors.std(axis=0).argmax()]
    side = (widest > np.median(widest)).tolist()
    bright = dict(zip(scores.column("key_digest").to_pylist(), side, strict=True))
    shuffled = [*bright][::-1][1:]
    pq.write_table(
        pa.table(
            {
                "key_digest": pa.array(shuffled, pa.binary(16)),
                "minor": [bright[k] for k in shuffled],
                "explicit": [not bright[k] for k in shuffled],
            }
        ),
        tmp_path / "labels.parquet",
    )
    measured = invoke("evaluate", run, tmp_path / "labels.parquet")
    assert measured["samples"] == len(scores)
    assert measured["signals"]["minor"]["unlabelled"] == 1
    values = scores.column("minor").to_numpy()[:-1]
    truth = np.array(side[:-1])
    counts = [measured["signals"]["minor"][name] for name in ("true_positives", "false_positives")]
    assert counts == [((values >= 0.5) & truth).sum(), ((values >= 0.5) & ~truth).sum()]
    for embeddings in (run, run / "embeddings" / "part-00000.npy"):
        out = tmp_path / f"{embeddings.stem}.safetensors"
        found = invoke("train", embeddings, tmp_path / "labels.parquet", "--signal", "minor", "--out", out)
        assert found["encoder"] == encoder.spec.digest
        assert found["card"]["positives"] + found["card"]["negatives"] == len(scores) - 1


def test_a_run_joins_labels_by_key_and_measures_its_own_policy(tmp_path: Path, encoder, probes) -> None:
    """Labels in another order that name their samples as people do; one image that can't be read."""
    write_files(tmp_path / "pictures", {**good_images(), "broken.jpg": b"no picture"})
    policy = Policy(thresholds={"explicit": 0.25, "minor": 0.75})
    source = open_source(tmp_path / "pictures")
    done = scan(source, tmp_path / "run", SafetyFilter(encoder, probes, policy), keep_embeddings=True)
    pictures = [path for path in (tmp_path / "pictures").rglob("*") if path.is_file()]
    keys = sorted((path.relative_to(tmp_path / "pictures").as_posix() for path in pictures), reverse=True)
    scores = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "run" / "scores").glob("*.parquet"))])
    vectors = np.load(tmp_path / "run" / "embeddings" / "part-00000.npy").astype(np.float32)
    widest = vectors[:, np.nanstd(vectors, axis=0).argmax()]
    digester = read_secret(tmp_path / "run")
    truth = dict(zip(scores["key_digest"].to_pylist(), (widest > np.nanmedian(widest)).tolist(), strict=True))
    bright = {key: truth[digester.key(key)] for key in keys}
    labels = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"key": keys, "minor": list(bright.values()), "explicit": list(bright.values())}), labels)
    measured = invoke("evaluate", tmp_path / "run", labels)
    assert {name: one["threshold"] for name, one in measured["signals"].items()} == dict(policy.thresholds)
    caught = [
        truth[digest] and score is not None and score >= 0.75
        for digest, score in zip(scores["key_digest"].to_pylist(), scores["minor"].to_pylist(), strict=True)
    ]
    assert measured["signals"]["minor"]["true_positives"] == sum(caught)
    for number, embeddings in enumerate((tmp_path / "run", tmp_path / "run" / "embeddings")):
        out = tmp_path / f"{number}.safetensors"
        found = invoke("train", embeddings, labels, "--signal", "minor", "--out", out)
        assert found["card"]["positives"] + found["card"]["negatives"] == done.counts["seen"] - 1
    pq.write_table(pa.table({"key": ["elsewhere.jpg"], "minor": [True]}), tmp_path / "others.parquet")
    with pytest.raises(SafetyFilterError, match="no label's key is among"):
        invoke("evaluate", tmp_path / "run", tmp_path / "others.parquet")


def test_labels_join_scores_of_the_users_own_by_key(place: Path) -> None:
    scores, labels = (pq.read_table(place / f"{name}.parquet") for name in ("scores", "labels"))
    keys = [f"{number}.jpg" for number in range(len(scores))]
    expected = invoke("evaluate", place / "scores.parquet", place / "labels.parquet")
    pq.write_table(scores.append_column("key", pa.array(keys)), place / "scores.parquet")
    turned = labels.append_column("key", pa.array(keys)).take(list(reversed(range(len(keys)))))
    pq.write_table(turned, place / "labels.parquet")
    assert invoke("evaluate", place / "scores.parquet", place / "labels.parquet") == expected


def test_tables_fit_a_terminal(place: Path) -> None:
    command = ["evaluate", place / "scores.parquet", place / "labels.parquet"]
    done = CliRunner().invoke(app, [*map(str, command), "--group-column", "family"], env={"COLUMNS": "80"})
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.strip().startswith("f39: policy ") for line in lines) == 2
    table = pq.read_table(place / "labels.parquet")
    apart = [None if number % 2 else value for number, value in enumerate(table["minor"].to_pylist())]
    others = [value if number % 2 else None for number, value in enumerate(table["explicit"].to_pylist())]
    pq.write_table(pa.table({"minor": apart, "explicit": others}), place / "apart.parquet")
    done = CliRunner().invoke(app, ["evaluate", str(place / "scores.parquet"), str(place / "apart.parquet")])
    assert "can't be measured" in done.stdout
    out = ["--out", str(place / "p.toml"), "--group-column", "family", "--max-miss-rate", "0.5"]
    done = CliRunner().invoke(app, ["calibrate", str(place / "scores.parquet"), str(place / "labels.parquet"), *out])
    assert re.search(r" group *\n", done.stdout)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "x.npy", "labels.parquet", "--signal", "minor", "--out", "p"), "nothing says which encoder"),
        (
            ("train", "x.npy", "labels.parquet", "--signal", "other", "--out", "p", "--encoder-digest", DIGEST),
            "'other'",
        ),
        (
            ("train", "x.npy", "short.parquet", "--signal", "minor", "--out", "p", "--encoder-digest", DIGEST),
            "5 labels",
        ),
        (("train", "x.npy", "labels.parquet", "--signal", "minor", "--out", "p", "--encoder-digest", "zz"), "64 hex"),
        (("train", "labels.parquet", "labels.parquet", "--signal", "minor", "--out", "p"), "give a .npy"),
        (("train", "x.npy", "x.npy", "--signal", "minor", "--out", "p"), "are no Parquet"),
        (("train", "x.npy", "none.parquet", "--signal", "minor", "--out", "p"), "there are no labels"),
        (("train", "x.npy", "others.parquet", "--signal", "minor", "--out", "p"), "nothing in .* does"),
        (
            ("train", "x.npy", "labels.parquet", "--signal", "minor", "--out", "p", "--encoder-digest", "spec.json"),
            "12 columns, and those of ViT",
        ),
        (("evaluate", "none", "labels.parquet"), "give a run or a Parquet file"),
        (("calibrate", "scores.parquet", "short.parquet", "--out", "p"), "5 labels"),
        (("calibrate", "scores.parquet", "labels.parquet", "--max-miss-rate", "0.0001", "--out", "p"), "too few"),
        (("calibrate", "scores.parquet", "labels.parquet", "--group-column", "none", "--out", "p"), "'none'"),
        (("calibrate", "scores.parquet", "labels.parquet", "--out", "nowhere/p"), "no folder"),
        (("evaluate", "scores.parquet", "labels.parquet", "--policy", "none"), "presets"),
        (("evaluate", "keyed.parquet", "twice.parquet"), "more than once, in 1 rows"),
        (("evaluate", "keyed.parquet", "others.parquet"), "no label's key"),
        (("probes", "fetch", "laion-h14"), "laion-l14, laion-b32"),
    ],
)
def test_what_cannot_be_is_one_sentence(command: tuple[str, ...], message: str, place: Path) -> None:
    five = {"minor": [1, 0, 1, 0, 1]}
    keys = [bytes([i]) * 16 for i in range(5)]
    pq.write_table(pa.table(five), place / "short.parquet")
    pq.write_table(pa.table({"minor": [0.5] * 5, "key_digest": keys}), place / "keyed.parquet")
    pq.write_table(pa.table({**five, "key_digest": [*keys[:4], keys[0]]}), place / "twice.parquet")
    pq.write_table(pa.table({**five, "key_digest": [key[:8] * 2 + b"x" for key in keys]}), place / "others.parquet")
    spec = EncoderSpec(
        architecture="ViT-X",
        weights_sha256="",
        image_size=(8, 8),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        interpolation="bicubic",
        resize_mode="squash",
        width=16,
    )
    (place / "spec.json").write_text(json.dumps({"encoder": spec.as_dict()}))
    before = {path.name for path in place.iterdir()}
    files = [
        place / part if part.endswith((".npy", ".parquet", ".json")) or part in ("p", "nowhere/p") else part
        for part in command
    ]
    with pytest.raises(SafetyFilterError, match=message) as caught:
        invoke(*files)
    assert "\n" not in str(caught.value)
    assert {path.name for path in place.iterdir()} == before


def test_exit_status_and_standard_error(place: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from safetyfilter.cli import main; main()",
            "train",
            "x.npy",
            "labels.parquet",
            "--signal",
            "minor",
            "--out",
            "p",
        ],
        capture_output=True,
        text=True,
        cwd=place,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: nothing says which encoder")
