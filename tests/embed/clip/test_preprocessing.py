"""The preprocessing of weights: by tag, by the configuration beside a file, by agreement, and by what users say."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder
from safetyfilter.embed.clip.configuration import read_configuration
from safetyfilter.embed.clip.preprocessing import Preprocessing, agreed_preprocessing, preprocessing_said
from safetyfilter.errors import QuickGELUMismatchError, UsageError, WeightsError
from tests.conftest import photograph
from tests.embed.models import PREPROCESS, TINY, list_tiny, tiny_model, write_config

OPENAI = Preprocessing()
SIGLIP = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize_mode="squash")


def cfg(preprocessing: Preprocessing, **others: Any) -> dict[str, Any]:
    """A tag's entry in open_clip's list."""
    values = asdict(preprocessing)
    del values["fill_color"]
    return {"url": "", "hf_hub": "", **values, **others}


def of(encoder: ClipEncoder) -> Preprocessing:
    return Preprocessing(**{name: getattr(encoder.spec, name) for name in asdict(OPENAI)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(tiny_model().state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("ViT-B-32", OPENAI),
        ("ViT-B-16-SigLIP", SIGLIP),
        (
            "PE-Core-B-16",
            Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", resize_mode="squash"),
        ),
        ("MobileCLIP-S1", Preprocessing(mean=(0,) * 3, std=(1,) * 3, interpolation="bilinear")),
        (
            "ViT-H-14-CLIPA",
            Preprocessing(
                mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", resize_mode="squash"
            ),
        ),
        ("ViT-H-14-378-quickgelu", Preprocessing(resize_mode="squash")),
        ("RN50", OPENAI),  # all of its tags are of QuickGELU, and agree
    ],
)
def test_what_an_architectures_tags_agree_on(architecture: str, expected: Preprocessing) -> None:
    assert agreed_preprocessing(architecture, quick_gelu=architecture.endswith("quickgelu")) == expected


@pytest.mark.parametrize(
    ("architecture", "quick_gelu", "match"),
    [
        ("ViT-L-14", False, "the tags of ViT-L-14 differ .*laion2b_s32b_b82k: mean .0.5,.*`preprocess`"),
        ("ViT-H-14-quickgelu", True, "differ .*dfn5b: .*resize_mode squash"),
        ("ViT-S-32", False, "lists no tag of ViT-S-32. Name it with `preprocess`: a tag such as 'openai'"),
    ],
)
def test_where_they_do_not_it_is_asked_for(architecture: str, quick_gelu: bool, match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        agreed_preprocessing(architecture, quick_gelu=quick_gelu)


def test_tag_and_file_of_the_same_weights_are_one_encoder(file: Path, monkeypatch) -> None:
    name = list_tiny(monkeypatch, siglip=cfg(SIGLIP, file=str(file)))
    by_tag = ClipEncoder.load(name, pretrained="siglip", device="cpu", precision="fp32")
    by_file = ClipEncoder.load(name, pretrained=file, device="cpu", precision="fp32")
    assert of(by_tag) == of(by_file) == SIGLIP
    assert by_tag.spec.digest == by_file.spec.digest
    image = photograph("chelsea.png")
    np.testing.assert_array_equal(by_tag.embed([image]).vectors, by_file.embed([image]).vectors)


@pytest.mark.parametrize(("preprocess", "expected"), [("openai", OPENAI), ({"mean": [0, 0, 0]}, None), (None, None)])
def test_where_tags_differ_the_user_says(file: Path, monkeypatch, preprocess: Any, expected: Any) -> None:
    name = list_tiny(monkeypatch, one=cfg(OPENAI), other=cfg(SIGLIP))
    if preprocess is None:
        with pytest.raises(WeightsError, match=r"can't load .*the tags of tiny differ \(one: .*; other: "):
            ClipEncoder.load(name, pretrained=file, device="cpu")
    else:
        encoder = ClipEncoder.load(name, pretrained=file, preprocess=preprocess, device="cpu")
        assert of(encoder) == (expected or Preprocessing(mean=(0, 0, 0)))
        assert encoder.on("cpu").spec == encoder.spec


def test_the_configuration_beside_a_file_counts_whole(file: Path, monkeypatch) -> None:
    name = list_tiny(monkeypatch, one=cfg(SIGLIP))
    wanted = PREPROCESS | {"resize_mode": "longest", "fill_color": 7, "interpolation": "bilinear"}
    write_config(file.parent, preprocess=wanted)
    assert of(ClipEncoder.load(name, pretrained=file, device="cpu")) == Preprocessing.of(wanted)
    assert ClipEncoder.load(f"local-dir:{file.parent}", device="cpu").spec.fill_color == 7
    write_config(file.parent, preprocess=False)
    assert of(ClipEncoder.load(name, pretrained=file, device="cpu")) == SIGLIP


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"quick_gelu": True}, QuickGELUMismatchError, "trained with QuickGELU"),
        ({"embed_dim": 64}, WeightsError, r"is not that of tiny: embed_dim \(64, not 32\)"),
        (
            {"vision_cfg": TINY["vision_cfg"] | {"pool_type": "avg"}},
            WeightsError,
            r"vision_cfg\.pool_type \('avg', not the default\)",
        ),
        (
            {"vision_cfg": TINY["vision_cfg"] | {"image_size": 64}},
            WeightsError,
            r"vision_cfg\.image_size \(64, not 32\).*local-dir:",
        ),
        ({"text_cfg": TINY["text_cfg"] | {"layers": 3}}, WeightsError, r"text_cfg\.layers \(3, not 1\)"),
    ],
)
def test_a_configuration_of_another_model_is_an_error(
    file: Path, monkeypatch, change: dict[str, Any], error: type[Exception], match: str
) -> None:
    write_config(file.parent, TINY | change)
    with pytest.raises(error, match=match):
        ClipEncoder.load(list_tiny(monkeypatch, one=cfg(OPENAI)), pretrained=file, device="cpu")


BROKEN: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "is not a configuration that can be read"),
    "no text": (b"\xff\xfe\x00", "is not a configuration that can be read"),
    "deep": (b"[" * 100_000, "is not a configuration that can be read"),
    "deep, with a mark": (b"\xef\xbb\xbf" + b"[" * 900 + b"]" * 900, "nested too deeply"),
    "a list": (b"[]", "has no model_cfg"),
    "null": (b"null", "has no model_cfg"),
    "a text for the model": (b'{"model_cfg": "ViT-B-32"}', "has no model_cfg"),
    "a list for a tower": (
        b'{"model_cfg": {"embed_dim": 3, "vision_cfg": [], "text_cfg": {}}}',
        "vision_cfg that is not",
    ),
    "a text for preprocessing": (b'{"model_cfg": {}, "preprocess_cfg": "openai"}', "preprocess_cfg that is not"),
}


def test_a_byte_order_mark_before_a_configuration_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": TINY}), encoding="utf-8-sig")
    assert read_configuration(path).model == TINY


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("way", ["beside a file", "local-dir"])
def test_a_broken_configuration_is_one_clear_error(file: Path, monkeypatch, kind: str, way: str) -> None:
    content, match = BROKEN[kind]
    (file.parent / "open_clip_config.json").write_bytes(content)
    name = list_tiny(monkeypatch, one=cfg(OPENAI))
    model, pretrained = (name, file) if way == "beside a file" else (f"local-dir:{file.parent}", None)
    with pytest.raises(WeightsError, match=rf"can't load the weights of .*open_clip_config\.json.*{match}"):
        ClipEncoder.load(model, pretrained=pretrained, device="cpu")


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ({"embed_dim": 32}, "has no vision_cfg and no text_cfg"),
        (TINY | {"vision_cfg": {"layer": 2}}, "vision_cfg with layer, which the installed open_clip does not know"),
        (TINY | {"vision_cfg": {"width": "wide"}}, "makes no model of its configuration"),
        (TINY | {"surplus": 1}, "makes no model of its configuration: .*surplus"),
    ],
)
def test_a_folders_configuration_makes_a_model(file: Path, model: dict[str, Any], match: str) -> None:
    write_config(file.parent, model)
    with pytest.raises(WeightsError, match=match):
        ClipEncoder.load(f"local-dir:{file.parent}", device="cpu")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"mean": [0, 0]}, "mean is .0, 0.; give three numbers"),
        ({"mean": 0.5}, "mean is 0.5"),
        ({"mean": [0, 0, float("nan")]}, "mean"),
        ({"std": [1, 1, 0]}, "three numbers above 0"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; give bicubic or bilinear"),
        ({"resize_mode": "crop"}, "resize_mode is 'crop'; give shortest or longest or squash"),
        ({"fill_color": 256}, "fill_color is 256; give a whole number from 0 to 255"),
        ({"fill_color": [0, 0, 0]}, "fill_color"),
        ({"mode": "L"}, "mode is 'L'"),
    ],
)
def test_a_folders_preprocessing_is_checked(file: Path, values: dict[str, Any], match: str) -> None:
    write_config(file.parent, preprocess=PREPROCESS | values)
    with pytest.raises(WeightsError, match=match):
        ClipEncoder.load(f"local-dir:{file.parent}", device="cpu")


def test_a_folder_without_preprocessing_takes_that_of_its_architecture_or_asks(file: Path, monkeypatch) -> None:
    write_config(file.parent, preprocess=False)
    with pytest.raises(WeightsError, match=r"has no preprocess_cfg.*`preprocess`, such as 'openai'"):
        ClipEncoder.load(f"local-dir:{file.parent}", device="cpu")
    assert of(ClipEncoder.load(f"local-dir:{file.parent}", preprocess="openai", device="cpu")) == OPENAI
    list_tiny(monkeypatch, one=cfg(SIGLIP))
    assert of(ClipEncoder.load(f"local-dir:{file.parent}", device="cpu")) == SIGLIP


def test_what_users_can_say(tmp_path: Path) -> None:
    assert preprocessing_said("openai", "ViT-S-32") == OPENAI
    assert preprocessing_said("webli", "ViT-S-32") == SIGLIP
    assert preprocessing_said("dfn5b", "ViT-H-14-quickgelu").resize_mode == "squash"
    write_config(tmp_path, preprocess={"mean": [0, 0, 0]})
    config = tmp_path / "open_clip_config.json"
    assert preprocessing_said(config, "x") == preprocessing_said(str(config), "x") == Preprocessing(mean=(0, 0, 0))
    for said, match in (("none", "not a tag that open_clip lists"), ({"size": 3}, "has no size; give mean, std")):
        with pytest.raises(UsageError, match=match):
            preprocessing_said(said, "ViT-S-32")
    write_config(tmp_path, preprocess=False)
    with pytest.raises(WeightsError, match="has no preprocess_cfg"):
        preprocessing_said(config, "x")


def test_a_published_file_is_known_by_its_digest_and_not_by_its_name(tmp_path: Path, monkeypatch) -> None:
    torch.save(tiny_model().state_dict(), tmp_path / "ViT-B-32.pt")
    list_tiny(monkeypatch, "tiny-quickgelu", TINY | {"quick_gelu": True})
    own = ClipEncoder.load(
        list_tiny(monkeypatch), pretrained=tmp_path / "ViT-B-32.pt", preprocess="openai", device="cpu"
    )
    assert own.spec.architecture == "tiny"  # own weights may be called as OpenAI's are
    digest = hashlib.sha256((tmp_path / "ViT-B-32.pt").read_bytes()).hexdigest()
    url = f"https://x.test/models/{digest}/ViT-B-32.pt"
    list_tiny(monkeypatch, one=cfg(OPENAI), published=cfg(SIGLIP, url=url, quick_gelu=True))
    with pytest.raises(QuickGELUMismatchError, match="load 'tiny-quickgelu' instead"):
        ClipEncoder.load("tiny", pretrained=tmp_path / "ViT-B-32.pt", device="cpu")
    encoder = ClipEncoder.load("tiny-quickgelu", pretrained=tmp_path / "ViT-B-32.pt", device="cpu")
    assert of(encoder) == SIGLIP


def test_open_clips_defaults_are_ours() -> None:
    assert Preprocessing.of(asdict(open_clip.transform.PreprocessCfg())) == OPENAI
