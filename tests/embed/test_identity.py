"""The identity of encoders: one for each name of the same weights, another for all that changes embeddings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from safetyfilter import ClipEncoder, EncoderSpec, LinearProbe, ProbeBank
from safetyfilter.embed.clip.configuration import config_digest
from safetyfilter.errors import EncoderMismatchError
from safetyfilter.score.laion_encoders import ENCODERS
from tests.embed.models import PREPROCESS, TINY, list_tiny, tiny_model, write_config

RECORDED: dict[str, Any] = {
    "architecture": "custom-355a4ef7afc4",
    "weights_sha256": "4a5f8d19d775b0c240046c8715a38caa824822c6dded9a4ac65f3756ec3fef56",
    "image_size": [80, 80],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "width": 128,
    "digest": "b65b04ae84a5b5dae04fbdcbfcec497eb2bb2d7292d452abefb856649868764c",
}
"""The stand-in encoder, as a run of version 0.2.0 names it."""
FORMER = EncoderSpec.from_dict(RECORDED)


@pytest.fixture
def named(tmp_path: Path, monkeypatch) -> dict[str, dict[str, Any]]:
    """Every way to load the same weights, as arguments of `ClipEncoder.load`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write_config(tmp_path / "folder")
    weights = {name: value.contiguous() for name, value in tiny_model().state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    repository = tmp_path / "cache" / "models--some--tiny"
    shutil.copytree(folder, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    list_tiny(monkeypatch, tag={**PREPROCESS, "file": str(folder / "open_clip_model.safetensors")})
    (tmp_path / "elsewhere").mkdir()
    torch.save(weights, tmp_path / "elsewhere" / "epoch_3.pt")
    return {
        "folder": {"model": f"local-dir:{folder}"},
        "hub": {"model": "hf-hub:some/tiny", "cache_dir": tmp_path / "cache"},
        "tag": {"model": "tiny", "pretrained": "tag"},
        "only tag": {"model": "tiny"},
        "file with its configuration": {"model": "tiny", "pretrained": folder / "open_clip_model.safetensors"},
        "bare file": {"model": "tiny", "pretrained": tmp_path / "elsewhere" / "epoch_3.pt"},
    }


def test_the_same_weights_are_one_encoder_by_each_name(named: dict[str, dict[str, Any]]) -> None:
    specs = {way: ClipEncoder.load(**arguments, device="cpu").spec for way, arguments in named.items()}
    assert len({spec.digest for spec in specs.values()}) == 1
    assert len(set(specs.values())) == 1
    assert {spec.architecture for spec in specs.values()} == {"tiny", specs["folder"].architecture}
    wrapped = tiny_model()
    open_clip.model.set_model_preprocess_cfg(wrapped, {**PREPROCESS, "size": 32})
    for arguments in ({"architecture": "tiny"}, {"architecture": "mine", "config": TINY}):
        assert ClipEncoder(wrapped, device="cpu", precision="fp32", **arguments).spec in set(specs.values())
    assert ClipEncoder(wrapped, device="cpu", architecture="mine").spec not in set(specs.values())


def test_probes_go_with_each_name(named: dict[str, dict[str, Any]]) -> None:
    first, *others = (ClipEncoder.load(**arguments, device="cpu").spec for arguments in named.values())
    probe = LinearProbe(signal="explicit", weight=torch.ones(32).numpy(), bias=0.0, encoder=first.digest)
    for spec in others:
        assert ProbeBank([probe]).bind(spec).digests == (probe.digest,)


def test_an_encoder_on_the_hub_reads_all_of_it_from_the_cache_folder(named: dict[str, dict[str, Any]]) -> None:
    encoder = ClipEncoder.load(**named["hub"], device="cpu")
    by_folder = ClipEncoder.load(**named["folder"], device="cpu")
    assert (encoder.embed_text(["a boat"]) == by_folder.embed_text(["a boat"])).all()
    assert encoder.on("cpu").spec == encoder.spec


@pytest.mark.parametrize(
    "change",
    [
        {"quick_gelu": True},
        {"vision_cfg": TINY["vision_cfg"] | {"pool_type": "avg"}},
        {"vision_cfg": TINY["vision_cfg"] | {"final_ln_after_pool": True}},
        {"vision_cfg": TINY["vision_cfg"] | {"head_width": 16}},
        {"vision_cfg": TINY["vision_cfg"] | {"norm_kwargs": {"eps": 1e-3}}},
        {"text_cfg": TINY["text_cfg"] | {"pool_type": "last"}},
    ],
    ids=str,
)
def test_what_the_configuration_changes_is_another_encoder(named: dict[str, Any], change: dict[str, Any]) -> None:
    plain = ClipEncoder.load(**named["folder"], device="cpu").spec
    folder = Path(named["folder"]["model"].removeprefix("local-dir:"))
    write_config(folder, TINY | change)
    other = ClipEncoder.load(**named["folder"], device="cpu").spec
    assert other.weights_sha256 == plain.weights_sha256
    assert other.digest != plain.digest


@pytest.mark.parametrize(
    "change",
    [
        {"quick_gelu": False},
        {"init_logit_scale": 1.0},
        {"vision_cfg": TINY["vision_cfg"] | {"pool_type": "tok", "patch_dropout": 0.5}},
        {"text_cfg": TINY["text_cfg"] | {"hf_tokenizer_name": None, "mlp_ratio": 4}},
    ],
    ids=str,
)
def test_what_changes_no_embedding_does_not(change: dict[str, Any]) -> None:
    assert config_digest(TINY | change) == config_digest(TINY)


@pytest.mark.parametrize("value", [{"fill_color": 9, "resize_mode": "longest"}, {"interpolation": "bilinear"}])
def test_preprocessing_is_part_of_it(named: dict[str, dict[str, Any]], value: dict[str, Any]) -> None:
    folder = Path(named["folder"]["model"].removeprefix("local-dir:"))
    plain = ClipEncoder.load(**named["folder"], device="cpu").spec
    write_config(folder, preprocess=PREPROCESS | value)
    assert ClipEncoder.load(**named["folder"], device="cpu").spec.digest != plain.digest


def test_a_model_of_another_activation_is_another_encoder_under_the_same_name(monkeypatch) -> None:
    list_tiny(monkeypatch)
    digests = set()
    for quick in (False, True):
        model = tiny_model(TINY | {"quick_gelu": quick})
        open_clip.model.set_model_preprocess_cfg(model, {**PREPROCESS, "size": 32})
        digests.add(ClipEncoder(model, architecture="tiny", device="cpu").spec.digest)
    assert len(digests) == 2


def test_specifications_of_version_0_2_0_are_read_and_recognised() -> None:
    assert json.loads(json.dumps(FORMER.as_dict())) == RECORDED
    now = ClipEncoder.load("stand-in", device="cpu").spec
    assert now.digest != RECORDED["digest"]
    assert now.is_named_by(RECORDED["digest"])
    assert not replace(now, fill_color=9).is_named_by(RECORDED["digest"])


def test_probes_of_version_0_2_0_are_bound_to_the_encoder_as_it_is_named_now() -> None:
    now = ClipEncoder.load("stand-in", device="cpu").spec
    probe = LinearProbe(signal="explicit", weight=torch.ones(128).numpy(), bias=0.0, encoder=FORMER.digest)
    assert ProbeBank([probe]).bind(now).probes[0].encoder == now.digest
    with pytest.raises(EncoderMismatchError, match=FORMER.digest[:12]):
        ProbeBank([probe]).bind(replace(now, weights_sha256="0" * 64))


def test_the_configurations_of_laions_encoders_are_open_clips() -> None:
    for encoder in ENCODERS.values():
        assert config_digest(open_clip.get_model_config(encoder.architecture)) == encoder.config_sha256
