"""LAION's detectors as probes: the original's outputs, the encoder they fit, and their files."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save_file

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, ProbeError
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.convert.detector import read_detector
from safetyfilter.score.files import read_probes, write_probes
from safetyfilter.score.laion import DetectorCard, LaionDetector
from safetyfilter.score.laion_encoders import ENCODERS
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.probe import Probe
from tests.score.published_files import DATA, WHY, ZIPS, Network

COLUMNS = {"laion-l14": [180, 316, 413, 440, 644], "laion-b32": [92, 133, 312]}

OPENAI = EncoderSpec(
    architecture="ViT-B-32-quickgelu",
    weights_sha256="0" * 64,
    image_size=(224, 224),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    interpolation="bicubic",
    resize_mode="shortest",
    width=512,
)


@pytest.fixture(scope="module", params=list(ZIPS))
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, LaionDetector, dict[str, np.ndarray]]:
    """A published detector as a scan has it, written to a probe file and read again, and the original's outputs."""
    if not DATA.is_dir():
        pytest.skip(WHY)
    path = tmp_path_factory.mktemp("converted") / "p.safetensors"
    write_probes(path, [read_detector((DATA / ZIPS[request.param]).read_bytes())])
    ((detector,), _) = read_probes(path)
    reference = DATA / f"reference_{request.param.removeprefix('laion-')}.npz"
    with np.load(reference, allow_pickle=False) as arrays:
        return request.param, detector, dict(arrays)


@pytest.mark.parametrize("array", ["unit16", "vocab16", "randn", "edge"])
def test_the_network_is_the_original_on_finite_rows(case, array: str) -> None:
    _, detector, reference = case
    x, y = reference[f"{array}_x"].astype(np.float32), reference[f"{array}_y"]
    finite = np.isfinite(x).all(axis=1)
    scores = dataclasses.replace(detector, round_to_float16=False).score(x)
    np.testing.assert_allclose(scores[finite], y[finite], rtol=0, atol=1e-5)
    assert np.isnan(scores[~finite]).all()
    np.testing.assert_allclose(detector._forward(x), y, rtol=0, atol=1e-5)  # NaN for 0, as the original has it


@pytest.mark.parametrize("array", ["unit16", "vocab16"])
def test_float16_embeddings_score_as_in_the_original(case, array: str) -> None:
    _, detector, reference = case
    x, y = reference[f"{array}_x"].astype(np.float32), reference[f"{array}_y"]
    np.testing.assert_allclose(detector.score(x), y, rtol=0, atol=1e-5)


def test_the_common_port_decides_otherwise(case) -> None:
    name, detector, reference = case
    x = reference["vocab16_x"].astype(np.float32)
    port = dataclasses.replace(detector, vocabularies=())
    changed = ((port.score(x) >= 0.5) != (detector.score(x) >= 0.5)).sum()
    assert changed == {"laion-l14": 20, "laion-b32": 12}[name]
    assert port.digest != detector.digest


def test_published_columns(case) -> None:
    name, detector, _ = case
    assert [vocabulary.column for vocabulary in detector.vocabularies] == COLUMNS[name]


def test_it_computes_what_the_file_says(detector: LaionDetector, network: Network) -> None:
    x = network.vectors()
    expected = [network.output(vector) for vector in x]
    np.testing.assert_allclose(detector.score(x), expected, rtol=0, atol=1e-5)
    port = dataclasses.replace(detector, vocabularies=())
    assert np.abs(port.score(x) - expected).max() > 0.1
    assert [vocabulary.column for vocabulary in detector.vocabularies] == [3, 92, 133]


def test_embeddings_are_rounded_to_float16(detector: LaionDetector, network: Network) -> None:
    x = network.vectors()
    nudged = np.nextafter(x, np.float32(1)).astype(np.float32)
    np.testing.assert_array_equal(detector.score(nudged), detector.score(x))
    exact = dataclasses.replace(detector, round_to_float16=False)
    assert (exact.score(nudged) != exact.score(x)).any()


def test_what_float16_cannot_hold_is_unscored(detector: LaionDetector) -> None:
    x = np.full((3, 512), 512**-0.5, np.float32)
    x[1, 5], x[2, 92] = 1e6, np.nan
    assert np.isfinite(detector.score(x)).tolist() == [True, False, False]
    batch = EmbeddingBatch(vectors=x, encoder=OPENAI.digest)
    assert ProbeBank([detector]).bind(OPENAI).score(batch).failures == {1: "non_finite", 2: "non_finite"}


def test_it_is_a_probe_for_explicit(detector: LaionDetector) -> None:
    assert (detector.signal, detector.inputs, detector.width) == ("explicit", "image", 512)
    assert isinstance(detector, Probe)
    with pytest.raises(ProbeError, match="shape"):
        detector.score(np.zeros((2, 10), np.float32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "ViT-B-32"),
        ("architecture", "ViT-L-14-quickgelu"),
        ("width", 768),
        ("image_size", (336, 336)),
        ("mean", (0.5, 0.5, 0.5)),
        ("std", (0.5, 0.5, 0.5)),
        ("tag", "laion2b_s34b_b79k"),
    ],
)
def test_another_encoder_is_refused(detector: LaionDetector, field: str, value: object) -> None:
    detector.bind(OPENAI)
    with pytest.raises(EncoderMismatchError, match=ENCODERS[512].architecture):
        detector.bind(dataclasses.replace(OPENAI, **{field: value}))


def test_the_encoder_goes_by_any_name(detector: LaionDetector) -> None:
    wanted = ENCODERS[512].config_sha256
    spec = dataclasses.replace(OPENAI, architecture="custom-0123456789ab", config_sha256=wanted)
    assert detector.bind(spec).encoder == spec.digest
    bound_before = detector.bind(dataclasses.replace(OPENAI, architecture="ViT-B-32-quickgelu"))
    named = dataclasses.replace(OPENAI, config_sha256=wanted)
    assert bound_before.bind(named).encoder == named.digest  # a file of version 0.2.0 that was bound to it
    with pytest.raises(EncoderMismatchError, match=ENCODERS[512].architecture):
        detector.bind(dataclasses.replace(named, config_sha256=ENCODERS[768].config_sha256))


def test_it_serves_beside_another_probe_and_the_higher_score_counts(detector: LaionDetector) -> None:
    linear = [
        LinearProbe(signal=s, weight=np.eye(512, dtype=np.float32)[0], bias=0.0, encoder=OPENAI.digest)
        for s in ("explicit", "minor")
    ]
    vectors = np.random.default_rng(0).standard_normal((40, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    batch = EmbeddingBatch(vectors=vectors, encoder=OPENAI.digest)
    with pytest.raises(EncoderMismatchError, match="bind"):
        ProbeBank([detector, *linear]).score(batch)
    scores = ProbeBank([detector, *linear]).bind(OPENAI).score(batch)
    assert scores.signals == ("explicit", "minor")
    np.testing.assert_array_equal(scores["explicit"], np.maximum(detector.score(vectors), linear[0].score(vectors)))
    with pytest.raises(EncoderMismatchError):
        ProbeBank([detector, *linear]).bind(OPENAI).score(dataclasses.replace(batch, encoder="other"))


WRONG = {
    "output": lambda d: {"output": "logit"},
    "scale": lambda d: {"scale": d.scale[:-1]},
    "zero scale": lambda d: {"scale": np.zeros_like(d.scale)},
    "layers": lambda d: {"layers": d.layers[1:]},
    "two outputs": lambda d: {"layers": d.layers[:-1]},
    "not finite": lambda d: {"mean": np.full_like(d.mean, np.nan)},
    "float64": lambda d: {"mean": d.mean.astype(np.float64)},
    "column": lambda d: {"vocabularies": (dataclasses.replace(d.vocabularies[0], column=512),)},
}


@pytest.mark.parametrize("what", WRONG)
def test_arrays_that_do_not_fit_are_refused(detector: LaionDetector, what: str) -> None:
    with pytest.raises(ProbeError, match=r"layers|float32|outside|sigmoid or clipped"):
        dataclasses.replace(detector, **WRONG[what](detector))


@pytest.mark.parametrize(
    "changes", [{}, {"round_to_float16": False, "card": None, "vocabularies": ()}, {"output": "clipped"}]
)
def test_a_file_gives_the_same_detector(detector: LaionDetector, tmp_path, changes: dict[str, object]) -> None:
    card = DetectorCard(licence="a licence\nof two lines", source="s", sha256="a", converted="2026-01-01", version="1")
    written = dataclasses.replace(detector, **{"card": card} | changes)
    ProbeBank([written]).save(tmp_path / "p.safetensors")
    (read,) = ProbeBank.load(tmp_path / "p.safetensors").probes
    assert (read.digest, read.card) == (written.digest, written.card)
    assert read.encoder == ""
    bound = ProbeBank([written.bind(OPENAI)])
    bound.save(tmp_path / "bound.safetensors")
    assert ProbeBank.load(tmp_path / "bound.safetensors").probes[0].encoder == OPENAI.digest


def test_a_file_with_another_output_is_refused(detector: LaionDetector, tmp_path) -> None:
    tensors, header = LaionDetector.pack([detector])
    for output in ("logit", ""):
        save_file(
            tensors, tmp_path / "p.safetensors", header | {"kind": detector.kind, "schema": "1", "output": output}
        )
        with pytest.raises(ProbeError, match="the file is damaged"):
            ProbeBank.load(tmp_path / "p.safetensors")


def test_a_file_holds_one_detector_and_nothing_else(detector: LaionDetector, tmp_path) -> None:
    with pytest.raises(ProbeError, match="not 2"):
        ProbeBank([detector, detector]).save(tmp_path / "p.safetensors")
    linear = LinearProbe(signal="minor", weight=np.ones(512, np.float32), bias=0.0, encoder="e")
    with pytest.raises(ProbeError, match="LaionDetector, LinearProbe"):
        ProbeBank([detector, linear]).save(tmp_path / "p.safetensors")
    assert list(tmp_path.iterdir()) == []
