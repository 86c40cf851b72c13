"""Linear probes and their files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.errors import EncoderMismatchError, OutputError, ProbeError, SchemaError
from safetyfilter.score.probe import LinearProbe, Probe, ProbeBank, ProbeCard

RNG = np.random.default_rng(0)


def probe(signal: str = "explicit", width: int = 8, encoder: str = "e" * 64, **changes: object) -> LinearProbe:
    made = LinearProbe(
        signal=signal,
        weight=RNG.normal(size=width).astype(np.float32),
        bias=0.25,
        encoder=encoder,
        card=ProbeCard(method="zero-shot", created="2026-01-01"),
    )
    return replace(made, **changes)


def vectors(count: int = 5, width: int = 8) -> np.ndarray:
    raw = RNG.normal(size=(count, width)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=-1, keepdims=True)


def batch(values: np.ndarray, **changes: object) -> EmbeddingBatch:
    return EmbeddingBatch(**({"vectors": values, "failures": {}, "encoder": "e" * 64} | changes))


def test_one_product_gives_what_each_probe_gives() -> None:
    probes = [probe("explicit"), probe("minor"), probe("violence")]
    x = vectors(100)
    scores = ProbeBank(probes).score(batch(x))
    assert scores.signals == ("explicit", "minor", "violence")
    for one in probes:
        np.testing.assert_array_equal(scores[one.signal], one.score(x))
        expected = 1 / (1 + np.exp(-(x.astype(float) @ one.weight.astype(float) + one.bias)))
        np.testing.assert_allclose(scores[one.signal], expected, rtol=1e-6)
    assert isinstance(probes[0], Probe)


def test_a_score_does_not_depend_on_the_batch() -> None:
    bank, x = ProbeBank([probe("explicit", 512), probe("minor", 512)]), vectors(257, 512)
    whole = bank.score_vectors(x)
    np.testing.assert_array_equal(whole, np.concatenate([bank.score_vectors(x[i : i + 1]) for i in range(len(x))]))


def test_failed_rows_are_nan_and_extreme_ones_are_not() -> None:
    x = vectors(3)
    x[1] = np.nan
    big = ProbeBank([probe(weight=np.full(8, 1e30, np.float32))])
    scores = big.score(batch(x, failures={1: "truncated", 2: "late"}))
    assert np.isnan(scores.values[1:]).all()
    assert scores.values[0, 0] in (0, 1)
    assert scores.failures == {1: "truncated", 2: "late"}


def test_the_maximum_over_views() -> None:
    bank, x = ProbeBank([probe(), probe("minor")]), vectors(12).reshape(4, 3, 8)
    scores = bank.score_vectors(x)
    np.testing.assert_array_equal(scores, np.stack([bank.score_vectors(view) for view in x.swapaxes(0, 1)]).max(axis=0))
    x[2, 1] = np.nan
    assert np.isnan(bank.score_vectors(x)[2]).all()


def test_the_higher_of_two_probes_for_one_signal() -> None:
    first, second, x = probe(), probe(), vectors()
    bank = ProbeBank([first, probe("minor")]) + ProbeBank([second])
    assert bank.signals == ("explicit", "minor")
    np.testing.assert_array_equal(bank.score(batch(x))["explicit"], np.maximum(first.score(x), second.score(x)))


def test_another_encoders_embeddings_are_an_error(encoder) -> None:
    bank = ProbeBank([probe()])
    with pytest.raises(EncoderMismatchError, match=r"eeeeeeeeeeee.*ffffffffffff"):
        bank.score(batch(vectors(), encoder="f" * 64))
    with pytest.raises(EncoderMismatchError, match="make the probe anew"):
        bank.bind(encoder.spec)
    with pytest.raises(EncoderMismatchError, match="different encoders"):
        ProbeBank([probe(), probe("minor", encoder="f" * 64)])
    with pytest.raises(ProbeError, match="width 8, got an array"):
        bank.score_vectors(vectors(3, 9))


def test_bad_probes() -> None:
    for change in (
        {"weight": np.zeros((2, 2), np.float32)},
        {"weight": np.array([np.nan], np.float32)},
        {"bias": np.inf},
        {"signal": ""},
        {"weight": np.zeros(0, np.float32)},
    ):
        with pytest.raises(ProbeError):
            probe(**change)
    with pytest.raises(ProbeError, match="at least one"):
        ProbeBank([])
    with pytest.raises(ProbeError, match="different widths"):
        ProbeBank([probe(), probe("minor", 9)])


def test_files_come_back_equal(tmp_path) -> None:
    bank = ProbeBank([probe(), probe("minor", card=None)])
    bank.save(tmp_path / "p.safetensors")
    again = ProbeBank.load(tmp_path / "p.safetensors")
    assert again.digests == bank.digests
    assert [p.card for p in again.probes] == [p.card for p in bank.probes]
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_bad_files(tmp_path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(ProbeError, match="no probe file"):
        ProbeBank.load(path)
    ProbeBank([probe()]).save(path)
    whole = path.read_bytes()
    for damaged in (whole[:100], b"", b"x" * 200, whole[:-4]):
        path.write_bytes(damaged)
        with pytest.raises(ProbeError):
            ProbeBank.load(path)
    save_file({"weight": np.zeros((1, 2), np.float32)}, path)
    with pytest.raises(ProbeError, match="holds no probes"):
        ProbeBank.load(path)
    header = {"kind": "safetyfilter-linear-probes", "schema": "99", "encoder": "e", "signals": json.dumps(["a"])}
    save_file({"weight": np.zeros((1, 2), np.float32)}, path, metadata=header)
    with pytest.raises(SchemaError, match="schema 99"):
        ProbeBank.load(path)
    save_file({"weight": np.zeros((1, 2), np.float32)}, path, metadata=header | {"schema": "1"})
    with pytest.raises(ProbeError, match="damaged"):
        ProbeBank.load(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="choose a writable place"):
        ProbeBank([probe()]).save(tmp_path / "folder" / "missing" / "p.safetensors")
