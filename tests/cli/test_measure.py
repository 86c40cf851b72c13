"""``calibrate`` and ``evaluate``: from scores and labels on disk to a policy and to figures."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safetyfilter import ClipEncoder, Policy, ProbeBank, Run, SafetyFilter, apply_policy, open_source, scan
from safetyfilter.decide.calibration_record import ScoredBy
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.errors import UncertifiedPolicyError
from safetyfilter.evaluation.inputs import scored_by
from safetyfilter.evaluation.report.provenance import provenance
from safetyfilter.runs.score_spread import run_spread
from tests.cli.commands import command
from tests.cli.conftest import POLICY
from tests.conftest import good_images
from tests.writers import write_files

PAIR = ("explicit", "minor")


def test_calibrate_then_evaluate(place: Path) -> None:
    files = [place / "scores.parquet", place / "labels.parquet"]
    rate = ["--max-miss-rate", 0.02, "--confidence", 0.95]
    found = command("calibrate", *files, *rate, "--out", place / "policy.toml", "--json").json
    assert found["rule"] == list(PAIR)
    assert found["rule_upper_bound"] <= 0.02
    policy = Policy.load(place / "policy.toml")
    assert dict(policy.thresholds) == {one["signal"]: one["threshold"] for one in found["signals"]}
    assert (place / "policy.toml").read_text().startswith("# Miss rate of the rule: at most 0.02 with confidence 0.95")
    how = ["--policy", place / "policy.toml", "--group-column", "family", "--interval", "clopper-pearson"]
    measured = command("evaluate", *files, *how, "--json").json
    for one in found["signals"]:
        assert measured["signals"][one["signal"]]["false_negatives"] == one["misses"]
    assert len(measured["groups"]) == 40
    apart = command("calibrate", *files, *rate, "--per-signal", "--out", place / "apart.toml", "--json").json
    assert apart["rule"] is None
    assert all(a["threshold"] >= b["threshold"] for a, b in zip(apart["signals"], found["signals"], strict=True))


@pytest.mark.parametrize("named_by", ["key", "key_digest"])
def test_a_run_joins_labels_by_key_and_measures_its_own_policy(
    run: Run, truth: dict[str, bool], tmp_path: Path, named_by: str
) -> None:
    """Labels in another order, for part of the run; one picture of it can't be read."""
    keys = sorted(truth, reverse=True)[1:]
    names = keys if named_by == "key" else pa.array([run.digester().key(key) for key in keys], pa.binary(16))
    columns = {signal: [truth[key] for key in keys] for signal in PAIR}
    pq.write_table(pa.table({named_by: names, **columns}), tmp_path / "labels.parquet")
    measured = command("evaluate", run.path, tmp_path / "labels.parquet", "--json").json
    assert measured["samples"] == len(truth)
    assert {name: one["threshold"] for name, one in measured["signals"].items()} == dict(POLICY.thresholds)
    stored = run.read_scores().to_pydict()
    for signal in PAIR:
        scores = dict(zip(stored["key_digest"], stored[signal], strict=True))
        # what is unscored is excluded, and so counts as found
        found = {key: not scores[run.digester().key(key)] < POLICY.thresholds[signal] for key in keys}
        counts = [sum(found[key] and truth[key] is side for key in keys) for side in (True, False)]
        names_of_counts = ("true_positives", "false_positives")
        assert [measured["signals"][signal][name] for name in names_of_counts] == counts
        assert measured["signals"][signal]["unlabelled"] == 1
    pq.write_table(pa.table({"key": ["elsewhere.jpg"], "minor": [True]}), tmp_path / "others.parquet")
    done = command("evaluate", run.path, tmp_path / "others.parquet")
    assert done.status == 1
    assert "no label's key is among" in done.message


def test_what_a_calibration_rests_on_goes_into_the_run(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    """From the labels to the policy's file, to the record of a run that is decided by it, and to what is said of it."""
    columns = {signal: list(truth.values()) for signal in PAIR}
    pq.write_table(pa.table({"key": list(truth), **columns}), tmp_path / "labels.parquet")
    files = [run.path, tmp_path / "labels.parquet", "--out", tmp_path / "policy.toml"]
    command("calibrate", *files, "--max-miss-rate", 0.6, "--confidence", 0.6)
    setup, copy = run.record.setup, tmp_path / "run"
    shutil.copytree(run.path, copy)
    done = command("decide", copy, "--policy", tmp_path / "policy.toml")
    assert "calibrat" not in done.message
    record = Run.open(copy).record
    found = record.policy.calibration
    assert found == Policy.load(tmp_path / "policy.toml").calibration
    assert found is not None
    assert found.labels_sha256 == hashlib.sha256((tmp_path / "labels.parquet").read_bytes()).hexdigest()
    assert found.scored_by == ScoredBy(
        encoder=setup.encoder.digest,
        probes=setup.probes,
        views=setup.views,
        setup=setup.digest,
        scores=run.record.scores,
        precision=setup.precision,
        decode=setup.decode,
    )
    said = provenance(record, spread=run_spread(run))
    assert "the rule misses at most" in said.guarantee
    assert (said.warnings, {one.verdict for one in said.signals}) == ((), {"yes"})
    assert (said.fits, [one.distance for one in said.drift]) == (True, [0, 0])


def policy_file(place: Path, run: Run, name: str, value: object) -> Path:
    """The file of a policy that was calibrated as if on the run's scores, in which one value was written over."""
    made_on = replace(scored_by(run), scores="")
    found = calibrate_thresholds(dict.fromkeys(PAIR, [0.5] * 9), dict.fromkeys(PAIR, [1] * 9), max_miss_rate=0.8)
    policy = found.policy(record=found.record(scored_by=made_on))
    value = value * 64 if name == "encoder" else value
    text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {json.dumps(value)}", policy.to_toml())
    (place / "policy.toml").write_text(text)
    return place / "policy.toml"


@pytest.mark.parametrize(
    ("setting", "value", "differs", "warned"),
    [
        ("encoder", "a", "encoder (aaaaaaaaaaaa there, ", "was made on the scores of another encoder."),
        ("probes", ["b" * 64], "probes (bbbbbbbbbbbb there, ", "was made on the scores of other probes."),
        ("views", "center", "views (center there, whole here)", "on the scores of other views of each picture."),
        ("decode", "exact", "decoding (exact there, fast here)", "with exact decoding, and those of this run are with"),
        ("precision", "int8", "precision (int8 there, float32 here)", "in int8, and those of this run are in float32"),
    ],
)
def test_a_calibration_that_does_not_fit_the_run_is_refused_unless_that_is_accepted(
    run: Run, tmp_path: Path, setting: str, value: object, differs: str, warned: str
) -> None:
    decide = ["decide", tmp_path / "run", "--policy", policy_file(tmp_path, run, setting, value)]
    shutil.copytree(run.path, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    refused = command(*decide)
    assert (refused.status, refused.stdout) == (1, "")
    assert f"what differs: {differs}" in refused.message
    assert "--accept-uncertified" in refused.message
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    done = command(*decide, "--accept-uncertified")
    assert done.status == 0
    assert warned in done.message
    assert "was accepted when it was decided" in done.message
    assert setting in ("decode", "precision") or f"What differs: {differs}" in done.message
    assert "guaranteed here" not in done.message  # what does not fit, and what follows, was said before
    assert Run.open(tmp_path / "run").record.accepted_uncertified
    assert "does not fit these scores, as was accepted" in command("status", tmp_path / "run").stdout
    assert command("status", tmp_path / "run", "--json").json["accepted_uncertified"] is True
    # to decide by it once more needs no word; a policy that fits, or has no record, takes the mark off
    assert apply_policy(Run.open(tmp_path / "run"), Run.open(tmp_path / "run").policy).record.accepted_uncertified
    assert not apply_policy(Run.open(tmp_path / "run"), Policy()).record.accepted_uncertified


def test_a_scan_refuses_it_before_a_picture_is_embedded_and_leaves_nothing(
    run: Run, encoder: ClipEncoder, probes: ProbeBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "pictures", good_images())
    source = open_source(tmp_path / "pictures")
    policy = Policy.load(policy_file(tmp_path, run, "views", "multi"))
    safe = SafetyFilter(encoder, probes, policy)
    with monkeypatch.context() as patched:
        patched.setattr(ClipEncoder, "embed_stream", None)
        with pytest.raises(UncertifiedPolicyError, match=r"views \(multi there, whole here\)"):
            scan(source, tmp_path / "run", safe)
    assert not (tmp_path / "run").exists()
    done = scan(source, tmp_path / "run", replace(safe, accept_uncertified=True))
    assert done.record.accepted_uncertified
    assert Run.open(tmp_path / "run").record.accepted_uncertified
    again = scan(source, tmp_path / "run", SafetyFilter(encoder, probes))
    assert not again.record.accepted_uncertified


def test_it_is_told_again_by_a_scan_that_goes_on(run: Run, tiny_clip: Path, probes: ProbeBank, tmp_path: Path) -> None:
    write_files(tmp_path / "pictures", dict(list(good_images().items())[:3]))
    probes.save(tmp_path / "probes.safetensors")
    more = ["scan", tmp_path / "pictures", "--out", tmp_path / "run", "--encoder", f"local-dir:{tiny_clip}",
            "--probes", tmp_path / "probes.safetensors", "--precision", "fp32", "--device", "cpu"]  # fmt: skip
    policy = policy_file(tmp_path, run, "views", "multi")
    first = command(*more, "--policy", policy, "--accept-uncertified")
    write_files(tmp_path / "pictures", good_images())
    again = command(*more)
    for done in (first, again):
        assert done.status == 0, done.stderr
        assert "was accepted when it was decided (--accept-uncertified)" in done.message
    assert Run.open(tmp_path / "run").record.accepted_uncertified


def test_evaluate_repeats_where_the_thresholds_come_from(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    columns = {signal: list(truth.values()) for signal in PAIR}
    pq.write_table(pa.table({"key": list(truth), **columns}), tmp_path / "labels.parquet")
    files = ["evaluate", run.path, tmp_path / "labels.parquet"]
    command("calibrate", *files[1:], "--max-miss-rate", 0.6, "--confidence", 0.6, "--out", tmp_path / "own.toml")
    fitting = command(*files, "--policy", tmp_path / "own.toml", "--json").json["thresholds"]
    assert (fitting["fits"], fitting["misfits"], fitting["warnings"]) == (True, [], [])
    assert [one["distance"] for one in fitting["drift"]] == [0, 0]
    other = command(*files, "--policy", policy_file(tmp_path, run, "views", "multi"), "--json")
    assert other.json["thresholds"]["misfits"] == [{"setting": "views", "calibrated": "multi", "here": "whole"}]
    assert other.json["thresholds"]["drift"] == []
    assert "on the scores of other views of each picture" in other.message
    shown = " ".join(command(*files, "--policy", tmp_path / "own.toml").stdout.split())
    assert "The policy states that its thresholds were calibrated on" in shown
    assert "The calibration fits this run. Alike are encoder, probes, views, decoding, precision." in shown
    assert command(*files, "--json").json["thresholds"]["origin"].endswith("they count as chosen by hand.")


def test_evaluate_holds_scores_of_a_file_against_the_calibrations(place: Path) -> None:
    files = [place / "scores.parquet", place / "labels.parquet"]
    command("calibrate", *files, "--max-miss-rate", 0.02, "--out", place / "policy.toml")
    found = command("evaluate", *files, "--policy", place / "policy.toml", "--json")
    assert found.json["thresholds"]["fits"] is None
    assert [one["distance"] for one in found.json["thresholds"]["drift"]] == [0, 0]
    assert "Nothing says which encoder and probes gave the scores of this file." in found.message
    scores = pq.read_table(files[0]).to_pydict()
    pq.write_table(pa.table({signal: np.sqrt(values) for signal, values in scores.items()}), files[0])
    moved = command("evaluate", *files, "--policy", place / "policy.toml", "--json")
    assert all(one["far"] and one["higher"] for one in moved.json["thresholds"]["drift"])
    assert moved.message.count("are spread otherwise here than those that were calibrated on") == 2


def test_a_threshold_that_was_raised_by_hand_is_warned_of(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    done = command("decide", tmp_path / "run", "--policy", policy_file(tmp_path, run, "threshold", 0.0))
    assert done.status == 0
    assert "The threshold of explicit was raised since: 0.0 was found" in done.message


def test_scores_that_lie_elsewhere_are_warned_of_with_the_figure(run: Run, tmp_path: Path) -> None:
    """The calibration's scores lie where hardly any of the run's do, so that chance hardly explains it."""
    rows = {signal: np.full(800, 0.9995) for signal in PAIR}
    found = calibrate_thresholds(rows, dict.fromkeys(PAIR, np.ones(800)), max_miss_rate=0.6)
    policy = found.policy(record=found.record(scored_by=replace(scored_by(run), scores="")))
    (tmp_path / "policy.toml").write_text(policy.to_toml())
    shutil.copytree(run.path, tmp_path / "run")
    done = command("decide", tmp_path / "run", "--policy", tmp_path / "policy.toml")
    assert done.status == 0
    drift = provenance(Run.open(tmp_path / "run").record, spread=run_spread(run)).drift
    assert [one.signal for one in drift] == list(PAIR)
    for one in drift:
        assert one.far
        assert f"The scores of {one.signal} are spread otherwise here" in done.message
        assert f"the distance is {one.distance:.3f}" in done.message


def test_a_policy_that_an_earlier_version_wrote_says_what_is_not_on_record(run: Run, tmp_path: Path) -> None:
    file = policy_file(tmp_path, run, "views", "whole")
    text = re.sub(r"(?m)^(decode|schema|setup|groups) = .*\n", "", file.read_text())
    file.write_text(re.sub(r"(?m)^\[\[calibration\.spread\]\]\n(.+\n)*", "", text))
    shutil.copytree(run.path, tmp_path / "run")
    done = command("decide", tmp_path / "run", "--policy", file)
    assert done.status == 0
    assert "(decoding, limits, preparation) were the same is not on record" in done.message
    said = provenance(Run.open(tmp_path / "run").record, spread=run_spread(run))
    assert (said.fits, said.drift) == (True, ())
    assert "of decoding nothing is on record" in said.notes[0]
    assert "How the scores that were calibrated on are spread is not on record" in said.notes[-1]
    assert "schema" not in json.loads((tmp_path / "run" / "run.json").read_text())["policy"]["calibration"]


def test_a_calibration_on_scores_of_a_file_names_no_encoder(place: Path) -> None:
    files = [place / "scores.parquet", place / "labels.parquet", "--out", place / "policy.toml"]
    command("calibrate", *files, "--max-miss-rate", 0.02)
    found = Policy.load(place / "policy.toml").calibration
    assert found is not None
    assert (found.scored_by, found.max_miss_rate, found.for_rule) == (None, 0.02, True)


@pytest.mark.parametrize("name", ["evaluate", "calibrate"])
def test_an_unfinished_run_is_not_measured(run: Run, truth: dict[str, bool], tmp_path: Path, name: str) -> None:
    """As a scan leaves it that was stopped: some parts, and a ``run.json`` that says so."""
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copy(f"{run.path}.secret", tmp_path / "run.secret")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"complete": False, "counts": {}, "scores": ""}))
    (tmp_path / "run" / "scores" / "part-00001.parquet").unlink()
    columns = {signal: list(truth.values()) for signal in PAIR}
    pq.write_table(pa.table({"key": list(truth), **columns}), tmp_path / "labels.parquet")
    out = [] if name == "evaluate" else ["--out", tmp_path / "policy.toml"]
    done = command(name, tmp_path / "run", tmp_path / "labels.parquet", *out, "--json")
    assert (done.status, done.stdout) == (1, "")
    assert done.message.endswith(
        "is not finished; run the same `safetyfilter scan` again, which does only what is missing"
    )
    assert not (tmp_path / "policy.toml").exists()


def test_labels_without_keys_do_not_join_a_run(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    """As many labels as rows would have been taken row by row, when rows were in the source's order."""
    pq.write_table(pa.table({"minor": list(truth.values())}), tmp_path / "labels.parquet")
    done = command("evaluate", run.path, tmp_path / "labels.parquet")
    assert done.status == 1
    assert "the labels have no column key" in done.message


def test_labels_join_scores_of_the_users_own_by_key(place: Path) -> None:
    scores, labels = (pq.read_table(place / f"{name}.parquet") for name in ("scores", "labels"))
    keys = [f"{number}.jpg" for number in range(len(scores))]
    files = ["evaluate", place / "scores.parquet", place / "labels.parquet", "--json"]
    expected = command(*files).json
    pq.write_table(scores.append_column("key", pa.array(keys)), place / "scores.parquet")
    turned = labels.append_column("key", pa.array(keys)).take(list(reversed(range(len(keys)))))
    pq.write_table(turned, place / "labels.parquet")
    assert command(*files).json == expected


def test_tables_fit_a_terminal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    files = [place / "scores.parquet", place / "labels.parquet"]
    done = command("evaluate", *files, "--group-column", "family")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.strip().startswith("f39: policy ") for line in lines) == 2
    out = ["--out", place / "p.toml", "--group-column", "family", "--max-miss-rate", "0.5"]
    assert re.search(r" group *\n", command("calibrate", *files, *out).stdout)


def test_a_recall_without_labelled_pairs_is_said_not_to_be_measured(place: Path) -> None:
    table = pq.read_table(place / "labels.parquet")
    apart = [None if number % 2 else value for number, value in enumerate(table["minor"].to_pylist())]
    others = [value if number % 2 else None for number, value in enumerate(table["explicit"].to_pylist())]
    pq.write_table(pa.table({"minor": apart, "explicit": others}), place / "apart.parquet")
    done = command("evaluate", place / "scores.parquet", place / "apart.parquet")
    assert done.status == 0
    assert "can't be measured" in done.stdout


def test_a_column_of_labels_that_is_not_there_is_told(tmp_path: Path) -> None:
    columns = {"explicit": [0.1, 0.9, 0.2, 0.8], "minor": [0.1, 0.9, 0.2, 0.8]}
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    pq.write_table(pa.table({"explicit": [0, 1, 0, 1], "minro": [0, 1, 0, 1]}), tmp_path / "labels.parquet")
    done = command("evaluate", tmp_path / "scores.parquet", tmp_path / "labels.parquet", "--json")
    assert list(done.json["signals"]) == ["explicit"]
    assert "The labels have no column 'minor' (explicit, minro): neither it nor the rule is measured." in " ".join(
        done.stderr.split()
    )


def test_a_threshold_just_below_1_is_told_from_1_and_warned_of(place: Path) -> None:
    score = float(np.float32(0.99999976))
    rows = {signal: [score] * 1000 + [0.1] * 1000 for signal in PAIR}
    pq.write_table(pa.table(rows), place / "high.parquet")
    labels = {signal: [True] * 1000 + [False] * 1000 for signal in PAIR}
    pq.write_table(pa.table({"key": list(range(2000)), **labels}), place / "high-labels.parquet")
    files = [place / "high.parquet", place / "high-labels.parquet"]
    done = command("calibrate", *files, "--out", place / "p.toml")
    assert done.stdout.count(" 0.9999998 ") == 2
    assert f"Hardly any score reaches the threshold of explicit, {score!r}" in done.message
    assert "serves only where positives score as high as those labelled" in done.message
    assert command("evaluate", *files, "--policy", place / "p.toml").stdout.count(" 0.9999998 ") == 2


def test_too_few_positives_of_both_signals_are_told_together(place: Path) -> None:
    done = command(
        "calibrate", place / "scores.parquet", place / "labels.parquet", "--max-miss-rate", 1e-4, "--out", place / "p"
    )
    assert done.status == 1
    for signal in PAIR:
        assert f"'{signal}' has too few labelled positives" in done.message
    assert done.message.count("label more, or ask for") == 1


def test_the_table_says_which_samples_are_unscored(run: Run, truth: dict[str, bool], tmp_path: Path) -> None:
    labels = {name: value for name, value in truth.items() if name != "broken.jpg"}
    pq.write_table(
        pa.table({"key": list(labels), **{s: list(labels.values()) for s in PAIR}}), tmp_path / "labels.parquet"
    )
    done = command("evaluate", run.path, tmp_path / "labels.parquet")
    assert "unscored: of the labelled; of all samples 1" in done.stdout


@pytest.mark.parametrize("words", [("yes", "no"), ("True", "False"), ("1", "0"), ("Y", "n")], ids="-".join)
def test_csv_is_read_as_parquet_is(place: Path, words: tuple[str, str]) -> None:
    """Labels as people write them, for a part of the samples, and keys that look like numbers."""
    rows = pq.read_table(place / "labels.parquet").to_pydict()
    keys = [f"{number:05d}" for number in range(2000)]
    scores = pq.read_table(place / "scores.parquet").append_column("key", pa.array(keys))
    pq.write_table(scores, place / "scores.parquet")
    with (place / "labels.csv").open("w") as file:
        file.write("key,minor,explicit,family\n")
        for key, minor, explicit, family in zip(keys, rows["minor"], rows["explicit"], rows["family"], strict=True):
            file.write(f"{key},{words[not minor]},{words[not explicit] if int(key) < 500 else ''},{family}\n")
    pq.write_table(
        pa.table({"key": keys, "minor": rows["minor"], "explicit": [*rows["explicit"][:500], *[None] * 1500]}),
        place / "labels.parquet",
    )
    measured, expected = (
        command("evaluate", place / "scores.parquet", place / f"labels.{form}", "--json").json
        for form in ("csv", "parquet")
    )
    assert measured == expected
    assert (measured["labelled"], measured["samples"]) == (2000, 2000)
    assert [measured["signals"][signal]["labelled"] for signal in PAIR] == [500, 2000]
    assert measured["rule"]["labelled"] < 2000
    policy = ["--max-miss-rate", "0.05", "--out", place / f"{words[0]}.toml"]
    command("calibrate", place / "scores.parquet", place / "labels.csv", *policy, "--group-column", "family", "--json")


def test_scores_may_be_csv_too(place: Path) -> None:
    from pyarrow import csv

    csv.write_csv(pq.read_table(place / "scores.parquet"), place / "scores.CSV")
    found = [
        command("evaluate", place / name, place / "labels.parquet", "--json").json["rule"]["true_positives"]
        for name in ("scores.CSV", "scores.parquet")
    ]
    assert found[0] == found[1] > 0


def test_the_table_says_how_many_are_labelled(place: Path) -> None:
    table = pq.read_table(place / "labels.parquet").select(["minor"])
    few = pa.table({"minor": [*table["minor"].to_pylist()[:40], *[None] * 1960]})
    pq.write_table(few, place / "few.parquet")
    done = command("evaluate", place / "scores.parquet", place / "few.parquet")
    assert "40 labelled of 2,000 samples" in done.stdout


def test_plots_are_written_once(place: Path) -> None:
    evaluate = ["evaluate", place / "scores.parquet", place / "labels.parquet", "--plot", place / "plots", "--json"]
    names = command(*evaluate).json["plots"]
    kinds = ("precision-recall", "reliability", "scores", "trade-off")
    assert sorted(names) == sorted([f"{kind}-{signal}.png" for kind in kinds for signal in PAIR] + ["pair.png"])
    assert {path.name for path in (place / "plots").iterdir()} == set(names)
    for path in (place / "plots").iterdir():
        with Image.open(path) as image:
            assert image.convert("L").getextrema() == (0, 255)
    again = command(*evaluate)
    assert (again.status, again.stdout) == (1, "")
    assert "give a new or empty directory for the plots" in again.message


@pytest.mark.parametrize("name", ["part-00000.parquet", ".unfinished-part.parquet"])
def test_a_part_of_a_run_is_not_taken_for_its_scores(run: Run, tmp_path: Path, name: str) -> None:
    shutil.copy(Path(run.path) / "scores" / "part-00000.parquet", tmp_path / name)
    digests = pq.read_table(tmp_path / name)["key_digest"]
    labels = {signal: [row % 2 for row in range(len(digests))] for signal in PAIR}
    pq.write_table(pa.table({"key_digest": digests, **labels}), tmp_path / "labels.parquet")
    done = command("evaluate", tmp_path / name, tmp_path / "labels.parquet")
    assert (done.status, done.stdout) == (1, "")
    assert "is a part of a run, finished or not, and says nothing of the rest; give the run directory" in done.message
