"""LAION's detectors: the original's outputs, and files that must be refused."""

import dataclasses
import hashlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, ProbeError
from safetyfilter.score import tensor_bundle
from safetyfilter.score.laion import ARCHITECTURES, KNOWN_SHA256, LaionDetector, VocabularyTable, load_laion_detector
from safetyfilter.score.probe import LinearProbe, Probe, ProbeBank

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "laion"
ZIPS = {"l14": "clip_autokeras_binary_nsfw.zip", "b32": "clip_autokeras_nsfw_b32.zip"}
COLUMNS = {"l14": [180, 316, 413, 440, 644], "b32": [92, 133, 312]}
ARRAYS = ("unit16", "vocab16", "randn", "edge")
INDEX, SHARD, MODEL = "variables/variables.index", "variables/variables.data-00000-of-00001", "saved_model.pb"

needs_laion = pytest.mark.skipif(not DATA.is_dir(), reason=f"LAION's detectors are not at {DATA}")

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


@pytest.fixture(scope="module", params=["l14", "b32"])
def case(request: pytest.FixtureRequest) -> tuple[str, LaionDetector, dict[str, np.ndarray]]:
    if not DATA.is_dir():
        pytest.skip(f"LAION's detectors are not at {DATA}")
    with np.load(DATA / f"reference_{request.param}.npz", allow_pickle=False) as reference:
        return request.param, load_laion_detector(DATA / ZIPS[request.param]), dict(reference)


@pytest.fixture(scope="module")
def b32() -> LaionDetector:
    return load_laion_detector(DATA / ZIPS["b32"])


@pytest.mark.parametrize("array", ARRAYS)
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


def test_embeddings_are_rounded_to_float16(case) -> None:
    _, detector, reference = case
    x = reference["vocab16_x"].astype(np.float32)
    nudged = np.nextafter(x, np.float32(1)).astype(np.float32)
    np.testing.assert_array_equal(detector.score(nudged), detector.score(x))


def test_what_float16_cannot_hold_is_unscored(b32: LaionDetector) -> None:
    x = np.zeros((3, 512), np.float32)
    x[1, 5], x[2, 92] = 1e6, np.nan
    assert np.isfinite(b32.score(x)).tolist() == [True, False, False]


def test_the_common_port_decides_otherwise(case) -> None:
    name, detector, reference = case
    x = reference["vocab16_x"].astype(np.float32)
    port = dataclasses.replace(detector, tables=())
    changed = ((port.score(x) >= 0.5) != (detector.score(x) >= 0.5)).sum()
    assert changed == {"l14": 20, "b32": 12}[name]
    assert port.digest != detector.digest


def test_columns_and_shape(case) -> None:
    name, detector, _ = case
    assert [table.column for table in detector.tables] == COLUMNS[name]
    assert detector.signal == "explicit"
    assert isinstance(detector, Probe)
    with pytest.raises(ProbeError, match="shape"):
        detector.score(np.zeros((2, 10), np.float32))


def test_printing_and_looking_up_agree() -> None:
    rng = np.random.default_rng(0)
    values = (
        np.concatenate(
            [
                rng.standard_normal(5000),
                rng.standard_normal(5000) * 1e-6,
                [0.0, -0.0, 5e-7, 1.5e-6, -5e-7, 65504.0, -1e-30],
            ]
        )
        .astype(np.float16)
        .astype(np.float32)
    )
    words = sorted({f"{value:f}" for value in values.tolist()}, key=hash)
    table = VocabularyTable.of(0, words)
    near = np.nextafter(values, np.float32(np.inf))
    for asked in (values, near, values * np.float32(1.0001)):
        place = {word: i for i, word in enumerate(words, start=1)}
        assert table.look_up(asked).tolist() == [place.get(f"{value:f}", 0) for value in asked.tolist()]


@pytest.mark.parametrize("words", [["0.5"], ["0.500000", "0.500000"], ["0.123456"], ["nan"], ["1e3"], [""]])
def test_words_that_are_no_vocabulary(words: list[str]) -> None:
    with pytest.raises(ProbeError, match="vocabulary"):
        VocabularyTable.of(0, words)


@needs_laion
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "ViT-B-32"),
        ("architecture", "ViT-L-14-quickgelu"),
        ("width", 768),
        ("image_size", (336, 336)),
        ("mean", (0.5, 0.5, 0.5)),
        ("std", (0.5, 0.5, 0.5)),
    ],
)
def test_another_encoder_is_refused(b32: LaionDetector, field: str, value: object) -> None:
    b32.bind(OPENAI)
    with pytest.raises(EncoderMismatchError, match=ARCHITECTURES[512]):
        b32.bind(dataclasses.replace(OPENAI, **{field: value}))


@needs_laion
def test_it_serves_beside_another_probe_and_the_higher_score_counts(b32: LaionDetector) -> None:
    linear = [
        LinearProbe(signal=s, weight=np.eye(512, dtype=np.float32)[0], bias=0.0, encoder=OPENAI.digest)
        for s in ("explicit", "minor")
    ]
    vectors = np.random.default_rng(0).standard_normal((40, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    batch = EmbeddingBatch(vectors=vectors, failures={}, encoder=OPENAI.digest)
    with pytest.raises(EncoderMismatchError, match="bind"):
        ProbeBank([b32, *linear]).score(batch)
    scores = ProbeBank([b32, *linear]).bind(OPENAI).score(batch)
    assert scores.signals == ("explicit", "minor")
    np.testing.assert_array_equal(scores["explicit"], np.maximum(b32.score(vectors), linear[0].score(vectors)))
    with pytest.raises(EncoderMismatchError):
        ProbeBank([b32, *linear]).bind(OPENAI).score(dataclasses.replace(batch, encoder="other"))


def members(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(DATA / ZIPS[name]) as archive:
        return {n.split("/", 1)[1]: archive.read(n) for n in archive.namelist() if not n.endswith("/")}


def packed(files: dict[str, bytes], root: str = "detector/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(root + name, content)
    return buffer.getvalue()


def with_bytes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


@needs_laion
def test_the_published_digests_are_checked(tmp_path: Path) -> None:
    for short, name in (("l14", "laion-l14"), ("b32", "laion-b32")):
        assert hashlib.sha256((DATA / ZIPS[short]).read_bytes()).hexdigest() == KNOWN_SHA256[name]
    path = tmp_path / "repacked.zip"
    path.write_bytes(packed(members("b32")))
    with pytest.raises(ProbeError, match="SHA-256"):
        load_laion_detector(path)
    assert load_laion_detector(path, verify=False).digest == load_laion_detector(DATA / ZIPS["b32"]).digest


BAD = {
    "truncated": lambda: (DATA / ZIPS["b32"]).read_bytes()[:100_000],
    "empty": lambda: b"",
    "another member": lambda: packed(members("b32") | {"evil.py": b"print()"}),
    "outside": lambda: packed(members("b32") | {"../variables/x": b""}),
    "absolute": lambda: packed(members("b32"), root="/"),
    "missing member": lambda: packed({n: c for n, c in members("b32").items() if n != INDEX}),
    "absurd ratio": lambda: packed(members("b32") | {"keras_metadata.pb": bytes(10_000_000)}),
    "too large": lambda: b"PK\x03\x04" + bytes(5 << 20),
    "compressed block": lambda: packed(members("b32") | {INDEX: compressed_block(members("b32")[INDEX])}),
    "no magic": lambda: packed(members("b32") | {INDEX: members("b32")[INDEX][:-1] + b"\0"}),
    "short index": lambda: packed(members("b32") | {INDEX: members("b32")[INDEX][-20:]}),
    "block checksum": lambda: packed(members("b32") | {INDEX: with_bytes(members("b32")[INDEX], 40, b"\xff")}),
    "tensor checksum": lambda: packed(members("b32") | {SHARD: with_bytes(members("b32")[SHARD], 5000, b"\x01\x02")}),
    "short shard": lambda: packed(members("b32") | {SHARD: members("b32")[SHARD][:3000]}),
    "no vocabulary": lambda: packed(members("b32") | {MODEL: b""}),
    "short graph": lambda: packed(members("b32") | {MODEL: members("b32")[MODEL][:500_000]}),
    "another's graph": lambda: packed(members("b32") | {MODEL: members("l14")[MODEL]}),
}


def compressed_block(index: bytes) -> bytes:
    """The index with its first data block marked as Snappy's, and the checksum made good."""
    size = index_block_sizes(index)[0]
    marked = index[:size] + b"\x01"
    return marked + struct.pack("<I", tensor_bundle.masked_crc32c(marked)) + index[size + 5 :]


def index_block_sizes(index: bytes) -> list[int]:
    footer = memoryview(index)[-48:]
    at, handle = 0, []
    for _ in range(4):
        value, at = tensor_bundle.read_varint(footer, at)
        handle.append(value)
    sizes = []
    for _, value in tensor_bundle._block(memoryview(index)[:-48], *handle[2:]):
        _, at = tensor_bundle.read_varint(memoryview(value), 0)
        sizes.append(tensor_bundle.read_varint(memoryview(value), at)[0])
    return sizes


@needs_laion
@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    path.write_bytes(BAD[what]())
    with pytest.raises(ProbeError, match="damaged"):
        load_laion_detector(path, verify=False)
    if what == "compressed block":
        with pytest.raises(ProbeError, match="compressed"):
            load_laion_detector(path, verify=False)


@needs_laion
def test_a_claimed_size_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(packed(members("b32")))
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 3_000_000_000)
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(ProbeError, match="claims 3,000,000,000 bytes"):
        load_laion_detector(tmp_path / "bad.zip", verify=False)


@needs_laion
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([INDEX, MODEL]), st.integers(0, 10**7), st.binary(min_size=1, max_size=12), st.data())
def test_no_damage_raises_anything_else(tmp_path: Path, name: str, at: int, new: bytes, data: st.DataObject) -> None:
    files = members("b32")
    content = files[name]
    places = [at % len(content), at % 1200, len(content) - 1 - at % 40]
    damaged = with_bytes(content, data.draw(st.sampled_from(places)), new)[: len(content)]
    (tmp_path / "fuzzed.zip").write_bytes(packed(files | {name: damaged}))
    try:
        detector = load_laion_detector(tmp_path / "fuzzed.zip", verify=False)
    except ProbeError:
        return
    assert detector.width == 512
    assert len(detector.tables) == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_a_bundle_or_refused(noise: bytes) -> None:
    footer = noise[:40].ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    with pytest.raises(ProbeError):
        tensor_bundle.read_index(noise + footer)


@pytest.mark.parametrize("message", [b"\x80", b"\xff" * 11, b"\x0a\x05ab", b"\x0b", b"\x00\x00", b"\x0d\x00"])
def test_bad_messages(message: bytes) -> None:
    with pytest.raises(ProbeError):
        list(tensor_bundle.fields(memoryview(message)))
