"""Texts and the package that some of them need: images go without it, and texts say what to install."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from safetyfilter import ClipEncoder, EmbedOptions, LinearProbe, ProbeBank, SafetyFilter, zero_shot_probes
from safetyfilter.embed.clip.model import weights_digest
from safetyfilter.errors import MissingExtraError, WeightsError
from tests.conftest import photograph
from tests.embed.models import TINY, list_tiny, tiny_model, write_config

TOKENIZER = TINY | {"text_cfg": TINY["text_cfg"] | {"hf_tokenizer_name": "some/tokenizer"}}
TOWER = TINY | {"text_cfg": {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base"}}
NEEDED = r"transformers is not installed: pip install 'safetyfilter\[text\]', or in a checkout pip install '\.\[text\]'"


@pytest.fixture(autouse=True)
def no_transformers(monkeypatch) -> None:
    """The package can't be imported, whether or not it is installed."""
    monkeypatch.setitem(sys.modules, "transformers", None)


@pytest.fixture(params=["tokenizer", "tower"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ClipEncoder, torch.nn.Module]:
    """An encoder whose texts need transformers, and open_clip's model with the same image tower."""
    model = tiny_model()
    state = model.state_dict()
    if request.param == "tower":
        text = {
            "text.transformer.embeddings.word_embeddings.weight": torch.ones(5, 4),
            "text.proj.0.weight": torch.ones(2),
        }
        state = {n: v for n, v in state.items() if n.startswith("visual.") or n == "logit_scale"} | text
    write_config(tmp_path, TOWER if request.param == "tower" else TOKENIZER)
    torch.save(state, tmp_path / "w.pt")
    return ClipEncoder.load(f"local-dir:{tmp_path}", device="cpu", precision="fp32"), model


def test_images_need_no_transformers(case: tuple[ClipEncoder, torch.nn.Module]) -> None:
    encoder, model = case
    image = photograph("coffee.png")
    transform = open_clip.image_transform(
        32, is_train=False, mean=encoder.spec.mean, std=encoder.spec.std, interpolation="bicubic"
    )
    with torch.no_grad():
        expected = model.encode_image(transform(image)[None], normalize=True)
    np.testing.assert_allclose(encoder.embed([image], EmbedOptions(decode="exact")).vectors, expected, atol=2e-6)
    again = encoder.on("cpu")
    assert again.spec == encoder.spec
    probes = ProbeBank(
        [
            LinearProbe(signal=s, weight=np.ones(32), bias=0.0, encoder=encoder.spec.digest)
            for s in ("explicit", "minor")
        ]
    )
    assert SafetyFilter(again, probes)([image]).keep.shape == (1,)


def test_texts_name_the_extra(case: tuple[ClipEncoder, torch.nn.Module]) -> None:
    encoder, _ = case
    with pytest.raises(MissingExtraError, match=NEEDED):
        encoder.embed_text(["a boat"])
    with pytest.raises(MissingExtraError, match=NEEDED):
        zero_shot_probes(encoder)
    captions = LinearProbe(
        signal="minor", weight=np.ones(64), bias=0.0, encoder=encoder.spec.digest, inputs="image+caption"
    )
    explicit = LinearProbe(signal="explicit", weight=np.ones(32), bias=0.0, encoder=encoder.spec.digest)
    with pytest.raises(MissingExtraError, match=NEEDED):  # and not when the first caption comes
        SafetyFilter(encoder, ProbeBank([captions, explicit]))


def test_the_weights_of_a_text_tower_that_is_not_built_count(tmp_path: Path) -> None:
    visual = {n: v for n, v in tiny_model().state_dict().items() if n.startswith("visual.") or n == "logit_scale"}
    write_config(tmp_path, TOWER)
    digests = set()
    for value in (0.0, 1.0):
        state = visual | {"text.proj.0.weight": torch.full((2,), value), "text.transformer.a.b": torch.zeros(3)}
        torch.save(state, tmp_path / "w.pt")
        encoder = ClipEncoder.load(f"local-dir:{tmp_path}", device="cpu")
        module = torch.nn.Module()
        module.state_dict = lambda state=state: state  # type: ignore[method-assign]
        assert encoder.spec.weights_sha256 == weights_digest(module)
        digests.add(encoder.spec.digest)
    assert len(digests) == 2
    torch.save(visual | {"surplus": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"1 more \(surplus\)"):
        ClipEncoder.load(f"local-dir:{tmp_path}", device="cpu")


def test_a_tokenizer_that_cannot_be_had_is_told(monkeypatch, tmp_path: Path) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError("\x1b[31mno network\x1b[0m\nsecond line")

    monkeypatch.setattr(open_clip, "get_tokenizer", failing)
    file = tmp_path / "w.pt"
    torch.save(tiny_model().state_dict(), file)
    encoder = ClipEncoder.load(list_tiny(monkeypatch), pretrained=file, preprocess="openai", device="cpu")
    with pytest.raises(WeightsError, match=r"can't load the tokenizer of tiny, which texts need: no network\. Without"):
        encoder.embed_text(["a boat"])


def test_the_cache_folder_goes_to_the_tokenizer(monkeypatch, tmp_path: Path) -> None:
    asked = {}

    def tokenizer(model: str, **arguments: Any) -> Any:
        asked.update(arguments, model=model)
        return lambda texts: torch.zeros(len(texts), 77, dtype=torch.int64)

    monkeypatch.setattr(open_clip, "get_tokenizer", tokenizer)
    torch.save(tiny_model().state_dict(), tmp_path / "w.pt")
    encoder = ClipEncoder.load(
        list_tiny(monkeypatch), pretrained=tmp_path / "w.pt", preprocess="openai", cache_dir=tmp_path, device="cpu"
    )
    assert asked == {}
    encoder.embed_text(["a boat"])
    assert asked == {"model": "tiny", "cache_dir": str(tmp_path)}
