"""Probe files: they come back equal with their pair, and anything else is refused with one kind of error."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from safetyfilter.errors import OutputError, ProbeError, SchemaError
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.files import read_probes, write_probes
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.linear import LinearProbe
from safetyfilter.signals import PAIR, SignalPair

SHAPES = SignalPair(explicit="circle", minor="square", notice="shapes only")
CARD = ProbeCard(method="zero-shot", created="2026-01-01", thresholds={"0.99": 0.25})
PROBES = [
    LinearProbe(signal="explicit", weight=np.arange(8, dtype=np.float32), bias=0.25, encoder="e" * 64, card=CARD),
    LinearProbe(signal="minor", weight=np.ones(8, np.float32), bias=-1.5, encoder="e" * 64),
]
HEADER = {"kind": "safetyfilter-linear-probes", "schema": "1", "encoder": "e", "signals": json.dumps(["a"])}
WEIGHT = {"weight": np.zeros((1, 2), np.float32), "bias": np.zeros(1)}


@pytest.mark.parametrize("pair", [PAIR, replace(PAIR, notice="of a stand-in"), SHAPES])
def test_files_come_back_equal(tmp_path, pair: SignalPair) -> None:
    bank = ProbeBank([replace(one, signal=name) for one, name in zip(PROBES, pair.names, strict=True)], pair)
    bank.save(tmp_path / "p.safetensors")
    again = ProbeBank.load(tmp_path / "p.safetensors")
    assert again.digests == bank.digests
    assert [p.card for p in again.probes] == [p.card for p in bank.probes]
    assert (again.pair, again.pair.notice) == (pair, pair.notice)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_the_real_pair_is_not_written(tmp_path) -> None:
    for name, pair in (("real", PAIR), ("shapes", SHAPES)):
        write_probes(tmp_path / name, PROBES, pair)
        with safe_open(tmp_path / name, framework="numpy") as file:
            assert ("pair" in file.metadata()) == (pair == SHAPES)


def test_files_lie_on_any_storage() -> None:
    write_probes("memory://probes/p.safetensors", PROBES)
    assert ProbeBank.load("memory://probes/p.safetensors").digests == ProbeBank(PROBES).digests


@pytest.mark.parametrize(
    "content", [b"", b"x" * 200, b"\xff" * 8, b"\2\0\0\0\0\0\0\0[]", b"\2\0\0\0\0\0\0\0{}", b"\0" * 8]
)
def test_other_bytes(tmp_path, content: bytes) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(content)
    with pytest.raises(ProbeError, match=r"damaged|holds no probes"):
        ProbeBank.load(path)


@pytest.mark.parametrize("end", [100, -4, -1])
def test_truncated_files(tmp_path, end: int) -> None:
    path = tmp_path / "p.safetensors"
    write_probes(path, PROBES)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ProbeError, match="damaged"):
        ProbeBank.load(path)


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ({}, ProbeError, "holds no probes"),
        (HEADER | {"kind": "weights"}, ProbeError, "its kind is weights"),
        (HEADER | {"schema": "99"}, SchemaError, "schema 99, this version reads 1"),
        (HEADER, ProbeError, "'cards'; the file is damaged"),
        (HEADER | {"cards": "["}, ProbeError, "damaged"),
        (HEADER | {"cards": "[" * 50_000}, ProbeError, "nested too deeply; the file is damaged"),
        (HEADER | {"cards": "[null]", "pair": "[" * 50_000}, ProbeError, "nested too deeply"),
        (HEADER | {"cards": "[null, null]"}, ProbeError, "damaged"),
        (HEADER | {"cards": '[{"figure": 1}]'}, ProbeError, "damaged"),
        (HEADER | {"cards": "[null]", "pair": "[]"}, ProbeError, "damaged"),
        (HEADER | {"cards": "[null]", "pair": '{"explicit": "a", "minor": "a"}'}, ProbeError, "two different names"),
        (HEADER | {"cards": "[null]", "inputs": "text"}, ProbeError, "image or image"),
    ],
)
def test_bad_headers(tmp_path, header: dict[str, str], error: type[Exception], message: str) -> None:
    path = tmp_path / "p.safetensors"
    save_file(WEIGHT, path, metadata=header)
    with pytest.raises(error, match=message):
        ProbeBank.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": "-"},
        {"layers": "1000000000"},
        {"layers": "1"},
        {"columns": "[7]"},
        {"columns": "3"},
        {"columns": '["3"]'},
        {"provenance": "{}"},
        {"columns": "[" * 50_000},
        {"provenance": "[" * 50_000, "licence": ""},
        {"provenance": '{"more": 1}', "licence": ""},
    ],
)
def test_bad_headers_of_a_detector(tmp_path, detector: LaionDetector, changes: dict[str, str]) -> None:
    tensors, header = LaionDetector.pack([detector])
    header |= {"kind": LaionDetector.kind, "schema": "1"}
    path = tmp_path / "p.safetensors"
    save_file(tensors, path, metadata=header)
    assert ProbeBank.load(path).digests == (detector.digest,)
    save_file(tensors, path, metadata=header | changes)
    with pytest.raises(ProbeError, match="damaged"):
        ProbeBank.load(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=9))
def test_no_damage_raises_anything_else(tmp_path, at: int, new: bytes) -> None:
    path = tmp_path / "p.safetensors"
    write_probes(path, PROBES, SHAPES)
    whole = path.read_bytes()
    at %= len(whole)
    path.write_bytes(whole[:at] + new + whole[at + len(new) :])
    try:
        read_probes(path)
    except (ProbeError, SchemaError):
        return


def test_a_type_of_number_that_numpy_does_not_have(tmp_path) -> None:
    header = json.dumps({"weight": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "p.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(ProbeError, match="damaged"):
        read_probes(path)


def test_places(tmp_path) -> None:
    with pytest.raises(ProbeError, match="there is no probe file"):
        ProbeBank.load(tmp_path / "p.safetensors")
    with pytest.raises(ProbeError, match="can't read the probes"):
        read_probes(tmp_path)
    with pytest.raises(ProbeError, match="can't read the probes"):
        read_probes(tmp_path / "p.safetensors")
    with pytest.raises(OutputError, match="choose a writable place"):
        ProbeBank(PROBES).save(tmp_path / "missing" / "p.safetensors")


def test_a_file_holds_probes_with_the_same_inputs(tmp_path) -> None:
    joint = LinearProbe(
        signal="minor", weight=np.ones(16, np.float32), bias=0, encoder="e" * 64, inputs="image+caption"
    )
    ProbeBank([joint]).save(tmp_path / "p.safetensors")
    assert ProbeBank.load(tmp_path / "p.safetensors").inputs == "image+caption"
    with pytest.raises(ProbeError, match="files of their own"):
        ProbeBank([joint, PROBES[0]]).save(tmp_path / "q.safetensors")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><title>404</title>", "saved web page"),
        (b'{"error": "gone"}', "a JSON file"),
    ],
)
def test_what_came_in_the_place_of_a_probe_file_is_told(tmp_path, content: bytes, match: str) -> None:
    (tmp_path / "p.safetensors").write_bytes(content)
    with pytest.raises(ProbeError, match=match):
        ProbeBank.load(tmp_path / "p.safetensors")
