"""Families of open_clip's architectures, small and with random weights: embeddings equal to open_clip's own."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions
from tests.conftest import PHOTOGRAPHS, photograph
from tests.embed.models import write_config

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}


def model(vision: dict[str, Any], text: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    return {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT | (text or {}), **others}


def timm(name: str, size: int, pool: str, proj: str | None = "linear", **others: Any) -> dict[str, Any]:
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": size}
    return model({"timm_model_pretrained": False, **vision}, custom_text=True, **others)


OPENAI = {"mean": [0.481, 0.458, 0.408], "std": [0.269, 0.261, 0.276], "interpolation": "bicubic"}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ViT": (model(VIT), OPENAI),
    "ViT of QuickGELU": (model(VIT, quick_gelu=True), OPENAI),
    "CLIPA": (
        model(VIT | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, {"pool_type": "last"}),
        HALF | {"interpolation": "bilinear"},
    ),
    "ResNet": (
        model({"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}, quick_gelu=True),
        OPENAI,
    ),
    "CoCa": (
        model(
            VIT | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            {"embed_cls": True, "output_tokens": True},
            multimodal_cfg=TEXT | {"attn_pooler_heads": 2},
            custom_text=True,
        ),
        OPENAI,
    ),
    "with fill": (model(VIT), OPENAI | {"resize_mode": "longest", "fill_color": 114}),
    "SigLIP": (timm("test_vit3", 160, "map", init_logit_bias=-10), HALF),
    "EVA02": (timm("eva02_tiny_patch14_224", 224, "token"), OPENAI),
    "PE-Core": (timm("vit_pe_core_tiny_patch16_384", 384, "map"), HALF | {"interpolation": "bilinear"}),
    "ConvNeXt": (timm("test_convnext", 64, "", "mlp"), OPENAI),
    "MobileCLIP": (timm("fastvit_t8", 64, "avg"), {"mean": [0] * 3, "std": [1] * 3, "interpolation": "bilinear"}),
    "relative positions": (timm("test_vit_relpos", 160, "avg"), OPENAI),
    "ResNet of timm": (timm("test_resnet", 64, "avg"), OPENAI),
    "ViTamin's kind": (timm("test_coatnet", 160, "avg"), HALF),
    "EfficientNet": (timm("test_efficientnet", 64, "rot_attn"), HALF),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_of_each_family_are_open_clips(tmp_path: Path, family: str) -> None:
    config, preprocess = FAMILIES[family]
    write_config(tmp_path, config, preprocess)
    torch.manual_seed(0)
    name = f"local-dir:{tmp_path}"
    made, _, transform = open_clip.create_model_and_transforms(name, load_weights=False)
    with torch.no_grad():  # as trained ones are, and unlike those made: no weight is 0, and no two statistics are equal
        for key, value in made.state_dict().items():
            if value.is_floating_point():  # open_clip leaves some of CoCa's as memory happens to be
                value.nan_to_num_(0, 0, 0).clamp_(-20, 20)
            if value.is_floating_point() and key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.add_(torch.randn_like(value) * 0.02)
    torch.save(made.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    images = [photograph(name) for name in PHOTOGRAPHS[:3]]
    with torch.no_grad():
        expected = made.eval().encode_image(torch.stack([transform(image) for image in images]), normalize=True)
        texts = made.encode_text(open_clip.get_tokenizer(name)(["a boat", "a cat"]), normalize=True)
    encoder = ClipEncoder.load(name, device="cpu", precision="fp32")
    vectors = encoder.embed(images, EmbedOptions(decode="exact")).vectors
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    np.testing.assert_allclose(encoder.embed_text(["a boat", "a cat"]), texts, atol=2e-6)
    half = ClipEncoder.load(name, device="cpu", precision="bf16").embed(images, EmbedOptions(decode="exact")).vectors
    assert (half * vectors).sum(axis=1).min() > 0.998
