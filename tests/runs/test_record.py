"""``run.json``: read back as it was written, and a damaged one is told by file and field."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest

from safetyfilter import EmbedOptions, Policy, Run, SignalPair
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import RunError, SchemaError
from safetyfilter.runs.record import COUNT_NAMES, RunRecord, RunSetup, SourceRecord
from safetyfilter.signals import PAIR

SETUP = RunSetup(
    encoder=EncoderSpec(
        architecture="ViT-B-32",
        weights_sha256="ab" * 32,
        image_size=(224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bicubic",
        resize_mode="shortest",
        width=512,
    ),
    pair=PAIR,
    probes=("cd" * 32,),
    signals=("explicit", "minor"),
    views="whole",
    decode="fast",
    precision="float32",
    limits=DecodeLimits(max_frames=1),
)
RECORD = RunRecord(
    created="2026-01-02T03:04:05+00:00",
    run_id="ee" * 16,
    setup=SETUP,
    policy=Policy.preset("strict"),
    source=SourceRecord(kind="folder", keys="paths", location="aa", fingerprint="bb", parts=3),
    secret_check="cc",
    versions={"numpy": "2"},
)
COMPLETE = replace(
    RECORD,
    complete=True,
    scores="dd",
    decisions="ff",
    counts=dict.fromkeys(COUNT_NAMES, 0) | {"seen": 3, "kept": 1, "excluded": 2},
)


@pytest.mark.parametrize("record", [RECORD, COMPLETE], ids=["unfinished", "complete"])
def test_it_is_read_back_as_it_was_written(record: RunRecord) -> None:
    assert RunRecord.from_json(record.to_json(), "run.json") == record


def test_a_pair_of_stand_ins_says_so_plainly() -> None:
    pair = SignalPair(explicit="circle", minor="square", notice="These are shapes.")
    setup = replace(SETUP, pair=pair, signals=pair.names)
    text = replace(RECORD, setup=setup, policy=Policy().for_pair(pair)).to_json()
    assert json.loads(text)["notice"] == "These are shapes."
    assert RunRecord.from_json(text, "run.json").setup.pair.notice == "These are shapes."
    assert "notice" not in RECORD.to_json()


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_record_that_is_nested_too_deeply(depth: int) -> None:
    with pytest.raises(RunError, match=r"is not JSON \(it is nested too deeply\)"):
        RunRecord.from_json("[" * depth + "]" * depth, "RUN/run.json")


def test_a_byte_order_mark_before_a_record_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(COMPLETE.to_json(), encoding="utf-8-sig")
    assert Run.open(tmp_path).record == COMPLETE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created", 5),
        ("encoder", {"architecture": "x"}),
        ("encoder", None),
        ("pair", {"explicit": "a", "minor": "a"}),
        ("pair", {"left": "a"}),
        ("pair", {"explicit": "a", "minor": "b", "notice": 5}),
        ("probes", "abc"),
        ("probes", [1]),
        ("signals", None),
        ("views", None),
        ("limits", {"max_pixels": True}),
        ("policy", {"thresholds": {"explicit": 2.0, "minor": 0.5}, "exclude": [], "exclude_at": {}, "pair": {}}),
        ("policy", []),
        ("policy", Policy().as_dict() | {"calibration": {"version": "0.4.0"}}),
        ("source", {"kind": "folder"}),
        ("complete", 1),
        ("counts", {"seen": 3, "kept": "1", "excluded": 2}),
        ("counts", {"seen": 3, "kept": 1}),
        ("counts", {"seen": 3, "kept": 1, "excluded": 2}),
        ("run_id", None),
        ("versions", {"torch": 2}),
        ("versions", {"safetyfilter": None}),
        ("versions", ["torch"]),
        ("decisions", 1),
        ("counts", {**COMPLETE.counts, "excluded": 1}),
        ("counts", {**COMPLETE.counts, "kept": -1, "excluded": 4}),
        ("source", {"kind": "folder", "keys": "", "location": "", "fingerprint": "", "parts": -1}),
        ("limits", {field.name: 0 for field in dataclasses.fields(DecodeLimits)}),
        ("setup_digest", "ab" * 32),
        ("schema", "2"),
    ],
)
def test_a_damaged_field_is_named(field: str, value: object) -> None:
    data = json.loads(COMPLETE.to_json()) | {field: value}
    with pytest.raises(RunError, match=rf"RUN/run\.json: the field {field}") as caught:
        RunRecord.from_json(json.dumps(data), "RUN/run.json")
    assert "restore it, or remove the run" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("views", "multi"),
        ("signals", ["explicit", "minor", "more"]),
        ("probes", []),
        ("precision", "int8"),
        ("decode", ""),
        ("preparation", 0),
    ],
)
def test_a_setup_that_was_changed_is_told(field: str, value: object) -> None:
    data = json.loads(COMPLETE.to_json()) | {field: value}
    with pytest.raises(RunError, match="the field setup_digest is not that of the other fields"):
        RunRecord.from_json(json.dumps(data), "run.json")


@pytest.mark.parametrize(
    "change",
    [{"width": "x"}, {"image_size": None}, {"width": 4}, {"architecture": 5}, {"tag": ["x", 5]}, {"tag": {}}],
)
def test_an_encoder_that_was_changed_is_told(change: dict) -> None:
    data = json.loads(COMPLETE.to_json())
    data["encoder"] |= change
    with pytest.raises(RunError, match=r"run\.json: the field"):
        RunRecord.from_json(json.dumps(data), "run.json")


@pytest.mark.parametrize("field", sorted(set(json.loads(COMPLETE.to_json())) - {"scores_checks", "decisions_checks"}))
def test_a_missing_field_is_named(field: str) -> None:
    data = json.loads(COMPLETE.to_json())
    del data[field]
    with pytest.raises(RunError, match=f"the field {field}"):
        RunRecord.from_json(json.dumps(data), "run.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "5", "{", '"run"', "{}", "[" * 100_000])
def test_what_is_not_a_record(text: str) -> None:
    with pytest.raises(RunError, match=r"run\.json"):
        RunRecord.from_json(text, "run.json")


@pytest.mark.parametrize(
    ("schema", "remedy"), [(1, "scan into a new directory"), (2, "no probe saw"), (5, "install the version")]
)
def test_another_schema(schema: int, remedy: str) -> None:
    with pytest.raises(SchemaError, match=remedy):
        RunRecord.from_json(json.dumps({"schema": schema}), "run.json")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"views": "multi"}, "views"),
        ({"precision": "bfloat16"}, f"precision ({SETUP.precision} there, bfloat16 here)"),
        ({"limits": DecodeLimits()}, "limits"),
        ({"preparation": 0}, "preparation"),
        ({"probes": ("ef" * 32,)}, "probes"),
        ({"pair": SignalPair(explicit="a", minor="b")}, "pair"),
        ({"encoder": replace(SETUP.encoder, width=768)}, "encoder"),
    ],
)
def test_all_that_scores_depend_on_is_in_the_digest(change: dict, name: str) -> None:
    other = replace(SETUP, **change)
    assert other.digest != SETUP.digest
    assert SETUP.differing(other) == [name]


def test_each_option_of_embedding_is_in_the_setup_or_changes_no_score() -> None:
    options = {field.name for field in dataclasses.fields(EmbedOptions)}
    fixed = {"full_batches"}  # every scan sets it
    besides = {"batch_size", "workers", "decoders"} | fixed
    assert options - {field.name for field in dataclasses.fields(RunSetup)} == besides
    limits = {field.name for field in dataclasses.fields(DecodeLimits)}
    assert set(json.loads(COMPLETE.to_json())["limits"]) == limits


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DecodeLimits)])
def test_each_limit_is_in_the_digest(name: str) -> None:
    limits = replace(SETUP.limits, **{name: getattr(SETUP.limits, name) + 1})
    assert replace(SETUP, limits=limits).digest != SETUP.digest


def test_what_fills_a_picture_up_is_in_the_digest_and_read_back() -> None:
    setup = replace(SETUP, encoder=replace(SETUP.encoder, fill_color=9))
    assert setup.digest != SETUP.digest
    assert setup.differing(SETUP) == ["encoder"]
    assert RunRecord.from_json(replace(COMPLETE, setup=setup).to_json(), "r").setup == setup


@pytest.mark.parametrize(("minor", "warned"), [(0.5, False), (1.0, True)])
def test_a_policy_that_hardly_excludes_is_named_in_the_record(minor: float, warned: bool) -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": minor})
    data = json.loads(replace(COMPLETE, policy=policy).to_json())
    assert data.get("policy_warning") == policy.warning
    assert ("policy_warning" in data) == warned


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"created": "2027-01-02T03:04:05+00:00"}, True),
        ({"policy": Policy()}, False),
        ({"scores": "00"}, False),
        ({"decisions": "00"}, False),
        ({"run_id": "00"}, False),
    ],
)
def test_other_decisions_have_another_digest(change: dict, same: bool) -> None:
    assert (replace(COMPLETE, **change).decisions_digest == COMPLETE.decisions_digest) == same


@pytest.mark.parametrize("name", ["key_digest", "content_digest", "status", "known_hash"])
def test_a_signal_is_not_called_like_a_column_of_the_run(name: str) -> None:
    with pytest.raises(RunError, match="rename it"):
        replace(SETUP, signals=("explicit", "minor", name))


def test_the_error_of_a_run_names_its_file(tmp_path: Path) -> None:
    from safetyfilter import Run

    (tmp_path / "run.json").write_text(json.dumps(json.loads(RECORD.to_json()) | {"complete": "yes"}))
    with pytest.raises(RunError, match=rf"{tmp_path}/run\.json: the field complete is not true or false, but 'yes'"):
        Run.open(tmp_path)
