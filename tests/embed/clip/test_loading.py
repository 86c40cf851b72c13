"""Names of models: tags, files, folders, and the names that installed packages give."""

import shutil
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.clip import names
from safetyfilter.errors import QuickGELUMismatchError, UnknownEncoderError, UsageError, WeightsError
from safetyfilter.standin import ENCODER
from tests.conftest import photograph
from tests.embed.models import PREPROCESS, TINY, list_tiny, tiny_model


def test_a_checkpoint_file_of_a_listed_architecture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    encoder = ClipEncoder.load("ViT-B-32-quickgelu", pretrained=tmp_path / "weights.pt", device="cpu", precision="fp32")
    assert (encoder.spec.architecture, encoder.spec.width) == ("ViT-B-32-quickgelu", 512)
    image = photograph("chelsea.png")
    transform = open_clip.image_transform(224, is_train=False)
    with torch.no_grad():
        expected = model.encode_image(transform(image)[None], normalize=True)
    np.testing.assert_allclose(encoder.embed([image], EmbedOptions(decode="exact")).vectors, expected, atol=1e-5)
    with pytest.raises(WeightsError, match="can't load the weights"):
        ClipEncoder.load("ViT-S-32-alt", pretrained=tmp_path / "weights.pt", device="cpu")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    with pytest.raises(QuickGELUMismatchError, match="'ViT-B-32-quickgelu'"):
        ClipEncoder.load("ViT-B-32", pretrained=tmp_path / "weights.pt", device="cpu")


@pytest.mark.parametrize(
    ("model", "pretrained", "right"),
    [
        ("ViT-L-14", "openai", "ViT-L-14-quickgelu"),
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
    ],
)
def test_quick_gelu_mismatch_names_the_right_model(model: str, pretrained: str, right: str) -> None:
    with pytest.raises(QuickGELUMismatchError, match=f"load '{right}' instead"):
        ClipEncoder.load(model, pretrained=pretrained)


@pytest.mark.parametrize(
    ("model", "pretrained", "match"),
    [
        ("ViT-L14", "openai", "did you mean ViT-L-14"),
        ("ViT-B-32-quickgelu", "no-such-tag", "its tags are"),
        ("s3:bucket", None, "unknown model"),
        ("local-dir:somewhere", "openai", "leave `pretrained` out"),
    ],
)
def test_unknown_models(model: str, pretrained: str | None, match: str) -> None:
    with pytest.raises(UnknownEncoderError, match=match):
        ClipEncoder.load(model, pretrained=pretrained)


def test_weights_that_cant_be_had(tmp_path: Path, tiny_clip: Path) -> None:
    with pytest.raises(WeightsError, match="local-dir: takes a folder"):
        ClipEncoder.load(f"local-dir:{tmp_path}/none")
    shutil.copy(tiny_clip / "open_clip_config.json", tmp_path)
    with pytest.raises(WeightsError, match="can't load the weights"):
        ClipEncoder.load(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="checkpoint file"):
        ClipEncoder.load(f"local-dir:{tmp_path}")


def test_the_only_tag_of_an_architecture_is_its_default(tmp_path: Path, monkeypatch) -> None:
    """roberta-ViT-B-32 computes QuickGELU, and its only tag does not note it again."""
    torch.save(tiny_model().state_dict(), tmp_path / "w.pt")
    tag = {**PREPROCESS, "file": str(tmp_path / "w.pt")}
    list_tiny(monkeypatch, "tiny", TINY | {"quick_gelu": True}, only=tag)
    assert names.default_tag("roberta-ViT-B-32") == "laion2b_s12b_b32k"
    assert ClipEncoder.load("tiny", device="cpu").spec == ClipEncoder.load("tiny", pretrained="only", device="cpu").spec
    list_tiny(monkeypatch, "tiny", one=tag, other=tag)
    with pytest.raises(UnknownEncoderError, match=r"several weights.*one of one, other"):
        ClipEncoder.load("tiny", device="cpu")
    with pytest.raises(UnknownEncoderError, match="lists no weights of ViT-S-32; give a checkpoint file"):
        ClipEncoder.load("ViT-S-32", device="cpu")


def test_what_open_clip_lists_is_loaded_as_open_clip_does(tmp_path: Path, monkeypatch) -> None:
    torch.save(tiny_model().state_dict(), tmp_path / "w.pt")
    larger = TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": 64}}
    list_tiny(monkeypatch, "tiny-64", larger, tag={**PREPROCESS, "file": str(tmp_path / "w.pt")})
    encoder = ClipEncoder.load("tiny-64", device="cpu", precision="fp32")
    model, _, transform = open_clip.create_model_and_transforms("tiny-64", pretrained="tag")
    image = photograph("rocket.jpg")
    with torch.no_grad():
        expected = model.eval().encode_image(transform(image)[None], normalize=True)
    np.testing.assert_allclose(encoder.embed([image], EmbedOptions(decode="exact")).vectors, expected, atol=2e-6)


def test_a_path_is_a_file_and_a_text_a_tag_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(tiny_model(seed=1).state_dict(), "tag")
    torch.save(tiny_model(seed=2).state_dict(), "other.pt")
    list_tiny(monkeypatch, tag={**PREPROCESS, "file": str(tmp_path / "other.pt")})
    digests = [
        ClipEncoder.load("tiny", pretrained=given, device="cpu").spec.weights_sha256
        for given in ("tag", "other.pt", Path("tag"))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_stand_in_encoder_goes_by_the_name_that_its_package_gives() -> None:
    assert names.resolved("stand-in") == ENCODER
    encoder = ClipEncoder.load("stand-in", device="cpu")
    assert encoder.spec == ClipEncoder.load(ENCODER, device="cpu").spec == encoder.on("cpu").spec
    with pytest.raises(UnknownEncoderError, match="did you mean stand-in"):
        ClipEncoder.load("standin")


class Package(Distribution):
    """An installed package with entry points for encoders."""

    def __init__(self, **values: str) -> None:
        self._values = values

    @property
    def entry_points(self) -> EntryPoints:
        return EntryPoints(EntryPoint(n, v, names.ENTRY_POINTS) for n, v in self._values.items())

    def read_text(self, filename: str) -> None:
        return None

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


def test_any_package_can_name_encoders(monkeypatch) -> None:
    here, module = Package(ours="safetyfilter.standin:ENCODER"), "safetyfilter.standin:WEIGHTS"
    monkeypatch.setattr(names, "distributions", lambda: [here, Package(ours="none:none", bad=module, RN50=module)])
    assert names.resolved("ours") == ENCODER  # the first in the search path
    assert names.resolved("RN50") == "RN50"  # a listed name is open_clip's
    with pytest.raises(UsageError, match=r"'bad' is a PosixPath in safetyfilter\.standin:WEIGHTS"):
        ClipEncoder.load("bad")
    with pytest.raises(UnknownEncoderError, match="installed packages name RN50, bad, ours"):
        ClipEncoder.load("theirs")
