"""The weights of a small open_clip model as NeMo Curator's CLIP takes them, so that both embed alike."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.integrations.pictures import CONFIG

_NAMES = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
          "attn.out_proj": "self_attn.out_proj"}  # fmt: skip


def write_curator_weights(model_dir: Path, encoder: Path) -> None:
    """Write a model folder for `ImageEmbeddingStage` with the image tower of an open_clip model of `CONFIG`."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    vision, width = CONFIG["model_cfg"]["vision_cfg"], CONFIG["model_cfg"]["vision_cfg"]["width"]
    model = CLIPModel(
        CLIPConfig(
            projection_dim=CONFIG["model_cfg"]["embed_dim"],
            text_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={
                "hidden_size": width,
                "intermediate_size": 4 * width,
                "num_hidden_layers": vision["layers"],
                "num_attention_heads": width // vision["head_width"],
                "patch_size": vision["patch_size"],
                "image_size": vision["image_size"],
                "hidden_act": "quick_gelu",
            },
        )
    )
    ours = load_file(encoder / "open_clip_model.safetensors")
    tower = {name.removeprefix("visual."): value for name, value in ours.items() if name.startswith("visual.")}
    found = {
        "visual_projection.weight": tower["proj"].T,
        "vision_model.embeddings.class_embedding": tower["class_embedding"],
        "vision_model.embeddings.position_embedding.weight": tower["positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": tower["conv1.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"vision_model.pre_layrnorm.{kind}"] = tower[f"ln_pre.{kind}"]
        found[f"vision_model.post_layernorm.{kind}"] = tower[f"ln_post.{kind}"]
        for layer in range(vision["layers"]):
            block, theirs = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
            for name, other in _NAMES.items():
                found[f"{theirs}.{other}.{kind}"] = tower[f"{block}.{name}.{kind}"]
            for name, part in zip("qkv", tower[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{theirs}.self_attn.{name}_proj.{kind}"] = part
    missing = model.load_state_dict({name: value.contiguous() for name, value in found.items()}, strict=False)
    assert not missing.unexpected_keys
    assert not [name for name in missing.missing_keys if name.startswith("vision")]
    weights = model_dir / "openai" / "clip-vit-large-patch14"
    with torch.no_grad():
        model.save_pretrained(weights)
    CLIPImageProcessor().save_pretrained(weights)
    (weights / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1}))
    (weights / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(weights / "vocab.json"), str(weights / "merges.txt")).save_pretrained(weights)
