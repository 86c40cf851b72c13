"""Checkpoint files: what loads, and what each file that does not is said to be."""

import argparse
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from safetyfilter import ClipEncoder
from safetyfilter.errors import QuickGELUMismatchError, WeightsError
from tests.embed.models import TINY, list_tiny, tiny_model, write_config

State = dict[str, torch.Tensor]
POSITIONS = "visual.positional_embedding"


@pytest.fixture(scope="module")
def state() -> State:
    return tiny_model().state_dict()


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory, state: State) -> str:
    """The digest of the tiny model, loaded as open_clip saves it."""
    folder = write_config(tmp_path_factory.mktemp("plain"))
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    return ClipEncoder.load(f"local-dir:{folder}", device="cpu").spec.digest


def loaded(folder: Path, content: object, name: str = "weights.pt") -> ClipEncoder:
    write_config(folder)
    torch.save(content, folder / name)
    return ClipEncoder.load(f"local-dir:{folder}", device="cpu")


FORMS: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "a training checkpoint": lambda state: {"epoch": 3, "name": "x", "state_dict": state, "optimizer": {}},
    "model_state_dict": lambda state: {"model_state_dict": state, "step": 1},
    "the key model": lambda state: {"model": state},
    "distributed": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "a wrapper's attribute": lambda state: {f"model.{name}": value for name, value in state.items()},
    "several": lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    "in half precision, whole numbers apart": lambda state: state | {"logit_scale": state["logit_scale"].double()},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_usual_form_is_the_same_encoder(tmp_path: Path, state: State, digest: str, form: str) -> None:
    assert loaded(tmp_path, FORMS[form](state)).spec.digest == digest


class Wrapped(torch.nn.Module):
    """An archive as OpenAI's are: the model's names, and three numbers beside the weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, value in [*model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]:
            self.register_buffer(name, value.detach().clone())
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(7))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.visual(pixels)


@pytest.mark.parametrize("quick", [False, True])
def test_torchscript_archives_load_and_tell_their_activation(tmp_path: Path, monkeypatch, quick: bool) -> None:
    config = TINY | {"quick_gelu": quick}
    right, wrong = ("tiny-quickgelu", "tiny") if quick else ("tiny", "tiny-quickgelu")
    for name in (right, wrong):
        list_tiny(monkeypatch, name, config | {"quick_gelu": name.endswith("-quickgelu")})
    model = tiny_model(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have other archives, and tracing warns of the model's own checks
        archive = torch.jit.trace(Wrapped(model), torch.zeros(1, 3, 32, 32), check_trace=False)
        archive.save(str(tmp_path / "archive.pt"))
    encoder = ClipEncoder.load(right, pretrained=tmp_path / "archive.pt", preprocess="openai", device="cpu")
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    plain = ClipEncoder.load(right, pretrained=tmp_path / "plain.pt", preprocess="openai", device="cpu")
    assert encoder.spec == plain.spec
    with pytest.raises(QuickGELUMismatchError, match=f"load '{right}' instead"):
        ClipEncoder.load(wrong, pretrained=tmp_path / "archive.pt", preprocess="openai")


def change(name: str, value: torch.Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: value}


BAD_STATES: dict[str, tuple[Callable[[State], object], str]] = {
    "a missing key": (
        lambda state: {name: value for name, value in state.items() if name != "ln_final.bias"},
        r"lacks 1 of \d+ weights \(ln_final\.bias\)",
    ),
    "an extra key": (change("visual.extra", torch.zeros(1)), r"has 1 more \(visual\.extra\)"),
    "a key with control characters": (
        change("visual.\x1b[31m\n" + "x" * 999, torch.zeros(1)),
        r"has 1 more \(visual\.\?\[31m\?x{80,90}\)",
    ),
    "part of the keys prefixed": (
        lambda state: {(f"module.{n}" if n.startswith("visual") else n): v for n, v in state.items()},
        r"lacks \d+ of \d+ weights \(visual\.",
    ),
    "another width": (change("visual.proj", torch.zeros(64, 16)), r"visual\.proj is \(64, 16\), not \(64, 32\)"),
    "another picture size": (change(POSITIONS, torch.zeros(26, 64)), "has 26 places, and that of .* 17"),
    "another text length": (change("positional_embedding", torch.zeros(9, 32)), "has 9 places, and that of .* 77"),
    "transformers": (
        lambda state: {"vision_model.embeddings.class_embedding": torch.zeros(4), "logit_scale": torch.zeros(())},
        "layout of transformers",
    ),
    "LoRA": (
        lambda state: state | {"visual.proj.lora_A.weight": torch.zeros(2)},
        r"LoRA adapters \(visual\.proj\.lora_A\.weight\)",
    ),
    "NaN": (change("visual.proj", torch.full((64, 32), float("nan"))), r"1 of \d+ arrays .* \(visual\.proj\)"),
    "infinity": (change("logit_scale", torch.tensor(float("inf"))), r"infinite numbers \(logit_scale\)"),
    "nothing": (lambda state: {}, "holds nothing, not weights by name"),
    "a list": (lambda state: [1, 2], "holds a list, not weights by name"),
    "other values": (lambda state: {"a": torch.zeros(1), "b": "text"}, "more than weights by name, such as 'b'"),
    "Python objects": (
        lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1)},
        r"\(argparse\.Namespace\)",
    ),
    "a whole model": (lambda state: tiny_model(), r"Python objects \(open_clip\.model\.CLIP\)"),
}


@pytest.mark.parametrize("fault", BAD_STATES)
def test_each_fault_of_the_weights_is_named(tmp_path: Path, state: State, fault: str) -> None:
    make, match = BAD_STATES[fault]
    with pytest.raises(WeightsError, match=rf"can't load the weights of local-dir:.*{match}") as caught:
        loaded(tmp_path, make(state))
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)
    assert "Error(s) in loading" not in str(caught.value)


FILES: dict[str, tuple[str, bytes, str]] = {
    "a Git LFS pointer": (
        "w.pt",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "git lfs pull",
    ),
    "an LFS pointer as safetensors": ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "an error page": ("w.pt", b"<html>404</html>", "saved web page"),
    "a page with a doctype": ("w.bin", b"\n<!DOCTYPE HTML><p>denied", "saved web page"),
    "an error in JSON": ("w.pth", b'{"error": "not found"}', "JSON file"),
    "nothing": ("w.pt", b"", "is empty"),
    "prose": ("w.pt", b"no weights here\n" * 40, "is damaged, or no checkpoint"),
    "a damaged safetensors": ("w.safetensors", b"\xff" * 64, "is damaged, or no checkpoint"),
    "a damaged zip": ("w.pt", b"PK\x03\x04" + bytes(40), "is damaged"),
    "a pickle": ("w.pt", pickle.dumps({"a": 1}), "is damaged, or no checkpoint|not weights by name|more than weights"),
    "a shard": ("model-00001-of-00002.safetensors", b"\2\0\0\0\0\0\0\0{}", "one of the pieces"),
    "a list of shards": ("model.safetensors.index.json.bin", b'{"weight_map": {}}', "JSON file"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("way", ["local-dir", "file"])
def test_what_came_in_the_place_of_weights_is_told(tmp_path: Path, monkeypatch, kind: str, way: str) -> None:
    name, content, match = FILES[kind]
    (write_config(tmp_path) / name).write_bytes(content)
    model, pretrained = (
        (f"local-dir:{tmp_path}", None) if way == "local-dir" else (list_tiny(monkeypatch), tmp_path / name)
    )
    with pytest.raises(WeightsError, match=rf"can't load the weights of .*({match})") as caught:
        ClipEncoder.load(model, pretrained=pretrained, device="cpu")
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_architecture_that_the_weights_fit_is_named(tmp_path: Path) -> None:
    model = open_clip.create_model("ViT-S-32", pretrained=None)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"not those of ViT-S-16: .* load it as ViT-S-32$"):
        ClipEncoder.load("ViT-S-16", pretrained=tmp_path / "w.pt", preprocess="openai", device="cpu")


def test_weights_for_larger_pictures_are_not_resampled(tmp_path: Path, monkeypatch, state: State) -> None:
    larger = TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": 64}}
    name = list_tiny(monkeypatch, "tiny-64", larger)
    list_tiny(monkeypatch, "tiny")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"visual\.positional_embedding has 17 places, .* 65: .*load it as tiny$"):
        ClipEncoder.load(name, pretrained=tmp_path / "w.pt", preprocess="openai", device="cpu")


def test_a_model_in_memory_has_finite_weights() -> None:
    model = tiny_model()
    model.visual.proj.data[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN or infinite numbers \(visual\.proj\)"):
        ClipEncoder(model, architecture="tiny", device="cpu")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("epoch_1.pt", "epoch_9.pt"), "epoch_1.pt, epoch_9.pt"),
        (("epoch_1.bin", "epoch_9.safetensors"), "epoch_1.bin, epoch_9.safetensors"),
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), "must be joined first"),
        (("open_clip_pytorch_model.bin", "epoch_9.PT"), "open_clip_pytorch_model.bin, epoch_9.PT"),
    ],
)
def test_of_several_files_none_is_chosen(tmp_path: Path, state: State, names: tuple[str, str], said: str) -> None:
    for number, name in enumerate(names):
        changed = {n: (v + number if n == "logit_scale" else v).contiguous() for n, v in state.items()}
        (save_file if name.endswith("safetensors") else torch.save)(changed, tmp_path / name)
    write_config(tmp_path)
    with pytest.raises(WeightsError, match=f"several weight files.*{said}"):
        ClipEncoder.load(f"local-dir:{tmp_path}", device="cpu")


def test_one_of_several_files_can_be_named(tmp_path: Path, state: State, digest: str) -> None:
    torch.save(state | {"logit_scale": torch.tensor(3.0)}, tmp_path / "epoch_1.pt")
    torch.save(state, tmp_path / "epoch_9.pt")
    write_config(tmp_path)
    assert ClipEncoder.load(f"local-dir:{tmp_path}", pretrained="epoch_9.pt", device="cpu").spec.digest == digest
    assert ClipEncoder.load(f"local-dir:{tmp_path}", pretrained="epoch_1.pt", device="cpu").spec.digest != digest


def test_both_of_open_clips_own_formats_may_lie_together(tmp_path: Path, state: State, digest: str) -> None:
    write_config(tmp_path)
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "model.safetensors").write_bytes(b"in transformers' layout, as repositories on the hub hold it too")
    assert ClipEncoder.load(f"local-dir:{tmp_path}", device="cpu").spec.digest == digest
    torch.save(state | {"logit_scale": torch.tensor(3.0)}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(WeightsError, match="several weight files"):
        ClipEncoder.load(f"local-dir:{tmp_path}", device="cpu")
